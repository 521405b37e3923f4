"""Data loss prevention: a token is found wherever and however it is put, and ordinary requests pass."""

from __future__ import annotations

import base64
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecars.dlp import BUILT_IN, Pattern, Scanner, check_regex

TOKENS = {
    "anthropic-api-key": "sk-ant-api03-abcdefghijklmnopqrstuvwxyz",
    "github-token": "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "github-fine-grained-token": "github_pat_" + "11ABCDEFG0abcdefghijkl_" * 2,
    "gitlab-token": "glpat-abcdefghij0123456789",
    "google-api-key": "AIzaSyA-0123456789abcdefghijklmnopqrstu",
    "npm-token": "npm_0123456789abcdefghijABCDEFGHIJ012345",
    "openai-api-key": "sk-abcdefghijklmnopqrstT3BlbkFJabcdefghijklmnopqrst",
    "private-key": "-----BEGIN RSA PRIVATE KEY-----",
    "slack-token": "xoxb-123456789012-abcdefghijkl",
    "stripe-key": "sk_live_abcdefghijklmnopqrstuvwx",
}
ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent": quote,
    "every byte percent": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "plus": quote_plus,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs, without padding": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "hexadecimal": lambda text: text.encode().hex(),
}


def test_every_built_in_pattern_has_an_example() -> None:
    assert sorted(TOKENS) == sorted(pattern.name for pattern in BUILT_IN)


@pytest.mark.parametrize("name", TOKENS)
@given(
    before=st.text(alphabet="abc /?&=%.", max_size=20),
    after=st.text(alphabet=" /?&;", max_size=20),
    layers=st.lists(st.sampled_from(sorted(ENCODINGS)), max_size=3),
)
def test_a_token_is_found_behind_up_to_three_encodings(name: str, before: str, after: str, layers: list[str]) -> None:
    text = TOKENS[name]
    for layer in layers:
        text = ENCODINGS[layer](text)
    assert Scanner(BUILT_IN).find(f"{before} {text} {after}") is not None


@given(st.text(max_size=200))
def test_no_text_breaks_the_scanner(text: str) -> None:
    found = Scanner(BUILT_IN).find(text)
    assert found is None or found in TOKENS


@pytest.mark.parametrize(
    "text",
    [
        "/repos/example/project/commits/0123456789abcdef0123456789abcdef01234567",
        "/simple/sk-learn-contrib/?page=2",
        "/v1/messages?beta=true",
        "/packages/ab/cd/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/x-1.0-py3-none-any.whl",
        "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        'if-none-match: W/"ZGVmYXVsdC1ldGFnLXZhbHVlLTEyMzQ1Njc4OTA="',
    ],
)
def test_ordinary_requests_pass(text: str) -> None:
    assert Scanner(BUILT_IN).find(text) is None


@pytest.mark.parametrize(
    "regex", ["(?=a)b", "(?!a)b", "(?<=a)b", "(?<!a)b", r"(a)\1", "(?P<x>a)(?P=x)", "a++", "(?>a)"]
)
def test_what_only_python_understands_is_refused(regex: str) -> None:
    assert check_regex(regex) == "look-around, back-references and possessive quantifiers are not understood by RE2"


@pytest.mark.parametrize(("regex", "fault"), [("(", "not a regular expression"), ("a*", "matches the empty string")])
def test_useless_patterns_are_refused(regex: str, fault: str) -> None:
    """A pattern that would block nothing or everything is refused."""
    assert (check_regex(regex) or "").startswith(fault)


def test_built_in_patterns_are_valid_in_a_policy() -> None:
    """Every built-in pattern would be accepted from a policy."""
    assert [check_regex(pattern.regex) for pattern in BUILT_IN] == [None] * len(BUILT_IN)


def test_the_operators_patterns_are_found_too() -> None:
    scanner = Scanner([*BUILT_IN, Pattern("staff-id", r"ACME-[0-9]{6}")])
    assert scanner.find("/?id=ACME-123456") == "staff-id"
    assert scanner.find("/?id=ACME-12345") is None
