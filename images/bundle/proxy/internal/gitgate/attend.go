package gitgate

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/leaks"
	"bottle/proxy/internal/policy"
)

// hookVariable tells the hook which descriptor leads to the server.
const hookVariable = "BOTTLE_GATE_FD"

// The hook and the server talk in JSON, one object a line, over a connection that the hook inherits through git. The hook
// begins, and the server answers with the task; the hook asks whether it may forward, and the server answers with yes or
// with why not; the hook tells the end of it.
type (
	fromHook struct {
		Begin   bool     `json:"begin,omitempty"`
		Push    string   `json:"push,omitempty"` // What an approval names.
		Forward bool     `json:"forward,omitempty"`
		Verdict *verdict `json:"verdict,omitempty"`
	}
	fromServer struct {
		Task   *task  `json:"task,omitempty"`
		Refuse string `json:"refuse,omitempty"`
		// Released tells whether the operator has let this push go.
		Released bool `json:"released,omitempty"`
	}
	task struct {
		Name     string            `json:"name"`
		Rule     policy.Repository `json:"rule"`
		Patterns []leaks.Pattern   `json:"patterns"`
		Limit    int64             `json:"limit"` // How much content is scanned at most, in bytes.
	}
	verdict struct {
		Accepted bool     `json:"accepted"`
		Released bool     `json:"released"`
		Push     string   `json:"push"`
		Refs     []string `json:"refs"`
		Rule     string   `json:"rule"`
		Reasons  []string `json:"reasons"`
		Bytes    int64    `json:"bytes"` // Scanned.
	}
)

// contentPerPush is how much the content of a push may be, as a multiple of its size on the wire.
const contentPerPush = 32

// attendHook talks to the hook that the git will run. The returned function ends that, once the git has ended.
func (s *session) attendHook(ctx context.Context, cancel context.CancelCauseFunc, cmd *exec.Cmd, r *repository) (stop func(), err error) {
	ours, childs, err := pair()
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, childs)
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", hookVariable, 2+len(cmd.ExtraFiles)))
	done := make(chan struct{})
	go func() {
		defer close(done)
		decoder, encoder := json.NewDecoder(ours), json.NewEncoder(ours)
		for {
			var said fromHook
			if decoder.Decode(&said) != nil {
				return
			}
			if answer := s.answer(ctx, cancel, said, r); answer != nil && encoder.Encode(answer) != nil {
				return
			}
		}
	}()
	return func() {
		childs.Close()
		ours.Close()
		<-done
		s.push.mutex.Lock()
		defer s.push.mutex.Unlock()
		if s.push.locked {
			s.push.locked = false
			r.unlock()
		}
	}, nil
}

func (s *session) answer(ctx context.Context, cancel context.CancelCauseFunc, said fromHook, r *repository) *fromServer {
	switch {
	case said.Begin:
		s.busy.Store(true)
		if s.gone.Load() {
			cancel(errGone)
		}
		current := s.server.policy.Load()
		patterns := make([]leaks.Pattern, len(current.Pipelock.Patterns))
		for i, pattern := range current.Pipelock.Patterns {
			patterns[i] = leaks.Pattern{Name: pattern.Name, Regex: pattern.Regex}
		}
		limit := contentPerPush * current.Limits.Push
		return &fromServer{
			Task:     &task{Name: s.name, Rule: s.rule, Patterns: patterns, Limit: limit},
			Released: s.server.released(s.name, said.Push),
		}
	case said.Forward:
		// From here on until the git has ended, nobody else changes the refs: what the upstream has taken has to be
		// taken here too.
		if err := r.lock(ctx); err != nil {
			return &fromServer{Refuse: err.Error()}
		}
		s.push.mutex.Lock()
		s.push.locked = true
		s.push.mutex.Unlock()
		switch {
		case s.gone.Load():
			cancel(errGone)
			return &fromServer{Refuse: errGone.Error()}
		case s.server.killed.On():
			return &fromServer{Refuse: errKilled.Error()}
		}
		return &fromServer{}
	case said.Verdict != nil:
		s.push.mutex.Lock()
		s.push.verdict = said.Verdict
		s.push.mutex.Unlock()
		s.busy.Store(false)
		s.touch()
	}
	return nil
}

// fill adds what came of a push to its line in the audit and in the log, and returns the log's event.
func (v *verdict) fill(entry *audit.Entry, fields map[string]any, err error) string {
	entry.Push, entry.Refs, entry.Rule = v.Push, v.Refs, v.Rule
	fields["refs"], fields["push"] = len(v.Refs), v.Push
	if v.Accepted && err == nil {
		if v.Released {
			entry.Rule = "approval"
		}
		return "git_gate.accepted"
	}
	if !v.Accepted {
		entry.Verdict, entry.Reason = "refused", cut(v.Reasons[len(v.Reasons)-1], 1000)
		fields["reason"] = v.Reasons
	}
	return "git_gate.refused"
}
