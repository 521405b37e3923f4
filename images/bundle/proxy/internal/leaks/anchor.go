package leaks

import (
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
	"unicode"
)

// Bounds of what the analysis takes into account. A set that would be larger says less than it costs.
const (
	unbounded   = 1 << 30
	maxLiterals = 80
	maxLength   = 24
	maxClass    = 12
)

// An anchor says where in a text a regular expression has to be tried: every match contains one of the literals.
type anchor struct {
	literals []string // In lower case.
	// before and after bound the match's length on either side of the literal's first byte, in bytes.
	before, after int
	// rest, where it is not nil, is matched at the literal's first byte if a match has its literal there.
	rest *syntax.Regexp
	once sync.Once
	lead *regexp.Regexp
}

// begins returns the length of what may be a match with its literal at the beginning of data, or -1.
func (a *anchor) begins(data []byte) int {
	a.once.Do(func() { a.lead = regexp.MustCompile(`\A(?:` + a.rest.String() + `)`) })
	if found := a.lead.FindIndex(data); found != nil {
		return found[1]
	}
	return -1
}

type set map[string]bool

// An analysis remembers what exactly has found.
type analysis map[*syntax.Regexp]set

// anchorOf analyses a regular expression. It returns nil where no literal of at least shortest bytes is in every match.
func anchorOf(expression string, shortest int) *anchor {
	parsed, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil
	}
	a := analysis{}
	if l := a.leading(parsed); l != nil && l.literals.shortest() >= shortest {
		return &anchor{literals: l.literals.list(), before: l.before, after: width(l.rest), rest: l.rest}
	}
	if r := a.required(parsed); r != nil && r.literals.shortest() >= shortest {
		return &anchor{literals: r.literals.list(), before: r.before, after: r.after}
	}
	return nil
}

func (s set) shortest() int {
	shortest := unbounded
	for literal := range s {
		shortest = min(shortest, len(literal))
	}
	return shortest
}

func (s set) list() []string {
	list := make([]string, 0, len(s))
	for literal := range s {
		list = append(list, literal)
	}
	return list
}

// A lead is a regular expression without what may be missing at its beginning.
type lead struct {
	rest     *syntax.Regexp
	literals set  // One of them begins each match of rest.
	before   int  // How much the part that is left out may match, in bytes.
	cut      bool // rest matches a beginning of what the whole matches.
}

// leading returns a lead of which this holds: where the whole matches, rest matches from some place within the match.
// It returns nil where the literals can't be told.
func (a analysis) leading(re *syntax.Regexp) *lead {
	if literals, _ := a.prefixes(re); !literals[""] {
		return &lead{rest: re, literals: literals}
	}
	switch re.Op {
	case syntax.OpCapture:
		return a.leading(re.Sub[0])
	case syntax.OpPlus, syntax.OpRepeat:
		if re.Op == syntax.OpRepeat && re.Min == 0 {
			return nil
		}
		if l := a.leading(re.Sub[0]); l != nil {
			l.cut = true
			return l
		}
	case syntax.OpAlternate:
		return a.leadingOfAny(re.Sub)
	case syntax.OpConcat:
		return a.leadingOfAll(re.Sub)
	}
	return nil
}

func (a analysis) leadingOfAny(alternatives []*syntax.Regexp) *lead {
	joined := &lead{rest: &syntax.Regexp{Op: syntax.OpAlternate}, literals: set{}}
	for _, each := range alternatives {
		l := a.leading(each)
		if l == nil {
			return nil
		}
		for literal := range l.literals {
			joined.literals[literal] = true
		}
		joined.rest.Sub = append(joined.rest.Sub, l.rest)
		joined.before = max(joined.before, l.before)
		joined.cut = joined.cut || l.cut
	}
	if len(joined.literals) > maxLiterals {
		return nil
	}
	return joined
}

func (a analysis) leadingOfAll(parts []*syntax.Regexp) *lead {
	before := 0
	for i, part := range parts {
		if nullable(part) {
			before = sum(before, width(part))
			continue
		}
		rest := concat(parts[i:])
		if literals, _ := a.prefixes(rest); !literals[""] {
			return &lead{rest: rest, literals: literals, before: before}
		}
		l := a.leading(part)
		if l == nil {
			return nil
		}
		l.before = sum(l.before, before)
		if !l.cut {
			l.rest = concat(append([]*syntax.Regexp{l.rest}, parts[i+1:]...))
		}
		return l
	}
	return nil
}

func concat(parts []*syntax.Regexp) *syntax.Regexp {
	return &syntax.Regexp{Op: syntax.OpConcat, Sub: parts}
}

// prefixes returns literals of which one begins each match, and whether they are all that there is to match.
func (a analysis) prefixes(re *syntax.Regexp) (literals set, whole bool) {
	if exact := a.exactly(re); exact != nil {
		return exact, true
	}
	switch re.Op {
	case syntax.OpCapture:
		return a.prefixes(re.Sub[0])
	case syntax.OpPlus:
		literals, _ = a.prefixes(re.Sub[0])
		return literals, false
	case syntax.OpRepeat:
		if re.Min > 0 {
			literals, _ = a.prefixes(re.Sub[0])
			return literals, false
		}
	case syntax.OpConcat:
		literals, whole = set{"": true}, true
		for _, part := range re.Sub {
			next, all := a.prefixes(part)
			longer := cross(literals, next)
			if longer == nil {
				return literals, false
			}
			literals = longer
			if !all {
				return literals, false
			}
		}
		return literals, whole
	case syntax.OpAlternate:
		literals, whole = set{}, true
		for _, each := range re.Sub {
			next, all := a.prefixes(each)
			literals, whole = union(literals, next), whole && all
			if literals == nil {
				return set{"": true}, false
			}
		}
		return literals, whole
	}
	return set{"": true}, false
}

// A requirement is a set of literals of which each match contains one.
type requirement struct {
	literals      set
	before, after int
}

// required returns the requirement that seems the rarest in a text, or nil.
func (a analysis) required(re *syntax.Regexp) *requirement {
	if exact := a.exactly(re); exact != nil && !exact[""] {
		return &requirement{exact, 0, width(re)}
	}
	switch re.Op {
	case syntax.OpCapture:
		return a.required(re.Sub[0])
	case syntax.OpPlus:
		return a.required(re.Sub[0]).within(unbounded, unbounded)
	case syntax.OpRepeat:
		if re.Min > 0 {
			return a.required(re.Sub[0]).within(width(re), width(re))
		}
	case syntax.OpAlternate:
		joined := &requirement{literals: set{}}
		for _, each := range re.Sub {
			r := a.required(each)
			if r == nil {
				return nil
			}
			for literal := range r.literals {
				joined.literals[literal] = true
			}
			joined.before, joined.after = max(joined.before, r.before), max(joined.after, r.after)
		}
		if len(joined.literals) > maxLiterals {
			return nil
		}
		return joined
	case syntax.OpConcat:
		return a.requiredOfAll(re.Sub)
	}
	return nil
}

func (a analysis) requiredOfAll(parts []*syntax.Regexp) *requirement {
	var best *requirement
	for i := 0; i < len(parts); {
		end := i + 1
		var found *requirement
		if literals := a.exactly(parts[i]); literals != nil {
			for end < len(parts) {
				longer := cross(literals, a.exactly(parts[end]))
				if longer == nil {
					break
				}
				literals, end = longer, end+1
			}
			if !literals[""] {
				found = &requirement{literals, 0, width(concat(parts[i:end]))}
			}
		} else {
			found = a.required(parts[i])
		}
		found = found.within(width(concat(parts[:i])), width(concat(parts[end:])))
		if found != nil && (best == nil || found.literals.shortest() > best.literals.shortest()) {
			best = found
		}
		i = end
	}
	return best
}

func (r *requirement) within(before, after int) *requirement {
	if r == nil {
		return nil
	}
	return &requirement{r.literals, sum(r.before, before), sum(r.after, after)}
}

// exactly returns all that re matches, in lower case, or nil where that is too much.
func (a analysis) exactly(re *syntax.Regexp) set {
	found, ok := a[re]
	if !ok {
		found = a.exact(re)
		a[re] = found
	}
	return found
}

func (a analysis) exact(re *syntax.Regexp) set {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText,
		syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return set{"": true}
	case syntax.OpLiteral:
		if literal := strings.ToLower(string(re.Rune)); len(literal) <= maxLength && ascii(literal) {
			return set{literal: true}
		}
	case syntax.OpCharClass:
		return classMembers(re.Rune)
	case syntax.OpCapture:
		return a.exactly(re.Sub[0])
	case syntax.OpQuest:
		return union(set{"": true}, a.exactly(re.Sub[0]))
	case syntax.OpRepeat:
		if re.Min != re.Max {
			return nil
		}
		all := set{"": true}
		for range re.Max {
			all = cross(all, a.exactly(re.Sub[0]))
		}
		return all
	case syntax.OpConcat:
		all := set{"": true}
		for _, part := range re.Sub {
			all = cross(all, a.exactly(part))
		}
		return all
	case syntax.OpAlternate:
		all := set{}
		for _, each := range re.Sub {
			all = union(all, a.exactly(each))
		}
		return all
	}
	return nil
}

// classMembers returns the members of a character class of few ASCII characters. What folding adds beyond ASCII (the
// Kelvin sign to k, the long s to s) is left out: nobody writes a token with them.
func classMembers(ranges []rune) set {
	members := set{}
	for i := 0; i < len(ranges); i += 2 {
		low, high := ranges[i], ranges[i+1]
		if low == high && (low == '\u212a' || low == '\u017f') {
			continue
		}
		if high > unicode.MaxASCII || high-low > maxClass {
			return nil
		}
		for r := low; r <= high; r++ {
			members[strings.ToLower(string(r))] = true
		}
	}
	if len(members) == 0 || len(members) > maxClass {
		return nil
	}
	return members
}

func ascii(text string) bool {
	for i := range len(text) {
		if text[i] > unicode.MaxASCII {
			return false
		}
	}
	return true
}

func union(a, b set) set {
	if a == nil || b == nil || len(a)+len(b) > maxLiterals {
		return nil
	}
	all := set{}
	for literal := range a {
		all[literal] = true
	}
	for literal := range b {
		all[literal] = true
	}
	return all
}

func cross(a, b set) set {
	if a == nil || b == nil || len(a)*len(b) > maxLiterals {
		return nil
	}
	all := set{}
	for x := range a {
		for y := range b {
			if len(x)+len(y) > maxLength {
				return nil
			}
			all[x+y] = true
		}
	}
	return all
}

func sum(a, b int) int { return min(a+b, unbounded) }

// nullable tells whether re matches the empty string, at some place at least.
func nullable(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpLiteral, syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL, syntax.OpNoMatch:
		return false
	case syntax.OpCapture, syntax.OpPlus:
		return nullable(re.Sub[0])
	case syntax.OpRepeat:
		return re.Min == 0 || nullable(re.Sub[0])
	case syntax.OpConcat:
		for _, part := range re.Sub {
			if !nullable(part) {
				return false
			}
		}
		return true
	case syntax.OpAlternate:
		for _, each := range re.Sub {
			if nullable(each) {
				return true
			}
		}
		return false
	}
	return true
}

// width returns the length of the longest match, in bytes of UTF-8.
func width(re *syntax.Regexp) int {
	switch re.Op {
	case syntax.OpLiteral:
		n := 0
		for _, r := range re.Rune {
			n += runeWidth(r, re.Flags&syntax.FoldCase != 0)
		}
		return n
	case syntax.OpCharClass:
		if len(re.Rune) == 0 {
			return 0
		}
		return runeWidth(re.Rune[len(re.Rune)-1], false)
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 4
	case syntax.OpCapture, syntax.OpQuest:
		return width(re.Sub[0])
	case syntax.OpStar, syntax.OpPlus:
		return times(width(re.Sub[0]), -1)
	case syntax.OpRepeat:
		return times(width(re.Sub[0]), re.Max)
	case syntax.OpConcat:
		n := 0
		for _, part := range re.Sub {
			n = sum(n, width(part))
		}
		return n
	case syntax.OpAlternate:
		n := 0
		for _, each := range re.Sub {
			n = max(n, width(each))
		}
		return n
	}
	return 0
}

// runeWidth is 4 for everything beyond ASCII, and where folding leads there.
func runeWidth(r rune, folded bool) int {
	if r > unicode.MaxASCII || folded && strings.ContainsRune("kKsS", r) {
		return 4
	}
	return 1
}

func times(n, count int) int {
	if n == 0 || count == 0 {
		return 0
	}
	if count < 0 || n >= unbounded/count {
		return unbounded
	}
	return n * count
}
