package egress

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"bottle/proxy/internal/policy"
)

// raw is an HTTP/2 connection to a host, inside of a tunnel, whose frames the test writes itself.
type raw struct {
	t      *testing.T
	conn   *tls.Conn
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
}

func (b *bench) raw2(host string) *raw {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.addresses[policy.Agent])
	check(b.t, err)
	b.t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, "CONNECT "+host+":443 HTTP/1.1\r\nHost: "+host+":443\r\n\r\n")
	check(b.t, err)
	answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
	check(b.t, err)
	if answer.StatusCode != 200 {
		b.t.Fatalf("CONNECT: %s", answer.Status)
	}
	r := &raw{t: b.t, conn: tls.Client(conn, &tls.Config{ServerName: host, RootCAs: b.roots, NextProtos: []string{"h2"}})}
	_, err = io.WriteString(r.conn, http2.ClientPreface)
	check(b.t, err)
	r.framer = http2.NewFramer(r.conn, r.conn)
	r.framer.AllowIllegalWrites = true
	r.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.hpack = hpack.NewEncoder(&r.block)
	check(b.t, r.framer.WriteSettings())
	return r
}

// ask sends a request on stream 1: fields are names and values. Its body, where there is one, is written by the caller.
func (r *raw) ask(ends bool, fields ...string) {
	r.t.Helper()
	for i := 0; i < len(fields); i += 2 {
		check(r.t, r.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	check(r.t, r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block.Bytes(), EndHeaders: true, EndStream: ends}))
}

// answer returns the status and the body of stream 1, or "reset".
func (r *raw) answer() (status, body string) {
	for {
		frame, err := r.framer.ReadFrame()
		if err != nil {
			return "reset", err.Error()
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				r.framer.WriteSettingsAck()
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "reset", status + body
		case *http2.MetaHeadersFrame:
			status = frame.PseudoValue("status")
			if frame.StreamEnded() {
				return status, body
			}
		case *http2.DataFrame:
			body += string(frame.Data())
			if frame.StreamEnded() {
				return status, body
			}
		}
	}
}

// HTTP/2 can carry what HTTP/1.1 can't: it is refused, and never written into an HTTP/1.1 head (RFC 9113, 8.2.1 and 10.3).
// Held by wire.CheckTarget (targets) and front.target (places); fields are refused by the library's server.
func TestHTTP2CarriesNothingThatHTTP1Reads(t *testing.T) {
	b := newBench(t, standard())
	head := func(path string, more ...string) []string {
		return append([]string{":method", "GET", ":scheme", "https", ":authority", "plain.test", ":path", path}, more...)
	}
	for name, fields := range map[string][]string{
		"a blank in the path":         head("/a HTTP/1.1"),
		"a line end in the path":      head("/a\r\nX: y"),
		"a fragment":                  head("/a#b"),
		"bytes beyond ASCII":          head("/\xc3\xa4"),
		"a line end in a value":       head("/", "x-a", "b\r\nx-c: d"),
		"a bare LF in a value":        head("/", "x-a", "b\nx-c: d"),
		"a NUL in a value":            head("/", "x-a", "b\x00"),
		"a control character":         head("/", "x-a", "b\x01c"),
		"a line end in a name":        head("/", "x-a\r\nx-c", "d"),
		"a blank in a name":           head("/", "x a", "d"),
		"a name in upper case":        head("/", "X-A", "d"),
		"framing of HTTP/1.1":         head("/", "transfer-encoding", "chunked"),
		"a field of the connection":   head("/", "connection", "keep-alive"),
		"another Host":                head("/", "host", "origin.test"),
		"another authority":           {":method", "GET", ":scheme", "https", ":authority", "origin.test", ":path", "/"},
		"another scheme":              {":method", "GET", ":scheme", "ftp", ":authority", "plain.test", ":path", "/"},
		"no authority":                {":method", "GET", ":scheme", "https", ":path", "/"},
		"a user in the authority":     {":method", "GET", ":scheme", "https", ":authority", "origin.test@plain.test", ":path", "/"},
		"a method that is no token":   {":method", "GET /x", ":scheme", "https", ":authority", "plain.test", ":path", "/"},
		"two paths":                   head("/", ":path", "/other"),
		"an absolute URL as the path": head("https://origin.test/"),
		"CONNECT":                     {":method", "CONNECT", ":authority", "plain.test:443"},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.raw2("plain.test")
			r.ask(true, fields...)
			if status, body := r.answer(); status != "reset" && !strings.HasPrefix(status, "4") {
				t.Errorf("%s %q", status, body)
			}
		})
	}
	if seen := b.saw(); len(seen) != 0 {
		t.Errorf("the origin saw %v", seen)
	}
}

// A head of more than 64 KiB is refused before it is looked at.
func TestAnHTTP2HeadIsBounded(t *testing.T) {
	b := newBench(t, standard())
	request, err := http.NewRequest("GET", "https://plain.test/", nil)
	check(t, err)
	request.Header.Set("X-Long", strings.Repeat("x", 70<<10))
	answer, err := b.client(policy.Agent, true).Do(request)
	if err == nil && answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%s", answer.Status)
	}
	if seen := b.saw(); len(seen) != 0 {
		t.Errorf("the origin saw %v", seen)
	}
}

// A body that is longer or shorter than its Content-Length never arrives as a whole one (RFC 9113, 8.1.1).
func TestAnHTTP2BodyHasTheLengthThatItSays(t *testing.T) {
	for name, length := range map[string]string{"shorter": "10", "longer": "2"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, standard())
			over := make(chan error, 1)
			b.origin = func(_ http.ResponseWriter, r *http.Request) {
				_, err := io.Copy(io.Discard, r.Body)
				over <- err
			}
			r := b.raw2("plain.test")
			r.ask(false, ":method", "POST", ":scheme", "https", ":authority", "plain.test", ":path", "/", "content-length", length)
			check(t, r.framer.WriteData(1, true, []byte("four")))
			if status, body := r.answer(); status != "reset" && !strings.HasPrefix(status, "4") {
				t.Errorf("%s %q", status, body)
			}
			select {
			case err := <-over:
				if err == nil {
					t.Error("the origin took it for whole")
				}
			default: // It never got there.
			}
		})
	}
}
