package egress

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bottle/proxy/internal/policy"
)

const openAIKey = "sk-proj-abcdefgh" + "T3BlbkFJ" + "abcdefghijklmnopqrstuvwx" // made up

// audited returns the audit's lines that have that event, once there are as many as that. An exchange is over for its client
// a moment before it is for the audit.
func (b *bench) audited(event string, count int) (entries []map[string]any) {
	b.t.Helper()
	for len(entries) < count {
		time.Sleep(time.Millisecond)
		entries = nil
		b.engine.Audit.Flush()
		text, err := os.ReadFile(filepath.Join(b.audit, "audit.jsonl"))
		check(b.t, err)
		for line := range bytes.Lines(text) {
			var entry map[string]any
			check(b.t, json.Unmarshal(line, &entry))
			if entry["event"] == event {
				entries = append(entries, entry)
			}
		}
	}
	return entries
}

// A supervise passes one question on, and answers as it is told.
type supervise struct {
	questions chan map[string]any
	say       chan string
	gone      chan struct{}
}

func (b *bench) supervise() *supervise {
	b.t.Helper()
	listener, err := net.Listen("unix", b.engine.AskSocket)
	check(b.t, err)
	b.t.Cleanup(func() { listener.Close() })
	s := &supervise{make(chan map[string]any), make(chan string, 1), make(chan struct{})}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				lines := bufio.NewReader(conn)
				line, _ := lines.ReadBytes('\n')
				var question map[string]any
				json.Unmarshal(line, &question)
				io.WriteString(conn, "{\"id\": \"1\"}\n")
				s.questions <- question
				go func() { io.WriteString(conn, <-s.say) }()
				lines.ReadByte()
				s.gone <- struct{}{}
			}()
		}
	}()
	return s
}

// approved is the policy with an approval of the request that the question is about.
func approved(question map[string]any) map[string]any {
	compiled := standard()
	request := map[string]any{}
	for _, key := range []string{"request", "host", "port", "method", "path", "pattern"} {
		request[key] = question[key]
	}
	compiled["approvals"] = []map[string]any{{"id": "a", "kind": "request", "until": 9e12, "request": request}}
	return compiled
}

// A request to a host of `ask` waits as a whole; the operator is told of every secret in it and of none's text, and what
// was let go leaves as it came.
func TestTheOperatorIsAsked(t *testing.T) {
	for _, encoded := range []bool{false, true} {
		t.Run(fmt.Sprintf("encoded %t", encoded), func(t *testing.T) {
			b := newBench(t, standard())
			s := b.supervise()
			body, header := token+" and "+openAIKey, []string{"X-Note", base64.StdEncoding.EncodeToString([]byte(token))}
			if encoded {
				var buffer bytes.Buffer
				w := zlib.NewWriter(&buffer)
				io.WriteString(w, body)
				w.Close()
				body, header = buffer.String(), append(header, "Content-Encoding", "deflate")
			}
			got := make(chan string)
			b.origin = func(w http.ResponseWriter, r *http.Request) {
				text, _ := io.ReadAll(r.Body)
				w.Write([]byte("let go"))
				go func() { got <- r.RequestURI + r.Header.Get("X-Note") + string(text) }()
			}
			compiled := standard()
			compiled["pipelock"].(map[string]any)["patterns"] = append(compiled["pipelock"].(map[string]any)["patterns"].([]map[string]any), map[string]any{"name": "openai-api-key", "regex": `sk-[A-Za-z0-9_-]{1,200}T3BlbkFJ[A-Za-z0-9_-]{20,}`})
			b.use(compiled)
			answer := make(chan string)
			go func() {
				status, text := b.get("agent", "POST", "https://ask.test/x?a=1", strings.NewReader(body), header...)
				answer <- fmt.Sprint(status, text)
			}()
			question := <-s.questions
			if fmt.Sprint(question["pattern"]) != "github-token behind an encoding, github-token, openai-api-key" && fmt.Sprint(question["pattern"]) != "github-token in base64, github-token behind an encoding, github-token, openai-api-key" {
				t.Errorf("asked about %v", question["pattern"])
			}
			if question["host"] != "ask.test" || question["path"] != "/x" || strings.Contains(fmt.Sprint(question), token) || !strings.Contains(fmt.Sprint(question["where"]), "the body") {
				t.Errorf("the question is %v", question)
			}
			granted := approved(question)
			granted["pipelock"] = compiled["pipelock"]
			b.use(granted)
			if said := <-answer; said != "200let go" {
				t.Errorf("the agent got %s", said)
			}
			if seen := <-got; seen != "/x?a=1"+header[1]+body {
				t.Errorf("the origin got %q", seen)
			}
			<-s.gone
			if len(b.audited("question", 1)) != 1 || len(b.audited("approval", 1)) != 1 {
				t.Errorf("audited %v %v", b.audited("question", 1), b.audited("approval", 1))
			}
		})
	}
}

// An approval is for one request, and for what it was asked about.
func TestAnApprovalIsForOneRequest(t *testing.T) {
	for _, other := range []string{"request", "host", "path", "method", "pattern"} {
		t.Run(other, func(t *testing.T) {
			b := newBench(t, standard())
			s := b.supervise()
			answer := make(chan string)
			go func() {
				_, text := b.get("agent", "POST", "https://ask.test/x", strings.NewReader(token))
				answer <- text
			}()
			question := <-s.questions
			question[other] = "0123456789abcdef"
			b.use(approved(question))
			s.say <- "{\"refused\": \"not this one\"}\n"
			if text := <-answer; !strings.Contains(text, "the operator said no: not this one") {
				t.Errorf("%q", text)
			}
			<-s.gone
			if seen := b.saw(); len(seen) != 0 {
				t.Errorf("the origin saw %v", seen)
			}
		})
	}
}

// What pipelock was allowed to let go once passes egress once, without a second question, and a like request is asked about.
func TestWhatPipelockLetGoIsNotAskedAboutAgain(t *testing.T) {
	b := newBench(t, standard())
	s := b.supervise()
	b.use(approved(map[string]any{"request": "pipelocks-own-id", "host": "ask.test", "port": 443, "method": "POST", "path": "/x", "pattern": "github-token, other"}))
	if status, text := b.get("agent", "POST", "https://ask.test/x", strings.NewReader(token)); status != 200 {
		t.Errorf("%d %q", status, text)
	}
	changes := map[string]any{"host": "plain.test", "path": "/y", "method": "PUT", "port": 80, "pattern": "other"}
	for _, name := range []string{"time", "host", "path", "method", "port", "pattern"} {
		if change := changes[name]; change != nil {
			granted := map[string]any{"request": "another-id-" + name, "host": "ask.test", "port": 443, "method": "POST", "path": "/x", "pattern": "github-token, other"}
			granted[name] = change
			b.use(approved(granted))
		}
		s.say <- "{\"refused\": \"once was enough\"}\n"
		answer := make(chan string)
		go func() {
			_, text := b.get("agent", "POST", "https://ask.test/x", strings.NewReader(token))
			answer <- text
		}()
		select {
		case text := <-answer:
			t.Fatalf("another %s was not asked about: %q", name, text)
		case <-s.questions:
			if text := <-answer; !strings.Contains(text, "once was enough") {
				t.Errorf("%q", text)
			}
			<-s.gone
		}
	}
}

// egress may learn of the approval after pipelock has acted on it. Held by letGoBefore.
func TestAnApprovalMayComeAMomentLater(t *testing.T) {
	b := newBench(t, standard())
	b.engine.Lag = time.Hour
	answer := make(chan int)
	go func() {
		status, _ := b.get("agent", "POST", "https://ask.test/x", strings.NewReader(token))
		answer <- status
	}()
	for b.engine.Live.Exchanges() == 0 {
		time.Sleep(time.Millisecond)
	}
	b.use(approved(map[string]any{"request": "pipelocks-own-id", "host": "ask.test", "port": 443, "method": "POST", "path": "/x", "pattern": "github-token"}))
	if status := <-answer; status != 200 {
		t.Error(status)
	}
}

// A question ends with its client.
func TestAQuestionEndsWithItsClient(t *testing.T) {
	b := newBench(t, standard())
	s := b.supervise()
	conn, err := net.Dial("tcp", b.addresses[policy.Agent])
	check(t, err)
	fmt.Fprintf(conn, "POST http://ask.test/ HTTP/1.1\r\nHost: ask.test\r\nContent-Length: %d\r\n\r\n%s", len(token), token)
	<-s.questions
	conn.Close()
	<-s.gone
}

// The kill switch ends what is held for the operator, and an approval afterwards changes nothing.
func TestTheKillSwitchEndsWhatIsHeld(t *testing.T) {
	b := newBench(t, standard())
	s := b.supervise()
	answer := make(chan int)
	go func() {
		status, _ := b.get("agent", "POST", "https://ask.test/", strings.NewReader(token))
		answer <- status
	}()
	question := <-s.questions
	check(t, os.WriteFile(b.switches, nil, 0o600))
	<-s.gone
	b.use(approved(question))
	if status := <-answer; status == 200 {
		t.Error("it was let go")
	}
	if seen := b.saw(); len(seen) != 0 {
		t.Errorf("the origin saw %v", seen)
	}
}

func TestWhereNobodyCanBeAskedTheRequestIsRefused(t *testing.T) {
	b := newBench(t, standard())
	if status, text := b.get("agent", "POST", "https://ask.test/", strings.NewReader(token)); status != 403 || !strings.Contains(text, "the operator can't be asked") {
		t.Errorf("%d %q", status, text)
	}
}

// Decoders pass over what follows the end of their stream; an origin may not.
func TestWhatFollowsAnEncodedBodyIsLookedThrough(t *testing.T) {
	b := newBench(t, standard())
	var buffer bytes.Buffer
	w := zlib.NewWriter(&buffer)
	io.WriteString(w, "harmless")
	w.Close()
	if status, text := b.get("agent", "POST", "https://plain.test/", strings.NewReader(buffer.String()), "Content-Encoding", "deflate"); status != 200 {
		t.Errorf("%d %q", status, text)
	}
	buffer.WriteString(token)
	if status, text := b.get("agent", "POST", "https://plain.test/", strings.NewReader(buffer.String()), "Content-Encoding", "deflate"); status != 403 || !strings.Contains(text, "github-token") {
		t.Errorf("%d %q", status, text)
	}
}

// Every part of a request is looked through (W14): what a client has no hand in is nowhere.
func TestSecretsAreFoundInEveryPart(t *testing.T) {
	compiled := standard()
	hosts := compiled["egress"].(map[string]any)["hosts"].([]map[string]any)
	compiled["egress"].(map[string]any)["hosts"] = append(hosts, host("wild.test", "wildcard", true), host("verbs.test", "methods", []string{"ACME-123456"}))
	compiled["pipelock"] = map[string]any{"patterns": []map[string]any{{"name": "staff-id", "regex": "(?i)ACME-[0-9]{6}"}}}
	b := newBench(t, compiled)
	for name, text := range map[string]string{
		"the method":       "ACME-123456 http://verbs.test/ HTTP/1.1\r\nHost: verbs.test\r\nConnection: close\r\n\r\n",
		"the host name":    "GET http://acme-123456.wild.test/ HTTP/1.1\r\nHost: acme-123456.wild.test\r\nConnection: close\r\n\r\n",
		"the URL":          "GET http://plain.test/ACME-123456 HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n",
		"a header's name":  "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nX-ACME-123456: 1\r\nConnection: close\r\n\r\n",
		"the header":       "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nX-Note: xACME-123456\r\nConnection: close\r\n\r\n",
		"the body":         "POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 11\r\nConnection: close\r\n\r\nACME-123456",
		"a trailer":        "POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Note\r\nConnection: close\r\n\r\n0\r\nX-Note: ACME-123456\r\n\r\n",
		"a trailer's, too": "POST http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\nX-ACME-123456: 1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			answer := b.write(policy.Agent, text)
			part, _, _ := strings.Cut(name, "'s, too")
			if !strings.HasPrefix(answer, "HTTP/1.1 403 egress: "+part) || !strings.Contains(answer, "staff-id") {
				t.Errorf("%q", answer)
			}
			for _, seen := range b.saw() {
				if strings.Contains(seen, "err=<nil>") {
					t.Errorf("the origin saw %s", seen)
				}
			}
		})
	}
}

// Messages of gRPC that are compressed can't be looked into, whether the head says so or the message does.
func TestCompressedMessagesOfGRPCAreRefused(t *testing.T) {
	b := newBench(t, standard())
	message := func(compressed byte) *strings.Reader {
		return strings.NewReader(string([]byte{compressed, 0, 0, 0, 2, 'h', 'i'}))
	}
	for _, row := range []struct {
		body    *strings.Reader
		coding  string
		refused bool
	}{{message(0), "identity", false}, {message(1), "", true}, {message(0), "gzip", true}} {
		request, err := http.NewRequest("POST", "https://plain.test/x.Y/Z", struct{ io.Reader }{row.body})
		check(t, err)
		request.Header.Set("Content-Type", "application/grpc")
		if row.coding != "" {
			request.Header.Set("Grpc-Encoding", row.coding)
		}
		answer, err := b.client(policy.Agent, true).Do(request)
		check(t, err)
		if said := answer.Header.Get("Grpc-Message"); strings.Contains(said, "can't be looked into") != row.refused {
			t.Errorf("%v: %s %q", row, answer.Status, said)
		}
	}
}

// A pattern that asterisks match as well is taken out once.
func TestTakingOutComesToAnEnd(t *testing.T) {
	compiled := standard()
	compiled["pipelock"] = map[string]any{"patterns": []map[string]any{{"name": "long", "regex": `[^ ]{40}`}}}
	b := newBench(t, compiled)
	status, text := b.get("agent", "POST", "https://redact.test/", strings.NewReader(strings.Repeat("x", 80)+" short"))
	if status != 200 || !strings.HasSuffix(text, strings.Repeat("*", 80)+" short") {
		t.Errorf("%d %q", status, text)
	}
}

// What the audit knows of a request: who asked, which rule, which credential, what was taken out, how many bytes.
func TestTheAudit(t *testing.T) {
	b := newBench(t, standard())
	b.get("agent", "POST", "https://origin.test/path?q=not-in-the-audit", strings.NewReader("12345"))
	b.get("agent", "POST", "https://redact.test/"+token, strings.NewReader(token))
	b.get("agent", "GET", "https://denied.test/", nil)
	b.get("git", "GET", "https://git.test/team/demo.git/info/refs", nil)
	entries := append(b.audited("request", 3), b.audited("connect", 1)...)
	// A line is written when its answer is over, which the next request may overtake.
	slices.SortFunc(entries, func(a, b map[string]any) int { return strings.Compare(fmt.Sprint(a["host"]), fmt.Sprint(b["host"])) })
	want := []string{
		"refused agent <nil> denied.test 443 <nil> <nil> <nil> <nil> 403",
		"allowed git GET git.test 443 /team/demo.git/info/refs test git.test <nil> <nil> 200",
		"allowed agent POST origin.test 443 /path test origin.test token token 200",
		"redacted agent POST redact.test 443 /" + strings.Repeat("*", len(token)) + " test redact.test <nil> github-token 200",
	}
	for i, e := range entries {
		got := fmt.Sprint(e["verdict"], " ", e["consumer"], " ", e["method"], " ", e["host"], " ", e["port"], " ", e["path"], " ", e["rule"], " ", e["credential"], " ", e["blotted"], " ", e["status"])
		if i >= len(want) || got != want[i] {
			t.Errorf("%s", got)
		}
	}
	if len(entries) != len(want) || entries[2]["sent_bytes"] != 5.0 || entries[2]["received_bytes"] == 0.0 {
		t.Errorf("%v", entries)
	}
	if text := fmt.Sprint(entries); strings.Contains(text, token) || strings.Contains(text, "must-not-see") || strings.Contains(text, "not-in-the-audit") {
		t.Errorf("the audit holds what it must not: %s", text)
	}
}
