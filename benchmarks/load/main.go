// Load is both ends of the data path's benchmark: `load origin DIRECTORY` answers, `load OPTIONS` asks.
//
// The origin writes its certificate to DIRECTORY/origin.pem. It listens on 443 (HTTP/2 and HTTP/1.1) and on 8443, where
// it speaks HTTP/1.1 alone and negotiates nothing. The asking side prints one line of JSON: see result.
package main

import (
	"bufio"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Names of the origin; the policy of what is measured treats the second one differently.
var names = []string{"origin.test", "pass.test"}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "origin" {
		log.Fatal(origin(os.Args[2]))
	}
	if err := ask(); err != nil {
		log.Fatal(err)
	}
}

func origin(directory string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, DNSNames: names, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	certificate := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	both, err := tls.Listen("tcp", ":443", &tls.Config{Certificates: certificate, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		return err
	}
	old, err := tls.Listen("tcp", ":8443", &tls.Config{Certificates: certificate})
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(answer)}
	failed := make(chan error)
	go func() { failed <- server.Serve(both) }()
	go func() { failed <- (&http.Server{Handler: http.HandlerFunc(answer)}).Serve(old) }()
	temporary, path := filepath.Join(directory, "new"), filepath.Join(directory, "origin.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := cmp.Or(os.WriteFile(temporary, text, 0o644), os.Rename(temporary, path)); err != nil {
		return err
	}
	return <-failed
}

// answer reads the whole request, and sends as many bytes as ?n= says.
func answer(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "websocket" {
		converse(w, r)
		return
	}
	io.Copy(io.Discard, r.Body)
	n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	if err != nil {
		n = 5
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	io.Copy(w, &text{left: n})
}

// converse reads the frames of a websocket up to the close frame, and answers that one.
func converse(w http.ResponseWriter, r *http.Request) {
	conn, both, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(both, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	both.Flush()
	for {
		var head [14]byte
		if _, err := io.ReadFull(both, head[:2]); err != nil {
			return
		}
		length := int64(head[1] & 0x7f)
		if length == 127 {
			io.ReadFull(both, head[2:10])
			length = int64(binary.BigEndian.Uint64(head[2:10]))
		}
		if _, err := io.CopyN(io.Discard, both, 4+length); err != nil {
			return
		}
		if head[0]&0x0f == 8 {
			both.Write([]byte{0x88, 0})
			both.Flush()
			return
		}
	}
}

// page is text as it is sent to models and code hosts: words, and identifiers in base64 and hexadecimal digits.
var page = func() []byte {
	source := mathrand.New(mathrand.NewPCG(1, 2))
	var made []byte
	for len(made) < 1<<20 {
		blob := make([]byte, 8+source.IntN(40))
		for i := range blob {
			blob[i] = byte(source.Uint32())
		}
		made = fmt.Appendf(made, "{\"id\": %q, \"text\": \"the quick brown fox, number %d, jumps over it\", \"digest\": %q},\n",
			base64.StdEncoding.EncodeToString(blob), source.IntN(1_000_000), hex.EncodeToString(blob))
	}
	return made[:1<<20]
}()

type text struct{ at, left int64 }

func (t *text) Read(p []byte) (int, error) {
	if t.left <= 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), t.left)], page[t.at%int64(len(page)):])
	t.at, t.left = t.at+int64(n), t.left-int64(n)
	return n, nil
}

// A result is what the asking side has to say. Errors are requests that got no whole answer with status 200.
type result struct {
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_ms"`
	Errors  int64   `json:"errors"`
	First   string  `json:"first_error,omitempty"`
}

type options struct {
	url, proxy      string
	count, parallel int
	h2, fresh       bool
	up              int64
	websocket       int
}

func ask() error {
	var o options
	authorities := flag.String("ca", "", "file with the trusted certificates")
	flag.StringVar(&o.url, "url", "", "what is asked for")
	flag.StringVar(&o.proxy, "proxy", "", "the proxy's URL; none: directly")
	flag.IntVar(&o.count, "n", 1, "requests in all")
	flag.IntVar(&o.parallel, "c", 1, "requests at once")
	flag.BoolVar(&o.h2, "h2", false, "by HTTP/2, else by HTTP/1.1")
	flag.BoolVar(&o.fresh, "fresh", false, "a new connection for each")
	flag.Int64Var(&o.up, "up", 0, "bytes of each request's body")
	flag.IntVar(&o.websocket, "websocket", 0, "messages of 1 MiB through one websocket")
	flag.Parse()
	pool := x509.NewCertPool()
	trustedPEM, err := os.ReadFile(*authorities)
	if err != nil {
		return err
	}
	pool.AppendCertsFromPEM(trustedPEM)
	trusted := &tls.Config{RootCAs: pool}
	began := time.Now()
	var got result
	if o.websocket > 0 {
		if err := talk(o, trusted); err != nil {
			got = result{Errors: 1, First: err.Error()}
		}
	} else if got, err = requests(o, trusted); err != nil {
		return err
	}
	got.Seconds = time.Since(began).Seconds()
	return json.NewEncoder(os.Stdout).Encode(got)
}

func requests(o options, trusted *tls.Config) (result, error) {
	transport := &http.Transport{TLSClientConfig: trusted, MaxIdleConnsPerHost: o.parallel, DisableKeepAlives: o.fresh, DisableCompression: true, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!o.h2)
	transport.Protocols.SetHTTP2(o.h2)
	if o.proxy != "" {
		where, err := url.Parse(o.proxy)
		if err != nil {
			return result{}, err
		}
		transport.Proxy = http.ProxyURL(where)
	}
	client := &http.Client{Transport: transport}
	var all sync.WaitGroup
	var next, failed atomic.Int64
	var mutex sync.Mutex
	var took []float64
	var first error
	for range o.parallel {
		all.Go(func() {
			for next.Add(1) <= int64(o.count) {
				began := time.Now()
				err := one(client, o)
				ms := float64(time.Since(began).Microseconds()) / 1000
				mutex.Lock()
				took = append(took, ms)
				if err != nil {
					failed.Add(1)
					first = cmp.Or(first, err)
				}
				mutex.Unlock()
			}
		})
	}
	all.Wait()
	slices.Sort(took)
	got := result{P50: took[len(took)/2], Errors: failed.Load()}
	if first != nil {
		got.First = first.Error()
	}
	return got, nil
}

func one(client *http.Client, o options) error {
	method, body := http.MethodGet, io.Reader(nil)
	if o.up > 0 {
		method, body = http.MethodPost, &text{left: o.up}
	}
	request, err := http.NewRequest(method, o.url, body)
	if err != nil {
		return err
	}
	request.ContentLength = o.up
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

// talk sends messages through one websocket, says so, and ends it once there is a byte to read on stdin, or its end.
func talk(o options, trusted *tls.Config) error {
	where, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	address := where.Host
	if o.proxy != "" {
		proxy, err := url.Parse(o.proxy)
		if err != nil {
			return err
		}
		address = proxy.Host
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if o.proxy != "" {
		fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", where.Host, where.Host)
		answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
		if err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
	}
	session := tls.Client(conn, &tls.Config{RootCAs: trusted.RootCAs, ServerName: where.Hostname()})
	fmt.Fprintf(session, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", where.Host)
	in := bufio.NewReader(session)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(answer.Status)
	}
	// A mask of zeros leaves the payload as it is.
	head := append(binary.BigEndian.AppendUint64([]byte{0x82, 0x80 | 127}, uint64(len(page))), 0, 0, 0, 0)
	for range o.websocket {
		if _, err := session.Write(append(head, page...)); err != nil {
			return err
		}
	}
	// Whoever measures looks at the proxies now, and lets it end.
	fmt.Println("sent")
	os.Stdin.Read(make([]byte, 1))
	if _, err := session.Write([]byte{0x88, 0x80, 0, 0, 0, 0}); err != nil {
		return err
	}
	closed, err := io.ReadAll(in)
	if len(closed) == 0 {
		return fmt.Errorf("no close frame came back: %w", err)
	}
	return nil
}
