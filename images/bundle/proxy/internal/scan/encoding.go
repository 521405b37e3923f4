package scan

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
)

// A coding is a way in which a secret is usually written down.
type coding int

const (
	plain coding = iota
	base64Coding
	hexCoding
	percentCoding
	jsonCoding
)

var codingNames = map[coding]string{plain: "", base64Coding: " in base64", hexCoding: " in hexadecimal digits", percentCoding: " percent-encoded", jsonCoding: " in JSON escapes"}

// A form is how a text begins in some coding. rest and bits say where in it the next byte of the text begins: rest bytes
// on, and bits into that character of base64.
type form struct {
	coding coding
	text   string
	rest   int
	bits   int
}

// forms are the ways in which a text may begin inside of something larger.
func forms(text string) []form {
	list := []form{
		{hexCoding, hex.EncodeToString([]byte(text)), 2 * len(text), 0},
		{hexCoding, strings.ToUpper(hex.EncodeToString([]byte(text))), 2 * len(text), 0},
	}
	for offset := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, offset), text...))
		first, next := (8*offset+5)/6, 8*(offset+len(text))/6
		for _, variant := range both(encoded[first:next]) {
			list = append(list, form{base64Coding, variant, next - first, 8*(offset+len(text)) - 6*next})
		}
	}
	for _, layout := range []string{"%%%02x", "%%%02X", `\u%04x`, `\u%04X`} {
		var b strings.Builder
		for _, c := range []byte(text) {
			fmt.Fprintf(&b, layout, c)
		}
		coding := percentCoding
		if layout[0] == '\\' {
			coding = jsonCoding
		}
		list = append(list, form{coding, b.String(), b.Len(), 0})
	}
	return list
}

// both returns base64 in its usual and its URL-safe alphabet.
func both(encoded string) []string {
	safe := strings.NewReplacer("+", "-", "/", "_").Replace(encoded)
	if safe == encoded {
		return []string{encoded}
	}
	return []string{encoded, safe}
}

// spellings are all that a known secret is looked for as, besides itself.
func spellings(secret string) []string {
	list := []string{url.QueryEscape(secret), url.PathEscape(secret), reversed(secret)}
	if quoted, err := json.Marshal(secret); err == nil {
		text := string(quoted[1 : len(quoted)-1])
		list = append(list, text, strings.ReplaceAll(text, "/", `\/`))
	}
	for _, f := range forms(secret) {
		list = append(list, f.text)
	}
	// base64 twice over, at each offset of the outer one: Basic credentials in a Kubernetes secret, for one.
	once := base64.StdEncoding.EncodeToString([]byte(secret))
	for _, f := range forms(once) {
		if f.coding == base64Coding {
			list = append(list, f.text)
		}
	}
	return list
}

func reversed(text string) string {
	b := []byte(text)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

var base64Values = func() (table [256]int8) {
	for i := range table {
		table[i] = -1
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		table[c] = int8(i)
	}
	table['-'], table['_'] = 62, 63
	return table
}()

// decode reads on after a form that was found: what the text goes on with. open reports that p ended before the text did.
func (f *form) decode(p []byte, limit int) (text []byte, consumed int, open bool) {
	switch f.coding {
	case base64Coding:
		return decodeBase64(p, f.bits, limit)
	case hexCoding:
		for consumed+2 <= len(p) && len(text) < limit {
			high, ok := unhex(p[consumed])
			low, also := unhex(p[consumed+1])
			if !ok || !also {
				return text, consumed, false
			}
			text, consumed = append(text, high<<4|low), consumed+2
		}
	default:
		return decodeEscapes(p, f.coding, limit)
	}
	return text, consumed, len(text) < limit
}

// decodeBase64 passes over line ends, as MIME has them.
func decodeBase64(p []byte, skip, limit int) (text []byte, consumed int, open bool) {
	bits, buffer := -skip, uint32(0)
	for i, c := range p {
		if c == '\r' || c == '\n' {
			continue
		}
		value := base64Values[c]
		if value < 0 {
			return text, i, false
		}
		buffer = buffer<<6 | uint32(value)
		bits += 6
		if bits >= 8 {
			bits -= 8
			text = append(text, byte(buffer>>bits))
			if len(text) >= limit {
				return text, i + 1, false
			}
		}
	}
	return text, len(p), true
}

func decodeEscapes(p []byte, coding coding, limit int) (text []byte, consumed int, open bool) {
	lead, skip, size := byte('%'), 1, 3
	if coding == jsonCoding {
		lead, skip, size = '\\', 4, 6
	}
	for consumed < len(p) && len(text) < limit {
		c := p[consumed]
		if c != lead {
			if c <= ' ' || c == '"' {
				return text, consumed, false
			}
			text, consumed = append(text, c), consumed+1
			continue
		}
		if consumed+size > len(p) {
			return text, consumed, true
		}
		high, ok := unhex(p[consumed+skip])
		low, also := unhex(p[consumed+skip+1])
		if !ok || !also {
			return text, consumed, false
		}
		text, consumed = append(text, high<<4|low), consumed+size
	}
	return text, consumed, len(text) < limit
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
