"""`Logs` on the real kernel, turned by hand: outputs, readers, writers, and a clock that only the test moves."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bottle_init.linux.logs import Logs
from bottle_init.linux.sys.poller import Poller
from tests.integration.support.init import PATIENCE_S


class Pipe:
    """A pipe that the test reads whenever it likes to, as the reader of the init's output does."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.got = b""

    def read(self, most: int = 1 << 20) -> bytes:
        """Take what is there, at most so much; all that was ever read is in `got`."""
        try:
            piece = os.read(self.reader, most)
        except BlockingIOError:
            piece = b""
        self.got += piece
        return piece

    def read_all(self) -> bytes:
        """Take everything that is there."""
        while self.read():
            pass
        return self.got

    @property
    def lines(self) -> list[bytes]:
        """All lines that were read. Raises AssertionError if the last one has no end."""
        assert not self.got or self.got.endswith(b"\n"), f"a torn line: {self.got[-80:]!r}"
        return self.got.split(b"\n")[:-1]

    def close(self) -> None:
        """Close both ends, as far as the test has not."""
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)
        self.reader = self.writer = -1

    def close_reader(self) -> None:
        """The reader goes away."""
        os.close(self.reader)
        self.reader = -1


class Bench:
    """What the loop is to `Logs`. Children are the test itself, or processes that it starts."""

    def __init__(self, mode: str, names: Sequence[str], stdout: int, stderr: int) -> None:
        self.now_ms = 1_000_000
        self.poller = Poller()
        self.logs = Logs(mode, names, self.poller, stdout, stderr, lambda: self.now_ms)
        self.outputs = stdout, stderr
        self.held: list[int] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def open(self, child: int = 0) -> tuple[int, int]:
        """The write ends that a process of that child would have, for the test to write to."""
        ends = self.logs.open(child)
        ours = os.dup(ends[0]), os.dup(ends[1])
        self.logs.opened(child)
        self.held += ours
        return ours

    def close(self, *fds: int) -> None:
        """Close some of those ends."""
        for fd in fds:
            self.held.remove(fd)
            os.close(fd)

    def end(self) -> None:
        """Close and kill everything."""
        self.close(*tuple(self.held))
        for fd in dict.fromkeys(sink._fd for sink in self.logs._sinks):
            if fd not in self.outputs:
                os.close(fd)
        self.poller._epoll.close()
        for process in self.processes:
            process.kill()
            process.wait()

    def start(self, code: str, child: int = 0) -> subprocess.Popen[bytes]:
        """A process of that child that runs some Python."""
        out, err = self.logs.open(child)
        process = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        self.logs.opened(child)
        self.processes.append(process)
        return process

    def ready(self) -> int:
        """For how many descriptors the kernel would wake the loop now; 0 lets it sleep."""
        return len(self.poller._epoll.poll(0))

    def turn(self, timeout_ms: int = 0) -> None:
        """One wake-up, as the loop has it: the pipes, then the clock."""
        self.poller.wait(timeout_ms)
        deadline_ms = self.logs.deadline_ms()
        if deadline_ms is not None and deadline_ms <= self.now_ms:
            self.logs.tick(self.now_ms)

    def settle(self) -> None:
        """Turn until there is nothing to do."""
        for _ in range(100_000):
            deadline_ms = self.logs.deadline_ms()
            if not self.ready() and (deadline_ms is None or deadline_ms > self.now_ms):
                return
            self.turn()
        raise AssertionError("the loop never comes to rest")

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Turn until `condition()` is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not come about within {PATIENCE_S} s")
            self.turn(20)

    def ended(self) -> bool:
        """Whether no pipe is open any more."""
        return not any(self.logs._sources.values())


@contextmanager
def bench(
    mode: str = "tag", names: Sequence[str] = ("egress",), stdout: int | None = None, stderr: int | None = None
) -> Iterator[tuple[Bench, Pipe, Pipe]]:
    """A bench whose outputs are two pipes, where the test does not give others; `(bench, out, err)`."""
    out, err = Pipe(), Pipe()
    made = Bench(mode, names, out.writer if stdout is None else stdout, err.writer if stderr is None else stderr)
    try:
        yield made, out, err
        made.logs.finish()  # Not where the test has failed: what has blocked once blocks again.
    finally:
        made.end()
        out.close()
        err.close()


def fill(fd: int) -> int:
    """Fill a pipe through a separate open file description; the number of bytes that it took."""
    ours = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
    taken = 0
    try:
        while True:
            taken += os.write(ours, b"." * 65_535 + b"\n")
    except BlockingIOError:
        return taken
    finally:
        os.close(ours)


def write_all(fd: int, data: bytes, turn: Callable[[], None]) -> None:
    """Write to a child's pipe from here, while the loop turns. Raises AssertionError if the pipe stays full."""
    os.set_blocking(fd, False)
    deadline = time.monotonic() + PATIENCE_S
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            assert time.monotonic() < deadline, "nobody reads the pipe"
            turn()


def is_full(fd: int) -> bool:
    """Whether a write to this pipe would have to wait."""
    return not select.select([], [fd], [], 0)[1]


def events(pipe: Pipe, name: str) -> list[dict[str, Any]]:
    """The init's own events of this name among the lines."""
    records = [json.loads(line) for line in pipe.lines if line.startswith(b"{")]
    return [record for record in records if record["event"] == name]
