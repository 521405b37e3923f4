"""The bottle's own credentials are described so that they are found, and can't be read."""

from __future__ import annotations

import base64
import hashlib
import json
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from sidecars.known import SHORTEST, needles

VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=SHORTEST, max_size=80)


def found(description: str, text: bytes) -> set[str]:
    """The names of what is in the text, as known.go finds it: by the hash of a window and the digest of the whole."""
    told = json.loads(description)
    key, window = int(told["key"], 16), told["window"]
    names = set()
    for at in range(len(text) - window + 1):
        value = 0
        for byte in text[at : at + window]:
            value = (value * key + byte + 1) % (1 << 64)
        for needle in told["needles"]:
            whole = text[at : at + needle["length"]]
            if needle["head"] == value >> 32 and needle["sha256"] == hashlib.sha256(whole).hexdigest():
                names.add(needle["name"])
    return names


@given(VALUES, st.binary(max_size=8), st.binary(max_size=8))
def test_a_credential_is_found_in_its_encodings(secret: str, before: bytes, after: bytes) -> None:
    """A credential is found in its usual encodings, whatever is around it."""
    description = needles({"one": secret})
    raw = secret.encode()
    for written in (
        before + raw + after,
        base64.b64encode(before + raw + after),
        base64.urlsafe_b64encode(before + raw + after),
        (before + raw + after).hex().encode(),
        before + raw.hex().upper().encode() + after,
        before + quote(secret, safe="").encode() + after,
    ):
        assert found(description, written) == {"one"}


@given(VALUES)
def test_the_description_does_not_hold_the_credential(secret: str) -> None:
    description = needles({"one": f"Bearer {secret}", "two": secret[:SHORTEST]})
    told = json.loads(description)
    assert set(told) == {"key", "window", "needles"}
    assert all(set(needle) == {"name", "length", "head", "sha256"} for needle in told["needles"])


def test_what_counts_is_what_is_secret_of_a_header() -> None:
    basic = base64.b64encode(b"agent:correct-horse").decode()
    description = needles({"bearer": "Bearer abcdefghijk", "basic": f"Basic {basic}", "short": "abc"})
    assert found(description, b"x=abcdefghijk") == {"bearer"}
    assert found(description, b"pass: correct-horse") == {"basic"}
    assert found(description, basic.encode()) == {"basic"}
    assert found(description, b"agent: abc, abcdefgh") == set()
