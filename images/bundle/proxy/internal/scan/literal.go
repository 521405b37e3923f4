package scan

import (
	"regexp/syntax"
	"slices"
)

const (
	// keyMin is the shortest literal that is searched for, keyMax what of a longer one is.
	keyMin = 3
	keyMax = 16
	// maxKeys is how many literals one pattern may be looked for by.
	maxKeys = 128
)

// withoutAssertions takes ^, $ and \b out of an expression: a secret is one whatever stands beside it.
func withoutAssertions(re *syntax.Regexp) *syntax.Regexp {
	switch re.Op {
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return &syntax.Regexp{Op: syntax.OpEmptyMatch}
	}
	for i, sub := range re.Sub {
		re.Sub[i] = withoutAssertions(sub)
	}
	return re
}

// prefixes returns strings of which every match begins with one, or nil. done is false where the strings may be followed
// by more of the same element.
func prefixes(re *syntax.Regexp) (list []string, whole bool) {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return []string{""}, true
	case syntax.OpCapture:
		return prefixes(re.Sub[0])
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return []string{""}, false
		}
		return []string{string(re.Rune)}, true
	case syntax.OpCharClass:
		for i := 0; i < len(re.Rune); i += 2 {
			if re.Rune[i+1]-re.Rune[i] > 16 {
				return []string{""}, false
			}
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				list = append(list, string(r))
			}
		}
		if len(list) > 16 {
			return []string{""}, false
		}
		return list, true
	case syntax.OpAlternate:
		whole = true
		for _, sub := range re.Sub {
			one, all := prefixes(sub)
			list, whole = append(list, one...), whole && all
		}
		return list, whole
	case syntax.OpPlus:
		list, _ = prefixes(re.Sub[0])
		return list, false
	case syntax.OpRepeat:
		if re.Min == 0 {
			return []string{""}, false
		}
		list, all := prefixes(re.Sub[0])
		return list, all && re.Min == 1 && re.Max == 1
	case syntax.OpConcat:
		list, whole = []string{""}, true
		for _, sub := range re.Sub {
			more, all := prefixes(sub)
			if len(list)*len(more) > maxKeys {
				return list, false
			}
			var longer []string
			for _, head := range list {
				for _, tail := range more {
					longer = append(longer, head+tail)
				}
			}
			list, whole = longer, all
			if !whole {
				break
			}
		}
		return list, whole
	}
	return []string{""}, false
}

// keysOf returns what a pattern is looked for by, or nil where it has no beginnings of its own.
func keysOf(re *syntax.Regexp) []string {
	list, _ := prefixes(re.Simplify())
	for i, text := range list {
		if len(text) < keyMin {
			return nil
		}
		list[i] = text[:min(len(text), keyMax)]
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// A finder finds all places where one of its keys begins, and skips what none can begin in (Wu and Manber, 1994, with
// blocks of two bytes and a window of keyMin).
type finder struct {
	shift   [1 << 16]uint8
	buckets map[[keyMin]byte][]int // indices of keys
	keys    []string
	// begun has every proper beginning of a key.
	begun map[string]struct{}
}

func newFinder(keys []string) *finder {
	f := &finder{buckets: map[[keyMin]byte][]int{}, keys: keys, begun: map[string]struct{}{}}
	for i := range f.shift {
		f.shift[i] = keyMin - 1
	}
	for i, key := range keys {
		for end := 2; end <= keyMin; end++ {
			pair := int(key[end-2])<<8 | int(key[end-1])
			f.shift[pair] = min(f.shift[pair], uint8(keyMin-end))
		}
		head := [keyMin]byte([]byte(key))
		f.buckets[head] = append(f.buckets[head], i)
		for n := 1; n < len(key); n++ {
			f.begun[key[:n]] = struct{}{}
		}
	}
	return f
}

// next returns the first place at or after from where the first bytes of a key stand, or -1.
func (f *finder) next(p []byte, from int) int {
	for end := from + keyMin; end <= len(p); {
		if skip := f.shift[int(p[end-2])<<8|int(p[end-1])]; skip > 0 {
			end += int(skip)
			continue
		}
		if _, ok := f.buckets[[keyMin]byte(p[end-keyMin:end])]; ok {
			return end - keyMin
		}
		end++
	}
	return -1
}

// tail returns where at the end of p a key may have begun, or len(p).
func (f *finder) tail(p []byte) int {
	for n := min(len(p), keyMax-1); n > 0; n-- {
		if _, ok := f.begun[string(p[len(p)-n:])]; ok {
			return len(p) - n
		}
	}
	return len(p)
}
