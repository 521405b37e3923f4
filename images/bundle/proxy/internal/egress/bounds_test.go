package egress

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"bottle/proxy/internal/policy"
)

// limited is the standard policy with a limit.
func limited(name string, value int) map[string]any {
	compiled := standard()
	compiled["limits"] = map[string]any{name: value}
	return compiled
}

// A connection over limits.connections is refused in words. Held by Engine.Serve.
func TestConnectionsAreBounded(t *testing.T) {
	b := newBench(t, limited("connections", 2))
	for range 2 {
		conn, err := net.Dial("tcp", b.addresses[policy.Agent])
		check(t, err)
		defer conn.Close()
	}
	for b.engine.Live.Clients() < 2 {
		time.Sleep(time.Millisecond)
	}
	answer := b.write(policy.Agent, "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 503 egress: too many connections") {
		t.Errorf("%q", answer)
	}
}

// Streams of HTTP/2 are bounded as connections are, and refused in words. Held by Exchange.run.
func TestRequestsAtOnceAreBounded(t *testing.T) {
	b := newBench(t, limited("connections", 1)) // Four requests at once.
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("first"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	client := b.client(policy.Agent, true)
	for range 4 {
		answer, err := client.Get("https://plain.test/")
		check(t, err)
		defer answer.Body.Close()
	}
	answer, err := client.Get("https://plain.test/")
	check(t, err)
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != 503 || !strings.Contains(string(text), "requests at once") {
		t.Errorf("%d %q", answer.StatusCode, text)
	}
}

// A compressed body is looked into up to a bound of what it becomes. Held by inspectEncoded.
func TestWhatABodyBecomesIsBounded(t *testing.T) {
	b := newBench(t, standard())
	var buffer bytes.Buffer
	w := gzip.NewWriter(&buffer)
	io.Copy(w, io.LimitReader(endless{}, 17<<20)) // scan_limit is 1 MiB, and 16 times that is looked into.
	w.Close()
	if status, text := b.get("agent", "POST", "https://plain.test/", &buffer, "Content-Encoding", "gzip"); status != 413 || !strings.Contains(text, "when it is decoded") {
		t.Errorf("%d %q", status, text)
	}
	if seen := b.saw(); len(seen) != 0 {
		t.Errorf("the origin saw %v", seen)
	}
}

// Bodies that are held as a whole share one bound: what does not fit waits. Held by readWhole.
func TestBodiesThatAreHeldShareABound(t *testing.T) {
	compiled := standard()
	compiled["egress"].(map[string]any)["scan_limit"] = 64 << 20
	b := newBench(t, compiled)
	first, err := net.Dial("tcp", b.addresses[policy.Agent])
	check(t, err)
	fmt.Fprintf(first, "POST http://redact.test/ HTTP/1.1\r\nHost: redact.test\r\nContent-Length: %d\r\n\r\n", 64<<20)
	for b.engine.Live.Exchanges() < 1 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, "POST", "http://redact.test/second", strings.NewReader("small"))
	check(t, err)
	over := make(chan error)
	go func() {
		_, err := b.client(policy.Agent, false).Do(request)
		over <- err
	}()
	for b.engine.Live.Exchanges() < 2 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("it did not wait: %v", err)
	}
	if seen := b.saw(); len(seen) != 0 {
		t.Errorf("the origin saw %v", seen)
	}
	first.Close()
}

// What a client sends stands in messages and in the audit cut, however long it is. Held by judge.Cut.
func TestWhatIsWrittenDownIsCut(t *testing.T) {
	b := newBench(t, standard())
	long := strings.Repeat("x", 8<<10)
	if _, text := b.get("agent", "GET", "https://limited.test/"+long, nil); len(text) > 1000 || !strings.Contains(text, "methods and paths") {
		t.Errorf("%d bytes: %.200q", len(text), text)
	}
	for _, entry := range b.audited("request", 1) {
		if text := fmt.Sprint(entry); len(text) > 1500 {
			t.Errorf("%d bytes: %.200q", len(text), text)
		}
	}
}

// The kill switch refuses in words what is new, a CONNECT too, and cuts websockets and tunnels by resets (W16).
func TestTheKillSwitchOfEveryKind(t *testing.T) {
	b := newBench(t, standard())
	near, in, far, head := b.conversation("http://plain.test")
	if head.StatusCode != 101 {
		t.Fatal(head.Status)
	}
	host := <-far
	check(t, os.WriteFile(b.switches, nil, 0o600))
	for name, conn := range map[string]io.Reader{"the agent's side": in, "the host's side": host} {
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	near.Close()
	for !b.engine.Switch.On() {
		time.Sleep(time.Millisecond)
	}
	for _, request := range []string{"CONNECT plain.test:443 HTTP/1.1\r\nHost: plain.test:443\r\nConnection: close\r\n\r\n", "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n"} {
		if answer := b.write(policy.Agent, request); !strings.HasPrefix(answer, "HTTP/1.1 503 egress: the operator's kill switch is on\r\n") {
			t.Errorf("%q", answer)
		}
	}
	if answer := b.write(policy.Git, "CONNECT ssh.test:22 HTTP/1.1\r\nHost: ssh.test:22\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 503 ") {
		t.Errorf("git: %q", answer)
	}
}
