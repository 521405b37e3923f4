package proxy

import (
	"encoding/binary"
	"net/http"
	"strings"
)

// grpcFrames follows the messages of a gRPC body: a byte that says whether it is compressed, four with its length, and
// the message (gRPC over HTTP/2, "Length-Prefixed-Message").
type grpcFrames struct {
	head [5]byte
	have int
	left uint32
	// compressed is set by a message that says that it is.
	compressed bool
}

func isGRPC(header http.Header) bool {
	return strings.HasPrefix(header.Get("Content-Type"), "application/grpc")
}

// follow reports whether a message ends with p. It has to leave then, as its receiver may have to answer it before the next
// one comes.
func (g *grpcFrames) follow(p []byte) (ends bool) {
	for len(p) > 0 {
		if g.have < len(g.head) {
			n := copy(g.head[g.have:], p)
			g.have, p = g.have+n, p[n:]
			if g.have < len(g.head) {
				return false
			}
			g.left = binary.BigEndian.Uint32(g.head[1:])
			g.compressed = g.compressed || g.head[0] != 0
		}
		n := min(uint64(g.left), uint64(len(p)))
		g.left, p = g.left-uint32(n), p[n:]
		if g.left == 0 {
			g.have, ends = 0, len(p) == 0
		} else {
			ends = false
		}
	}
	return ends
}
