package gitgate

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"bottle/proxy/internal/policy"
)

const (
	// lfsType is the media type of Git LFS' API.
	lfsType = "application/vnd.git-lfs+json"
	// lfsBatch is how many objects one request may name; git-lfs itself asks for 100.
	lfsBatch = 1000
	// lfsAnswer bounds what is read of an answer, in bytes.
	lfsAnswer = 4 << 20
	// pointerSize is the longest pointer there may be, in bytes (Git LFS' specification).
	pointerSize = 1024
)

var lfsID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// An lfsObject is one object in Git LFS' batch API, asked for or answered.
type lfsObject struct {
	ID      string               `json:"oid"`
	Size    int64                `json:"size"`
	Actions map[string]lfsAction `json:"actions,omitempty"`
	Error   *lfsError            `json:"error,omitempty"`
}

type lfsAction struct {
	Href   string            `json:"href"`
	Header map[string]string `json:"header,omitempty"`
}

type lfsError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *lfsError) Error() string { return e.Message }

type lfsRequest struct {
	Operation string      `json:"operation"`
	Transfers []string    `json:"transfers,omitempty"`
	Objects   []lfsObject `json:"objects"`
	Hash      string      `json:"hash_algo,omitempty"`
}

type lfsResponse struct {
	Transfer string      `json:"transfer"`
	Objects  []lfsObject `json:"objects"`
	Hash     string      `json:"hash_algo,omitempty"`
}

// lfsFile is where an object waits for the push that names it, or stays, in a repository without an upstream.
func (r *repository) lfsFile(id string) string { return filepath.Join(r.directory, "lfs", id) }

// parsePointer reads a file's content as a pointer to an object.
func parsePointer(content []byte) (lfsObject, bool) {
	var o lfsObject
	lines := bufio.NewScanner(bytes.NewReader(content))
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "version https://") || !strings.HasSuffix(lines.Text(), "/spec/v1") {
		return o, false
	}
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		switch key {
		case "oid":
			o.ID, _ = strings.CutPrefix(value, "sha256:")
		case "size":
			o.Size, _ = strconv.ParseInt(value, 10, 64)
		}
	}
	return o, lfsID.MatchString(o.ID)
}

// An lfsUpstream is the Git LFS server of a repository's upstream, reached through egress.
type lfsUpstream struct {
	client *http.Client
	base   string
	header map[string]string
}

// errNoLFS is why an upstream can have no Git LFS.
var errNoLFS = errors.New("Git LFS needs an upstream that is reached by https, http or ssh")

// lfsOf finds the upstream's server: below the repository's URL, or where its ssh server says (git-lfs-authenticate).
func lfsOf(ctx context.Context, name string, rule policy.Repository, operation string) (*lfsUpstream, error) {
	upstream := &lfsUpstream{}
	switch rule.Scheme {
	case "https", "http":
		upstream.base = strings.TrimSuffix(strings.TrimSuffix(rule.Upstream, "/"), ".git") + ".git/info/lfs"
	case "ssh":
		if err := upstream.authenticate(ctx, name, rule, operation); err != nil {
			return nil, err
		}
	default:
		return nil, errNoLFS
	}
	roots := x509.NewCertPool()
	if pem, err := os.ReadFile(egressCA()); err == nil {
		roots.AppendCertsFromPEM(pem)
	}
	upstream.client = &http.Client{
		Transport: &http.Transport{
			Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", egressPort)}),
			TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true, ResponseHeaderTimeout: stall,
		},
		// Where the upstream is, the policy says, and not the upstream.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return upstream, nil
}

// authenticate asks an ssh server where its Git LFS server is.
func (u *lfsUpstream) authenticate(ctx context.Context, name string, rule policy.Repository, operation string) error {
	// The two forms of an ssh upstream; sidecars/policy/upstreams.py lets no other pass, and no quote in either.
	host, path := rule.Upstream, ""
	if rest, isURL := strings.CutPrefix(rule.Upstream, "ssh://"); isURL {
		host, path, _ = strings.Cut(rest, "/")
		host = strings.TrimSuffix(host, ":"+strconv.Itoa(rule.Port))
	} else {
		host, path, _ = strings.Cut(rule.Upstream, ":")
	}
	command := fmt.Sprintf("exec %s -p %d -- %s \"git-lfs-authenticate '%s' %s\"", sshCommand(name), rule.Port, host, path, operation)
	if strings.ContainsAny(host+path, "'\"\\$`\n") {
		return fmt.Errorf("%s: Git LFS can't be asked about a path with quotes", rule.Upstream)
	}
	said, err := output(ctx, exec.CommandContext(ctx, "sh", "-c", command), stall)
	if err != nil {
		return fromUpstream(err)
	}
	var answer lfsAction
	if err := json.Unmarshal(said, &answer); err != nil || answer.Href == "" {
		return errors.New("git-lfs-authenticate gave no address")
	}
	u.base, u.header = strings.TrimSuffix(answer.Href, "/"), answer.Header
	return nil
}

// batch asks for what may be done with objects. It fails with the upstream's words.
func (u *lfsUpstream) batch(ctx context.Context, operation string, objects []lfsObject) ([]lfsObject, error) {
	question := lfsRequest{Operation: operation, Transfers: []string{"basic"}, Hash: "sha256"}
	for _, each := range objects {
		question.Objects = append(question.Objects, lfsObject{ID: each.ID, Size: each.Size})
	}
	body, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	header := map[string]string{"Accept": lfsType, "Content-Type": lfsType}
	for key, value := range u.header {
		header[key] = value
	}
	answered, err := u.do(ctx, http.MethodPost, lfsAction{u.base + "/objects/batch", header}, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return nil, err
	}
	defer answered.Body.Close()
	var answer lfsResponse
	if err := json.NewDecoder(io.LimitReader(answered.Body, lfsAnswer)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("the upstream's Git LFS server: %w", err)
	}
	if answer.Transfer != "" && answer.Transfer != "basic" {
		return nil, fmt.Errorf("the upstream's Git LFS server wants the transfer %q", cut(answer.Transfer, 40))
	}
	return answer.Objects, nil
}

// do makes a request. It fails, with the server's words, for each answer that is not good.
func (u *lfsUpstream) do(ctx context.Context, method string, action lfsAction, body io.Reader, length int64) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, action.Href, body)
	if err != nil {
		return nil, err
	}
	for key, value := range action.Header {
		// How a body is framed is not the upstream's to say.
		if !strings.EqualFold(key, "Transfer-Encoding") && !strings.EqualFold(key, "Content-Length") && !strings.EqualFold(key, "Host") {
			request.Header.Set(key, value)
		}
	}
	request.Header.Set("User-Agent", "git-lfs/3")
	request.ContentLength = length
	answer, err := u.client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // Without the URL: it may be signed.
		}
		return nil, fmt.Errorf("the upstream's Git LFS server: %w", err)
	}
	if answer.StatusCode/100 == 2 {
		return answer, nil
	}
	defer answer.Body.Close()
	var said struct{ Message string }
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 10_000))
	if json.Unmarshal(text, &said) != nil || said.Message == "" {
		said.Message = strings.Join(strings.Fields(string(text)), " ")
	}
	if !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain") && !strings.Contains(answer.Header.Get("Content-Type"), "json") {
		said.Message = ""
	}
	return nil, fmt.Errorf("the upstream's Git LFS server: %s", strings.TrimSpace(answer.Status+" "+cut(said.Message, 500)))
}

// upload gives an object to the upstream, unless it is there already, and has that verify it.
func (u *lfsUpstream) upload(ctx context.Context, object lfsObject, path string) error {
	if object.Error != nil {
		return object.Error
	}
	put, wanted := object.Actions["upload"]
	if !wanted {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if put.Header["Content-Type"] == "" {
		header := map[string]string{"Content-Type": "application/octet-stream"}
		for key, value := range put.Header {
			header[key] = value
		}
		put.Header = header
	}
	var body io.Reader = file
	if object.Size == 0 {
		body = http.NoBody
	}
	answer, err := u.do(ctx, http.MethodPut, put, body, object.Size)
	if err != nil {
		return err
	}
	answer.Body.Close()
	verify, wanted := object.Actions["verify"]
	if !wanted {
		return nil
	}
	said, err := json.Marshal(lfsObject{ID: object.ID, Size: object.Size})
	if err != nil {
		return err
	}
	header := map[string]string{"Accept": lfsType, "Content-Type": lfsType}
	for key, value := range verify.Header {
		header[key] = value
	}
	if answer, err = u.do(ctx, http.MethodPost, lfsAction{verify.Href, header}, bytes.NewReader(said), int64(len(said))); err == nil {
		answer.Body.Close()
	}
	return err
}
