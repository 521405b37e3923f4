"""What probe.c does, for machines without a C compiler: the same modes, events and lines; see there."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

started_ns = time.monotonic_ns()
LINE = 100
BLOCK = 4_096

mode, address, name = sys.argv[1:4]
count = int(sys.argv[4]) if len(sys.argv) > 4 else 0
wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def tell(event: str, ns: int | None = None) -> None:
    """Send one event, as of now unless said otherwise."""
    wire.sendto(f"{name} {event} {ns or time.monotonic_ns()} {os.getpid()}".encode(), address)


def on_signal(number: int, _frame: object) -> None:
    """Report USR1, and TERM, which is also the end."""
    tell("term" if number == signal.SIGTERM else "signal")
    if number == signal.SIGTERM:
        os._exit(0)  # As in C: the interpreter's own way out is not what is measured.


def write_all(data: bytes) -> None:
    """Write it all to stdout, in blocks as stdio would."""
    for at in range(0, len(data), BLOCK):
        block = data[at : at + BLOCK]
        while block:
            block = block[os.write(1, block) :]


def lines(first: int, amount: int) -> bytes:
    """Numbered lines of 100 bytes."""
    return b"".join(
        f"@{name}:{number} ".encode().ljust(LINE - 1, b"x") + b"\n" for number in range(first, first + amount)
    )


def leave_orphans() -> None:
    """Fork twice, so that the grandchild is left behind."""
    for _ in range(count):
        parent = os.fork()
        if parent == 0:
            os.fork()
            os._exit(0)
        os.waitpid(parent, 0)


def drip() -> None:
    """Lines for ever, 10,000 a second."""
    first = 0
    while True:
        write_all(lines(first, 100))
        first += 100
        time.sleep(0.01)


signal.signal(signal.SIGTERM, on_signal if mode in ("catch", "drip") else signal.SIG_DFL)
if mode == "catch":
    signal.signal(signal.SIGUSR1, on_signal)
tell("start", started_ns)
if mode == "lines":
    write_all(lines(0, count))
    tell("done")
elif mode == "drip":
    drip()
elif mode == "orphans":
    leave_orphans()
    tell("done")
while True:
    signal.pause()
