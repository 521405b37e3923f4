"""docs/engines.md says of each wall and each engine what the backends say, and what the tests do."""

from __future__ import annotations

import pytest
from rich.console import Console

from launcher.backend import get_bottle_backend
from launcher.spec import BottleSpec
from launcher.words import in_words
from tests.integration.support.engines import ENGINES
from tools import engines_page

BACKEND = {"remote": "docker", "ssh": "docker", "context": "docker", "docker29": "docker"}


def test_the_page_is_drawn_from_the_code() -> None:
    assert engines_page.PAGE.read_text(encoding="utf-8") == engines_page.page(), "make docs"


def test_every_engine_has_a_column() -> None:
    """And those that share one are treated alike by every test."""
    columns = engines_page.COLUMNS.values()
    assert {engine for engines in columns for engine in engines} == set(ENGINES)
    for name, test in engines_page.suite().items():
        for engines, _, _ in engines_page.marks(test):
            assert set(engines) <= set(ENGINES), name
            for column in columns:
                assert not set(column) & set(engines) or set(column) <= set(engines), f"{name}: {column}"


@pytest.mark.parametrize("name", engines_page.suite())
def test_what_cannot_stand_is_said_by_the_backend(name: str) -> None:
    """A test that leaves a wall out on an engine is no excuse: `plan` and `doctor` have to tell of it there."""
    for engines, wall, _ in engines_page.marks(engines_page.suite()[name]):
        for engine in engines if wall else ():
            assert wall in dict(get_bottle_backend(BACKEND.get(engine, engine)).lost), f"{name} on {engine}"


@pytest.mark.parametrize("backend", ["podman", "swarm", "kubernetes", "smolmachines"])
def test_plan_says_what_is_lost(backend: str) -> None:
    """Each wall once, with the words of the page."""
    lost = get_bottle_backend(backend).lost
    assert len(dict(lost)) == len(lost)
    console = Console(width=400)
    with console.capture() as captured:
        console.print(in_words(BottleSpec("demo"), lost))
    for wall, why in lost:
        assert f"NO {wall}" in captured.get()
        assert why in captured.get()
        assert f"| {wall} | {why} |" in engines_page.PAGE.read_text(encoding="utf-8")
