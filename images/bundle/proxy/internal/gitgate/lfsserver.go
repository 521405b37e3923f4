package gitgate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"bottle/proxy/internal/audit"
)

// How long an object waits for the push that names it, and how long where the store is full. With a push that comes
// later, git-lfs sends it again.
const (
	lfsKept       = 24 * time.Hour
	lfsKeptInNeed = time.Hour
)

// lfs makes a handler of what serves one request of Git LFS. While it runs, it is a session like that of a git: the kill
// switch, a revocation and a stop cut it.
func (s *Server) lfs(serve func(ctx context.Context, w http.ResponseWriter, r *http.Request, t *lfsTransfer) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		each := &session{server: s, asked: request{service: "lfs", path: r.URL.Path}, began: time.Now(), end: cancel, push: &push{}}
		idle := time.Duration(s.policy.Load().Limits.GitIdleMs) * time.Millisecond
		t := &lfsTransfer{session: each, alive: alive{each, http.NewResponseController(w), idle}, id: r.PathValue("id")}
		err := t.begin(r)
		if err == nil {
			defer s.leaveTransfer(each)
			defer context.AfterFunc(ctx, func() {
				if cause := context.Cause(ctx); errors.Is(cause, errKilled) || errors.Is(cause, errStopped) || errors.Is(cause, errRevoked) {
					cutWeb(r)
				}
			})()
			err = serve(ctx, w, r, t)
		}
		t.record(r, err)
		switch {
		case err == nil:
		case t.answered:
			panic(http.ErrAbortHandler) // Never ended as if it were whole.
		default:
			writeJSON(w, statusOf(err), lfsType, map[string]string{"message": "git-gate: " + cut(err.Error(), 1000)})
		}
	}
}

// An lfsTransfer is one request of Git LFS that is being served.
type lfsTransfer struct {
	*session
	alive
	id       string
	repo     *repository
	answered bool // Its answer has begun.
}

func (t *lfsTransfer) begin(r *http.Request) error {
	s := t.session.server
	name, ok := request{path: "/" + r.PathValue("repository")}.name()
	if ok {
		t.name = name
		t.rule, ok = s.rule(name)
	}
	switch {
	case !ok:
		return &lfsError{http.StatusNotFound, fmt.Sprintf("%s is not a repository of this bottle (git.repos)", cut(r.PathValue("repository"), 200))}
	case t.id != "" && !lfsID.MatchString(t.id):
		return &lfsError{http.StatusNotFound, "that is no object's id"}
	case s.killed.On():
		return errKilled
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.stopped {
		return errStopped
	}
	t.repo = s.store.repository(name)
	s.sessions[t.session] = struct{}{}
	s.ended.Add(1)
	return nil
}

func (s *Server) leaveTransfer(each *session) {
	s.mutex.Lock()
	delete(s.sessions, each)
	s.mutex.Unlock()
	s.ended.Done()
}

func (t *lfsTransfer) touch() { t.alive.touch() }

// lfsBatch answers what may be done with objects: all bytes go by way of git-gate.
func (s *Server) lfsBatch(ctx context.Context, w http.ResponseWriter, r *http.Request, t *lfsTransfer) error {
	var asked lfsRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&asked); err != nil {
		return &lfsError{http.StatusUnprocessableEntity, "that is no request of Git LFS"}
	}
	switch {
	case asked.Operation != "download" && asked.Operation != "upload":
		return &lfsError{http.StatusUnprocessableEntity, "that is neither a download nor an upload"}
	case len(asked.Objects) > lfsBatch:
		return &lfsError{http.StatusRequestEntityTooLarge, fmt.Sprintf("more than %d objects at once", lfsBatch)}
	case asked.Hash != "" && asked.Hash != "sha256":
		return &lfsError{http.StatusConflict, "objects are named by their SHA-256 here"}
	}
	t.touch()
	answers := map[string]lfsObject{}
	if t.rule.Upstream != "" {
		var err error
		if answers, err = t.upstreams(ctx, asked); err != nil {
			return err
		}
	}
	response := lfsResponse{Transfer: "basic", Hash: "sha256", Objects: []lfsObject{}}
	for _, each := range asked.Objects {
		o := lfsObject{ID: each.ID, Size: each.Size}
		info, err := os.Stat(t.repo.lfsFile(each.ID))
		here, theirs := err == nil && info.Size() == each.Size, answers[each.ID]
		href := fmt.Sprintf("http://%s/%s.git/info/lfs/objects/%s", r.Host, t.name, each.ID)
		limit := s.policy.Load().Limits.Push
		switch {
		case !lfsID.MatchString(each.ID) || each.Size < 0:
			o.Error = &lfsError{http.StatusUnprocessableEntity, "git-gate: that is no object's id or size"}
		case asked.Operation == "download" && here:
			o.Actions = map[string]lfsAction{"download": {Href: href}}
		case theirs.Error != nil:
			o.Error = theirs.Error
		case asked.Operation == "download" && theirs.Actions["download"].Href == "":
			o.Error = &lfsError{http.StatusNotFound, "git-gate: there is no such object"}
		case asked.Operation == "download":
			o.Actions = map[string]lfsAction{"download": {Href: fmt.Sprintf("%s?size=%d", href, each.Size)}}
		case here, t.rule.Upstream != "" && theirs.Actions["upload"].Href == "":
			// It is there already.
		case each.Size > limit:
			o.Error = &lfsError{http.StatusUnprocessableEntity, fmt.Sprintf("git-gate: an object may have %s (limits.push)", size(limit))}
		default:
			o.Actions = map[string]lfsAction{"upload": {Href: href}}
		}
		response.Objects = append(response.Objects, o)
	}
	writeJSON(w, http.StatusOK, lfsType, response)
	return nil
}

// upstreams has the upstream answer a batch, by the objects' ids.
func (t *lfsTransfer) upstreams(ctx context.Context, asked lfsRequest) (map[string]lfsObject, error) {
	upstream, err := lfsOf(ctx, t.name, t.rule, asked.Operation)
	if err != nil {
		return nil, &lfsError{http.StatusNotImplemented, err.Error()}
	}
	objects, err := upstream.batch(ctx, asked.Operation, asked.Objects)
	if err != nil {
		return nil, err
	}
	answers := map[string]lfsObject{}
	for _, each := range objects {
		answers[each.ID] = each
	}
	return answers, nil
}

// lfsDownload serves an object that is here, or hands it on from the upstream.
func (s *Server) lfsDownload(ctx context.Context, w http.ResponseWriter, r *http.Request, t *lfsTransfer) error {
	file, err := os.Open(t.repo.lfsFile(t.id))
	switch {
	case err == nil:
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		return t.hand(w, file, info.Size())
	case !errors.Is(err, os.ErrNotExist):
		return err
	case t.rule.Upstream == "":
		return &lfsError{http.StatusNotFound, "there is no such object"}
	}
	var length int64
	fmt.Sscan(r.URL.Query().Get("size"), &length)
	asked := lfsRequest{Operation: "download", Objects: []lfsObject{{ID: t.id, Size: length}}}
	upstream, err := lfsOf(ctx, t.name, t.rule, "download")
	if err != nil {
		return &lfsError{http.StatusNotImplemented, err.Error()}
	}
	objects, err := upstream.batch(ctx, "download", asked.Objects)
	if err != nil {
		return err
	}
	if len(objects) != 1 || objects[0].ID != t.id || objects[0].Error != nil || objects[0].Actions["download"].Href == "" {
		return &lfsError{http.StatusNotFound, "the upstream has no such object"}
	}
	answer, err := upstream.do(ctx, http.MethodGet, objects[0].Actions["download"], nil, 0)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return t.hand(w, answer.Body, answer.ContentLength)
}

// hand gives content to the client. An unknown length is negative.
func (t *lfsTransfer) hand(w http.ResponseWriter, content io.Reader, length int64) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	if length >= 0 {
		w.Header().Set("Content-Length", fmt.Sprint(length))
	}
	t.touch()
	t.answered = true
	w.WriteHeader(http.StatusOK)
	n, err := io.Copy(struct{ io.Writer }{w}, &touching{content, t})
	t.out.Add(n)
	if err == nil && length >= 0 && n != length {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// touching keeps a transfer alive while it is read from.
type touching struct {
	io.Reader
	transfer *lfsTransfer
}

func (t *touching) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if n > 0 && t.transfer.silence() > time.Second {
		t.transfer.touch()
	}
	return n, err
}

// lfsUpload keeps an object for the push that will name it, which scans and forwards it.
func (s *Server) lfsUpload(ctx context.Context, w http.ResponseWriter, r *http.Request, t *lfsTransfer) error {
	limit := s.policy.Load().Limits.Push
	switch {
	case r.ContentLength < 0:
		return &lfsError{http.StatusLengthRequired, "an object comes with its length"}
	case r.ContentLength > limit:
		return &lfsError{http.StatusRequestEntityTooLarge, fmt.Sprintf("an object may have %s (limits.push)", size(limit))}
	}
	if !t.repo.exists() {
		if err := s.store.sync(ctx, t.repo, t.rule); err != nil {
			return err
		}
	}
	s.sweepWaiting(lfsKept)
	release, err := s.store.reserve(r.ContentLength)
	if isFull(err) {
		s.sweepWaiting(lfsKeptInNeed)
		release, err = s.store.reserve(r.ContentLength)
	}
	if err != nil {
		return err
	}
	defer release()
	defer t.repo.writing()()
	directory := filepath.Dir(t.repo.lfsFile(t.id))
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(directory, "tmp_")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	t.touch()
	digest := sha256.New()
	n, err := io.Copy(io.MultiWriter(file, digest), &touching{r.Body, t})
	t.in.Add(n)
	switch {
	case err != nil:
		return fmt.Errorf("the object did not arrive: %w", err)
	case hex.EncodeToString(digest.Sum(nil)) != t.id:
		return &lfsError{http.StatusUnprocessableEntity, "that is not what the object's id names"}
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), t.repo.lfsFile(t.id)); err != nil {
		return err
	}
	t.answered = true
	w.WriteHeader(http.StatusOK)
	return nil
}

// record takes down what came of the transfer of an object.
func (t *lfsTransfer) record(r *http.Request, err error) {
	entry := audit.Entry{
		Event: "fetch", Verdict: "allowed", Repository: t.name, Host: t.rule.Host, Port: t.rule.Port, Method: r.Method,
		Path: cut(r.URL.Path, 200), SentBytes: t.in.Load(), ReceivedBytes: t.out.Load(),
		DurationMs: time.Since(t.began).Milliseconds(),
	}
	if r.Method == http.MethodPut {
		entry.Event = "push"
	}
	if err != nil {
		entry.Verdict, entry.Reason = "refused", cut(err.Error(), 1000)
		if t.answered {
			entry.Verdict = "reset"
		}
		audit.Print("git_gate.refused", map[string]any{
			"repository": t.name, "service": "lfs", "method": r.Method, "duration_ms": entry.DurationMs, "reason": []string{entry.Reason},
		})
	}
	t.session.server.audit.Write(entry)
}

// sweepWaiting removes the objects that no push has named for a while, wherever there is an upstream.
func (s *Server) sweepWaiting(while time.Duration) {
	for name, rule := range s.repositories() {
		if rule.Upstream == "" {
			continue // They are nowhere else.
		}
		directory := filepath.Dir(s.store.repository(name).lfsFile(""))
		entries, _ := os.ReadDir(directory)
		for _, entry := range entries {
			info, err := entry.Info()
			if err == nil && time.Since(info.ModTime()) > while && lfsID.MatchString(entry.Name()) {
				os.Remove(filepath.Join(directory, entry.Name()))
			}
		}
	}
}
