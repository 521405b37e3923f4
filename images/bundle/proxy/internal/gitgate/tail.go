package gitgate

import (
	"sync"
	"time"
)

// A tail keeps the end of what is written to it, and knows when that was.
type tail struct {
	mutex sync.Mutex
	kept  []byte
	last  time.Time
}

func (t *tail) Write(p []byte) (int, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.last = time.Now()
	t.kept = append(t.kept, p...)
	if excess := len(t.kept) - outputLimit; excess > 0 {
		t.kept = append(t.kept[:0], t.kept[excess:]...)
	}
	return len(p), nil
}

// silence is how long nothing has been written; the first call begins to count.
func (t *tail) silence() time.Duration {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.last.IsZero() {
		t.last = time.Now()
	}
	return time.Since(t.last)
}

func (t *tail) words() string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return words(string(t.kept))
}
