package supervise

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// silentMax is how many connections may be open that have sent nothing yet.
	silentMax = 128
	// connectionsMax is how many others may be.
	connectionsMax = 256
	// leaseAfter is how long a connection has to be silent before it counts as a lease: a port scan is none.
	leaseAfter = 2 * time.Second
	// leasePatience is how long the first lease is waited for.
	leasePatience = 120 * time.Second
)

// A door accepts connections and tells those that talk from those that only hold the line. The latter are leases: the
// agent's init keeps one, so its end, that of the last of them, is the end of the agent.
type door struct {
	net.Listener
	talking chan net.Conn
	closed  chan struct{}
	// gone is told why the agent must be gone, once.
	gone  func(why string)
	after time.Duration // leaseAfter

	mutex  sync.Mutex
	silent int
	open   int
	leases int
	had    bool
	told   bool
}

// openDoor listens; with `leased`, `gone` is called when the agent is.
func openDoor(listener net.Listener, leased bool, gone func(why string)) *door {
	return openDoorWith(listener, leased, leaseAfter, leasePatience, gone)
}

func openDoorWith(listener net.Listener, leased bool, after, patience time.Duration, gone func(why string)) *door {
	d := &door{Listener: listener, talking: make(chan net.Conn), closed: make(chan struct{}), gone: gone, after: after, told: !leased}
	if leased {
		time.AfterFunc(patience, func() {
			d.mutex.Lock()
			defer d.mutex.Unlock()
			if !d.had {
				d.tell("within " + patience.String() + " no agent has taken its lease")
			}
		})
	}
	go d.receive()
	return d
}

// Accept returns a connection that has sent something.
func (d *door) Accept() (net.Conn, error) {
	select {
	case conn := <-d.talking:
		return conn, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *door) receive() {
	defer close(d.closed)
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // No descriptor is left: others have to end first.
			continue
		}
		d.mutex.Lock()
		admitted := d.silent < silentMax
		if admitted {
			d.silent++
		}
		d.mutex.Unlock()
		if !admitted {
			conn.Close()
			continue
		}
		go d.listen(conn.(*net.TCPConn))
	}
}

// listen waits for the first byte, for as long as it takes.
func (d *door) listen(conn *net.TCPConn) {
	// An agent whose machine has vanished says nothing.
	conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3})
	first := make([]byte, 1)
	conn.SetReadDeadline(time.Now().Add(d.after))
	n, err := conn.Read(first)
	counted := errors.Is(err, os.ErrDeadlineExceeded)
	if counted {
		d.count(+1)
		conn.SetReadDeadline(time.Time{})
		n, err = conn.Read(first)
	}
	d.mutex.Lock()
	d.silent--
	full := d.open >= connectionsMax
	if n > 0 && !full {
		d.open++
	}
	d.mutex.Unlock()
	if counted {
		d.count(-1)
	}
	if n == 0 || err != nil || full {
		conn.Close()
		return
	}
	talking := &heard{TCPConn: conn, first: first, door: d}
	select {
	case d.talking <- talking:
	case <-d.closed:
		talking.Close()
	}
}

// held is how many leases there are.
func (d *door) held() int {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.leases
}

func (d *door) count(change int) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.leases += change
	d.had = true
	if d.leases == 0 {
		d.tell("the agent's lease has ended")
	}
}

// tell says it once. The mutex is held.
func (d *door) tell(why string) {
	if !d.told {
		d.told = true
		go d.gone(why)
	}
}

// heard is a connection whose first byte has been read.
type heard struct {
	*net.TCPConn
	first []byte
	door  *door
	once  sync.Once
}

func (h *heard) Read(into []byte) (int, error) {
	if len(h.first) > 0 && len(into) > 0 {
		n := copy(into, h.first)
		h.first = h.first[n:]
		return n, nil
	}
	return h.TCPConn.Read(into)
}

// WriteTo would pass the first byte by.
func (h *heard) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{h}) }

func (h *heard) Close() error {
	h.once.Do(func() {
		h.door.mutex.Lock()
		h.door.open--
		h.door.mutex.Unlock()
	})
	return h.TCPConn.Close()
}
