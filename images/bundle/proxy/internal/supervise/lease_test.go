package supervise

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// A rig is a door with an HTTP server behind it, and what it says of the agent.
type rig struct {
	*testing.T
	door *door
	gone chan string
}

func newRig(t *testing.T, leased bool, after, patience time.Duration) *rig {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t, nil, make(chan string, 1)}
	r.door = openDoorWith(listener, leased, after, patience, func(why string) { r.gone <- why })
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "served") })}
	go server.Serve(r.door)
	t.Cleanup(func() { server.Close() })
	return r
}

func (r *rig) connect() net.Conn {
	conn, err := net.Dial("tcp", r.door.Addr().String())
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	return conn
}

// until waits for a state of the door.
func (r *rig) until(what string, holds func(*door) bool) {
	r.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		r.door.mutex.Lock()
		held := holds(r.door)
		r.door.mutex.Unlock()
		if held {
			return
		}
	}
	r.Fatalf("%s did not come about", what)
}

func (r *rig) noOneIsGone() {
	r.Helper()
	select {
	case why := <-r.gone:
		r.Fatalf("the agent is said to be gone: %s", why)
	default:
	}
}

const never = time.Hour

// The bundle's stop hangs on the lease: its end is the agent's end, and nothing else is.
func TestTheEndOfTheLastLeaseIsTheAgentsEnd(t *testing.T) {
	r := newRig(t, true, time.Millisecond, never)
	first, second := r.connect(), r.connect()
	r.until("two leases", func(d *door) bool { return d.leases == 2 })
	first.Close()
	r.until("one lease", func(d *door) bool { return d.leases == 1 })
	r.noOneIsGone()
	second.Close()
	if why := <-r.gone; why != "the agent's lease has ended" {
		t.Error(why)
	}
}

// An agent that scans ports, or talks to the MCP server, must not stop its own bundle, and cannot make others think so.
func TestAPortScanIsNoLease(t *testing.T) {
	r := newRig(t, true, never, never)
	for range 50 {
		r.connect().Close()
	}
	r.until("the end of the scan", func(d *door) bool { return d.silent == 0 })
	r.noOneIsGone()
	r.door.mutex.Lock()
	defer r.door.mutex.Unlock()
	if r.door.had {
		t.Error("a connection that closes at once counts as a lease")
	}
}

func TestWhoTalksIsServedAndHoldsNoLease(t *testing.T) {
	r := newRig(t, true, never, never)
	answer, err := http.Get("http://" + r.door.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	if string(body) != "served" {
		t.Errorf("%q", body)
	}
	http.DefaultClient.CloseIdleConnections()
	r.until("the connection's end", func(d *door) bool { return d.open == 0 && d.silent == 0 })
	r.noOneIsGone()
}

// One that talks late is served too: it was a lease until then.
func TestALateWordIsHeard(t *testing.T) {
	r := newRig(t, false, time.Millisecond, never)
	conn := r.connect()
	r.until("a lease", func(d *door) bool { return d.leases == 1 })
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if answer, err := io.ReadAll(conn); err != nil || len(answer) == 0 {
		t.Errorf("%q, %v", answer, err)
	}
}

func TestTheFirstLeaseIsWaitedForSoLong(t *testing.T) {
	r := newRig(t, true, never, time.Millisecond)
	if why := <-r.gone; why != "within 1ms no agent has taken its lease" {
		t.Error(why)
	}
}

func TestWithoutALeaseToExpectNobodyIsGone(t *testing.T) {
	r := newRig(t, false, time.Millisecond, time.Millisecond)
	conn := r.connect()
	r.until("a lease", func(d *door) bool { return d.leases == 1 })
	conn.Close()
	r.until("its end", func(d *door) bool { return d.leases == 0 })
	r.noOneIsGone()
}

// Whoever opens more than there is room for is turned away, and the lease that came before is none of those.
func TestSilentConnectionsAreBounded(t *testing.T) {
	r := newRig(t, true, time.Millisecond, never)
	lease := r.connect()
	r.until("a lease", func(d *door) bool { return d.leases == 1 })
	for range silentMax - 1 {
		r.connect()
	}
	r.until("a full house", func(d *door) bool { return d.silent == silentMax })
	if _, err := r.connect().Read(make([]byte, 1)); err == nil {
		t.Error("there is no bound")
	}
	r.noOneIsGone()
	lease.Write([]byte("x"))
}
