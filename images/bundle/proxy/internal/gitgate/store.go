package gitgate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// reserve is what has to be left of the quota for a fetch or a push to begin, in bytes.
	reserve = 1 << 20
	// recount is how often the store is counted while something is written to it.
	recount = time.Second
	// manyPacks is the number of packs from which on they are put together.
	manyPacks = 50
)

// A store is the directory of all repositories, with its quota.
type store struct {
	directory string
	quota     func() int64
	mutex     sync.Mutex
	repos     map[string]*repository
	full      bool  // Something did not fit, and nothing has been removed since.
	reserved  int64 // What is being written besides gits' own files, in bytes.
}

// A fullError says that something does not fit.
type fullError struct{ used, quota int64 }

func (e *fullError) Error() string {
	return fmt.Sprintf("git-gate's store is full: %s of %s are taken (git.quota)", size(e.used), size(e.quota))
}

func newStore(directory string, quota func() int64) *store {
	return &store{directory: directory, quota: quota, repos: map[string]*repository{}}
}

// used counts what the store takes on its disk, in bytes.
func (s *store) used() int64 {
	var used int64
	filepath.WalkDir(s.directory, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // It has gone while we were counting.
		}
		if info, err := entry.Info(); err == nil {
			used += allocated(info)
		}
		return nil
	})
	return used
}

// left returns what is left of the quota in bytes, or a fullError.
func (s *store) left() (int64, error) {
	used, quota := s.used(), s.quota()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.full = quota-used < reserve
	if s.full {
		return 0, &fullError{used, quota}
	}
	return quota - used, nil
}

// reserve takes n bytes of what is left, until release is called: what was written is counted from then on.
func (s *store) reserve(n int64) (release func(), err error) {
	used, quota := s.used(), s.quota()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if quota-used-s.reserved < reserve+n {
		return nil, &fullError{used + s.reserved, quota}
	}
	s.reserved += n
	return func() {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.reserved -= n
	}, nil
}

// guard counts the store while something is written, and calls exceeded once it is too much. Until stop is called.
//
// The limit of a file's size, which the kernel holds, is not enough where several are written.
func (s *store) guard(exceeded func(error)) (stop func()) {
	done := make(chan struct{})
	go func() {
		ticker := time.NewTicker(recount)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				if used, quota := s.used(), s.quota(); used > quota {
					exceeded(&fullError{used, quota})
					return
				}
			}
		}
	}()
	return func() { close(done) }
}

// A repository is one that is in the store, or will be.
type repository struct {
	name, directory string
	// refs is held by whoever changes them: a fetch, and a push from the moment in which it is forwarded. It has room for
	// one token.
	refs    chan struct{}
	mutex   sync.Mutex
	fetched time.Time // When the last fetch that succeeded was begun.
	writers int       // gits that may be writing objects.
}

func (s *store) repository(name string) *repository {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	r := s.repos[name]
	if r == nil {
		r = &repository{name: name, directory: filepath.Join(s.directory, name+".git"), refs: make(chan struct{}, 1)}
		s.repos[name] = r
	}
	return r
}

// lock waits until the refs are the caller's, or ctx is done.
func (r *repository) lock(ctx context.Context) error {
	select {
	case r.refs <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *repository) unlock() { <-r.refs }

// exists tells whether the repository has been made, as a whole.
func (r *repository) exists() bool {
	_, err := os.Stat(filepath.Join(r.directory, "HEAD"))
	return err == nil
}

// head is the ref of the branch that is checked out by default, or "".
func (r *repository) head() string {
	content, err := os.ReadFile(filepath.Join(r.directory, "HEAD"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimPrefix(string(content), "ref: "))
}

// create makes the repository, unless it is there. hash is "sha1" or "sha256".
func (r *repository) create(ctx context.Context, hash string) error {
	if r.exists() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(r.directory), 0o700); err != nil {
		return err
	}
	// git writes HEAD early. Under another name until it is whole.
	temporary := r.directory + ".new"
	if err := os.RemoveAll(temporary); err != nil {
		return err
	}
	arguments := []string{"init", "--quiet", "--bare", "--initial-branch=main", "--template=", "--object-format=" + hash, temporary}
	if _, err := output(ctx, command(ctx, reserve, environment(), arguments...), 0); err != nil {
		return err
	}
	return os.Rename(temporary, r.directory)
}

// writing notes that a git may write objects until the returned function is called. When the last one has ended, what any
// of them left behind is removed.
func (r *repository) writing() (ended func()) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.writers++
	return func() {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		if r.writers--; r.writers == 0 {
			r.sweep()
		}
	}
}

// sweep removes what a git that was killed, or that ran into a limit, left behind: temporary packs, quarantined objects,
// lock files. Nothing may be writing.
func (r *repository) sweep() {
	filepath.WalkDir(r.directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == r.directory {
			return nil
		}
		name, above := entry.Name(), filepath.Base(filepath.Dir(path))
		switch {
		case entry.IsDir() && (strings.HasPrefix(name, "tmp_objdir-") || strings.HasPrefix(name, "incoming-")) && above == "objects":
			os.RemoveAll(path)
			return filepath.SkipDir
		case entry.IsDir():
			return nil
		case strings.HasPrefix(name, "tmp_") && strings.HasPrefix(path, filepath.Join(r.directory, "objects")+"/"),
			strings.HasPrefix(name, "tmp_") && above == "lfs",
			strings.HasPrefix(name, ".tmp-") && above == "pack", strings.HasSuffix(name, ".lock"):
			os.Remove(path)
		}
		return nil
	})
}

// tidy puts packs together where there are many: each push and each fetch brings one.
func (r *repository) tidy(ctx context.Context, left int64) {
	packs, _ := filepath.Glob(filepath.Join(r.directory, "objects", "pack", "*.pack"))
	if len(packs) < manyPacks || left < 2*reserve {
		return
	}
	if r.lock(ctx) != nil {
		return
	}
	defer r.unlock()
	defer r.writing()()
	arguments := []string{"-C", r.directory, "repack", "-d", "-q", "--geometric=2", "--no-write-bitmap-index"}
	output(ctx, command(ctx, left, environment(), arguments...), 0)
}

// isFull tells whether an error means that something did not fit.
func isFull(err error) bool {
	var full *fullError
	return errors.As(err, &full) || err != nil && (strings.Contains(err.Error(), "File too large") || strings.Contains(err.Error(), "No space left"))
}

// size writes a number of bytes for people.
func size(n int64) string {
	const units = "KMGT"
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	value, unit := float64(n)/(1<<10), 0
	for value >= 1<<10 && unit < len(units)-1 {
		value, unit = value/(1<<10), unit+1
	}
	text := fmt.Sprintf("%.1f", value)
	return strings.TrimSuffix(text, ".0") + " " + units[unit:unit+1] + "iB"
}
