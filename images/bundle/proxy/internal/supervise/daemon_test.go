package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bottle/proxy/internal/audit"
)

// newDaemon is one that serves nothing yet, in a directory of the test's.
func newDaemon(t *testing.T) *daemon {
	stopping, stop := context.WithCancel(context.Background())
	d := &daemon{run: t.TempDir(), watch: new(Watch), stopping: stopping}
	os.Mkdir(filepath.Join(d.run, "audit"), 0o700)
	d.policy.Store(&settings{"generation", time.Minute, []string{"sidecars"}, 200})
	d.audit = audit.Open(account, filepath.Join(d.run, "audit"))
	d.questions = newQuestions(t, filepath.Join(d.run, "questions"), 200)
	t.Cleanup(func() {
		stop()
		// What was held is withdrawn, which is written down.
		held := func(each Question) bool { return each.Kind == kindRequest }
		for changed := d.questions.next(); slices.ContainsFunc(d.questions.open(), held); changed = d.questions.next() {
			<-changed
		}
	})
	return d
}

// What the agent asks for is shown to the operator and granted as it was shown: one line of ASCII of its form.
func TestWishesHaveAFormAndAReason(t *testing.T) {
	d := newDaemon(t)
	for name, each := range map[string]struct {
		kind, reason string
		what         map[string]string
		want         string
	}{
		"a reason": {kindHost, " ", map[string]string{"host": "a.example.com"}, "the operator wants a reason"},
		"a form":   {kindHost, "x", map[string]string{"host": "a.example.com\nb"}, "is not a host"},
		"a length": {kindHost, "x", map[string]string{"host": strings.Repeat("a", fieldMax+1)}, "is not a host"},
		"methods":  {kindHost, "x", map[string]string{"host": "a.example.com", "methods": "GET\tPOST"}, "is not a methods"},
		"a name":   {kindRepository, "x", map[string]string{"name": "../x", "upstream": "https://a.example.com/x"}, "is not a name"},
		"a push":   {kindPush, "x", map[string]string{"push": "all", "repository": "demo"}, "is not a push"},
	} {
		if _, err := d.wish(each.kind, each.reason, each.what); err == nil || !strings.Contains(err.Error(), each.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(d.questions.open()) != 0 {
		t.Error("something waits")
	}
	question, err := d.wish(kindHost, "x", map[string]string{"host": " a.example.com ", "methods": ""})
	if err != nil || len(question.What) != 1 || question.What["host"] != "a.example.com" {
		t.Errorf("%v, %v", question, err)
	}
}

// Nobody but the policy's names reaches the server, no page of another origin, and no request of any size.
func TestWhoIsSentAway(t *testing.T) {
	d := newDaemon(t)
	server := httptest.NewServer(d.routes())
	defer server.Close()
	post := func(change func(*http.Request), body string) int {
		request, _ := http.NewRequest("POST", server.URL+"/mcp", strings.NewReader(body))
		request.Host = "sidecars:9100"
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Accept", "application/json, text/event-stream")
		change(request)
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		return answer.StatusCode
	}
	hello := `{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}`
	for name, each := range map[string]struct {
		change func(*http.Request)
		body   string
		want   int
	}{
		"nobody":               {func(*http.Request) {}, hello, 200},
		"another name":         {func(r *http.Request) { r.Host = "evil.example" }, hello, 421},
		"a page of another":    {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, hello, 403},
		"another page's":       {func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, hello, 403},
		"who sends very much":  {func(*http.Request) {}, hello + strings.Repeat(" ", bodyMax), 413},
		"the other protocol's": {func(r *http.Request) { r.Header.Set(versionHeader, statelessSince) }, hello + strings.Repeat(" ", bodyMax), 413},
	} {
		if status := post(each.change, each.body); status != each.want {
			t.Errorf("%s: %d, not %d", name, status, each.want)
		}
	}
	for range sessionsMax {
		post(func(*http.Request) {}, hello)
	}
	if status := post(func(*http.Request) {}, hello); status == 200 {
		t.Error("sessions have no limit")
	}
}

// askLine sends a proxy's question and returns the connection and the first line of the answer.
func askLine(t *testing.T, d *daemon, line string) (net.Conn, map[string]string) {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(d.run, "ask.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintln(conn, line)
	return conn, readLine(t, conn)
}

func readLine(t *testing.T, conn net.Conn) (answer map[string]string) {
	t.Helper()
	text, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(text), &answer)
	}
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// The proxies alone hold requests, so many at once, each by an id of its own; the operator's no comes back by the same way.
func TestProxiesHoldRequests(t *testing.T) {
	d := newDaemon(t)
	if err := d.serveAsks(filepath.Join(d.run, "ask.sock")); err != nil {
		t.Fatal(err)
	}
	held := `{"request": "%016x", "host": "a.example.com", "port": 443, "method": "POST", "path": "/", "pattern": "p", "where": "body"}`
	if _, answer := askLine(t, d, fmt.Sprintf(held, 1)); !strings.Contains(answer["error"], "holds no requests") {
		t.Errorf("who is no proxy: %v", answer)
	}
	d.askerIDs = []uint32{uint32(os.Geteuid())}
	if _, answer := askLine(t, d, strings.Replace(held, "%016x", "1", 1)); !strings.Contains(answer["error"], "is not the id of a request") {
		t.Errorf("no id: %v", answer)
	}
	conn, answer := askLine(t, d, fmt.Sprintf(held, 2))
	if err := d.questions.answer(answer["id"], "not today", true); err != nil {
		t.Fatal(err)
	}
	if refused := readLine(t, conn); refused["refused"] != "not today" {
		t.Errorf("refused: %v", refused)
	}
	conn.Close()
	var last net.Conn
	var lastID string
	for i := range heldMax {
		// A place is free a moment after its client is gone.
		for {
			if last, answer = askLine(t, d, fmt.Sprintf(held, 10+i)); answer["error"] == "" {
				break
			}
			last.Close()
			time.Sleep(time.Millisecond)
		}
		lastID = answer["id"]
	}
	if _, answer := askLine(t, d, fmt.Sprintf(held, 9)); !strings.Contains(answer["error"], "requests are held already") {
		t.Errorf("more than may be held: %v", answer)
	}
	last.Close()
	for {
		changed := d.questions.next()
		if found, _ := d.questions.get(lastID); found.State == stateWithdrawn {
			break
		}
		<-changed
	}
}

// Whoever finds the operator's socket open is still no operator, unless the kernel says so.
func TestTheOperatorIsRootOrSupervise(t *testing.T) {
	if mayOperate(0) != nil || mayOperate(uint32(os.Geteuid())) != nil {
		t.Error("the operator is sent away")
	}
	if err := mayOperate(12345); err == nil || err.Error() != "the user 12345 is not the operator" {
		t.Error(err)
	}
}

// What the kernel has to say of each thread after the change of user (proc_pid_status(5)).
func TestWhatIsLeftOfRootIsFound(t *testing.T) {
	good := "Uid:\t974\t974\t974\t974\nGid:\t974\t974\t974\t974\nGroups:\t\nNoNewPrivs:\t1\n" +
		"CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapAmb:\t0000000000000000\n"
	if err := verifyStatus(good, 974, 974); err != nil {
		t.Error(err)
	}
	for _, change := range [][2]string{
		{"Uid:\t974\t974\t974", "Uid:\t974\t974\t0"}, {"Gid:\t974", "Gid:\t0"}, {"Groups:\t", "Groups:\t0"}, {"NoNewPrivs:\t1", "NoNewPrivs:\t0"},
		{"CapInh:\t0", "CapInh:\t8"}, {"CapPrm:\t0", "CapPrm:\t8"}, {"CapEff:\t0", "CapEff:\t8"}, {"CapAmb:\t0", "CapAmb:\t8"}, {"NoNewPrivs:\t1\n", ""},
	} {
		if verifyStatus(strings.Replace(good, change[0], change[1], 1), 974, 974) == nil {
			t.Errorf("%q was not found", change[1])
		}
	}
}
