package gitgate

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"bottle/proxy/internal/leaks"
	"bottle/proxy/internal/policy"
)

// An update is one line that git gives a pre-receive hook (githooks(5)).
type update struct{ old, new, ref string }

func (u update) deletes() bool { return strings.Trim(u.new, "0") == "" }
func (u update) creates() bool { return strings.Trim(u.old, "0") == "" }

// branch is the name of the branch, if it is one.
func (u update) branch() (string, bool) { return strings.CutPrefix(u.ref, "refs/heads/") }
func (u update) tag() (string, bool)    { return strings.CutPrefix(u.ref, "refs/tags/") }

func readUpdates(r io.Reader) ([]update, error) {
	var all []update
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		fields := strings.SplitN(scanner.Text(), " ", 3)
		if len(fields) != 3 {
			return nil, fmt.Errorf("git gave the hook %q", scanner.Text())
		}
		all = append(all, update{fields[0], fields[1], fields[2]})
	}
	return all, scanner.Err()
}

// pushID names a push for the operator's approval: this one, and no other.
func pushID(repository string, updates []update) string {
	lines := make([]string, len(updates))
	for i, u := range updates {
		lines[i] = u.old + " " + u.new + " " + u.ref + "\n"
	}
	slices.Sort(lines)
	digest := sha256.Sum256([]byte(repository + "\n" + strings.Join(lines, "")))
	return hex.EncodeToString(digest[:8])
}

// A refusal is why a push is not taken, in lines for the agent.
type refusal struct {
	rule  string
	lines []string
	// final tells that no approval of this push would help.
	final bool
}

func (r *refusal) Error() string { return strings.Join(r.lines, "; ") }

func refused(rule string, final bool, format string, arguments ...any) *refusal {
	return &refusal{rule, []string{fmt.Sprintf(format, arguments...)}, final}
}

// A hook is the pre-receive hook at work.
type hook struct {
	server  *json.Encoder
	answers *json.Decoder
	updates []update
	push    string
	task    *task
	state   *scanState
	based   []string // See bases.
	// waiting are the Git LFS objects that the push names and that wait here for it.
	waiting []waitingObject
	// released tells that the operator has let this push go.
	released bool
}

// PreReceive is the pre-receive hook: it judges a push, scans it, and forwards it. It returns the exit code. Whatever
// goes wrong refuses the push.
func PreReceive() int {
	h := &hook{state: &scanState{said: time.Now()}}
	err := h.run()
	verdict := &verdict{Accepted: err == nil, Released: h.released, Push: h.push, Bytes: h.state.bytes}
	for _, u := range h.updates {
		verdict.Refs = append(verdict.Refs, cut(u.ref, 200))
	}
	if err != nil {
		var why *refusal
		if !errors.As(err, &why) {
			why = refused("error", true, "refused: %s", err)
		}
		verdict.Rule, verdict.Reasons = why.rule, why.lines
		for _, line := range why.lines {
			say("%s", line)
		}
		if !why.final {
			say("the operator can let exactly this push through: ask for push %s", h.push)
		}
	}
	if h.server != nil {
		h.server.Encode(fromHook{Verdict: verdict})
	}
	if err != nil {
		return 1
	}
	return 0
}

// say writes a line that the pusher's git shows behind "remote: ".
func say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "git-gate: "+format+"\n", arguments...)
}

func (h *hook) run() error {
	updates, err := readUpdates(os.Stdin)
	if err != nil {
		return err
	}
	h.updates = updates
	directory, err := os.Getwd()
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(directory[strings.LastIndexByte(directory, '/')+1:], ".git")
	h.push = pushID(name, updates)
	if err := h.connect(); err != nil {
		return err
	}
	answer, err := h.ask(fromHook{Begin: true, Push: h.push})
	if err != nil {
		return err
	}
	h.task, h.released = answer.Task, answer.Released
	if h.task == nil {
		return errors.New("the server has no task for this push")
	}
	if !h.released {
		if err := h.judge(); err != nil {
			return err
		}
		if err := h.scan(); err != nil {
			return err
		}
	} else if err := h.collect(); err != nil {
		return err
	}
	if answer, err = h.ask(fromHook{Forward: true}); err != nil {
		return err
	}
	if answer.Refuse != "" {
		return refused("gate", true, "refused: %s", answer.Refuse)
	}
	if h.task.Rule.Upstream == "" {
		return nil
	}
	if err := h.forwardLFS(); err != nil {
		return err
	}
	if err := h.forward(); err != nil {
		return err
	}
	h.forgetLFS()
	return nil
}

func (h *hook) connect() error {
	descriptor, err := strconv.Atoi(os.Getenv(hookVariable))
	if err != nil {
		return errors.New("the hook is not run by git-gate")
	}
	file := os.NewFile(uintptr(descriptor), "server")
	conn, err := net.FileConn(file)
	if err != nil {
		return err
	}
	file.Close()
	os.Unsetenv(hookVariable)
	h.server, h.answers = json.NewEncoder(conn), json.NewDecoder(conn)
	return nil
}

func (h *hook) ask(question fromHook) (fromServer, error) {
	var answer fromServer
	if err := h.server.Encode(question); err != nil {
		return answer, err
	}
	return answer, h.answers.Decode(&answer)
}

// git runs a git in the hook's own environment, in which it sees what was pushed. The server ends the whole group.
func (h *hook) git(arguments ...string) *exec.Cmd {
	return exec.Command("git", arguments...)
}

func (h *hook) output(arguments ...string) (string, error) {
	out, err := output(context.Background(), h.git(arguments...), 0)
	return strings.TrimSuffix(string(out), "\n"), err
}

// judge holds the push against the repository's rules.
func (h *hook) judge() error {
	rules := h.task.Rule.Push
	for _, u := range h.updates {
		branch, isBranch := u.branch()
		tag, isTag := u.tag()
		switch {
		case !isBranch && !isTag:
			return refused("refs", true, "refused: %s: only branches and tags are accepted", u.ref)
		case u.deletes() && !rules.Delete:
			return refused("delete", false, "refused: %s: nothing may be deleted here (push.delete)", u.ref)
		case isBranch && !matchesAny(rules.Branches, branch):
			return refused("branches", false, "refused: %s: only these branches may be pushed: %s (push.branches)", u.ref, inWords(rules.Branches))
		case isTag && !matchesAny(rules.Tags, tag):
			return refused("tags", false, "refused: %s: only these tags may be pushed: %s (push.tags)", u.ref, inWords(rules.Tags))
		case u.deletes() || u.creates():
			continue
		case isTag:
			return refused("force", false, "refused: %s: the tag is there already, and may not be moved", u.ref)
		}
		if err := h.judgeForce(u, branch, rules); err != nil {
			return err
		}
	}
	return nil
}

func (h *hook) judgeForce(u update, branch string, rules policy.Push) error {
	err := h.git("merge-base", "--is-ancestor", u.old, u.new).Run()
	if err == nil {
		return nil
	}
	if rules.Force != nil {
		if matchesAny(rules.Force, branch) {
			return nil
		}
		return refused("force", false, "refused: %s: only these branches may be rewritten: %s (push.force)", u.ref, inWords(rules.Force))
	}
	if h.task.Rule.Upstream == "" {
		return nil
	}
	// As it is now: what was fetched some time ago may not be the default any more.
	ask := h.git(headOf(h.task.Rule.Upstream)...)
	ask.Env = h.forwarding()
	listed, err := output(context.Background(), ask, stall)
	if err != nil {
		return fromUpstream(err)
	}
	if branchOf(listed) == u.ref {
		return refused("force", false, "refused: %s: the upstream's default branch may not be rewritten (push.force)", u.ref)
	}
	return nil
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, name) })
}

// matches tells whether a name has a pattern's form. A * stands for any characters, slashes too, and for none.
func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	rest, begins := strings.CutPrefix(name, parts[0])
	last := parts[len(parts)-1]
	if !begins || len(rest) < len(last) || !strings.HasSuffix(rest, last) {
		return false
	}
	rest = rest[:len(rest)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(rest, part)
		if !found {
			return false
		}
		rest = after
	}
	return true
}

func inWords(patterns []string) string {
	if len(patterns) == 0 {
		return "none"
	}
	return cut(strings.Join(patterns, ", "), 300)
}

// scan looks through all that the push brings.
func (h *hook) scan() error {
	rules, err := leaks.Load(h.task.Patterns)
	if err != nil {
		return err
	}
	description, err := os.ReadFile(knownFile())
	if err != nil {
		return err
	}
	known, err := leaks.ParseKnown(description)
	if err != nil {
		return err
	}
	found, err := h.scanAll(leaks.NewScanner(rules, known))
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return nil
	}
	why := &refusal{rule: "secret: " + found[0].rule, lines: []string{"refused; nothing of this push was stored or forwarded"}}
	for _, each := range found {
		why.lines = append(why.lines, "what looks like a secret: "+each.String())
	}
	return why
}
