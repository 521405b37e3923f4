package supervise

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"
)

// historyMax is how many events are kept.
const historyMax = 100

// stateAfter is the state in which a daemon is after an event, in the words of `bottle-init status`.
var stateAfter = map[string]string{
	"child_started":    "starting",
	"child_ready":      "running",
	"child_healthy":    "running",
	"child_unhealthy":  "unhealthy",
	"child_exited":     "ended",
	"fork_failed":      "ended",
	"child_restarting": "backoff",
}

// kept are the other events that are kept. What a daemon can cause at will (a dropped line, a notification) must not
// push them out.
var kept = []string{"ordered", "not_ready", "timed_out", "child_killed", "child_reaped_late", "gave_up", "stopping"}

// An Event is what is kept of an event: what the init itself made, and nothing that a daemon has written.
type Event struct {
	Timestamp string `json:"timestamp"`
	Event     string `json:"event"`
	Level     string `json:"level,omitempty"`
	Child     string `json:"child,omitempty"`
	Order     string `json:"order,omitempty"`
	Code      *int   `json:"code,omitempty"`
	Signal    *int   `json:"signal,omitempty"`
	Severity  string `json:"severity,omitempty"`
	OOM       *bool  `json:"oom,omitempty"`
	Restart   *int   `json:"restart,omitempty"`
}

// An Exit is how a daemon's last process has ended.
type Exit struct {
	Code      *int   `json:"code"`
	Signal    *int   `json:"signal"`
	Timestamp string `json:"timestamp"`
}

// A Daemon is one of the bundle's daemons.
type Daemon struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	Since    string `json:"since"`
	Restarts int    `json:"restarts"`
	LastExit *Exit  `json:"last_exit"`
}

// A Watch is the bundle as the init tells of it. It holds names, codes, numbers and times that the init made: the agent
// reads it, and no daemon's last lines, command lines or reasons of checks are any of its business.
type Watch struct {
	mutex    sync.Mutex
	since    string
	lost     *lost
	stopping bool
	daemons  []Daemon
	history  []Event
}

// lost is since when nothing is known any more, and why.
type lost struct{ since, reason string }

// A bundleStatus is what the agent and the operator get. Every field has a type of its own, as some clients refuse a
// tool whose schema leaves one open.
type bundleStatus struct {
	Events         string   `json:"events" jsonschema:"following, or unknown: everything else is then as of unknown_since"`
	FollowingSince string   `json:"following_since,omitempty"`
	UnknownSince   string   `json:"unknown_since,omitempty"`
	Reason         string   `json:"reason,omitempty"`
	Stopping       bool     `json:"stopping"`
	Daemons        []Daemon `json:"daemons"`
	Recent         []Event  `json:"recent"`
}

// follow takes lines until there are no more, and returns why the rest is not known. The first line is there already.
func (w *Watch) follow(client *initClient, problem error) string {
	reason := "the init has ended the subscription"
	switch {
	case problem != nil:
		reason = problem.Error()
	default:
		for more := true; more; more = client.events.Scan() {
			event, err := w.take(client.events.Bytes())
			if err != nil {
				reason = "the init said something that is not understood"
				break
			}
			if event == "follower_too_slow" {
				reason = "supervise was too slow to take the init's events"
			}
		}
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.lost = &lost{iso(time.Now()), reason}
	return reason
}

// take is told one event, and returns its name.
func (w *Watch) take(line []byte) (string, error) {
	var event Event
	// A field that is not what it should be is a daemon's, or an init's that this one does not know: it is left out.
	var unfit *json.UnmarshalTypeError
	if err := json.Unmarshal(line, &event); err != nil && !errors.As(err, &unfit) {
		return "", err
	}
	if event.Event == "" {
		return "", errors.New("an event without a name")
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if event.Event == "following" {
		return event.Event, w.begin(line)
	}
	if _, known := stateAfter[event.Event]; known || slices.Contains(kept, event.Event) {
		if event.Level == "info" {
			// An ending that was brought about is put to no policy, so its severity would only alarm.
			event.Severity = ""
		}
		w.history = append(w.history, event)
		if len(w.history) > historyMax {
			w.history = w.history[1:]
		}
		w.apply(event)
	}
	return event.Event, nil
}

func (w *Watch) apply(event Event) {
	if event.Event == "stopping" {
		w.stopping = true
	}
	for i := range w.daemons {
		daemon := &w.daemons[i]
		if daemon.Name != event.Child {
			continue
		}
		if state, known := stateAfter[event.Event]; known {
			daemon.State, daemon.Since = state, event.Timestamp
		}
		switch event.Event {
		case "child_exited":
			daemon.LastExit = &Exit{event.Code, event.Signal, event.Timestamp}
		case "child_started":
			daemon.Restarts = 0
			if event.Restart != nil {
				daemon.Restarts = *event.Restart
			}
		}
	}
}

// begin reads the first line: what it says in ages is told in times.
func (w *Watch) begin(line []byte) error {
	var first struct {
		Timestamp time.Time
		Status    struct {
			Phase    string
			Children []struct {
				Name, Kind, State, Health string
				StateMs                   int64 `json:"state_ms"`
				Restarts                  int
				LastExit                  *struct {
					Code, Signal *int
					AgoMs        int64 `json:"ago_ms"`
				} `json:"last_exit"`
			}
		}
	}
	if err := json.Unmarshal(line, &first); err != nil {
		return err
	}
	before := func(ms int64) string { return iso(first.Timestamp.Add(-time.Duration(ms) * time.Millisecond)) }
	w.since, w.stopping, w.daemons = before(0), first.Status.Phase != "up", nil
	for _, child := range first.Status.Children {
		if child.Kind != "daemon" {
			continue
		}
		daemon := Daemon{Name: child.Name, State: child.State, Since: before(child.StateMs), Restarts: child.Restarts}
		if child.State == "running" && child.Health == "unhealthy" {
			daemon.State = "unhealthy"
		}
		if last := child.LastExit; last != nil {
			daemon.LastExit = &Exit{last.Code, last.Signal, before(last.AgoMs)}
		}
		w.daemons = append(w.daemons, daemon)
	}
	return nil
}

// status is a copy of all that is known.
func (w *Watch) status() bundleStatus {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	// An entry is never changed, only replaced: what it points to may be shared. Never nil, which JSON would call null.
	status := bundleStatus{
		Events: "following", FollowingSince: w.since, Stopping: w.stopping,
		Daemons: append([]Daemon{}, w.daemons...), Recent: append([]Event{}, w.history...),
	}
	if w.lost != nil {
		status.Events, status.FollowingSince = "unknown", ""
		status.UnknownSince, status.Reason = w.lost.since, w.lost.reason
	}
	return status
}

// iso is a time as the init writes its timestamps.
func iso(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000000Z") }
