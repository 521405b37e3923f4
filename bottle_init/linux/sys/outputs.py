"""The init's own stdout and stderr, as queues that never block (contract 8).

No descriptor that the init inherited ever gets O_NONBLOCK: that flag lives in the open file description, which others
share (fcntl(2)). `writer` says what is done instead.
"""

from __future__ import annotations

import os
from fcntl import F_GETFL, fcntl, ioctl
from select import EPOLLOUT, POLLOUT, poll
from sys import byteorder

from bottle_init.core.flow import Outlet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol

    Write = Callable[[list[memoryview]], int]

    class Poller(Protocol):
        """What is needed of `poller.py`."""

        def watch(self, fd: int, mask: int, callback: Callable[[int], None]) -> None: ...
        def forget(self, fd: int) -> None: ...


PIPE_BUF: Final = 4096
TERMINAL_BYTES: Final = 64
"""How much one call writes to a terminal that is written to byte by byte."""
TURN_WRITES: Final = 64
"""How often one wake-up writes to an output; a terminal of that kind takes a millisecond for each."""

FIONREAD: Final = 0x541B
"""How much a pipe holds (pipe(7)); where the number is another one, the call fails, and that is not known."""

_FORMAT: Final = 0o170000
_FIFO: Final = 0o010000
_CHARACTER: Final = 0o020000
_SOCKET: Final = 0o140000


class Sink(Outlet):
    """One file behind stdout, stderr or both, and its queue. `wrote` is called when there is more room than before."""

    __slots__ = ("_clock", "_fd", "_is_pipe", "_poller", "_write", "_wrote")

    def __init__(self, fd: int, poller: Poller, clock: Callable[[], int], wrote: Callable[[Sink], None]) -> None:
        super().__init__()
        self._fd, self._write = writer(fd)
        self._is_pipe = _kind(fd) == _FIFO
        self._poller = poller
        self._clock = clock
        self._wrote = wrote

    def push(self, _mask: int = 0) -> None:
        """Write until the queue is empty or the reader takes no more."""
        self.is_urged = False
        moved = False
        for _ in range(TURN_WRITES):
            if self.is_empty():
                self._unblock()
                break
            try:
                written = self._write(self.head())
            except BlockingIOError:
                self._wait(moved=moved)
                break
            except OSError:
                written = 0
            if not written:
                self._fail()
                return
            self.took(written)
            moved = True
        else:
            self._wait(moved=moved)  # The others have their turn first.
        if moved:
            self._wrote(self)

    def _wait(self, *, moved: bool) -> None:
        """The reader takes no more: go on when it does."""
        if self.blocked_at_ms is None:
            try:
                self._poller.watch(self._fd, EPOLLOUT, self.push)
            except OSError:
                self._fail()
                return
        self.refused(self._clock(), _unread(self._fd) if self._is_pipe else 0, moved=moved)

    def _unblock(self) -> None:
        if self.blocked_at_ms is not None:
            self._poller.forget(self._fd)
            self.blocked_at_ms = None

    def give_up(self) -> None:
        """Treat a reader that takes nothing as one that is gone."""
        if not self.is_empty() and not self.failing:
            self._fail()

    def _fail(self) -> None:
        self._unblock()
        self.failed()
        self._wrote(self)


def same_file(stdout: int, stderr: int) -> bool:
    """Whether two descriptors lead to the same file, so that lines could tear each other."""
    try:
        out, err = os.fstat(stdout), os.fstat(stderr)
    except OSError:
        return False
    return (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino)


def writer(fd: int) -> tuple[int, Write]:
    """How to write to an inherited descriptor without ever blocking: `(descriptor to poll, write)`.

    A pipe, a FIFO or a terminal is opened once more through /proc, which makes an open file description
    of our own, and that one is non-blocking. A socket has MSG_DONTWAIT. A file is written to as it is. Where opening is
    refused (a terminal of another user's) or /proc is not there, see `_polite`. Whatever is closed
    fails at each write, and that is counted.
    """
    kind = _kind(fd)
    try:
        if kind == _SOCKET:
            return fd, _sender(fd)
        if kind in (_FIFO, _CHARACTER) and fcntl(fd, F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            fd = os.open(f"/proc/self/fd/{fd}", flags)
        return fd, lambda blocks: os.writev(fd, blocks)
    except OSError:
        return fd, _polite(fd)


def _kind(fd: int) -> int:
    """What kind of file it is, as in `st_mode`; 0 where it is closed."""
    try:
        return os.fstat(fd).st_mode & _FORMAT
    except OSError:
        return 0


def _unread(fd: int) -> int:
    """How many bytes of a pipe nobody has read yet, 0 where that is not known."""
    try:
        return int.from_bytes(ioctl(fd, FIONREAD, bytes(4)), byteorder)
    except OSError:
        return 0


def _sender(fd: int) -> Write:
    """Writes to a socket (send(2)). Python's socket object only lends its method: the descriptor is not its own."""
    from _socket import MSG_DONTWAIT, MSG_NOSIGNAL, socket

    def write(blocks: list[memoryview]) -> int:
        lent = socket(fileno=fd)
        try:
            return lent.sendmsg(blocks, (), MSG_DONTWAIT | MSG_NOSIGNAL)
        finally:
            lent.detach()

    return write


def _polite(fd: int) -> Write:
    """Writes to a blocking descriptor only what it takes at once.

    RWF_NOWAIT says so where the kernel knows it for this kind of file (pwritev2(2)). Else poll(2) does: a pipe that it
    calls writable has room for PIPE_BUF bytes (pipe(7)), unless another process fills it in that very moment.
    """
    if os.isatty(fd):
        return _bytewise(fd)
    nowait = True

    def write(blocks: list[memoryview]) -> int:
        nonlocal nowait
        if nowait:
            try:
                return os.pwritev(fd, blocks, -1, os.RWF_NOWAIT)
            except BlockingIOError:
                raise
            except OSError:
                nowait = False  # Whether it is not supported here, or has failed: write(2) tells.
        if not _writable(fd):
            raise BlockingIOError
        return os.write(fd, blocks[0][:PIPE_BUF])

    return write


def _bytewise(fd: int) -> Write:
    """Writes to a blocking terminal, asking before each byte.

    A terminal that poll(2) calls writable takes one character and no more for sure: the kernel counts its room in
    buffers, and two bytes have been seen to block.
    """

    def write(blocks: list[memoryview]) -> int:
        for written, byte in enumerate(blocks[0][:TERMINAL_BYTES]):
            if not _writable(fd):
                if written:
                    return written
                raise BlockingIOError
            os.write(fd, bytes((byte,)))
        return min(len(blocks[0]), TERMINAL_BYTES)

    return write


def _writable(fd: int) -> bool:
    """Whether a write would not wait, or would fail."""
    asked = poll()
    asked.register(fd, POLLOUT)
    return bool(asked.poll(0))
