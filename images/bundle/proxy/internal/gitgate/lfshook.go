package gitgate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"bottle/proxy/internal/leaks"
)

// lfsParallel is how many objects are forwarded at once.
const lfsParallel = 4

// lfsChunk is how many objects the upstream is asked about at once, as git-lfs does.
const lfsChunk = 100

// A waiting object is one that a file of the push points to, and that is here.
type waitingObject struct {
	lfsObject
	path string // The file's, in the repository.
}

func lfsPath(id string) string { return filepath.Join("lfs", id) } // The hook runs in the repository.

// point notes the object that a file points to, if it waits here for the push. One that does not is in the upstream, or
// the upstream says that it is missing.
func (h *hook) point(o object, content []byte) {
	pointer, isPointer := parsePointer(content)
	if !isPointer || slices.ContainsFunc(h.waiting, func(w waitingObject) bool { return w.ID == pointer.ID }) {
		return
	}
	if info, err := os.Stat(lfsPath(pointer.ID)); err == nil {
		pointer.Size = info.Size()
		h.waiting = append(h.waiting, waitingObject{pointer, o.path})
	}
}

// collect finds the objects of a push that is not scanned.
func (h *hook) collect() error {
	objects, err := h.brought()
	if err != nil {
		return err
	}
	small := slices.DeleteFunc(objects, func(o object) bool { return o.kind != "blob" || o.size > pointerSize })
	_, err = h.scanObjects(nil, small)
	return err
}

// scanLFS scans the objects that wait for the push.
func (h *hook) scanLFS(scanner *leaks.Scanner) ([]secret, error) {
	for _, each := range h.waiting {
		h.state.total += each.Size
	}
	if h.state.total > h.task.Limit {
		return nil, h.tooMuch()
	}
	var found []secret
	for _, each := range h.waiting {
		file, err := os.Open(lfsPath(each.ID))
		if err != nil {
			return nil, err
		}
		findings, err := scanner.Scan(each.path, &counted{Reader: file, hook: h, count: h.state.objects + len(h.waiting)}, nil)
		file.Close()
		if err != nil {
			return nil, err
		}
		for _, finding := range h.secrets(findings, object{kind: "lfs"}, shown(scanner, each.path)+" (Git LFS)") {
			if !slices.Contains(found, finding) {
				found = append(found, finding)
			}
		}
		h.state.objects++
	}
	return found, nil
}

// forwardLFS gives the objects to the upstream before it hears of the refs: whoever fetches those finds them.
func (h *hook) forwardLFS() error {
	if len(h.waiting) == 0 {
		return nil
	}
	ctx := context.Background() // The server ends the whole group.
	upstream, err := lfsOf(ctx, h.task.Name, h.task.Rule, "upload")
	if err != nil {
		return refused("lfs", true, "refused: %s", err)
	}
	for chunk := range slices.Chunk(h.waiting, lfsChunk) {
		if err := forwardObjects(ctx, upstream, chunk); err != nil {
			return refused("lfs", true, "refused by the upstream: %s", err)
		}
	}
	say("%d Git LFS objects are in the upstream", len(h.waiting))
	return nil
}

func forwardObjects(ctx context.Context, upstream *lfsUpstream, chunk []waitingObject) error {
	asked := make([]lfsObject, len(chunk))
	for i, each := range chunk {
		asked[i] = each.lfsObject
	}
	answers, err := upstream.batch(ctx, "upload", asked)
	if err != nil {
		return err
	}
	if len(answers) != len(asked) {
		return errors.New("the upstream's Git LFS server answered for other objects than were asked for")
	}
	errs := make([]error, len(answers))
	places := make(chan struct{}, lfsParallel)
	var all sync.WaitGroup
	for i, each := range answers {
		if !slices.ContainsFunc(asked, func(o lfsObject) bool { return o.ID == each.ID && o.Size == each.Size }) {
			return errors.New("the upstream's Git LFS server answered for other objects than were asked for")
		}
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			errs[i] = upstream.upload(ctx, each, lfsPath(each.ID))
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// forgetLFS removes what the upstream has now.
func (h *hook) forgetLFS() {
	for _, each := range h.waiting {
		os.Remove(lfsPath(each.ID))
	}
}
