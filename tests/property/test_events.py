"""The page of events says what the code writes, and the story has a phrase for each of them."""

from __future__ import annotations

import re

import pytest

from bottle_init.cli import explain
from bottle_init.core import events as happened
from bottle_init.core import supervisor
from bottle_init.core.actions import LogEvent, SendSignal
from bottle_init.core.spec import Bundle, Spec
from bottle_init.core.words import DAEMON
from tools import events_page

DOCUMENTED = events_page.documented()
IN_CODE = events_page.in_code()


def test_every_event_is_documented_and_written() -> None:
    assert sorted(DOCUMENTED) == sorted(IN_CODE)


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_the_keys_are_those_of_the_code(name: str) -> None:
    assert sorted(DOCUMENTED[name]) == sorted(IN_CODE[name])


def test_the_page_is_drawn_from_the_table() -> None:
    assert events_page.PAGE.read_text(encoding="utf-8") == events_page.page(), "make docs"


@pytest.mark.parametrize("name", sorted({*DOCUMENTED} - {*events_page.EVENTS["For followers alone"]}))
def test_the_story_tells_documented_keys(name: str) -> None:
    assert {key for key, _ in explain.PHRASES[name] if key} <= DOCUMENTED[name]


@pytest.mark.parametrize(
    ("order", "called"),
    [
        (happened.ChildStopOrdered(0, 1), "stop requested"),
        (happened.ChildStartOrdered(0, 1), "start requested"),
        (happened.ChildRestartOrdered(0, 1), "restart requested"),
        (happened.ChildSignalOrdered(0, 10, 1), "signal requested"),
    ],
)
def test_orders_are_called_as_in_the_documentation(order: happened.Event, called: str) -> None:
    state, _ = supervisor.step(supervisor.begin(Bundle((Spec("a", DAEMON, ("a",)),)), 0), 0, [])
    state, _ = supervisor.step(state, 0, [happened.ChildForked(0, 1, 7)])
    state, _ = supervisor.step(state, 0, [happened.ChildExecuted(0, 1)])
    state, actions = supervisor.step(state, 1, [order])
    for sent in [action for action in actions if isinstance(action, SendSignal) and action.request]:
        _, actions = supervisor.step(state, 1, [happened.OrderedSignalSent(sent)])
    facts = [dict(action.facts) for action in actions if isinstance(action, LogEvent) and action.event == "ordered"]
    assert [fact["order"] for fact in facts] == [called]


def test_no_event_names_a_class_of_the_code() -> None:
    """The defence is `control.ORDERS`: the type's own name in its place is seen here."""
    classes = [name for name, value in vars(happened).items() if isinstance(value, type)]
    words = re.findall(r"\w+", events_page.PAGE.read_text(encoding="utf-8"))
    assert not set(classes) & set(words)
