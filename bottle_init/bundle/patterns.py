"""The patterns of a bundle file's strings, without `re`: a start reads variables, and has no 6 ms for an import.

Each says what the pattern of the JSON Schema beside it says; a test holds them against each other.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_DIGITS: Final = "0123456789"
_OCTAL: Final = "01234567"
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_WORD: Final = f"{_LETTERS}{_DIGITS}_"
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))

NAME: Final = "[A-Za-z0-9_][A-Za-z0-9_-]*"
"""A hyphen does not begin a name: `ctl stop -x` would read it as an option."""

VARIABLE: Final = "[A-Za-z_][A-Za-z0-9_]*"
"""What POSIX calls a name: what a shell can set."""

UMASK: Final = "0?[0-7]{3}|0o?[0-7]{1,3}"
FIELD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
FIELD_VALUE: Final = r"([!-~]([\t -~]*[!-~])?)?"
_FIELD: Final = f"{_LETTERS}{_DIGITS}!#$%&'*+.^_`|~-"
_NO_FRAGMENT: Final = _VISIBLE.replace("#", "")


def _is_of(text: str, allowed: str) -> bool:
    """Whether a text has these characters alone, and one at least."""
    return bool(text) and not text.strip(allowed)


def is_name(text: str) -> bool:
    """`NAME`."""
    return _is_of(text, _WORD + "-") and text[0] != "-"


def is_variable(text: str) -> bool:
    """`VARIABLE`."""
    return _is_of(text, _WORD) and text[0] not in _DIGITS


def is_bare_key(text: str) -> bool:
    """Whether TOML takes it as a key without quotes."""
    return _is_of(text, _WORD + "-")


def is_umask(text: str) -> bool:
    """`UMASK`."""
    if text.startswith("0o"):
        return _is_of(text[2:], _OCTAL) and len(text) <= 5
    return _is_of(text, _OCTAL) and (len(text) == 3 or (text[0] == "0" and 2 <= len(text) <= 4))


def is_field(text: str) -> bool:
    """`FIELD`: the name of a header (RFC 9110, 5.1)."""
    return _is_of(text, _FIELD)


def is_field_value(text: str) -> bool:
    """`FIELD_VALUE`: of a header."""
    return not text or (_is_of(text, _VISIBLE + "\t ") and text[0] in _VISIBLE and text[-1] in _VISIBLE)


def is_target(text: str) -> bool:
    r"""`/[!\"$-~]*`: of a request, without a fragment."""
    return text.startswith("/") and _is_of(text, _NO_FRAGMENT)


def split_url(text: str) -> tuple[str, str] | None:
    """`http://([^/?#]*)([/?][!-~]*)?`: the authority and the rest, None for what is no such URL."""
    if not text.startswith("http://"):
        return None
    rest = text[7:]
    start = min((at for mark in "/?#" if (at := rest.find(mark)) >= 0), default=len(rest))
    target = rest[start:]
    if target and (target[0] == "#" or not _is_of(target, _VISIBLE)):
        return None
    return rest[:start], target


def split_host(text: str) -> tuple[str, str, bool] | None:
    r"""`(\[([^\[\]]*)\]|([^:\[\]]*)):([0-9]{1,5})`: the host, the port, and whether the host is in brackets."""
    host, colon, port = text.rpartition(":")
    is_six = len(host) > 1 and host[0] == "[" and host[-1] == "]"
    bare = host[1:-1] if is_six else host
    if not (colon and _is_of(port, _DIGITS) and len(port) <= 5):
        return None
    if "[" in bare or "]" in bare or (":" in bare and not is_six):
        return None
    return bare, port, is_six
