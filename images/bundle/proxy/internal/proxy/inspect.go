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
	"net/http"
	"slices"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/scan"
)

// decodedFactor bounds what a compressed body may become, in multiples of scan_limit.
const decodedFactor = 16

func secretRefusal(where string, found *scan.Finding) *judge.Refusal {
	return judge.Refuse(403, "%s holds what looks like a secret (%s)", where, found)
}

// overwritten are the header fields that egress sets: what the agent sends in their place goes nowhere.
func (x *Exchange) overwritten() []string {
	var names []string
	for _, c := range x.Verdict.Credentials {
		names = append(names, http.CanonicalHeaderKey(c.Header))
	}
	return names
}

// inspectHead looks through what leaves with a request's head. What is found is dealt with as the rule says.
func (x *Exchange) inspectHead() *judge.Refusal {
	rule := x.Verdict.Rule.OnSecret
	if rule == policy.Pass || x.State.Scan.Empty() {
		return nil
	}
	set, r := x.State.Scan, x.request
	deal := func(where string, found *scan.Finding, redact func()) *judge.Refusal {
		switch rule {
		case policy.Redact:
			redact()
			x.redacted = true
			return nil
		case policy.Ask:
			return x.ask(where, found)
		}
		return secretRefusal(where, found)
	}
	for where, text := range map[string]string{"the method": r.Method, "the host name": x.Host.Name} {
		if found := set.FindDeep(text); found != nil {
			return secretRefusal(where, found)
		}
	}
	target := originForm(r)
	if found := set.FindDeep(target); found != nil {
		if refusal := deal("the URL", found, func() { target = blot(set, target) }); refusal != nil {
			return refusal
		}
		if rule == policy.Redact && set.FindDeep(target) != nil {
			return secretRefusal("the URL", found) // Behind an encoding: it can't be taken out.
		}
	}
	x.target = target
	if w, ok := x.writer.(interface{ RequestNames() []byte }); ok {
		if found := set.Find(w.RequestNames()); found != nil {
			return secretRefusal("a header's name", found)
		}
	}
	spared := x.overwritten()
	for name, values := range r.Header {
		if slices.Contains(spared, name) {
			continue
		}
		where := fmt.Sprintf("the header %q", judge.Cut(name))
		if found := set.FindDeep(name); found != nil {
			return secretRefusal("a header's name", found)
		}
		for i, value := range values {
			found := set.FindDeep(value)
			if found == nil {
				continue
			}
			if refusal := deal(where, found, func() { values[i] = blot(set, value) }); refusal != nil {
				return refusal
			}
			if rule == policy.Redact && set.FindDeep(values[i]) != nil {
				return secretRefusal(where, found)
			}
		}
	}
	return nil
}

func blot(set *scan.Set, text string) string { return string(set.Stream().Blot([]byte(text), true)) }

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
	whole, refusal := x.readWhole(r.Body)
	if refusal != nil {
		return refusal
	}
	body.stream, body.source = (*scan.Set)(nil).Stream(), io.NopCloser(bytes.NewReader(whole))
	if coding != "" {
		return x.inspectEncoded(coding, whole, rule)
	}
	found := set.Find(whole)
	switch {
	case found == nil:
		return nil
	case rule == policy.Ask:
		return x.ask("the body", found)
	}
	body.source = io.NopCloser(bytes.NewReader(bytes.Clone(set.Stream().Blot(whole, true))))
	x.redacted = true
	return nil
}

func (x *Exchange) readWhole(source io.Reader) ([]byte, *judge.Refusal) {
	limit := x.State.Judge.Policy().Egress.ScanLimit
	whole, err := io.ReadAll(io.LimitReader(source, int64(limit)+1))
	if err != nil {
		return nil, judge.Refuse(400, "the body ended early: %s", err)
	}
	if len(whole) > limit {
		return nil, judge.Refuse(413, "the body is larger than egress.scan_limit (%d bytes), and can't be looked through as it streams", limit)
	}
	return whole, nil
}

func (x *Exchange) inspectEncoded(coding string, whole []byte, rule string) *judge.Refusal {
	limit := int64(decodedFactor * x.State.Judge.Policy().Egress.ScanLimit)
	reader, err := decoder(coding, bytes.NewReader(whole))
	if err != nil {
		return judge.Refuse(400, "the body is not %s: %s", coding, err)
	}
	stream, buffer, total := x.State.Scan.Stream(), make([]byte, 64<<10), int64(0)
	for {
		n, err := reader.Read(buffer)
		total += int64(n)
		_, found := stream.Write(buffer[:n])
		if err == io.EOF && found == nil {
			_, found = stream.Close()
		}
		switch {
		case found != nil && rule == policy.Ask:
			return x.ask("the body", found)
		case found != nil:
			return secretRefusal("the body", found)
		case total > limit:
			return judge.Refuse(413, "the body is larger than %d bytes when it is decoded", limit)
		case err == io.EOF:
			return nil
		case err != nil:
			return judge.Refuse(400, "the body is not %s: %s", coding, err)
		}
	}
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
		b.refuse(secretRefusal("the body", found))
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
				return secretRefusal("a trailer", found)
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
