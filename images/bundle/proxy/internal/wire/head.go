// Package wire serves HTTP/1.1 to a client, as strictly as a judge of requests has to read them.
//
// net/http's own server forgives what a proxy must not: it drops the Host header of a request in absolute form, and
// takes a line that ends in a bare LF. What two readers could read differently is refused here, with a reason.
package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// A HeadTooLargeError is a head that is longer than it may be, in bytes.
type HeadTooLargeError int

func (e HeadTooLargeError) Error() string {
	return fmt.Sprintf("the request's head is larger than %d bytes (limits.header)", int(e))
}

// A budget is how much of a head may still be read.
type budget struct{ limit, left int }

// A MalformedError is a request that is refused before anything in it is judged. Its text is meant for the client.
type MalformedError struct{ Reason string }

func (e *MalformedError) Error() string { return "malformed request: " + e.Reason }

func malformed(format string, arguments ...any) error {
	return &MalformedError{fmt.Sprintf(format, arguments...)}
}

// A Head is what stands before a request's body.
type Head struct {
	Method  string
	Target  string
	Minor   int // of HTTP/1.Minor
	Header  http.Header
	Host    string // the Host header's value, "" for none
	HasHost bool
	// Length is the body's: -1 where it is chunked.
	Length int64
	// Names are the names of the header fields as they were written, a line each: Header has them in their usual form.
	Names []byte
}

// readLine returns the next line without its CRLF. The slice is valid until the next read.
func readLine(r *bufio.Reader, b *budget) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		whole := append([]byte(nil), line...)
		for errors.Is(err, bufio.ErrBufferFull) && len(whole) <= b.left {
			line, err = r.ReadSlice('\n')
			whole = append(whole, line...)
		}
		line = whole
	}
	b.left -= len(line)
	if b.left < 0 {
		return nil, HeadTooLargeError(b.limit)
	}
	if err != nil {
		return nil, err
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return nil, malformed("a line of the head does not end in CRLF")
	}
	return line[:len(line)-2], nil
}

// readFields reads header or trailer fields up to the empty line.
func readFields(r *bufio.Reader, b *budget, names *[]byte) (http.Header, error) {
	header := make(http.Header, 16)
	for {
		line, err := readLine(r, b)
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			return header, nil
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			return nil, malformed("a header line has no name before a colon")
		}
		for _, c := range line[:colon] {
			if !tokenByte[c] {
				return nil, malformed("a header's name holds the byte %#02x", c)
			}
		}
		*names = append(append(*names, line[:colon]...), '\n')
		value := strings.Trim(string(line[colon+1:]), " \t")
		if i := badValueByte(value); i >= 0 {
			return nil, malformed("the value of the header %q holds the control character %#02x", line[:colon], value[i])
		}
		key := textproto.CanonicalMIMEHeaderKey(string(line[:colon]))
		header[key] = append(header[key], value)
	}
}

// ReadHead reads a request's head of at most limit bytes. The error is io.EOF where the client has nothing more to ask.
func ReadHead(r *bufio.Reader, limit int) (*Head, error) {
	b := &budget{limit, limit}
	line, err := readLine(r, b)
	if err != nil {
		return nil, err
	}
	method, rest, found := strings.Cut(string(line), " ")
	target, version, also := strings.Cut(rest, " ")
	if !found || !also || target == "" {
		return nil, malformed("the request line is not METHOD TARGET VERSION")
	}
	head := &Head{Method: method, Target: target}
	switch version {
	case "HTTP/1.1":
		head.Minor = 1
	case "HTTP/1.0":
	default:
		return nil, malformed("the version is neither HTTP/1.1 nor HTTP/1.0")
	}
	if method == "" || len(method) > 32 || !isToken(method) {
		return nil, malformed("the method is no token")
	}
	if err := CheckTarget(target); err != nil {
		return nil, err
	}
	if head.Header, err = readFields(r, b, &head.Names); err != nil {
		return nil, err
	}
	return head, head.frame()
}

// CheckTarget refuses bytes that end a target, or that are read in more than one way (RFC 9112, 3.2; RFC 3986, 2).
func CheckTarget(target string) error {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return malformed("the request target holds the byte %#02x", c)
		}
	}
	return nil
}

// frame takes Host, Content-Length and Transfer-Encoding out of the header fields and checks them (RFC 9112, 3.2 and 6).
func (h *Head) frame() error {
	hosts := h.Header["Host"]
	delete(h.Header, "Host")
	if len(hosts) > 1 {
		return malformed("more than one Host header")
	}
	if len(hosts) == 1 {
		h.Host, h.HasHost = hosts[0], true
	} else if h.Minor == 1 {
		return malformed("no Host header")
	}
	encodings := h.Header["Transfer-Encoding"]
	lengths := h.Header["Content-Length"]
	delete(h.Header, "Transfer-Encoding")
	delete(h.Header, "Content-Length")
	switch {
	case len(encodings) > 0 && len(lengths) > 0:
		return malformed("both Content-Length and Transfer-Encoding")
	case len(encodings) > 1 || len(encodings) == 1 && !strings.EqualFold(encodings[0], "chunked"):
		return malformed("a Transfer-Encoding other than chunked")
	case len(encodings) == 1 && h.Minor == 0:
		return malformed("Transfer-Encoding in HTTP/1.0")
	case len(encodings) == 1:
		h.Length = -1
	case len(lengths) > 1:
		return malformed("more than one Content-Length")
	case len(lengths) == 1:
		length, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil || lengths[0][0] == '+' {
			return malformed("Content-Length is no number")
		}
		h.Length = int64(length)
	}
	return nil
}

var tokenByte = func() (table [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		table[c] = true
	}
	return table
}()

func isToken(text string) bool {
	for i := range len(text) {
		if !tokenByte[text[i]] {
			return false
		}
	}
	return text != ""
}

// badValueByte returns the index of the first byte that no field value may hold (RFC 9110, 5.5), or -1.
func badValueByte(value string) int {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return i
		}
	}
	return -1
}
