package scan

// A Stream is a body, or one direction of a conversation, that is looked through as it comes.
type Stream struct {
	// Blotted is called with each finding that Blot takes out; it may be nil.
	Blotted func(*Finding)
	set     *Set
	// pending is what has not left, and before it what has left and may be the beginning of a match.
	pending []byte
	kept    int // how much of pending the next call needs
	sent    int // how much of it has left
}

// Stream begins a stream.
func (s *Set) Stream() *Stream { return &Stream{set: s} }

// Write adds p. It returns what may leave now: neither it nor what is still held back is part of a match, as far as is
// known. The slice is valid until the next call. After a finding nothing more leaves.
func (s *Stream) Write(p []byte) (clean []byte, found *Finding) {
	s.add(p)
	return s.search(false)
}

// Close returns the rest.
func (s *Stream) Close() (clean []byte, found *Finding) {
	s.add(nil)
	return s.search(true)
}

// Flush returns the rest where a message ends: it has to leave, whatever may follow. A match that goes on in the next
// message is found there.
func (s *Stream) Flush() []byte {
	rest := s.pending[s.sent:]
	s.sent = len(s.pending)
	return rest
}

// Release lets go what was found, as if it had been none: it returns that and what is before it.
func (s *Stream) Release(found *Finding) []byte {
	out := s.pending[s.sent:max(s.sent, found.End)]
	s.sent = max(s.sent, found.End)
	s.kept = found.End
	return out
}

// Blot adds p and returns what may leave now, with asterisks in the place of matches.
func (s *Stream) Blot(p []byte, last bool) []byte {
	s.add(p)
	clean := len(s.pending)
	for at := 0; !s.set.Empty(); {
		found, end := s.set.search(s.pending[at:], last)
		if found == nil {
			clean = at + end
			break
		}
		if s.Blotted != nil {
			s.Blotted(found)
		}
		// Asterisks are not looked at again: there are patterns that they match.
		for i := at + found.Start; i < at+found.End; i++ {
			s.pending[i] = '*'
		}
		at += found.End
	}
	return s.pass(clean)
}

func (s *Stream) add(p []byte) {
	drop := min(s.kept, s.sent)
	s.pending = append(s.pending[:copy(s.pending, s.pending[drop:])], p...)
	s.sent -= drop
	s.kept = 0
}

func (s *Stream) search(last bool) ([]byte, *Finding) {
	clean := len(s.pending)
	if !s.set.Empty() {
		var found *Finding
		if found, clean = s.set.search(s.pending, last); found != nil {
			return s.pass(clean), found
		}
	}
	return s.pass(clean), nil
}

// pass lets what is clean leave.
func (s *Stream) pass(clean int) []byte {
	out := s.pending[s.sent:max(s.sent, clean)]
	s.sent, s.kept = max(s.sent, clean), clean
	return out
}
