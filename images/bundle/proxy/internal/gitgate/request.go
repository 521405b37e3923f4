package gitgate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A request is what a client of git's protocol opens with (gitprotocol-pack(5), "Git Transport").
type request struct {
	service string // upload-pack, receive-pack or upload-archive
	path    string
	version string // What the client asks for: "version=2", or empty.
}

const (
	// requestLimit is the longest first packet that is read, in bytes. git-daemon(1) takes 1000.
	requestLimit = 4096
	// lineLimit is the longest packet line there may be, in bytes (gitprotocol-common(5)).
	lineLimit = 65516
)

var (
	errNoRequest   = errors.New("that is not git's protocol")
	versions       = regexp.MustCompile(`^version=[0-9]$`)
	services       = map[string]bool{"upload-pack": true, "receive-pack": true, "upload-archive": true}
	repositoryName = regexp.MustCompile(`^/([A-Za-z0-9][A-Za-z0-9._-]*?)(?:\.git)?/?$`)
)

// readRequest reads a client's first packet.
func readRequest(r *bufio.Reader) (request, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return request{}, err
	}
	length, err := strconv.ParseUint(string(head[:]), 16, 16)
	if err != nil || length <= 4 || length > requestLimit {
		return request{}, errNoRequest
	}
	body := make([]byte, length-4)
	if _, err := io.ReadFull(r, body); err != nil {
		return request{}, err
	}
	// "git-upload-pack /demo\0host=sidecars:9418\0\0version=2\0": the command, the host, and then the extra parameters.
	fields := strings.Split(string(body), "\x00")
	command, path, _ := strings.Cut(strings.TrimSuffix(fields[0], "\n"), " ")
	service, isGit := strings.CutPrefix(command, "git-")
	if !isGit || path == "" {
		return request{}, errNoRequest
	}
	asked := request{service: service, path: path}
	for _, field := range fields[1:] {
		if versions.MatchString(field) {
			asked.version = field
		}
	}
	return asked, nil
}

// name returns the name of the repository that a path means.
func (r request) name() (string, bool) {
	match := repositoryName.FindStringSubmatch(r.path)
	if match == nil || strings.Contains(match[1], "..") {
		return "", false
	}
	return match[1], true
}

// refuse says why, in a way that git shows ("fatal: remote error: ..."), and closes the connection. What the client still
// sends is taken for a moment: to close it unread would reset the connection, and the words with it.
func refuse(conn *net.TCPConn, reason string) {
	defer conn.Close()
	line := "ERR git-gate: " + cut(strings.Join(strings.Fields(reason), " "), lineLimit/2)
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := fmt.Fprintf(conn, "%04x%s", len(line)+4, line); err != nil {
		return
	}
	conn.CloseWrite()
	io.Copy(io.Discard, conn)
}
