package gitgate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// tunnelTimeout is how long egress may take to reach an upstream.
const tunnelTimeout = 60 * time.Second

// A tunnel is a connection through egress, with what was read ahead of it.
type tunnel struct {
	*net.TCPConn
	reader *bufio.Reader
}

func (t tunnel) Read(p []byte) (int, error) { return t.reader.Read(p) }

// dialTunnel has egress connect to a host and port. It fails with egress' words.
func dialTunnel(ctx context.Context, host, port string) (*tunnel, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", egressPort))
	if err != nil {
		return nil, fmt.Errorf("egress can't be reached: %w", err)
	}
	conn.SetDeadline(time.Now().Add(tunnelTimeout))
	target := net.JoinHostPort(strings.Trim(host, "[]"), port)
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		conn.Close()
		return nil, err
	}
	reader := bufio.NewReaderSize(conn, 64<<10)
	answer, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("egress: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(answer.Body, 1000))
		conn.Close()
		return nil, errors.New("egress: " + strings.TrimSpace(answer.Status+" "+string(said)))
	}
	conn.SetDeadline(time.Time{})
	return &tunnel{conn.(*net.TCPConn), reader}, nil
}
