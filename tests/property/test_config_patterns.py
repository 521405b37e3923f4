"""The patterns of a bundle file's strings say what the regular expressions say that the schema has."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bottle_init.bundle import patterns

TEXTS = st.one_of(
    st.text(max_size=8),
    st.text("aZ09_-", max_size=5),
    st.text("0178o", max_size=6),
    st.text("a /?#@:[]\t\n~!\x7f\u00e9\u0661", max_size=8),
)


@pytest.mark.parametrize(
    ("says", "pattern"),
    [
        (patterns.is_name, patterns.NAME),
        (patterns.is_variable, patterns.VARIABLE),
        (patterns.is_bare_key, "[A-Za-z0-9_-]+"),
        (patterns.is_umask, patterns.UMASK),
        (patterns.is_field, patterns.FIELD),
        (patterns.is_field_value, patterns.FIELD_VALUE),
        (patterns.is_target, r"/[!\"$-~]*"),
    ],
)
def test_a_function_says_what_its_pattern_says(says: Callable[[str], bool], pattern: str) -> None:
    compiled = re.compile(pattern)

    @given(TEXTS | st.from_regex(compiled, fullmatch=True) | st.from_regex(compiled))
    def test(text: str) -> None:
        assert says(text) == (compiled.fullmatch(text) is not None)

    test()
    for number in range(0x120):
        for text in (chr(number), f"a{chr(number)}", f"{chr(number)}a", f"/{chr(number)}", f"0{chr(number)}"):
            assert says(text) == (compiled.fullmatch(text) is not None), text


URL = re.compile(r"http://([^/?#]*)([/?][!-~]*)?")
HOST = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*)):([0-9]{1,5})")


@given(TEXTS.map("http://".__add__) | st.from_regex(URL, fullmatch=True) | TEXTS)
@example("http://a#b")
@example("http://a/b#c")
def test_a_url_is_split_as_its_pattern_does(text: str) -> None:
    match = URL.fullmatch(text)
    assert patterns.split_url(text) == (None if match is None else (match[1], match[2] or ""))


@given(
    st.one_of(TEXTS, st.from_regex(HOST, fullmatch=True), st.text("[]:a1", max_size=8)).flatmap(
        lambda text: st.sampled_from([text, f"{text}:80", f"[{text}]:80"])
    )
)
@example("[]:1")
@example("[:1")
@example("]:1")
@example(":1")
@example("a:\u0661")
def test_a_host_is_split_as_its_pattern_does(text: str) -> None:
    match = HOST.fullmatch(text)
    expected = None if match is None else (match[2] if match[1] is None else match[1], match[3], match[1] is not None)
    assert patterns.split_host(text) == expected
