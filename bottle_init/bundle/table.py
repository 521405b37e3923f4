"""One table of the file at a time, its faults noted where they are.

A *reader* is a function from what TOML gave to what the model wants; it raises `Wrong` with what
should have been there. A `Table` applies readers to its keys and notes every fault at the key's
path, so that whoever wrote the file hears of all of them at once.
"""

from __future__ import annotations

from bottle_init.bundle import patterns
from bottle_init.bundle.source import Wrong
from bottle_init.bundle.variables import Unknown, taken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from bottle_init.bundle.source import Faults

    T = TypeVar("T")
    U = TypeVar("U")


class Table:
    """The keys of one table; what is asked for is read, and what nobody knows is a fault."""

    __slots__ = ("_content", "_faults", "path")

    def __init__(self, path: str, content: dict[str, object], faults: Faults) -> None:
        self.path = path
        self._content = content
        self._faults = faults

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def fault(self, key: str, message: str) -> None:
        """Note a fault at a key."""
        self._faults.append((join(self.path, key), message))

    def read(self, key: str, reader: Callable[[object], T], default: U) -> T | U:
        """The key's value, or the default where the key is missing or wrong."""
        if key not in self._content:
            return default
        try:
            return taken(self._content[key], reader)
        except Wrong as wrong:
            path = join(self.path, key)
            self._faults.extend((path + below, message) for below, message in wrong.faults)
        except Unknown:
            pass
        return default

    def within(self, key: str, reader: Callable[[Table], T], default: U) -> T | U:
        """What `reader` makes of the table below a key, or the default where there is none."""
        content = self.read(key, table, None)
        return default if content is None else reader(Table(join(self.path, key), content, self._faults))

    def __iter__(self) -> Iterator[str]:
        """All keys, in file order."""
        return iter(self._content)

    def allow(self, known: Iterable[str], elsewhere: dict[str, str] | None = None) -> None:
        """Every key that is not one of `known` is a fault; `elsewhere` says of some where they belong."""
        allowed = tuple(known)
        for key in self._content:
            if key not in allowed:
                self.fault(key, (elsewhere or {}).get(key) or f"unknown key{nearest(key, allowed)}")

    def one_of(self, known: Iterable[str]) -> str | None:
        """The one key of these that is there; none or several are a fault of the table."""
        choices = tuple(known)
        found = [key for key in choices if key in self._content]
        if len(found) == 1:
            return found[0]
        some = f" ({listed(found)} are there)" if found else ""
        self._faults.append((self.path, f"needs exactly one of {listed(choices, 'and' if found else 'or')}{some}"))
        return None


def join(path: str, key: str) -> str:
    """The path of a key, as TOML would write it: `daemons.web`, `daemons."a b"`."""
    word = key if patterns.is_bare_key(key) else quoted(key)
    return f"{path}.{word}" if path else word


def quoted(text: str) -> str:
    """Text as a TOML string of one line, its end cut off where it is long."""
    import json

    return json.dumps(text if len(text) <= 60 else text[:57] + "...", ensure_ascii=False)


def table(value: object) -> dict[str, object]:
    """Reads a table."""
    if not isinstance(value, dict):
        raise Wrong(f"must be a table, is {shown(value)}")
    return value


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the most similar of the known words, or nothing."""
    import difflib

    by_case = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(word.casefold()[:80], by_case, 1)
    return f"; did you mean {by_case[close[0]]}?" if close else ""


def listed(words: Iterable[str], last: str = "and") -> str:
    """`a, b and c`."""
    *front, end = words
    return f"{', '.join(front)} {last} {end}" if front else end


def shown(value: object) -> str:
    """What is there instead, in the words of TOML: `the string "8"`, `a list`, `true`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the string {quoted(value)}" if value else "an empty string"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**30 else "a huge number"
    if isinstance(value, float):
        return repr(value)
    return kind(value)


def kind(value: object) -> str:
    """The kind of a value, without the value."""
    for type_, words in _KINDS:
        if isinstance(value, type_):
            return words
    return "a date or a time"


_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"),
    (str, "a string"),
    (int, "a whole number"),
    (float, "a number"),
    (list, "a list"),
    (dict, "a table"),
)
