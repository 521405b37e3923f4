"""Promises about the design of a bundle, and not about the init: they judge what the file asks for.

    def the_proxy_never_serves_without_its_firewall(run):
        for moment in run.moments():
            if moment["proxy"].is_up and moment["firewall"].is_down:
                return f"the proxy is alone at {moment.at_ms} ms"
        return None

A promise is a function of a `Run`. It reads the children by their names, and returns what is wrong, or None. One that
has read nothing in any run says nothing: it is vacuous, and that is a failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from bottle_init.core.words import (
    ALIVE,
    DAEMON,
    DEAD,
    DRAINING,
    JOB,
    KILLING,
    ONESHOT,
    POLICY,
    RUNNING,
    STARTING,
    STOPPING,
    UP,
)
from bottle_init.testing.invariants import Violation
from bottle_init.testing.scenario import End, Life, Say, Scenario
from bottle_init.testing.shrink import shrink
from bottle_init.testing.strategies import Dice
from bottle_init.testing.timeline import render
from bottle_init.testing.world import Trace, simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bottle_init.core.spec import Bundle, Spec
    from bottle_init.core.state import Child
    from bottle_init.testing.process import Process
    from bottle_init.testing.strategies import Draw
    from bottle_init.testing.world import Step

    Promise = Callable[["Run"], str | None]

SETTLED_MS = 60_000
"""When the stop is asked for, after the longest that readiness may take."""


class Facts:
    """One child at one moment.

    `status` is one of those in docs/state-machine.md. `is_up`: it has been executed, and nobody stops it. `is_down`: it
    has run before, and has no process now. `is_stopping`: the init takes it down. `is_ready`: this very process is.
    """

    __slots__ = ("is_down", "is_ready", "is_stopping", "is_up", "status")

    def __init__(self, child: Child) -> None:
        self.status = child.status
        self.is_up = child.executed and child.status in (STARTING, RUNNING)
        self.is_down = child.generation > 0 and child.status not in ALIVE
        self.is_stopping = child.status in (DRAINING, STOPPING, KILLING)
        self.is_ready = child.fresh


class Moment:
    """All children after one wake-up of the init, `at_ms` after its start. `is_stopping`: the bundle is."""

    def __init__(self, run: Run, step: Step) -> None:
        self._run = run
        self._step = step
        self.at_ms = step.now_ms
        self.is_stopping = step.state.phase != UP

    def __getitem__(self, name: str) -> Facts:
        """A child by its name. Raises LookupError where there is none of this name."""
        self._run.looks += 1
        return Facts(self._step.state.children[self._run.index(name)])


class OneLife:
    """One process of a child, from fork to death; times are milliseconds since the start of the init, None for never.

    `executed_ms`; `asked_ms`: when the init sent it its stop signal; `killed_ms`: when it was sent SIGKILL; `ended_ms`,
    `code` (128 + s for a death by signal s). `needs_ms` is how long it takes to end after its stop signal, None for
    ever.
    """

    __slots__ = ("asked_ms", "code", "ended_ms", "executed_ms", "killed_ms", "needs_ms")

    def __init__(self, process: Process, asked_ms: int | None) -> None:
        life, ended = process.life, process.ended
        self.executed_ms = process.executed_ms
        self.asked_ms = asked_ms
        self.killed_ms = process.killed_ms
        self.ended_ms = process.ended_ms
        self.code = None if ended is None else 128 + ended.signal if ended.signal else ended.code
        self.needs_ms = life.stop_ms


class Run:
    """One run of a bundle, as promises read it. `trace` is all of it, as docs/testing.md says; it counts as read."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.bundle = trace.scenario.bundle
        self.looks = 0
        """How many facts have been read."""
        self._indexes = {spec.name: index for index, spec in enumerate(self.bundle.children)}
        self._asked: dict[tuple[int, int], int] = {}
        for step in trace.steps:
            for child in step.state.children:
                if child.signalled_at_ms is not None:
                    self._asked.setdefault((child.index, child.generation), child.signalled_at_ms)

    @property
    def trace(self) -> Trace:
        """The whole trace."""
        self.looks += 1
        return self._trace

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all children, in the order of declaration."""
        return tuple(self._indexes)

    @property
    def second_signal_ms(self) -> int | None:
        """When a second stop signal ordered to kill all that is left, None for never."""
        return next((step.now_ms for step in self._trace.steps if step.state.stop_signals > 1), None)

    @property
    def stop(self) -> tuple[str, int, int, str] | None:
        """`(kind, at_ms, deadline_ms, name of the child to blame or "")` of the bundle's stop; `kind` is `requested`,
        `policy` or `natural`."""
        stop = self._trace.exit.stop if self._trace.exit is not None else None
        return None if stop is None else (stop.kind, stop.at_ms, stop.deadline_ms, stop.culprit)

    def index(self, name: str) -> int:
        """The place of a child in the order of declaration. Raises LookupError."""
        if name not in self._indexes:
            raise LookupError(f"a promise reads {name!r}, and there is no such child: {', '.join(self._indexes)}")
        return self._indexes[name]

    def moments(self) -> Iterator[Moment]:
        """The children after each wake-up, in order."""
        return (Moment(self, step) for step in self._trace.steps if step.settled)

    def lives(self, name: str) -> Iterator[OneLife]:
        """All processes of a child, in order."""
        index = self.index(name)
        for process in self._trace.processes:
            if process.child == index and process.remnant is None:
                self.looks += 1
                yield OneLife(process, self._asked.get((index, process.generation)))


# The promises that are made of every bundle.


@dataclass(frozen=True, slots=True)
class Design:
    """One promise: its name, what it says, how it judges a run, and of which bundles it can be made."""

    name: str
    sentence: str
    judge: Promise
    applies: Callable[[Bundle], bool]
    advice: str = ""


def _killed_early(run: Run) -> str | None:
    for spec in run.bundle.children:
        for life in run.lives(spec.name):
            if life.killed_ms is None or life.needs_ms is None or life.needs_ms > spec.stop_timeout_ms:
                continue
            if run.second_signal_ms is not None and run.second_signal_ms <= life.killed_ms:
                continue
            if life.asked_ms is None:
                return f"{spec.name} is killed at {life.killed_ms} ms, and was never asked to stop"
            due_ms = life.asked_ms + life.needs_ms
            if life.killed_ms < due_ms:
                return (
                    f"{spec.name} is killed {life.killed_ms - life.asked_ms} ms after its stop signal,"
                    f" and would have ended after {life.needs_ms} ms, within its stop_timeout"
                )
    return None


def _runs_on(accepted: Iterable[str]) -> Promise:
    """`accepted` are the daemons that are written `restart_dependents = false`."""
    granted = tuple(accepted)

    def judge(run: Run) -> str | None:
        pairs = [pair for pair in _daemon_pairs(run.bundle) if pair[1] not in granted]
        for moment in run.moments():
            for name, other in pairs:
                if moment.is_stopping:
                    continue
                upstream = moment[other]
                if upstream.is_down and upstream.status != DEAD and moment[name].is_up:
                    return f"{name} runs on at {moment.at_ms} ms while {other}, which it is after, is down"
        return None

    return judge


def _daemon_pairs(bundle: Bundle) -> list[tuple[str, str]]:
    """`(daemon or job, daemon that it is after)`, of those that are started with the bundle.

    A job is never restarted, and so nothing could be written for one that is after a daemon with restart_dependents.
    """
    daemons = {spec.name: spec for spec in bundle.children if spec.kind == DAEMON and spec.enabled}
    return [
        (spec.name, other)
        for spec in bundle.children
        if spec.kind != ONESHOT and spec.enabled
        for other in spec.after
        if other in daemons and not (spec.kind == JOB and daemons[other].restart_dependents)
    ]


def _restarting(bundle: Bundle) -> list[Spec]:
    return [spec for spec in bundle.children if spec.kind == DAEMON and spec.policy.startswith("restart")]


def _over_budget(run: Run) -> str | None:
    for spec in _restarting(run.bundle):
        lives = list(run.lives(spec.name))
        deaths = [life.ended_ms for life in lives if life.ended_ms is not None]
        stop = run.stop
        if stop is None or stop[0] != POLICY or stop[3] != spec.name:
            continue
        window_ms = stop[1] - spec.restarts.window_ms
        recent = [at_ms for at_ms in deaths if window_ms < at_ms <= stop[1]]
        if len(recent) == 1 and lives[-1].code is not None and _is_answered(spec, lives[-1].code):
            return f"{spec.name} ended once, and its budget of {spec.restarts.max} restarts was spent"
    return None


def _is_answered(spec: Spec, code: int) -> bool:
    """Whether the policy answers a death with this code by a restart."""
    if spec.policy == "restart":
        return True
    return code not in spec.success_codes if spec.policy == "restart-on-failure" else code > 128


def _over_deadline(run: Run) -> str | None:
    stop = run.stop
    if stop is None or (run.second_signal_ms is not None and run.second_signal_ms <= stop[2]):
        return None
    _, at_ms, deadline_ms, _ = stop
    for spec in run.bundle.children:
        for life in run.lives(spec.name):
            if life.ended_ms is None or life.ended_ms < at_ms:
                continue
            due_ms = None if life.asked_ms is None else life.asked_ms + spec.stop_timeout_ms
            if (
                life.killed_ms is not None
                and life.killed_ms >= deadline_ms
                and (due_ms is None or due_ms > deadline_ms)
            ):
                return (
                    f"{spec.name} is killed at the deadline, {deadline_ms - at_ms} ms after the stop began:"
                    " those that stop before it may take longer than that allows"
                )
    return None


def _any(_bundle: Bundle) -> bool:
    return True


def promises(bundle: Bundle, accepted: Iterable[str] = ()) -> tuple[Design, ...]:
    """The promises that are made of this bundle; `accepted` are those with `restart_dependents = false` written."""
    granted = tuple(accepted)
    made = (
        Design(
            "nobody-is-killed-early",
            "Nobody is killed who would have ended within its own stop_timeout.",
            _killed_early,
            _any,
            "Make stop_timeout of [bundle] longer, or those of the children that stop before it shorter.",
        ),
        Design(
            "nobody-runs-on-alone",
            "Nobody runs on while what it is after is down, but for the time of its own stop.",
            _runs_on(granted),
            lambda bundle: any(other not in granted for _, other in _daemon_pairs(bundle)),
            "Write restart_dependents = true on the daemon that goes down, or = false if that is meant.",
        ),
        Design(
            "one-restart-fits",
            "One restart of every daemon within the window fits each budget.",
            _over_budget,
            lambda bundle: bool(_restarting(bundle)),
            "Let restarts.max be at least 1, or choose a policy that does not restart.",
        ),
        Design(
            "the-stop-fits",
            "The whole stop fits the deadline.",
            _over_deadline,
            _any,
            "Make stop_timeout of [bundle] as long as all stops in their order, stop_delay included.",
        ),
    )
    return tuple(each for each in made if each.applies(bundle))


# Trying them.


@dataclass(frozen=True, slots=True)
class Breach:
    """A promise that a run breaks, made as small as it gets."""

    promise: Design
    trace: Trace
    what: str

    def __str__(self) -> str:
        """The run, what was broken in it, and what to do."""
        violation = Violation(self.promise.name, self.trace.end_ms, self.what)
        lines = [render(self.trace, [violation], bundle=False), "", f"The promise: {self.promise.sentence}"]
        return "\n".join((*lines, *((self.promise.advice,) if self.promise.advice else ())))


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of all promises in so many runs: a breach of each that was broken, and those that read nothing."""

    seed: str
    runs: int
    kept: tuple[str, ...]
    breaches: tuple[Breach, ...]
    vacuous: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept, and none is vacuous."""
        return not self.breaches and not self.vacuous

    def __str__(self) -> str:
        """All breaches, all vacuous promises, and one line of what was tried."""
        lines = [f"{breach}\n" for breach in self.breaches]
        lines += [f"{name}: vacuous: it has read nothing in any run, and so says nothing\n" for name in self.vacuous]
        said = f"design: {self.runs} runs, seed {self.seed}: {', '.join(self.kept) or 'no promise'} kept"
        if self.breaches:
            said += f"; {', '.join(breach.promise.name for breach in self.breaches)} broken"
        return "\n".join((*lines, said))


def judge(
    bundle: Bundle, *, accepted: Iterable[str] = (), own: Sequence[Promise] = (), seed: str = "0", runs: int = 100
) -> Judgement:
    """Judge the design of a bundle.

    Args:
        bundle: the bundle.
        accepted: the daemons in whose tables `restart_dependents = false` is written.
        own: more promises, of the bundle's own.
        seed: the random runs follow from it; the same ones on every machine.
        runs: how many random runs there are besides those that are always the same.

    Raises LookupError for a promise that reads a child that is not there.
    """
    mine = [Design(each.__name__, (each.__doc__ or each.__name__).strip(), each, _any) for each in own]
    made = [*promises(bundle, accepted), *mine]
    looks = dict.fromkeys(range(len(made)), 0)
    breaches: dict[int, Breach] = {}
    count = 0
    for scenario in _scenarios(bundle, seed, runs):
        count += 1
        trace = simulate(scenario)
        for number, promise in enumerate(made):
            run = Run(trace)
            what = promise.judge(run)
            looks[number] += run.looks
            if what is not None and number not in breaches:
                breaches[number] = _smallest(promise, scenario)
    kept = tuple(each.name for number, each in enumerate(made) if number not in breaches and looks[number])
    vacuous = tuple(each.name for number, each in enumerate(made) if number not in breaches and not looks[number])
    return Judgement(seed, count, kept, tuple(breaches[number] for number in sorted(breaches)), vacuous)


def _smallest(promise: Design, scenario: Scenario) -> Breach:
    def fails(candidate: Scenario) -> bool:
        return promise.judge(Run(simulate(candidate))) is not None

    trace = simulate(shrink(scenario, fails, attempts=400))
    return Breach(promise, trace, promise.judge(Run(trace)) or "")


# What happens to the bundle in these runs: nothing but its own ways, so that whatever goes wrong is the file's.


def _scenarios(bundle: Bundle, seed: str, runs: int) -> Iterator[Scenario]:
    """First what every design has to stand; then deaths and slow stops at random."""
    yield _scenario(bundle, [_life(spec, _last_moment(spec)) for spec in bundle.children])
    yield _scenario(bundle, [_life(spec, None) for spec in bundle.children])
    daemons = [index for index, spec in enumerate(bundle.children) if spec.kind == DAEMON]
    for end in (End(signal=11), End(1), End(0)):
        yield _with_ends(bundle, dict.fromkeys(daemons, end))
        yield from (_with_ends(bundle, {index: end}) for index in daemons)
    for number in range(runs):
        draw = Dice(Random(f"{seed}/design/{number}"))  # noqa: S311 - chance, not secrecy
        yield _drawn(draw, bundle)


def _settled_ms(bundle: Bundle) -> int:
    waits = sum(spec.ready.probe.after_ms for spec in bundle.children if spec.ready is not None)
    return SETTLED_MS + waits


def _scenario(bundle: Bundle, first: Sequence[Life]) -> Scenario:
    return Scenario(bundle, tuple((life,) for life in first), stop_at_ms=_settled_ms(bundle))


def _with_ends(bundle: Bundle, ends: dict[int, End]) -> Scenario:
    """These daemons end once, one after another, when all have long been up."""
    lives: list[tuple[Life, ...]] = []
    for index, spec in enumerate(bundle.children):
        life = _life(spec, 0)
        if index in ends:
            at_ms = _settled_ms(bundle) // 2 + list(ends).index(index) * 10
            lives.append((_life(spec, 0, at_ms, ends[index]), life))
        else:
            lives.append((life,))
    return Scenario(bundle, tuple(lives), stop_at_ms=_settled_ms(bundle))


def _last_moment(spec: Spec) -> int:
    return max(spec.stop_timeout_ms - 1, 0)


def _life(spec: Spec, stop_ms: int | None, run_ms: int | None = None, end: End = End()) -> Life:  # noqa: B008 - It is frozen.
    """A process that is ready at once, and takes so long to end after its stop signal."""
    says = (Say(0, ready=True),) if spec.ready is not None and spec.ready.probe.kind == "notify" else ()
    runs = 0 if spec.kind == ONESHOT and run_ms is None else run_ms
    return Life(run_ms=runs, end=end, catches=(spec.stop_signal,), stop_ms=stop_ms, says=says)


def _drawn(draw: Draw, bundle: Bundle) -> Scenario:
    """Deaths of daemons and jobs, and stops that take a part of the child's own time, or more."""
    lives: list[tuple[Life, ...]] = []
    for spec in bundle.children:
        stop_ms = draw.pick((0, spec.stop_timeout_ms // 2, _last_moment(spec), None))
        last = _life(spec, stop_ms)
        early = spec.kind in (DAEMON, JOB) and draw.pick((False, False, True))
        first = _life(spec, stop_ms, draw.pick((0, 1_000, 20_000)), draw.pick((End(0), End(1), End(signal=11))))
        lives.append((first, last) if early else (last,))
    return Scenario(bundle, tuple(lives), stop_at_ms=draw.pick((2_000, 30_000, _settled_ms(bundle))))
