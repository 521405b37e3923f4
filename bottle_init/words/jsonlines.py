"""One event as one JSON object on one line, under structlog's own keys, without what `json` and `datetime` cost.

`event`, `level` and `timestamp` are what structlog's JSONRenderer writes beside `add_log_level` and
`TimeStamper(fmt="iso", utc=True)`; whoever reads structlog's lines reads these. The output is pure
ASCII, so no reader can choke on an encoding, and never holds a line break.
"""

from __future__ import annotations

from time import gmtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def encode(event: str, level: str, facts: Iterable[tuple[str, object]], timestamp: str) -> bytes:
    """The line of one event, without its newline.

    `facts` are further `(key, value)` pairs, in the order in which they are to stand. A value may be
    None, a bool, an int, a float, a str, bytes, or a list, tuple or dict of such; anything else
    is written as `str` shows it. What JSON cannot say is written as near to it as it can: `null` for
    a float that is not finite, U+FFFD for bytes that are no UTF-8, `\\udc80` as text for half a
    surrogate pair (which is how Python holds a file name that is no UTF-8).
    """
    pairs = [("event", event), ("level", level), *facts, ("timestamp", timestamp)]
    return _object(pairs).encode("ascii")


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with microseconds: `2026-01-31T08:15:00.000250Z`."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    at = gmtime(whole)
    return f"{at[0]:04d}-{at[1]:02d}-{at[2]:02d}T{at[3]:02d}:{at[4]:02d}:{at[5]:02d}.{micros:06d}Z"


def quoting() -> Callable[[str], str]:
    """The C function that makes a JSON string of a str, in ASCII, with its quotes (RFC 8259, section 7).

    Imported on the first call: the accelerator alone is a third of a millisecond of a start, `json` seven.
    """
    try:
        from _json import encode_basestring_ascii
    except ImportError:  # An interpreter without the accelerator.
        from json.encoder import encode_basestring_ascii
    return encode_basestring_ascii


def _object(pairs: Iterable[tuple[str, object]]) -> str:
    return "{" + ", ".join(f"{_string(key)}: {dumps(value)}" for key, value in pairs) + "}"


def dumps(value: object) -> str:
    """One value as JSON, by the rules of `encode`."""
    if isinstance(value, str):
        return _string(value)
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value) if value - value == 0 else "null"
    if isinstance(value, bytes):
        return _string(value.decode("utf-8", "replace"))
    if isinstance(value, dict):
        return _object((str(key), inner) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(dumps, value)) + "]"
    return _string(str(value))


def _string(text: str) -> str:
    if text.isascii():
        if text.isprintable() and '"' not in text and "\\" not in text:
            return f'"{text}"'  # Nearly all of the init's own words: most starts need no accelerator at all.
    else:
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return quoting()(text)
