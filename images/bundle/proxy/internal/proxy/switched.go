package proxy

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"time"

	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/scan"
	"bottle/proxy/internal/websocket"
	"bottle/proxy/internal/wire"
)

// switched passes the frames of a websocket on in both directions, until either side ends it.
func (x *Exchange) switched(answer *http.Response) {
	back, isStream := answer.Body.(io.ReadWriteCloser)
	response, isWire := x.writer.(*wire.Response)
	if !isStream || !isWire || !x.websocket || answer.Header.Get("Sec-Websocket-Extensions") != "" {
		x.end(judge.Refuse(502, "the host switched to a protocol that was not asked for"))
		x.failed(errRefused)
		return
	}
	header := response.Header()
	x.clear(answer.Header)
	for name, values := range answer.Header {
		header[name] = x.blotAll(x.blotting(), values)
	}
	header["Upgrade"] = []string{"websocket"}
	response.WriteHeader(http.StatusSwitchingProtocols)
	conn, in, err := response.Hijack()
	if err != nil {
		x.front.conn.Reset()
		return
	}
	x.sending.Store(true) // As long as it lasts: patterns that change end it.
	limit := x.State.Judge.Policy().Limits.WebsocketMessage
	set := x.State.Scan
	if x.Verdict.Rule.OnSecret == policy.Pass {
		set = nil
	}
	client := websocket.NewSink(conn)
	rule := x.Verdict.Rule.OnSecret
	up := &websocket.Relay{In: in, Out: websocket.NewSink(back), Masked: true, Set: set, Limit: limit, Blot: rule == policy.Redact,
		Blotted: func(found *scan.Finding) { x.redacted.Store(true); x.blottedOut(found) },
		Moved:   func(n int) { x.live.Touch(); x.sent.Add(int64(n)) }}
	if rule == policy.Ask {
		up.Ask = x.askAbout
	}
	received := int64(0)
	down := &websocket.Relay{In: bufio.NewReader(back), Out: client, Set: x.blotting(), Blot: true, Blotted: x.blottedOut, Limit: limit,
		Moved: func(n int) { x.live.Touch(); received += int64(n) }}
	ended := make(chan error, 2)
	go func() { ended <- x.guarded(up.Run) }()
	downEnded := make(chan error, 1)
	go func() { downEnded <- x.guarded(down.Run) }()
	x.entry.Verdict = "allowed"
	select {
	case err = <-ended:
		x.closeWebsocket(err, client, downEnded)
	case err = <-downEnded:
		x.closeWebsocket(err, client, nil)
	}
	if x.redacted.Load() && x.entry.Verdict == "allowed" {
		x.entry.Verdict = "redacted"
	}
	back.Close()
	conn.Close()
	x.engine.record(x.account(received, http.StatusSwitchingProtocols))
}

// askAbout asks the operator about what a message holds.
func (x *Exchange) askAbout(found *scan.Finding) error {
	x.suspicions = []suspicion{{"a websocket message", []string{found.String()}}}
	if refusal := x.ask(); refusal != nil {
		return &websocket.Error{Code: websocket.PolicyViolation, Reason: refusal.Reason}
	}
	return nil
}

// guarded makes of a bug the end of one conversation.
func (x *Exchange) guarded(run func() error) (err error) {
	err = errRefused
	defer x.engine.recovered(func() {})
	return run()
}

// closeWebsocket ends a conversation: an end that was regular is passed on, what was refused is reset towards the host and
// told to the client.
func (x *Exchange) closeWebsocket(err error, client *websocket.Sink, down chan error) {
	var wrong *websocket.Error
	x.mutex.Lock()
	refusal := x.refusal
	x.mutex.Unlock()
	switch {
	case refusal != nil: // Cut from outside.
		x.entry.Verdict, x.entry.Reason = "reset", refusal.Reason
		x.front.conn.ResetOnClose()
	case errors.As(err, &wrong):
		x.entry.Verdict, x.entry.Reason = "reset", wrong.Reason
		text := x.engine.Daemon + ": " + wrong.Reason
		if !client.Close(wrong.Code, text) && down != nil {
			// The host's frame under way comes first.
			select {
			case <-down:
			case <-time.After(2 * time.Second):
				x.front.conn.ResetOnClose()
			}
		}
		x.end(judge.Refuse(403, "%s", wrong.Reason))
		halfClose(x.front.conn)
		x.front.conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		io.Copy(io.Discard, x.front.conn)
	case !errors.Is(err, io.EOF):
		x.entry.Reason = "the conversation ended early"
		x.front.conn.ResetOnClose()
	}
}
