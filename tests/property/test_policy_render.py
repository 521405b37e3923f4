"""What the daemons' own configurations make of a policy, and what a push's scan makes of what is pushed."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecars import layout
from sidecars.dlp import Pattern
from sidecars.git_gate import scan
from sidecars.git_gate.pre_receive import judge, parse
from sidecars.pipelock import engine
from sidecars.policy import Policy
from sidecars.staging import header_value

ZERO, ONE = "0" * 40, "1" * 40


def test_the_environment_is_stronger_than_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(engine="pipelock")
    monkeypatch.delenv("PIPELOCK_ENGINE", raising=False)
    assert engine.requested(policy) == ("pipelock", "pipelock.engine")
    monkeypatch.setenv("PIPELOCK_ENGINE", "portable")
    assert engine.requested(policy) == ("portable", "PIPELOCK_ENGINE")
    monkeypatch.setenv("PIPELOCK_ENGINE", "fast")
    with pytest.raises(engine.EngineUnavailableError, match="'fast' is none of"):
        engine.requested(policy)


def test_pipelock_by_name_never_falls_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PIPELOCK_ENGINE", raising=False)
    monkeypatch.setattr(layout, "PIPELOCK_BINARY", tmp_path / "missing")
    assert engine.choose(Policy(engine="auto")).name == "portable"
    with pytest.raises(engine.EngineUnavailableError, match="built without the pipelock binary"):
        engine.choose(Policy(engine="pipelock"))


@given(st.text(max_size=40))
def test_a_headers_value_is_printable_ascii(content: str) -> None:
    """A header's value is one line of printable ASCII or is refused."""
    value = header_value(content)
    if value is not None:
        assert value.isascii()
        assert value.isprintable()
        assert content in (value, value + "\n", value + "\r\n", value + "\r")


@pytest.mark.parametrize("content", ["", "\n", "a\nX-Other: b", "a\n\n", " a", "é", "a\x00"])
def test_a_value_that_would_be_another_header_is_none(content: str) -> None:
    assert header_value(content) is None


@given(
    pieces=st.lists(st.binary(max_size=60), max_size=12),
    secret=st.binary(min_size=1, max_size=20).filter(lambda secret: scan.neutralize(secret) == secret),
    where=st.integers(0, 12),
)
def test_a_secret_on_a_border_is_whole_in_one_part(pieces: list[bytes], secret: bytes, where: int) -> None:
    """A secret on the border of two parts is whole in one of them."""
    parts: dict[str, bytes] = {}

    class InMemory(scan.Parts):
        PART_BYTES, OVERLAP_BYTES, READ_BYTES = 50, 20, 30

        def store(self, name: str, content: bytes) -> None:
            parts[name] = content

    cutter = InMemory(Path("/nonexistent"))
    cutter.copy(io.BytesIO(b"".join([*pieces[:where], secret, *pieces[where:]])))
    cutter.finish()
    assert any(secret in part for part in parts.values())


@given(st.text(alphabet="gitleaks:alow- ", max_size=60).map(str.encode))
def test_gitleaks_reads_no_allow_comment(text: bytes) -> None:
    """No allow comment is left in what gitleaks reads."""
    for content in (text, b"gitleaks:allow" + text, b"gitleaks:" + b"gitleaks:allow" + b"allow" + text):
        assert b"gitleaks:allow" not in scan.neutralize(content)


def test_gitleaks_rules_are_its_own_and_the_policys() -> None:
    config = tomllib.loads(scan.configuration([Pattern("odd", 'a"b\\d')]))
    assert config["extend"] == {"useDefault": True}
    assert config["rules"] == [{"id": "bottle-odd", "description": "odd", "regex": 'a"b\\d'}]


@pytest.mark.parametrize("ref", ["refs/replace/" + ONE, "refs/notes/commits", "refs/for/main", "HEAD", "refs/headsx"])
def test_only_branches_and_tags_are_accepted(ref: str) -> None:
    assert judge(parse([f"{ZERO} {ONE} {ref}\n"]), Policy()) == [f"{ref}: only branches and tags are accepted"]


def test_a_secret_in_a_refs_name_is_not_repeated() -> None:
    """A secret in a ref's name is found, and the message does not repeat it."""
    token = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
    (refusal,) = judge(parse([f"{ZERO} {ONE} refs/heads/{token}\n"]), Policy())
    assert refusal == "the name of a ref holds what looks like a secret (github-token)"


def test_a_deletion_brings_nothing_to_scan() -> None:
    assert judge(parse([f"{ONE} {ZERO} refs/heads/old\n"]), Policy()) == []
