"""Reading a bundle file, whatever its path names: no file makes its reader wait for ever or fills the memory."""

from __future__ import annotations

import errno
import posix

LIMIT = 4 << 20
"""The most bytes of a bundle file: a thousand children with long commands are less than one MiB."""


def opened(path: str) -> int:
    """A descriptor to read a file from. Raises OSError, and ValueError for a NUL in the path.

    A FIFO that nobody writes to is empty: its open(2) would wait, and PID 1 with it, which no signal would end.
    """
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
    posix.set_blocking(fd, True)  # Of a pipe, whose writer may be slower: `<(make-bundle)`.
    return fd


def whole(fd: int) -> bytes:
    """All that a descriptor has. Raises OSError, also for more than `LIMIT`."""
    parts, length = [], 0
    while part := posix.read(fd, 65_536):
        parts.append(part)
        length += len(part)
        if length > LIMIT:
            raise OSError(errno.EFBIG, f"it is longer than {LIMIT >> 20} MiB")
    return b"".join(parts)


def read(path: str) -> bytes:
    """All of a file. Raises OSError, also for one that is longer than `LIMIT`, and ValueError for a NUL in the path."""
    fd = opened(path)
    try:
        return whole(fd)
    finally:
        posix.close(fd)
