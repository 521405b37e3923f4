package gitgate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// A webListener hands the HTTP server those connections on which a client has begun to speak HTTP.
type webListener struct {
	address net.Addr
	conns   chan net.Conn
}

func newWebListener(address net.Addr) *webListener {
	return &webListener{address, make(chan net.Conn)}
}

// peeked is a connection of which something has been read already.
type peeked struct {
	*net.TCPConn
	reader *bufio.Reader
	closed func()
}

func (p peeked) Read(b []byte) (int, error) { return p.reader.Read(b) }

// Close also gives back the connection's place among those that may be open.
func (p peeked) Close() error {
	defer p.closed()
	return p.TCPConn.Close()
}

func (l *webListener) hand(conn net.Conn) { l.conns <- conn }

// Accept, Close and Addr make it a net.Listener.
func (l *webListener) Accept() (net.Conn, error) { return <-l.conns, nil }
func (l *webListener) Close() error              { return nil }
func (l *webListener) Addr() net.Addr            { return l.address }

// connKey is where a request's context has the connection.
type connKey struct{}

func (s *Server) serveWeb() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		answer, status := s.health()
		writeJSON(w, status, "application/json", answer)
	})
	mux.HandleFunc("POST /{repository}/info/lfs/objects/batch", s.lfs(s.lfsBatch))
	mux.HandleFunc("GET /{repository}/info/lfs/objects/{id}", s.lfs(s.lfsDownload))
	mux.HandleFunc("PUT /{repository}/info/lfs/objects/{id}", s.lfs(s.lfsUpload))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, "git-gate: repositories are served by git's own protocol: git://%s/NAME\n", r.Host)
	})
	server := &http.Server{
		Handler: mux, MaxHeaderBytes: 64 << 10, IdleTimeout: requestTimeout,
		// Those who carry objects set deadlines of their own.
		ReadTimeout: requestTimeout, WriteTimeout: requestTimeout,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
	}
	server.Serve(s.web)
}

func writeJSON(w http.ResponseWriter, status int, kind string, body any) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// alive keeps a request going for as long as bytes move.
type alive struct {
	session *session
	control *http.ResponseController
	idle    time.Duration
}

func (a *alive) touch() {
	until := time.Now().Add(a.idle)
	a.control.SetReadDeadline(until)
	a.control.SetWriteDeadline(until)
	// The client's git waits meanwhile.
	for _, each := range a.session.server.running() {
		if each.name == a.session.name {
			each.touch()
		}
	}
}

// cutWeb resets a connection on which a request is being served.
func cutWeb(r *http.Request) {
	if conn, ok := r.Context().Value(connKey{}).(peeked); ok {
		reset(conn.TCPConn)
	}
}

// statusOf is the HTTP status for a reason not to serve somebody.
func statusOf(err error) int {
	var said *lfsError
	switch {
	case errors.As(err, &said):
		return said.Code
	case errors.Is(err, errKilled), errors.Is(err, errStopped):
		return http.StatusServiceUnavailable
	case isFull(err):
		return http.StatusInsufficientStorage
	}
	return http.StatusBadGateway
}
