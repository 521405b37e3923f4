// Package notify tells the init how the daemon is, in sd_notify(3)'s protocol.
package notify

import (
	"net"
	"os"
	"strings"
)

// Send writes a datagram to $NOTIFY_SOCKET, where there is one: lines such as "READY=1".
func Send(lines ...string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(strings.Join(lines, "\n")))
	return err
}
