// Package websocket passes websocket frames on (RFC 6455), as far as what is in them may pass.
package websocket

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"bottle/proxy/internal/scan"
)

// Close codes (RFC 6455, 7.4.1).
const (
	ProtocolError   = 1002
	PolicyViolation = 1008
	TooBig          = 1009
)

const pieceSize = 16 << 10

// An Error ends a conversation, with the code and the words that its client is told.
type Error struct {
	Code   int
	Reason string
}

func (e *Error) Error() string { return e.Reason }

// A Sink writes whole frames, or pieces of one, and lets another goroutine say a last word between two frames.
type Sink struct {
	mutex  sync.Mutex
	w      io.Writer
	inside bool   // of a frame
	last   []byte // to be written at the frame's end
	over   bool
}

// NewSink writes to w.
func NewSink(w io.Writer) *Sink { return &Sink{w: w} }

var errOver = errors.New("websocket: closed")

func (s *Sink) write(p []byte, inside bool) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.over {
		return errOver
	}
	_, err := s.w.Write(p)
	if s.inside = inside; !inside && s.last != nil && err == nil {
		s.over = true
		_, err = s.w.Write(s.last)
	}
	return err
}

// Close writes a close frame as soon as no other is under way, and nothing after it. It reports whether that is done.
func (s *Sink) Close(code int, reason string) bool {
	reason = strings.ToValidUTF8(reason[:min(len(reason), 123)], "")
	frame := append([]byte{0x88, byte(2 + len(reason)), byte(code >> 8), byte(code)}, reason...)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.over {
		return true
	}
	if s.last = frame; s.inside {
		return false
	}
	s.over = true
	s.w.Write(frame)
	return true
}

// A run is a frame that has not left as a whole.
type run struct {
	header  []byte // nil once it has left
	key     [4]byte
	masked  bool
	at      int    // bytes of the payload that have left
	left    int    // bytes of the payload that have not
	control []byte // a control frame's payload
}

// A Relay passes the frames of one direction on.
type Relay struct {
	In  *bufio.Reader
	Out *Sink
	// Masked says that the frames have to be masked: those of clients.
	Masked bool
	// Set is looked for in payloads. Blot has what is found blotted out, and Blotted told of it; else Ask is asked about it,
	// and where that returns an error, or is nil, the conversation ends.
	Set     *scan.Set
	Blot    bool
	Blotted func(*scan.Finding)
	Ask     func(*scan.Finding) error
	Limit   int // bytes of a message
	// Moved is called with the size of each piece.
	Moved func(n int)

	data    *scan.Stream
	control *scan.Stream
	queue   []*run
	size    int
	going   bool // inside of a fragmented message
	buffer  []byte
	out     []byte
}

// Run returns when either side has ended, with an *Error where the frames are to blame.
func (r *Relay) Run() error {
	r.data, r.control = r.Set.Stream(), r.Set.Stream()
	r.data.Blotted, r.control.Blotted = r.Blotted, r.Blotted
	r.buffer = make([]byte, pieceSize)
	for {
		if err := r.frame(); err != nil {
			return err
		}
	}
}

func protocolError(format string, arguments ...any) error {
	return &Error{ProtocolError, fmt.Sprintf(format, arguments...)}
}

func (r *Relay) frame() error {
	header := make([]byte, 2, 14)
	if _, err := io.ReadFull(r.In, header); err != nil {
		return err
	}
	final, opcode, length := header[0]&0x80 != 0, header[0]&0x0f, uint64(header[1]&0x7f)
	masked := header[1]&0x80 != 0
	switch {
	case header[0]&0x70 != 0:
		return protocolError("a frame uses an extension, and none is in use")
	case masked != r.Masked:
		return protocolError("a frame is masked as those of the other side are")
	case opcode > 2 && opcode < 8 || opcode > 10:
		return protocolError("a frame of the unknown kind %d", opcode)
	case opcode >= 8 && (!final || length > 125):
		return protocolError("a control frame is too long, or in pieces")
	case opcode == 0 && !r.going || opcode != 0 && opcode < 8 && r.going:
		return protocolError("a message begins inside of another one, or goes on without having begun")
	}
	extra := map[uint64]int{126: 2, 127: 8}[length]
	if masked {
		extra += 4
	}
	header = header[:2+extra]
	if _, err := io.ReadFull(r.In, header[2:]); err != nil {
		return err
	}
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(header[2:]))
	case 127:
		length = binary.BigEndian.Uint64(header[2:])
	}
	current := &run{header: header, masked: masked}
	if masked {
		copy(current.key[:], header[len(header)-4:])
	}
	if opcode >= 8 {
		return r.controlFrame(current, int(length))
	}
	if length > uint64(r.Limit) || r.size+int(length) > r.Limit {
		return &Error{TooBig, "a message is larger than limits.websocket_message"}
	}
	return r.dataFrame(current, int(length), final)
}

func (r *Relay) controlFrame(current *run, length int) error {
	payload := make([]byte, length)
	if _, err := io.ReadFull(r.In, payload); err != nil {
		return err
	}
	mask(payload, current, 0)
	if r.Blot {
		payload = append(append([]byte(nil), r.control.Blot(payload, false)...), r.control.Flush()...)
	} else {
		for _, found := r.control.Write(payload); found != nil; _, found = r.control.Write(nil) {
			if err := r.ask(found); err != nil {
				return err
			}
			r.control.Release(found)
		}
		r.control.Flush()
	}
	current.control = payload
	r.Moved(length)
	r.queue = append(r.queue, current)
	return r.drain(nil)
}

// ask returns why what was found may not leave, or nil.
func (r *Relay) ask(found *scan.Finding) error {
	if r.Ask == nil {
		return &Error{PolicyViolation, fmt.Sprintf("a message holds what looks like a secret (%s)", found)}
	}
	return r.Ask(found)
}

func (r *Relay) dataFrame(current *run, length int, final bool) error {
	r.queue = append(r.queue, current)
	current.left = length
	for at := 0; at < length; {
		piece := r.buffer[:min(len(r.buffer), length-at)]
		n, err := r.In.Read(piece)
		if err != nil {
			return err
		}
		piece = piece[:n]
		mask(piece, current, at)
		at += n
		r.size += n
		r.Moved(n)
		if r.Blot {
			err = r.drain(r.data.Blot(piece, false))
		} else {
			clean, found := r.data.Write(piece)
			for ; found != nil && err == nil; clean, found = r.data.Write(nil) {
				if err := r.ask(found); err != nil {
					return err
				}
				if err = r.drain(clean); err == nil {
					err = r.drain(r.data.Release(found))
				}
			}
			if err == nil {
				err = r.drain(clean)
			}
		}
		if err != nil {
			return err
		}
	}
	if r.going = !final; final {
		r.size = 0
		return r.drain(r.data.Flush())
	}
	return r.drain(nil)
}

// mask masks or unmasks a piece that begins at that place of its frame's payload.
func mask(p []byte, frame *run, at int) {
	if frame.masked {
		for i := range p {
			p[i] ^= frame.key[(at+i)&3]
		}
	}
}

// drain writes what may leave: clean is the next of the payloads of the data frames in the queue.
func (r *Relay) drain(clean []byte) error {
	for len(r.queue) > 0 {
		first := r.queue[0]
		if first.control == nil && first.left > 0 && len(clean) == 0 {
			return nil
		}
		r.out = r.out[:0]
		if first.header != nil {
			r.out = append(r.out, first.header...)
			first.header = nil
		}
		payload := first.control
		if payload == nil {
			n := min(first.left, len(clean))
			payload, clean = clean[:n], clean[n:]
		}
		start := len(r.out)
		r.out = append(r.out, payload...)
		mask(r.out[start:], first, first.at)
		if first.control == nil {
			first.at, first.left = first.at+len(payload), first.left-len(payload)
		}
		if err := r.Out.write(r.out, first.left > 0); err != nil {
			return err
		}
		if first.left > 0 {
			return nil
		}
		r.queue = r.queue[1:]
	}
	return nil
}
