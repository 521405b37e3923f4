package real

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/policy"
)

const (
	binary = "/usr/local/bin/pipelock"
	port   = 8888
	// startTimeout is how long it may take to listen, stopTimeout how long to end before it is killed.
	startTimeout = 30 * time.Second
	stopTimeout  = 5 * time.Second
)

// An Engine is the process, and a new one in its place where a reload needs that.
type Engine struct {
	Paths  Paths
	Config string // the configuration's path
	// Authorities is the path of what it trusts: egress' authority alone.
	Authorities string
	// Ended gets the exit code of a process that ended by itself.
	Ended chan int

	mutex   sync.Mutex
	policy  *policy.Policy
	judge   *judge.Judge
	child   *exec.Cmd
	gone    chan struct{}
	leaving bool
}

// Start renders the configuration and starts the process. It returns once that listens.
func (e *Engine) Start(p *policy.Policy) error {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if err := e.write(p); err != nil {
		return err
	}
	return e.start()
}

// Judge is the present policy's.
func (e *Engine) Judge() *judge.Judge {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return e.judge
}

func (e *Engine) write(p *policy.Policy) error {
	text, err := Render(p, e.Paths)
	if err != nil {
		return err
	}
	// In one step: the process watches the file.
	fresh := filepath.Join(filepath.Dir(e.Config), ".new")
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return err
	}
	e.policy, e.judge = p, judge.New(p)
	return os.Rename(fresh, e.Config)
}

func (e *Engine) start() error {
	child := exec.Command(binary, "run", "--config", e.Config)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasSuffix(strings.ToUpper(name), "_PROXY") && name != "NOTIFY_SOCKET" {
			child.Env = append(child.Env, variable)
		}
	}
	// Go's TLS trusts these authorities and no others.
	child.Env = append(child.Env, "SSL_CERT_FILE="+e.Authorities, "SSL_CERT_DIR=/nonexistent")
	if err := child.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	e.child, e.gone = child, gone
	go func() {
		err := child.Wait()
		close(gone)
		e.mutex.Lock()
		current := e.child == child && !e.leaving
		e.mutex.Unlock()
		if current {
			e.Ended <- exitCode(child, err)
		}
	}()
	for began := time.Now(); time.Since(began) < startTimeout; time.Sleep(10 * time.Millisecond) {
		select {
		case <-gone:
			return errors.New("pipelock ended at its start; its own words are above")
		default:
		}
		if listens(child.Process.Pid) {
			return nil
		}
	}
	return fmt.Errorf("pipelock did not listen on port %d within %s", port, startTimeout)
}

func exitCode(child *exec.Cmd, err error) int {
	status, ok := child.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	if err != nil && child.ProcessState.ExitCode() < 0 {
		return 1
	}
	return child.ProcessState.ExitCode()
}

// listens looks into the kernel's table: the walls let no daemon connect to its own port.
func listens(pid int) bool {
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue
		}
		for line := range bytes.Lines(text) {
			fields := bytes.Fields(line)
			// The local address in hexadecimal digits; 0A is LISTEN.
			if len(fields) > 3 && string(fields[3]) == "0A" && bytes.HasSuffix(fields[1], []byte(fmt.Sprintf(":%04X", port))) {
				return true
			}
		}
	}
	return false
}

// Reload takes a policy. The process refuses patterns that change while it runs, and what it opens, so it is replaced then;
// other changes it reads by itself.
func (e *Engine) Reload(p *policy.Policy) error {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	before, now := e.policy.Pipelock, p.Pipelock
	restart := !slices.Equal(before.Patterns, now.Patterns) || before.Inspect != now.Inspect
	if err := e.write(p); err != nil {
		return err
	}
	if !restart {
		return e.child.Process.Signal(syscall.SIGHUP)
	}
	audit.Print("pipelock.restarted", map[string]any{"reason": "the patterns, or inspect, have changed"})
	e.leaving = true
	e.stop()
	e.leaving = false
	return e.start()
}

// Signal passes a signal on.
func (e *Engine) Signal(s syscall.Signal) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.child.Process.Signal(s)
}

// Stop ends the process.
func (e *Engine) Stop() {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.leaving = true
	e.stop()
}

func (e *Engine) stop() {
	e.child.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.gone:
	case <-time.After(stopTimeout):
		e.child.Process.Kill()
		<-e.gone
	}
}
