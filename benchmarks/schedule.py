"""Who does what, and how often: in each round of a group, each contender once, in an order that rotates."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from benchmarks import scenarios
from benchmarks.figures import Samples
from benchmarks.processes import Stuck
from benchmarks.wire import Silence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.contenders import Bare, BundleOfOne, Contender, Init
    from benchmarks.peers import Peer
    from benchmarks.scenarios import Bench, Metrics

T = TypeVar("T")
FAILURES = (Silence, Stuck, OSError, RuntimeError, ValueError, ZeroDivisionError)


class Job(NamedTuple):
    """One contender in one scenario."""

    scenario: Callable[[Bench, Any], Metrics]
    contender: Contender


class Group(NamedTuple):
    """Jobs whose figures are compared with each other round by round; slow contenders come less often."""

    name: str
    jobs: list[Job]
    rounds: int
    slow_rounds: int


class Cast(NamedTuple):
    """Every contender that was found."""

    init: Init
    bundle_of_one: BundleOfOne
    bare: Bare
    peers: Sequence[Peer]
    before: Sequence[Init]
    """The earlier build's, in both modes, if this clone has it."""

    @property
    def single(self) -> list[Contender]:
        """Those that run one command."""
        return [self.init, self.bundle_of_one, *(peer for peer in self.peers if peer.run_one)]

    @property
    def several(self) -> list[Contender]:
        """Those that run several."""
        return [self.init, *(peer for peer in self.peers if peer.run_many)]

    @property
    def tagging(self) -> list[Contender]:
        """Those that say which child wrote a line."""
        return [self.init, *(peer for peer in self.peers if peer.tags)]


def groups(cast: Cast, *, short: bool) -> list[Group]:
    """The whole programme."""
    bare = Job(scenarios.bare, cast.bare)
    single = [Job(scenarios.one, one) for one in (*cast.single, *cast.before)]
    four = [Job(scenarios.several(4), one) for one in (*cast.several, *cast.before[:1])]
    uncompiled = [Job(scenarios.uncompiled, one) for one in (cast.init, *cast.before[:1])]
    lines = [Job(scenarios.lines(writers), one) for one in cast.tagging for writers in (1, 4)]
    sizes = [Job(scenarios.several(number), cast.init) for number in (25, 50)]
    hundred = [Job(scenarios.several(100), one) for one in cast.several]
    asleep = Job(scenarios.bare_asleep, cast.bare)
    whole = [
        Group("one command", [bare, asleep, *single], 40, 40),
        Group("signals", [Job(scenarios.signals, one) for one in (*cast.single, *cast.before)], 30, 30),
        Group("four daemons", [bare, asleep, *four], 30, 6),
        Group("bundle file", uncompiled, 20, 20),
        Group("health", [bare, Job(scenarios.health, cast.init)], 30, 30),
        Group("lines", lines, 10, 10),
        Group("stalled stdout", [Job(scenarios.stalled, cast.init)], 8, 8),
        Group("simulated kernel", [Job(scenarios.simulated, cast.init)], 3, 3),
        Group("100 daemons", [*sizes, *hundred], 6, 2),
    ]
    if scenarios.can_unshare_pids():
        whole.append(Group("orphans", [Job(scenarios.orphans, one) for one in cast.single], 4, 4))
    return [group._replace(rounds=2, slow_rounds=1) for group in whole] if short else whole


def run(bench: Bench, cast: Cast, programme: Sequence[Group]) -> tuple[Samples, dict[str, str]]:
    """Run it all; the samples, and what went wrong, by `contender in group`."""
    samples = Samples()
    problems: dict[str, str] = {}
    for group in programme:
        for number in range(group.rounds):
            say(f"{group.name}: round {number + 1} of {group.rounds}")
            for job in turn(group, number):
                try:
                    samples.add(f"{group.name} {number}", job.contender.name, job.scenario(bench, job.contender))
                except FAILURES as problem:
                    problems[f"{job.contender.name} in {group.name!r}"] = f"{type(problem).__name__}: {problem}"
    say("idle")
    for name, metrics in scenarios.idle(bench, cast.several).items():
        samples.add("idle", name, metrics)
    say("done")
    return samples, problems


def turn(group: Group, number: int) -> list[Job]:
    """The jobs of one round, in its order."""
    every = max(1, group.rounds // group.slow_rounds)
    present = [job for job in group.jobs if not job.contender.slow or number % every == 0]
    return rotated(present, number)


def rotated(order: Sequence[T], number: int) -> list[T]:
    """What comes in this order in round 0, in that of another round: nobody is always the first."""
    start = number % len(order)
    return [*order[start:], *order[:start]]


def say(text: str) -> None:
    """Progress: on one line of a terminal, or else a line for each group."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif ": round" not in text or ": round 1 of" in text:
        print(text, file=sys.stderr)
