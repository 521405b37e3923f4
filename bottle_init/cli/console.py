"""What the command line prints, and what becomes of that where nobody reads it."""

from __future__ import annotations

import posix
import sys


class OutputLost(Exception):
    """The terminal, file or disk that the output should have gone to did not take it."""


def print(text: str) -> None:  # noqa: A001 - the one verb for stdout; callers write console.print
    """Write all of a text to stdout. Raises BrokenPipeError, OutputLost."""
    _write(1, text.encode("utf-8", "surrogateescape"))


def print_if_open(text: str) -> None:
    """Print; nothing where there has been no stdout from the start. Raises BrokenPipeError, OutputLost."""
    if sys.stdout is not None:  # Else 1 may be a file of our own by now.
        print(text)


def complain(text: str) -> None:
    """Write a text and a line break to stderr, as far as that is open; the exit code says it too."""
    try:
        if sys.stderr is not None:
            _write(2, text.encode("utf-8", "backslashreplace") + b"\n")
    except (OutputLost, BrokenPipeError):
        pass


def _write(fd: int, data: bytes) -> None:
    """Write all of it, past `sys.stdout`, which may be None."""
    try:
        while data:
            data = data[posix.write(fd, data) :]
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise OutputLost(f"the output cannot be written: {problem.strerror}") from None
