package killswitch

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheFileAndTheSignal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kill-switch")
	changes := make(chan bool, 8)
	s := New(path, func(on bool) { changes <- on })
	go s.Watch()
	if s.On() {
		t.Fatal("on from the start")
	}
	touch := func() {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	touch()
	if on := <-changes; !on || !s.On() {
		t.Error("the file does not turn it on")
	}
	s.Toggle() // The file has the last word.
	s.Toggle()
	os.Remove(path)
	if on := <-changes; on || s.On() {
		t.Error("off is not off")
	}
	s.Toggle()
	if on := <-changes; !on {
		t.Error("the signal does not turn it on")
	}
}

func TestItIsOnFromTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kill-switch")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !New(path, func(bool) {}).On() {
		t.Error("off")
	}
}

// What can't be looked for counts as on.
func TestItFailsClosed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a-file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !New(filepath.Join(file, "kill-switch"), func(bool) {}).On() {
		t.Error("off")
	}
}
