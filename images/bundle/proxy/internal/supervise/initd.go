package supervise

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	defaultControl = "@bottle_init"
	initPatience   = 5 * time.Second
)

// An initClient is what this daemon keeps of the time when it was root: the init settles at the connect(2) who may ask.
type initClient struct {
	// events has a line for each event of the init's, the present status first.
	events *bufio.Scanner
	// stop is a connection on which everything of the order to stop has been sent but its end. So it is good for that
	// order alone, whatever becomes of this process.
	stop net.Conn
}

// connectInit subscribes to the init's events, and prepares the order to stop.
func connectInit() (*initClient, error) {
	events, err := dialInit()
	if err != nil {
		return nil, err
	}
	if _, err := events.Write([]byte("events\n")); err != nil {
		return nil, err
	}
	client := &initClient{events: bufio.NewScanner(events)}
	client.events.Buffer(nil, 1<<20)
	events.SetReadDeadline(time.Now().Add(initPatience))
	if !client.events.Scan() {
		return nil, errors.New("the init has closed the connection")
	}
	if refused, found := strings.CutPrefix(client.events.Text(), "error "); found {
		return nil, errors.New(refused)
	}
	events.SetReadDeadline(time.Time{})
	if client.stop, err = dialInit(); err != nil {
		return nil, err
	}
	if _, err := client.stop.Write([]byte("ctl stop")); err != nil {
		return nil, err
	}
	return client, nil
}

// orderStop ends the order. The error says why the init has not taken it.
func (c *initClient) orderStop() error {
	if c == nil || c.stop == nil {
		return errors.New("the init could not be reached when this daemon started")
	}
	c.stop.SetDeadline(time.Now().Add(initPatience))
	if _, err := c.stop.Write([]byte("\n")); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c.stop).ReadString('\n')
	if !strings.HasPrefix(answer, "ok") {
		return fmt.Errorf("the init says %q (%v)", strings.TrimSpace(answer), err)
	}
	return nil
}

func dialInit() (net.Conn, error) {
	address, set := os.LookupEnv("BOTTLE_INIT_CONTROL")
	switch {
	case !set:
		address = defaultControl
	case address == "":
		return nil, errors.New("no control socket is set ($BOTTLE_INIT_CONTROL)")
	}
	dialer := net.Dialer{Timeout: initPatience}
	conn, err := dialer.Dial("unix", address)
	if err != nil {
		return nil, err
	}
	peer, err := peerOf(conn.(*net.UnixConn))
	if err == nil && peer.Uid != 0 && int(peer.Uid) != os.Geteuid() && int(peer.Pid) != os.Getppid() {
		err = fmt.Errorf("what listens at %s is not this container's init: its user id is %d", address, peer.Uid)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// peerOf is who was at the other end of a Unix socket when it connected, or began to listen (unix(7), SO_PEERCRED).
func peerOf(conn *net.UnixConn) (*syscall.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *syscall.Ucred
	failed := raw.Control(func(fd uintptr) {
		peer, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	return peer, errors.Join(failed, err)
}
