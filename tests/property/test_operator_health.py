"""Where the operator's commands ask the daemons what they obey (images/bundle/sidecars/operator/health.py)."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest

from sidecars import layout
from sidecars.operator.health import health


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
