package egress

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"bottle/proxy/internal/policy"
)

// `private` is the rule's that a request is judged by, and not its host's: no connection is shared across the two.
func TestPrivateIsTheRules(t *testing.T) {
	b := newBench(t, policyOf(host("plain.test", "paths", []string{"/open"}), host("plain.test", "private", false, "paths", []string{"/closed"})))
	for range 2 {
		if status, text := b.get("agent", "GET", "https://plain.test/open", nil); status != 200 {
			t.Errorf("%d %q", status, text)
		}
		if status, text := b.get("agent", "GET", "https://plain.test/closed", nil); status != 403 || !strings.Contains(text, "private = true") {
			t.Errorf("%d %q", status, text)
		}
	}
}

// A connection to an address that was revoked is not used again, though other streams of HTTP/2 had kept it open.
func TestNoConnectionOutlivesItsRule(t *testing.T) {
	b := newBench(t, policyOf(host("plain.test")))
	begun := make(chan struct{})
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w.Write([]byte("first"))
			w.(http.Flusher).Flush()
			close(begun)
			<-r.Context().Done()
		}
	}
	answer, err := b.client(policy.Agent, true).Get("https://plain.test/slow")
	check(t, err)
	<-begun
	b.use(policyOf(host("plain.test", "private", false)))
	if _, err := io.ReadAll(answer.Body); err == nil {
		t.Error("what was open went on")
	}
	if status, text := b.get("agent", "GET", "https://plain.test/", nil); status != 403 || !strings.Contains(text, "private = true") {
		t.Errorf("%d %q", status, text)
	}
}

// A connection that comes about while the kill switch is on is reset before a byte has left by it.
func TestNoConnectionComesAboutUnderTheKillSwitch(t *testing.T) {
	b := newBench(t, standard())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	check(t, err)
	b.engine.Live.Close(true, "the test says so")
	if _, err := b.engine.Live.Track(conn.(*net.TCPConn), true); err == nil {
		t.Fatal("it was taken")
	}
	peer, err := listener.Accept()
	check(t, err)
	if _, err := peer.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("it was not reset: %v", err)
	}
}
