package wire

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"
)

var errTooMuch = errors.New("wire: more was written than Content-Length says")

// A Response is the http.ResponseWriter of one request. It is also an http.Flusher.
//
// Its methods may be called by one goroutine at a time; informational answers may come from another one.
type Response struct {
	conn     net.Conn
	out      *bufio.Writer
	head     *Head
	header   http.Header
	reason   string
	mutex    sync.Mutex // guards out until the final head is written
	wrote    bool
	status   int
	chunked  bool
	bodyless bool
	length   int64 // -1 where it is not known
	written  int64
	// closing is set where the connection can't be used again after this answer.
	closing  bool
	hijacked bool
	watch    *watcher
}

// Header returns the header fields of the answer, and after the body what becomes its trailers.
func (w *Response) Header() http.Header { return w.header }

// SetReason sets the reason phrase of the status line; control characters are dropped.
func (w *Response) SetReason(reason string) {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return -1
		}
		return r
	}, reason)
	w.reason = clean
}

// RequestNames are the names of the request's header fields as they were written, a line each.
func (w *Response) RequestNames() string { return string(w.head.Names) }

// Close makes this the connection's last answer.
func (w *Response) Close() { w.closing = true }

// Hijack hands the connection over, from behind the request's body on, with the reader that has read ahead. What has
// been written is sent first.
func (w *Response) Hijack() (net.Conn, *bufio.Reader, error) {
	w.hijacked = true
	w.watch.stop()
	return w.conn, w.watch.session.in, w.out.Flush()
}

func (w *Response) writeStatus(code int) {
	reason := w.reason
	if reason == "" || code < 200 {
		reason = http.StatusText(code)
	}
	w.out.WriteString("HTTP/1.1 ")
	w.out.WriteString(strconv.Itoa(code))
	w.out.WriteByte(' ')
	w.out.WriteString(reason)
	w.out.WriteString("\r\n")
}

func (w *Response) writeFields(header http.Header) {
	for name, values := range header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			continue
		}
		for _, value := range values {
			w.out.WriteString(name)
			w.out.WriteString(": ")
			w.out.WriteString(clean(value))
			w.out.WriteString("\r\n")
		}
	}
}

// clean makes one line of a value that came from elsewhere.
func clean(value string) string {
	if badValueByte(value) < 0 {
		return value
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return ' '
		}
		return r
	}, value)
}

// WriteHeader writes the answer's head: at once for an informational one (RFC 9110, 15.2), else before the first byte
// of the body.
func (w *Response) WriteHeader(code int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.wrote || w.hijacked {
		return
	}
	if code < 200 && code != http.StatusSwitchingProtocols {
		if w.head.Minor == 0 {
			return
		}
		w.writeStatus(code)
		w.writeFields(w.header)
		w.out.WriteString("\r\n")
		w.out.Flush()
		return
	}
	w.wrote, w.status = true, code
	w.frame()
	w.writeStatus(code)
	w.writeFields(w.header)
	w.out.WriteString("\r\n")
}

// frame decides how the client learns where the body ends, and sets the header fields that say so.
func (w *Response) frame() {
	w.length = -1
	declared := w.header.Get("Content-Length")
	w.header.Del("Transfer-Encoding")
	w.header.Del("Connection")
	w.bodyless = w.head.Method == http.MethodHead || w.status == http.StatusNoContent || w.status == http.StatusNotModified || w.status < 200
	switch {
	case w.status == http.StatusSwitchingProtocols:
		w.header.Set("Connection", "Upgrade")
		return
	case w.bodyless:
	case declared != "":
		if length, err := strconv.ParseInt(declared, 10, 64); err == nil && length >= 0 {
			w.length = length
		} else {
			w.header.Del("Content-Length")
			w.closing = true
		}
	case w.head.Minor == 1:
		w.chunked = true
		w.header.Set("Transfer-Encoding", "chunked")
	default:
		w.closing = true
	}
	if w.closing {
		w.header.Set("Connection", "close")
	} else if w.head.Minor == 0 {
		w.header.Set("Connection", "keep-alive")
	}
}

func (w *Response) Write(p []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	if w.bodyless || len(p) == 0 {
		return len(p), nil
	}
	w.written += int64(len(p))
	if w.length >= 0 && w.written > w.length {
		return 0, errTooMuch
	}
	if !w.chunked {
		return w.out.Write(p)
	}
	var size [18]byte
	line := strconv.AppendUint(size[:0], uint64(len(p)), 16)
	w.out.Write(append(line, '\r', '\n'))
	w.out.Write(p)
	return len(p), w.crlf()
}

func (w *Response) crlf() error {
	_, err := w.out.WriteString("\r\n")
	return err
}

// Flush sends what has been written so far.
func (w *Response) Flush() { w.FlushError() }

// FlushError is Flush with the connection's error, as http.ResponseController calls it.
func (w *Response) FlushError() error {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	return w.out.Flush()
}

// finish writes what ends the answer. It reports whether the answer is whole.
func (w *Response) finish() error {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	if w.chunked {
		w.out.WriteString("0\r\n")
		for name, values := range w.header {
			if trailer, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
				for _, value := range values {
					w.out.WriteString(textproto.CanonicalMIMEHeaderKey(trailer) + ": " + clean(value) + "\r\n")
				}
			}
		}
		w.crlf()
	} else if w.length >= 0 && w.written < w.length && !w.bodyless {
		return io.ErrUnexpectedEOF
	}
	return w.out.Flush()
}

// continuer is a body whose first read tells the client to send it (RFC 9110, 10.1.1).
type continuer struct {
	io.Reader
	response *Response
	once     sync.Once
}

func (c *continuer) Read(p []byte) (int, error) {
	c.once.Do(func() {
		c.response.mutex.Lock()
		defer c.response.mutex.Unlock()
		if !c.response.wrote {
			c.response.writeStatus(http.StatusContinue)
			c.response.crlf()
			c.response.out.Flush()
		}
	})
	return c.Reader.Read(p)
}

const discardDeadline = 60 * time.Second
