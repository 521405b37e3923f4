package proxy

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/wire"
)

// RefusedBy is the header field of a refusal that names the daemon.
const RefusedBy = "X-Bottle-Refused-By"

// record writes what is over to the audit, and to the daemon's log where it was not let through.
func (e *Engine) record(entry audit.Entry) {
	if entry.Verdict == "allowed" || entry.Verdict == "redacted" {
		e.Audit.Write(entry)
		return
	}
	e.refused(entry)
}

// refused logs a refusal, to the audit and to the daemon's log.
func (e *Engine) refused(entry audit.Entry) {
	e.Audit.Write(entry)
	fields := map[string]any{"reason": entry.Reason}
	if entry.Host != "" {
		fields["host"] = entry.Host
	}
	if entry.Port != 0 {
		fields["port"] = entry.Port
	}
	if entry.Status != 0 {
		fields["status"] = entry.Status
	}
	audit.Print(e.Daemon+".refused", fields)
}

// refuse answers a request itself, in words that its client shows.
func (f *front) refuse(w http.ResponseWriter, r *http.Request, entry audit.Entry, refusal *judge.Refusal) {
	entry.Verdict, entry.Reason, entry.Status, entry.Consumer = "refused", refusal.Reason, refusal.Status, f.consumer
	f.engine.refused(entry)
	text := f.engine.Daemon + ": " + refusal.Reason
	header := w.Header()
	header.Set(RefusedBy, f.engine.Daemon)
	if isGRPC(r.Header) {
		grpcRefusal(w, refusal.Status, text)
		return
	}
	if response, ok := w.(*wire.Response); ok {
		response.SetReason(text)
	}
	body := text + "\n"
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(refusal.Status)
	if r.Method != http.MethodHead {
		w.Write([]byte(body))
	}
}

// grpcRefusal answers with a status that gRPC clients show: a HEADERS frame and nothing else (gRPC over HTTP/2,
// "Trailers-Only").
func grpcRefusal(w http.ResponseWriter, status int, text string) {
	code := 7 // PERMISSION_DENIED
	switch {
	case status == http.StatusServiceUnavailable || status == http.StatusBadGateway:
		code = 14 // UNAVAILABLE
	case status == http.StatusBadRequest:
		code = 3 // INVALID_ARGUMENT
	}
	header := w.Header()
	header.Set("Content-Type", "application/grpc")
	header.Set("Grpc-Status", strconv.Itoa(code))
	header.Set("Grpc-Message", percentEncode(text))
	w.WriteHeader(http.StatusOK)
}

// percentEncode writes what is not printable ASCII, and the percent sign, as gRPC has it.
func percentEncode(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
