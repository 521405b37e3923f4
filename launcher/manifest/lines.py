"""The line on which each key of a TOML file stands: what the standard library's reader does not tell.

It walks over a text that `tomllib` has read already, so it looks for the ends of things and judges nothing.
"""

import re
import tomllib
from collections.abc import Iterator

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")'  # a multi-line string may end with quotes of its own
    r"|'''.*?'{3,5}(?!')"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def positions(text: str) -> dict[Path, int]:
    """The number of the line, from 1, of every table, key and item, by its path: `("agents", "a", "command", 0)`."""
    found: dict[Path, int] = {}
    for path, line in _Walk(text.replace("\r\n", "\n")).lines():
        # A table that only a longer header names stands where it is first named.
        for length in range(1, len(path) + 1):
            found.setdefault(path[:length], line)
    return found


def line_of(found: dict[Path, int], path: Path) -> int | None:
    """The line of a path or, where that is not written, of the nearest table around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in found:
            return found[path[:length]]
    return None


class _Walk:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._arrays: dict[Path, int] = {}

    def lines(self) -> Iterator[tuple[Path, int]]:
        table: Path = ()
        while self._skip(_BLANK) < len(self._text):
            line = self._line()
            if self._take("[["):
                name = self._real(self._key())
                index = self._arrays[name] = self._arrays.get(name, -1) + 1
                table = (*name, index)
                self._at += 2
                yield table, line
            elif self._take("["):
                table = self._real(self._key())
                self._at += 1
                yield table, line
            else:
                yield from self._pair(table)

    def _pair(self, table: Path) -> Iterator[tuple[Path, int]]:
        line, key = self._line(), self._key()
        yield (*table, *key), line
        self._skip(_SPACE)
        self._at += 1  # The equals sign.
        self._skip(_SPACE)
        yield from self._value((*table, *key))

    def _value(self, path: Path) -> Iterator[tuple[Path, int]]:
        if self._take("["):
            index = 0
            while self._skip(_BLANK) < len(self._text) and not self._take("]"):
                yield (*path, index), self._line()
                yield from self._value((*path, index))
                index += 1
                self._skip(_BLANK)
                self._take(",")
        elif self._take("{"):
            while self._skip(_BLANK) < len(self._text) and not self._take("}"):
                yield from self._pair(path)
                self._skip(_BLANK)
                self._take(",")
        elif string := _STRING.match(self._text, self._at):
            self._at = string.end()
        else:
            self._skip(_SCALAR)

    def _key(self) -> Path:
        """A key, dotted perhaps, up to what follows it."""
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            match = _BARE.match(self._text, self._at) or _STRING.match(self._text, self._at)
            if match is None:
                return tuple(parts)
            self._at = match.end()
            quoted = match[0][0] in "\"'"
            parts.append(next(iter(tomllib.loads(f"{match[0]} = 0"))) if quoted else match[0])
            self._skip(_SPACE)
            if not self._take("."):
                return tuple(parts)

    def _real(self, name: Path) -> Path:
        """A header's path, with the index of the last table for each array of tables on its way."""
        path: Path = ()
        for part in name[:-1]:
            path = (*path, part)
            path = (*path, self._arrays[path]) if path in self._arrays else path
        return (*path, *name[-1:])

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _take(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1
