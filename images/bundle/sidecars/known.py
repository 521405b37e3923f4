"""The bottle's own credentials, described for whoever has to recognize them and need not know them.

git-gate refuses a push that carries one of them, plain or in a usual encoding. It is told a hash of each: a compromised
git-gate has nothing to give away. The counterpart is images/bundle/proxy/internal/leaks/known.go.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
from urllib.parse import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Final

SHORTEST: Final = 8
"""Secrets of fewer bytes are left out: they would be found everywhere."""
_WINDOW: Final = 8
_MASK: Final = (1 << 64) - 1


def needles(values: Mapping[str, str]) -> str:
    """The description of the credentials `values`, by their names, as JSON.

    It has a key for the rolling hash, new each time, and for each spelling of each credential the name, the length, the
    upper half of the hash of the first `window` bytes, and the SHA-256 of the whole.
    """
    key = secrets.randbits(64) | 1
    found = {
        spelling: {
            "name": name,
            "length": len(spelling),
            "head": _head(spelling[:_WINDOW], key),
            "sha256": hashlib.sha256(spelling).hexdigest(),
        }
        for name, value in values.items()
        for secret in _parts(value)
        for spelling in _spellings(secret.encode())
    }
    return json.dumps({"key": f"{key:016x}", "window": _WINDOW, "needles": list(found.values())})


def _head(window: bytes, key: int) -> int:
    value = 0
    for byte in window:
        value = (value * key + byte + 1) & _MASK
    return value >> 32


def _parts(value: str) -> Iterator[str]:
    """What of a header's value is secret: all of it, what follows a scheme, the password in a Basic credential."""
    found = [value]
    scheme, blank, rest = value.partition(" ")
    if blank:
        found.append(rest)
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            found.append(base64.b64decode(rest).decode().partition(":")[2])
    yield from (part for part in found if len(part.encode()) >= SHORTEST)


def _spellings(secret: bytes) -> Iterator[bytes]:
    """The secret as it is and as it is usually encoded, at any offset of what is encoded."""
    yield secret
    yield secret[::-1]
    digits = secret.hex().encode()
    yield from (digits, digits.upper())
    yield quote(secret, safe="").encode()
    yield "".join(f"%{byte:02X}" for byte in secret).encode()
    yield "".join(f"\\u{byte:04x}" for byte in secret).encode()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        # Without the characters that depend on what stands before and behind.
        known = encoded[-(-8 * before // 6) : 8 * (before + len(secret)) // 6]
        yield from (known, known.translate(bytes.maketrans(b"+/", b"-_")))
