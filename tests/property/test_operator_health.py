"""How the operator's commands learn what the daemons obey (images/bundle/sidecars/operator/{health,reload}.py)."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest

from sidecars import layout
from sidecars.operator import reload
from sidecars.operator.health import health
from sidecars.operator.reload import Obeyed, ReloadError


@pytest.mark.parametrize(("engine", "asked"), [("portable\n", 8888), ("pipelock\n", 18889), (None, 8888)])
def test_pipelocks_state_is_asked_where_it_is_told(
    engine: str | None, asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W10: the real pipelock does not say which policy it obeys. Its parent does, or a reload would pass it over."""
    place = tmp_path / "engine"
    if engine is not None:
        place.write_text(engine)
    monkeypatch.setattr(layout, "ENGINE", place)
    ports = []

    class Nobody(http.client.HTTPConnection):
        def connect(self) -> None:
            ports.append(self.port)
            raise ConnectionRefusedError

    monkeypatch.setattr(http.client, "HTTPConnection", Nobody)
    assert health(layout.PIPELOCK_PORT) is None
    assert health(layout.EGRESS_PORT) is None
    assert ports == [asked, layout.EGRESS_PORT]


def told(monkeypatch: pytest.MonkeyPatch, *states: Obeyed) -> list[Obeyed]:
    """One daemon that says these, one after the other. What it has not been asked for yet is left in the list."""
    left = list(states)
    monkeypatch.setattr(reload, "DAEMONS", {"egress": 9099})
    monkeypatch.setattr(reload, "obeyed", lambda _: left.pop(0))
    monkeypatch.setattr(reload, "_hang_up", lambda _: "")
    monkeypatch.setattr(reload, "ask", lambda _: {})
    return left


def test_a_reload_ends_when_the_policy_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """W10: not while the daemon is still at it, nor when it has taken another policy."""
    old = Obeyed("old", 3, "")
    left = told(monkeypatch, old, old, old, Obeyed("between", 4, ""), Obeyed("new", 5, ""))
    reload.announce("new")
    assert left == []


def test_a_reload_that_was_refused_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, Obeyed("old", 3, ""), Obeyed("old", 4, "egress.allow: not a list"))
    with pytest.raises(ReloadError, match=r"egress has refused: egress\.allow: not a list"):
        reload.announce("new")
