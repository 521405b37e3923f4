package leaks

import (
	"bytes"
	"io"
	"maps"
	"slices"
)

// Sizes of the piece of a stream that is looked at as a whole, in bytes.
const (
	step = 1 << 20
	// reach is how much of the text on either side of a literal a rule gets to see at most.
	reach = 64 << 10
	// margin is what stays around a window, for what a rule asks of a match's neighbours.
	margin = 4
	// MaxFindings ends a scan: the rest would say nothing new about a push that is refused anyway.
	MaxFindings = 20
	// maxSecrets is how many secrets of a text are told apart.
	maxSecrets = 10_000
)

// seam stands where a window was cut out of its text. It is no word character, no blank, and in no secret, so that
// nothing matches by the cut.
const seam = "\x01"

// A Secret is what a rule found. Never print Text.
type Secret struct{ Rule, Text string }

// A Finding is a secret and the line it is on, from 1; 0 for the path.
type Finding struct {
	Secret
	Line int
}

// A Scanner scans streams one after the other, in constant memory. It is for one goroutine.
type Scanner struct {
	rules    *Rules
	known    *Known
	buffer   []byte
	stripped []byte
	hits     []hit
	windows  []span // By rule: what is to be judged next.
	findings []Finding
	seen     map[Secret]bool // What was found, and what does not count.
	limit    int             // Of findings.
	path     string
	// What is being scanned, and the number of lines before it: what is found in a part is found there.
	outer text
	lines int
}

// NewScanner returns a scanner for rules, and for the credentials that known describes, which may be nil.
func NewScanner(rules *Rules, known *Known) *Scanner {
	return &Scanner{rules: rules, known: known, windows: make([]span, len(rules.rules))}
}

// Scan reads the text to its end and returns what it holds, at most MaxFindings. path is the text's place in the
// repository, or empty. The secrets in known don't count; it may be nil. Like a read, Scan fails with what content fails
// with.
func (s *Scanner) Scan(path string, content io.Reader, known map[Secret]bool) ([]Finding, error) {
	s.seen = maps.Clone(known)
	s.limit = MaxFindings
	return s.run(path, content)
}

// Secrets returns all that a text holds, for a Scan to leave out. It stops at so many that nobody could have looked at
// each.
func (s *Scanner) Secrets(path string, content io.Reader) (map[Secret]bool, error) {
	s.seen = nil
	s.limit = maxSecrets
	_, err := s.run(path, content)
	return s.seen, err
}

func (s *Scanner) run(path string, content io.Reader) ([]Finding, error) {
	if s.seen == nil {
		s.seen = map[Secret]bool{}
	}
	s.findings, s.path = nil, path
	for _, name := range s.rules.byPath(path) {
		s.add(name, path, -1)
	}
	s.buffer = s.buffer[:0]
	s.lines = 0
	start := 0 // Where the part of the buffer begins that has not been scanned.
	for {
		n, err := s.fill(content)
		if err != nil && err != io.EOF {
			return nil, err
		}
		last := err == io.EOF
		end := len(s.buffer)
		if !last {
			end -= reach
		}
		if n > 0 || start < end {
			s.piece(text{s.buffer, start == 0, last}, start, end)
		}
		if last || s.full() {
			return s.findings, nil
		}
		keep := max(0, end-reach)
		s.lines += bytes.Count(s.buffer[:keep], []byte("\n"))
		s.buffer = append(s.buffer[:0], s.buffer[keep:]...)
		start = end - keep
	}
}

// fill reads until the buffer is full.
func (s *Scanner) fill(content io.Reader) (int, error) {
	const size = step + 2*reach
	had := len(s.buffer)
	for len(s.buffer) < size {
		if len(s.buffer) == cap(s.buffer) {
			s.buffer = slices.Grow(s.buffer, min(size-len(s.buffer), max(len(s.buffer), 32<<10)))
		}
		n, err := content.Read(s.buffer[len(s.buffer):min(size, cap(s.buffer))])
		s.buffer = s.buffer[:len(s.buffer)+n]
		if err != nil {
			return len(s.buffer) - had, err
		}
	}
	return len(s.buffer) - had, nil
}

// A span is a part of a text.
type span struct{ from, until int }

// A text is a piece of content, and tells whether the content really begins and ends where it does.
type text struct {
	data         []byte
	begins, ends bool
}

// piece scans what begins in data[start:end], first as it is, then without NUL bytes (UTF-16 is ASCII then), then
// decoded.
func (s *Scanner) piece(t text, start, end int) {
	s.outer = t
	s.scan(t, start, end, itself)
	s.decode(t, start, end, 0, itself)
	if bytes.IndexByte(t.data[start:], 0) < 0 {
		return
	}
	s.stripped = s.stripped[:0]
	from, to := 0, 0
	for i, b := range t.data {
		if i == start {
			from = len(s.stripped)
		}
		if i == end {
			to = len(s.stripped)
		}
		if b != 0 {
			s.stripped = append(s.stripped, b)
		}
	}
	if end == len(t.data) {
		to = len(s.stripped)
	}
	s.outer = text{s.stripped, t.begins, t.ends}
	s.scan(s.outer, from, to, itself)
	s.decode(s.outer, from, to, 0, itself)
}

// itself is the origin of a text that is s.outer. That of one that was decoded is its offset there.
const itself = -1

// scan looks for all that begins in t.data[start:end].
func (s *Scanner) scan(t text, start, end, origin int) {
	rules := s.rules
	until := min(len(t.data), end+reach)
	s.hits = rules.automaton.find(t.data[start:until], rules.lengths, s.hits[:0])
	hits := s.hits
	for _, h := range hits {
		if at := start + h.offset; at < end {
			for _, index := range rules.anchored[h.literal] {
				s.try(index, t, at, origin)
			}
		}
	}
	for _, index := range rules.gated {
		each := rules.rules[index]
		if (each.place == nil || each.place.MatchString(s.path)) && passes(each.gate, hits) {
			s.gated(index, t, start, end, origin)
		}
	}
	for _, index := range rules.wide {
		s.window(index, t, span{max(0, start-reach), until}, origin)
	}
	for index := range s.windows {
		s.window(int32(index), t, span{}, origin)
	}
	if s.known != nil {
		s.known.find(t.data[start:until], func(name string, offset, length int) {
			s.add(name, string(t.data[start+offset:start+offset+length]), place(origin, start+offset))
		})
	}
}

func passes(gate []int32, hits []hit) bool {
	for _, h := range hits {
		if slices.Contains(gate, h.literal) {
			return true
		}
	}
	return false
}

func (s *Scanner) gated(index int32, t text, start, end, origin int) {
	r := s.rules.rules[index]
	if r.own == nil {
		s.window(index, t, span{max(0, start-reach), min(len(t.data), end+reach)}, origin)
		return
	}
	for _, h := range r.own.find(t.data[start:end], r.lengths, nil) {
		s.try(index, t, start+h.offset, origin)
	}
}

// try tries a rule at one of its literals.
func (s *Scanner) try(index int32, t text, at, origin int) {
	r := s.rules.rules[index]
	if r.place != nil && !r.place.MatchString(s.path) {
		return
	}
	from := max(0, at-min(r.anchor.before, reach)-margin)
	until := min(len(t.data), at+min(r.anchor.after, reach)+margin)
	if r.anchor.rest != nil {
		length := r.anchor.begins(t.data[at:until])
		if length < 0 {
			return
		}
		until = min(until, at+length+margin)
	}
	s.window(index, t, span{from, until}, origin)
}

// window lets a rule judge a part of the text, together with the parts that follow if they overlap: the part before is
// judged when another one comes, or an empty one.
func (s *Scanner) window(index int32, t text, next span, origin int) {
	last := s.windows[index]
	if last.until > 0 && next.until > 0 && next.from <= last.until && next.until >= last.from {
		s.windows[index] = span{min(last.from, next.from), max(last.until, next.until)}
		return
	}
	s.windows[index] = next
	if last.until == 0 {
		return
	}
	before, after := seam, seam
	if last.from == 0 && t.begins {
		before = ""
	}
	if last.until == len(t.data) && t.ends {
		after = ""
	}
	r, part := s.rules.rules[index], t.data[last.from:last.until]
	for _, secret := range r.secrets(before + string(part) + after) {
		offset := max(0, bytes.Index(part, []byte(secret)))
		s.add(r.name, secret, place(origin, last.from+offset))
	}
}

func place(origin, offset int) int {
	if origin == itself {
		return offset
	}
	return origin
}

func (s *Scanner) full() bool { return len(s.findings) >= s.limit }

// add takes a finding down, with its offset in s.outer, or a negative one.
func (s *Scanner) add(rule, text string, offset int) {
	secret := Secret{rule, text}
	if s.full() || s.seen[secret] {
		return
	}
	s.seen[secret] = true
	line := 0
	if offset >= 0 {
		line = s.lines + 1 + bytes.Count(s.outer.data[:offset], []byte("\n"))
	}
	s.findings = append(s.findings, Finding{secret, line})
}
