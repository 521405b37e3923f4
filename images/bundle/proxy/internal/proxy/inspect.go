package proxy

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/scan"
	"bottle/proxy/internal/wire"
)

// decodedFactor bounds what a compressed body may become, in multiples of scan_limit.
const decodedFactor = 16

// heldBytes is how much of all bodies together may be held as a whole, in bytes; a larger egress.scan_limit is the bound.
const heldBytes = 64 << 20

func secretRefusal(where, names string) *judge.Refusal {
	return judge.Refuse(403, "%s holds what looks like a secret (%s)", where, names)
}

// A suspicion is a secret that the operator is to be asked about.
type suspicion struct {
	where string
	names []string
}

// deal does what the rule says about the secrets that a part of the request holds, if it holds any. redact takes them out
// of it, and reports whether that can be done; nil: it can't.
func (x *Exchange) deal(where string, names []string, redact func() bool) *judge.Refusal {
	if len(names) == 0 {
		return nil
	}
	switch x.Verdict.Rule.OnSecret {
	case policy.Ask:
		x.suspicions = append(x.suspicions, suspicion{where, names})
		return nil
	case policy.Redact:
		if redact != nil && redact() {
			x.redacted.Store(true)
			return nil
		}
	}
	return secretRefusal(where, strings.Join(names, ", "))
}

// overwritten are the header fields that egress sets: what the agent sends in their place goes nowhere.
func (x *Exchange) overwritten() []string {
	var names []string
	for _, c := range x.Verdict.Credentials {
		names = append(names, http.CanonicalHeaderKey(c.Header))
	}
	return names
}

// inspectHead looks through what leaves with a request's head. What is found is dealt with as the rule says; methods, host
// names and names of header fields are no place for a secret whatever it says.
func (x *Exchange) inspectHead() *judge.Refusal {
	if x.Verdict.Rule.OnSecret == policy.Pass || x.State.Scan.Empty() {
		return nil
	}
	set, r := x.State.Scan, x.request
	for where, text := range map[string]string{"the method": r.Method, "the host name": x.Host.Name} {
		if found := set.FindDeep(text); found != nil {
			return secretRefusal(where, found.String())
		}
	}
	for name := range x.fieldNames() {
		if found := set.FindDeep(name); found != nil {
			return secretRefusal("a header's name", found.String())
		}
	}
	without := func(text *string) func() bool {
		return func() bool {
			*text = x.blot(set, *text)
			return set.FindDeep(*text) == nil
		}
	}
	if refusal := x.deal("the URL", set.NamesDeep(x.target), without(&x.target)); refusal != nil {
		return refusal
	}
	spared := x.overwritten()
	for name, values := range r.Header {
		if slices.Contains(spared, name) {
			continue
		}
		for i, value := range values {
			if refusal := x.deal(fmt.Sprintf("the header %q", judge.Cut(name)), set.NamesDeep(value), without(&values[i])); refusal != nil {
				return refusal
			}
		}
	}
	return nil
}

// fieldNames are the names of the request's header fields: as they were written, where they were in HTTP/1.1, since the usual
// form has another case.
func (x *Exchange) fieldNames() iter.Seq[string] {
	if w, ok := x.writer.(*wire.Response); ok {
		return strings.Lines(w.RequestNames())
	}
	return maps.Keys(x.request.Header)
}

// blotter is a stream whose findings stand in the audit.
func (x *Exchange) blotter(set *scan.Set) *scan.Stream {
	stream := set.Stream()
	stream.Blotted = x.blottedOut
	return stream
}

func (x *Exchange) blottedOut(found *scan.Finding) {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if name := found.String(); !slices.Contains(x.blotted, name) {
		x.blotted = append(x.blotted, name)
	}
}

func (x *Exchange) blot(set *scan.Set, text string) string {
	if set.Empty() {
		return text
	}
	return string(x.blotter(set).Blot([]byte(text), true))
}

func (x *Exchange) blotAll(set *scan.Set, values []string) []string {
	if !set.Empty() {
		for i, value := range values {
			values[i] = x.blot(set, value)
		}
	}
	return values
}

// codings are the content codings that can be looked into (RFC 9110, 8.4.1).
var codings = []string{"gzip", "x-gzip", "deflate", "br", "zstd"}

// coding returns a body's content coding, "" for none.
func coding(header http.Header) (string, *judge.Refusal) {
	var list []string
	for _, value := range header["Content-Encoding"] {
		for one := range strings.SplitSeq(value, ",") {
			if one = strings.ToLower(strings.TrimSpace(one)); one != "" && one != "identity" {
				list = append(list, one)
			}
		}
	}
	if len(list) == 0 {
		return "", nil
	}
	if len(list) > 1 || !slices.Contains(codings, list[0]) {
		return "", judge.Refuse(415, "the content encoding %q can't be looked into", judge.Cut(strings.Join(list, ", ")))
	}
	return list[0], nil
}

func decoder(coding string, r io.Reader) (io.Reader, error) {
	switch coding {
	case "gzip", "x-gzip":
		return gzip.NewReader(r)
	case "br":
		return brotli.NewReader(r), nil
	case "zstd":
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(16<<20))
		return d, err
	}
	// Some senders of "deflate" leave the zlib format's two bytes out.
	head := make([]byte, 2)
	if n, err := io.ReadFull(r, head); err != nil {
		return bytes.NewReader(head[:n]), nil
	}
	whole := io.MultiReader(bytes.NewReader(head), r)
	if head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		return zlib.NewReader(whole)
	}
	return flate.NewReader(whole), nil
}

// inspectBody prepares the body of the outgoing request: looked through as it streams, or, where it is compressed or may
// be changed or asked about, as a whole before the first byte of the request leaves.
func (x *Exchange) inspectBody(out *http.Request) *judge.Refusal {
	r := x.request
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		x.sending.Store(false)
		return nil
	}
	body := &outgoingBody{exchange: x, source: r.Body}
	out.Body = body
	rule, set := x.Verdict.Rule.OnSecret, x.State.Scan
	if rule == policy.Pass || set.Empty() {
		body.stream = (*scan.Set)(nil).Stream()
		return nil
	}
	if encoding := r.Header.Get("Grpc-Encoding"); encoding != "" && encoding != "identity" {
		return judge.Refuse(415, "the message encoding %q of gRPC can't be looked into", judge.Cut(encoding))
	}
	coding, refusal := coding(r.Header)
	if refusal != nil {
		return refusal
	}
	if coding == "" && rule == policy.Block {
		body.stream = set.Stream()
		if isGRPC(r.Header) {
			body.grpc = new(grpcFrames)
		}
		return nil
	}
	whole, refusal := x.readWhole(r)
	if refusal != nil {
		return refusal
	}
	body.stream = (*scan.Set)(nil).Stream()
	redact := func() bool {
		whole = bytes.Clone(x.blotter(set).Blot(whole, true))
		return true
	}
	if coding != "" {
		redact = nil
		if refusal := x.inspectEncoded(coding, whole); refusal != nil {
			return refusal
		}
	}
	refusal = x.deal("the body", set.Names(whole), redact)
	body.source = io.NopCloser(bytes.NewReader(whole))
	return refusal
}

// readWhole reads a body as a whole. Where too many are held, it waits until there is room.
func (x *Exchange) readWhole(r *http.Request) ([]byte, *judge.Refusal) {
	limit := x.State.Judge.Policy().Egress.ScanLimit
	tooLarge := judge.Refuse(413, "the body is larger than egress.scan_limit (%d bytes), and can't be looked through as it streams", limit)
	size := int64(limit)
	if r.ContentLength > size {
		return nil, tooLarge
	} else if r.ContentLength >= 0 {
		size = r.ContentLength
	}
	if err := x.State.held.Acquire(x.context, size); err != nil {
		return nil, judge.Refuse(503, "the request was given up while others were looked through")
	}
	x.release = func() { x.State.held.Release(size) }
	whole, err := io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
	if err != nil {
		return nil, judge.Refuse(400, "the body ended early: %s", err)
	}
	if len(whole) > limit {
		return nil, tooLarge
	}
	return whole, nil
}

// inspectEncoded looks through what a body decodes to. The body as it is has to be looked through as well: decoders pass
// over what follows the end.
func (x *Exchange) inspectEncoded(coding string, whole []byte) *judge.Refusal {
	limit := int64(decodedFactor * x.State.Judge.Policy().Egress.ScanLimit)
	reader, err := decoder(coding, bytes.NewReader(whole))
	if err != nil {
		return judge.Refuse(400, "the body is not %s: %s", coding, err)
	}
	stream, buffer, total := x.State.Scan.Stream(), make([]byte, 64<<10), int64(0)
	var names []string
	for ended := false; !ended; {
		n, err := reader.Read(buffer)
		total += int64(n)
		if ended = err == io.EOF; err != nil && !ended {
			return judge.Refuse(400, "the body is not %s: %s", coding, err)
		}
		if total > limit {
			return judge.Refuse(413, "the body is larger than %d bytes when it is decoded", limit)
		}
		_, found := stream.Write(buffer[:n])
		if ended && found == nil {
			_, found = stream.Close()
		}
		for ; found != nil; _, found = stream.Write(nil) {
			if name := found.String(); !slices.Contains(names, name) {
				names = append(names, name)
			}
			stream.Release(found)
		}
	}
	return x.deal("the body", names, nil)
}

var errRefused = errors.New("the body was refused")

// An outgoingBody is what of a request's body has been found clean.
type outgoingBody struct {
	exchange *Exchange
	source   io.ReadCloser
	stream   *scan.Stream
	buffer   []byte
	clean    []byte
	err      error
	grpc     *grpcFrames // nil for other bodies
}

func (b *outgoingBody) Read(p []byte) (int, error) {
	if b.buffer == nil {
		b.buffer = make([]byte, 32<<10)
	}
	for len(b.clean) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		b.fill()
	}
	n := copy(p, b.clean)
	b.clean = b.clean[n:]
	b.exchange.sent.Add(int64(n))
	if len(b.clean) == 0 {
		return n, b.err
	}
	return n, nil
}

func (b *outgoingBody) fill() {
	x := b.exchange
	n, err := b.source.Read(b.buffer)
	x.live.Touch()
	clean, found := b.stream.Write(b.buffer[:n])
	b.clean, b.err = clean, err
	if b.grpc != nil && found == nil {
		ends := b.grpc.follow(b.buffer[:n])
		if b.grpc.compressed {
			b.refuse(judge.Refuse(415, "a compressed message of gRPC can't be looked into"))
			return
		}
		if ends && err == nil {
			b.clean = append(bytes.Clone(clean), b.stream.Flush()...)
		}
	}
	if err == io.EOF && found == nil {
		// What was clean before is part of the same buffer, which Close would shift.
		b.clean = bytes.Clone(clean)
		clean, found = b.stream.Close()
		b.clean = append(b.clean, clean...)
		x.sending.Store(false)
		if refusal := x.inspectTrailers(); refusal != nil {
			b.refuse(refusal)
			return
		}
	}
	switch {
	case found != nil:
		b.refuse(secretRefusal("the body", found.String()))
	case err != nil && err != io.EOF:
		b.refuse(judge.Refuse(400, "the body ended early: %s", err))
	}
}

// refuse resets the request before what was found, or what was held back with it, has left.
func (b *outgoingBody) refuse(refusal *judge.Refusal) {
	b.clean, b.err = nil, errRefused
	b.exchange.end(refusal)
}

func (b *outgoingBody) Close() error { return nil }

// forbiddenTrailers are fields that say where a request goes or ends (RFC 9110, 6.5.1).
var forbiddenTrailers = []string{"Content-Length", "Transfer-Encoding", "Host", "Trailer", "Te", "Connection", "Upgrade",
	"Proxy-Authorization", "Authorization", "Content-Encoding", "Content-Type", "Content-Range", "Expect", "Cookie", "Set-Cookie"}

func (x *Exchange) inspectTrailers() *judge.Refusal {
	for name, values := range x.request.Trailer {
		if slices.Contains(forbiddenTrailers, name) || slices.Contains(x.overwritten(), name) {
			return judge.Refuse(400, "a trailer must not be %q", judge.Cut(name))
		}
		if x.Verdict.Rule.OnSecret == policy.Pass || x.State.Scan.Empty() {
			continue
		}
		for _, value := range append(values, name) {
			if found := x.State.Scan.FindDeep(value); found != nil {
				return secretRefusal("a trailer", found.String())
			}
		}
	}
	return nil
}

// newID returns a name for a request that the operator is asked about.
func newID() string {
	var id [8]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}
