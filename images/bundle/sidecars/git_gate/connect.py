"""`core.gitProxy`: a tunnel through egress to an upstream that speaks git's own protocol (git-config(1))."""

from __future__ import annotations

import os
import socket
import sys
import threading

from sidecars import layout


def main() -> None:
    """git passes host and port, and speaks with stdin and stdout."""
    host, port = sys.argv[1:3]
    connection = socket.create_connection(("127.0.0.1", layout.EGRESS_GIT_PORT))
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    connection.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n") and (byte := connection.recv(1)):
        head += byte
    status = head.partition(b"\r\n")[0].decode("latin-1")
    if " 200" not in status[:13]:
        print(f"egress: {status}", file=sys.stderr)
        raise SystemExit(1)

    def send() -> None:
        while piece := os.read(0, 1 << 16):
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)

    threading.Thread(target=send, daemon=True).start()
    while piece := connection.recv(1 << 16):
        os.write(1, piece)


if __name__ == "__main__":
    main()
