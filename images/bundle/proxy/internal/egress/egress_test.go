package egress

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/killswitch"
	"bottle/proxy/internal/live"
	"bottle/proxy/internal/mitm"
	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/proxy"
)

const (
	credential = "Bearer what-the-agent-must-not-see"
	token      = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345" // made up
)

// policyOf is a compiled policy whose hosts are the given ones.
func policyOf(hosts ...map[string]any) map[string]any {
	return map[string]any{
		"generation": "0123456789abcdef",
		"egress": map[string]any{
			"methods": []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"},
			"hosts":   hosts,
			"tunnels": []map[string]any{{"host": "ssh.test", "port": 22, "private": true}},
			"credentials": []map[string]any{
				{"name": "token", "host": "origin.test", "header": "Authorization", "value_file": "/token", "for": []string{"agent"}, "placeholder": "made-up-placeholder"},
			},
			"scan_limit": 1 << 20,
		},
		"pipelock": map[string]any{"patterns": []map[string]any{{"name": "github-token", "regex": `gh[pousr]_[A-Za-z0-9]{36}`}}},
		"git":      map[string]any{"repos": map[string]any{"demo": map[string]any{"scheme": "https", "host": "git.test", "port": 443, "path": "/team/demo.git"}}},
	}
}

func host(name string, more ...any) map[string]any {
	rule := map[string]any{"host": name, "for": []string{"agent"}, "private": true, "rule": "test " + name}
	for i := 0; i < len(more); i += 2 {
		rule[more[i].(string)] = more[i+1]
	}
	return rule
}

func standard() map[string]any {
	return policyOf(
		host("origin.test"), host("plain.test"),
		host("limited.test", "methods", []string{"GET"}, "paths", []string{"/v1", "/only/"}),
		host("redact.test", "on_secret", "redact"), host("ask.test", "on_secret", "ask"), host("pass.test", "on_secret", "pass"),
		host("public.test", "private", false), host("metadata.test"), host("loopback.test"), host("bundle.test"), host("agent.test"), host("idle.test", "idle_ms", 1),
		host("git.test", "for", []string{"git"}, "paths", []string{"/team/demo.git"}, "on_secret", "pass"),
		host("both.test"),
	)
}

// A bench is egress with an internet of its own.
type bench struct {
	t         *testing.T
	engine    *proxy.Engine
	addresses map[string]string // of the doors, by their consumers
	roots     *x509.CertPool
	switches  string // the kill switch's file
	audit     string // the audit's directory
	mutex     sync.Mutex
	seen      []string // requests that have reached the origin
	origin    http.HandlerFunc
	raw       net.Listener
	role      *Role
	secure    string      // the address of the origin that speaks TLS
	unnamed   string      // the address that it is certified for where it is asked by no name
	offers    *tls.Config // what it offers
	values    string      // the credentials' file
}

func (b *bench) saw() []string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return slices.Clone(b.seen)
}

func newBench(t *testing.T, compiled map[string]any) *bench {
	t.Helper()
	b := &bench{t: t, addresses: map[string]string{}}
	directory := t.TempDir()
	b.switches = filepath.Join(directory, "kill-switch")
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		b.mutex.Lock()
		b.seen = append(b.seen, fmt.Sprintf("%s %s %s auth=%q length=%d body=%d err=%v proto=%s", r.Method, r.Host, r.RequestURI, r.Header.Get("Authorization"), r.ContentLength, len(body), err, r.Proto))
		b.mutex.Unlock()
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		w.Write([]byte("echo " + r.Header.Get("Authorization") + " " + string(body)))
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.origin(w, r) })
	secure, plain := httptest.NewUnstartedServer(handler), httptest.NewServer(handler)
	secure.EnableHTTP2 = true
	authority, err := mitm.New("origins")
	check(t, err)
	check(t, os.WriteFile(filepath.Join(directory, "origins.pem"), authority, 0o600))
	issuer, err := mitm.Load(filepath.Join(directory, "origins.pem"))
	check(t, err)
	own := &tls.Config{NextProtos: []string{"h2", "http/1.1"}, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return issuer.For(cmp.Or(hello.ServerName, b.unnamed))
	}}
	b.offers, b.values = own, filepath.Join(directory, "credentials.json")
	secure.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return own, nil }}
	secure.StartTLS()
	b.raw, err = net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	pair, err := mitm.New("egress")
	check(t, err)
	check(t, os.WriteFile(filepath.Join(directory, "ca.pem"), pair, 0o600))
	check(t, os.WriteFile(b.values, []byte(fmt.Sprintf(`{"/token": %q}`, credential)), 0o600))
	set := live.NewSet()
	role := New(set, filepath.Join(directory, "origins.pem"), filepath.Join(directory, "credentials.json"), netip.MustParsePrefix("10.99.0.0/28"))
	role.own = func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.IPv4(10, 98, 0, 2), Mask: net.CIDRMask(28, 32)}}, nil
	}
	role.lookup = func(_ context.Context, name string) ([]netip.Addr, error) {
		switch strings.TrimSuffix(name, ".") {
		case "metadata.test":
			return []netip.Addr{netip.MustParseAddr("169.254.169.254")}, nil
		case "loopback.test":
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		case "bundle.test":
			return []netip.Addr{netip.MustParseAddr("10.98.0.2")}, nil
		case "agent.test":
			return []netip.Addr{netip.MustParseAddr("10.99.0.3")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("10.9.8.7")}, nil
	}
	role.connect = func(ctx context.Context, address string) (net.Conn, error) {
		to := map[string]string{"10.9.8.7:443": secure.Listener.Addr().String(), "10.9.8.7:80": plain.Listener.Addr().String(), "10.9.8.7:22": b.raw.Addr().String()}[address]
		if to == "" {
			return nil, errors.New("connected to " + address)
		}
		return connect(ctx, to)
	}
	b.role, b.secure = role, secure.Listener.Addr().String()
	issued, err := mitm.Load(filepath.Join(directory, "ca.pem"))
	check(t, err)
	b.roots = x509.NewCertPool()
	b.roots.AppendCertsFromPEM(issued.PEM())
	b.audit = filepath.Join(directory, "audit")
	check(t, os.Mkdir(b.audit, 0o700))
	b.engine = &proxy.Engine{Daemon: "egress", Port: 9099, Lag: time.Millisecond, Authority: issued, Role: role, Live: set, Audit: audit.Open("egress", b.audit), AskSocket: filepath.Join(directory, "ask.sock")}
	b.engine.Switch = killswitch.New(b.switches, b.engine.Switched)
	b.use(compiled)
	go b.engine.Switch.Watch()
	for _, consumer := range []string{policy.Agent, policy.Git} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		b.addresses[consumer] = listener.Addr().String()
		go b.engine.Serve(proxy.Door{Listener: listener, Consumer: consumer})
		t.Cleanup(func() { listener.Close() })
	}
	t.Cleanup(func() { set.Close(true, "the test is over"); secure.Close(); plain.Close(); b.raw.Close() })
	return b
}

func (b *bench) use(compiled map[string]any) {
	b.t.Helper()
	text, err := json.Marshal(compiled)
	check(b.t, err)
	p, err := policy.Parse(text)
	check(b.t, err)
	check(b.t, b.engine.Use(p))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// client asks by the proxy, with a connection of its own.
func (b *bench) client(consumer string, h2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: b.addresses[consumer]}), TLSClientConfig: &tls.Config{RootCAs: b.roots}, Protocols: protocols, DisableCompression: true}
	b.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get returns the status and the body; a refused CONNECT is 0 and the error's text.
func (b *bench) get(consumer, method, where string, body io.Reader, header ...string) (int, string) {
	b.t.Helper()
	request, err := http.NewRequest(method, where, body)
	check(b.t, err)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	answer, err := b.client(consumer, false).Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return answer.StatusCode, err.Error()
	}
	return answer.StatusCode, string(text)
}

// write writes bytes to a door and returns all that comes back.
func (b *bench) write(consumer, text string) string {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.addresses[consumer])
	check(b.t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, text)
	check(b.t, err)
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

func TestWhatIsAllowedGetsThroughWithItsCredential(t *testing.T) {
	b := newBench(t, standard())
	for _, h2 := range []bool{false, true} {
		answer, err := b.client(policy.Agent, h2).Post("https://origin.test/a%2Fb//c?x=%zz&y", "text/plain", strings.NewReader("hello"))
		check(t, err)
		text, _ := io.ReadAll(answer.Body)
		if answer.StatusCode != 200 || strings.Contains(string(text), "must-not-see") || !strings.Contains(string(text), strings.Repeat("*", len(credential))) {
			t.Errorf("h2 %t: %d %q", h2, answer.StatusCode, text)
		}
		if echoed := answer.Header.Get("X-Echo"); echoed != strings.Repeat("*", len(credential)) {
			t.Errorf("h2 %t: the header repeats %q", h2, echoed)
		}
	}
	for _, seen := range b.saw() {
		if want := fmt.Sprintf(`POST origin.test /a%%2Fb//c?x=%%zz&y auth=%q length=5 body=5 err=<nil>`, credential); !strings.HasPrefix(seen, want) {
			t.Errorf("the origin saw %s", seen)
		}
	}
}

// Each row is refused by egress alone, and reaches nobody.
func TestRefusals(t *testing.T) {
	b := newBench(t, standard())
	zipped := func(text string) string {
		var buffer bytes.Buffer
		w := gzip.NewWriter(&buffer)
		io.WriteString(w, text)
		w.Close()
		return buffer.String()
	}
	for _, row := range []struct {
		name, consumer, method, where, body string
		header                              []string
		want                                string
	}{
		{"host", "agent", "GET", "https://denied.test/", "", nil, "not allowed by egress.allow"},
		{"host in the clear", "agent", "GET", "http://denied.test/", "", nil, "not allowed by egress.allow"},
		{"port", "agent", "GET", "https://origin.test:8443/", "", nil, "not allowed by egress.allow"},
		{"an upstream, for the agent", "agent", "GET", "https://git.test/team/demo.git/info/refs", "", nil, "git-gate alone"},
		{"the agent's host, for git", "git", "GET", "https://origin.test/", "", nil, "not allowed by egress.allow"},
		{"beside the repository, for git", "git", "GET", "https://git.test/team/other", "", nil, "methods and paths"},
		{"a path", "agent", "GET", "https://limited.test/v10", "", nil, "methods and paths"},
		{"a path in disguise", "agent", "GET", "https://limited.test/v1/%2e%2e/x", "", nil, "methods and paths"},
		{"a path of its own only below", "agent", "GET", "https://limited.test/only", "", nil, "methods and paths"},
		{"a method", "agent", "POST", "https://limited.test/v1", "x", nil, "methods and paths"},
		{"an unknown method", "agent", "FROBNICATE", "https://origin.test/", "", nil, "methods and paths"},
		{"TRACE", "agent", "TRACE", "https://origin.test/", "", nil, "TRACE"},
		{"a private address", "agent", "GET", "https://public.test/", "", nil, "private = true"},
		{"the metadata service", "agent", "GET", "http://metadata.test/", "", nil, "metadata service"},
		{"loopback", "agent", "GET", "http://loopback.test/", "", nil, "loopback"},
		{"the bundle's own address", "agent", "GET", "http://bundle.test/", "", nil, "the bundle's own"},
		{"the agent's network", "agent", "GET", "http://agent.test/", "", nil, "the agent's network"},
		{"an upgrade", "agent", "GET", "https://plain.test/", "", []string{"Connection", "Upgrade", "Upgrade", "foo"}, "upgrade"},
		{"a secret in the URL", "agent", "GET", "https://plain.test/?q=" + token, "", nil, "github-token"},
		{"in the URL's base64", "agent", "GET", "https://plain.test/?q=" + base64.URLEncoding.EncodeToString([]byte("x"+token)), "", nil, "github-token"},
		{"in a header", "agent", "GET", "https://plain.test/", "", []string{"X-Note", "x" + token + "x"}, "github-token"},
		{"in a body", "agent", "POST", "https://plain.test/", "glued" + token + "to", nil, "github-token"},
		{"in a compressed body", "agent", "POST", "https://plain.test/", zipped(token), []string{"Content-Encoding", "gzip"}, "github-token"},
		{"in an unknown encoding", "agent", "POST", "https://plain.test/", "x", []string{"Content-Encoding", "rot13"}, "can't be looked into"},
		{"a known secret", "agent", "POST", "https://plain.test/", base64.StdEncoding.EncodeToString([]byte("ab" + credential)), nil, "token"},
		{"a known secret's token", "agent", "GET", "https://plain.test/?q=what-the-agent-must-not-see", "", nil, "token"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := len(b.saw())
			status, text := b.get(row.consumer, row.method, row.where, strings.NewReader(row.body), row.header...)
			if status != 0 && status < 400 || !strings.Contains(text, row.want) {
				t.Errorf("%d %q", status, text)
			}
			if strings.Contains(text, token) || strings.Contains(text, "must-not-see") {
				t.Errorf("the refusal repeats the secret: %q", text)
			}
			for _, seen := range b.saw()[before:] {
				if strings.Contains(seen, "err=<nil>") {
					t.Errorf("the origin saw %s", seen)
				}
			}
		})
	}
}

// What could be read in two ways is not read at all (RFC 9112, 3.2, 6.1 and 11.2).
func TestMalformedRequests(t *testing.T) {
	b := newBench(t, standard())
	for name, text := range map[string]string{
		"two Hosts":                   "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nHost: plain.test\r\n\r\n",
		"no Host":                     "GET http://plain.test/ HTTP/1.1\r\n\r\n",
		"another Host":                "GET http://plain.test/ HTTP/1.1\r\nHost: origin.test\r\nConnection: close\r\n\r\n",
		"another port in Host":        "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test:443\r\nConnection: close\r\n\r\n",
		"bare LF":                     "GET http://plain.test/ HTTP/1.1\nHost: plain.test\n\n",
		"a control character":         "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nX: a\x01b\r\n\r\n",
		"a NUL":                       "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nX: a\x00b\r\n\r\n",
		"a bare CR":                   "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nX: a\rY: b\r\n\r\n",
		"a folded line":               "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nX: a\r\n b\r\n\r\n",
		"a blank before the colon":    "GET http://plain.test/ HTTP/1.1\r\nHost : plain.test\r\n\r\n",
		"length and chunks":           "POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":                 "POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		"a signed length":             "POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nContent-Length: +3\r\n\r\nabc",
		"an unknown coding":           "POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"a trailer that is Host":      "POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nTrailer: Host\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: x\r\n\r\n",
		"credentials in the target":   "GET http://a:b@plain.test/ HTTP/1.1\r\nHost: plain.test\r\n\r\n",
		"another scheme":              "GET ftp://plain.test/ HTTP/1.1\r\nHost: plain.test\r\n\r\n",
		"no host in the target":       "GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n",
		"an address in disguise":      "GET http://0x7f000001/ HTTP/1.1\r\nHost: 0x7f000001\r\nConnection: close\r\n\r\n",
		"a head of 64 KiB":            "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n",
		"a secret in a header's name": "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nX-" + token + ": 1\r\n\r\n",
		"another version":             "GET http://plain.test/ HTTP/2.0\r\nHost: plain.test\r\n\r\n",
		"CONNECT with another Host":   "CONNECT origin.test:443 HTTP/1.1\r\nHost: plain.test:443\r\nConnection: close\r\n\r\n",
		"CONNECT without a port":      "CONNECT origin.test HTTP/1.1\r\nHost: origin.test\r\nConnection: close\r\n\r\n",
		"CONNECT to a denied host":    "CONNECT denied.test:443 HTTP/1.1\r\nHost: denied.test:443\r\nConnection: close\r\n\r\n",
		"CONNECT to ssh, for agent":   "CONNECT ssh.test:22 HTTP/1.1\r\nHost: ssh.test:22\r\nConnection: close\r\n\r\n",
		"another host in a tunnel":    "CONNECT plain.test:80 HTTP/1.1\r\nHost: plain.test:80\r\n\r\nGET http://origin.test/ HTTP/1.1\r\nHost: origin.test\r\nConnection: close\r\n\r\n",
		"CONNECT in a tunnel":         "CONNECT plain.test:80 HTTP/1.1\r\nHost: plain.test:80\r\n\r\nCONNECT plain.test:80 HTTP/1.1\r\nHost: plain.test:80\r\nConnection: close\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			answer := b.write(policy.Agent, strings.ReplaceAll(text, "Host: plain.test\r\n", "Host: plain.test\r\nConnection: close\r\n"))
			last := answer[strings.LastIndex("\n"+answer, "\nHTTP/1.1 "):]
			if !strings.HasPrefix(last, "HTTP/1.1 4") {
				t.Errorf("answered %q", answer)
			}
			if _, reason, _ := strings.Cut(strings.SplitN(last, "\r\n", 2)[0], " "); len(reason) < 12 {
				t.Errorf("the reason phrase says nothing: %q", reason)
			}
		})
	}
	if seen := b.saw(); len(seen) != 0 {
		t.Errorf("the origin saw %v", seen)
	}
}

// A trailer that is not announced can't name what a head names either: the request is reset before it is whole. Held by
// inspectTrailers.
func TestTrailersNameNoFraming(t *testing.T) {
	for _, name := range []string{"Host", "Content-Length", "Transfer-Encoding", "Authorization", "Connection"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, standard())
			answer := b.write(policy.Agent, "POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"+name+": 1\r\n\r\n")
			if !strings.HasPrefix(answer, "HTTP/1.1 400 ") || !strings.Contains(answer, "a trailer must not be") {
				t.Errorf("%q", answer)
			}
			for _, seen := range b.saw() {
				if strings.Contains(seen, "err=<nil>") {
					t.Errorf("the origin saw %s", seen)
				}
			}
		})
	}
}

func TestBytesThatAreNoRequestGoNowhere(t *testing.T) {
	b := newBench(t, standard())
	for _, text := range []string{"\x00\x01 raw", "ssh-2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		answer := b.write(policy.Agent, "CONNECT plain.test:80 HTTP/1.1\r\nHost: plain.test:80\r\n\r\n"+text)
		if strings.Count(answer, "HTTP/1.1") > 1 {
			t.Errorf("%q: %q", text, answer)
		}
	}
	if seen := b.saw(); len(seen) != 0 {
		t.Errorf("the origin saw %v", seen)
	}
}

func TestTheServerNameHasToBeTheTunnels(t *testing.T) {
	b := newBench(t, standard())
	conn, err := net.Dial("tcp", b.addresses[policy.Agent])
	check(t, err)
	defer conn.Close()
	io.WriteString(conn, "CONNECT plain.test:443 HTTP/1.1\r\nHost: plain.test:443\r\nConnection: close\r\n\r\n")
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	check(t, err)
	answer.Body.Close()
	session := tls.Client(conn, &tls.Config{ServerName: "origin.test", RootCAs: b.roots})
	io.WriteString(session, "GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n")
	refused, err := http.ReadResponse(bufio.NewReader(session), nil)
	check(t, err)
	if text, _ := io.ReadAll(refused.Body); refused.StatusCode != 403 || !strings.Contains(string(text), "TLS server name") {
		t.Errorf("%d %s", refused.StatusCode, text)
	}
}

// A body that was not read does not turn the answer into a reset, however long it is.
func TestARefusalIsReadInSpiteOfALongBody(t *testing.T) {
	b := newBench(t, standard())
	for _, h2 := range []bool{false, true} {
		answer, err := b.client(policy.Agent, h2).Post("https://limited.test/v1", "text/plain", io.LimitReader(endless{}, 32<<20))
		if err != nil {
			t.Fatalf("h2 %t: %v", h2, err)
		}
		if text, _ := io.ReadAll(answer.Body); answer.StatusCode != 403 || !strings.Contains(string(text), "methods and paths") {
			t.Errorf("h2 %t: %d %q", h2, answer.StatusCode, text)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestBodiesAreFramedAsTheyWereSent(t *testing.T) {
	b := newBench(t, standard())
	for _, h2 := range []bool{false, true} {
		for _, known := range []bool{false, true} {
			var body io.Reader = strings.NewReader(strings.Repeat("y", 300<<10))
			if !known {
				body = struct{ io.Reader }{body}
			}
			answer, err := b.client(policy.Agent, h2).Post("https://plain.test/", "text/plain", body)
			check(t, err)
			answer.Body.Close()
			seen := b.saw()
			length := "length=-1"
			if known {
				length = "length=307200"
			}
			if last := seen[len(seen)-1]; !strings.Contains(last, length+" body=307200 err=<nil>") {
				t.Errorf("h2 %t, length known %t: the origin saw %s", h2, known, last)
			}
		}
	}
}

// An upload of unknown length by HTTP/2 to an origin that speaks HTTP/1.1 alone is chunked; one of a known length keeps it.
func TestUploadsByHTTP2ToHTTP1(t *testing.T) {
	b := newBench(t, standard())
	b.offers.NextProtos = []string{"http/1.1"}
	for _, length := range []int64{-1, 307200} {
		request, err := http.NewRequest("PUT", "https://plain.test/", struct{ io.Reader }{strings.NewReader(strings.Repeat("y", 300<<10))})
		check(t, err)
		request.ContentLength = length
		answer, err := b.client(policy.Agent, true).Do(request)
		check(t, err)
		answer.Body.Close()
		seen := b.saw()
		if want := fmt.Sprintf("length=%d body=307200 err=<nil> proto=HTTP/1.1", length); !strings.HasSuffix(seen[len(seen)-1], want) {
			t.Errorf("the origin saw %s", seen[len(seen)-1])
		}
	}
}

func TestSecretsAreTakenOutWhereTheRuleSaysSo(t *testing.T) {
	b := newBench(t, standard())
	var got atomic.Value
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got.Store(fmt.Sprint(r.RequestURI, r.Header["X-Note"], string(body), r.ContentLength))
	}
	stars := strings.Repeat("*", len(token))
	status, text := b.get("agent", "POST", "https://redact.test/?q="+token, strings.NewReader("a "+token+" b"), "X-Note", token)
	if want := fmt.Sprint("/?q="+stars, []string{stars}, "a "+stars+" b", len(token)+4); status != 200 || got.Load() != want {
		t.Errorf("%d %q: the origin saw %v", status, text, got.Load())
	}
	status, _ = b.get("agent", "POST", "https://pass.test/?q="+token, strings.NewReader(token))
	if status != 200 || !strings.Contains(got.Load().(string), token) {
		t.Errorf("pass: %d, the origin saw %v", status, got.Load())
	}
	if status, text := b.get("agent", "POST", "https://redact.test/", strings.NewReader(strings.Repeat("x", 2<<20))); status != 413 {
		t.Errorf("over the limit: %d %q", status, text)
	}
}

func TestWhatEgressOverwritesIsNotJudged(t *testing.T) {
	b := newBench(t, standard())
	if status, text := b.get("agent", "GET", "https://origin.test/", nil, "Authorization", "Bearer "+token); status != 200 {
		t.Errorf("%d %q", status, text)
	}
	// In the clear it is taken out, and nothing takes its place.
	if status, _ := b.get("agent", "GET", "http://origin.test/", nil, "Authorization", "Bearer forged"); status != 200 || !strings.Contains(b.saw()[1], `auth=""`) {
		t.Errorf("%d, the origin saw %v", status, b.saw())
	}
}

func TestEncodedAnswersAreLookedThroughForCredentials(t *testing.T) {
	b := newBench(t, standard())
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, r.Header.Get("Accept-Encoding")+" "+r.Header.Get("Authorization"))
		z.Close()
	}
	status, text := b.get("agent", "GET", "https://origin.test/", nil, "Accept-Encoding", "gzip")
	if status != 200 || text != "identity "+strings.Repeat("*", len(credential)) {
		t.Errorf("%d %q", status, text)
	}
}

func TestPushesPastGitGateAreRefused(t *testing.T) {
	compiled := standard()
	compiled["git"].(map[string]any)["repos"].(map[string]any)["both"] = map[string]any{"scheme": "https", "host": "both.test", "port": 443, "path": "/r.git"}
	b := newBench(t, compiled)
	for _, where := range []string{"/r.git/git-receive-pack", "/r/info/refs?service=git-receive-pack", "/x/%67it-receive-pack", "/r.git/info/refs?a=b&service=git%2Dreceive-pack", "/r.git/info/lfs/locks"} {
		if status, text := b.get("agent", "POST", "https://both.test"+where, nil); status != 403 || !strings.Contains(text, "git-gate") {
			t.Errorf("%s: %d %q", where, status, text)
		}
	}
	for _, where := range []string{"/r.git/git-upload-pack", "/r/info/refs?service=git-upload-pack", "/other"} {
		if status, text := b.get("agent", "POST", "https://both.test"+where, nil); status != 200 {
			t.Errorf("%s: %d %q", where, status, text)
		}
	}
	if status, _ := b.get("agent", "PUT", "https://both.test/r.git/objects/aa", nil); status != 403 {
		t.Errorf("WebDAV: %d", status)
	}
	if status, text := b.get("git", "POST", "https://git.test/team/demo.git/git-receive-pack", nil); status != 200 {
		t.Errorf("git: %d %q", status, text)
	}
}

func TestTunnelsAreGitGatesAlone(t *testing.T) {
	b := newBench(t, standard())
	go func() {
		if conn, err := b.raw.Accept(); err == nil {
			io.WriteString(conn, "SSH-2.0-test\r\n")
			conn.Close()
		}
	}()
	const connect = "CONNECT ssh.test:22 HTTP/1.1\r\nHost: ssh.test:22\r\nConnection: close\r\n\r\n"
	if answer := b.write(policy.Agent, connect); !strings.HasPrefix(answer, "HTTP/1.1 403 ") {
		t.Errorf("the agent: %q", answer)
	}
	if answer := b.write(policy.Git, connect); !strings.HasSuffix(answer, "\r\n\r\nSSH-2.0-test\r\n") {
		t.Errorf("git: %q", answer)
	}
}

// A slow answer of each kind is cut by a reset, and never ended as if it were whole.
func TestWhatIsCutIsReset(t *testing.T) {
	for _, cut := range []struct {
		name string
		do   func(b *bench)
	}{
		{"by the kill switch", func(b *bench) { check(t, os.WriteFile(b.switches, nil, 0o600)) }},
		{"by a revocation", func(b *bench) { b.use(policyOf(host("origin.test"))) }},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, h2 %t", cut.name, h2), func(t *testing.T) {
				b := newBench(t, standard())
				gone := make(chan error, 1)
				b.origin = func(w http.ResponseWriter, r *http.Request) {
					w.Write([]byte("first"))
					w.(http.Flusher).Flush()
					_, err := io.Copy(io.Discard, r.Body)
					gone <- err
				}
				in, out := io.Pipe()
				go out.Write([]byte("an upload that goes on"))
				answer, err := b.client(policy.Agent, h2).Post("https://plain.test/", "text/plain", in)
				check(t, err)
				first := make([]byte, 5)
				_, err = io.ReadFull(answer.Body, first)
				check(t, err)
				cut.do(b)
				if rest, err := io.ReadAll(answer.Body); err == nil {
					t.Errorf("the answer ended as if it were whole, after %q", rest)
				}
				if err := <-gone; err == nil {
					t.Error("the upload ended as if it were whole")
				}
				out.Close()
			})
		}
	}
}

func TestWhatIsIdleIsCut(t *testing.T) {
	b := newBench(t, standard())
	b.origin = func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	if status, text := b.get("agent", "GET", "http://idle.test/", nil); status == 200 {
		t.Errorf("%d %q", status, text)
	}
}

func TestTheKillSwitchSaysSo(t *testing.T) {
	b := newBench(t, standard())
	check(t, os.WriteFile(b.switches, nil, 0o600))
	for !b.engine.Switch.On() {
		time.Sleep(time.Millisecond)
	}
	status, text := b.get("agent", "GET", "http://plain.test/", nil)
	if status != 503 || !strings.Contains(text, "kill switch") {
		t.Errorf("%d %q", status, text)
	}
	if _, text = b.get("agent", "GET", "https://plain.test/", nil); !strings.Contains(text, "kill switch") {
		t.Errorf("%q", text)
	}
}

func TestInformationalAnswersAndTrailers(t *testing.T) {
	b := newBench(t, standard())
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		w.Header().Set("Trailer", "X-Sum")
		w.Write([]byte("final " + r.Trailer.Get("X-Asked")))
		w.Header().Set("X-Sum", "42")
	}
	for _, h2 := range []bool{false, true} {
		request, err := http.NewRequest("POST", "https://plain.test/", struct{ io.Reader }{strings.NewReader("x")})
		check(t, err)
		request.Trailer = http.Header{"X-Asked": {"yes"}}
		answer, err := b.client(policy.Agent, h2).Do(request)
		check(t, err)
		if text, _ := io.ReadAll(answer.Body); string(text) != "final yes" || answer.Trailer.Get("X-Sum") != "42" {
			t.Errorf("h2 %t: %q, trailers %v", h2, text, answer.Trailer)
		}
	}
}

// An origin that closes an HTTP/2 connection gracefully completes the streams that it has accepted (RFC 9113, 6.8).
func TestGoAwayCompletesWhatIsUnderWay(t *testing.T) {
	b := newBench(t, standard())
	begun, over := make(chan struct{}), make(chan struct{})
	b.origin = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/last" {
			w.Header().Set("Connection", "close") // net/http makes a GOAWAY of it.
			return
		}
		w.Write([]byte("first "))
		w.(http.Flusher).Flush()
		close(begun)
		<-over
		w.Write([]byte("last"))
	}
	client := b.client(policy.Agent, true)
	answer, err := client.Get("https://plain.test/slow")
	check(t, err)
	<-begun
	_, err = client.Get("https://plain.test/last")
	check(t, err)
	close(over)
	if text, err := io.ReadAll(answer.Body); err != nil || string(text) != "first last" {
		t.Errorf("%q %v", text, err)
	}
}

func TestExpectContinue(t *testing.T) {
	b := newBench(t, standard())
	answer := b.write(policy.Agent, "POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
	if !strings.HasPrefix(answer, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") {
		t.Errorf("%q", answer)
	}
}

func TestKeepAliveAndPipelining(t *testing.T) {
	b := newBench(t, standard())
	one := "POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 2\r\n\r\nhi"
	last := strings.Replace(one, "Content", "Connection: close\r\nContent", 1)
	if answer := b.write(policy.Agent, one+one+last); strings.Count(answer, "HTTP/1.1 200 OK") != 3 {
		t.Errorf("%q", answer)
	}
}

func TestGRPCRefusalsAreStatuses(t *testing.T) {
	b := newBench(t, standard())
	answer, err := b.client(policy.Agent, true).Post("https://limited.test/x.Y/Z", "application/grpc+proto", strings.NewReader("x"))
	check(t, err)
	if answer.StatusCode != 200 || answer.Header.Get("Grpc-Status") != "7" || !strings.Contains(answer.Header.Get("Grpc-Message"), "methods and paths") {
		t.Errorf("%d %v", answer.StatusCode, answer.Header)
	}
}
