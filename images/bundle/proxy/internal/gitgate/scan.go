package gitgate

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"bottle/proxy/internal/leaks"
)

const (
	// progressInterval is how often a push that takes long says how far it is.
	progressInterval = 3 * time.Second
	// compared is how many of the commits that a push builds on are looked at for what was there before.
	compared = 16
	// comparedSize is the largest file of theirs that is, in bytes.
	comparedSize = 64 << 20
)

// A secret is one that was found, in words that do not hold it.
type secret struct{ rule, place string }

func (s secret) String() string { return s.rule + ": " + s.place }

// An object is one that the push brings: a commit, a tag, a tree or a file's content.
type object struct {
	id, kind, path string
	size           int64
}

// scanState is how far a scan is.
type scanState struct {
	bytes, total int64
	objects      int
	said         time.Time // When the pusher last heard of it.
}

// scanAll scans all that the push brings and no ref has yet: the names of refs and files, the contents of files, commits
// and tags as raw objects, with the headers and the encodings that a log would not show.
func (h *hook) scanAll(scanner *leaks.Scanner) ([]secret, error) {
	var found []secret
	for _, u := range h.updates {
		names, err := scanner.Scan("", strings.NewReader(u.ref), nil)
		if err != nil {
			return nil, err
		}
		for _, each := range names {
			found = append(found, secret{each.Rule, "the name of a ref"})
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	objects, err := h.brought()
	if err != nil {
		return nil, err
	}
	if found, err = h.scanObjects(scanner, objects); err != nil || len(found) > 0 {
		return found, err
	}
	return h.scanLFS(scanner)
}

// tips are the objects that the refs shall have.
func (h *hook) tips() []string {
	var tips []string
	for _, u := range h.updates {
		if !u.deletes() {
			tips = append(tips, u.new)
		}
	}
	return tips
}

// brought lists the objects that the push brings.
func (h *hook) brought() ([]object, error) {
	tips := h.tips()
	if len(tips) == 0 {
		return nil, nil
	}
	list := h.git("rev-list", "--objects", "--stdin", "--not", "--all")
	list.Stdin = strings.NewReader(strings.Join(tips, "\n") + "\n")
	sizes := h.git("cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize) %(rest)", "--buffer")
	var objects []object
	err := pipeline(list, sizes, func(r io.Reader) error {
		lines := bufio.NewReaderSize(r, 64<<10)
		for {
			line, err := lines.ReadString('\n')
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
			if len(fields) < 3 {
				return fmt.Errorf("an object can't be read: %s", cut(line, 100))
			}
			length, err := strconv.ParseInt(fields[2], 10, 64)
			if err != nil {
				return err
			}
			o := object{id: fields[0], kind: fields[1], size: length}
			if len(fields) == 4 {
				o.path = fields[3]
			}
			objects = append(objects, o)
			h.state.total += length
			if h.state.total > h.task.Limit {
				return h.tooMuch()
			}
		}
	})
	return objects, err
}

func (h *hook) tooMuch() error {
	return refused("size", true, "refused: more than %s of content at once can't be scanned (%d times limits.push); push in smaller steps",
		size(h.task.Limit), contentPerPush)
}

// pipeline runs two gits, the second one on what the first one writes, and hands what that writes to read.
func pipeline(first, second *exec.Cmd, read func(io.Reader) error) error {
	said := &tail{}
	first.Stderr, second.Stderr = said, said
	between, err := first.StdoutPipe()
	if err != nil {
		return err
	}
	second.Stdin = between
	end, err := second.StdoutPipe()
	if err != nil {
		return err
	}
	if err := first.Start(); err != nil {
		return err
	}
	if err := second.Start(); err != nil {
		first.Process.Kill()
		first.Wait()
		return err
	}
	readErr := read(end)
	if readErr != nil {
		first.Process.Kill()
		second.Process.Kill()
	}
	errs := errors.Join(second.Wait(), first.Wait())
	switch {
	case readErr != nil:
		return readErr
	case errs != nil:
		return unreadable(errs, said.words())
	}
	return nil
}

func unreadable(err error, said string) error {
	if said == "" {
		said = err.Error()
	}
	return fmt.Errorf("what was pushed can't be read: %s", said)
}

// scanObjects scans objects one after the other, as git unpacks them.
func (h *hook) scanObjects(scanner *leaks.Scanner, objects []object) ([]secret, error) {
	var ids strings.Builder
	for _, o := range objects {
		ids.WriteString(o.id + "\n")
	}
	cat := h.git("cat-file", "--batch", "--buffer")
	cat.Stdin = strings.NewReader(ids.String())
	said := &tail{}
	cat.Stderr = said
	out, err := cat.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cat.Start(); err != nil {
		return nil, err
	}
	found, err := h.scanStream(scanner, objects, bufio.NewReaderSize(out, 256<<10))
	if err != nil || len(found) > 0 {
		cat.Process.Kill()
		cat.Wait()
		return found, err
	}
	if err := cat.Wait(); err != nil {
		return nil, unreadable(err, said.words())
	}
	return nil, nil
}

func (h *hook) scanStream(scanner *leaks.Scanner, objects []object, stream *bufio.Reader) ([]secret, error) {
	var found []secret
	for _, o := range objects {
		head, err := stream.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("an object can't be read: %w", err)
		}
		if head != fmt.Sprintf("%s %s %d\n", o.id, o.kind, o.size) {
			return nil, fmt.Errorf("an object can't be read: %s", cut(head, 100))
		}
		content := &counted{Reader: io.LimitReader(stream, o.size), hook: h, count: len(objects)}
		secrets, err := h.scanObject(scanner, o, content)
		if err != nil {
			return nil, err
		}
		for _, each := range secrets {
			if !slices.Contains(found, each) {
				found = append(found, each)
			}
		}
		if len(found) >= leaks.MaxFindings {
			return found, nil
		}
		// A scan that found enough has not read to the end.
		if _, err := io.Copy(io.Discard, content); err != nil {
			return nil, err
		}
		if b, err := stream.ReadByte(); err != nil || b != '\n' {
			return nil, errors.New("an object can't be read to its end")
		}
		h.state.objects++
	}
	return found, nil
}

// counted tells the pusher how far the scan is.
type counted struct {
	io.Reader
	hook  *hook
	count int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	state := c.hook.state
	state.bytes += int64(n)
	if now := time.Now(); now.Sub(state.said) >= progressInterval {
		state.said = now
		say("scanning: %d %% of %s (%d of %d objects)", state.bytes*100/max(state.total, 1), size(state.total), state.objects, c.count)
	}
	return n, err
}

// scanObject scans one object. Without a scanner it only notes what the object points to.
func (h *hook) scanObject(scanner *leaks.Scanner, o object, content io.Reader) ([]secret, error) {
	switch o.kind {
	case "tree":
		return h.scanTree(scanner, o, content)
	case "blob":
		if o.size <= pointerSize {
			pointer, err := io.ReadAll(content)
			if err != nil {
				return nil, err
			}
			h.point(o, pointer)
			content = bytes.NewReader(pointer)
		}
		if scanner == nil {
			return nil, nil
		}
		return h.scanFile(scanner, o, content)
	default:
		findings, err := scanner.Scan("", content, nil)
		return h.secrets(findings, o, "the "+o.kind+" "+o.id[:12]), err
	}
}

// scanFile scans a file's content. What was in the file before the push is where it would go already.
func (h *hook) scanFile(scanner *leaks.Scanner, o object, content io.Reader) ([]secret, error) {
	findings, err := scanner.Scan(o.path, content, nil)
	if err != nil || len(findings) == 0 {
		return nil, err
	}
	known, err := h.known(func(base string) (map[leaks.Secret]bool, error) {
		var there map[leaks.Secret]bool
		err := h.read("blob", base+":"+o.path, func(before io.Reader) (err error) {
			there, err = scanner.Secrets(o.path, io.LimitReader(before, comparedSize))
			return err
		})
		return there, err
	})
	if err != nil {
		return nil, err
	}
	if len(known) > 0 {
		// All of it, once more: the first scan ended where it had found enough.
		if err := h.read("blob", o.id, func(again io.Reader) (err error) {
			findings, err = scanner.Scan(o.path, again, known)
			return err
		}); err != nil {
			return nil, err
		}
	}
	return h.secrets(findings, o, shown(scanner, o.path)), nil
}

// known collects what each of the commits that the push builds on has of it.
func (h *hook) known(of func(base string) (map[leaks.Secret]bool, error)) (map[leaks.Secret]bool, error) {
	known := map[leaks.Secret]bool{}
	bases, err := h.bases()
	if err != nil {
		return nil, err
	}
	for _, base := range bases {
		there, err := of(base)
		if err != nil {
			return nil, err
		}
		maps.Copy(known, there)
	}
	return known, nil
}

// read hands what an object holds to use, which gets nothing where there is no such object.
func (h *hook) read(kind, name string, use func(io.Reader) error) error {
	cat := h.git("cat-file", kind, name)
	out, err := cat.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cat.Start(); err != nil {
		return err
	}
	err = use(out)
	io.Copy(io.Discard, out)
	cat.Wait() // It fails where the object is not there.
	return err
}

// shown is a file's name for a message, unless it is a secret itself.
func shown(scanner *leaks.Scanner, path string) string {
	if path == "" {
		return "a file"
	}
	if found, err := scanner.Scan("", strings.NewReader(path), nil); err != nil || len(found) > 0 {
		return "a file of that name"
	}
	return strconv.QuoteToGraphic(cut(path, 200))
}

func (h *hook) secrets(findings []leaks.Finding, o object, place string) []secret {
	var secrets []secret
	commit := ""
	if o.kind == "blob" && len(findings) > 0 {
		if commit = h.commitOf(o.id); commit != "" {
			commit = " in commit " + commit
		}
	}
	for _, each := range findings {
		line := ""
		if (o.kind == "blob" || o.kind == "lfs") && each.Line > 0 {
			line = fmt.Sprintf(" line %d", each.Line)
		}
		secrets = append(secrets, secret{each.Rule, place + line + commit})
	}
	return secrets
}

// commitOf is the commit of the push that brings a file's content, or "".
func (h *hook) commitOf(id string) string {
	arguments := append([]string{"log", "--format=%h", "--max-count=1", "--find-object=" + id}, h.tips()...)
	commit, err := h.output(append(arguments, "--not", "--all")...)
	if err != nil {
		return ""
	}
	return commit
}

// bases are the commits that the push builds on.
func (h *hook) bases() ([]string, error) {
	if h.based == nil {
		list := h.git("rev-list", "--boundary", "--stdin", "--not", "--all")
		list.Stdin = strings.NewReader(strings.Join(h.tips(), "\n") + "\n")
		out, err := list.Output()
		if err != nil {
			return nil, err
		}
		h.based = []string{}
		for line := range strings.Lines(string(out)) {
			if base, isBase := strings.CutPrefix(strings.TrimSpace(line), "-"); isBase && len(h.based) < compared {
				h.based = append(h.based, base)
			}
		}
	}
	return h.based, nil
}

// scanTree scans the names that a directory gives its files, and did not give them before the push.
func (h *hook) scanTree(scanner *leaks.Scanner, o object, content io.Reader) ([]secret, error) {
	paths, err := pathsIn(o.path, content, len(o.id)/2)
	if err != nil {
		return nil, err
	}
	findings, err := scanner.Scan("", bytes.NewReader(paths), nil)
	if err != nil || len(findings) == 0 {
		return nil, err
	}
	known, err := h.known(func(base string) (map[leaks.Secret]bool, error) {
		var there map[leaks.Secret]bool
		err := h.read("tree", base+":"+o.path, func(before io.Reader) error {
			paths, err := pathsIn(o.path, before, len(o.id)/2)
			if err == nil {
				there, err = scanner.Secrets("", bytes.NewReader(paths))
			}
			return err
		})
		return there, err
	})
	if err != nil {
		return nil, err
	}
	if findings, err = scanner.Scan("", bytes.NewReader(paths), known); err != nil {
		return nil, err
	}
	var secrets []secret
	for _, each := range findings {
		secrets = append(secrets, secret{each.Rule, "the name of a file"})
	}
	return secrets, nil
}

// pathsIn are the paths of what is in a directory, one after the other, as a text to be scanned.
func pathsIn(directory string, tree io.Reader, idLength int) ([]byte, error) {
	raw, err := io.ReadAll(tree)
	if err != nil {
		return nil, err
	}
	names, err := namesOf(raw, idLength)
	if err != nil {
		return nil, err
	}
	var paths []byte
	for _, name := range names {
		if directory != "" {
			paths = append(append(paths, directory...), '/')
		}
		paths = append(append(paths, name...), '\n')
	}
	return paths, nil
}

// namesOf reads the names in a tree: "MODE NAME\0" and the binary id, again and again.
func namesOf(raw []byte, idLength int) ([]string, error) {
	var names []string
	for len(raw) > 0 {
		_, rest, found := bytes.Cut(raw, []byte(" "))
		name, rest, ended := bytes.Cut(rest, []byte("\x00"))
		if !found || !ended || len(rest) < idLength {
			return nil, errors.New("a tree can't be read")
		}
		names = append(names, string(name))
		raw = rest[idLength:]
	}
	return names, nil
}
