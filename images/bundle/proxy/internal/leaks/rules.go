// Package leaks finds secrets in streams: what gitleaks' rules and the policy's patterns describe, and the bottle's own
// credentials, as they are and behind the usual encodings.
//
// The rules are gitleaks' own, and a match is judged as gitleaks judges it (entropy, stop words, allowed values). What is
// ours is where they are tried. gitleaks runs each rule whose keyword occurs anywhere in a file over the whole of the
// file; here a rule is tried at the places that hold a literal without which it can't match. The module in oracle/ holds
// that nothing is lost by it: what gitleaks finds in a text is found here.
package leaks

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	toml "github.com/pelletier/go-toml/v2"
)

// configuration is gitleaks' own, of the version that oracle/go.mod pins. `go generate` brings it from there.
//
//go:generate sh -c "cd ../../oracle && cp \"$(go list -m -f {{.Dir}} github.com/zricethezav/gitleaks/v8)/config/gitleaks.toml\" ../internal/leaks/ && chmod 644 ../internal/leaks/gitleaks.toml"
//go:embed gitleaks.toml
var configuration []byte

// A Pattern is one kind of secret that the policy names. Regex is in RE2's syntax.
type Pattern struct {
	Name  string `json:"name"`
	Regex string `json:"regex"`
}

// Rules are what a Scanner looks for. They may be shared by goroutines.
type Rules struct {
	rules     []*rule
	literals  []string
	lengths   []int
	automaton *automaton
	longest   int
	anchored  [][]int32 // The rules to try where a literal occurs, by literal.
	wide      []int32   // The rules that no literal narrows down: tried everywhere.
	gated     []int32   // The rules that are tried only in the company of a keyword.
}

// A rule is one kind of secret.
type rule struct {
	name   string
	anchor *anchor
	// place, where it is not nil, matches the paths of the files that the rule is for.
	place *regexp.Regexp
	// gate, where it is not empty, holds the keywords of which one has to occur nearby.
	gate []int32
	// Of a gated rule, whose literals are not in the common automaton.
	own     *automaton
	lengths []int
	// source is what gitleaks' configuration has, and nil for a pattern of the policy's.
	source *source
	once   sync.Once
	judge  *judge
}

// source is a rule as gitleaks' configuration has it.
type source struct {
	ID          string
	Path        string
	Regex       string
	SecretGroup int
	Entropy     float64
	Keywords    []string
	Allowlist   *allowlist
	Allowlists  []*allowlist
	global      []*allowlist // Those that hold for all rules.
}

type allowlist struct {
	Condition   string
	RegexTarget string
	Regexes     []string
	StopWords   []string
	Paths       []string
	TargetRules []string
}

type document struct {
	Rules      []*source
	Allowlist  *allowlist
	Allowlists []*allowlist
}

// Load returns gitleaks' rules and the policy's patterns. It fails for a pattern that is not a regular expression.
func Load(patterns []Pattern) (*Rules, error) {
	var doc document
	if err := toml.Unmarshal(configuration, &doc); err != nil {
		return nil, fmt.Errorf("gitleaks' configuration: %w", err)
	}
	rules := &Rules{}
	ids := map[string]int32{}
	for _, pattern := range patterns {
		compiled, err := regexp.Compile(pattern.Regex)
		if err != nil {
			return nil, fmt.Errorf("the pattern %q: %w", pattern.Name, err)
		}
		rules.add(&rule{name: pattern.Name, anchor: anchorOf(pattern.Regex, 2), judge: &judge{regex: compiled}}, ids)
	}
	for _, s := range doc.Rules {
		s.global = append(allowlists(doc.Allowlist), targeting(doc.Allowlists, s.ID)...)
		rules.add(ruleOf(s, ids, rules), ids)
	}
	rules.automaton = newAutomaton(rules.literals)
	for _, literal := range rules.literals {
		rules.lengths = append(rules.lengths, len(literal))
		rules.longest = max(rules.longest, len(literal))
	}
	return rules, nil
}

func allowlists(one *allowlist) []*allowlist {
	if one == nil {
		return nil
	}
	return []*allowlist{one}
}

func targeting(all []*allowlist, rule string) []*allowlist {
	var found []*allowlist
	for _, each := range all {
		if len(each.TargetRules) == 0 || slices.Contains(each.TargetRules, rule) {
			found = append(found, each)
		}
	}
	return found
}

// ruleOf makes a rule of gitleaks'. Where its literals don't imply one of its keywords, the keywords become a gate.
func ruleOf(s *source, ids map[string]int32, rules *Rules) *rule {
	r := &rule{name: s.ID, source: s}
	if s.Path != "" {
		r.place = regexp.MustCompile(s.Path)
	}
	if s.Regex == "" {
		return r
	}
	r.anchor = anchorOf(s.Regex, 2)
	if len(s.Keywords) == 0 || r.anchor != nil && implies(r.anchor.literals, s.Keywords) {
		return r
	}
	r.anchor = anchorOf(s.Regex, 1)
	for _, keyword := range s.Keywords {
		r.gate = append(r.gate, rules.literal(strings.ToLower(keyword), ids))
	}
	if r.anchor != nil {
		r.own = newAutomaton(r.anchor.literals)
		for _, literal := range r.anchor.literals {
			r.lengths = append(r.lengths, len(literal))
		}
	}
	return r
}

// implies tells whether a text with one of the literals also has one of the keywords.
func implies(literals, keywords []string) bool {
	for _, literal := range literals {
		if !slices.ContainsFunc(keywords, func(k string) bool { return strings.Contains(literal, strings.ToLower(k)) }) {
			return false
		}
	}
	return true
}

func (r *Rules) literal(text string, ids map[string]int32) int32 {
	id, ok := ids[text]
	if !ok {
		id = int32(len(r.literals))
		ids[text] = id
		r.literals = append(r.literals, text)
		r.anchored = append(r.anchored, nil)
	}
	return id
}

func (r *Rules) add(each *rule, ids map[string]int32) {
	index := int32(len(r.rules))
	r.rules = append(r.rules, each)
	switch {
	case each.source != nil && each.source.Regex == "":
		// By its path alone: see Rules.path.
	case len(each.gate) > 0:
		r.gated = append(r.gated, index)
	case each.anchor == nil:
		r.wide = append(r.wide, index)
	default:
		for _, literal := range each.anchor.literals {
			id := r.literal(literal, ids)
			r.anchored[id] = append(r.anchored[id], index)
		}
	}
}

// byPath returns the rules that a file's path alone breaks.
func (r *Rules) byPath(path string) []string {
	var broken []string
	for _, each := range r.rules {
		if each.source != nil && each.source.Regex == "" && each.place.MatchString(path) {
			broken = append(broken, each.name)
		}
	}
	return broken
}
