// Package live knows every connection and every exchange that is open, so that any of them can be ended within a moment.
package live

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A Conn is a TCP connection that can be reset, and that counts as active whenever bytes move.
type Conn struct {
	net.Conn
	tcp    *net.TCPConn
	set    *Set
	back   bool // leads to the next hop, and not to a client
	reset  atomic.Bool
	closed atomic.Bool
	once   sync.Once
}

// Reset ends the connection by a RST: what was cut must not look whole.
func (c *Conn) Reset() {
	c.reset.Store(true)
	c.Close()
}

// ResetOnClose makes the next Close a reset.
func (c *Conn) ResetOnClose() { c.reset.Store(true) }

// Close closes the connection, once.
func (c *Conn) Close() (err error) {
	c.once.Do(func() {
		c.closed.Store(true)
		if c.reset.Load() {
			c.tcp.SetLinger(0)
		}
		err = c.Conn.Close()
		c.set.forget(c)
	})
	return err
}

// SyscallConn gives access to the socket.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.tcp.SyscallConn() }

// Closed reports whether the connection has been closed or reset from this side.
func (c *Conn) Closed() bool { return c.closed.Load() }

// CloseWrite says that nothing more comes.
func (c *Conn) CloseWrite() error { return c.tcp.CloseWrite() }

// An Exchange is a request and its answer, or a tunnel whose bytes are not looked at.
type Exchange struct {
	// Stale reports why the exchange may not go on, or "". It is asked when the policy has changed, and once a second.
	Stale func() string
	// Cut ends it at once, both ways, by resets.
	Cut  func(reason string)
	Idle time.Duration
	last atomic.Int64 // nanoseconds of the monotonic clock
	cut  atomic.Bool
}

var began = time.Now()

// Touch says that bytes have moved.
func (e *Exchange) Touch() { e.last.Store(int64(time.Since(began))) }

func (e *Exchange) end(reason string) {
	if e.cut.CompareAndSwap(false, true) {
		e.Cut(reason)
	}
}

// A Set is all that is open in a process.
type Set struct {
	mutex     sync.Mutex
	conns     map[*Conn]struct{}
	exchanges map[*Exchange]struct{}
	closed    bool
	sweeping  bool
}

const sweepInterval = time.Second

var errClosed = errors.New("everything is cut")

// NewSet returns an empty set.
func NewSet() *Set {
	return &Set{conns: make(map[*Conn]struct{}), exchanges: make(map[*Exchange]struct{})}
}

// Track adds a connection to the set: one to the next hop where back is true, else a client's. One to the next hop that
// comes about while everything is cut is reset, before a byte of TLS has left by it.
func (s *Set) Track(conn *net.TCPConn, back bool) (*Conn, error) {
	c := &Conn{Conn: conn, tcp: conn, set: s, back: back}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if back && s.closed {
		conn.SetLinger(0)
		conn.Close()
		return nil, errClosed
	}
	s.conns[c] = struct{}{}
	return c, nil
}

// Clients returns how many connections of clients are open.
func (s *Set) Clients() (count int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for c := range s.conns {
		if !c.back {
			count++
		}
	}
	return count
}

// backs are the connections to the next hop.
func (s *Set) backs() (list []*Conn) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for c := range s.conns {
		if c.back {
			list = append(list, c)
		}
	}
	return list
}

func (s *Set) forget(c *Conn) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.conns, c)
}

// Begin adds an exchange. It reports false where everything is cut: then the exchange must not go on.
func (s *Set) Begin(e *Exchange) bool {
	e.Touch()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.closed {
		return false
	}
	s.exchanges[e] = struct{}{}
	if !s.sweeping {
		s.sweeping = true
		go s.sweep()
	}
	return true
}

// rest ends the sweeps where nothing is open.
func (s *Set) rest() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.sweeping = len(s.exchanges) > 0
	return !s.sweeping
}

// Exchanges returns how many exchanges are open.
func (s *Set) Exchanges() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return len(s.exchanges)
}

// End takes an exchange out of the set.
func (s *Set) End(e *Exchange) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.exchanges, e)
}

func (s *Set) all() []*Exchange {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	list := make([]*Exchange, 0, len(s.exchanges))
	for e := range s.exchanges {
		list = append(list, e)
	}
	return list
}

// Close cuts every exchange and lets no new one begin until it is called with false.
func (s *Set) Close(closed bool, reason string) {
	s.mutex.Lock()
	s.closed = closed
	s.mutex.Unlock()
	if closed {
		for _, c := range s.backs() {
			c.Reset()
		}
		for _, e := range s.all() {
			e.end(reason)
		}
	}
}

// Review cuts every exchange that has become stale.
func (s *Set) Review() {
	for _, e := range s.all() {
		if reason := e.Stale(); reason != "" {
			e.end(reason)
		}
	}
}

// sweep cuts what has been idle for too long or has become stale by the clock, once a second, as long as anything is open.
func (s *Set) sweep() {
	for range time.Tick(sweepInterval) {
		if s.rest() {
			return
		}
		now := int64(time.Since(began))
		for _, e := range s.all() {
			if e.Idle > 0 && now-e.last.Load() > int64(e.Idle) {
				e.end("no byte for " + e.Idle.String() + " (idle)")
			} else if reason := e.Stale(); reason != "" {
				e.end(reason)
			}
		}
	}
}
