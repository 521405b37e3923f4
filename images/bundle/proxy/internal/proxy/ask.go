package proxy

import (
	"bufio"
	"encoding/json"
	"net"
	"time"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/scan"
)

// A question is what supervise is told about a request that is held.
type question struct {
	policy.Request
	Where string `json:"where"`
}

// ask holds the request until the operator has let it go or refused it, or the client has gone. supervise only passes the
// question on: a yes is an approval in the policy, which the operator's command alone can write.
func (x *Exchange) ask(where string, found *scan.Finding) *judge.Refusal {
	refused := secretRefusal(where, found)
	asked := policy.Request{ID: newID(), Host: x.Host.Name, Port: x.Host.Port, Method: judge.Cut(x.request.Method), Path: x.auditedPath(), Pattern: found.Name}
	conn, err := net.DialTimeout("unix", x.engine.AskSocket, 5*time.Second)
	if err != nil {
		refused.Reason += "; the operator can't be asked: " + err.Error()
		return refused
	}
	defer conn.Close()
	entry := x.account(0, 0)
	entry.Event, entry.Verdict, entry.Reason = "question", "asked", refused.Reason
	x.engine.Audit.Write(entry)
	if err := json.NewEncoder(conn).Encode(question{asked, where}); err != nil {
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
				return nil
			}
			refused.Reason += reason
			return refused
		case <-x.context.Done():
			return judge.Refuse(503, "the request was given up while the operator was asked")
		case <-ticker.C:
			x.live.Touch()
			if x.engine.State().Judge.Released(asked) {
				entry.Event, entry.Verdict, entry.Reason = "approval", "allowed", refused.Reason
				x.engine.Audit.Write(audit.Entry(entry))
				return nil
			}
		}
	}
}
