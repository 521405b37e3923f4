package supervise

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// An order is a line of the operator's command: a JSON object.
type order struct {
	Command string `json:"command"` // list, show, answer, refuse, status, follow or reload
	ID      string `json:"id"`
	Text    string `json:"text"`
}

// serveOperator answers the operator's commands, on a socket in a directory that is this user's alone.
func (d *daemon) serveOperator(path string) error {
	listener, err := listenUnix(path, 0o600)
	if err != nil {
		return err
	}
	go accept(listener, func(conn *net.UnixConn) {
		defer conn.Close()
		reply := json.NewEncoder(conn)
		peer, err := peerOf(conn)
		if err == nil {
			err = mayOperate(peer.Uid)
		}
		var asked order
		if err == nil {
			conn.SetReadDeadline(time.Now().Add(initPatience))
			err = json.NewDecoder(bufio.NewReader(conn)).Decode(&asked)
			conn.SetReadDeadline(time.Time{})
		}
		if err == nil && asked.Command == "follow" {
			d.follow(conn, reply)
			return
		}
		var answer any
		if err == nil {
			answer, err = d.obey(asked)
		}
		if err != nil {
			answer = map[string]string{"error": err.Error()}
		}
		reply.Encode(answer)
	})
	return nil
}

// mayOperate says why a user is not the operator: root is, and this daemon's own user, who can do all of it anyhow.
func mayOperate(uid uint32) error {
	if uid != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("the user %d is not the operator", uid)
	}
	return nil
}

func (d *daemon) obey(asked order) (any, error) {
	switch asked.Command {
	case "list":
		return map[string]any{"questions": d.questions.open()}, nil
	case "show":
		return d.questions.get(asked.ID)
	case "answer", "refuse":
		if asked.Command == "answer" && asked.Text == "" {
			return nil, errors.New("the answer is empty")
		}
		if err := d.questions.answer(asked.ID, asked.Text, asked.Command == "refuse"); err != nil {
			return nil, err
		}
		return map[string]string{"answered": asked.ID}, nil
	case "status":
		return d.watch.status(), nil
	case "reload":
		return map[string]string{"generation": d.settings().generation}, d.reload()
	}
	return nil, errors.New("unknown command")
}

// follow writes a line for each thing that waits, and one for each change, until the operator goes.
func (d *daemon) follow(conn *net.UnixConn, reply *json.Encoder) {
	gone := make(chan struct{})
	go func() {
		conn.Read(make([]byte, 1))
		close(gone)
	}()
	shown := map[string]Question{}
	for {
		next := d.questions.next()
		open := map[string]bool{}
		for _, question := range d.questions.open() {
			open[question.ID] = true
			if before, there := shown[question.ID]; !there || before.Reason != question.Reason {
				shown[question.ID] = question
				if reply.Encode(question) != nil {
					return
				}
			}
		}
		for id := range shown {
			if !open[id] {
				ended, err := d.questions.get(id)
				if err != nil {
					ended = Question{ID: id, State: stateExpired}
				}
				delete(shown, id)
				if reply.Encode(ended) != nil {
					return
				}
			}
		}
		select {
		case <-next:
		case <-gone:
			return
		case <-d.stopping.Done():
			return
		}
	}
}
