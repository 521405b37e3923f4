package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// heldMax is how many requests may be held at once.
const heldMax = 64

// A heldRequest is what a proxy says of a request that it holds: the id is the proxy's own choice, and nothing here is
// the secret, or a part of the request's body.
type heldRequest struct {
	Request string `json:"request"`
	Host    string `json:"host"`
	Port    int    `json:"port"`
	Method  string `json:"method"`
	Path    string `json:"path"`
	Pattern string `json:"pattern"`
	Where   string `json:"where"`
	Bytes   int64  `json:"bytes"`
}

// serveAsks takes the proxies' questions, one to a connection. A yes never goes this way: that is an approval in the
// policy, which the operator's command writes and the proxy judges. What this daemon may say is no.
func (d *daemon) serveAsks(path string) error {
	listener, err := listenUnix(path, 0o666)
	if err != nil {
		return err
	}
	places := make(chan struct{}, heldMax)
	go accept(listener, func(conn *net.UnixConn) {
		defer conn.Close()
		reply := json.NewEncoder(conn)
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			reply.Encode(map[string]string{"error": fmt.Sprintf("%d requests are held already", heldMax)})
			return
		}
		if err := d.hold(conn, reply); err != nil {
			reply.Encode(map[string]string{"error": err.Error()})
		}
	})
	return nil
}

func (d *daemon) hold(conn *net.UnixConn, reply *json.Encoder) error {
	peer, err := peerOf(conn)
	if err != nil {
		return err
	}
	if !d.mayAsk(peer.Uid) {
		return fmt.Errorf("the user %d holds no requests", peer.Uid)
	}
	conn.SetReadDeadline(time.Now().Add(initPatience))
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, bodyMax)
	var held heldRequest
	if !lines.Scan() {
		return fmt.Errorf("no question: %v", lines.Err())
	}
	if err := json.Unmarshal(lines.Bytes(), &held); err != nil {
		return fmt.Errorf("not a question: %w", err)
	}
	if !idExactly.MatchString(held.Request) {
		return fmt.Errorf("%q is not the id of a request", cut(held.Request, 60))
	}
	conn.SetReadDeadline(time.Time{})
	question, err := d.questions.ask(kindRequest, held.String(), held.what(), "")
	if err != nil {
		return err
	}
	reply.Encode(map[string]string{"id": question.ID})
	// The proxy closes the connection when its client is gone, or when the operator's yes has come.
	gone, cancel := context.WithCancel(d.stopping)
	defer cancel()
	go func() {
		lines.Scan()
		cancel()
	}()
	ended, err := d.questions.wait(gone, question.ID)
	if err != nil {
		return err
	}
	if ended.State == stateRefused {
		words := ended.Answer
		if words == "" {
			words = "without a word"
		}
		reply.Encode(map[string]string{"refused": words})
		<-gone.Done()
	}
	if ended.State == stateAnswered {
		<-gone.Done() // The proxy sees the approval itself, and ends the connection.
	}
	d.questions.withdraw(question.ID, "the client is gone")
	return nil
}

func (h heldRequest) String() string {
	return fmt.Sprintf("let a held request go: %s %s:%d%s, in which %s looks like a secret (%s)",
		cut(h.Method, 40), cut(h.Host, 300), h.Port, cut(h.Path, 300), cut(h.Where, 100), cut(h.Pattern, 100))
}

func (h heldRequest) what() map[string]string {
	return map[string]string{
		"request": h.Request, "host": cut(h.Host, fieldMax), "port": strconv.Itoa(h.Port), "method": cut(h.Method, fieldMax),
		"path": cut(h.Path, fieldMax), "pattern": cut(h.Pattern, fieldMax), "where": cut(h.Where, fieldMax),
	}
}

// listenUnix makes a socket anew. Whoever may reach its directory may connect if the mode lets them.
func listenUnix(path string, mode os.FileMode) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return listener, os.Chmod(path, mode)
}

func accept(listener *net.UnixListener, serve func(*net.UnixConn)) {
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			return
		}
		go serve(conn)
	}
}
