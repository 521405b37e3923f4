// Package proxy is what pipelock and egress have in common: how a client's connection becomes requests, how each is
// judged, and how its answer gets back.
package proxy

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/killswitch"
	"bottle/proxy/internal/live"
	"bottle/proxy/internal/mitm"
	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/scan"
)

// A State is what requests are judged by. It is replaced as a whole by a reload.
type State struct {
	Judge *judge.Judge
	// Values are the credentials' by the paths of their files; egress has them.
	Values map[string]string
	// Scan is what may not leave: the patterns, and where Values are known, those.
	Scan *scan.Set
	// Secrets are what no answer may hold.
	Secrets *scan.Set
	// names are the credentials as they would be the name of a field, whose case tells nothing.
	names []string
	// Transport carries requests to the next hop: those of a consumer, to a host that may be at a private address or not.
	// It is the state's own, so that no connection outlives what allowed it.
	Transport func(consumer string, private bool) http.RoundTripper
	// held bounds the bodies that are held as a whole.
	held *semaphore.Weighted
	// Retire ends what the transports keep open for later.
	Retire func()
}

// prepare compiles what is looked for.
func (s *State) prepare() (err error) {
	p := s.Judge.Policy()
	s.held = semaphore.NewWeighted(max(heldBytes, int64(p.Egress.ScanLimit)))
	var known []scan.Secret
	var placeholders []string
	for _, c := range p.Egress.Credentials {
		known = append(known, secretsOf(c.Name, s.Values[c.ValueFile])...)
		if c.Placeholder != "" {
			placeholders = append(placeholders, c.Placeholder)
		}
	}
	if s.Scan, err = scan.New(p.Pipelock.Patterns, known, placeholders); err != nil {
		return err
	}
	for _, secret := range known {
		if len(secret.Value) >= scan.SecretMin {
			s.names = append(s.names, strings.ToLower(secret.Value))
		}
	}
	s.Secrets, err = scan.New(nil, known, nil)
	return err
}

// isNamed reports whether a field's name holds a credential.
func (s *State) isNamed(field string) bool {
	field = strings.ToLower(field)
	return slices.ContainsFunc(s.names, func(name string) bool { return strings.Contains(field, name) })
}

// secretsOf are what is secret about a header's value: itself, and without the scheme the token, or user and password.
func secretsOf(name, value string) []scan.Secret {
	list := []scan.Secret{{Name: name, Value: value}}
	scheme, token, found := strings.Cut(value, " ")
	if !found {
		return list
	}
	list = append(list, scan.Secret{Name: name, Value: token})
	if strings.EqualFold(scheme, "basic") {
		if decoded, err := base64.StdEncoding.DecodeString(token); err == nil {
			_, password, _ := strings.Cut(string(decoded), ":")
			list = append(list, scan.Secret{Name: name, Value: string(decoded)}, scan.Secret{Name: name, Value: password})
		}
	}
	return list
}

// A Role is what makes a proxy pipelock or egress.
type Role interface {
	// Prepare changes the request that is about to leave. The Values of the state are at hand.
	Prepare(x *Exchange, out *http.Request)
	// Tunnel opens a connection whose bytes nobody looks at: git-gate's to an ssh or git:// upstream.
	Tunnel(ctx context.Context, host judge.Host, private bool) (net.Conn, error)
	// Fill completes a state that is about to become the current one with its values and its transport.
	Fill(state *State) error
}

// An Engine is a proxy.
type Engine struct {
	Daemon    string
	Port      int // its own, at which it answers /health
	Authority *mitm.Authority
	Role      Role
	Switch    *killswitch.Switch
	Live      *live.Set
	Audit     *audit.Log
	AskSocket string // supervise's, for requests that are held
	// Lag is how much later this daemon may learn of an approval than the one before it, which has asked about requests
	// where it had to; 0 where there is none before.
	Lag time.Duration

	state       atomic.Pointer[State]
	reloadMutex sync.Mutex
	reloadError atomic.Pointer[string]
	reloads     atomic.Int64
	released    released
}

// State returns what requests are judged by now.
func (e *Engine) State() *State { return e.state.Load() }

// Use makes the policy the one that is obeyed, and ends what it no longer allows.
func (e *Engine) Use(p *policy.Policy) error {
	e.reloadMutex.Lock()
	defer e.reloadMutex.Unlock()
	state := &State{Judge: judge.New(p)}
	if err := e.Role.Fill(state); err != nil {
		return err
	}
	if err := state.prepare(); err != nil {
		return err
	}
	before := e.state.Swap(state)
	e.Audit.Limit(p.Limits.Audit)
	e.Live.Review()
	if before != nil {
		before.Retire()
	}
	return nil
}

// Reload reads the policy again. One with faults changes nothing.
func (e *Engine) Reload(read func() (*policy.Policy, error)) {
	defer e.reloads.Add(1)
	p, err := read()
	if err == nil {
		err = e.Use(p)
	}
	if err != nil {
		text := err.Error()
		e.reloadError.Store(&text)
		audit.Print(e.Daemon+".reload_refused", map[string]any{"faults": strings.Split(text, "\n")})
		e.Audit.Write(audit.Entry{Event: "reload", Verdict: "refused", Reason: judge.Cut(text)})
		return
	}
	e.reloadError.Store(nil)
	audit.Print(e.Daemon+".reloaded", map[string]any{"generation": p.Generation, "hosts": len(p.Egress.Hosts),
		"credentials": len(p.Egress.Credentials), "patterns": len(p.Pipelock.Patterns)})
	e.Audit.Write(audit.Entry{Event: "reload", Verdict: "allowed", Reason: p.Generation})
}

// Switched obeys a change of the kill switch.
func (e *Engine) Switched(on bool) {
	e.Live.Close(on, killReason)
	audit.Print(e.Daemon+".kill_switch", map[string]any{"active": on})
	verdict := "allowed"
	if on {
		verdict = "refused"
	}
	e.Audit.Write(audit.Entry{Event: "kill_switch", Verdict: verdict})
}

const killReason = "the operator's kill switch is on"

// A Health is what /health says.
type Health struct {
	Status      string `json:"status"`
	Engine      string `json:"engine"`
	Generation  string `json:"generation"`
	Reloads     int64  `json:"reloads"` // attempts that are over, good or refused
	KillSwitch  bool   `json:"kill_switch_active"`
	ReloadError string `json:"reload_error,omitempty"` // why the last one was refused
}

// WriteHealth answers /health: with 503 while the kill switch is on.
func WriteHealth(w http.ResponseWriter, health Health) {
	code := http.StatusOK
	if health.Status = "healthy"; health.KillSwitch {
		health.Status, code = "unhealthy", http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(health)
}

func (e *Engine) health(w http.ResponseWriter) {
	health := Health{Engine: "portable", Generation: e.State().Judge.Policy().Generation, Reloads: e.reloads.Load(), KillSwitch: e.Switch.On()}
	if text := e.reloadError.Load(); text != nil {
		health.ReloadError = judge.Cut(*text)
	}
	WriteHealth(w, health)
}

// A Door is a listener, and who comes in by it.
type Door struct {
	Listener net.Listener
	Consumer string
	// Kind is how clients speak.
	Kind DoorKind
	// Internal is the network that clients come by, besides loopback; none: every network.
	Internal netip.Prefix
}

// admits reports whether a connection that arrived at that address of ours came by the right network.
func (d *Door) admits(local net.Addr) bool {
	address, ok := local.(*net.TCPAddr)
	if !ok || !d.Internal.IsValid() {
		return ok
	}
	arrived := address.AddrPort().Addr().Unmap()
	return arrived.IsLoopback() || d.Internal.Contains(arrived)
}

// A DoorKind is how clients speak at a door.
type DoorKind int

// The kinds of doors: for clients that know of the proxy, for those that think it is the host, and for those whose
// connections the kernel sends here, away from where they were going.
const (
	ProxyDoor DoorKind = iota
	TransparentTLS
	TransparentHTTP
	Redirected
)

// Serve takes connections until the listener is closed.
func (e *Engine) Serve(door Door) error {
	for {
		conn, err := door.Listener.Accept()
		if err != nil {
			if temporary, ok := err.(interface{ Temporary() bool }); ok && temporary.Temporary() {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			return err
		}
		client, err := e.Live.Track(conn.(*net.TCPConn), false)
		if err != nil {
			continue
		}
		if !door.admits(conn.LocalAddr()) {
			client.Reset()
			continue
		}
		if e.Live.Clients() > e.State().Judge.Policy().Limits.Connections {
			fmt.Fprintf(client, "HTTP/1.1 503 %s: too many connections\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", e.Daemon)
			client.Close()
			continue
		}
		go e.handle(door, client)
	}
}

func (e *Engine) handle(door Door, conn *live.Conn) {
	defer e.recovered(func() { conn.Reset() })
	f := &front{engine: e, conn: conn, consumer: door.Consumer, kind: door.Kind}
	f.serve()
}

// recovered makes of a bug the end of one request, and not of the daemon: what it was about goes nowhere.
func (e *Engine) recovered(end func()) {
	if reason := recover(); reason != nil {
		if reason == http.ErrAbortHandler {
			panic(reason)
		}
		fmt.Fprintf(os.Stderr, "%s: %v\n%s", e.Daemon, reason, debug.Stack())
		end()
	}
}
