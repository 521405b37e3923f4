package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/live"
	"bottle/proxy/internal/scan"
	"bottle/proxy/internal/wire"
)

var quiet = log.New(io.Discard, "", 0)

// hopByHop are the fields that a proxy keeps to itself (RFC 9110, 7.6.1 and 11.7.2).
var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings"}

// perConnection is how many requests there may be at once, as a multiple of limits.connections: streams of HTTP/2 cost
// nearly as much as connections.
const perConnection = 4

// An Exchange is one request and its answer.
type Exchange struct {
	engine    *Engine
	front     *front
	State     *State
	Host      judge.Host
	Scheme    string
	Consumer  string
	Verdict   *judge.Verdict
	websocket bool
	// target is what the origin is asked for, in origin form, with what was blotted out of it.
	target     string
	redacted   atomic.Bool
	suspicions []suspicion
	release    func() // gives back the room of a body that is held as a whole; nil for none
	context    context.Context
	request    *http.Request
	writer     http.ResponseWriter

	live     live.Exchange
	cancel   context.CancelFunc
	back     atomic.Pointer[live.Conn] // nil for a connection that other exchanges share
	entry    audit.Entry
	began    time.Time
	sent     atomic.Int64
	sending  atomic.Bool
	mutex    sync.Mutex
	blotted  []string       // names of what was taken out, of the request or the answer
	refusal  *judge.Refusal // why it was ended while under way
	answered bool
}

// request serves one request, whatever the connection.
func (f *front) request(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		f.connect(w, r)
		return
	}
	if f.own(w, r) {
		return
	}
	x := &Exchange{engine: f.engine, front: f, State: f.engine.State(), Consumer: f.consumer, request: r, writer: w, began: time.Now()}
	x.entry = audit.Entry{Event: "request", Consumer: f.consumer, Method: judge.Cut(r.Method), Path: auditPath(r)}
	if refusal := x.judge(); refusal != nil {
		f.refuse(w, r, x.account(0, 0), refusal)
		return
	}
	x.run()
}

// auditPath is a request's path without its query, where keys tend to be.
func auditPath(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if r.URL.Host != "" {
		path = r.URL.EscapedPath()
	}
	return judge.Cut(path)
}

func (x *Exchange) judge() *judge.Refusal {
	r, f := x.request, x.front
	if f.tunnel == nil && f.kind == ProxyDoor && r.URL.Host == "" {
		return judge.Refuse(400, "this is a proxy; a request to it names the whole URL")
	}
	if err := wire.CheckTarget(r.RequestURI); err != nil { // HTTP/2's server takes more than HTTP/1.1 can carry.
		return judge.Refuse(400, "%s", err)
	}
	host, scheme, refusal := f.target(r)
	x.Host, x.Scheme = host, scheme
	x.entry.Host, x.entry.Port = host.Name, host.Port
	if f.engine.Switch.On() {
		return judge.Refuse(503, killReason)
	}
	if refusal != nil {
		return refusal
	}
	if x.Verdict, refusal = x.State.Judge.Request(x.Consumer, host, r.Method, originForm(r)); refusal != nil {
		return refusal
	}
	x.entry.Rule = x.Verdict.Rule.Name
	return x.upgrade()
}

// originForm is the target as the origin gets it, byte for byte.
func originForm(r *http.Request) string {
	if r.URL.Host == "" {
		return r.RequestURI
	}
	_, rest, _ := strings.Cut(r.RequestURI, "//")
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		if rest[i] == '?' {
			return "/" + rest[i:]
		}
		return rest[i:]
	}
	return "/"
}

// upgrade lets websockets through and nothing else. h2c is not offered, so an offer of it is passed over (RFC 9113, 3.1).
func (x *Exchange) upgrade() *judge.Refusal {
	for _, value := range x.request.Header["Trailer"] {
		for name := range strings.SplitSeq(value, ",") {
			if name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)); slices.Contains(forbiddenTrailers, name) {
				return judge.Refuse(400, "a trailer must not be %q", judge.Cut(name))
			}
		}
	}
	for _, value := range x.request.Header["Upgrade"] {
		for protocol := range strings.SplitSeq(value, ",") {
			switch protocol = strings.ToLower(strings.TrimSpace(protocol)); {
			case protocol == "websocket" && x.request.Method == http.MethodGet && x.request.ProtoMajor == 1:
				x.websocket = true
			case protocol == "h2c" || protocol == "":
			default:
				return judge.Refuse(403, "an upgrade to %q is refused: only websockets are passed on", judge.Cut(protocol))
			}
		}
	}
	return nil
}

// outgoing is the request for the next hop.
func (x *Exchange) outgoing(ctx context.Context) *http.Request {
	header := x.request.Header
	for _, value := range header["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			if name = textproto.TrimString(name); name != "" {
				delete(header, textproto.CanonicalMIMEHeaderKey(name))
			}
		}
	}
	trailers := header.Get("Te")
	for _, name := range hopByHop {
		delete(header, name)
	}
	if strings.EqualFold(trailers, "trailers") {
		header["Te"] = []string{"trailers"}
	}
	if x.websocket {
		header["Connection"], header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
		// Without extensions frames are what they say they are: nothing in them is compressed.
		delete(header, "Sec-Websocket-Extensions")
	}
	if _, has := header["User-Agent"]; !has {
		header["User-Agent"] = nil // Go would name itself.
	}
	path, query, asked := strings.Cut(x.target, "?")
	where := &url.URL{Scheme: x.Scheme, Host: x.Host.String(), RawQuery: query, ForceQuery: asked}
	if strings.HasPrefix(path, "//") {
		where.Path = path
		if decoded, err := url.PathUnescape(path); err == nil {
			where.Path, where.RawPath = decoded, path
		}
	} else {
		where.Opaque = path
	}
	out := (&http.Request{Method: x.request.Method, URL: where, Host: x.request.Host, Header: header, ContentLength: x.request.ContentLength,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Trailer: x.request.Trailer}).WithContext(ctx)
	return out
}

// stale reports why the exchange may not go on under the policy of now.
func (x *Exchange) stale() string {
	state := x.engine.State()
	if state == x.State && len(state.Judge.Policy().Approvals) == 0 {
		return ""
	}
	verdict, refusal := state.Judge.Request(x.Consumer, x.Host, x.request.Method, originForm(x.request))
	if refusal != nil {
		return "revoked: " + refusal.Reason
	}
	before, now := x.Verdict.Rule, verdict.Rule
	before.Name, now.Name = "", ""
	if !reflect.DeepEqual(before, now) {
		return "the rule for " + x.Host.String() + " has changed"
	}
	if !reflect.DeepEqual(x.Verdict.Credentials, verdict.Credentials) {
		return "the credentials for " + x.Host.String() + " have changed"
	}
	for _, c := range verdict.Credentials {
		if x.State.Values[c.ValueFile] != state.Values[c.ValueFile] {
			return "the credential " + c.Name + " has been rotated"
		}
	}
	if x.sending.Load() && !slices.Equal(x.State.Judge.Policy().Pipelock.Patterns, state.Judge.Policy().Pipelock.Patterns) {
		return "the patterns have changed"
	}
	return ""
}

// end records why the exchange is over before its time, once, and stops it towards the next hop.
func (x *Exchange) end(refusal *judge.Refusal) {
	x.mutex.Lock()
	if x.refusal == nil {
		x.refusal = refusal
	}
	x.mutex.Unlock()
	if back := x.back.Load(); back != nil {
		back.Reset()
	}
	x.cancel()
}

// cut is end for what is cut on both sides.
func (x *Exchange) cut(reason string) {
	x.end(&judge.Refusal{Status: 503, Reason: reason})
	if x.request.ProtoMajor == 1 || x.engine.Switch.On() {
		x.front.conn.Reset()
		return
	}
	// The handler resets the stream; one that is stuck in a write to a client that does not read can't.
	time.AfterFunc(300*time.Millisecond, func() {
		x.mutex.Lock()
		defer x.mutex.Unlock()
		if !x.answered {
			x.front.conn.Reset()
		}
	})
}

func (x *Exchange) run() {
	ctx, cancel := context.WithCancel(x.request.Context())
	defer cancel()
	x.cancel = cancel
	x.live.Stale, x.live.Cut, x.live.Idle = x.stale, x.cut, time.Duration(x.Verdict.Rule.IdleMs)*time.Millisecond
	x.sending.Store(true)
	if limit := perConnection * x.State.Judge.Policy().Limits.Connections; x.engine.Live.Exchanges() >= limit {
		x.front.refuse(x.writer, x.request, x.entry, judge.Refuse(503, "more than %d requests at once", limit))
		return
	}
	if !x.engine.Live.Begin(&x.live) {
		x.front.refuse(x.writer, x.request, x.entry, judge.Refuse(503, killReason))
		return
	}
	defer x.finish()
	if x.engine.State() != x.State {
		// The policy has changed since it was judged, and the review may have passed it over.
		if reason := x.stale(); reason != "" {
			x.refuse(judge.Refuse(403, "%s", reason))
			return
		}
	}
	x.context = ctx
	x.target = originForm(x.request)
	if refusal := x.inspectHead(); refusal != nil {
		x.refuse(refusal)
		return
	}
	out := x.outgoing(httptrace.WithClientTrace(ctx, x.trace()))
	if refusal := x.inspectBody(out); refusal != nil {
		x.refuse(refusal)
		return
	}
	if refusal := x.ask(); refusal != nil {
		x.refuse(refusal)
		return
	}
	x.engine.Role.Prepare(x, out)
	answer, err := x.State.Transport(x.Consumer, x.Verdict.Rule.Private).RoundTrip(out)
	if err != nil {
		x.failed(err)
		return
	}
	x.answer(answer)
}

func (x *Exchange) finish() {
	x.engine.Live.End(&x.live)
	if x.release != nil {
		x.release()
	}
	x.mutex.Lock()
	x.answered = true
	x.mutex.Unlock()
}

// trace learns which connection the request got, and passes informational answers on.
func (x *Exchange) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			conn, shared := info.Conn, false
			if session, ok := conn.(*tls.Conn); ok {
				shared = session.ConnectionState().NegotiatedProtocol == "h2"
				conn = session.NetConn()
			}
			if back, ok := conn.(*live.Conn); ok && !shared {
				x.back.Store(back)
			}
		},
		Got1xxResponse: func(code int, fields textproto.MIMEHeader) error {
			x.live.Touch()
			if code == http.StatusContinue {
				return nil
			}
			header := x.writer.Header()
			x.clear(http.Header(fields))
			fields.Del("Content-Length") // It frames nothing here (RFC 9110, 8.6).
			for name, values := range fields {
				header[name] = x.blotAll(x.blotting(), values)
			}
			x.writer.WriteHeader(code)
			clear(header)
			return nil
		},
	}
}

// failed answers a request that got no answer.
func (x *Exchange) failed(err error) {
	x.mutex.Lock()
	refusal := x.refusal
	x.mutex.Unlock()
	switch {
	case refusal != nil && x.front.conn.Closed():
		x.entry.Verdict, x.entry.Reason = "reset", refusal.Reason
		x.engine.refused(x.account(0, 0))
		panic(http.ErrAbortHandler)
	case refusal != nil:
		x.refuse(refusal)
	case x.request.Context().Err() != nil:
		x.entry.Verdict, x.entry.Reason = "reset", "the client hung up"
		x.engine.Audit.Write(x.account(0, 0))
		panic(http.ErrAbortHandler)
	default:
		x.refuse(refusalOf(err))
	}
}

// refuse answers the request itself. The reason may hold what the host sent.
func (x *Exchange) refuse(refusal *judge.Refusal) {
	refusal.Reason = x.blot(x.State.Secrets, refusal.Reason)
	x.front.refuse(x.writer, x.request, x.account(0, 0), refusal)
}

// refusalOf is what a client is told about an error on the way to the next hop.
func refusalOf(err error) *judge.Refusal {
	var refusal *judge.Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	var network *net.OpError
	if errors.As(err, &network) && network.Op == "dial" {
		return judge.Refuse(502, "the host can't be reached: %s", network.Err)
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return judge.Refuse(502, "the host's certificate is not trusted: %s", certificate.Err)
	}
	return judge.Refuse(502, "no answer from the host: %s", judge.Cut(err.Error()))
}

func (x *Exchange) account(received int64, status int) audit.Entry {
	entry := x.entry
	entry.Path = x.auditedPath()
	entry.SentBytes, entry.ReceivedBytes, entry.Status = x.sent.Load(), received, status
	entry.DurationMs = time.Since(x.began).Milliseconds()
	x.mutex.Lock()
	entry.Blotted = strings.Join(x.blotted, ", ")
	x.mutex.Unlock()
	return entry
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// answer passes the origin's answer on as it comes.
func (x *Exchange) answer(answer *http.Response) {
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusSwitchingProtocols {
		x.switched(answer)
		return
	}
	header := x.writer.Header()
	x.clear(answer.Header)
	x.unname(answer.Trailer)
	blotting := x.blotting()
	source, refusal := x.decoded(answer, blotting)
	if refusal != nil {
		x.end(refusal)
		x.refuse(refusal)
		return
	}
	for name, values := range answer.Header {
		header[name] = x.blotAll(blotting, values)
	}
	if _, phrase, _ := strings.Cut(answer.Status, " "); phrase != http.StatusText(answer.StatusCode) {
		if w, ok := x.writer.(*wire.Response); ok {
			w.SetReason(x.blot(blotting, phrase))
		}
	}
	empty := answer.Body == http.NoBody || answer.ContentLength == 0
	if empty && answer.StatusCode >= 200 && answer.StatusCode != 204 && answer.StatusCode != 304 && x.request.Method != http.MethodHead {
		header["Content-Length"] = []string{"0"}
	}
	if len(answer.Trailer) > 0 {
		header["Trailer"] = slices.Sorted(maps.Keys(answer.Trailer))
		if x.request.ProtoMajor == 1 {
			delete(header, "Content-Length") // Trailers come after chunks alone.
		}
	}
	x.writer.WriteHeader(answer.StatusCode)
	var received int64
	var err error
	if !empty && x.request.Method != http.MethodHead {
		received, err = x.copyBody(source, blotting)
	}
	if err != nil {
		x.ended(err, received, answer.StatusCode)
		panic(http.ErrAbortHandler)
	}
	x.unname(answer.Trailer) // Some are not announced.
	for name, values := range answer.Trailer {
		header[http.TrailerPrefix+name] = x.blotAll(blotting, values)
	}
	x.entry.Verdict = "allowed"
	if x.redacted.Load() {
		x.entry.Verdict = "redacted"
	}
	x.engine.Audit.Write(x.account(received, answer.StatusCode))
}

// clientGone is an error of writing to the client.
type clientGone struct{ error }

// ended records an answer that was not passed on as a whole.
func (x *Exchange) ended(err error, received int64, status int) {
	x.mutex.Lock()
	refusal := x.refusal
	x.mutex.Unlock()
	var gone clientGone
	switch {
	case refusal != nil:
		x.entry.Reason = refusal.Reason
	case errors.As(err, &gone) || x.request.Context().Err() != nil:
		x.entry.Reason = "the client hung up"
	default:
		x.entry.Reason = "the answer ended early: " + x.blot(x.State.Secrets, judge.Cut(err.Error()))
	}
	x.entry.Verdict = "reset"
	if entry := x.account(received, status); refusal != nil {
		x.engine.refused(entry)
	} else {
		x.engine.Audit.Write(entry)
	}
}

// clear takes out of an answer's fields what the agent does not get: what belongs to the connection to the host, and
// fields that are called like a credential.
func (x *Exchange) clear(fields http.Header) {
	removeHops(fields)
	x.unname(fields)
}

func (x *Exchange) unname(fields http.Header) {
	if x.blotting().Empty() {
		return
	}
	for name := range fields {
		if x.State.isNamed(name) {
			delete(fields, name)
		}
	}
}

func removeHops(header http.Header) {
	for _, value := range header["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			delete(header, textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)))
		}
	}
	for _, name := range hopByHop {
		delete(header, name)
	}
}

func (x *Exchange) copyBody(source io.Reader, blotting *scan.Set) (received int64, err error) {
	flusher, _ := x.writer.(interface{ FlushError() error })
	if err := flusher.FlushError(); err != nil {
		return 0, clientGone{err}
	}
	pooled := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(pooled)
	buffer := *pooled
	stream := x.blotter(blotting)
	for {
		n, readErr := source.Read(buffer)
		x.live.Touch()
		received += int64(n)
		piece := buffer[:n]
		if !blotting.Empty() {
			piece = stream.Blot(piece, readErr == io.EOF)
		}
		if len(piece) > 0 {
			if _, err := x.writer.Write(piece); err != nil {
				return received, clientGone{err}
			}
			if err := flusher.FlushError(); err != nil {
				return received, clientGone{err}
			}
		}
		if readErr == io.EOF {
			return received, nil
		}
		if readErr != nil {
			return received, readErr
		}
	}
}

// blotting is what has to be blotted out of the answer: nothing where no credential goes to that host.
func (x *Exchange) blotting() *scan.Set {
	if x.State.Judge.HasCredential(x.Host.Name) {
		return x.State.Secrets
	}
	return nil
}

// decoded is the answer's body as it can be looked through. Hosts that get a credential are asked for no encoding; one
// that uses some all the same has it taken off.
func (x *Exchange) decoded(answer *http.Response, blotting *scan.Set) (io.Reader, *judge.Refusal) {
	if within := answer.Header.Get("Grpc-Encoding"); !blotting.Empty() && within != "" && within != "identity" {
		return nil, judge.Refuse(502, "the host's answer can't be looked through for credentials: its messages are compressed (%q)", judge.Cut(within))
	}
	if blotting.Empty() || answer.Body == http.NoBody || answer.Header.Get("Content-Encoding") == "" {
		return answer.Body, nil
	}
	used, refusal := coding(answer.Header)
	if refusal == nil && answer.StatusCode == http.StatusPartialContent {
		refusal = judge.Refuse(502, "a part of an encoded answer")
	}
	if refusal != nil {
		refusal.Status, refusal.Reason = 502, "the host's answer can't be looked through for credentials: "+refusal.Reason
		return nil, refusal
	}
	if used == "" {
		return answer.Body, nil
	}
	reader, err := decoder(used, answer.Body)
	if err != nil {
		return nil, judge.Refuse(502, "the host's answer is not %s: %s", used, err)
	}
	answer.Header.Del("Content-Encoding")
	answer.Header.Del("Content-Length")
	answer.ContentLength = -1
	return reader, nil
}

// auditedPath is the path without what was found in it.
func (x *Exchange) auditedPath() string { return blotPath(x.State.Scan, x.entry.Path) }

func blotPath(set *scan.Set, path string) string {
	if set.FindDeep(path) == nil {
		return path
	}
	if path = string(set.Stream().Blot([]byte(path), true)); set.FindDeep(path) != nil {
		return "…"
	}
	return path
}

// Used records the names of the credentials that a request carries.
func (x *Exchange) Used(names []string) { x.entry.Credential = strings.Join(names, ",") }
