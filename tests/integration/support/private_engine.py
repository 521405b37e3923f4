"""A Docker engine for one test, on a machine that is separate as far as names go: run inside new mount, network and PID
namespaces (`unshare`), it has the resolver that the test gives it, on loopback, as a machine with systemd-resolved has.

Usage: private_engine.py DIRECTORY. In DIRECTORY it makes `docker.sock`, `queries` (each name that the resolver was
asked for, one a line) and `log`.
"""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # netdevice(7)
REFUSED = 0x8180 | 5  # RFC 1035, 4.1.1: a response, recursion available, refused


def bring_up_loopback() -> None:
    """A new network namespace has its loopback down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0)))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def name_in(query: bytes) -> str:
    """The name that a DNS query asks for."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode(errors="replace"))
        at += 1 + query[at]
    return ".".join(labels)


def serve_names(server: socket.socket, queries: Path) -> None:
    """Write down every name asked for, and refuse it."""
    while True:
        query, client = server.recvfrom(4096)
        with queries.open("a") as file:
            file.write(name_in(query) + "\n")
        server.sendto(query[:2] + struct.pack(">H", REFUSED) + query[4:], client)


def main(directory: Path) -> int:
    """Run until TERM."""
    bring_up_loopback()
    resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    resolver.bind(("127.0.0.1", 53))
    threading.Thread(target=serve_names, args=(resolver, directory / "queries"), daemon=True).start()
    (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    subprocess.run(["mount", "--bind", directory / "resolv.conf", "/etc/resolv.conf"], check=True)
    with (directory / "log").open("wb") as log:
        engine = subprocess.Popen(
            [
                *("dockerd", "--host", f"unix://{directory}/docker.sock", "--bridge", "none"),
                *("--data-root", directory / "data", "--exec-root", directory / "exec"),
                *("--pidfile", directory / "pid"),
            ],
            stdout=log,
            stderr=log,
        )
    signal.signal(signal.SIGTERM, lambda *_: engine.terminate())
    return engine.wait()


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(Path(sys.argv[1])))
