"""The harness for maintainers: the real core of the init in a simulated kernel.

    from bottle_init.testing import Life, Scenario, End, check, render, simulate

    trace = simulate(Scenario(bundle, lives=((Life(run_ms=500, end=End(3)),),)))
    assert not check(trace), render(trace)
    assert trace.exit.code == 3

`python3 -I -m bottle_init.testing bundle.toml` tries a bundle by itself; the pytest fixture
`assert_bundle_survives` does so in a test. See `docs/testing.md`.
"""

from bottle_init.testing.design import Judgement, Moment, OneLife, Run, judge
from bottle_init.testing.fuzz import CounterExample, Outcome, fuzz, scenario_of, smallest_like
from bottle_init.testing.invariants import INVARIANTS, Invariant, Violation, check
from bottle_init.testing.ledger import Ledger
from bottle_init.testing.pipes import Logs
from bottle_init.testing.process import Process
from bottle_init.testing.scenario import End, Freeze, Life, Remnant, Request, Say, Scenario, Stall, Storm, Write
from bottle_init.testing.shrink import shrink
from bottle_init.testing.small import small_worlds
from bottle_init.testing.strategies import FAULTS, Dice, Draw, bundles, draw_bundle, draw_scenario, scenarios
from bottle_init.testing.timeline import render
from bottle_init.testing.world import Step, Trace, World, simulate

__all__ = [
    "FAULTS",
    "INVARIANTS",
    "CounterExample",
    "Dice",
    "Draw",
    "End",
    "Freeze",
    "Invariant",
    "Judgement",
    "Ledger",
    "Life",
    "Logs",
    "Moment",
    "OneLife",
    "Outcome",
    "Process",
    "Remnant",
    "Request",
    "Run",
    "Say",
    "Scenario",
    "Stall",
    "Step",
    "Storm",
    "Trace",
    "Violation",
    "World",
    "Write",
    "bundles",
    "check",
    "draw_bundle",
    "draw_scenario",
    "fuzz",
    "judge",
    "render",
    "scenario_of",
    "scenarios",
    "shrink",
    "simulate",
    "small_worlds",
    "smallest_like",
]
