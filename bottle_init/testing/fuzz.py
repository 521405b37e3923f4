"""Living through a bundle's worst days, one seeded run after another."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from bottle_init.testing.invariants import Violation, check
from bottle_init.testing.shrink import shrink
from bottle_init.testing.strategies import Dice, draw_bundle, draw_scenario
from bottle_init.testing.world import Trace, simulate

if TYPE_CHECKING:
    from bottle_init.core.model import Bundle
    from bottle_init.testing.scenario import Scenario


@dataclass(frozen=True, slots=True)
class CounterExample:
    """The smallest run that was found to break a promise, and which `run` it came from."""

    run: int
    trace: Trace
    violations: list[Violation]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `fuzz` did: so many runs and simulated events in so many seconds, and what it found."""

    seed: str
    runs: int
    events: int
    seconds: float
    counter_example: CounterExample | None = None


def scenario_of(seed: str, run: int, bundle: Bundle | None = None) -> Scenario:
    """The scenario of one run: a function of its arguments, on every machine and under every hash seed."""
    draw = Dice(Random(f"{seed}/{run}"))  # noqa: S311 - chance, not secrecy
    return draw_scenario(draw, draw_bundle(draw) if bundle is None else bundle)


def fuzz(
    bundle: Bundle | None = None,
    *,
    seed: str = "0",
    runs: int | None = None,
    events: int | None = None,
    seconds: float | None = None,
) -> Outcome:
    """Simulate run after run until one breaks a promise or a limit is reached.

    Args:
        bundle: the bundle to try; None draws another one for every run.
        seed: runs with the same seed are the same runs.
        runs, events, seconds: where to stop, whichever comes first; 1,000 runs where none is given.
    """
    if runs is None and events is None and seconds is None:
        runs = 1_000
    started = time.monotonic()
    run = seen = 0
    while not _is_over(run, runs) and not _is_over(seen, events):
        if seconds is not None and time.monotonic() - started >= seconds:
            break
        scenario = scenario_of(seed, run, bundle)
        trace = simulate(scenario)
        seen += trace.events
        run += 1
        found = check(trace)
        if found:
            smallest = smallest_like(scenario, found[0].invariant, bundle_too=bundle is None)
            return Outcome(seed, run, seen, time.monotonic() - started, CounterExample(run - 1, *smallest))
    return Outcome(seed, run, seen, time.monotonic() - started)


def _is_over(count: int, limit: int | None) -> bool:
    return limit is not None and count >= limit


def smallest_like(scenario: Scenario, invariant: str, *, bundle_too: bool = False) -> tuple[Trace, list[Violation]]:
    """The smallest scenario found that breaks the same invariant, as a trace with its violations."""

    def fails(candidate: Scenario) -> bool:
        found = check(simulate(candidate))
        return bool(found) and found[0].invariant == invariant

    trace = simulate(shrink(scenario, fails, bundle_too=bundle_too))
    return trace, check(trace)
