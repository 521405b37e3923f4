// Package egress is the way out: it resolves names and judges where they lead, and sets the credentials that the agent
// never sees.
package egress

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/live"
	"bottle/proxy/internal/mitm"
	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/proxy"
)

const (
	dialTimeout   = 15 * time.Second
	lookupTimeout = 10 * time.Second
)

// A Role is egress' part of the proxy.
type Role struct {
	live        *live.Set
	credentials string // the path of the copy
	origins     string // the path of the authorities
	transports  map[string]*http.Transport
	judge       atomic.Pointer[judge.Judge]
	lookup      func(ctx context.Context, name string) ([]netip.Addr, error)
	connect     func(ctx context.Context, address string) (net.Conn, error)
}

// New returns egress' role. origins is a PEM file with the authorities of origins, credentials a JSON object of values by
// the paths of their files.
func New(set *live.Set, origins, credentials string) (*Role, error) {
	roots, err := mitm.Roots(origins)
	if err != nil {
		return nil, err
	}
	role := &Role{live: set, credentials: credentials, origins: origins, lookup: lookup, connect: connect}
	role.transports = make(map[string]*http.Transport)
	// One for each consumer: a connection that one may use is not the other's.
	for _, consumer := range []string{policy.Agent, policy.Git} {
		role.transports[consumer] = &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				return role.dial(ctx, consumer, address)
			},
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(256)},
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxIdleConns:           512,
			MaxIdleConnsPerHost:    256,
			IdleConnTimeout:        time.Minute,
			TLSHandshakeTimeout:    dialTimeout,
			ExpectContinueTimeout:  2 * time.Second,
			MaxResponseHeaderBytes: 256 << 10,
		}
	}
	return role, nil
}

// Transport carries requests to their origins.
func (r *Role) Transport(consumer string) http.RoundTripper { return r.transports[consumer] }

// Reloaded reads the credentials again. One that is not there is an error.
func (r *Role) Reloaded(state *proxy.State) error {
	text, err := os.ReadFile(r.credentials)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &state.Values); err != nil {
		return fmt.Errorf("%s: %w", r.credentials, err)
	}
	var missing []string
	for _, c := range state.Judge.Policy().Egress.Credentials {
		if _, ok := state.Values[c.ValueFile]; !ok {
			missing = append(missing, c.ValueFile)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not read when the bundle started, start a new one or use bottle-rotate: %s", strings.Join(missing, ", "))
	}
	r.judge.Store(state.Judge)
	for _, transport := range r.transports {
		transport.CloseIdleConnections()
	}
	return nil
}

// Prepare sets the credentials, after what the agent has sent under their names is gone.
func (r *Role) Prepare(x *proxy.Exchange, out *http.Request) {
	var names []string
	for _, c := range x.Verdict.Credentials {
		out.Header.Del(c.Header)
		if x.Scheme == "https" || c.Plaintext {
			out.Header.Set(c.Header, x.State.Values[c.ValueFile])
			names = append(names, c.Name)
		}
	}
	x.Used(names)
	if x.State.Judge.HasCredential(x.Host) {
		// The answer is looked through for credentials.
		out.Header.Set("Accept-Encoding", "identity")
	}
}

// dial connects to a host, at an address that was judged.
func (r *Role) dial(ctx context.Context, consumer, text string) (net.Conn, error) {
	host, err := judge.ParseHost(text, 0)
	if err != nil {
		return nil, err
	}
	private, known := r.judge.Load().Private(consumer, host)
	if !known {
		return nil, judge.Refuse(403, "%s is not allowed by egress.allow", host)
	}
	addresses, err := r.resolve(ctx, host.Name)
	if err != nil {
		return nil, err
	}
	var last error
	for _, address := range addresses {
		if reason := judge.Address(address, private); reason != "" {
			last = judge.Refuse(403, "%s leads to an address that it may not lead to: %s", host, reason)
			continue
		}
		conn, err := r.connect(ctx, netip.AddrPortFrom(address, uint16(host.Port)).String())
		if err == nil {
			return r.live.Track(conn.(*net.TCPConn), true), nil
		}
		last = err
	}
	return nil, last
}

func connect(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	return dialer.DialContext(ctx, "tcp", address)
}

func (r *Role) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	if address, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{address}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addresses, err := r.lookup(ctx, name)
	if err != nil || len(addresses) == 0 {
		var failed *net.DNSError
		reason := "no addresses"
		if errors.As(err, &failed) {
			reason = failed.Err
		} else if err != nil {
			reason = err.Error()
		}
		return nil, judge.Refuse(502, "%s does not resolve: %s", name, reason)
	}
	return addresses, nil
}

// lookup asks for the name as it is: nothing of resolv.conf's search list is added to it.
func lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	resolver := net.Resolver{PreferGo: true}
	return resolver.LookupNetIP(ctx, "ip", name+".")
}

// Tunnel opens git-gate's way to an ssh or git:// upstream.
func (r *Role) Tunnel(ctx context.Context, consumer string, host judge.Host) (net.Conn, error) {
	return r.dial(ctx, consumer, host.String())
}
