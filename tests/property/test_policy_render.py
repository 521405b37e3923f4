"""What the daemons' own configurations make of a policy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecars import layout
from sidecars.pipelock import engine
from sidecars.policy import Policy
from sidecars.staging import header_value


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
