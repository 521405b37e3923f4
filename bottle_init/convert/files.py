"""The texts of files that are converted, of a bounded size and never waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bottle_init.bundle import reading

if TYPE_CHECKING:
    from pathlib import Path


class Unreadable(Exception):
    """A text cannot be had, for this reason; `is_missing` where there is no such file."""

    def __init__(self, reason: str, *, is_missing: bool = False) -> None:
        super().__init__(reason)
        self.is_missing = is_missing


def read_file(file: Path | str | int) -> str:
    """The text of a file, or of a descriptor. Raises Unreadable."""
    try:
        data = reading.whole(file) if isinstance(file, int) else reading.read(str(file))
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as problem:
        line = problem.object.count(b"\n", 0, problem.start) + 1
        raise Unreadable(f"line {line} is not UTF-8") from None
    except (OSError, ValueError) as problem:
        missing = isinstance(problem, FileNotFoundError)
        raise Unreadable(str(getattr(problem, "strerror", None) or problem), is_missing=missing) from None
