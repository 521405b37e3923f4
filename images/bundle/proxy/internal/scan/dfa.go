package scan

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"unicode"
)

// An automaton finds where some pattern may match, one byte at a time. Its states are made as they are met.
//
// It errs on the side of a match: bytes of runes beyond ASCII stand for any such rune. A match that it sees is looked at
// by package regexp before it counts.
type automaton struct {
	prog    *syntax.Prog
	classes [256]uint8
	sample  []byte // a byte of each class
	sets    [][]uint32
	matches []bool
	next    []int32 // by state*len(sample)+class; 0: not made yet
	known   map[string]int32
	start   int32
	marks   []uint32 // pcs that the closure under way has seen
	mark    uint32
	quiet   [256]bool
	idled   bool
}

// maxStates bounds the memory of an automaton; beyond it the states are made anew.
const maxStates = 4096

func newAutomaton(expressions []*syntax.Regexp) (*automaton, error) {
	whole := &syntax.Regexp{Op: syntax.OpAlternate, Sub: expressions}
	if len(expressions) == 1 {
		whole = expressions[0]
	}
	prog, err := syntax.Compile(whole.Simplify())
	if err != nil {
		return nil, err
	}
	a := &automaton{prog: prog, marks: make([]uint32, len(prog.Inst))}
	a.classify()
	a.reset()
	return a, nil
}

// clone returns an automaton without states for the same patterns: one is used by one goroutine at a time.
func (a *automaton) clone() *automaton {
	b := &automaton{prog: a.prog, classes: a.classes, sample: a.sample, marks: make([]uint32, len(a.prog.Inst))}
	b.reset()
	return b
}

// classify makes classes of the bytes that no instruction tells apart.
func (a *automaton) classify() {
	seen := map[string]uint8{}
	for c := range 256 {
		key := make([]byte, 0, len(a.prog.Inst))
		if c >= 0x80 {
			c = 0x80
		}
		for i := range a.prog.Inst {
			if consumes(&a.prog.Inst[i], byte(c)) {
				key = append(key, 1)
			} else {
				key = append(key, 0)
			}
		}
		class, ok := seen[string(key)]
		if !ok {
			class = uint8(len(seen))
			seen[string(key)] = class
			a.sample = append(a.sample, byte(c))
		}
		if c == 0x80 {
			for high := 0x80; high < 256; high++ {
				a.classes[high] = class
			}
			return
		}
		a.classes[c] = class
	}
}

func consumes(inst *syntax.Inst, c byte) bool {
	switch inst.Op {
	case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
	default:
		return false
	}
	if c < 0x80 {
		return inst.MatchRune(rune(c))
	}
	return beyondASCII(inst)
}

// beyondASCII reports whether an instruction may consume a rune that takes more than one byte.
func beyondASCII(inst *syntax.Inst) bool {
	switch inst.Op {
	case syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return true
	case syntax.InstRune, syntax.InstRune1:
		for _, r := range inst.Rune {
			if r >= 0x80 {
				return true
			}
		}
		if syntax.Flags(inst.Arg)&syntax.FoldCase != 0 {
			for _, r := range inst.Rune {
				for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
					if f >= 0x80 {
						return true
					}
				}
			}
		}
	}
	return false
}

func (a *automaton) reset() {
	a.sets, a.matches, a.next, a.known = nil, nil, nil, map[string]int32{}
	a.state(nil) // State 0 stands for "not made yet".
	a.start = a.state(a.closure(nil))
}

// closure is the sorted set of the instructions that wait for a byte, or match, when the pcs have been reached. A match
// may begin at every byte.
func (a *automaton) closure(pcs []uint32) []uint32 {
	a.mark++
	var set []uint32
	var follow func(pc uint32)
	follow = func(pc uint32) {
		if a.marks[pc] == a.mark {
			return
		}
		a.marks[pc] = a.mark
		switch inst := &a.prog.Inst[pc]; inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			follow(inst.Out)
			follow(inst.Arg)
		case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
			follow(inst.Out)
		case syntax.InstFail:
		default:
			set = append(set, pc)
		}
	}
	for _, pc := range pcs {
		follow(pc)
	}
	follow(uint32(a.prog.Start))
	slices.Sort(set)
	return set
}

func (a *automaton) state(set []uint32) int32 {
	key := make([]byte, 0, 4*len(set))
	match := false
	for _, pc := range set {
		key = binary.LittleEndian.AppendUint32(key, pc)
		match = match || a.prog.Inst[pc].Op == syntax.InstMatch
	}
	if id, ok := a.known[string(key)]; ok && set != nil {
		return id
	}
	id := int32(len(a.sets))
	if set != nil {
		a.known[string(key)] = id
	}
	a.sets, a.matches = append(a.sets, set), append(a.matches, match)
	a.next = append(a.next, make([]int32, len(a.sample))...)
	return id
}

// step returns the state after a byte.
func (a *automaton) step(from int32, c byte) int32 {
	class := a.classes[c]
	if to := a.next[int(from)*len(a.sample)+int(class)]; to != 0 {
		return to
	}
	return a.make(from, class)
}

func (a *automaton) make(from int32, class uint8) int32 {
	var reached []uint32
	c := a.sample[class]
	for _, pc := range a.sets[from] {
		if inst := &a.prog.Inst[pc]; consumes(inst, c) {
			reached = append(reached, inst.Out)
			if c >= 0x80 {
				reached = append(reached, pc) // Another byte of the same rune.
			}
		}
	}
	set := a.closure(reached)
	if len(a.sets) >= maxStates {
		a.reset()
		return a.state(set)
	}
	to := a.state(set)
	a.next[int(from)*len(a.sample)+int(class)] = to
	return to
}

// idle are the bytes that no match begins with.
func (a *automaton) idle() *[256]bool {
	if !a.idled {
		for c := range a.quiet {
			a.quiet[c] = a.step(a.start, byte(c)) == a.start
		}
		a.idled = true
	}
	return &a.quiet
}

// run reads from p and returns how far it came: to the end of the first match, to where no match is under way (quiet), or
// to the end.
func (a *automaton) run(p []byte) (n int, matched, quiet bool) {
	state := a.start
	for i, c := range p {
		state = a.step(state, c)
		if a.matches[state] {
			return i + 1, true, false
		}
		if state == a.start {
			return i + 1, false, true
		}
	}
	return len(p), false, false
}
