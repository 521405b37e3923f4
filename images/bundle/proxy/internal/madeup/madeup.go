// Package madeup makes up tokens for tests: texts that a regular expression matches, and that are nobody's.
package madeup

import (
	"math/rand/v2"
	"regexp/syntax"
	"strings"
)

// A Maker makes up texts. The same seed makes the same ones.
type Maker struct{ *rand.Rand }

// New returns a maker.
func New(seed uint64) Maker { return Maker{rand.New(rand.NewPCG(seed, 1))} }

// Match returns a text that the expression is likely to match. What the expression asks of a place between two characters
// it does not care about.
func (m Maker) Match(re *syntax.Regexp) string {
	var made strings.Builder
	m.write(&made, re)
	return made.String()
}

func (m Maker) write(w *strings.Builder, re *syntax.Regexp) {
	switch re.Op {
	case syntax.OpLiteral:
		w.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		w.WriteRune(m.member(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		w.WriteRune(rune(' ' + m.IntN(95)))
	case syntax.OpCapture:
		m.write(w, re.Sub[0])
	case syntax.OpStar:
		m.repeat(w, re.Sub[0], 0, -1)
	case syntax.OpPlus:
		m.repeat(w, re.Sub[0], 1, -1)
	case syntax.OpQuest:
		m.repeat(w, re.Sub[0], 0, 1)
	case syntax.OpRepeat:
		m.repeat(w, re.Sub[0], re.Min, re.Max)
	case syntax.OpConcat:
		for _, part := range re.Sub {
			m.write(w, part)
		}
	case syntax.OpAlternate:
		m.write(w, re.Sub[m.IntN(len(re.Sub))])
	}
}

func (m Maker) repeat(w *strings.Builder, re *syntax.Regexp, low, high int) {
	if high < 0 {
		high = low + 8
	}
	// What may be missing often is, so that texts are not as long as the expression allows.
	for range low + min(m.IntN(high-low+1), m.IntN(high-low+1)) {
		m.write(w, re)
	}
}

// member returns a member of a class: a printable one of ASCII where there is one.
func (m Maker) member(ranges []rune) rune {
	var members []rune
	for i := 0; i < len(ranges); i += 2 {
		for r := max(ranges[i], ' '); r <= min(ranges[i+1], '~'); r++ {
			members = append(members, r)
		}
	}
	if len(members) == 0 {
		return ranges[0]
	}
	return members[m.IntN(len(members))]
}

// Prose returns text of at least size bytes that has some of the words in it.
func (m Maker) Prose(size int, words []string) string {
	var b strings.Builder
	for b.Len() < size {
		if m.IntN(8) == 0 {
			b.WriteString(words[m.IntN(len(words))])
		}
		b.WriteString([]string{" the ", "key of\n", " = x; ", "(token) ", "\t", "A secret is "}[m.IntN(6)])
	}
	return b.String()
}
