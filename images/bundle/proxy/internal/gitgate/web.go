package gitgate

import (
	"bufio"
	"encoding/json"
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
}

func (p peeked) Read(b []byte) (int, error) { return p.reader.Read(b) }

func (l *webListener) hand(conn *net.TCPConn, reader *bufio.Reader) { l.conns <- peeked{conn, reader} }

// Accept, Close and Addr make it a net.Listener.
func (l *webListener) Accept() (net.Conn, error) { return <-l.conns, nil }
func (l *webListener) Close() error              { return nil }
func (l *webListener) Addr() net.Addr            { return l.address }

func (s *Server) serveWeb() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		answer, status := s.health()
		writeJSON(w, status, "application/json", answer)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, "git-gate: repositories are served by git's own protocol: git://%s/NAME\n", r.Host)
	})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: requestTimeout, IdleTimeout: requestTimeout, MaxHeaderBytes: 64 << 10,
		ReadTimeout: time.Hour, WriteTimeout: time.Hour,
	}
	server.Serve(s.web)
}

func writeJSON(w http.ResponseWriter, status int, kind string, body any) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
