"""Forwards connections between TCP ports and Unix sockets: an agent's machine without a network has sockets alone.

It runs by itself on the interpreter of /opt/bottle (`python3 -I -S -c SOURCE ORDER [-- COMMAND…]`). ORDER is JSON, a
list of `[from, to]`; each is `tcp:ADDRESS:PORT` or `unix:PATH`. With a command this becomes that command once it
listens, and the forwarding goes on beside it; without, it forwards for as long as it lives.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys

CHUNK = 65_536


def place(text: str) -> tuple[int, str | tuple[str, int]]:
    """The family and the address that a word of the order names."""
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return socket.AF_UNIX, rest
    host, _, port = rest.rpartition(":")
    return socket.AF_INET, (host, int(port))


def listener(text: str) -> socket.socket:
    """A socket that listens there; what a process that is gone has left of a Unix socket is replaced."""
    family, address = place(text)
    server = socket.socket(family, socket.SOCK_STREAM)
    if isinstance(address, str):
        if os.path.exists(address):
            os.unlink(address)
    else:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(address)
    if isinstance(address, str):
        os.chmod(address, 0o666)  # noqa: S103 -- the directory that it is in says who gets there
    server.listen(128)
    return server


def pump(one: socket.socket, other: socket.socket) -> None:
    """Copy in both directions. The end of one direction is handed on, and the other goes on until it ends too."""
    peers = {one: other, other: one}
    reading = [one, other]
    while reading:
        for source in select.select(reading, [], [])[0]:
            try:
                chunk = source.recv(CHUNK)
                if chunk:
                    peers[source].sendall(chunk)
                    continue
                peers[source].shutdown(socket.SHUT_WR)
            except OSError:
                return
            reading.remove(source)


def serve(routes: list[tuple[socket.socket, str]]) -> None:
    """Take connections, each in a process of its own, which the kernel reaps (sigaction(2), SIG_IGN for SIGCHLD)."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    targets = dict(routes)
    while True:
        for server in select.select(list(targets), [], [])[0]:
            connection, _ = server.accept()
            if os.fork() == 0:
                family, address = place(targets[server])
                try:
                    with socket.socket(family, socket.SOCK_STREAM) as target:
                        target.connect(address)
                        pump(connection, target)
                except OSError as error:
                    print(f"forward: {targets[server]}: {error.strerror}", file=sys.stderr, flush=True)
                os._exit(0)
            connection.close()


def main() -> None:
    """Exits only by a fault: 2 for an order that cannot be read."""
    try:
        routes = [(listener(source), target) for source, target in json.loads(sys.argv[1])]
    except (IndexError, ValueError) as error:
        print(f"forward: the order cannot be read: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    command = sys.argv[3:] if sys.argv[2:3] == ["--"] else []
    if not command or os.fork() == 0:
        serve(routes)
    for server, _ in routes:
        server.close()
    os.execvp(command[0], command)  # noqa: S606 -- no shell is wanted


if __name__ == "__main__":
    main()
