package leaks

import (
	"math"
	"regexp"
	"strings"
)

// A judge tells the secrets of one rule from what only looks like them, as gitleaks does.
type judge struct {
	regex   *regexp.Regexp
	group   int     // Of the regular expression: the secret. 0 for the first one that is not empty.
	entropy float64 // What a secret has more of, in bits for each character.
	allowed []allowance
}

// An allowance is what is no secret although a rule matches it.
type allowance struct {
	regexes   []*regexp.Regexp
	stopWords []string // In lower case.
	match     bool     // The expressions are held against the whole match, and not against the secret in it.
	all       bool     // Both an expression and a stop word have to be there.
}

// secrets returns the secrets that the rule finds in a text from a file that it is for.
func (r *rule) secrets(text string) []string {
	r.once.Do(func() {
		if r.source != nil {
			r.judge = judgeOf(r.source)
		}
	})
	return r.judge.secrets(text)
}

// judgeOf makes the judge of a rule of gitleaks'.
//
// What a pusher could write beside a secret to have it passed over is left out: allow comments, and what is allowed by
// the file's path or by the rest of the line. What is allowed for the sake of the match or the secret itself stays.
func judgeOf(s *source) *judge {
	j := &judge{regex: regexp.MustCompile(s.Regex), group: s.SecretGroup, entropy: s.Entropy}
	lists := append(allowlists(s.Allowlist), s.Allowlists...)
	for _, each := range append(lists, s.global...) {
		all := strings.EqualFold(each.Condition, "and") || each.Condition == "&&"
		if each.RegexTarget == "line" || all && len(each.Paths) > 0 || len(each.Regexes)+len(each.StopWords) == 0 {
			continue
		}
		made := allowance{match: each.RegexTarget == "match", all: all}
		for _, expression := range each.Regexes {
			made.regexes = append(made.regexes, regexp.MustCompile(expression))
		}
		for _, word := range each.StopWords {
			made.stopWords = append(made.stopWords, strings.ToLower(word))
		}
		j.allowed = append(j.allowed, made)
	}
	return j
}

func (j *judge) secrets(text string) []string {
	var found []string
	for _, match := range j.regex.FindAllString(text, -1) {
		match = strings.Trim(match, "\n")
		secret := j.secret(match)
		if j.entropy != 0 && entropy(secret) <= j.entropy || j.isAllowed(match, secret) {
			continue
		}
		found = append(found, secret)
	}
	return found
}

// secret returns the part of a match that is the secret.
func (j *judge) secret(match string) string {
	groups := j.regex.FindStringSubmatch(match)
	if len(groups) < 2 {
		return match
	}
	if j.group > 0 {
		return groups[j.group]
	}
	for _, group := range groups[1:] {
		if group != "" {
			return group
		}
	}
	return match
}

func (j *judge) isAllowed(match, secret string) bool {
	for _, each := range j.allowed {
		if each.covers(match, secret) {
			return true
		}
	}
	return false
}

func (a allowance) covers(match, secret string) bool {
	target := secret
	if a.match {
		target = match
	}
	expression := false
	for _, regex := range a.regexes {
		if target != "" && regex.MatchString(target) {
			expression = true
			break
		}
	}
	if !a.all && expression {
		return true
	}
	word := false
	lower := strings.ToLower(secret)
	for _, stop := range a.stopWords {
		if strings.Contains(lower, stop) {
			word = true
			break
		}
	}
	if a.all {
		return (expression || len(a.regexes) == 0) && (word || len(a.stopWords) == 0)
	}
	return word
}

// entropy is Shannon's, in bits for each character.
func entropy(text string) float64 {
	counts := map[rune]int{}
	for _, r := range text {
		counts[r]++
	}
	bits := 0.0
	for _, count := range counts {
		share := float64(count) / float64(len(text))
		bits -= share * math.Log2(share)
	}
	return bits
}
