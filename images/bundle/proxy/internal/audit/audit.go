// Package audit writes one JSON line for each thing that was let through or refused.
package audit

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	defaultLimit = 64 << 20 // bytes that all files may take
	files        = 4        // kept, the one that is written included
	interval     = 200 * time.Millisecond
	buffered     = 256 << 10 // bytes that may wait for the disk
)

// An Entry is one line. Text that comes from a client is cut by whoever fills it in.
type Entry struct {
	Timestamp     string   `json:"timestamp"`
	Daemon        string   `json:"daemon"`
	Event         string   `json:"event"`
	Verdict       string   `json:"verdict,omitempty"`
	Reason        string   `json:"reason,omitempty"`
	Rule          string   `json:"rule,omitempty"`
	Consumer      string   `json:"consumer,omitempty"`
	Host          string   `json:"host,omitempty"`
	Port          int      `json:"port,omitempty"`
	Method        string   `json:"method,omitempty"`
	Path          string   `json:"path,omitempty"`
	Repository    string   `json:"repository,omitempty"`
	Push          string   `json:"push,omitempty"` // what an approval names
	Refs          []string `json:"refs,omitempty"`
	Credential    string   `json:"credential,omitempty"`
	Blotted       string   `json:"blotted,omitempty"` // names of what was taken out, of the request or the answer
	SentBytes     int64    `json:"sent_bytes"`
	ReceivedBytes int64    `json:"received_bytes"`
	Status        int      `json:"status,omitempty"`
	DurationMs    int64    `json:"duration_ms"`
}

// A Log is a file that only grows, up to a size; the oldest of its predecessors is dropped then.
type Log struct {
	daemon string
	path   string
	mutex  sync.Mutex
	file   *os.File
	size   int64
	buffer []byte
	lost   int
	failed bool
	// waiting says that a Flush is due.
	waiting bool
	limit   int64
}

// Open appends to audit.jsonl in the directory. Where that can't be written, the Log says so once on stdout and drops
// what it is told: a full disk lets nothing more through, and nothing less.
func Open(daemon, directory string) *Log {
	l := &Log{daemon: daemon, path: filepath.Join(directory, "audit.jsonl"), limit: defaultLimit}
	l.open()
	return l
}

// Limit sets how many bytes all files together may take; 0 leaves it as it is.
func (l *Log) Limit(bytes int64) {
	if l == nil || bytes <= 0 {
		return
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.limit = bytes
}

func (l *Log) open() {
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		l.fail(err)
		return
	}
	info, err := file.Stat()
	if err != nil {
		l.fail(err)
	} else {
		l.size = info.Size()
	}
	l.file = file
}

func (l *Log) fail(err error) {
	if !l.failed {
		l.failed = true
		Print(l.daemon+".audit_failed", map[string]any{"reason": err.Error()})
	}
}

// Write adds a line.
func (l *Log) Write(entry Entry) {
	if l == nil {
		return
	}
	entry.Timestamp = time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	entry.Daemon = l.daemon
	line, err := json.Marshal(entry)
	if err != nil {
		return
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if len(l.buffer)+len(line) >= buffered {
		l.lost++
		return
	}
	if !l.waiting {
		l.waiting = true
		time.AfterFunc(interval, l.Flush)
	}
	l.buffer = append(append(l.buffer, line...), '\n')
}

// Flush writes what waits.
func (l *Log) Flush() {
	if l == nil {
		return
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.waiting = false
	if len(l.buffer) == 0 {
		return
	}
	if l.file == nil {
		if l.open(); l.file == nil {
			l.buffer, l.lost = l.buffer[:0], l.lost+1
			return
		}
	}
	if l.lost > 0 {
		line := fmt.Sprintf(`{"timestamp":%q,"daemon":%q,"event":"audit_lost","reason":"%d lines could not be written"}`+"\n",
			time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), l.daemon, l.lost)
		l.buffer, l.lost = append(l.buffer, line...), 0
	}
	n, err := l.file.Write(l.buffer)
	l.size += int64(n)
	l.buffer = l.buffer[:0]
	if err != nil {
		l.fail(err)
		l.lost++
		return
	}
	l.failed = false
	if l.size > l.limit/files {
		l.rotate()
	}
}

func (l *Log) rotate() {
	numbered := func(i int) string { return fmt.Sprintf("%s.%d", l.path, i) }
	oldest := numbered(files - 1)
	_, err := os.Stat(oldest)
	dropped := err == nil
	for i := files - 2; i > 0; i-- {
		os.Rename(numbered(i), numbered(i+1))
	}
	if err := os.Rename(l.path, numbered(1)); err != nil {
		l.fail(err)
		return
	}
	l.file.Close()
	l.file, l.size = nil, 0
	l.open()
	if dropped {
		line := fmt.Sprintf(`{"timestamp":%q,"daemon":%q,"event":"audit_dropped","reason":"the oldest of %d files was dropped"}`+"\n",
			time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), l.daemon, files)
		l.buffer = append(l.buffer, line...)
	}
}

var stdout sync.Mutex

// Print writes an event to the daemon's log: one JSON object on one line of stdout.
func Print(event string, fields map[string]any) {
	all := map[string]any{"event": event}
	for key, value := range fields {
		all[key] = value
	}
	line, err := json.Marshal(all)
	if err != nil {
		return
	}
	stdout.Lock()
	defer stdout.Unlock()
	os.Stdout.Write(append(line, '\n'))
}
