package gitgate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"bottle/proxy/internal/policy"
)

// stall is how long an upstream may be silent in a fetch.
const stall = 5 * time.Minute

// An upstreamError is what the upstream, or the way there, said.
type upstreamError struct{ said string }

func (e *upstreamError) Error() string { return e.said }

// sync makes the repository's branches and tags those of its upstream, as they are now or later: what arrives while a
// fetch is under way shares the next one.
func (s *store) sync(ctx context.Context, r *repository, rule policy.Repository) error {
	asked := time.Now()
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	if rule.Upstream == "" {
		return r.create(ctx, "sha1")
	}
	if r.fetched.After(asked) {
		return nil
	}
	began := time.Now()
	if err := s.fetch(ctx, r, rule); err != nil {
		return err
	}
	r.fetched = began
	return nil
}

// fetch fetches what the upstream has and the repository has not. The repository's refs are the caller's.
func (s *store) fetch(ctx context.Context, r *repository, rule policy.Repository) error {
	way := environment(wayTo(r.name, rule)...)
	ask := func(limit int64, env []string, arguments ...string) ([]byte, error) {
		return output(ctx, command(ctx, limit, env, arguments...), stall)
	}
	listed, err := ask(reserve, way, "ls-remote", "--quiet", "--heads", "--tags", "--", rule.Upstream)
	if err != nil {
		return fromUpstream(err)
	}
	theirs := refsOf(listed)
	if err := r.create(ctx, hashOf(theirs)); err != nil {
		return err
	}
	here := append(environment(), "GIT_DIR="+r.directory)
	listed, err = ask(reserve, here, "for-each-ref", "--format=%(objectname)\t%(refname)", "refs/heads", "refs/tags")
	if err != nil {
		return err
	}
	if same(theirs, refsOf(listed)) {
		if _, known := theirs[r.head()]; known || len(theirs) == 0 {
			return nil
		}
	} else {
		left, err := s.left()
		if err != nil {
			return err
		}
		if err := s.fetchPack(ctx, r, rule, append(way, "GIT_DIR="+r.directory), left); err != nil {
			return err
		}
	}
	listed, err = ask(reserve, way, headOf(rule.Upstream)...)
	if err != nil {
		return fromUpstream(err)
	}
	if branch := branchOf(listed); branch != "" {
		_, err = ask(reserve, here, "symbolic-ref", "HEAD", branch)
	}
	return err
}

// headOf is the command that tells an upstream's default branch. It costs a list of all refs, pull requests and all.
func headOf(upstream string) []string {
	return []string{"ls-remote", "--quiet", "--symref", "--", upstream, "HEAD"}
}

// branchOf reads the default branch's ref in what that command prints. An upstream without commits has none.
func branchOf(listed []byte) string {
	for line := range strings.Lines(string(listed)) {
		target, isHead := strings.CutPrefix(line, "ref: ")
		if target, _, _ = strings.Cut(target, "\t"); isHead && strings.HasPrefix(target, "refs/heads/") {
			return target
		}
	}
	return ""
}

func (s *store) fetchPack(ctx context.Context, r *repository, rule policy.Repository, env []string, left int64) error {
	defer r.writing()()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer s.guard(cancel)()
	arguments := []string{
		"fetch", "--progress", "--prune", "--force", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
		"--no-recurse-submodules", "--", rule.Upstream, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*",
	}
	_, err := output(ctx, command(ctx, left, env, arguments...), stall)
	if isFull(err) {
		s.filled()
		return fmt.Errorf("what the upstream has does not fit: %s were left of %s (git.quota)", size(left), size(s.quota()))
	}
	return fromUpstream(err)
}

func (s *store) filled() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.full = true
}

func fromUpstream(err error) error {
	var said *gitError
	if errors.As(err, &said) {
		return &upstreamError{explain(said.said)}
	}
	return err
}

// refsOf reads what ls-remote lists, by name, without what annotated tags lead to.
func refsOf(listed []byte) map[string]string {
	refs := map[string]string{}
	for line := range strings.Lines(string(listed)) {
		id, name, found := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if found && !strings.HasSuffix(name, "^{}") {
			refs[name] = id
		}
	}
	return refs
}

func same(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name, id := range a {
		if b[name] != id {
			return false
		}
	}
	return true
}

// hashOf returns the hash function that the ids are made with. A repository without any is made with git's default.
func hashOf(refs map[string]string) string {
	for _, id := range refs {
		if len(id) == 64 {
			return "sha256"
		}
	}
	return "sha1"
}
