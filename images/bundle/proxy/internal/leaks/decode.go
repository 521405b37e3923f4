package leaks

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
)

const (
	// maxDepth is how many encodings may lie on top of each other.
	maxDepth = 3
	// shortestRun is how many characters of an encoding's alphabet make it worth a try.
	shortestRun = 16
	// wrapped is from which length on a line of such characters may go on in the next, as in MIME and PEM.
	wrapped = 60
	// around is how much of the text on either side of decoded parts is scanned along with them: the name that a value
	// is given to is there. Parts that are nearer to each other than twice that are looked at together.
	around = 1 << 10
)

var base64Alphabet, hexAlphabet = func() (b, h [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_") {
		b[c] = true
	}
	for _, c := range []byte("0123456789abcdefABCDEF") {
		h[c] = true
	}
	return b, h
}()

// A part of a text, and what it means.
type part struct {
	from, to int
	means    []byte
}

// decode scans what the encoded parts that begin in t.data[start:end] mean. depth counts the encodings above; origin is
// where in the outer text the outermost stands.
func (s *Scanner) decode(t text, start, end, depth, origin int) {
	if depth == maxDepth || s.full() {
		return
	}
	until := min(len(t.data), end+reach)
	if bytes.IndexByte(t.data[start:until], '%') >= 0 {
		s.replaced(t, percents(t.data, start, until), depth, origin)
	}
	if bytes.IndexByte(t.data[start:until], '\\') >= 0 {
		s.replaced(t, escapes(t.data, start, until), depth, origin)
	}
	var readable []part
	for _, run := range runs(t.data, start, end, until) {
		means, others := meanings(t.data[run.from:run.to])
		if means != nil {
			readable = append(readable, part{run.from, run.to, means})
		}
		for _, other := range others {
			s.decoded(text{other, false, false}, depth+1, place(origin, run.from))
		}
	}
	s.replaced(t, readable, depth, origin)
}

func (s *Scanner) decoded(t text, depth, origin int) {
	s.scan(t, 0, len(t.data), origin)
	s.decode(t, 0, len(t.data), depth, origin)
}

// replaced scans the text around the parts with each part replaced by what it means.
func (s *Scanner) replaced(t text, parts []part, depth, origin int) {
	for len(parts) > 0 {
		n := 1
		for n < len(parts) && parts[n].from-parts[n-1].to < 2*around {
			n++
		}
		from, to := max(0, parts[0].from-around), min(len(t.data), parts[n-1].to+around)
		var plain []byte
		at := from
		for _, p := range parts[:n] {
			plain = append(append(plain, t.data[at:p.from]...), p.means...)
			at = p.to
		}
		plain = append(plain, t.data[at:to]...)
		s.decoded(text{plain, t.begins && from == 0, t.ends && to == len(t.data)}, depth+1, place(origin, parts[0].from))
		parts = parts[n:]
	}
}

// runs returns the runs of base64's characters that begin in data[start:end], or that go on there.
func runs(data []byte, start, end, until int) []part {
	var found []part
	for i := start; i+shortestRun <= until && i < end; {
		// A run that begins at i or up to here contains this byte, or is too short.
		last := i + shortestRun - 1
		if !base64Alphabet[data[last]] {
			i = last + 1
			continue
		}
		from := last
		for from > i && base64Alphabet[data[from-1]] {
			from--
		}
		to := runEnd(data, last+1, from, until)
		if to-from >= shortestRun && from < end {
			found = append(found, part{from: from, to: to})
		}
		i = to + 1
	}
	return found
}

func runEnd(data []byte, i, line, until int) int {
	for {
		for i < until && base64Alphabet[data[i]] {
			i++
		}
		if i-line < wrapped {
			return i
		}
		next := i
		if next < until && data[next] == '\r' {
			next++
		}
		if next >= until || data[next] != '\n' {
			return i
		}
		for next++; next < until && (data[next] == ' ' || data[next] == '\t'); next++ {
		}
		if next >= until || !base64Alphabet[data[next]] {
			return i
		}
		i, line = next, next
	}
}

// meanings returns what a run means if that is plain text, and all else that it may mean.
func meanings(run []byte) (plain []byte, others [][]byte) {
	digits := make([]byte, 0, len(run))
	isHex := true
	for _, b := range run {
		if !base64Alphabet[b] {
			continue
		}
		switch b {
		case '-':
			b = '+'
		case '_':
			b = '/'
		}
		isHex = isHex && hexAlphabet[b]
		digits = append(digits, b)
	}
	take := func(means []byte) {
		if plain == nil && printable(means) {
			plain = means
		} else {
			others = append(others, means)
		}
	}
	if isHex {
		for offset := range 2 {
			take(unhex(digits[offset:]))
		}
	}
	// Where the run began may be a matter of chance: of what stood before it, or of where the text was cut.
	for offset := range 4 {
		take(unbase64(digits[offset:]))
	}
	return plain, others
}

func unhex(digits []byte) []byte {
	means := make([]byte, len(digits)/2)
	n, _ := hex.Decode(means, digits[:len(digits)&^1])
	return means[:n]
}

func unbase64(digits []byte) []byte {
	if len(digits)%4 == 1 {
		digits = digits[:len(digits)-1]
	}
	means := make([]byte, base64.RawStdEncoding.DecodedLen(len(digits)))
	n, _ := base64.RawStdEncoding.Decode(means, digits)
	return means[:n]
}

func printable(text []byte) bool {
	for _, b := range text {
		if (b < ' ' || b > '~') && b != '\n' && b != '\r' && b != '\t' {
			return false
		}
	}
	return len(text) > 0
}

// percents returns the bytes that are written with a percent sign (RFC 3986, section 2.1).
func percents(data []byte, start, until int) []part {
	var found []part
	for i := start; i+2 < until; i++ {
		next := bytes.IndexByte(data[i:until-2], '%')
		if next < 0 {
			break
		}
		i += next
		if hexAlphabet[data[i+1]] && hexAlphabet[data[i+2]] {
			found = append(found, part{i, i + 3, unhex(data[i+1 : i+3])})
			i += 2
		}
	}
	return found
}

// escapes returns the characters that are written as \uXXXX or \xXX, as JSON and most languages have them.
func escapes(data []byte, start, until int) []part {
	var found []part
	for i := start; i+3 < until; i++ {
		next := bytes.IndexByte(data[i:until-3], '\\')
		if next < 0 {
			break
		}
		i += next
		length := 0
		switch data[i+1] {
		case 'x':
			length = 2
		case 'u':
			length = 4
		case '/': // JSON may write a slash so.
			found = append(found, part{i, i + 2, []byte("/")})
			continue
		default:
			continue
		}
		to := i + 2 + length
		if to > until || !allHex(data[i+2:to]) {
			continue
		}
		code := unhex(data[i+2 : to])
		means := code[len(code)-1:]
		if length == 4 && code[0] != 0 {
			continue // No secret has other characters than ASCII's.
		}
		found = append(found, part{i, to, means})
		i = to - 1
	}
	return found
}

func allHex(digits []byte) bool {
	for _, b := range digits {
		if !hexAlphabet[b] {
			return false
		}
	}
	return true
}
