package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/live"
	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/wire"
)

const (
	handshakeTimeout = 30 * time.Second
	readBuffer       = 4 << 10
)

// A front is a client's connection, or a tunnel inside of one.
type front struct {
	engine   *Engine
	conn     *live.Conn
	consumer string
	kind     DoorKind
	// tunnel is where a CONNECT, or a transparent connection's own word, said that it goes.
	tunnel *judge.Host
	secure bool
	sni    string
	// destination is where a redirected connection was going: judge.StandIn of the name that it was made for.
	destination netip.AddrPort
}

func (f *front) serve() {
	switch f.kind {
	case TransparentTLS:
		f.serveTLS(f.conn, bufio.NewReaderSize(f.conn, readBuffer))
	case Redirected:
		f.destination = originalDestination(f.conn)
		in := bufio.NewReaderSize(f.conn, readBuffer)
		f.conn.SetReadDeadline(time.Now().Add(handshakeTimeout))
		first, err := in.Peek(1)
		if err != nil {
			f.conn.Close()
			return
		}
		f.conn.SetReadDeadline(time.Time{})
		if first[0] == 0x16 {
			f.serveTLS(f.conn, in)
		} else {
			f.serveHTTP(f.conn, in)
		}
	default:
		f.serveHTTP(f.conn, bufio.NewReaderSize(f.conn, readBuffer))
	}
}

// originalDestination is where a redirected connection was going (SO_ORIGINAL_DST of netfilter), or the zero address.
func originalDestination(conn *live.Conn) (destination netip.AddrPort) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return destination
	}
	raw.Control(func(descriptor uintptr) {
		// A sockaddr_in has the size of the structure that this call fills in.
		address, err := syscall.GetsockoptIPv6Mreq(int(descriptor), syscall.SOL_IP, 80)
		if err == nil {
			told := address.Multiaddr
			destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(told[4:8])), uint16(told[2])<<8|uint16(told[3]))
		}
	})
	return destination
}

func (f *front) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer f.engine.recovered(func() { panic(http.ErrAbortHandler) })
		f.request(w, r)
	})
}

func (f *front) serveHTTP(conn net.Conn, in *bufio.Reader) {
	wire.Serve(context.Background(), conn, in, wire.Options{
		Name:      f.engine.Daemon,
		HeadLimit: f.engine.State().Judge.Policy().Limits.Header,
		Refused: func(err error) {
			entry := audit.Entry{Event: "request", Verdict: "refused", Reason: err.Error(), Consumer: f.consumer}
			if f.tunnel != nil {
				entry.Host, entry.Port = f.tunnel.Name, f.tunnel.Port
			}
			f.engine.refused(entry)
		},
	}, f.handler())
}

// A buffered connection is read by its reader.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// secured is TLS over a connection that can be reset.
type secured struct {
	*tls.Conn
	under *live.Conn
}

func (s *secured) Reset() { s.under.Reset() }

// CloseWrite tells the client that nothing more comes, by TLS and by TCP.
func (s *secured) CloseWrite() error {
	if err := s.Conn.CloseWrite(); err != nil {
		return err
	}
	return s.under.CloseWrite()
}

// serveTLS answers in the place of the host that the client wants, or of the tunnel's where it names none.
func (f *front) serveTLS(conn net.Conn, in *bufio.Reader) {
	f.secure = true
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		// A session that is resumed asks for no certificate, and so names no server.
		SessionTicketsDisabled: true,
		NextProtos:             []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return f.certificate(hello.ServerName)
		},
	}
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	session := &secured{tls.Server(&buffered{conn, in}, config), f.conn}
	if err := session.HandshakeContext(ctx); err != nil {
		var refusal *judge.Refusal
		entry := audit.Entry{Event: "connect", Verdict: "refused", Reason: "TLS: " + err.Error(), Consumer: f.consumer}
		if errors.As(err, &refusal) {
			entry.Reason = refusal.Reason
		}
		if f.tunnel != nil {
			entry.Host, entry.Port = f.tunnel.Name, f.tunnel.Port
		}
		f.engine.refused(entry)
		f.conn.Close()
		return
	}
	if session.ConnectionState().NegotiatedProtocol == "h2" {
		server := http2.Server{MaxConcurrentStreams: 256, IdleTimeout: 10 * time.Minute, MaxUploadBufferPerConnection: 1 << 20, MaxUploadBufferPerStream: 512 << 10}
		server.ServeConn(session, &http2.ServeConnOpts{
			BaseConfig: &http.Server{MaxHeaderBytes: f.engine.State().Judge.Policy().Limits.Header, ErrorLog: quiet},
			Handler:    f.handler(),
		})
		return
	}
	f.serveHTTP(session, bufio.NewReaderSize(session, readBuffer))
}

// certificate also learns the server name that the client asks for.
func (f *front) certificate(name string) (*tls.Certificate, error) {
	if name != "" {
		normal, err := judge.Normalize(name)
		if err != nil {
			return nil, judge.Refuse(403, "the TLS server name %q is not a host name", judge.Cut(name))
		}
		f.sni = normal
	}
	if f.tunnel == nil {
		host := judge.Host{Name: f.sni, Port: 443}
		if f.kind == Redirected {
			host.Port = int(f.destination.Port())
			if f.sni == "" { // An address is no server name (RFC 6066, 3).
				host.Name = f.destination.Addr().String()
			}
		}
		if host.Name == "" {
			return nil, judge.Refuse(403, "a TLS connection without a server name leads nowhere")
		}
		f.tunnel = &host // A host that is not allowed is refused at the first request, in words that its client shows.
	}
	if f.sni != "" {
		return f.engine.Authority.For(f.sni)
	}
	return f.engine.Authority.For(f.tunnel.Name)
}

// connect opens a tunnel: inside of it, requests are judged like all others.
func (f *front) connect(w http.ResponseWriter, r *http.Request) {
	response, ok := w.(*wire.Response)
	if !ok || f.tunnel != nil || f.kind != ProxyDoor {
		f.refuse(w, r, audit.Entry{Event: "connect"}, judge.Refuse(405, "CONNECT inside of a tunnel is refused"))
		return
	}
	entry := audit.Entry{Event: "connect", Host: judge.Cut(r.RequestURI)}
	host, err := judge.ParseHost(r.RequestURI, 0)
	if err == nil && host.Port == 0 {
		err = errors.New("CONNECT names no port")
	}
	if err != nil {
		f.refuse(w, r, entry, judge.Refuse(403, "%s", err))
		return
	}
	entry.Host, entry.Port = host.Name, host.Port
	if named, err := judge.ParseHost(r.Host, host.Port); err != nil || named != host {
		f.refuse(w, r, entry, judge.Refuse(403, "the Host header names %s, and the tunnel leads to %s", judge.Cut(r.Host), host))
		return
	}
	if f.engine.Switch.On() {
		f.refuse(w, r, entry, judge.Refuse(503, killReason))
		return
	}
	judged := f.engine.State().Judge
	if tunnel, raw := judged.Tunnel(f.consumer, host); raw {
		f.rawTunnel(response, r, host, tunnel)
		return
	}
	if refusal := judged.Connect(f.consumer, host); refusal != nil {
		f.refuse(w, r, entry, refusal)
		return
	}
	response.SetReason("Connection established")
	response.Header()["Content-Length"] = nil
	conn, in, err := establish(response)
	if err != nil {
		conn.Close()
		return
	}
	inner := &front{engine: f.engine, conn: f.conn, consumer: f.consumer, kind: f.kind, tunnel: &host}
	inner.serveTunnel(conn, in)
}

// establish answers a CONNECT with 200, after which the connection is the tunnel (RFC 9110, 9.3.6).
func establish(w *wire.Response) (net.Conn, *bufio.Reader, error) {
	conn, in, err := w.Hijack()
	if err == nil {
		_, err = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	}
	return conn, in, err
}

var http2Preface = []byte("PRI * HTTP/2")

// serveTunnel looks at what a tunnel's first bytes are. What is neither TLS nor HTTP goes nowhere.
func (f *front) serveTunnel(conn net.Conn, in *bufio.Reader) {
	conn.SetReadDeadline(time.Now().Add(handshakeTimeout))
	first, err := in.Peek(1)
	if err != nil {
		conn.Close()
		return
	}
	conn.SetReadDeadline(time.Time{})
	switch c := first[0]; {
	case c == 0x16:
		f.serveTLS(conn, in)
	case c >= 'A' && c <= 'Z':
		if start, _ := in.Peek(len(http2Preface)); !bytes.Equal(start, http2Preface) {
			f.serveHTTP(conn, in)
			return
		}
		fallthrough
	default:
		f.engine.refused(audit.Entry{Event: "connect", Verdict: "reset", Consumer: f.consumer, Host: f.tunnel.Name, Port: f.tunnel.Port,
			Reason: "what came through the tunnel is neither TLS nor HTTP/1.1"})
		f.conn.Reset()
	}
}

// rawTunnel joins git-gate to an ssh or git:// upstream.
func (f *front) rawTunnel(w *wire.Response, r *http.Request, host judge.Host, tunnel policy.Tunnel) {
	entry := audit.Entry{Event: "connect", Host: host.Name, Port: host.Port, Consumer: f.consumer}
	next, err := f.engine.Role.Tunnel(r.Context(), host, tunnel.Private)
	if err != nil {
		f.refuse(w, r, entry, refusalOf(err))
		return
	}
	began := time.Now()
	conn, in, err := establish(w)
	var cut atomic.Pointer[string]
	x := &live.Exchange{Idle: 10 * time.Minute,
		Stale: func() string {
			if now, still := f.engine.State().Judge.Tunnel(f.consumer, host); !still || now != tunnel {
				return "revoked: the tunnel to " + host.String()
			}
			return ""
		},
		Cut: func(reason string) {
			cut.Store(&reason)
			wire.Reset(next)
			f.conn.Reset()
		},
	}
	if err != nil || !f.engine.Live.Begin(x) {
		wire.Reset(next)
		f.conn.Reset()
		return
	}
	defer f.engine.Live.End(x)
	done := make(chan int64)
	go func() { done <- pass(next, &touching{in, x}) }()
	entry.ReceivedBytes = pass(conn, &touching{next, x})
	entry.SentBytes, entry.Verdict = <-done, "allowed"
	if reason := cut.Load(); reason != nil {
		entry.Verdict, entry.Reason = "reset", *reason
	}
	entry.DurationMs = time.Since(began).Milliseconds()
	conn.Close()
	next.Close()
	f.engine.record(entry)
}

// pass hands on what is read, and how that ends: an end by an end, and what was cut by a reset.
func pass(to net.Conn, from io.Reader) int64 {
	n, err := io.Copy(to, from)
	if err != nil {
		wire.Reset(to)
	} else {
		halfClose(to)
	}
	return n
}

func halfClose(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

// touching counts reads as activity.
type touching struct {
	io.Reader
	exchange *live.Exchange
}

func (t *touching) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.exchange.Touch()
	return n, err
}

// target returns where a request is going and by what scheme, if all that names a place in it names the same one.
func (f *front) target(r *http.Request) (host judge.Host, scheme string, refusal *judge.Refusal) {
	scheme = "http"
	if f.secure {
		scheme = "https"
	}
	if r.URL.Host != "" { // The absolute form.
		written := strings.ToLower(r.URL.Scheme)
		if written != "http" && written != "https" || f.tunnel != nil && written != scheme {
			return host, "", judge.Refuse(403, "the scheme %q is refused here", judge.Cut(r.URL.Scheme))
		}
		scheme = written
		absolute, err := judge.ParseHost(r.URL.Host, defaultPort(scheme))
		if err != nil {
			return host, "", judge.Refuse(403, "the target: %s", err)
		}
		if f.tunnel != nil && absolute != *f.tunnel {
			return host, "", judge.Refuse(403, "the target names %s, and the tunnel leads to %s", absolute, f.tunnel)
		}
		host = absolute
	} else if f.tunnel != nil {
		host = *f.tunnel
	}
	if r.Host == "" {
		return host, "", judge.Refuse(400, "no Host header")
	}
	named, err := judge.ParseHost(r.Host, defaultPort(scheme))
	if err != nil {
		return host, "", judge.Refuse(403, "the Host header: %s", err)
	}
	if host.Name == "" { // A transparent connection without TLS: the Host header is all there is.
		host = named
	}
	if f.kind == Redirected {
		switch address := judge.StandIn(host.Name); {
		case int(f.destination.Port()) != host.Port:
			return host, "", judge.Refuse(403, "the request is for %s, and the connection goes to port %d", host, f.destination.Port())
		case f.destination.Addr() != address:
			return host, "", judge.Refuse(403, "the request is for %s, and the connection was made for another host", host)
		}
	}
	if named != host {
		return host, "", judge.Refuse(403, "the Host header names %s, and the connection %s", named, host)
	}
	if f.sni != "" && f.sni != host.Name {
		return host, "", judge.Refuse(403, "the TLS server name is %s, and the connection's %s", f.sni, host.Name)
	}
	return host, scheme, nil
}

func defaultPort(scheme string) int {
	if scheme == "https" {
		return 443
	}
	return 80
}

// own answers a request to the proxy itself, and reports whether it was one. Others are to be passed on, whatever their
// path.
func (f *front) own(w http.ResponseWriter, r *http.Request) bool {
	if !f.asksTheProxy(r) {
		return false
	}
	switch r.URL.Path {
	case "/health":
		f.engine.health(w)
	case "/ca.pem":
		w.Header().Set("Content-Type", "application/x-pem-file")
		w.Write(f.engine.Authority.PEM())
	default:
		return false
	}
	return true
}

// asksTheProxy reports whether this is a request to the proxy itself, and not one to be passed on.
func (f *front) asksTheProxy(r *http.Request) bool {
	if f.tunnel != nil || f.kind != ProxyDoor || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if r.URL.Host == "" {
		return true
	}
	host, err := judge.ParseHost(r.URL.Host, 80)
	if err != nil || host.Port != f.engine.Port {
		return false
	}
	address, isAddress := host.Address()
	// A name without a dot is one of the container's network (`sidecars`), or localhost.
	return !strings.Contains(host.Name, ".") && !isAddress || isAddress && address.IsLoopback()
}
