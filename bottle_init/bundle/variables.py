"""`[variables]`: `${NAME}` in the strings of a bundle file (contract 9.4).

A string in which something was replaced is a `Replaced` until a reader takes it. The tables of a compiled file are
replaced by the same functions at each start.
"""

from __future__ import annotations

from bottle_init.bundle.source import Wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, TypeVar

    from bottle_init.bundle.source import Faults

    T = TypeVar("T")

    Declared = tuple[tuple[str, str | None], ...]
    """`(name, default)` in the order of their declaration; the default of a required one is None."""


class Unknown(Exception):
    """What a key says depends on a required variable that is not set."""


class Values:
    """What each variable stands for: `known`, by name; `missing` are those that depend on a required one not set.

    `secret` are those that may hold a secret: a required one, and what is made of one. No message shows them.
    """

    __slots__ = ("known", "missing", "secret")

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.missing: set[str] = set()
        self.secret: set[str] = set()


class Replaced(str):
    """A string after replacement; `names` are the variables that stood in it."""

    names: tuple[str, ...] = ()
    is_missing = False
    is_secret = False


def resolve(declared: Declared, environ: Mapping[str, str]) -> tuple[Values, Faults]:
    """What the variables stand for in this environment: its values, else the defaults. An empty value is a value.

    A default can name variables that are declared before it; one that names a later one, or itself, is a fault.
    """
    values = Values()
    faults: Faults = []
    for position, (name, default) in enumerate(declared):
        later = {each for each, _ in declared[position:]}
        if default is not None:
            faults.extend(
                (f"variables.{name}", f"names ${{{each}}}, which is not declared before it")
                for each in dict.fromkeys(names_in(default))
                if each in later
            )
        if name in environ:
            values.known[name] = environ[name]
            if default is None:
                values.secret.add(name)
        elif default is None:
            values.missing.add(name)
            values.secret.add(name)
        else:
            value = _in_string(default, values)
            if type(value) is Replaced and value.is_missing:
                values.missing.add(name)
            else:
                values.known[name] = str(value)
            if type(value) is Replaced and value.is_secret:
                values.secret.add(name)
    return values, faults


def unset(declared: Declared, environ: Mapping[str, str]) -> Iterator[str]:
    """The required variables that this environment lacks."""
    return (name for name, default in declared if default is None and name not in environ)


def replace(content: Any, values: Values) -> Any:
    """The same tables and lists, each string with its variables replaced. Names that are not declared stay."""
    if type(content) is str:
        return _in_string(content, values)
    if type(content) is list:
        return [replace(each, values) for each in content]
    if type(content) is dict:
        return {key: replace(each, values) for key, each in content.items()}
    return content


def replace_each(patterns: Iterable[str], declared: Declared, environ: Mapping[str, str]) -> list[str]:
    """The patterns of `include` with what the variables stand for in this environment."""
    values, _ = resolve(declared, environ)
    return [str(replace(pattern, values)) for pattern in patterns]


def _in_string(text: str, values: Values) -> str:
    parts: list[str] = []
    names: list[str] = []
    done = 0
    for start, end, name in _places(text):
        if name not in values.known and name not in values.missing:
            continue
        if start > done and text[start - 1] == "$":
            parts += (text[done : start - 1], text[start:end])
        else:
            parts += (text[done:start], values.known.get(name, text[start:end]))
            names.append(name)
        done = end
    if not parts:
        return text
    found = Replaced("".join((*parts, text[done:])))
    found.names = tuple(dict.fromkeys(names))
    found.is_missing = any(name in values.missing for name in names)
    found.is_secret = any(name in values.secret for name in names)
    return found


def _places(text: str) -> Iterator[tuple[int, int, str]]:
    """`(start, end, name)` of each `${name}`, whatever the name is."""
    start = text.find("${")
    while start >= 0:
        end = text.find("}", start)
        if end < 0:
            return
        nested = text.rfind("${", start, end)
        yield nested, end + 1, text[nested + 2 : end]
        start = text.find("${", end + 1)


def names_in(text: str) -> Iterable[str]:
    """What stands in a string as `${NAME}`, declared or not, but not as `$${NAME}`."""
    return (name for start, _, name in _places(text) if not (start and text[start - 1] == "$"))


def taken(value: object, reader: Callable[[object], T]) -> T:
    """What a reader makes of a value. A replaced string is a number or a boolean first where it reads as one.

    Raises Wrong, and Unknown for a string whose required variable is not set.
    """
    if type(value) is not Replaced:
        return reader(value)
    text = str(value)
    scalar = _scalar(text)
    try:
        if scalar is None or value.is_missing:
            return reader(text)
        try:
            return reader(scalar)
        except Wrong as wrong:
            refused = wrong
        try:
            return reader(text)
        except Wrong:
            raise refused from None
    except Wrong as wrong:
        if value.is_missing:
            raise Unknown from None
        named = f" (from {', '.join(map('${{{}}}'.format, value.names))})" if value.names else ""
        told = [(path, _unsaid(message) if value.is_secret else message) for path, message in wrong.faults]
        raise Wrong("", [(path, message + named) for path, message in told]) from None


def _unsaid(message: str) -> str:
    """A message without the value, which may be a secret."""
    head, found, _ = message.partition(", is ")
    return head if found else "is not what this key takes"


def _scalar(text: str) -> bool | int | float | None:
    """A boolean or a number as TOML writes them in decimal, or None."""
    if text in ("true", "false"):
        return text == "true"
    digits = text[1:] if text[:1] in ("+", "-") else text
    whole, point, part = digits.partition(".")
    if not (whole.isascii() and whole.isdigit() and len(text) < 20) or (whole[0] == "0" and whole != "0"):
        return None
    if not point:
        return int(text)
    return float(text) if part.isascii() and part.isdigit() else None
