package gitgate

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// forward pushes what was judged to the upstream, all of it or nothing. It fails with the upstream's words.
//
// The lease makes the upstream refuse where its ref is not what the gate, and so the agent, has seen.
func (h *hook) forward() error {
	rule := h.task.Rule
	arguments := []string{"push", "--porcelain", "--no-verify", "--progress"}
	if len(h.updates) > 1 {
		arguments = append(arguments, "--atomic")
	}
	var refspecs []string
	for _, u := range h.updates {
		old := u.old
		if u.creates() {
			old = ""
		}
		arguments = append(arguments, "--force-with-lease="+u.ref+":"+old)
		if u.deletes() {
			refspecs = append(refspecs, ":"+u.ref)
		} else {
			refspecs = append(refspecs, u.new+":"+u.ref)
		}
	}
	cmd := h.git(append(append(arguments, "--", rule.Upstream), refspecs...)...)
	cmd.Env = h.forwarding()
	said := &relayed{tail: &tail{}}
	cmd.Stderr = said
	out, err := runPush(cmd)
	said.flush()
	if err == nil {
		return nil
	}
	why := said.words()
	if porcelain := rejections(out); porcelain != "" {
		why = strings.Trim(why+"; "+porcelain, "; ")
	}
	if why == "" {
		why = err.Error()
	}
	return refused("upstream", true, "refused by the upstream: %s", explain(cut(why, 1000)))
}

func runPush(cmd *exec.Cmd) (string, error) {
	var out strings.Builder
	cmd.Stdout = &limited{&out, 1 << 20}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// forwarding is the environment of the push to the upstream: the hook's, in which git sees the objects that are not yet
// accepted, and the way.
func (h *hook) forwarding() []string {
	// A git that serves an upstream on this file system would take our quarantine for its own, and refuse every push.
	const quarantine = "GIT_QUARANTINE_PATH="
	env := slices.DeleteFunc(os.Environ(), func(each string) bool {
		return strings.HasPrefix(each, quarantine) || strings.HasPrefix(each, "GIT_CONFIG_")
	})
	for _, each := range environment(wayTo(h.task.Name, h.task.Rule)...) {
		if strings.HasPrefix(each, "GIT_CONFIG_") {
			env = append(env, each)
		}
	}
	return env
}

// rejections are the lines of a porcelain push that say why a ref was not taken.
func rejections(porcelain string) string {
	var lines []string
	for line := range strings.Lines(porcelain) {
		if fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); len(fields) == 3 && fields[0] == "!" {
			_, ref, _ := strings.Cut(fields[1], ":")
			lines = append(lines, ref+" "+fields[2])
		}
	}
	return strings.Join(lines, "; ")
}

// relayed keeps what the push to the upstream says, and passes on what the upstream says by it: where to open a merge
// request, for one. While there is nothing of that, it says from time to time that the push is under way.
type relayed struct {
	*tail
	line []byte
	said time.Time
}

func (r *relayed) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' && b != '\r' {
			r.line = append(r.line, b)
			continue
		}
		r.flush()
	}
	return r.tail.Write(p)
}

func (r *relayed) flush() {
	line := strings.TrimSpace(string(r.line))
	r.line = r.line[:0]
	if line == "" {
		return
	}
	if isProgress(line) {
		if r.said.IsZero() {
			r.said = time.Now()
		}
		if time.Since(r.said) >= progressInterval {
			r.said = time.Now()
			say("to the upstream: %s", cut(line, 200))
		}
		return
	}
	if words, isRemote := strings.CutPrefix(line, "remote: "); isRemote {
		say("upstream: %s", cut(words, 500))
	}
}

// Tunnel connects its standard input and output to a host and port, by way of egress. It is what git and ssh run to reach
// an upstream that does not speak HTTP.
func Tunnel(host, port string) error {
	conn, err := dialTunnel(context.Background(), host, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(os.Stdout, conn)
		done <- err
	}()
	if _, err := io.Copy(conn, os.Stdin); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	conn.CloseWrite()
	return <-done
}
