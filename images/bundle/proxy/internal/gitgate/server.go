package gitgate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/killswitch"
	"bottle/proxy/internal/notify"
	"bottle/proxy/internal/policy"
)

const (
	// requestTimeout is how long a client may take to say what it wants.
	requestTimeout = 10 * time.Second
	// queueTimeout is how long a client waits in silence for others to be done: git's protocol has no words for it.
	queueTimeout = 60 * time.Second
	// pressed is how long a connection may be silent while another one waits for its place.
	pressed = 20 * time.Second
	// stopTimeout is what the gits get at a stop.
	stopTimeout = 500 * time.Millisecond
	// connectionsPerPlace bounds the connections that are open: those that are served, and those that wait.
	connectionsPerPlace = 8
)

var (
	errKilled  = errors.New("the operator's kill switch is on")
	errStopped = errors.New("git-gate is being stopped")
	errRevoked = errors.New("the policy no longer has this repository")
	errPressed = errors.New("nothing came for a while, and others were waiting")
)

// A Server is git-gate.
type Server struct {
	policy   atomic.Pointer[policy.Policy]
	killed   *killswitch.Switch
	audit    *audit.Log
	store    *store
	inside   []netip.Prefix // Where agents are.
	open     atomic.Int64
	web      *webListener
	mutex    sync.Mutex
	sessions map[*session]struct{}
	served   int
	waiting  []chan struct{} // One for each client that waits for a place, the first one first.
	stopped  bool
	ended    sync.WaitGroup
	failure  string // Why the last reload failed.
	reloads  int
}

// Serve runs git-gate until it is told to stop by TERM or INT.
func Serve() error {
	first, err := policy.Read(policyFile())
	if err != nil {
		return err
	}
	s := &Server{sessions: map[*session]struct{}{}, audit: audit.Open("git-gate", auditDirectory())}
	s.policy.Store(first)
	s.audit.Limit(first.Limits.Audit)
	s.store = newStore(first.Git.Directory, func() int64 { return s.policy.Load().Git.Quota })
	if err := s.prepare(); err != nil {
		return err
	}
	if s.inside, err = insideOf(os.Getenv("BOTTLE_INTERNAL")); err != nil {
		return err
	}
	s.killed = killswitch.New(switchFile(), s.switched)
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("BOTTLE_LISTEN"), fmt.Sprint(Port)))
	if err != nil {
		return err
	}
	s.web = newWebListener(listener.Addr())
	go s.serveWeb()
	go s.killed.Watch()
	go s.accept(listener.(*net.TCPListener))
	ignoreFileLimit()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	notify.Send("READY=1")
	for received := range signals {
		switch received {
		case syscall.SIGHUP:
			s.reload()
		case syscall.SIGUSR1, syscall.SIGUSR2:
		default:
			listener.Close()
			s.stop()
			return nil
		}
	}
	return nil
}

// prepare makes what is needed before the first client, and removes what an earlier git-gate left behind.
func (s *Server) prepare() error {
	if err := os.MkdirAll(s.store.directory, 0o700); err != nil {
		return fmt.Errorf("git.directory: %w", err)
	}
	entries, err := os.ReadDir(s.store.directory)
	if err != nil {
		return fmt.Errorf("git.directory: %w", err)
	}
	for _, entry := range entries {
		if name, isRepository := strings.CutSuffix(entry.Name(), ".git"); isRepository {
			s.store.repository(name).sweep()
		}
	}
	return nil
}

// insideOf reads BOTTLE_INTERNAL: networks, separated by commas.
func insideOf(text string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(word)
		if err != nil {
			return nil, fmt.Errorf("BOTTLE_INTERNAL: %q is not a network such as 172.30.0.0/28", word)
		}
		networks = append(networks, prefix.Masked())
	}
	return networks, nil
}

// reload reads the policy again. One with faults changes nothing.
func (s *Server) reload() {
	next, err := policy.Compile(compiler)
	s.mutex.Lock()
	s.reloads++
	s.failure = ""
	if err != nil {
		s.failure = err.Error()
	}
	s.mutex.Unlock()
	if err != nil {
		audit.Print("git_gate.reload_refused", map[string]any{"faults": strings.Split(err.Error(), "\n")})
		return
	}
	s.policy.Store(next)
	s.audit.Limit(next.Limits.Audit)
	// What was open under a rule that is gone ends with it.
	for _, each := range s.running() {
		if rule, ok := s.rule(each.name); !ok || rule.Upstream != each.rule.Upstream {
			each.end(errRevoked)
		}
	}
	audit.Print("git_gate.reloaded", map[string]any{"generation": next.Generation, "repositories": len(s.repositories())})
}

// repositories are those of the policy and those that the operator has approved since, by name.
func (s *Server) repositories() map[string]policy.Repository {
	current, now := s.policy.Load(), float64(time.Now().Unix())
	all := map[string]policy.Repository{}
	for _, approval := range current.Approvals {
		if approval.Until > now {
			maps.Copy(all, approval.Repos)
		}
	}
	maps.Copy(all, current.Git.Repos)
	return all
}

func (s *Server) rule(name string) (policy.Repository, bool) {
	rule, ok := s.repositories()[name]
	return rule, ok
}

// released tells whether the operator has let this push of the repository go.
func (s *Server) released(name, push string) bool {
	now := float64(time.Now().Unix())
	return slices.ContainsFunc(s.policy.Load().Approvals, func(a policy.Approval) bool {
		return a.Until > now && a.Push != nil && a.Push.ID == push && a.Push.Repository == name
	})
}

// switched is told when the kill switch goes on or off.
func (s *Server) switched(on bool) {
	audit.Print("git_gate.kill_switch", map[string]any{"active": on})
	s.audit.Write(audit.Entry{Event: "kill_switch", Verdict: map[bool]string{true: "refused", false: "allowed"}[on]})
	if !on {
		notify.Send("WATCHDOG=1", "STATUS=")
		return
	}
	notify.Send("WATCHDOG=trigger", "STATUS=the kill switch is on")
	for _, each := range s.running() {
		each.end(errKilled)
	}
}

func (s *Server) running() []*session {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return slices.Collect(maps.Keys(s.sessions))
}

// stop ends all that is open, and waits for it.
func (s *Server) stop() {
	s.mutex.Lock()
	s.stopped = true
	s.mutex.Unlock()
	for _, each := range s.running() {
		each.end(errStopped)
	}
	done := make(chan struct{})
	go func() {
		s.ended.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(stopTimeout):
	}
	s.audit.Flush()
}

func (s *Server) accept(listener *net.TCPListener) {
	for {
		conn, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Descriptors are short, for one. Others may end in the meantime.
			audit.Print("git_gate.accept_failed", map[string]any{"reason": err.Error()})
			time.Sleep(100 * time.Millisecond)
			continue
		}
		local := fromHere(conn)
		if !local && !s.welcome(conn) {
			reset(conn)
			continue
		}
		// Health checks come from here, and are let in however many agents knock.
		if limit := int64(connectionsPerPlace * s.places()); !local && s.open.Load() >= limit {
			go refuse(conn, fmt.Sprintf("%d connections are open already (limits.git_connections); try again later", limit))
			continue
		}
		s.open.Add(1)
		go s.greet(conn, sync.OnceFunc(func() { s.open.Add(-1) }))
	}
}

func (s *Server) places() int { return s.policy.Load().Limits.GitConnections }

// welcome tells whether the connection comes from an agents' network, to our address there.
func (s *Server) welcome(conn *net.TCPConn) bool {
	return slices.ContainsFunc(s.inside, func(network netip.Prefix) bool {
		return network.Contains(addressOf(conn.LocalAddr())) && network.Contains(addressOf(conn.RemoteAddr()))
	})
}

func fromHere(conn *net.TCPConn) bool {
	return addressOf(conn.LocalAddr()).IsLoopback() && addressOf(conn.RemoteAddr()).IsLoopback()
}

func addressOf(address net.Addr) netip.Addr { return address.(*net.TCPAddr).AddrPort().Addr().Unmap() }

func reset(conn *net.TCPConn) {
	conn.SetLinger(0)
	conn.Close()
}

// greet reads what the client wants, and hands it to whom it may concern. closed is called when the connection is.
func (s *Server) greet(conn *net.TCPConn, closed func()) {
	isWeb := false
	defer func() {
		if !isWeb {
			closed()
		}
	}()
	conn.SetReadDeadline(time.Now().Add(requestTimeout))
	reader := bufio.NewReaderSize(conn, 16<<10)
	head, err := reader.Peek(4)
	if err != nil {
		conn.Close()
		return
	}
	if isWeb = isHTTP(head); isWeb {
		s.web.hand(peeked{conn, reader, closed})
		return
	}
	asked, err := readRequest(reader)
	switch {
	case errors.Is(err, errNoRequest):
		refuse(conn, "that is not git's protocol")
	case err != nil:
		conn.Close()
	default:
		conn.SetReadDeadline(time.Time{})
		s.serve(conn, reader, asked)
	}
}

func isHTTP(head []byte) bool {
	return slices.Contains([]string{"GET ", "HEAD", "POST", "PUT ", "OPTI", "DELE", "PATC"}, string(head))
}

// place waits for one of the places at which clients are served. The returned function gives it back.
func (s *Server) place(ctx context.Context) (leave func(), err error) {
	s.mutex.Lock()
	if s.served < s.places() && len(s.waiting) == 0 {
		s.served++
		s.mutex.Unlock()
		return s.leave, nil
	}
	turn := make(chan struct{})
	s.waiting = append(s.waiting, turn)
	s.mutex.Unlock()
	timer := time.NewTimer(queueTimeout)
	defer timer.Stop()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-turn:
			return s.leave, nil
		case <-ticker.C:
			s.press()
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-timer.C:
			err = fmt.Errorf("%d others are being served (limits.git_connections); try again later", s.places())
		}
		break
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if i := slices.Index(s.waiting, turn); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return nil, err
	}
	// The turn came in this very moment.
	return s.leave, nil
}

func (s *Server) leave() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.served--
	for s.served < s.places() && len(s.waiting) > 0 {
		close(s.waiting[0])
		s.waiting = s.waiting[1:]
		s.served++
	}
}

// press ends the connection that has been silent for longest, if that is long.
func (s *Server) press() {
	var longest *session
	for _, each := range s.running() {
		if each.placed.Load() && (longest == nil || each.silence() > longest.silence()) {
			longest = each
		}
	}
	if longest != nil && longest.silence() > pressed {
		longest.end(errPressed)
	}
}

// health is what /health answers, and whether that is good news.
func (s *Server) health() (map[string]any, int) {
	used, quota := s.store.used(), s.policy.Load().Git.Quota
	s.store.mutex.Lock()
	full := s.store.full || quota-used < reserve
	s.store.mutex.Unlock()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	answer := map[string]any{
		"status": "healthy", "generation": s.policy.Load().Generation, "reloads": s.reloads, "kill_switch_active": s.killed.On(),
		"store":       map[string]any{"used": used, "quota": quota, "full": full},
		"connections": map[string]any{"served": s.served, "waiting": len(s.waiting), "open": s.open.Load()},
	}
	if s.failure != "" {
		answer["reload_error"] = s.failure
	}
	status := http.StatusOK
	switch {
	case s.killed.On():
		answer["status"], answer["reason"], status = "unhealthy", errKilled.Error(), http.StatusServiceUnavailable
	case full:
		answer["status"], answer["reason"], status = "unhealthy", (&fullError{used, quota}).Error(), http.StatusServiceUnavailable
	}
	return answer, status
}
