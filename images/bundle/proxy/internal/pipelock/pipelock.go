// Package pipelock is the agent's door: it judges and scans, and hands what may leave to egress.
package pipelock

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"time"

	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/live"
	"bottle/proxy/internal/proxy"
)

// bufferSize is what a body is written to egress in, in bytes.
const bufferSize = 64 << 10

// A Role is pipelock's part of the proxy.
type Role struct{ transport *http.Transport }

// New returns pipelock's role. Requests go to egress at that address, in absolute form over loopback, where egress makes
// its own TLS to the origin: what is judged there is what was judged here.
func New(set *live.Set, egress string) *Role {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	return &Role{&http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "tcp", egress)
			if err != nil {
				return nil, judge.Refuse(502, "egress can't be reached: %s", err)
			}
			return set.Track(conn.(*net.TCPConn), true)
		},
		DisableCompression:     true,
		WriteBufferSize:        bufferSize,
		MaxIdleConnsPerHost:    512,
		IdleConnTimeout:        time.Minute,
		ExpectContinueTimeout:  3 * time.Second,
		MaxResponseHeaderBytes: 320 << 10,
	}}
}

// hop writes requests in absolute form, https ones too, which http.Transport would put into a tunnel.
type hop struct{ *http.Transport }

func (h hop) RoundTrip(out *http.Request) (*http.Response, error) {
	path := out.URL.Opaque
	if path == "" {
		path = out.URL.EscapedPath()
	}
	out.URL = &url.URL{Scheme: "http", Host: "egress", Opaque: out.URL.Scheme + "://" + out.URL.Host + path, RawQuery: out.URL.RawQuery, ForceQuery: out.URL.ForceQuery}
	return h.Transport.RoundTrip(out)
}

// Fill sets the transport, which is the same for every state: where a connection leads, egress judges.
func (r *Role) Fill(state *proxy.State) error {
	state.Transport = func(string, bool) http.RoundTripper { return hop{r.transport} }
	state.Retire = func() {}
	return nil
}

// Prepare changes nothing.
func (r *Role) Prepare(*proxy.Exchange, *http.Request) {}

// Tunnel is not for agents.
func (r *Role) Tunnel(context.Context, judge.Host, bool) (net.Conn, error) {
	return nil, judge.Refuse(405, "tunnels that are not looked at are git-gate's alone")
}
