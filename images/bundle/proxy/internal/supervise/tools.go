package supervise

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	instructions = "Ask the operator before you do something that the task does not clearly permit. " +
		"Ask for what you are refused: request_host for a host, request_repository for a repository, release_push and release_request for what was taken for a secret and is none. " +
		"An answer of the form pending:ID means that the operator has not answered yet: go on with other work, and look later with get_answer. " +
		"If a request or a push fails for no reason that you know, bundle_status tells whether a daemon died or restarts."

	// statelessSince is the protocol version that has no sessions any more.
	statelessSince = "2026-07-28"
	versionHeader  = "Mcp-Protocol-Version"
	sessionHeader  = "Mcp-Session-Id"

	sessionsMax     = 64
	sessionIdle     = 30 * time.Minute
	bodyMax         = 256 << 10 // bytes
	progressEach    = 10 * time.Second
	fieldMax        = 1_000 // characters of a host, a URL, an id
	eveningOutDrift = time.Second
)

// errStopping is what a call is told whose question outlives this daemon.
var errStopping = errors.New("the bundle is stopping")

type askInput struct {
	Question string `json:"question" jsonschema:"what the operator should decide or tell you"`
}

type answerInput struct {
	QuestionID string `json:"question_id" jsonschema:"the pending:ID that an earlier call returned"`
}

type hostInput struct {
	Host    string `json:"host" jsonschema:"the host, with :PORT where that is neither 80 nor 443"`
	Reason  string `json:"reason" jsonschema:"what you need it for"`
	Methods string `json:"methods,omitempty" jsonschema:"the methods you need, separated by blanks; all if left out"`
	Paths   string `json:"paths,omitempty" jsonschema:"the path prefixes you need, separated by blanks; all if left out"`
}

type repositoryInput struct {
	Name     string `json:"name" jsonschema:"the name under which git-gate should serve it"`
	Upstream string `json:"upstream" jsonschema:"its URL"`
	Reason   string `json:"reason" jsonschema:"what you need it for"`
}

type pushInput struct {
	Push       string `json:"push" jsonschema:"the id that git-gate printed when it refused the push"`
	Repository string `json:"repository" jsonschema:"the repository that was pushed to"`
	Reason     string `json:"reason" jsonschema:"why what was found is no secret, or may leave"`
}

type requestInput struct {
	Request string `json:"request" jsonschema:"the id of the held request, from held_requests"`
	Reason  string `json:"reason" jsonschema:"why what was found is no secret, or may leave"`
}

type heldOutput struct {
	Requests []map[string]string `json:"requests"`
}

// server makes the MCP server with its tools.
func (d *daemon) server() *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "bottle-supervise", Version: version}, &mcp.ServerOptions{
		Instructions: instructions, Capabilities: &mcp.ServerCapabilities{Tools: &mcp.ToolCapabilities{}},
	})
	add(d, server, "ask_operator", "Ask the operator a question. Returns the answer, or `pending:ID` if none came in time.",
		func(in askInput) (*Question, error) { return d.questions.ask(kindQuestion, in.Question, nil, "") })
	add(d, server, "request_host", "Ask the operator to allow a host for a while. Returns the answer, or `pending:ID` if none came in time.",
		func(in hostInput) (*Question, error) {
			return d.wish(kindHost, in.Reason, map[string]string{"host": in.Host, "methods": in.Methods, "paths": in.Paths})
		})
	add(d, server, "request_repository", "Ask the operator to let git-gate serve a repository for a while. Returns the answer, or `pending:ID` if none came in time.",
		func(in repositoryInput) (*Question, error) {
			return d.wish(kindRepository, in.Reason, map[string]string{"name": in.Name, "upstream": in.Upstream})
		})
	add(d, server, "release_push", "Ask the operator to let a push through that git-gate has refused; push again once that is granted. Returns the answer, or `pending:ID` if none came in time.",
		func(in pushInput) (*Question, error) {
			return d.wish(kindPush, in.Reason, map[string]string{"push": in.Push, "repository": in.Repository})
		})
	add(d, server, "release_request", "Tell the operator why a request that is held for him should be let go. Returns the answer, or `pending:ID` if none came in time.",
		func(in requestInput) (*Question, error) {
			held, err := d.held(in.Request)
			if err == nil {
				err = d.questions.explain(held.ID, in.Reason)
			}
			return held, err
		})
	mcp.AddTool(server, &mcp.Tool{Name: "held_requests", Description: "The requests of yours that are held until the operator has decided about them."},
		func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, heldOutput, error) {
			held := heldOutput{Requests: []map[string]string{}}
			for _, question := range d.questions.open() {
				if question.Kind == kindRequest {
					held.Requests = append(held.Requests, question.What)
				}
			}
			return nil, held, nil
		})
	mcp.AddTool(server, &mcp.Tool{Name: "get_answer", Description: "The answer to an earlier question, waited for again; `pending:ID` if there still is none."},
		func(ctx context.Context, request *mcp.CallToolRequest, in answerInput) (*mcp.CallToolResult, any, error) {
			question, err := d.questions.get(in.QuestionID)
			if err == nil && question.Kind == kindRequest {
				err = fmt.Errorf("%s is about a held request, whose answer is the request's own", question.ID)
			}
			if err != nil {
				return nil, nil, err
			}
			return d.await(ctx, request, question.ID)
		})
	mcp.AddTool(server, &mcp.Tool{Name: "bundle_status", Description: "The state of each daemon between you and the network, and their recent deaths and restarts, oldest first. " +
		"A child_exited of level info was meant to be: somebody asked for a restart, or the bundle stops. events is unknown where the news stopped coming; what is told then is as of unknown_since."},
		func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, bundleStatus, error) {
			return nil, d.watch.status(), nil
		})
	return server
}

// add adds a tool that asks the operator and waits for the answer. Who is gone before there is one has withdrawn it.
func add[In any](d *daemon, server *mcp.Server, name, description string, ask func(In) (*Question, error)) {
	mcp.AddTool(server, &mcp.Tool{Name: name, Description: description},
		func(ctx context.Context, request *mcp.CallToolRequest, in In) (*mcp.CallToolResult, any, error) {
			question, err := ask(in)
			if err != nil {
				return nil, nil, err
			}
			result, out, err := d.await(ctx, request, question.ID)
			if ctx.Err() != nil && question.Kind != kindRequest {
				d.questions.withdraw(question.ID, "whoever asked is gone")
			}
			return result, out, err
		})
}

var (
	hostForm  = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9._-]+(:[0-9]{1,5})?$|^\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?$`)
	nameForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	wordsForm = regexp.MustCompile(`^[!-~]*( [!-~]+)*$`)
	forms     = map[string]*regexp.Regexp{
		"host": hostForm, "methods": wordsForm, "paths": wordsForm, "name": nameForm, "upstream": regexp.MustCompile(`^[!-~]+$`),
		"push": idExactly, "repository": nameForm,
	}
	idExactly = regexp.MustCompile(`^[0-9a-f]{16}$`)
)

// wish asks for something that the operator's command can grant. What it is has to be one line of ASCII: it is shown to
// the operator, and granted as it was shown.
func (d *daemon) wish(kind, reason string, what map[string]string) (*Question, error) {
	if strings.TrimSpace(reason) == "" {
		return nil, errors.New("the operator wants a reason")
	}
	for key, value := range what {
		value = strings.TrimSpace(value)
		if what[key] = value; len(value) > fieldMax || !forms[key].MatchString(value) {
			return nil, fmt.Errorf("%q is not a %s", cut(value, 60), key)
		}
		if value == "" {
			delete(what, key)
		}
	}
	text := map[string]string{
		kindHost:       "allow the host " + what["host"],
		kindRepository: "serve the repository " + what["name"] + " from " + what["upstream"],
		kindPush:       "let the refused push " + what["push"] + " to " + what["repository"] + " through",
	}[kind]
	return d.questions.ask(kind, text, what, reason)
}

// held finds what waits by the id of its request or of its question.
func (d *daemon) held(id string) (*Question, error) {
	for _, question := range d.questions.open() {
		if question.Kind == kindRequest && (question.What["request"] == id || question.ID == id) {
			return &question, nil
		}
	}
	return nil, fmt.Errorf("no request %q is held", cut(id, 60))
}

// await waits for the operator as long as the policy says, and tells the client every now and then that it does.
func (d *daemon) await(ctx context.Context, request *mcp.CallToolRequest, id string) (*mcp.CallToolResult, any, error) {
	timeout := d.settings().answerTimeout
	waiting, cancel := context.WithTimeoutCause(ctx, timeout, context.DeadlineExceeded)
	defer cancel()
	release := context.AfterFunc(d.stopping, cancel)
	defer release()
	go d.progress(waiting, request, timeout)
	question, err := d.questions.wait(waiting, id)
	switch {
	case err != nil:
		return nil, nil, err
	case question.State == stateAnswered:
		return text(question.Answer), nil, nil
	case question.State == stateRefused:
		return text(strings.TrimSpace("The operator has refused. " + question.Answer)), nil, nil
	case question.State == stateWithdrawn:
		return nil, nil, fmt.Errorf("the question has been withdrawn: %s", question.Answer)
	case question.State == stateExpired:
		return nil, nil, errors.New("the question has expired: nobody waited for its answer. Ask again")
	case d.stopping.Err() != nil:
		return nil, nil, fmt.Errorf("%w; the question is kept: pending:%s", errStopping, id)
	}
	return text("pending:" + id), nil, nil
}

func text(words string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: words}}}
}

// progress keeps clients from giving up that count the time without news.
func (d *daemon) progress(ctx context.Context, request *mcp.CallToolRequest, timeout time.Duration) {
	token := request.Params.GetProgressToken()
	if token == nil {
		return
	}
	began := time.Now()
	ticker := time.NewTicker(min(progressEach, max(timeout/4, eveningOutDrift)))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			request.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
				ProgressToken: token, Progress: time.Since(began).Seconds(), Total: timeout.Seconds(), Message: "waiting for the operator",
			})
		}
	}
}

// handler serves both generations of the protocol: with sessions until 2025-11-25, and without any since.
func (d *daemon) handler() http.Handler {
	server := d.server()
	common := mcp.StreamableHTTPOptions{DisableLocalhostProtection: true, MaxRequestBodyBytes: bodyMax}
	stateless, stateful := common, common
	stateless.Stateless, stateless.PropagateRequestCancellation = true, true
	stateful.SessionTimeout = sessionIdle
	without := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &stateless)
	with := mcp.NewStreamableHTTPHandler(func(request *http.Request) *mcp.Server {
		if request.Header.Get(sessionHeader) == "" && sessions(server) >= sessionsMax {
			return nil
		}
		return server
	}, &stateful)
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.Header.Get(versionHeader) >= statelessSince {
			without.ServeHTTP(w, request)
		} else {
			with.ServeHTTP(w, request)
		}
	})
}

func sessions(server *mcp.Server) int {
	count := 0
	for range server.Sessions() {
		count++
	}
	return count
}
