"""The one table: every cell declared, every declared move reachable, and drawn as it is."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bottle_init.core import events, supervisor
from bottle_init.core.transitions import TABLE, Ignore, Impossible, Row
from bottle_init.core.words import STATUSES
from bottle_init.testing import fuzz, simulate
from bottle_init.testing.diagram import state_machine
from bottle_init.testing.small import small_worlds

if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.core.state import Child
    from bottle_init.core.turn import Turn

ROOT = Path(__file__).parents[2]

ALL_EVENTS = [
    kind
    for _, kind in inspect.getmembers(events, inspect.isclass)
    if issubclass(kind, events.Event) and kind not in (events.Event, events.Timer)
]
ABOUT_A_CHILD = [kind for kind in ALL_EVENTS if "child" in kind.__match_args__]


def test_every_status_has_its_part_of_the_table() -> None:
    assert set(TABLE) == set(STATUSES)


def test_every_event_about_a_child_is_listed_as_one() -> None:
    assert set(events.CHILD_EVENTS) == set(ABOUT_A_CHILD)


@pytest.mark.parametrize("status", STATUSES)
def test_every_cell_is_declared(status: str) -> None:
    assert set(TABLE[status]) == set(ABOUT_A_CHILD)
    for event, cell in TABLE[status].items():
        assert isinstance(cell, Row | Ignore | Impossible), event
        if isinstance(cell, Row):
            assert set(cell.to) <= set(STATUSES), event
        else:
            assert cell.why


def test_every_request_and_timer_says_what_it_is() -> None:
    requests = [kind for kind in ALL_EVENTS if "request" in kind.__match_args__]
    assert set(requests) <= set(events.REQUESTS)
    timers = [kind for kind in ALL_EVENTS if issubclass(kind, events.Timer)]
    assert all(kind.__match_args__ == ("child",) for kind in timers)


def test_the_diagram_is_of_this_table() -> None:
    drawn = (ROOT / "docs/state-machine.md").read_text(encoding="utf-8")
    assert drawn == state_machine(), "python -m bottle_init.testing --diagram > docs/state-machine.md"


def test_every_declared_move_happens(monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    """Random lives reach every status that a row may lead to: no move is declared that cannot be."""
    made: dict[tuple[str, str, str], int] = {}

    def recorded(status: str, event: str, rule: Callable[[Turn, Child, object], None]) -> Callable[..., None]:
        def wrapped(turn: Turn, child: Child, happened: object) -> None:
            rule(turn, child, happened)
            move = (status, event, child.status)
            made[move] = made.get(move, 0) + 1

        return wrapped

    watched = {
        status: {
            event: Row(recorded(status, event.__name__, cell.rule), cell.to) if isinstance(cell, Row) else cell
            for event, cell in cells.items()
        }
        for status, cells in TABLE.items()
    }
    monkeypatch.setattr(supervisor, "TABLE", watched)
    declared = {
        (status, event.__name__, target)
        for status, cells in TABLE.items()
        for event, cell in cells.items()
        if isinstance(cell, Row)
        for target in cell.to or (status,)
    }
    for scenario in small_worlds():
        simulate(scenario)
    for part in range(40):
        if declared <= {*made}:
            break
        assert fuzz(seed=f"{seed}/moves/{part}", runs=500).counter_example is None
    assert not declared - {*made}, "declared, and never made"
