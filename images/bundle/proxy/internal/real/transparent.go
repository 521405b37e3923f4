package real

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"bottle/proxy/internal/judge"
)

// The engine knows no transparent clients: what they send is put to its port as a proxy's client would.
var itself = fmt.Sprintf("127.0.0.1:%d", port)

const helloTimeout = 30 * time.Second

var errSeen = errors.New("the server name has been seen")

// recorded remembers what was read, and writes nothing.
type recorded struct {
	net.Conn
	read bytes.Buffer
}

func (r *recorded) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.read.Write(p[:n])
	return n, err
}

func (r *recorded) Write(p []byte) (int, error) { return len(p), nil }

// ServeTLS puts each connection into a tunnel to the host that its ClientHello names.
func (e *Engine) ServeTLS(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			conn.SetReadDeadline(time.Now().Add(helloTimeout))
			client, name := &recorded{Conn: conn}, ""
			tls.Server(client, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				name = hello.ServerName
				return nil, errSeen
			}}).Handshake()
			conn.SetReadDeadline(time.Time{})
			if name, err = judge.Normalize(name); err == nil {
				tunnel(conn, &client.read, judge.Host{Name: name, Port: 443})
			}
		}()
	}
}

func tunnel(conn net.Conn, begun io.Reader, host judge.Host) {
	proxy, err := net.Dial("tcp", itself)
	if err != nil {
		return
	}
	defer proxy.Close()
	fmt.Fprintf(proxy, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)
	in := bufio.NewReader(proxy)
	answer, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil || answer.StatusCode != http.StatusOK {
		return
	}
	go func() {
		io.Copy(proxy, io.MultiReader(begun, conn))
		proxy.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(conn, in)
}

// ServeHTTP asks for each request by its Host header.
func (e *Engine) ServeHTTP(listener net.Listener) error {
	return http.Serve(listener, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", r.In.Host
		},
		Transport:     &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: itself}), DisableCompression: true},
		FlushInterval: -1,
	})
}
