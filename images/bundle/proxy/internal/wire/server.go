package wire

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Limits of a connection that is asked nothing, or slowly.
const (
	idleTimeout = 10 * time.Minute
	headTimeout = 30 * time.Second
	// discardLimit is how much of a refused request's body is read, in bytes, so that the client sees the answer and
	// no reset.
	discardLimit = 1 << 30
	bufferSize   = 4 << 10
	writeBuffer  = 32 << 10
)

// A Resetter is a connection that can be ended by a reset, so that nothing cut short is taken for whole.
type Resetter interface{ Reset() }

// Reset ends the connection by a reset where it can.
func Reset(conn net.Conn) {
	if r, ok := conn.(Resetter); ok {
		r.Reset()
		return
	}
	conn.Close()
}

// Options of Serve.
type Options struct {
	// Refused is called for a request that is refused before the handler sees it.
	Refused func(err error)
	// HeadLimit is the longest head of a request that is read, in bytes.
	HeadLimit int
	// Name stands before the reasons that the server itself gives.
	Name string
}

// errAborted is what a body's reader gets once the request's handler has returned.
var errAborted = errors.New("wire: the request has ended")

var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, writeBuffer) }}

// Serve answers the requests of a connection, one after the other, until either side ends it.
//
// r reads from conn, with what has been read ahead. The handler may take the connection over by Response.Hijack; Serve
// then returns without closing it. A handler that panics with http.ErrAbortHandler resets the connection.
func Serve(ctx context.Context, conn net.Conn, r *bufio.Reader, options Options, handler http.Handler) {
	s := &session{ctx: ctx, conn: conn, in: r, options: options, handler: handler}
	for s.next() {
	}
	if !s.hijacked {
		s.close()
	}
}

type session struct {
	ctx      context.Context
	conn     net.Conn
	in       *bufio.Reader
	options  Options
	handler  http.Handler
	hijacked bool
	reset    bool
	linger   bool
}

func (s *session) close() {
	if s.reset {
		Reset(s.conn)
		return
	}
	if s.linger {
		linger(s.conn, s.in)
	}
	s.conn.Close()
}

// linger says that nothing more comes, and reads on until the client has heard it: a close with unread bytes would be a
// reset, and the client might lose the answer to it.
func linger(conn net.Conn, in io.Reader) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	conn.SetReadDeadline(time.Now().Add(discardDeadline))
	io.CopyN(io.Discard, in, discardLimit)
}

// next serves one request, and reports whether there may be another one.
func (s *session) next() bool {
	s.conn.SetReadDeadline(time.Now().Add(idleTimeout))
	if _, err := s.in.Peek(1); err != nil {
		return false
	}
	s.conn.SetReadDeadline(time.Now().Add(headTimeout))
	head, err := ReadHead(s.in, s.options.HeadLimit)
	if err != nil {
		s.refuse(err)
		return false
	}
	s.conn.SetReadDeadline(time.Time{})
	return s.serve(head)
}

// refuse answers what can't be read as a request.
func (s *session) refuse(err error) {
	code := http.StatusBadRequest
	var wrong *MalformedError
	var large HeadTooLargeError
	switch {
	case errors.As(err, &large):
		code = http.StatusRequestHeaderFieldsTooLarge
	case !errors.As(err, &wrong):
		return
	}
	if s.options.Refused != nil {
		s.options.Refused(err)
	}
	w := &Response{conn: s.conn, out: bufio.NewWriter(s.conn), head: &Head{Minor: 1}, header: http.Header{}, closing: true}
	w.SetReason(err.Error())
	w.header.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	io.WriteString(w, s.options.Name+": "+err.Error()+"\n")
	w.finish()
	s.linger = true
}

// Tunnel requests and those in origin and asterisk form have no host in their target (RFC 9112, 3.2).
func parseTarget(head *Head) (*url.URL, error) {
	if head.Method == http.MethodConnect {
		return &url.URL{Host: head.Target}, nil
	}
	if head.Target == "*" {
		return &url.URL{Path: "*"}, nil
	}
	u, err := url.ParseRequestURI(head.Target)
	if err != nil {
		return nil, malformed("the request target is no URL")
	}
	if u.User != nil {
		return nil, malformed("the request target holds credentials")
	}
	return u, nil
}

func (s *session) serve(head *Head) bool {
	target, err := parseTarget(head)
	if err != nil {
		s.refuse(err)
		return false
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	out := writers.Get().(*bufio.Writer)
	out.Reset(s.conn)
	defer func() { out.Reset(nil); writers.Put(out) }()
	w := &Response{conn: s.conn, out: out, head: head, header: make(http.Header, 8), length: -1}
	w.closing = wantsClose(head)
	body := s.body(head, w)
	request := (&http.Request{
		Method: head.Method, URL: target, RequestURI: head.Target, Host: head.Host, Header: head.Header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: head.Minor, ContentLength: head.Length, RemoteAddr: s.conn.RemoteAddr().String(),
	}).WithContext(ctx)
	request.Body = http.NoBody
	if head.Length != 0 {
		request.Body = body
		request.Trailer = http.Header{}
		body.trailer = request.Trailer
		for _, value := range head.Header["Trailer"] {
			for name := range strings.SplitSeq(value, ",") {
				request.Trailer[textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))] = nil
			}
		}
	}
	watch := body.watch(cancel)
	w.watch = watch
	aborted := s.run(w, request)
	switch {
	case w.hijacked:
		s.hijacked, s.reset = !aborted, aborted
		return false
	case aborted || w.finish() != nil:
		s.reset = true
		return false
	case !body.end() || w.closing:
		watch.stop()
		s.linger = true
		return false
	}
	s.conn.SetReadDeadline(time.Now().Add(idleTimeout))
	<-watch.over
	return true
}

// run calls the handler, and reports whether it gave the request up.
func (s *session) run(w *Response, request *http.Request) (aborted bool) {
	defer func() {
		if reason := recover(); reason != nil {
			if reason != http.ErrAbortHandler {
				panic(reason)
			}
			aborted = true
		}
	}()
	s.handler.ServeHTTP(w, request)
	return false
}

func wantsClose(head *Head) bool {
	keep := head.Minor == 1
	for _, value := range append(head.Header["Connection"], head.Header["Proxy-Connection"]...) {
		for option := range strings.SplitSeq(value, ",") {
			switch strings.ToLower(strings.TrimSpace(option)) {
			case "close":
				return true
			case "keep-alive":
				keep = true
			}
		}
	}
	return !keep
}

// body reads a request's body, and afterwards notices when the client hangs up.
type body struct {
	session *session
	source  io.Reader
	chunked bool
	left    int64
	trailer http.Header
	mutex   sync.Mutex
	done    bool // all of it has been read
	err     error
	ended   chan struct{} // closed once it has been read; nil for no body
	expects bool
	began   bool
}

func (s *session) body(head *Head, w *Response) *body {
	b := &body{session: s, left: head.Length, ended: make(chan struct{})}
	switch {
	case head.Length == 0:
		b.finish(io.EOF)
	case head.Length < 0:
		b.chunked = true
		b.source = httputil.NewChunkedReader(s.in)
	default:
		b.source = s.in
	}
	expect := head.Header.Get("Expect")
	if strings.EqualFold(expect, "100-continue") && head.Minor == 1 && b.source != nil {
		b.expects = true
		b.source = &continuer{Reader: b.source, response: w}
	}
	return b
}

func (b *body) finish(err error) {
	if !b.done {
		b.done, b.err = true, err
		close(b.ended)
	}
}

// Read is an io.Reader's. It ends with io.EOF, or with io.ErrUnexpectedEOF where the client sent less than it had said.
func (b *body) Read(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.done {
		return 0, b.err
	}
	b.began = true
	if !b.chunked && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.source.Read(p)
	if !b.chunked {
		b.left -= int64(n)
		if b.left == 0 {
			b.finish(io.EOF)
			return n, io.EOF
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	} else if err == io.EOF {
		err = b.readTrailer()
	}
	if err != nil {
		b.finish(err)
	}
	return n, err
}

func (b *body) readTrailer() error {
	limit := b.session.options.HeadLimit
	var names []byte
	fields, err := readFields(b.session.in, &budget{limit, limit}, &names)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	for name, values := range fields {
		b.trailer[name] = values
	}
	return io.EOF
}

// Close is an io.Closer's. What is left is read when the answer is sent.
func (b *body) Close() error { return nil }

// end reads what the handler has left of the body, and reports whether another request can follow.
func (b *body) end() bool {
	b.mutex.Lock()
	done, began := b.done, b.began
	b.mutex.Unlock()
	if done {
		return b.err == io.EOF
	}
	if b.expects && !began {
		// The client was never told to send it. Whether it does so anyway can't be known.
		return false
	}
	b.session.conn.SetReadDeadline(time.Now().Add(discardDeadline))
	buffer := make([]byte, 32<<10)
	for total := 0; total < discardLimit; {
		n, err := b.Read(buffer)
		total += n
		if err != nil {
			return err == io.EOF
		}
	}
	return false
}

// A watcher waits for the client's next byte while its request is answered.
type watcher struct {
	session *session
	over    chan struct{}
	quit    chan struct{}
}

// watch cancels the request when the client hangs up. It reads nothing before the body has been read, and afterwards no
// more than what is the next request's.
func (b *body) watch(cancel context.CancelFunc) *watcher {
	w := &watcher{session: b.session, over: make(chan struct{}), quit: make(chan struct{})}
	go func() {
		defer close(w.over)
		select {
		case <-b.ended:
		case <-w.quit:
			return
		}
		if b.err != io.EOF {
			cancel()
			return
		}
		if _, err := b.session.in.Peek(1); err != nil {
			cancel()
		}
	}()
	return w
}

// stop ends the watch, so that another reader can take over.
func (w *watcher) stop() {
	close(w.quit)
	w.session.conn.SetReadDeadline(time.Unix(1, 0))
	<-w.over
	w.session.conn.SetReadDeadline(time.Time{})
}
