// Package killswitch watches the operator's kill switch: a file that is there, or USR1, which toggles.
package killswitch

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// interval is how long the file's coming may go unnoticed.
const interval = 100 * time.Millisecond

// A Switch is on or off.
type Switch struct {
	path     string
	on       atomic.Bool
	mutex    sync.Mutex
	toggled  bool
	file     bool
	onChange func(on bool)
}

// New looks for the file at path. onChange is called with every change, and at once where the switch is on.
func New(path string, onChange func(on bool)) *Switch {
	s := &Switch{path: path, onChange: onChange}
	s.look()
	return s
}

// Watch looks for the file until the process ends.
func (s *Switch) Watch() {
	for range time.Tick(interval) {
		s.look()
	}
}

// look takes a file that can't be looked for as one that is there.
func (s *Switch) look() {
	_, err := os.Lstat(s.path)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.file = !errors.Is(err, fs.ErrNotExist)
	s.settle()
}

// Toggle turns what USR1 turns. The file has the last word.
func (s *Switch) Toggle() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.toggled = !s.toggled
	s.settle()
}

func (s *Switch) settle() {
	if on := s.toggled || s.file; s.on.Swap(on) != on {
		s.onChange(on)
	}
}

// On reports whether nothing may get out.
func (s *Switch) On() bool { return s.on.Load() }
