"""A child's line that is itself a JSON object: passed on as that object, with the name of who has written it.

The object's own text stays as it was, down to the spelling of its numbers, but for what is not ASCII: that is escaped.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Facts = tuple[tuple[str, str], ...]
    Quote = Callable[[str], str]

_BLANKS = " \t\r"


def reading() -> Callable[[str], dict[str, Any] | None]:
    """A function from a text to the JSON object (RFC 8259) that it is, or None. Numbers are left as their text.

    Imports `json`, which takes seven milliseconds. Raises ImportError or OSError where no descriptor is left for that.
    """
    from json import JSONDecoder

    decode = JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse).decode

    def read(text: str) -> dict[str, Any] | None:
        try:
            value = decode(text)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    return read


def _refuse(name: str) -> None:
    """NaN and the infinities are Python's, not JSON's."""
    raise ValueError(name)


def passed_on(
    line: str,
    facts: tuple[tuple[str, str], ...],
    read: Callable[[str], dict[str, Any] | None],
    quote: Callable[[str], str],
) -> str | None:
    """The line with those facts added whose keys it does not have, in ASCII; None where it is no object."""
    text = line.strip(_BLANKS)
    if not (text.startswith("{") and text.endswith("}")):
        return None
    known = read(text)
    if known is None:
        return None
    if not text.isascii():
        text = "".join(each if each.isascii() else quote(each)[1:-1] for each in text)
    more = ", ".join(f"{quote(key)}: {quote(value)}" for key, value in facts if key not in known)
    if not more:
        return text
    return f"{text[:-1]}{', ' if known else ''}{more}}}"
