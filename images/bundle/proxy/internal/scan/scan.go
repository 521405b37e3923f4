// Package scan finds secrets in what is about to leave: by patterns, and the bottle's own known ones, as they are and in
// their usual encodings, at any offset and whatever they are glued to.
package scan

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"

	"bottle/proxy/internal/policy"
)

const (
	// Window is the longest match that is certain to be found, in bytes. A pattern's shortest match counts: what may follow
	// is open.
	Window = 4096
	// SecretMin is the shortest known secret that is looked for, in bytes: shorter ones would be found everywhere.
	SecretMin = 8
)

// A Finding is a secret that was found.
type Finding struct {
	// Name is the pattern's, or the credential's.
	Name string
	// Where says how it was written, such as " in base64".
	Where string
	// Start and End are its place among the bytes that were looked at.
	Start, End int
}

func (f *Finding) String() string { return f.Name + f.Where }

// A target is what a key of the finder leads to.
type target struct {
	// secret is a known secret's whole spelling; "" for a pattern.
	secret string
	name   string
	// form is set where the key is the beginning of a pattern's matches in a coding.
	form *form
	head string // what form stands for
}

// A Set is what is looked for. It is immutable.
type Set struct {
	finder   *finder
	targets  [][]target // by key
	patterns []compiled
	literal  *machines // patterns that are found by their beginnings
	general  *machines // those that have none
	exempt   []string
	longest  int // of the spellings of secrets
}

type compiled struct {
	name  string
	regex *regexp.Regexp
}

// machines are automatons for the same patterns, one for each goroutine that needs one.
type machines struct {
	pool sync.Pool
}

func newMachines(expressions []*syntax.Regexp) (*machines, error) {
	if len(expressions) == 0 {
		return nil, nil
	}
	first, err := newAutomaton(expressions)
	if err != nil {
		return nil, err
	}
	m := &machines{}
	m.pool.New = func() any { return first.clone() }
	return m, nil
}

// A Secret is one of the bottle's own.
type Secret struct{ Name, Value string }

// New returns a set of patterns and of known secrets. Text that begins with one of exempt is no secret: the
// placeholders that the agent holds.
func New(patterns []policy.Pattern, secrets []Secret, exempt []string) (*Set, error) {
	s := &Set{exempt: exempt}
	found := map[string][]target{}
	add := func(key string, t target) {
		key = key[:min(len(key), keyMax)]
		if !slices.Contains(found[key], t) {
			found[key] = append(found[key], t)
		}
	}
	var literal, general []*syntax.Regexp
	for _, pattern := range patterns {
		re, err := syntax.Parse(pattern.Regex, syntax.Perl)
		if err != nil {
			return nil, fmt.Errorf("the pattern %s: %w", pattern.Name, err)
		}
		re = withoutAssertions(re)
		regex, err := regexp.Compile(re.String())
		if err != nil {
			return nil, fmt.Errorf("the pattern %s: %w", pattern.Name, err)
		}
		s.patterns = append(s.patterns, compiled{pattern.Name, regex})
		keys := keysOf(re)
		if keys == nil {
			general = append(general, re)
			continue
		}
		literal = append(literal, re)
		for _, key := range keys {
			add(key, target{name: pattern.Name})
			for _, f := range forms(key) {
				add(f.text, target{name: pattern.Name, form: &f, head: key})
			}
		}
	}
	for _, secret := range secrets {
		if len(secret.Value) < SecretMin {
			continue
		}
		for _, spelling := range append(spellings(secret.Value), secret.Value) {
			if len(spelling) >= SecretMin {
				add(spelling, target{secret: spelling, name: secret.Name})
				s.longest = max(s.longest, len(spelling))
			}
		}
	}
	keys := make([]string, 0, len(found))
	for key := range found {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		s.targets = append(s.targets, found[key])
	}
	s.finder = newFinder(keys)
	var err error
	if s.literal, err = newMachines(literal); err == nil {
		s.general, err = newMachines(general)
	}
	return s, err
}

// Empty reports whether the set finds nothing.
func (s *Set) Empty() bool { return s == nil || len(s.targets) == 0 && s.general == nil }

// Find returns the first secret in p, or nil.
func (s *Set) Find(p []byte) *Finding {
	if s.Empty() {
		return nil
	}
	found, _ := s.search(p, true)
	return found
}

// search looks through p. clean is how much of it, from its beginning, is neither part of a secret nor, unless it is the
// last, may become one with what follows.
func (s *Set) search(p []byte, last bool) (found *Finding, clean int) {
	clean = len(p)
	hold := func(at int) { clean = min(clean, at) }
	if s.general != nil {
		if f, open := s.searchAll(p); f != nil {
			found = f
			p = p[:f.Start] // What is found before it counts first.
		} else {
			hold(open)
		}
	}
	if f, open := s.searchKeys(p, last || found != nil); f != nil {
		found = f
	} else {
		hold(open)
	}
	if found != nil {
		return found, found.Start
	}
	if last {
		return nil, len(p)
	}
	if !last {
		hold(s.finder.tail(p))
	}
	// What is longer than the window is not waited for.
	return nil, max(clean, len(p)-max(Window, s.longest))
}

// Names returns the names of all secrets in p.
func (s *Set) Names(p []byte) (names []string) {
	for at := 0; at < len(p); {
		found := s.Find(p[at:])
		if found == nil {
			break
		}
		if !slices.Contains(names, found.String()) {
			names = append(names, found.String())
		}
		at += max(found.End, 1)
	}
	return names
}

// searchAll runs the patterns without beginnings over all of p.
func (s *Set) searchAll(p []byte) (found *Finding, open int) {
	machine := s.general.pool.Get().(*automaton)
	defer s.general.pool.Put(machine)
	idle := machine.idle()
	for at := 0; at < len(p); {
		if idle[p[at]] {
			at++
			continue
		}
		n, matched, quiet := machine.run(p[at:])
		if matched {
			if f := s.confirm(p[at : at+n]); f != nil {
				f.Start, f.End = f.Start+at, f.End+at
				return f, at
			}
			// Not one after all: on behind its first byte.
			at++
			continue
		}
		if !quiet {
			return nil, at
		}
		at += n
	}
	return nil, len(p)
}

// confirm has package regexp look at what an automaton took for a match.
func (s *Set) confirm(p []byte) *Finding {
	for _, pattern := range s.patterns {
		if place := pattern.regex.FindIndex(p); place != nil && !s.exempted(p[place[0]:]) {
			return &Finding{Name: pattern.name, Start: place[0], End: place[1]}
		}
	}
	return nil
}

func (s *Set) exempted(p []byte) bool {
	return slices.ContainsFunc(s.exempt, func(text string) bool {
		// An automaton stops at the end of the shortest match, within the placeholder.
		n := min(len(text), len(p))
		return n >= keyMin && string(p[:n]) == text[:n]
	})
}

// searchKeys looks for what has a beginning of its own.
func (s *Set) searchKeys(p []byte, last bool) (found *Finding, open int) {
	open = len(p)
	var machine *automaton
	if s.literal != nil {
		machine = s.literal.pool.Get().(*automaton)
		defer s.literal.pool.Put(machine)
	}
	searched := 0 // up to where the automaton has been
	for at := s.finder.next(p, 0); at >= 0; at = s.finder.next(p, at+1) {
		for _, k := range s.finder.buckets[[keyMin]byte(p[at:at+keyMin])] {
			key := s.finder.keys[k]
			rest := p[at:]
			if len(rest) < len(key) {
				continue // The tail of p holds it.
			}
			if string(rest[:len(key)]) != key {
				continue
			}
			for i := range s.targets[k] {
				t := &s.targets[k][i]
				f, more, covered := s.lookAt(t, machine, p, at, searched)
				searched = max(searched, covered)
				if f != nil {
					return f, at
				}
				if more && !last {
					open = min(open, at)
				}
			}
		}
	}
	return nil, open
}

// lookAt decides about a key that was found. more reports that what follows may make a secret of it.
func (s *Set) lookAt(t *target, machine *automaton, p []byte, at, searched int) (found *Finding, more bool, covered int) {
	rest := p[at:]
	switch {
	case t.secret != "":
		n := min(len(rest), len(t.secret))
		if string(rest[:n]) != t.secret[:n] {
			return nil, false, 0
		}
		if n < len(t.secret) {
			return nil, true, 0
		}
		return &Finding{Name: t.name, Start: at, End: at + n}, false, 0
	case t.form != nil && len(rest) < len(t.form.text):
		return nil, string(rest) == t.form.text[:len(rest)], 0
	case t.form != nil && string(rest[:len(t.form.text)]) != t.form.text:
		return nil, false, 0
	case t.form != nil:
		text, consumed, open := t.form.decode(rest[t.form.rest:], Window)
		whole := append([]byte(t.head), text...)
		n, matched, quiet := machine.run(whole)
		if matched {
			if f := s.confirm(whole[:n]); f != nil {
				return &Finding{Name: f.Name, Where: codingNames[t.form.coding], Start: at, End: at + t.form.rest + consumed}, false, 0
			}
		}
		return nil, !matched && !quiet && open, 0
	case at < searched:
		return nil, false, 0
	default:
		n, matched, quiet := machine.run(rest)
		if matched {
			if f := s.confirm(rest[:n]); f != nil {
				return &Finding{Name: f.Name, Start: at + f.Start, End: at + f.End}, false, 0
			}
			return nil, false, 0
		}
		return nil, !quiet, at + n
	}
}

// layers bounds how often FindDeep decodes, and what it decodes in all.
const (
	layers     = 3
	deepBudget = 1 << 20
)

// FindDeep looks through a short text as it is and behind up to three encodings, one inside of the other.
func (s *Set) FindDeep(text string) (found *Finding) {
	s.deep(text, func(candidate string, depth int) bool {
		if found = s.Find([]byte(candidate)); found != nil && depth > 0 {
			found.Where = " behind an encoding"
		}
		return found == nil
	})
	return found
}

// NamesDeep returns the names of all secrets that are in a short text, or behind its encodings.
func (s *Set) NamesDeep(text string) (names []string) {
	s.deep(text, func(candidate string, depth int) bool {
		for _, name := range s.Names([]byte(candidate)) {
			if depth > 0 {
				name, _, _ = strings.Cut(name, " ")
				name += " behind an encoding"
			}
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		return true
	})
	return names
}

// deep calls visit with the text and with what it may have been before it was encoded, until that returns false.
func (s *Set) deep(text string, visit func(candidate string, depth int) bool) {
	if s.Empty() {
		return
	}
	layer, seen, budget := []string{text}, map[string]bool{}, deepBudget
	for depth := 0; depth <= layers && len(layer) > 0; depth++ {
		var deeper []string
		for _, candidate := range layer {
			if !visit(candidate, depth) {
				return
			}
			for _, decoded := range decodings(candidate) {
				if budget -= len(decoded); budget < 0 {
					return
				}
				if !seen[decoded] {
					seen[decoded] = true
					deeper = append(deeper, decoded)
				}
			}
		}
		layer = deeper
	}
}

// decodings are what a text may have been before it was encoded.
func decodings(text string) (list []string) {
	if strings.IndexByte(text, '%') >= 0 || strings.IndexByte(text, '+') >= 0 {
		decoded, _, _ := decodeEscapes([]byte(strings.ReplaceAll(text, " ", "+")), percentCoding, len(text)+1)
		if string(decoded) != text {
			list = append(list, string(decoded))
		}
	}
	for _, run := range runs(text, 16, func(c byte) bool { return base64Values[c] >= 0 }) {
		for shift := range 4 {
			decoded, _, _ := decodeBase64([]byte(run[shift:]), 0, len(run))
			list = append(list, string(decoded))
		}
	}
	for _, run := range runs(text, 24, func(c byte) bool { _, ok := unhex(c); return ok }) {
		f := form{coding: hexCoding}
		for shift := range 2 {
			decoded, _, _ := f.decode([]byte(run[shift:]), len(run))
			list = append(list, string(decoded))
		}
	}
	return list
}

// runs are the longest stretches of text of at least that length whose bytes all belong.
func runs(text string, least int, belongs func(c byte) bool) (list []string) {
	start := 0
	for i := 0; i <= len(text); i++ {
		if i < len(text) && belongs(text[i]) {
			continue
		}
		if i-start >= least {
			list = append(list, text[start:i])
		}
		start = i + 1
	}
	return list
}
