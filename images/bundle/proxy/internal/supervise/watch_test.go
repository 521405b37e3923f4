package supervise

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const (
	at     = "2026-01-31T08:15:00.000250Z"
	later  = "2026-01-31T08:16:00.000000Z"
	secret = "s3cret"
)

// following is the line that a subscription begins with: one daemon, and the oneshot before it.
func following(daemon string) string {
	return fmt.Sprintf(`{"event": "following", "timestamp": %q, "status": {"phase": "up", "children": [
		{"name": "setup", "kind": "oneshot", "state": "ended", "state_ms": 5, "restarts": 0, "last_exit": null},
		{"name": "egress", "kind": "daemon", "state": "running", "health": "healthy", "state_ms": 1000, "restarts": 0, "detail": %q%s}]}}`, at, secret, daemon)
}

func event(name, more string) string {
	return fmt.Sprintf(`{"event": %q, "level": "warning", "child": "egress", "timestamp": %q%s}`, name, later, more)
}

func watching(t *testing.T, lines ...string) (*Watch, bundleStatus) {
	t.Helper()
	w := new(Watch)
	for _, line := range lines {
		if _, err := w.take([]byte(strings.ReplaceAll(line, "\n", ""))); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return w, w.status()
}

func TestThePresentStateIsToldInTimesAndOfDaemonsAlone(t *testing.T) {
	_, status := watching(t, following(`, "last_exit": {"code": 137, "signal": 9, "ago_ms": 2000, "detail": "s3cret"}`))
	got, _ := json.Marshal(status.Daemons)
	want := `[{"name":"egress","state":"running","since":"2026-01-31T08:14:59.000250Z","restarts":0,"last_exit":{"code":137,"signal":9,"timestamp":"2026-01-31T08:14:58.000250Z"}}]`
	if string(got) != want {
		t.Errorf("%s", got)
	}
	if _, status = watching(t, strings.Replace(following(""), `"healthy"`, `"unhealthy"`, 1)); status.Daemons[0].State != "unhealthy" {
		t.Errorf("a check that failed before: %v", status.Daemons[0].State)
	}
}

func TestADeathAndTheRestartAfterItAreFollowed(t *testing.T) {
	w, _ := watching(t, following(""))
	for _, step := range []struct{ event, state string }{
		{event("child_exited", `, "code": 1, "signal": 0`), "ended"}, {event("child_restarting", `, "restart": 1`), "backoff"},
		{event("child_started", `, "restart": 1`), "starting"}, {event("child_ready", ""), "running"},
		{event("child_unhealthy", ""), "unhealthy"}, {event("child_healthy", ""), "running"},
	} {
		w.take([]byte(step.event))
		if state := w.status().Daemons[0].State; state != step.state {
			t.Errorf("%s: %v", step.event, state)
		}
	}
	if restarts := w.status().Daemons[0].Restarts; restarts != 1 {
		t.Errorf("%v restarts", restarts)
	}
}

// What the agent reads: nothing that a daemon has written, and nothing that a daemon can push out.
func TestNothingThatADaemonSaysIsTold(t *testing.T) {
	lines := []string{following(""), event("child_exited", `, "code": 1, "last_lines": ["s3cret"], "reason": "s3cret", "argv": ["s3cret"], "severity": 7`)}
	for range 3 * historyMax {
		lines = append(lines, event("line_dropped", `, "line": "s3cret"`))
	}
	_, status := watching(t, lines...)
	told, _ := json.Marshal(status)
	if strings.Contains(string(told), secret) || strings.Contains(string(told), "severity") {
		t.Errorf("%s", told)
	}
	if len(status.Recent) != 1 {
		t.Errorf("%v", status.Recent)
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	lines := []string{following("")}
	for i := range 2 * historyMax {
		lines = append(lines, event("child_started", fmt.Sprintf(`, "restart": %d`, i)))
	}
	_, status := watching(t, lines...)
	if len(status.Recent) != historyMax || *status.Recent[historyMax-1].Restart != 2*historyMax-1 {
		t.Errorf("%d, %v", len(status.Recent), status.Recent[len(status.Recent)-1])
	}
}

func TestAnEndThatWasBroughtAboutDoesNotAlarm(t *testing.T) {
	_, status := watching(t, following(""), strings.Replace(event("child_exited", `, "severity": "crash"`), "warning", "info", 1))
	if status.Recent[0].Severity != "" {
		t.Error("an ending that was asked for has a severity")
	}
}

func TestWhatCannotBeKnownIsSaid(t *testing.T) {
	for lines, want := range map[string]string{
		following("") + "\n": "the init has ended the subscription",
		following("") + "\n{\"event\": \"follower_too_slow\"}\n":     "supervise was too slow to take the init's events",
		following("") + "\nnonsense\n":                               "the init said something that is not understood",
		following("") + "\n" + event("child_exited", "") + "\n[1]\n": "the init said something that is not understood",
	} {
		lines = strings.ReplaceAll(strings.ReplaceAll(lines, "\n\t\t", ""), "}\n{", "}\n{")
		client := &initClient{events: bufio.NewScanner(strings.NewReader(lines))}
		client.events.Scan()
		w := new(Watch)
		if reason := w.follow(client, nil); reason != want {
			t.Errorf("%q: %s", lines, reason)
		}
		if status := w.status(); status.Events != "unknown" || status.Reason != want {
			t.Errorf("%v", status)
		}
	}
	w := new(Watch)
	if reason := w.follow(nil, errors.New("no init")); reason != "no init" || w.status().Events != "unknown" {
		t.Error(reason)
	}
}
