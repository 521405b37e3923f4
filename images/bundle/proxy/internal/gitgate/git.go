package gitgate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// mercy is how long a git may take to clean up after itself when it has to end.
	mercy = 200 * time.Millisecond
	// cpuLimit bounds what one git may compute, in seconds: a pack of 256 MiB can unfold to a thousand times that.
	cpuLimit = 1800
	// outputLimit is how much of what a git says is kept, in bytes.
	outputLimit = 64 << 10
)

// configuration is what every git of the gate's obeys. It is in the environment and not in the repository: there is no
// file that a push could change. A git that serves a local upstream clears it (git's local_repo_env), and obeys that
// repository's own.
var configuration = [][2]string{
	{"core.hooksPath", hooks},
	{"core.attributesFile", "/dev/null"},
	{"core.askPass", ""},
	{"core.bigFileThreshold", "16m"}, // Larger ones are streamed.
	{"core.deltaBaseCacheLimit", "32m"},
	{"credential.helper", ""},
	{"fetch.unpackLimit", "1"},
	{"gc.auto", "0"},
	{"maintenance.auto", "false"},
	{"pack.windowMemory", "32m"},
	{"protocol.allow", "never"},
	{"protocol.file.allow", "always"},
	{"protocol.git.allow", "always"},
	{"protocol.http.allow", "always"},
	{"protocol.https.allow", "always"},
	{"protocol.ssh.allow", "always"},
	{"receive.advertisePushOptions", "false"},
	{"receive.autogc", "false"},
	{"receive.fsckObjects", "true"},
	// Packs are kept as they come: loose objects would be compressed anew here, and once more on their way out.
	{"receive.unpackLimit", "1"},
	{"safe.directory", "*"},
	{"transfer.advertiseSID", "false"},
	{"uploadpack.allowFilter", "true"},
}

// environment is a git's: no configuration and no variable but ours. extra is configuration that comes on top.
func environment(extra ...[2]string) []string {
	all := append(configuration[:len(configuration):len(configuration)], extra...)
	env := []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C.UTF-8", "TMPDIR=" + os.TempDir(), "BOTTLE_RUN=" + run(),
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0", "GIT_NO_REPLACE_OBJECTS=1",
		"GIT_CONFIG_COUNT=" + strconv.Itoa(len(all)),
	}
	for i, each := range all {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, each[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, each[1]))
	}
	return env
}

// command returns a git in a process group of its own that may write files of at most fileLimit bytes. When ctx is done,
// the whole group ends: first asked, so that git removes its lock files and temporary ones, then killed.
func command(ctx context.Context, fileLimit int64, env []string, arguments ...string) *exec.Cmd {
	limits := []string{"--core=0", "--fsize=" + strconv.FormatInt(fileLimit, 10), "--cpu=" + strconv.Itoa(cpuLimit), "--", "git"}
	cmd := exec.CommandContext(ctx, "prlimit", append(limits, arguments...)...)
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return endGroup(cmd) }
	cmd.WaitDelay = time.Second
	return cmd
}

// ignoreFileLimit makes the limit of a file's size an error of the write, which a git has words for, and no signal that
// kills it. Children inherit that.
func ignoreFileLimit() { signal.Ignore(syscall.SIGXFSZ) }

func endGroup(cmd *exec.Cmd) error {
	group := -cmd.Process.Pid
	syscall.Kill(group, syscall.SIGTERM)
	time.AfterFunc(mercy, func() { syscall.Kill(group, syscall.SIGKILL) })
	return nil
}

// A gitError is what a git said before it failed.
type gitError struct{ said string }

func (e *gitError) Error() string { return e.said }

// output runs a git and returns what it wrote to its standard output. It fails with what the git said, or, if the git
// was ended, with the reason for that. A git that says nothing for stall, not even about its progress, is ended; 0 means
// that it may.
func output(ctx context.Context, cmd *exec.Cmd, stall time.Duration) ([]byte, error) {
	var stdout bytes.Buffer
	stderr := &tail{}
	cmd.Stdout = &limited{&stdout, 64 << 20}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stalled := atomic.Bool{}
	done := make(chan struct{})
	if stall > 0 {
		go func() {
			ticker := time.NewTicker(stall / 4)
			defer ticker.Stop()
			for {
				select {
				case <-done:
					return
				case <-ticker.C:
					if stderr.silence() > stall {
						stalled.Store(true)
						endGroup(cmd)
						return
					}
				}
			}
		}()
	}
	err := cmd.Wait()
	close(done)
	switch {
	case err == nil:
		return stdout.Bytes(), nil
	case stalled.Load():
		return nil, &gitError{fmt.Sprintf("nothing came for %s", stall)}
	case context.Cause(ctx) != nil:
		return nil, context.Cause(ctx)
	}
	if said := stderr.words(); said != "" {
		return nil, &gitError{said}
	}
	return nil, &gitError{fmt.Sprintf("git %s", err)}
}

// limited fails once more than it may take was written to it.
type limited struct {
	io.Writer
	left int
}

var errTooMuch = errors.New("more output than there should be")

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errTooMuch
	}
	return l.Writer.Write(p)
}

// words makes one line of the end of what a git said: the lines that are neither progress nor hints.
func words(said string) string {
	var lines []string
	for _, line := range strings.FieldsFunc(said, func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "hint:") || isProgress(line) {
			continue
		}
		lines = append(lines, line)
	}
	if len(lines) > 5 {
		lines = lines[len(lines)-5:]
	}
	return cut(strings.Join(lines, "; "), 1000)
}

// isProgress tells git's progress meter: "Receiving objects:  12% (3/25)", "remote: Enumerating objects: 3, done."
func isProgress(line string) bool {
	line = strings.TrimPrefix(line, "remote: ")
	_, number, found := strings.Cut(line, " objects: ")
	if !found {
		if _, number, found = strings.Cut(line, " deltas: "); !found {
			return false
		}
	}
	number = strings.TrimSpace(number)
	return number != "" && '0' <= number[0] && number[0] <= '9'
}

func cut(text string, limit int) string {
	if len(text) > limit {
		return strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}
