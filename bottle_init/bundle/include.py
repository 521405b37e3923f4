"""`include`: the files that a bundle file is continued in (contract 9.5)."""

from __future__ import annotations

import os

from bottle_init.bundle.source import BundleInvalid, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bottle_init.bundle.source import Faults

    Files = list[tuple[str, bytes]]
    """`(path, text)` of each included file, in their order."""

_WILD = ("*", "?")


def read(source: str, patterns: Iterable[str]) -> tuple[Files, Faults, list[str]]:
    """The files that match, what is wrong with them, and the patterns that none matches.

    The patterns are relative to the directory of `source`, and taken in their order; the files of one in the order of
    their names. A file that several match is read once, and `source` itself never is.
    """
    files: Files = []
    faults: Faults = []
    unmatched: list[str] = []
    seen: set[str] = set()
    for pattern in patterns:
        try:
            found = sorted(_expand(os.path.dirname(source), pattern))
        except OSError as problem:
            faults.append(("include", f"{problem.filename}: cannot be read: {problem.strerror}"))
            continue
        if not found:
            unmatched.append(pattern)
        for path in found:
            if path not in seen and not _is_same(path, source):
                seen.add(path)
                try:
                    files.append((path, read_text(path)))
                except BundleInvalid as invalid:
                    faults.extend((path, fault.message) for fault in invalid.faults)
    return files, faults, unmatched


def _expand(base: str, pattern: str) -> Iterator[str]:
    """The paths that match. Raises OSError for a directory that is there and cannot be read."""
    *front, last = pattern.split("/")
    places = [base if front[:1] != [""] else "/"]
    for part in (*(each for each in front if each), last):
        if part:
            places = [path for place in places for path in _step(place, part)]
    return (place for place in places if os.path.lexists(place))


def _step(place: str, part: str) -> Iterator[str]:
    """What one part of a pattern stands for in a directory."""
    if not any(wild in part for wild in _WILD):
        yield os.path.join(place, part)
        return
    try:
        names = os.listdir(place or ".")
    except (FileNotFoundError, NotADirectoryError):
        return
    yield from (os.path.join(place, name) for name in names if matches(name, part))


def matches(name: str, pattern: str) -> bool:
    """Whether a name matches: `*` is any characters, `?` is one. Neither matches a dot at the beginning (glob(7))."""
    if name.startswith(".") and not pattern.startswith("."):
        return False
    reached = {0}
    for char in pattern:
        if char == "*":
            reached = set(range(min(reached), len(name) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(name) and char in ("?", name[at])}
        if not reached:
            return False
    return len(name) in reached


def _is_same(path: str, source: str) -> bool:
    try:
        return os.path.samefile(path, source)
    except OSError:
        return False
