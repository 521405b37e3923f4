package proxy

import (
	"bufio"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/policy"
)

// A question is what supervise is told about a request that is held.
type question struct {
	policy.Request
	Where string `json:"where"`
	Bytes int64  `json:"bytes"` // of the body; -1 where it is not known
}

// ask holds the request, if there is anything to ask about, until the operator has let it go or refused it, or the client
// has gone. supervise only passes the question on: a yes is an approval in the policy, which the operator's command alone
// can write.
func (x *Exchange) ask() *judge.Refusal {
	if len(x.suspicions) == 0 {
		return nil
	}
	var places, names []string
	for _, s := range x.suspicions {
		places = append(places, s.where)
		for _, name := range s.names {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	where, pattern := strings.Join(places, ", "), strings.Join(names, ", ")
	refused := secretRefusal(where, pattern)
	asked := policy.Request{ID: newID(), Host: x.Host.Name, Port: x.Host.Port, Method: judge.Cut(x.request.Method), Path: x.auditedPath(), Pattern: pattern}
	if x.engine.Lag > 0 && x.letGoBefore(asked) {
		return nil
	}
	conn, err := net.DialTimeout("unix", x.engine.AskSocket, 5*time.Second)
	if err != nil {
		refused.Reason += "; the operator can't be asked: " + err.Error()
		return refused
	}
	defer conn.Close()
	entry := x.account(0, 0)
	entry.Event, entry.Verdict, entry.Reason = "question", "asked", refused.Reason
	x.engine.Audit.Write(entry)
	if err := json.NewEncoder(conn).Encode(question{asked, where, x.request.ContentLength}); err != nil {
		refused.Reason += "; the operator can't be asked: " + err.Error()
		return refused
	}
	no := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			var said struct{ ID, Error, Refused string }
			if json.Unmarshal(lines.Bytes(), &said) != nil || said.Error != "" {
				no <- "; the operator can't be asked: " + judge.Cut(said.Error)
				return
			}
			if said.Refused != "" {
				no <- "; the operator said no: " + judge.Cut(said.Refused)
				return
			}
		}
		no <- "; supervise is gone"
	}()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case reason := <-no:
			if x.engine.State().Judge.Released(asked) {
				x.engine.released.add(asked.ID)
				return nil
			}
			refused.Reason += reason
			return refused
		case <-x.context.Done():
			return judge.Refuse(503, "the request was given up while the operator was asked")
		case <-ticker.C:
			x.live.Touch()
			if x.engine.State().Judge.Released(asked) {
				x.engine.released.add(asked.ID)
				entry.Event, entry.Verdict, entry.Reason = "approval", "allowed", refused.Reason
				x.engine.Audit.Write(audit.Entry(entry))
				return nil
			}
		}
	}
}

// letGoBefore waits until the approval that the daemon before this one has acted on is known here too, and uses it up. A
// request about which nobody was asked before has none to wait for, and is asked about a moment later.
func (x *Exchange) letGoBefore(asked policy.Request) bool {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for over := time.After(x.engine.Lag); ; {
		if x.engine.released.take(x.engine.State().Judge.Policy().Approvals, asked) {
			return true
		}
		select {
		case <-over:
			return false
		case <-x.context.Done():
			return false
		case <-ticker.C:
			x.live.Touch()
		}
	}
}

// released are the approvals of single requests that have been used.
type released struct {
	mutex sync.Mutex
	used  map[string]bool // by the ids of the requests
}

// add reports whether the approval is used for the first time.
func (r *released) add(id string) (first bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.used == nil {
		r.used = make(map[string]bool)
	}
	first = !r.used[id]
	r.used[id] = true
	return first
}

// take looks for an approval that was given to the daemon before this one, for a request like that, and uses it up. The id
// is that daemon's secret; what was found has to be among what the operator was told of.
func (r *released) take(approvals []policy.Approval, asked policy.Request) bool {
	for _, a := range approvals {
		if a.Request == nil || a.Until <= float64(time.Now().Unix()) {
			continue
		}
		told := *a.Request
		same := told
		same.ID, same.Pattern = asked.ID, asked.Pattern
		if same == asked && covers(told.Pattern, asked.Pattern) && r.add(told.ID) {
			return true
		}
	}
	return false
}

func covers(told, found string) bool {
	names := strings.Split(told, ", ")
	return !slices.ContainsFunc(strings.Split(found, ", "), func(name string) bool { return !slices.Contains(names, name) })
}
