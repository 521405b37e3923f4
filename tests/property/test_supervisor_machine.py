"""The core lives through random days of random bundles, and every promise is checked on each."""

from __future__ import annotations

from itertools import islice
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.core import supervisor
from bottle_init.testing import Scenario, check, fuzz, render, scenarios, simulate
from bottle_init.testing.small import small_worlds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bottle_init.core.actions import Action
    from bottle_init.core.events import Event
    from bottle_init.core.state import State

PARTS = 4
"""The long searches are cut into so many, for as many workers."""


@given(scenarios())
def test_every_promise_holds(scenario: Scenario) -> None:
    trace = simulate(scenario)
    violations = check(trace)
    assert not violations, render(trace, violations)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_million_events(seed: str, event_count: int, part: int) -> None:
    """The seeded generator: a hundred times as many lives as Hypothesis has time for."""
    seed = f"{seed}/{part}"
    outcome = fuzz(seed=seed, events=event_count // PARTS)
    found = outcome.counter_example
    assert found is None, f"seed {seed}, run {found.run}:\n{render(found.trace, found.violations)}"
    assert outcome.events >= event_count // PARTS


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_small_world(part: int) -> None:
    """Two daemons, every pair of lives, every order at every interesting moment: nothing is left to chance."""
    for scenario in islice(small_worlds(), part, None, PARTS):
        trace = simulate(scenario)
        violations = check(trace)
        assert not violations, render(trace, violations)


@given(scenarios(), st.randoms(use_true_random=False))
def test_simultaneous_deaths_have_no_order(scenario: Scenario, random: Random) -> None:
    """The order of simultaneous deaths means nothing.

    Contract 2: the kernel may hand over the deaths of one sweep in any order.
    """

    def shuffled(deaths: list[Event]) -> list[Event]:
        random.shuffle(deaths)
        return deaths

    plain = simulate(scenario)
    other = simulate(scenario, order=shuffled)
    assert fingerprint(other.steps[-1].state) == fingerprint(plain.steps[-1].state)
    assert other.exit == plain.exit
    assert [step.actions for step in other.steps] == [step.actions for step in plain.steps]


@given(scenarios())
def test_a_step_changes_nothing_that_it_was_given(scenario: Scenario) -> None:
    """`step` is a function: the state it was given is the same afterwards, to the last field."""

    def watched(state: State, now_ms: int, events: Iterable[Event]) -> tuple[State, tuple[Action, ...]]:
        events = list(events)
        before, given_events = fingerprint(state), list(events)
        result = supervisor.step(state, now_ms, events)
        assert fingerprint(state) == before
        assert events == given_events
        return result

    trace = simulate(scenario, step=watched)
    assert not isinstance(trace.crash, AssertionError), trace.crash


@given(scenarios())
def test_after_the_exit_nothing_moves(scenario: Scenario) -> None:
    trace = simulate(scenario)
    assert trace.exit is not None, trace.crash or trace.stuck
    last = trace.steps[-1]
    assert supervisor.next_deadline_ms(last.state) is None or last.state.phase == "done"
    for step in trace.steps:
        again, actions = supervisor.step(last.state, trace.end_ms + 1_000, step.events)
        assert again is last.state
        assert actions == ()


def fingerprint(state: State) -> object:
    """All of a state's content, as a value that can be compared."""
    children = [[(name, freeze(getattr(child, name))) for name in type(child).__slots__] for child in state.children]
    return [(name, getattr(state, name)) for name in type(state).__slots__ if name != "children"], children


def freeze(value: object) -> object:
    """A copy of a mutable field."""
    return tuple(value.items()) if isinstance(value, dict) else value
