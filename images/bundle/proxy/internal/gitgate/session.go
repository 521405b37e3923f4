package gitgate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/policy"
)

// relayBuffer is how much is read from a client or its git at once, in bytes.
const relayBuffer = 64 << 10

var errGone = errors.New("the client is gone")

// A session is one client that is being served, or waits for it.
type session struct {
	server  *Server
	conn    *net.TCPConn
	asked   request
	name    string
	rule    policy.Repository
	began   time.Time
	end     context.CancelCauseFunc
	placed  atomic.Bool  // It has a place, and so may have to give it up.
	busy    atomic.Bool  // We are at work, and the client waits for us.
	last    atomic.Int64 // When a byte last moved, in nanoseconds since began.
	heard   atomic.Bool  // The client has said something since it was given to its git.
	gone    atomic.Bool  // The client has closed its end.
	in, out atomic.Int64 // Bytes from and to the client.
	push    *push        // What the hook has told.
}

// A push is what the pre-receive hook tells of one.
type push struct {
	mutex   sync.Mutex
	locked  bool // It holds the repository's refs.
	verdict *verdict
}

func (s *session) touch() { s.last.Store(int64(time.Since(s.began))) }

// silence is how long the client has neither said nor taken anything while it was its turn.
func (s *session) silence() time.Duration {
	if s.busy.Load() {
		return 0
	}
	return time.Since(s.began) - time.Duration(s.last.Load())
}

// serve serves a client, from its request to the end.
func (s *Server) serve(conn *net.TCPConn, reader *bufio.Reader, asked request) {
	ctx, cancel := context.WithCancelCause(context.Background())
	each := &session{server: s, conn: conn, asked: asked, began: time.Now(), end: cancel, push: &push{}}
	s.mutex.Lock()
	if s.stopped {
		s.mutex.Unlock()
		reset(conn)
		return
	}
	s.sessions[each] = struct{}{}
	s.ended.Add(1)
	s.mutex.Unlock()
	defer func() {
		cancel(nil)
		s.mutex.Lock()
		delete(s.sessions, each)
		s.mutex.Unlock()
		s.ended.Done()
	}()
	err := each.run(ctx, reader)
	each.record(err)
	switch {
	case err == nil:
		conn.Close()
	case errors.Is(err, errServed):
		// Words would be taken for something else in the middle of git's protocol.
		reset(conn)
	case errors.Is(err, errGone), errors.Is(err, errStopped):
		reset(conn)
	default:
		refuse(conn, err.Error())
	}
}

// errServed marks what ended a session after its git had begun to talk to the client.
var errServed = errors.New("cut")

func (s *session) run(ctx context.Context, reader *bufio.Reader) error {
	if !services[s.asked.service] {
		return fmt.Errorf("git %s is not a service that there is", cut(s.asked.service, 40))
	}
	name, ok := s.asked.name()
	if ok {
		s.name = name
		s.rule, ok = s.server.rule(name)
	}
	if !ok {
		return fmt.Errorf("%s is not a repository of this bottle (git.repos)", cut(s.asked.path, 200))
	}
	if s.server.killed.On() {
		return errKilled
	}
	s.busy.Store(true)
	leave, err := s.server.place(ctx)
	if err != nil {
		return err
	}
	defer leave()
	s.placed.Store(true)
	r := s.server.store.repository(name)
	if err := s.server.store.sync(ctx, r, s.rule); err != nil {
		return s.unsynced(err)
	}
	left := int64(reserve) // A git that only reads writes no more than temporary files.
	if s.asked.service == "receive-pack" {
		if left, err = s.server.store.left(); err != nil {
			return err
		}
		defer r.tidy(ctx, left)
		defer r.writing()()
	}
	return s.relay(ctx, r, left, reader)
}

// unsynced makes the words for a client whose repository could not be brought up to its upstream.
func (s *session) unsynced(err error) error {
	var said *upstreamError
	if errors.As(err, &said) {
		return fmt.Errorf("the upstream can't be fetched: %w", err)
	}
	return err
}

// relay starts the client's git and carries bytes between the two until both are done or ctx is.
func (s *session) relay(ctx context.Context, r *repository, left int64, reader *bufio.Reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := s.git(ctx, r, left)
	if s.asked.service == "receive-pack" {
		defer s.server.store.guard(cancel)()
		stop, err := s.attendHook(ctx, cancel, cmd, r)
		if err != nil {
			return err
		}
		defer stop()
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	said := &tail{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		return err
	}
	s.busy.Store(false)
	s.touch()
	// Both ends of the relay break when the session is over: a read or a write that waits for a client is not
	// woken by its git's death.
	stopWaiting := context.AfterFunc(ctx, func() { s.conn.SetDeadline(time.Now()) })
	defer stopWaiting()
	go s.watch(ctx, cancel)
	up := make(chan struct{})
	go func() {
		defer close(up)
		s.upload(cancel, stdin, reader)
	}()
	s.download(cancel, stdout)
	err = cmd.Wait()
	cancel(nil)
	s.conn.SetReadDeadline(time.Now())
	<-up
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		if s.out.Load() == 0 {
			return cause
		}
		return errors.Join(errServed, cause)
	}
	if err != nil {
		return s.failed(err, said.words())
	}
	return nil
}

// failed is why a git that was not ended by us ended badly. What it had to say to the client it has said.
func (s *session) failed(err error, said string) error {
	if said == "" {
		said = err.Error()
	}
	if s.out.Load() == 0 {
		return errors.New(said)
	}
	return errors.Join(errServed, errors.New(said))
}

// git is the program that serves the client.
func (s *session) git(ctx context.Context, r *repository, left int64) *exec.Cmd {
	limit := s.server.policy.Load().Limits.Push
	env := environment([2]string{"receive.maxInputSize", strconv.FormatInt(min(limit, left), 10)})
	if s.asked.version != "" {
		env = append(env, "GIT_PROTOCOL="+s.asked.version)
	}
	arguments := []string{s.asked.service}
	if s.asked.service == "upload-pack" {
		arguments = append(arguments, "--strict")
	}
	return command(ctx, left, env, append(arguments, r.directory)...)
}

// upload carries what the client says to its git.
func (s *session) upload(cancel context.CancelCauseFunc, stdin io.WriteCloser, reader *bufio.Reader) {
	defer stdin.Close()
	buffer := make([]byte, relayBuffer)
	for {
		n, err := reader.Read(buffer)
		if n > 0 {
			s.touch()
			s.heard.Store(true)
			s.in.Add(int64(n))
			if _, err := stdin.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err == nil {
			continue
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return
		}
		s.gone.Store(true)
		// Its git notices by itself, unless it is us that are at work: then nobody waits for the result any more. A client
		// of git:// that is still there does not close its end.
		if s.busy.Load() || !errors.Is(err, io.EOF) {
			cancel(errGone)
		}
		return
	}
}

// download carries what its git says to the client.
func (s *session) download(cancel context.CancelCauseFunc, stdout io.Reader) {
	buffer := make([]byte, relayBuffer)
	for {
		n, err := stdout.Read(buffer)
		if n > 0 {
			if _, err := s.conn.Write(buffer[:n]); err != nil {
				cancel(errGone)
				io.Copy(io.Discard, stdout)
				return
			}
			s.touch()
			s.out.Add(int64(n))
		}
		if err != nil {
			return
		}
	}
}

// watch ends the session when the client has been silent for too long.
func (s *session) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			limit := time.Duration(s.server.policy.Load().Limits.GitIdleMs) * time.Millisecond
			if s.silence() > limit {
				cancel(fmt.Errorf("nothing came for %s (limits.git_idle)", limit))
				return
			}
		}
	}
}

// record takes down what came of the session.
func (s *session) record(err error) {
	entry := audit.Entry{
		Event: "fetch", Verdict: "allowed", Repository: s.name, Host: s.rule.Host, Port: s.rule.Port, Path: cut(s.asked.path, 200),
		SentBytes: s.in.Load(), ReceivedBytes: s.out.Load(), DurationMs: time.Since(s.began).Milliseconds(),
	}
	event := "git_gate.served"
	if err != nil {
		entry.Verdict, entry.Reason, event = "refused", reason(err), "git_gate.refused"
		if errors.Is(err, errServed) {
			entry.Verdict = "reset"
		}
	}
	fields := map[string]any{"repository": s.name, "service": s.asked.service, "duration_ms": entry.DurationMs}
	if s.asked.service == "receive-pack" {
		entry.Event = "push"
		s.push.mutex.Lock()
		if v := s.push.verdict; v != nil {
			event = v.fill(&entry, fields, err)
		}
		s.push.mutex.Unlock()
	}
	if err != nil && fields["reason"] == nil {
		fields["reason"] = []string{entry.Reason}
	}
	s.server.audit.Write(entry)
	audit.Print(event, fields)
}

// reason is an error in one line, without our own marks.
func reason(err error) string {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, each := range joined.Unwrap() {
			if !errors.Is(each, errServed) {
				return cut(each.Error(), 1000)
			}
		}
	}
	return cut(err.Error(), 1000)
}
