package scan

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/url"
	"strings"
	"testing"

	"bottle/proxy/internal/policy"
)

// Made up, in the issuers' formats.
const (
	githubToken = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"
	openAIKey   = "sk-proj-abcdefgh" + "T3BlbkFJ" + "abcdefghijklmnopqrstuvwx"
	known       = `s3cr3t/"value"+of the%bottle`
)

var patterns = []policy.Pattern{
	{Name: "github-token", Regex: `gh[pousr]_[A-Za-z0-9]{36}`},
	{Name: "openai-api-key", Regex: `sk-(?:[A-Za-z0-9_-]{1,200})?T3BlbkFJ[A-Za-z0-9_-]{20,}`},
	{Name: "private-key", Regex: `-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----`},
	{Name: "slack-token", Regex: `xox[abeoprs]-[A-Za-z0-9-]{10,}`},
	{Name: "card", Regex: `\b[0-9]{4}(?:-[0-9]{4}){3}\b`},
	{Name: "word", Regex: `(?i)streng[ -]geheim`},
}

func set(t testing.TB) *Set {
	s, err := New(patterns, []Secret{{"api", known}}, []string{"ghp_" + "placeholderplaceholderplaceholder000"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func secrets() map[string]string {
	list := map[string]string{"openai": openAIKey, "pem": "-----BEGIN EC PRIVATE KEY-----", "card": "1234-5678-9012-3456", "case": "STRENG Geheim"}
	for name, secret := range map[string]string{"token": githubToken, "known": known} {
		list[name] = secret
		list[name+" hex"] = hex.EncodeToString([]byte(secret))
		list[name+" HEX"] = strings.ToUpper(hex.EncodeToString([]byte(secret)))
		percent, escapes := "", ""
		for _, c := range []byte(secret) {
			percent += fmt.Sprintf("%%%02x", c)
			escapes += fmt.Sprintf(`\u%04x`, c)
		}
		list[name+" percent"], list[name+" json escapes"] = percent, escapes
		for offset := range 3 {
			padded := append(bytes.Repeat([]byte{'x'}, offset), secret...)
			list[fmt.Sprintf("%s base64 %d", name, offset)] = base64.StdEncoding.EncodeToString(append(padded, "zz"...))
			list[fmt.Sprintf("%s base64url %d", name, offset)] = base64.RawURLEncoding.EncodeToString(append(padded, 0xff))
		}
	}
	quoted, _ := json.Marshal(known)
	list["known json"] = string(quoted[1 : len(quoted)-1])
	list["known query"] = url.QueryEscape(known)
	list["known path"] = url.PathEscape(known)
	list["known reversed"] = reversed(known)
	return list
}

// Whatever a secret is glued to, and however it comes in pieces, it is found, and none of it leaves before.
func TestSecretsAreFoundInPiecesAndGlued(t *testing.T) {
	s := set(t)
	random := rand.New(rand.NewSource(1))
	for name, secret := range secrets() {
		for _, around := range []string{"", "x", "ghp_", "Zm9v", "{\"a\": \"", "\n", "-"} {
			body := strings.Repeat("some text. ", 40) + around + secret + around + " and more text"
			place := strings.Index(body, secret)
			for range 20 {
				stream, left := s.Stream(), []byte{}
				var found *Finding
				for rest := []byte(body); found == nil; {
					n := min(1+random.Intn(60), len(rest))
					var clean []byte
					if len(rest) == 0 {
						clean, found = stream.Close()
						left = append(left, clean...)
						break
					}
					clean, found = stream.Write(rest[:n])
					left, rest = append(left, clean...), rest[n:]
				}
				if found == nil {
					t.Fatalf("%s, glued to %q: not found", name, around)
				}
				if !strings.HasPrefix(body, string(left)) {
					t.Fatalf("%s: what left is not what came: %q", name, left)
				}
				// The first characters of base64 depend on what stands before the secret as well.
				if len(left) > place+len("x") && !strings.Contains(name, "base64") || len(left) > place+4 {
					t.Fatalf("%s, glued to %q: %q of it left", name, around, left[place:])
				}
			}
		}
	}
}

func TestCleanTextPassesUnchanged(t *testing.T) {
	s := set(t)
	random := rand.New(rand.NewSource(2))
	alphabet := "ghpousr_sk-x012345-----BEGIN T3BlbkFJ\n %7b"
	for range 300 {
		body := make([]byte, random.Intn(3000))
		for i := range body {
			body[i] = alphabet[random.Intn(len(alphabet))]
		}
		if s.Find(body) != nil {
			continue
		}
		stream, left := s.Stream(), []byte{}
		for rest := body; len(rest) > 0; {
			n := min(1+random.Intn(200), len(rest))
			clean, found := stream.Write(rest[:n])
			if found != nil {
				t.Fatalf("found %v in pieces of %q", found, body)
			}
			left, rest = append(left, clean...), rest[n:]
		}
		clean, found := stream.Close()
		if left = append(left, clean...); found != nil || !bytes.Equal(left, body) {
			t.Fatalf("%q became %q (%v)", body, left, found)
		}
	}
}

// What can't begin a secret is not kept waiting: a conversation in both directions would stop.
func TestNothingIsHeldBackWithoutNeed(t *testing.T) {
	s := set(t)
	for _, message := range []string{"{\"a\": 1}\n", "data: hello\n\n", "a message.", "ghp_ and so on.", "sk-ant is no key."} {
		stream := s.Stream()
		if clean, _ := stream.Write([]byte(message)); string(clean) != message {
			t.Errorf("of %q only %q left", message, clean)
		}
	}
	stream := s.Stream()
	if clean, _ := stream.Write([]byte("a token: ghp_0123")); string(clean) != "a token: " {
		t.Errorf("%q left", clean)
	}
}

func TestPlaceholdersAreNoSecrets(t *testing.T) {
	if f := set(t).Find([]byte("key=ghp_placeholderplaceholderplaceholder000")); f != nil {
		t.Errorf("found %v", f)
	}
}

func TestDeepEncodings(t *testing.T) {
	s := set(t)
	inner := githubToken
	for depth := 1; depth <= 3; depth++ {
		inner = base64.StdEncoding.EncodeToString([]byte(inner))
		if s.FindDeep("https://host/?q="+url.QueryEscape(inner)) == nil && depth < 3 {
			t.Errorf("depth %d: not found", depth)
		}
	}
	for _, clean := range []string{"/v1/models?limit=100", "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.x", "a%zz%"} {
		if f := s.FindDeep(clean); f != nil {
			t.Errorf("%q: found %v", clean, f)
		}
	}
}

func benchmark(b *testing.B, body []byte, patterns []policy.Pattern) {
	s, err := New(patterns, []Secret{{"api", known}, {"b", "another-secret-of-the-bottle"}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		stream := s.Stream()
		for rest := body; len(rest) > 0; {
			n := min(32<<10, len(rest))
			if _, f := stream.Write(rest[:n]); f != nil {
				b.Fatal(f)
			}
			rest = rest[n:]
		}
		stream.Close()
	}
}

var builtIn = []policy.Pattern{
	{Name: "anthropic", Regex: `sk-ant-[A-Za-z0-9_-]{20,}`}, {Name: "github", Regex: `gh[pousr]_[A-Za-z0-9]{36}`},
	{Name: "pat", Regex: `github_pat_[A-Za-z0-9_]{40,}`}, {Name: "gitlab", Regex: `glpat-[A-Za-z0-9_-]{20}`}, {Name: "google", Regex: `AIza[A-Za-z0-9_-]{35}`},
	{Name: "npm", Regex: `npm_[A-Za-z0-9]{36}`}, patterns[1], patterns[2], patterns[3], {Name: "stripe", Regex: `[rs]k_live_[A-Za-z0-9]{20,}`},
}

func BenchmarkRandom(b *testing.B) {
	body := make([]byte, 4<<20)
	rand.New(rand.NewSource(3)).Read(body)
	benchmark(b, body, builtIn)
}

func BenchmarkText(b *testing.B) {
	benchmark(b, []byte(strings.Repeat("The quick brown fox jumps over the lazy dog, {\"role\": \"user\", \"content\": \"ask me\"}\n", 50000)), builtIn)
}

func BenchmarkBase64(b *testing.B) {
	raw := make([]byte, 3<<20)
	rand.New(rand.NewSource(4)).Read(raw)
	benchmark(b, []byte(base64.StdEncoding.EncodeToString(raw)), builtIn)
}

func BenchmarkGeneralPattern(b *testing.B) {
	benchmark(b, []byte(strings.Repeat("The quick brown fox jumps over 1234 lazy dogs, and 5678-90 more.\n", 50000)),
		append([]policy.Pattern{patterns[4], patterns[5]}, builtIn...))
}
