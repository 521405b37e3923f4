// Package egress is the way out: it resolves names and judges where they lead, and sets the credentials that the agent
// never sees.
package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
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
	bufferSize    = 32 << 10 // what a body is written in: two records of TLS at a time
)

// A Role is egress' part of the proxy.
type Role struct {
	live        *live.Set
	credentials string // the path of the copy
	origins     string // the path of the authorities
	internal    netip.Prefix
	lookup      func(ctx context.Context, name string) ([]netip.Addr, error)
	connect     func(ctx context.Context, address string) (net.Conn, error)
	own         func() ([]net.Addr, error)
}

// New returns egress' role. origins is a PEM file with the authorities of origins, credentials a JSON object of values by
// the paths of their files, internal the agents' network, if it is known.
func New(set *live.Set, origins, credentials string, internal netip.Prefix) *Role {
	return &Role{live: set, credentials: credentials, origins: origins, internal: internal, lookup: lookup, connect: connect, own: net.InterfaceAddrs}
}

// way is what connections may be shared by: one that a consumer may use is not the other's, and one to a private address
// is not for a rule that allows none.
type way struct {
	consumer string
	private  bool
}

// Fill reads the credentials and the authorities again. A credential that is not there is an error.
func (r *Role) Fill(state *proxy.State) error {
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
	roots, err := mitm.Roots(r.origins)
	if err != nil {
		return err
	}
	transports := make(map[way]*http.Transport)
	for _, consumer := range []string{policy.Agent, policy.Git} {
		for _, private := range []bool{false, true} {
			transports[way{consumer, private}] = r.transport(roots, private)
		}
	}
	state.Transport = func(consumer string, private bool) http.RoundTripper { return transports[way{consumer, private}] }
	state.Retire = func() {
		for _, transport := range transports {
			transport.CloseIdleConnections()
		}
	}
	return nil
}

func (r *Role) transport(roots *x509.CertPool, private bool) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return r.dial(ctx, address, private)
		},
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(256)},
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		WriteBufferSize:        bufferSize,
		MaxIdleConns:           512,
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        time.Minute,
		TLSHandshakeTimeout:    dialTimeout,
		ExpectContinueTimeout:  2 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
	}
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
	if x.State.Judge.HasCredential(x.Host.Name) {
		// The answer is looked through for credentials. In parts of it, each asked for by itself, none would be found.
		out.Header.Set("Accept-Encoding", "identity")
		out.Header.Del("Grpc-Accept-Encoding")
		out.Header.Del("Range")
	}
}

// dial connects to a host, at an address that was judged.
func (r *Role) dial(ctx context.Context, text string, private bool) (net.Conn, error) {
	host, err := judge.ParseHost(text, 0)
	if err != nil {
		return nil, err
	}
	addresses, err := r.resolve(ctx, host.Name)
	if err != nil {
		return nil, err
	}
	var last error
	for _, address := range addresses {
		reason := judge.Address(address, private)
		if reason == "" && r.isOwn(address) {
			reason = address.String() + " is the bundle's own, or in the agent's network"
		}
		if reason != "" {
			last = judge.Refuse(403, "%s leads to an address that it may not lead to: %s", host, reason)
			continue
		}
		conn, err := r.connect(ctx, netip.AddrPortFrom(address, uint16(host.Port)).String())
		if err == nil {
			return r.live.Track(conn.(*net.TCPConn), true)
		}
		last = err
	}
	return nil, last
}

// isOwn reports whether an address leads back into the bundle, or to the agent. The kernel's rules refuse that too, where
// there are any.
func (r *Role) isOwn(address netip.Addr) bool {
	address = address.WithZone("").Unmap()
	if r.internal.IsValid() && r.internal.Contains(address) {
		return true
	}
	own, err := r.own()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		prefix, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		mine, ok := netip.AddrFromSlice(prefix.IP)
		return ok && mine.Unmap() == address
	})
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
func (r *Role) Tunnel(ctx context.Context, host judge.Host, private bool) (net.Conn, error) {
	return r.dial(ctx, host.String(), private)
}
