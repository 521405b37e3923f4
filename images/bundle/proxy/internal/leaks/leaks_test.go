package leaks

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"

	"bottle/proxy/internal/madeup"
)

func load(t testing.TB, patterns ...Pattern) *Rules {
	t.Helper()
	rules, err := Load(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func scanned(t testing.TB, s *Scanner, path, text string) []string {
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

// tokens returns texts with made-up tokens of the rule: those that it finds by looking at all of the text.
func tokens(t *testing.T, r *rule, seed uint64, count int) []string {
	t.Helper()
	re, err := syntax.Parse(r.source.Regex, syntax.Perl)
	if err != nil {
		t.Fatal(err)
	}
	m := madeup.New(seed)
	var texts []string
	for range 20000 {
		text := m.Match(re)
		// Some rules want the end of the text behind a token, or one of several characters. Take those that a line end
		// does for.
		if len(r.secrets("x\n"+text+"\nx")) == 0 || len(r.secrets(text)) == 0 {
			continue
		}
		if len(r.gate) > 0 {
			text = "# " + r.source.Keywords[m.IntN(len(r.source.Keywords))] + "\n" + text
		}
		if texts = append(texts, text); len(texts) == count {
			return texts
		}
	}
	t.Fatalf("no token of the rule %s was made in 20000 tries", r.name)
	return nil
}

// pathOf is a path of a file that the rule is for.
func pathOf(r *rule) string {
	for _, path := range []string{"a.php", "a.yaml", "nuget.config", "a.tf"} {
		if r.place != nil && r.place.MatchString(path) {
			return path
		}
	}
	return ""
}

func eachRule(t *testing.T, rules *Rules, check func(t *testing.T, i int, r *rule)) {
	for i, r := range rules.rules {
		if r.source != nil && r.source.Regex != "" {
			t.Run(r.name, func(t *testing.T) { check(t, i, r) })
		}
	}
}

// What a rule finds by looking at all of a text is found at the places where it is tried, wherever in a text it stands.
func TestNothingIsLost(t *testing.T) {
	rules := load(t)
	m := madeup.New(7)
	eachRule(t, rules, func(t *testing.T, i int, r *rule) {
		s := NewScanner(rules, nil)
		for n, text := range tokens(t, r, uint64(i), 4) {
			before := m.Prose(2000, rules.literals)
			var wide []byte
			for _, u := range utf16.Encode([]rune(text)) {
				wide = append(wide, byte(u), byte(u>>8))
			}
			for name, content := range map[string]string{
				"alone":              text,
				"in prose":           before + "\n" + text + "\n" + before,
				"in UTF-16":          string(wide),
				"among NUL bytes":    "\x00\x00" + text + "\x00",
				"with an allow mark": text + " # gitleaks:allow",
				"across two pieces":  strings.Repeat(".", step+reach-len(text)/2-1) + "\n" + text + "\n" + before,
				"at a piece's end":   strings.Repeat(".", step+2*reach-len(text)-1) + "\n" + text,
				"far into a stream":  strings.Repeat(". line\n", 500000) + text + "\n" + before,
			} {
				if len(content) > step && (n > 0 || i%8 > 0) {
					continue // A large one costs a hundred small ones.
				}
				if !slices.Contains(scanned(t, s, pathOf(r), content), r.name) {
					t.Errorf("%s: not found: %q", name, text)
				}
			}
		}
	})
}

func percentEncoded(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func inBase64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// encodings are the ways to write a text that are undone. What is encoded may be part of something larger.
var encodings = map[string]func(string) string{
	"base64":     inBase64,
	"base64url":  func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
	"off base64": func(s string) string { return "data:x,zz" + inBase64("\x00\n"+s) },
	"MIME": func(s string) string {
		var lines []string
		for line := range slices.Chunk([]byte(inBase64(strings.Repeat("- ", 40)+s)), 76) {
			lines = append(lines, string(line))
		}
		return strings.Join(lines, "\r\n")
	},
	"hex":     func(s string) string { return hex.EncodeToString([]byte(s)) },
	"HEX":     func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
	"percent": percentEncoded,
	"escapes": func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, "\\u%04x", s[i])
		}
		return b.String()
	},
	"base64 twice":      func(s string) string { return inBase64(inBase64(s)) },
	"base64 of percent": func(s string) string { return inBase64(percentEncoded(s)) },
}

// What is found in plain text is found in its encodings as well.
func TestEncodedTokensAreFound(t *testing.T) {
	rules := load(t)
	eachRule(t, rules, func(t *testing.T, i int, r *rule) {
		s := NewScanner(rules, nil)
		for _, text := range tokens(t, r, uint64(i)+1000, 2) {
			for name, encode := range encodings {
				content := "x " + encode(text+"\n") + " y"
				if !slices.Contains(scanned(t, s, pathOf(r), content), r.name) {
					t.Errorf("%s: not found: %q in %q", name, text, content)
				}
			}
		}
	})
}

// The policy's patterns are found at any offset, whatever they are glued to, also those without a literal.
func TestThePolicysPatternsAreFound(t *testing.T) {
	s := NewScanner(load(t, Pattern{"staff", `ACME-[0-9]{6}`}, Pattern{"number", `[0-9]{6}-[0-9]{4}\b`}, Pattern{"either", `foo_[a-z]+|bar_[a-z]+`}), nil)
	for text, want := range map[string]string{
		"xACME-123456y": "staff", "\x00A\x00C\x00M\x00E\x00-\x00123456": "staff", inBase64("...ACME-123456..."): "staff",
		strings.Repeat(" ", step+reach-5) + "ACME-123456": "staff", "123456-7890": "number", "xfoo_y": "either", "bar_x": "either",
	} {
		if got := scanned(t, s, "", text); !slices.Contains(got, want) {
			t.Errorf("%.40q: %v", text, got)
		}
	}
	if got := scanned(t, s, "", "ACME-12345 ACNE-123456 123456-789 foo_"); got != nil {
		t.Error(got)
	}
	if _, err := Load([]Pattern{{"broken", "("}}); err == nil {
		t.Error("a broken pattern was taken")
	}
}

// The end of a window is no end of a text: what a rule wants to end there does not. (Without the seam, it does.)
func TestNothingMatchesByACut(t *testing.T) {
	s := NewScanner(load(t), nil)
	for n := range 500 {
		// The first sign's window ends at any place of what follows, behind the second quote for one.
		if got := scanned(t, s, "a.tf", "="+strings.Repeat(" ", n)+`password = "abcdefgh"x`); got != nil {
			t.Errorf("%d: %v", n, got)
		}
	}
}

func TestLinesAndPaths(t *testing.T) {
	s := NewScanner(load(t, Pattern{"staff", `ACME-[0-9]{6}`}), nil)
	findings, err := s.Scan("x", strings.NewReader(strings.Repeat("line\n", 300000)+"ACME-000001\n"+inBase64("what is it? ACME-000002")), nil)
	if err != nil || len(findings) != 2 || findings[0].Line != 300001 || findings[1].Line != 300002 {
		t.Error(findings, err)
	}
	if got := scanned(t, s, "keys/x.p12", "anything"); !slices.Contains(got, "pkcs12-file") {
		t.Error(got)
	}
	if _, err := s.Scan("", iotest.ErrReader(fmt.Errorf("no")), nil); err == nil {
		t.Error("a read error was passed over")
	}
	if findings, err := s.Scan("", iotest.OneByteReader(strings.NewReader("ACME-000001")), nil); err != nil || len(findings) != 1 {
		t.Error(findings, err)
	}
}

// What a text had before does not count, however much it is, and hides nothing that is new.
func TestWhatIsKnownIsLeftOut(t *testing.T) {
	s := NewScanner(load(t, Pattern{"staff", `ACME-[0-9]{6}`}), nil)
	var old strings.Builder
	for i := range 3 * MaxFindings {
		fmt.Fprintf(&old, "ACME-%06d\n", i)
	}
	known, err := s.Secrets("", strings.NewReader(old.String()))
	if err != nil || len(known) != 3*MaxFindings {
		t.Fatal(len(known), err)
	}
	findings, err := s.Scan("", strings.NewReader("a line more\n"+old.String()+"ACME-999999"), known)
	if err != nil || len(findings) != 1 || findings[0].Line != 3*MaxFindings+2 || findings[0].Text != "ACME-999999" {
		t.Error(findings, err)
	}
	if findings, _ := s.Scan("", strings.NewReader(old.String()), nil); len(findings) != MaxFindings {
		t.Error("what was known once is known no more:", len(findings))
	}
}

// describe makes what sidecars/known.py makes.
func describe(spellings map[string]string) []byte {
	const key, window = uint64(0x9e3779b97f4a7c15), 8
	type needle struct {
		Name   string `json:"name"`
		Length int    `json:"length"`
		Head   uint32 `json:"head"`
		SHA256 string `json:"sha256"`
	}
	var needles []needle
	for spelling, name := range spellings {
		h := uint64(0)
		for i := range window {
			h = h*key + uint64(spelling[i]) + 1
		}
		digest := sha256.Sum256([]byte(spelling))
		needles = append(needles, needle{name, len(spelling), uint32(h >> 32), hex.EncodeToString(digest[:])})
	}
	text, _ := json.Marshal(map[string]any{"key": fmt.Sprintf("%016x", key), "window": window, "needles": needles})
	return text
}

func TestKnownSecretsAreFound(t *testing.T) {
	known, err := ParseKnown(describe(map[string]string{"correct-horse": "one", "eightchr": "two", strings.Repeat("long ", 5000): "three"}))
	if err != nil {
		t.Fatal(err)
	}
	s := NewScanner(load(t), known)
	filler := strings.Repeat("correct-hors eightch ", 100)
	for text, want := range map[string]string{
		"correct-horse": "one", filler + "xcorrect-horsey" + filler: "one", "eightchr": "two", "\x00e\x00i\x00g\x00h\x00t\x00c\x00h\x00r": "two",
		inBase64("a correct-horse"): "one", percentEncoded("-correct-horse-"): "one", filler + strings.Repeat("long ", 5001): "three",
		strings.Repeat(".", step+reach-6) + "correct-horse" + strings.Repeat(".", step): "one",
	} {
		if got := scanned(t, s, "", text); !slices.Equal(got, []string{want}) {
			t.Errorf("%.40q: %v", text, got)
		}
	}
	if got := scanned(t, s, "", filler); got != nil {
		t.Error(got)
	}
	for _, broken := range []string{"", "{}", `{"key":"1","window":0}`, `{"key":"1","window":8,"needles":[{"length":3,"sha256":""}]}`} {
		if _, err := ParseKnown([]byte(broken)); err == nil {
			t.Errorf("%s was taken", broken)
		}
	}
}

// The automaton finds what a search for each literal finds.
func FuzzAutomaton(f *testing.F) {
	f.Add("he she his hers", "usHERS hishe")
	f.Add("a aa aaa", "aAaAb")
	f.Fuzz(func(t *testing.T, words, text string) {
		var literals []string
		var lengths []int
		for _, word := range strings.Fields(words) {
			if word = strings.Map(func(r rune) rune { return rune(fold(byte(r))) & 0x7f }, word); word != "" && !slices.Contains(literals, word) && word == string(lowered(word)) {
				literals, lengths = append(literals, word), append(lengths, len(word))
			}
		}
		if len(literals) == 0 {
			return
		}
		var want []hit
		data := []byte(text)
		for id, literal := range literals {
			for at := range data {
				if bytes.HasPrefix(lowered(text[at:]), []byte(literal)) {
					want = append(want, hit{at, int32(id)})
				}
			}
		}
		got := newAutomaton(literals).find(data, lengths, nil)
		order := func(a, b hit) int {
			if a.offset != b.offset {
				return a.offset - b.offset
			}
			return int(a.literal - b.literal)
		}
		slices.SortFunc(got, order)
		slices.SortFunc(want, order)
		if !slices.Equal(got, want) {
			t.Errorf("%q in %q: %v, not %v", literals, text, got, want)
		}
	})
}

func lowered(text string) []byte {
	folded := []byte(text)
	for i, b := range folded {
		folded[i] = fold(b)
	}
	return folded
}

// Whatever is scanned, a scan ends, and does not fail.
func FuzzScan(f *testing.F) {
	rules := load(f, Pattern{"staff", `ACME-[0-9]{6}`})
	f.Add([]byte("a%41%zz\\u0041\\x4"), []byte("QUNNRS0xMjM0NTY="))
	f.Fuzz(func(t *testing.T, before, after []byte) {
		s := NewScanner(rules, nil)
		text := slices.Concat(before, []byte("\nACME-123456\n"), after)
		findings, err := s.Scan("x", bytes.NewReader(text), nil)
		if err != nil || len(findings) == 0 {
			t.Error(findings, err)
		}
	})
}

func benchmark(b *testing.B, text []byte) {
	s := NewScanner(load(b), nil)
	s.Scan("", bytes.NewReader(text), nil)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := s.Scan("", bytes.NewReader(text), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRandom(b *testing.B) {
	m := madeup.New(1)
	text := make([]byte, 4<<20)
	for i := range text {
		text[i] = byte(m.Uint32())
	}
	benchmark(b, text)
}

func BenchmarkProse(b *testing.B) {
	benchmark(b, []byte(madeup.New(1).Prose(4<<20, load(b).literals)))
}
