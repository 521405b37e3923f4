"""The init's own stdout and stderr, as queues that never block (contract 8).

No descriptor that the init inherited ever gets O_NONBLOCK: that flag lives in the open file description, which others
share (fcntl(2)). `writer` says what is done instead.
"""

from __future__ import annotations

import os
from fcntl import F_GETFL, fcntl
from select import EPOLLOUT, POLLOUT, poll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol

    Write = Callable[[list[memoryview]], int]

    class Poller(Protocol):
        """What is needed of `poller.py`."""

        def watch(self, fd: int, mask: int, callback: Callable[[int], None]) -> None: ...
        def forget(self, fd: int) -> None: ...


STALL_MS: Final = 1_000
"""A reader that takes nothing for so long is waited for no more (contract 8)."""
BLOCK_BYTES: Final = 128
"""What a queued block costs beside its content."""
WRITE_BLOCKS: Final = 64
"""How many blocks one writev(2) gets."""
PIPE_BUF: Final = 4096
TERMINAL_BYTES: Final = 64
"""How much one call writes to a terminal that is written to byte by byte."""
TURN_WRITES: Final = 64
"""How often one wake-up writes to an output; a terminal of that kind takes a millisecond for each."""

_FORMAT: Final = 0o170000
_FIFO: Final = 0o010000
_CHARACTER: Final = 0o020000
_SOCKET: Final = 0o140000


class Account:
    """Lines lost of one stream of one child's, or of the init's own log (`name` is "" then)."""

    __slots__ = ("lost", "name", "stream", "unreported")

    def __init__(self, name: str, stream: str) -> None:
        self.name = name
        self.stream = stream
        self.lost = 0
        self.unreported = 0


class Sink:
    """One file behind stdout, stderr or both, and the queue of what it is to get: blocks of whole lines.

    What was begun is finished before anything else, so no line is ever torn. `progressed` is called when there is more
    room than before.
    """

    __slots__ = (
        "_blocks",
        "_clock",
        "_fd",
        "_offset",
        "_poller",
        "_progressed",
        "_write",
        "blocked_at_ms",
        "failing",
        "owed",
        "patience_ms",
        "size",
    )

    def __init__(self, fd: int, poller: Poller, clock: Callable[[], int], progressed: Callable[[Sink], None]) -> None:
        self._fd, self._write = writer(fd)
        self._poller = poller
        self._clock = clock
        self._progressed = progressed
        self._blocks: list[tuple[bytes, Account]] = []
        self._offset = 0
        """How much of the first block has been written."""
        self.size = 0
        """Bytes in the queue, with what their keeping costs."""
        self.blocked_at_ms: int | None = None
        """Since when the reader has taken nothing of what waits for it; None while it takes all."""
        self.failing = False
        """Whether the last write failed: the reader is gone, the disk is full."""
        self.patience_ms = STALL_MS
        self.owed: dict[Account, None] = {}
        """Whose losses are to be told once the reader reads again."""

    def put(self, block: bytes, account: Account) -> None:
        """Queue whole lines, and write what can be written of the queue."""
        self._blocks.append((block, account))
        self.size += len(block) + BLOCK_BYTES
        if self.blocked_at_ms is None:
            self.push()

    def lose(self, account: Account, lines: int) -> None:
        """Count lines that nobody will get."""
        if lines:
            account.lost += lines
            account.unreported += lines
            self.owed[account] = None

    def queued(self, account: Account) -> int:
        """How much of the queue is of one account."""
        return sum(len(block) + BLOCK_BYTES for block, whose in self._blocks if whose is account)

    def left(self) -> int:
        """Bytes in the queue that have not been written."""
        return self.size - self._offset

    def stalled(self) -> bool:
        """Whether the reader has taken nothing for so long that lines are dropped."""
        return self.blocked_at_ms is not None and self._clock() - self.blocked_at_ms >= self.patience_ms

    def begun(self) -> Account | None:
        """Whose line has been written in part, if the last one has."""
        if not self._offset:
            return None
        block, account = self._blocks[0]
        return account if block[self._offset - 1] != 0x0A else None

    def push(self, _mask: int = 0) -> None:
        """Write until the queue is empty or the reader takes no more."""
        moved = False
        for _ in range(TURN_WRITES):
            if not self._blocks:
                self._unblock()
                break
            try:
                written = self._write(self._head())
            except BlockingIOError:
                self._wait(moved)
                break
            except OSError:
                written = 0
            if not written:
                self._fail()
                return
            self._consume(written)
            self.failing = False
            moved = True
        else:
            self._wait(moved)  # The others have their turn first.
        if moved:
            self._progressed(self)

    def _head(self) -> list[memoryview]:
        """As much of the queue as one writev(2) takes."""
        views = [memoryview(block) for block, _ in self._blocks[:WRITE_BLOCKS]]
        if self._offset:
            views[0] = views[0][self._offset :]
        return views

    def _consume(self, written: int) -> None:
        """Forget what has been written."""
        written += self._offset
        done = 0
        while done < len(self._blocks) and written >= len(self._blocks[done][0]):
            written -= len(self._blocks[done][0])
            self.size -= len(self._blocks[done][0]) + BLOCK_BYTES
            done += 1
        del self._blocks[:done]
        self._offset = written

    def _wait(self, moved: bool) -> None:
        """The reader takes no more: go on when it does."""
        if self.blocked_at_ms is None:
            try:
                self._poller.watch(self._fd, EPOLLOUT, self.push)
            except OSError:
                self._fail()
                return
            self.blocked_at_ms = self._clock()
        elif moved:
            self.blocked_at_ms = self._clock()

    def _unblock(self) -> None:
        if self.blocked_at_ms is not None:
            self._poller.forget(self._fd)
            self.blocked_at_ms = None

    def give_up(self) -> None:
        """Treat a reader that takes nothing as one that is gone."""
        if self._blocks and not self.failing:
            self._fail()

    def _fail(self) -> None:
        """Nobody can get the queue: drop it, but for the rest of a line of which somebody has the beginning.

        That one goes out first should a reader come back (a FIFO's, or a disk with room again).
        """
        self._unblock()
        self.failing = True
        blocks, offset = self._blocks, self._offset
        self._blocks, self._offset, self.size = [], 0, 0
        if blocks and offset and blocks[0][0][offset - 1] != 0x0A:
            block, account = blocks[0]
            end = block.index(b"\n", offset) + 1
            begun = block[offset - 1 : end]
            self._blocks, self._offset, self.size = [(begun, account)], 1, len(begun) + BLOCK_BYTES
            blocks[0], offset = (block[end:], account), 0
        for block, account in blocks:
            self.lose(account, block.count(b"\n", offset))
            offset = 0
        self._progressed(self)


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
    try:
        kind = os.fstat(fd).st_mode & _FORMAT
        if kind == _SOCKET:
            return fd, _sender(fd)
        if kind in (_FIFO, _CHARACTER) and fcntl(fd, F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            fd = os.open(f"/proc/self/fd/{fd}", flags)
        return fd, lambda blocks: os.writev(fd, blocks)
    except OSError:
        return fd, _polite(fd)


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
