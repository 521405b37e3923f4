"""What the command line prints, and what becomes of that where nobody reads it."""

from __future__ import annotations

import posix
import sys


class OutputLost(Exception):
    """The terminal, file or disk that the output should have gone to did not take it."""


def say(fd: int, text: str) -> None:
    """Write all of a text to 1 or 2, past `sys.stdout`, which may be None. Raises BrokenPipeError, OutputLost."""
    data = text.encode("utf-8", "surrogateescape")
    try:
        while data:
            data = data[posix.write(fd, data) :]
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise OutputLost(f"what there is to say cannot be written: {problem.strerror}") from None


def show(text: str) -> None:
    """Print; nothing where there has been no stdout from the start. Raises BrokenPipeError, OutputLost."""
    if sys.stdout is not None:  # Else 1 may be a file of our own by now.
        say(1, text)


def complain(line: str) -> None:
    """One line on stderr, as far as that is open; the exit code says it too."""
    try:
        if sys.stderr is not None:
            say(2, line.encode("utf-8", "backslashreplace").decode() + "\n")
    except (OutputLost, BrokenPipeError):
        pass
