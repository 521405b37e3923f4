"""Living through a bundle's worst days, one seeded run after another."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from bottle_init.testing.invariants import INVARIANTS, Violation, check
from bottle_init.testing.shrink import shrink
from bottle_init.testing.strategies import Dice, draw_bundle, draw_scenario
from bottle_init.testing.timeline import render
from bottle_init.testing.world import Trace, simulate

if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.core.spec import Bundle
    from bottle_init.testing.scenario import Scenario

    Promise = Callable[[Trace], str | None]


@dataclass(frozen=True, slots=True)
class CounterExample:
    """The smallest run that was found to break a promise, and which `run` it came from."""

    seed: str
    run: int
    trace: Trace
    violations: list[Violation]

    def __str__(self) -> str:
        """The script of the run, what happened, what was broken, and which sentence of the contract says so."""
        first = self.violations[0]
        said = [invariant.sentence for invariant in INVARIANTS if invariant.name == first.invariant]
        source = f"Run {self.run} of seed {self.seed}, made as small as it gets."
        return "\n".join((render(self.trace, self.violations), "", *(f"The contract: {line}" for line in said), source))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `fuzz` did: so many runs and simulated events in so many seconds, and what it found."""

    seed: str
    runs: int
    events: int
    seconds: float
    counter_example: CounterExample | None = None

    def __str__(self) -> str:
        """How much was tried, how fast, and how to do it again."""
        pace = self.events / self.seconds * 60 if self.seconds else 0.0
        tried = f"{self.runs:,} runs, {self.events:,} simulated events in {self.seconds:.1f} s ({pace:,.0f} a minute)"
        return f"{tried}, seed {self.seed}"


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
    promise: Promise | None = None,
) -> Outcome:
    """Simulate run after run until one breaks a promise or a limit is reached.

    Args:
        bundle: the bundle to try; None draws another one for every run.
        seed: runs with the same seed are the same runs.
        runs, events, seconds: where to stop, whichever comes first; 1,000 runs where none is given.
        promise: one more promise, of the bundle's own: it is given each trace, and returns what is wrong
            with it, or None.
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
        found = judge(trace, promise)
        if found:
            smallest = smallest_like(scenario, found[0].invariant, bundle_too=bundle is None, promise=promise)
            example = CounterExample(seed, run - 1, *smallest)
            return Outcome(seed, run, seen, time.monotonic() - started, example)
    return Outcome(seed, run, seen, time.monotonic() - started)


def judge(trace: Trace, promise: Promise | None = None) -> list[Violation]:
    """What a run has broken: the contract's promises, then the bundle's own."""
    found = check(trace)
    if found or promise is None:
        return found
    what = promise(trace)
    return [] if what is None else [Violation(getattr(promise, "__name__", "promise"), trace.end_ms, what)]


def _is_over(count: int, limit: int | None) -> bool:
    return limit is not None and count >= limit


def smallest_like(
    scenario: Scenario, invariant: str, *, bundle_too: bool = False, promise: Promise | None = None
) -> tuple[Trace, list[Violation]]:
    """The smallest scenario found that breaks the same promise, as a trace with its violations."""

    def fails(candidate: Scenario) -> bool:
        found = judge(simulate(candidate), promise)
        return bool(found) and found[0].invariant == invariant

    trace = simulate(shrink(scenario, fails, bundle_too=bundle_too))
    return trace, judge(trace, promise)
