// Package killswitch watches the operator's kill switch: a file that is there, or USR1, which toggles.
package killswitch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Where the kernel tells of changes in the file's directory, it is looked for at each of them, and every slow interval for
// all that; elsewhere every fast one.
const (
	fast = 100 * time.Millisecond
	slow = 2 * time.Second
)

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
	interval := slow
	if changes, err := watch(filepath.Dir(s.path)); err != nil {
		interval = fast
	} else {
		go func() {
			buffer := make([]byte, 4096)
			for {
				if _, err := changes.Read(buffer); err != nil {
					return
				}
				s.look()
			}
		}()
	}
	s.look() // It may have come before it was watched for.
	for range time.Tick(interval) {
		s.look()
	}
}

// watch returns a file that can be read whenever a name in the directory comes or goes (inotify(7)).
func watch(directory string) (*os.File, error) {
	descriptor, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	const names = syscall.IN_CREATE | syscall.IN_DELETE | syscall.IN_MOVED_FROM | syscall.IN_MOVED_TO
	if _, err := syscall.InotifyAddWatch(descriptor, directory, names); err != nil {
		syscall.Close(descriptor)
		return nil, err
	}
	return os.NewFile(uintptr(descriptor), directory), nil
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
