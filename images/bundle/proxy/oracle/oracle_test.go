// Package oracle compares what git-gate finds with what gitleaks finds.
package oracle

import (
	"regexp/syntax"
	"slices"
	"strings"
	"testing"

	"github.com/zricethezav/gitleaks/v8/config"
	"github.com/zricethezav/gitleaks/v8/detect"

	"bottle/proxy/internal/leaks"
	"bottle/proxy/internal/madeup"
)

func fixture(t *testing.T) (*detect.Detector, *leaks.Scanner) {
	t.Helper()
	gitleaks, err := detect.NewDetectorDefaultConfig()
	if err != nil {
		t.Fatal(err)
	}
	// It is compared by what it finds, and not by what it is told to pass over.
	gitleaks.IgnoreGitleaksAllow = true
	gitleaks.MaxDecodeDepth = 3
	rules, err := leaks.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	return gitleaks, leaks.NewScanner(rules, nil)
}

// theirs are the rules by which gitleaks finds something.
func theirs(gitleaks *detect.Detector, path, text string) []string {
	var rules []string
	for _, f := range gitleaks.Detect(detect.Fragment{Raw: text, FilePath: path}) {
		rules = append(rules, f.RuleID)
	}
	return rules
}

func ours(t *testing.T, s *leaks.Scanner, path, text string) []string {
	t.Helper()
	findings, err := s.Scan(path, strings.NewReader(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	for _, f := range findings {
		rules = append(rules, f.Rule)
	}
	return rules
}

// paths are some that rules are for.
func paths(r config.Rule) string {
	for _, path := range []string{"a.php", "a.yaml", "nuget.config", "a.tf", "a.p12"} {
		if r.Path != nil && r.Path.MatchString(path) {
			return path
		}
	}
	return ""
}

// tokens makes up texts in which gitleaks finds the rule.
func tokens(t *testing.T, gitleaks *detect.Detector, r config.Rule, seed uint64, count int) []string {
	t.Helper()
	re, err := syntax.Parse(r.Regex.String(), syntax.Perl)
	if err != nil {
		t.Fatal(err)
	}
	m := madeup.New(seed)
	var texts []string
	for range 20000 {
		text := m.Match(re)
		if r.Regex.FindString(text) == "" {
			continue
		}
		if len(r.Keywords) > 0 && !slices.ContainsFunc(r.Keywords, func(k string) bool { return strings.Contains(strings.ToLower(text), k) }) {
			text = "# " + r.Keywords[m.IntN(len(r.Keywords))] + "\n" + text
		}
		if slices.Contains(theirs(gitleaks, paths(r), text), r.RuleID) {
			if texts = append(texts, text); len(texts) == count {
				return texts
			}
		}
	}
	t.Fatalf("no token of the rule %s was made in 20000 tries", r.RuleID)
	return nil
}

func TestWhatGitleaksFindsIsFound(t *testing.T) {
	gitleaks, scanner := fixture(t)
	var corpus, words []string
	for i, id := range gitleaks.Config.OrderedRules {
		r := gitleaks.Config.Rules[id]
		words = append(words, r.Keywords...)
		if r.Regex == nil {
			if got := ours(t, scanner, paths(r), "x"); !slices.Contains(got, id) {
				t.Errorf("%s: not found by its path", id)
			}
			continue
		}
		for _, text := range tokens(t, gitleaks, r, uint64(i), 5) {
			if got := ours(t, scanner, paths(r), text); !slices.Contains(got, id) {
				t.Errorf("%s: not found: %q", id, text)
			}
			if r.Path == nil {
				corpus = append(corpus, text)
			}
		}
	}
	// Random mixtures: what a token has beside it does not hide it.
	m := madeup.New(3)
	for range 500 {
		var b strings.Builder
		for range 1 + m.IntN(4) {
			b.WriteString(m.Prose(m.IntN(80), words))
			b.WriteString(corpus[m.IntN(len(corpus))])
			b.WriteString([]string{"", " ", "\n", "\""}[m.IntN(4)])
		}
		text := b.String()
		got := ours(t, scanner, "", text)
		for _, id := range theirs(gitleaks, "", text) {
			if !slices.Contains(got, id) {
				t.Errorf("%s: not found in %q", id, text)
			}
		}
	}
}
