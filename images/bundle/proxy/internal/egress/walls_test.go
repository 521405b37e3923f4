package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"

	"bottle/proxy/internal/policy"
)

// conversation is a websocket through egress, whose far end is the returned connection.
func (b *bench) conversation(where string) (near net.Conn, in *bufio.Reader, far chan net.Conn, head *http.Response) {
	b.t.Helper()
	far = make(chan net.Conn, 1)
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		conn, both, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(both, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nX-Extensions: %q\r\nX-Echo: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:]), r.Header["Sec-Websocket-Extensions"], r.Header.Get("Authorization"))
		both.Flush()
		far <- conn
	}
	near, err := net.Dial("tcp", b.addresses[policy.Agent])
	check(b.t, err)
	b.t.Cleanup(func() { near.Close() })
	name := strings.TrimPrefix(where, "http://")
	fmt.Fprintf(near, "GET http://%s/ HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", name, name)
	in = bufio.NewReader(near)
	head, err = http.ReadResponse(in, nil)
	check(b.t, err)
	return near, in, far, head
}

// masked makes a client's frame of text.
func masked(text string) []byte {
	f := append([]byte{0x81, 0x80 | byte(len(text)), 1, 2, 3, 4}, text...)
	for i := range len(text) {
		f[6+i] ^= byte(i&3 + 1)
	}
	return f
}

// Nothing is compressed in a websocket, so that frames are what they say: no extension is offered, and one that a host
// uses without having been asked ends the conversation. Held by outgoing, and by switched.
func TestWebsocketsHaveNoExtensions(t *testing.T) {
	b := newBench(t, standard())
	near, in, far, head := b.conversation("http://plain.test")
	if head.StatusCode != 101 || head.Header.Get("X-Extensions") != "[]" {
		t.Errorf("%s, the host was offered %s", head.Status, head.Header.Get("X-Extensions"))
	}
	host := <-far
	near.Write(masked("hello"))
	got := make([]byte, 11)
	_, err := io.ReadFull(host, got)
	check(t, err)
	host.Write([]byte("\x81\x02hi"))
	got = make([]byte, 4)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "\x81\x02hi" {
		t.Errorf("%q %v", got, err)
	}
	b.origin = func(w http.ResponseWriter, _ *http.Request) {
		conn, both, _ := http.NewResponseController(w).Hijack()
		io.WriteString(both, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
		both.Flush()
		defer conn.Close()
		io.ReadAll(conn)
	}
	if status, text := b.get("agent", "GET", "http://plain.test/", nil, "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="); status != 502 {
		t.Errorf("%d %q", status, text)
	}
}

// A message that is refused closes with 1008 and the reason, and no byte of it leaves.
func TestARefusedMessageSaysWhy(t *testing.T) {
	b := newBench(t, standard())
	near, in, far, _ := b.conversation("http://plain.test")
	host := <-far
	near.Write(masked("x" + token))
	text, err := io.ReadAll(in)
	if !bytes.HasPrefix(text, []byte{0x88}) || !bytes.Contains(text, []byte("\x03\xf0egress: a message holds what looks like a secret (github-token)")) {
		t.Errorf("%q %v", text, err)
	}
	if left, err := io.ReadAll(host); err == nil || len(left) > 0 {
		t.Errorf("the host got %q, %v", left, err)
	}
}

// Revoking what a flow depends on ends it, by resets: each row is open under the policy before, and not under the one after.
func TestRevocation(t *testing.T) {
	expired := standard()
	expired["approvals"] = []map[string]any{{"id": "a", "kind": "host", "until": 9e12, "hosts": []map[string]any{host("approved.test")}}}
	changed := func(change func(compiled map[string]any)) map[string]any {
		compiled := standard()
		change(compiled)
		return compiled
	}
	for name, row := range map[string]struct {
		where         string
		before, after map[string]any
	}{
		"a rule":             {"plain.test", standard(), policyOf(host("origin.test"))},
		"a method":           {"plain.test", standard(), policyOf(host("origin.test"), host("plain.test", "methods", []string{"PUT"}))},
		"a path":             {"plain.test", standard(), policyOf(host("origin.test"), host("plain.test", "paths", []string{"/other"}))},
		"a private address":  {"plain.test", standard(), policyOf(host("origin.test"), host("plain.test", "private", false))},
		"a consumer":         {"plain.test", standard(), policyOf(host("origin.test"), host("plain.test", "for", []string{"git"}))},
		"what secrets bring": {"pass.test", standard(), policyOf(host("origin.test"), host("pass.test"))},
		"a pattern": {"plain.test", standard(), changed(func(c map[string]any) {
			c["pipelock"] = map[string]any{"patterns": []map[string]any{{"name": "staff-id", "regex": "ACME-[0-9]{6}"}}}
		})},
		"a credential": {"origin.test", standard(), changed(func(c map[string]any) { c["egress"].(map[string]any)["credentials"] = []any{} })},
		"an approval":  {"approved.test", expired, standard()},
	} {
		for _, kind := range []string{"request", "websocket"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				b := newBench(t, row.before)
				if kind == "websocket" {
					near, in, far, head := b.conversation("http://" + row.where)
					if head.StatusCode != 101 {
						t.Fatal(head.Status)
					}
					host := <-far
					b.use(row.after)
					if _, err := in.ReadByte(); err == nil || errors.Is(err, io.EOF) {
						t.Errorf("the agent's side: %v", err)
					}
					if _, err := host.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
						t.Errorf("the host's side: %v", err)
					}
					near.Close()
					return
				}
				gone := make(chan error, 1)
				b.origin = func(w http.ResponseWriter, r *http.Request) {
					http.NewResponseController(w).EnableFullDuplex()
					w.Write([]byte("first"))
					w.(http.Flusher).Flush()
					_, err := io.Copy(io.Discard, r.Body)
					gone <- err
				}
				upload, more := io.Pipe()
				go more.Write([]byte("an upload that goes on"))
				answer, err := b.client(policy.Agent, false).Post("http://"+row.where+"/", "text/plain", upload)
				check(t, err)
				_, err = io.ReadFull(answer.Body, make([]byte, 5))
				check(t, err)
				b.use(row.after)
				if _, err := io.ReadAll(answer.Body); err == nil {
					t.Error("the answer ended as if it were whole")
				}
				if err := <-gone; err == nil {
					t.Error("the upload ended as if it were whole")
				}
				more.Close()
			})
		}
	}
}

// A credential that was rotated ends what carries the old one.
func TestARotatedCredentialEndsWhatCarriesIt(t *testing.T) {
	b := newBench(t, standard())
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("first"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	with, err := b.client(policy.Agent, false).Get("https://origin.test/")
	check(t, err)
	over := make(chan struct{})
	b.origin = func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte("first"))
		w.(http.Flusher).Flush()
		<-over
	}
	without, err := b.client(policy.Agent, false).Get("https://plain.test/")
	check(t, err)
	check(t, os.WriteFile(b.values, []byte(`{"/token": "Bearer another-one-that-is-new"}`), 0o600))
	b.use(standard())
	if _, err := io.ReadAll(with.Body); err == nil {
		t.Error("it went on with the old credential")
	}
	close(over)
	if _, err := io.ReadAll(without.Body); err != nil {
		t.Errorf("what carries none was cut: %v", err)
	}
}

// A tunnel to a repository that is gone ends by a reset.
func TestARevokedTunnelEnds(t *testing.T) {
	b := newBench(t, standard())
	far := make(chan net.Conn, 1)
	go func() {
		if conn, err := b.raw.Accept(); err == nil {
			io.WriteString(conn, "SSH-2.0-test\r\n")
			far <- conn
		}
	}()
	conn, err := net.Dial("tcp", b.addresses[policy.Git])
	check(t, err)
	defer conn.Close()
	io.WriteString(conn, "CONNECT ssh.test:22 HTTP/1.1\r\nHost: ssh.test:22\r\n\r\n")
	in := bufio.NewReader(conn)
	for line := ""; !strings.HasPrefix(line, "SSH-"); {
		line, err = in.ReadString('\n')
		check(t, err)
	}
	compiled := standard()
	compiled["egress"].(map[string]any)["tunnels"] = []any{}
	b.use(compiled)
	if _, err := in.ReadByte(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("git-gate's side: %v", err)
	}
	if _, err := (<-far).Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the upstream's side: %v", err)
	}
}

// A credential goes to its consumer, host, port, scheme, methods and paths, and nowhere else (W11, W12).
func TestCredentialsGoWhereTheyAreMeant(t *testing.T) {
	compiled := policyOf(host("plain.test", "for", []string{"agent", "git"}), host("plain.test", "port", 8443, "for", []string{"agent"}), host("both.test"))
	compiled["egress"].(map[string]any)["credentials"] = []map[string]any{
		{"name": "token", "host": "plain.test", "port": 443, "header": "Authorization", "value_file": "/token", "for": []string{"agent"}, "methods": []string{"GET"}, "paths": []string{"/v1"}},
	}
	b := newBench(t, compiled)
	dial := b.role.connect
	b.role.connect = func(ctx context.Context, address string) (net.Conn, error) {
		return dial(ctx, strings.Replace(address, ":8443", ":443", 1))
	}
	for _, row := range []struct {
		consumer, method, where string
		set                     bool
	}{
		{"agent", "GET", "https://plain.test/v1/x", true},
		{"git", "GET", "https://plain.test/v1/x", false},
		{"agent", "POST", "https://plain.test/v1/x", false},
		{"agent", "GET", "https://plain.test/v2", false},
		{"agent", "GET", "https://plain.test/v1/../v2", false},
		{"agent", "GET", "https://plain.test:8443/v1/x", false},
		{"agent", "GET", "http://plain.test/v1/x", false},
		{"agent", "GET", "https://both.test/v1/x", false},
	} {
		if status, text := b.get(row.consumer, row.method, row.where, nil); status != 200 {
			t.Errorf("%s %s: %d %q", row.method, row.where, status, text)
			continue
		}
		seen := b.saw()
		if last := seen[len(seen)-1]; strings.Contains(last, "must-not-see") != row.set {
			t.Errorf("%s: %s", row.consumer, last)
		}
	}
}

// What a reload leaves as it was goes on.
func TestAReloadEndsNothingElse(t *testing.T) {
	b := newBench(t, standard())
	over := make(chan struct{})
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("first "))
		w.(http.Flusher).Flush()
		<-over
		w.Write([]byte("last"))
	}
	answer, err := b.client(policy.Agent, false).Get("https://plain.test/")
	check(t, err)
	b.use(policyOf(host("plain.test", "rule", "moved in the file")))
	close(over)
	if text, err := io.ReadAll(answer.Body); err != nil || string(text) != "first last" {
		t.Errorf("%q %v", text, err)
	}
}

// A credential that an origin repeats is blotted out wherever it does: in informational answers, the reason phrase, header
// fields, trailers, the answer to an upgrade, and in what breaks the protocol.
func TestEchoes(t *testing.T) {
	raw := func(b *bench, text string) {
		b.origin = func(w http.ResponseWriter, r *http.Request) {
			conn, both, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			echoed := r.Header.Get("Authorization")
			_, named, _ := strings.Cut(echoed, " ")
			io.WriteString(both, strings.NewReplacer("ECHO", echoed, "NAMED", named).Replace(text))
			both.Flush()
			conn.Close()
		}
	}
	for name, text := range map[string]string{
		"an informational answer": "HTTP/1.1 103 Early Hints\r\nLink: ECHO\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"the reason phrase":       "HTTP/1.1 200 ECHO\r\nContent-Length: 0\r\n\r\n",
		"a header field":          "HTTP/1.1 302 Found\r\nLocation: /?token=ECHO\r\nContent-Length: 0\r\n\r\n",
		"a field's name":          "HTTP/1.1 200 OK\r\nX-NAMED: 1\r\nContent-Length: 0\r\n\r\n",
		"a trailer's name":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-NAMED\r\n\r\n0\r\nX-NAMED: 1\r\n\r\n",
		"a silent trailer's name": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-NAMED: 1\r\n\r\n",
		"a hint's field's name":   "HTTP/1.1 103 Early Hints\r\nX-NAMED: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"a trailer":               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n0\r\nX-Sum: ECHO\r\n\r\n",
		"the status line":         "ECHO\r\n\r\n",
		"the version":             "HTTP/ECHO 200 OK\r\n\r\n",
		"a broken header line":    "HTTP/1.1 200 OK\r\nECHO\r\n\r\n",
		"a length":                "HTTP/1.1 200 OK\r\nContent-Length: ECHO\r\n\r\n",
		"a transfer encoding":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: ECHO\r\n\r\n",
		"a chunk's length":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nECHO\r\n",
		"a body without an end":   "HTTP/1.1 200 OK\r\n\r\nECHO",
		"a body in base64":        "HTTP/1.1 200 OK\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte("x"+credential)),
	} {
		t.Run(name, func(t *testing.T) {
			compiled := standard()
			compiled["egress"].(map[string]any)["credentials"].([]map[string]any)[0]["plaintext"] = true
			b := newBench(t, compiled)
			raw(b, text)
			answer := b.write(policy.Agent, "GET http://origin.test/ HTTP/1.1\r\nHost: origin.test\r\nConnection: close\r\n\r\n")
			if strings.Contains(strings.ToLower(answer), "must-not-see") || strings.Contains(answer, "bXVzdC1ub3Qtc2Vl") || strings.Contains(answer, "bm90LXNlZ") {
				t.Errorf("the agent sees %q", answer)
			}
			if !strings.Contains(answer, "HTTP/1.1 ") {
				t.Errorf("no answer: %q", answer)
			}
			if said := fmt.Sprint(b.audited("request", 1)); strings.Contains(said, "must-not-see") {
				t.Errorf("the audit holds it: %s", said)
			}
		})
	}
	t.Run("the answer to an upgrade", func(t *testing.T) {
		compiled := standard()
		compiled["egress"].(map[string]any)["credentials"].([]map[string]any)[0]["plaintext"] = true
		b := newBench(t, compiled)
		_, in, far, head := b.conversation("http://origin.test")
		if echoed := head.Header.Get("X-Echo"); echoed != strings.Repeat("*", len(credential)) {
			t.Errorf("%q", echoed)
		}
		host := <-far
		fmt.Fprintf(host, "\x81%c%s", len(credential), credential)
		got := make([]byte, 2+len(credential))
		if _, err := io.ReadFull(in, got); err != nil || string(got[2:]) != strings.Repeat("*", len(credential)) {
			t.Errorf("%q %v", got, err)
		}
	})
}

// Of a host that gets a credential the agent can ask for nothing that could not be looked through: no part of an answer by
// itself, in which half a credential would not be known, and no compressed messages.
func TestAnswersThatCannotBeLookedThroughAreNotAskedFor(t *testing.T) {
	b := newBench(t, standard())
	asked := make(chan http.Header, 1)
	compressed := false
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header
		if compressed {
			w.Header().Set("Grpc-Encoding", "gzip")
		}
		w.Write([]byte("whole"))
	}
	fields := []string{"Range", "bytes=3-9", "If-Range", `"tag"`, "Grpc-Accept-Encoding", "gzip", "Accept-Encoding", "zstd", "TE", "trailers"}
	if status, text := b.get("agent", "GET", "https://origin.test/", nil, fields...); status != 200 || text != "whole" {
		t.Errorf("%d %q", status, text)
	}
	if seen := <-asked; seen.Get("Range") != "" || seen.Get("Grpc-Accept-Encoding") != "" || seen.Get("Accept-Encoding") != "identity" {
		t.Errorf("the host was asked for %v", seen)
	}
	b.get("agent", "GET", "https://plain.test/", nil, fields...)
	if seen := <-asked; seen.Get("Range") != "bytes=3-9" || seen.Get("Grpc-Accept-Encoding") != "gzip" || seen.Get("Accept-Encoding") != "zstd" {
		t.Errorf("another host was asked for %v", seen)
	}
	compressed = true
	if status, text := b.get("agent", "GET", "https://origin.test/", nil); status != 502 || !strings.Contains(text, "its messages are compressed") {
		t.Errorf("%d %q", status, text)
	}
	<-asked
}

// What belongs to one connection ends there, in both directions (RFC 9110, 7.6.1): what its Connection field names, and the
// usual ones, whether they are named or not.
func TestHopByHopFieldsEndHere(t *testing.T) {
	b := newBench(t, standard())
	asked := make(chan http.Header, 1)
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header
		conn, both, _ := http.NewResponseController(w).Hijack()
		hops := "Connection: keep-alive, X-Theirs\r\nX-Theirs: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nProxy-Connection: close\r\n"
		io.WriteString(both, "HTTP/1.1 103 Early Hints\r\n"+hops+"Content-Length: 7\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n"+hops+"X-Kept: 1\r\nContent-Length: 2\r\n\r\nok")
		both.Flush()
		conn.Close()
	}
	answer := b.write(policy.Agent, "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authorization: Basic eA==\r\nProxy-Connection: close\r\nTE: gzip\r\nX-Kept: 1\r\n\r\n")
	seen := <-asked
	for _, name := range []string{"X-Mine", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te"} {
		if seen.Get(name) != "" {
			t.Errorf("the host sees %s: %s", name, seen.Get(name))
		}
	}
	for _, name := range []string{"X-Theirs", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Content-Length: 7"} {
		if strings.Contains(answer, name) {
			t.Errorf("the agent sees %s: %q", name, answer)
		}
	}
	if seen.Get("X-Kept") != "1" || strings.Count(answer, "Link: x") != 1 || strings.Count(answer, "X-Kept: 1") != 1 || !strings.HasSuffix(answer, "\r\n\r\nok") {
		t.Errorf("%v %q", seen, answer)
	}
}

// A stream of events is looked through as it comes: nothing but what may be the beginning of a credential waits.
func TestEventsAreNotHeldBack(t *testing.T) {
	b := newBench(t, standard())
	next := make(chan string)
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for event := range next {
			io.WriteString(w, strings.ReplaceAll(event, "ECHO", r.Header.Get("Authorization")))
			w.(http.Flusher).Flush()
		}
	}
	go func() { next <- "data: one\n\n" }()
	answer, err := b.client(policy.Agent, true).Get("https://origin.test/")
	check(t, err)
	events := bufio.NewReader(answer.Body)
	for _, event := range []string{"data: one\n\n", "data: ECHO\n\n", "data: three\n\n"} {
		if event != "data: one\n\n" {
			next <- event
		}
		want := strings.ReplaceAll(event, "ECHO", strings.Repeat("*", len(credential)))
		got := make([]byte, len(want))
		if _, err := io.ReadFull(events, got); err != nil || string(got) != want {
			t.Errorf("%q %v", got, err)
		}
	}
	close(next)
}

// Any number of informational answers comes before the final one (RFC 9110, 15.2).
func TestManyInformationalAnswers(t *testing.T) {
	b := newBench(t, standard())
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		conn, both, _ := http.NewResponseController(w).Hijack()
		for _, code := range []int{100, 100, 102, 103, 103, 103, 199, 103, 103, 103} {
			fmt.Fprintf(both, "HTTP/1.1 %d Informational\r\nX-Code: %d\r\n\r\n", code, code)
		}
		io.WriteString(both, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal")
		both.Flush()
		conn.Close()
	}
	answer := b.write(policy.Agent, "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n")
	if strings.Count(answer, "HTTP/1.1 103 ") != 6 || strings.Count(answer, "HTTP/1.1 200 OK") != 1 || !strings.HasSuffix(answer, "\r\n\r\nfinal") || strings.Count(answer, "X-Code") != 8 {
		t.Errorf("%q", answer)
	}
	// A client of HTTP/1.0 does not know them.
	answer = b.write(policy.Agent, "GET http://plain.test/ HTTP/1.0\r\nHost: plain.test\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 200 OK") || strings.Contains(answer, "X-Code") || !strings.HasSuffix(answer, "\r\n\r\nfinal") {
		t.Errorf("%q", answer)
	}
}

// An answer is an origin's own, even where it looks like a refusal of ours; and what is cut short by an origin is never
// ended as if it were whole.
func TestAnswersAreAsTheyCame(t *testing.T) {
	b := newBench(t, standard())
	begun := make(chan struct{})
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Bottle-Refused-By", "egress")
		w.Write([]byte("first"))
		w.(http.Flusher).Flush()
		<-begun
		panic(http.ErrAbortHandler)
	}
	for _, h2 := range []bool{false, true} {
		answer, err := b.client(policy.Agent, h2).Get("https://plain.test/")
		check(t, err)
		first := make([]byte, 5)
		if _, err := io.ReadFull(answer.Body, first); err != nil {
			t.Errorf("it is not streamed: %v", err)
		}
		begun <- struct{}{}
		if _, err := io.ReadAll(answer.Body); err == nil {
			t.Errorf("h2 %t: it ended as if it were whole", h2)
		}
	}
}

// A presigned URL is no leak: an access key's id is not a secret (W14), and its signature is for one object and a time.
func TestPresignedURLsPass(t *testing.T) {
	b := newBench(t, standard())
	where := "https://plain.test/bucket/object?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA" + "IOSFODNN7EXAMPLE%2F20261130%2Feu-central-1%2Fs3%2Faws4_request&X-Amz-Date=20261130T000000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=" + strings.Repeat("0123456789abcdef", 4)
	if status, text := b.get("agent", "GET", where, nil); status != 200 {
		t.Errorf("%d %q", status, text)
	}
}

// Addresses are hosts as well, where they are listed: of both families.
func TestAddressesAsHosts(t *testing.T) {
	b := newBench(t, policyOf(host("fd00::7"), host("10.9.8.7")))
	b.role.connect = func(ctx context.Context, address string) (net.Conn, error) {
		if address != "[fd00::7]:443" && address != "10.9.8.7:443" {
			return nil, errors.New("connected to " + address)
		}
		return connect(ctx, b.secure)
	}
	for name, address := range map[string]string{"[fd00::7]": "fd00::7", "10.9.8.7": "10.9.8.7", "[fd00:0:0::7]": "fd00::7", "[::ffff:10.9.8.7]": "10.9.8.7"} {
		b.unnamed = address
		if status, text := b.get("agent", "GET", "https://"+name+"/", nil); status != 200 {
			t.Errorf("%s: %d %q", name, status, text)
		}
	}
	for _, name := range []string{"[fd00::8]", "10.9.8.8", "[::ffff:10.9.8.8]"} {
		if status, _ := b.get("agent", "GET", "https://"+name+"/", nil); status == 200 {
			t.Errorf("%s is not listed", name)
		}
	}
}

// The address is judged that is connected to, and of several each one is.
func TestEachAddressIsJudged(t *testing.T) {
	b := newBench(t, policyOf(host("plain.test", "private", false)))
	b.role.lookup = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("9.9.9.9")}, nil
	}
	connected := make(chan string, 4)
	b.role.connect = func(_ context.Context, address string) (net.Conn, error) {
		connected <- address
		return nil, errors.New("the test's own")
	}
	if status, _ := b.get("agent", "GET", "http://plain.test/", nil); status != 502 {
		t.Error(status)
	}
	close(connected)
	for address := range connected {
		if address != "9.9.9.9:80" {
			t.Errorf("connected to %s", address)
		}
	}
}
