// Package supervise is the daemon by which the agent asks and the operator answers, and by which both learn what becomes
// of the others. The agent reaches its MCP endpoint alone; the operator's side and the proxies' are Unix sockets.
package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/notify"
)

const (
	version     = "1"
	account     = "supervise"
	defaultRun  = "/run/bottle"
	port        = 9100
	exitBroken  = 70 // EX_SOFTWARE
	stopMax     = 500 * time.Millisecond
	headMax     = 64 << 10 // bytes
	headTimeout = 10 * time.Second
	idleTimeout = 5 * time.Minute

	// leaseVariable arms the agent's lease: a bundle that is started by hand has no agent that would take one.
	leaseVariable = "BOTTLE_LEASE"
)

// askers are the users that hold requests.
var askers = []string{"egress", "pipelock", "git-gate"}

// settings are what this daemon takes of the policy.
type settings struct {
	generation    string
	answerTimeout time.Duration
	allowedHosts  []string
	maxQuestions  int
}

type daemon struct {
	run       string
	questions *Questions
	watch     *Watch
	audit     *audit.Log
	policy    atomic.Pointer[settings]
	askerIDs  []uint32
	// stopping is done from the first request to stop on.
	stopping context.Context
	front    *door
}

func (d *daemon) settings() *settings { return d.policy.Load() }

func (d *daemon) mayAsk(uid uint32) bool { return slices.Contains(d.askerIDs, uid) }

// Main serves until TERM, and returns the exit code.
func Main() int {
	client, problem := connectInit()
	if err := dropPrivileges(account); err != nil {
		fmt.Fprintf(os.Stderr, "supervise: privileges not dropped: %s\n", err)
		return exitBroken
	}
	syscall.Umask(0o077)
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGHUP)
	d := &daemon{run: environment("BOTTLE_RUN", defaultRun), watch: new(Watch), stopping: stopping}
	if err := d.serve(client, problem); err != nil {
		fmt.Fprintf(os.Stderr, "supervise: %s\n", err)
		return 1
	}
	return 0
}

func (d *daemon) serve(client *initClient, problem error) error {
	if err := d.reload(); err != nil {
		return err
	}
	d.audit = audit.Open(account, filepath.Join(d.run, "state", "audit", account))
	var err error
	d.questions, err = openQuestions(filepath.Join(d.run, "state", account, "questions"), d.settings().maxQuestions, d.told)
	if err != nil {
		return err
	}
	for _, name := range askers {
		if account, err := user.Lookup(name); err == nil {
			id, _ := strconv.ParseUint(account.Uid, 10, 32)
			d.askerIDs = append(d.askerIDs, uint32(id))
		}
	}
	if err := errors.Join(d.serveOperator(filepath.Join(d.run, account, "operator.sock")), d.serveAsks(filepath.Join(d.run, "ask", "ask.sock"))); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("BOTTLE_LISTEN"), strconv.Itoa(port)))
	if err != nil {
		return err
	}
	d.front = openDoor(listener, os.Getenv(leaseVariable) == "agent", func(why string) { d.agentIsGone(client, why) })
	server := &http.Server{
		Handler: d.routes(), ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headMax,
		// Nothing that a client does wrong is news.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() {
		audit.Print("supervise.events_unknown", map[string]any{"reason": d.watch.follow(client, problem)})
	}()
	served := make(chan error, 1)
	go func() { served <- server.Serve(d.front) }()
	go d.announceChanges()
	notify.Send("READY=1")
	select {
	case err = <-served:
		return err
	case <-d.stopping.Done():
	}
	// Calls that wait have been told; what is still open after that was idle.
	ending, cancel := context.WithTimeout(context.Background(), stopMax)
	defer cancel()
	server.Shutdown(ending)
	d.audit.Flush()
	return nil
}

// agentIsGone asks the init for a stop. Where that is not to be had, this daemon's own end stops the bundle.
func (d *daemon) agentIsGone(client *initClient, why string) {
	audit.Print("supervise.agent_gone", map[string]any{"reason": why})
	d.audit.Write(audit.Entry{Event: "agent_gone", Reason: why})
	if err := client.orderStop(); err != nil {
		audit.Print("supervise.stop_refused", map[string]any{"reason": err.Error()})
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}
}

func (d *daemon) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/mcp", http.NewCrossOriginProtection().Handler(d.handler()))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"status": "healthy", "open_questions": len(d.questions.open()), "generation": d.settings().generation,
			"leases": d.front.held(),
		})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		// A web page in the agent's container can't rebind its way in.
		if !d.allowed(request.Host) {
			http.Error(w, "supervise: "+strconv.Quote(cut(request.Host, 60))+" is not a name of this server", http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, request)
	})
}

// allowed tells whether a Host header is one of the policy's names, or loopback's.
func (d *daemon) allowed(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	for _, allowed := range append([]string{"localhost", "127.0.0.1"}, d.settings().allowedHosts...) {
		if strings.EqualFold(allowed, host) || strings.EqualFold(allowed, name) {
			return true
		}
	}
	return false
}

// reload takes the policy that setup, or the operator's command, has compiled.
func (d *daemon) reload() error {
	text, err := os.ReadFile(filepath.Join(d.run, "policy.json"))
	if err != nil {
		return err
	}
	var compiled struct {
		Generation string
		Supervise  struct {
			AnswerTimeoutMs int64    `json:"answer_timeout_ms"`
			AllowedHosts    []string `json:"allowed_hosts"`
			MaxQuestions    int      `json:"max_questions"`
		}
	}
	if err := json.Unmarshal(text, &compiled); err != nil {
		return fmt.Errorf("the compiled policy can't be read: %w", err)
	}
	d.policy.Store(&settings{
		compiled.Generation, time.Duration(compiled.Supervise.AnswerTimeoutMs) * time.Millisecond,
		compiled.Supervise.AllowedHosts, compiled.Supervise.MaxQuestions,
	})
	if d.questions != nil {
		d.questions.setMax(compiled.Supervise.MaxQuestions)
	}
	return nil
}

// told writes the news of a question to the log, without its words, and to the audit.
func (d *daemon) told(event string, question Question) {
	audit.Print("supervise."+event, map[string]any{"id": question.ID, "kind": question.Kind, "chars": len(question.Text)})
	d.audit.Write(audit.Entry{Event: "question", Verdict: event, Reason: cut(question.Text, 500), Rule: question.Kind + " " + question.ID})
}

// announceChanges has `bottle-init health` and `status` say how much waits, now and at each change.
func (d *daemon) announceChanges() {
	for {
		changed := d.questions.next()
		d.announce()
		select {
		case <-changed:
		case <-d.stopping.Done():
			return
		}
	}
}

func (d *daemon) announce() {
	switch open := len(d.questions.open()); open {
	case 0:
		notify.Send("STATUS=")
	case 1:
		notify.Send("STATUS=1 request waits for the operator (bottle-requests)")
	default:
		notify.Send(fmt.Sprintf("STATUS=%d requests wait for the operator (bottle-requests)", open))
	}
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
