"""Data loss prevention: what a secret looks like, and where it may hide in a request.

The built-in patterns are well-known token formats, each as its issuer documents it. `gitleaks` has many more; it scans
pushes, which are rare. These run on every request, so they are few and anchored on a fixed prefix.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_plus

from bottle_init.core.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Pattern(Value):
    """One kind of secret. `regex` is in the common subset of Python's and RE2's syntax."""

    name: str
    regex: str


BUILT_IN: tuple[Pattern, ...] = (
    Pattern("anthropic-api-key", r"sk-ant-[A-Za-z0-9_-]{20,}"),
    Pattern("github-token", r"gh[pousr]_[A-Za-z0-9]{36}"),
    Pattern("github-fine-grained-token", r"github_pat_[A-Za-z0-9_]{40,}"),
    Pattern("gitlab-token", r"glpat-[A-Za-z0-9_-]{20}"),
    Pattern("google-api-key", r"AIza[A-Za-z0-9_-]{35}"),
    Pattern("npm-token", r"npm_[A-Za-z0-9]{36}"),
    Pattern("openai-api-key", r"sk-(?:[A-Za-z0-9_-]{1,200})?T3BlbkFJ[A-Za-z0-9_-]{20,}"),
    Pattern("private-key", r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----"),
    Pattern("slack-token", r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    Pattern("stripe-key", r"[rs]k_live_[A-Za-z0-9]{20,}"),
)

# Python reads more than RE2 does: look-around, back-references, conditionals, possessive quantifiers.
_NOT_RE2 = re.compile(r"\(\?(?:[=!]|<[=!]|\(|>|P=|#)|\\[1-9]|[*+?}]\+|\\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){12,}")
_DECODE_ROUNDS = 3


def check_regex(regex: str) -> str | None:
    """What is wrong with `regex` as a pattern, in words for the operator; `None` where nothing is."""
    if _NOT_RE2.search(regex):
        return "look-around, back-references and possessive quantifiers are not understood by RE2"
    try:
        compiled = re.compile(regex)
    except re.error as error:
        return f"not a regular expression: {error}"
    if compiled.search("") is not None:
        return "matches the empty string, and so everything"
    return None


def _decoded(text: str) -> Iterator[str]:
    """What `text` may have been before it was encoded: percent signs, base64, hexadecimal digits."""
    unquoted = unquote_plus(text)
    if unquoted != text:
        yield unquoted
    for match in _BASE64.finditer(text):
        raw = match.group().rstrip("=").replace("-", "+").replace("_", "/")
        try:
            yield base64.b64decode(raw + "=" * (-len(raw) % 4)).decode("latin-1")
        except (binascii.Error, ValueError):
            continue
    for match in _HEX.finditer(text):
        yield bytes.fromhex(match.group()).decode("latin-1")


class Scanner:
    """Finds patterns in short texts: URLs, header values, ref names."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._patterns = [(pattern.name, re.compile(pattern.regex)) for pattern in patterns]

    def find(self, text: str) -> str | None:
        """The name of the first pattern that `text` holds, as it is or behind up to three encodings."""
        seen: set[str] = set()
        layer = [text]
        for _ in range(_DECODE_ROUNDS + 1):
            for candidate in layer:
                for name, regex in self._patterns:
                    if regex.search(candidate):
                        return name
            seen.update(layer)
            layer = [new for old in layer for new in dict.fromkeys(_decoded(old)) if new not in seen]
        return None
