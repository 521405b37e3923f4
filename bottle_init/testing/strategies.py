"""Drawing bundles and lives at random: one recipe for a seeded generator and for Hypothesis.

Every recipe draws by `Draw.pick`, whose first option is the simplest. A seeded `Dice` makes a
million events a minute; `HypothesisDraw` shrinks. Swarm testing (Groce et al., 2012): each run
first draws which faults exist at all, because a run with every fault rarely gets anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from bottle_init.core import events as happened
from bottle_init.core.policies import POLICIES
from bottle_init.core.spec import Backoff, Budget, Bundle, Check, Lease, Probe, Ready, Spec
from bottle_init.core.words import DAEMON, JOB, ON_UNHEALTHY, ONESHOT
from bottle_init.testing.scenario import End, Freeze, Life, Remnant, Request, Say, Scenario, Stall, Storm, Write

if TYPE_CHECKING:
    from random import Random

    from hypothesis.strategies import DrawFn, SearchStrategy

    from bottle_init.core.events import Event

T = TypeVar("T")

FAULTS = (
    "deaths",
    "exec",
    "fork",
    "slow",
    "deaf",
    "own-code",
    "undead",
    "suspended",
    "remnants",
    "escapes",
    "keepers",
    "heirs",
    "orphans",
    "probes",
    "flaps",
    "notify",
    "signals",
    "stops",
    "orders",
    "freezes",
    "refusals",
    "lease",
    "stalls",
    "late-answers",
    "jumbled",
    "recycled",
    "descriptors",
    "late-users",
)
"""What a run may draw.

`undead` is uninterruptible sleep, `deaf` is a child that ignores its stop signal, `refusals` are what the kernel does
not let the init do, `lease` is a peer that comes late or never, `stalls` are children that write much and a reader of
the logs that takes nothing, or little, `keepers` reap what others have left behind, `heirs` are forked by what is about
to end, `descriptors` run out, `late-users` are made by a oneshot.
"""

SHORT_MS = (0, 1, 10, 50, 100, 250, 500, 1_000)
"""Few and round, so that things often fall into one wake-up."""

LONG_MS = (0, 10, 100, 500, 1_000, 2_000, 5_000, 5_001, 8_000, 10_000, 20_000, 30_000)

ENDS = (
    End(0),
    End(1),
    End(3),
    End(143),
    End(137),
    End(146),
    End(255),
    End(signal=15),
    End(signal=9),
    End(signal=11),
    End(signal=6),
    End(signal=1),
    End(signal=9, oom=True),
)


class Draw(Protocol):
    """A source of choices."""

    def pick(self, options: Sequence[T], /) -> T:
        """One of the options; the first is the simplest."""


class Dice:
    """Choices from a seeded generator."""

    def __init__(self, random: Random) -> None:
        self._random = random.random

    def pick(self, options: Sequence[T], /) -> T:
        """One of the options, all equally likely."""
        return options[int(self._random() * len(options))]


class HypothesisDraw:
    """Choices that Hypothesis can shrink: towards the first option."""

    def __init__(self, draw: DrawFn) -> None:
        from hypothesis import strategies

        self._draw = draw
        self._sampled_from = strategies.sampled_from

    def pick(self, options: Sequence[T], /) -> T:
        """One of the options."""
        return self._draw(self._sampled_from(options))


def bundles() -> SearchStrategy[Bundle]:
    """A Hypothesis strategy of bundles: up to six children, every kind, policy and rule."""
    from hypothesis import strategies

    @strategies.composite
    def build(draw: DrawFn) -> Bundle:
        return draw_bundle(HypothesisDraw(draw))

    return build()


def scenarios(bundle: Bundle | None = None) -> SearchStrategy[Scenario]:
    """A Hypothesis strategy of whole runs: of this bundle, or of any."""
    from hypothesis import strategies

    @strategies.composite
    def build(draw: DrawFn) -> Scenario:
        source = HypothesisDraw(draw)
        return draw_scenario(source, draw_bundle(source) if bundle is None else bundle)

    return build()


def draw_bundle(draw: Draw) -> Bundle:
    """A bundle of one to six children in the order of declaration: oneshots, daemons, jobs."""
    count = draw.pick((1, 2, 2, 3, 3, 4, 4, 5, 6))
    kinds = [draw.pick((DAEMON, DAEMON, DAEMON, DAEMON, ONESHOT, JOB)) for _ in range(count)]
    if all(kind == ONESHOT for kind in kinds):
        kinds[0] = DAEMON
    kinds.sort(key=(ONESHOT, DAEMON, JOB).index)
    names = [f"{kind}-{position}" for position, kind in enumerate(kinds)]
    line = _shuffled(draw, names)
    policy = draw.pick(tuple(POLICIES))
    style = draw.pick(("mixed", "plain"))
    lease = draw.pick((None, None, None, None, Lease(renew_ms=20_000), Lease(fd=3)))
    return Bundle(
        tuple(_draw_spec(draw, name, kind, line, policy, style) for name, kind in zip(names, kinds, strict=True)),
        policy=policy,
        stop_timeout_ms=draw.pick((8_000, 8_000, 8_000, 2_000, 20_000, 0)),
        stop_signals=draw.pick(((15, 2, 3), (15, 2, 3), (15, 2, 3), (37,), (15, 30), (13, 2))),
        exit_code_from=draw.pick((None, None, None, None, None, names[0])),
        lease=lease,
    )


def _shuffled(draw: Draw, names: list[str]) -> list[str]:
    left, line = list(names), []
    while left:
        line.append(left.pop(left.index(draw.pick(left))))
    return line


def _draw_spec(draw: Draw, name: str, kind: str, line: list[str], policy: str, style: str) -> Spec:
    earlier = line[: line.index(name)]
    after = tuple(other for other in earlier if draw.pick((False, True, False)))
    enabled = name == line[-1] or draw.pick((True, True, True, True, False))
    plain = Spec(name, kind, ("/bin/child",), after=after, policy=policy, enabled=enabled)
    if style == "plain":
        return plain
    spec = plain.replace(
        success_codes=draw.pick(((0,), (0,), (0,), (0, 3), (0, 143), (0, 137))),
        stop_signal=draw.pick((15, 15, 15, 2, 3, 1, 10)),
        stop_timeout_ms=draw.pick((5_000, 5_000, 1_000, 10_000, 0)),
        stop_delay_ms=draw.pick((0, 0, 0, 0, 500, 3_000)),
    )
    if kind == ONESHOT:
        return spec.replace(timeout_ms=draw.pick((None, None, 5_000, 500)), keeps=draw.pick(((), (), ("net_admin",))))
    spec = spec.replace(signals=draw.pick(RULES))
    if kind == JOB:
        return spec.replace(timeout_ms=draw.pick((None, None, 5_000, 500)))
    return spec.replace(
        policy=draw.pick((policy, policy, *POLICIES)),
        backoff=draw.pick((Backoff(), Backoff(100, 2.0, 1_000), Backoff(0, 1.0, 0), Backoff(1_000, 1.5, 5_000))),
        restarts=draw.pick((Budget(), Budget(2, 10_000), Budget(0, 60_000), Budget(10, 10_000))),
        restart_dependents=draw.pick((False, True)),
        ready=_draw_ready(draw),
        health=draw.pick((None, Check(Probe("tcp", port=1), *draw.pick(CHECKS)))),
        on_unhealthy=draw.pick(ON_UNHEALTHY),
    )


RULES = ((), (), ((1, 1),), ((10, 1), (1, 1)), ((10, 0), (1, 12)), ((34, 0), (28, 28)))

CHECKS = ((30_000, 5_000, 3, 0), (5_000, 1_000, 3, 0), (1_000, 1_000, 2, 5_000), (10_000, 3_000, 1, 0))


def _draw_ready(draw: Draw) -> Ready | None:
    kind = draw.pick(("", "", "tcp", "http", "exec", "notify", "after"))
    probe = Probe(kind, after_ms=draw.pick((500, 0, 2_000))) if kind == "after" else Probe(kind, port=1)
    return Ready(probe, draw.pick((30_000, 5_000, 1_000))) if kind else None


def draw_scenario(draw: Draw, bundle: Bundle, *, faults: Sequence[str] = FAULTS) -> Scenario:
    """What happens to this bundle in one run: which of these faults exist, then where they strike."""
    faults = tuple(fault for fault in faults if draw.pick((False, True)))
    if bundle.logs == "inherit":  # Then the init has no part in what becomes of the lines.
        faults = tuple(fault for fault in faults if fault != "stalls")
    stop_at_ms = draw.pick((60_000, 30_000, 10_000, 2_000, 120_000))
    storms = _several(draw, (0, 1, 2)) if "orphans" in faults else ()
    freezes = _several(draw, (0, 1, 2)) if "freezes" in faults else ()
    stalls = _several(draw, (0, 1, 1, 2)) if "stalls" in faults else ()
    lives = tuple(_draw_lives(draw, spec, faults) for spec in bundle.children)
    return Scenario(
        bundle,
        _with_late_user(draw, bundle, lives) if "late-users" in faults else lives,
        requests=_draw_requests(draw, bundle, faults, stop_at_ms),
        freezes=tuple(
            Freeze(draw.pick(LONG_MS), draw.pick((100, 1_000, 2_001, 9_000)), draw.pick((False, True))) for _ in freezes
        ),
        storms=tuple(Storm(draw.pick(LONG_MS), draw.pick((1, 20))) for _ in storms),
        stalls=tuple(
            Stall(draw.pick(LONG_MS), draw.pick((500, 999, 1_500, 10_000, 60_000)), draw.pick((0, 0, 500, 8_192)))
            for _ in stalls
        ),
        stop_at_ms=stop_at_ms,
        late_answers="late-answers" in faults,
        jumbled="jumbled" in faults,
        recycled="recycled" in faults,
        one_pipe="stalls" in faults and draw.pick((False, True)),
        lease_ms=draw.pick((0, 0, 10, 1_000, 5_000, 5_001, None)) if "lease" in faults else 0,
        lease_error=draw.pick(("", "", "connection refused")) if "lease" in faults else "",
        descriptors=draw.pick((None, None, None, 3, 5, 8, 11)) if "descriptors" in faults else None,
        drop_error=draw.pick(("", "", "not permitted")) if "refusals" in faults else "",
    )


def _several(draw: Draw, counts: tuple[int, ...]) -> range:
    return range(draw.pick(counts))


def _draw_lives(draw: Draw, spec: Spec, faults: tuple[str, ...]) -> tuple[Life, ...]:
    return tuple(draw_life(draw, spec, faults) for _ in _several(draw, (1, 2, 3)))


def _with_late_user(draw: Draw, bundle: Bundle, lives: tuple[tuple[Life, ...], ...]) -> tuple[tuple[Life, ...], ...]:
    """One oneshot makes the user of all that run after it, directly or not: no other file is valid (contract 9)."""
    makers = [spec.name for spec in bundle.children if spec.kind == ONESHOT]
    if not makers:
        return lives
    maker = draw.pick(makers)
    later = {maker: None}
    for _ in bundle.children:
        later.update((spec.name, None) for spec in bundle.children if any(name in later for name in spec.after))
    return tuple(
        tuple(replace(life, makes_user=spec.name == maker, needs_user=spec.name != maker) for life in each or (Life(),))
        if spec.name in later
        else each
        for spec, each in zip(bundle.children, lives, strict=True)
    )


def draw_life(draw: Draw, spec: Spec, faults: Sequence[str]) -> Life:
    """One process of this child's, with faults of these names."""
    if "fork" in faults and draw.pick((False, False, False, False, False, True)):
        return Life(fork_error="Resource temporarily unavailable")
    if "exec" in faults and draw.pick((False, False, False, False, True)):
        return Life(exec_error=draw.pick((127, 126)), exec_ms=draw.pick(SHORT_MS))
    facts: dict[str, object] = {}
    if spec.kind != DAEMON:
        facts.update(run_ms=draw.pick((0, 10, 500, 1_000, 5_000, 20_000)))
    if "deaths" in faults and draw.pick((False, True)):
        facts.update(run_ms=draw.pick(LONG_MS), end=draw.pick(ENDS))
    if "slow" in faults:
        facts.update(exec_ms=draw.pick(SHORT_MS), handlers_ms=draw.pick((0, 0, 100)), kill_ms=draw.pick((0, 0, 200)))
        facts.update(dies_ms=draw.pick((0, 0, 10)))
        facts.update(ready_ms=draw.pick((0, 10, 1_000, 5_000, None)), probe_ms=draw.pick((0, 1, 300, 6_000)))
    facts.update(_draw_of_kernel(draw, faults))
    if "probes" in faults:
        facts.update(hangs=draw.pick(((), ((0, 2_000),), ((5_000, 20_000),), ((0, 10_000_000),))))
    if "flaps" in faults:
        facts.update(sick=draw.pick(((), ((0, 7_000),), ((3_000, 9_000),), ((1_000, 10_000_000),))))
    facts.update(_draw_signals(draw, spec, faults), says=_draw_says(draw, spec, faults))
    facts.update(
        writes=_draw_writes(draw, faults), leaves=_draw_remnants(draw, faults), reaps=draw.pick((True, True, False))
    )
    return Life(**facts)  # type: ignore[arg-type]


def _draw_of_kernel(draw: Draw, faults: Sequence[str]) -> dict[str, object]:
    """What the kernel does with its signals: not at once, not at all."""
    facts: dict[str, object] = {}
    if "undead" in faults and draw.pick((False, False, True)):
        facts.update(kill_ms=draw.pick((None, None, 500, 1_500)))
    if "refusals" in faults:
        facts.update(refuses=draw.pick(("", "", "all", "stop", "kill")), refuses_ms=draw.pick((0, 0, 0, 1_000, 7_000)))
    if "suspended" in faults:
        facts.update(stopped_ms=draw.pick((None, None, 0, 1_000)))
    return facts


def _draw_signals(draw: Draw, spec: Spec, faults: Sequence[str]) -> dict[str, object]:
    """What it does with signals: dies of them, ends with a code of its own, or ignores them."""
    ways = ["dies"]
    if "own-code" in faults:
        ways += ["ends", "ends"]
    if "deaf" in faults:
        ways += ["deaf"]
    way = draw.pick(ways)
    caught = draw.pick(((), (1,), (1, 10, 12), (10, 34)))
    if way == "dies":
        return {"catches": caught}
    stop_ms = None if way == "deaf" else draw.pick((0, 10, 500, 1_000, 3_000, 6_000))
    return {
        "catches": (spec.stop_signal, *caught),
        "heeds": draw.pick(((), (1,))),
        "stop_ms": stop_ms,
        "stop_end": draw.pick((End(0), End(0), End(128 + spec.stop_signal), *ENDS)),
    }


def _draw_says(draw: Draw, spec: Spec, faults: Sequence[str]) -> tuple[Say, ...]:
    waits = spec.ready is not None and spec.ready.probe.kind == "notify"
    says = []
    if waits and not ("notify" in faults and draw.pick((False, False, False, True))):
        says.append(Say(draw.pick((0, 0, 10, 1_000, 5_000)) if "slow" in faults else 0, ready=True))
    if "notify" in faults and draw.pick((False, True)):
        says.append(Say(0, watchdog_ms=draw.pick((2_000, 0))))
        says.extend(Say(at_ms, watchdog=True) for at_ms in range(1_000, draw.pick((1_000, 10_000, 50_000)), 1_000))
        odd = draw.pick(
            (
                Say(500, status="busy"),
                Say(3_000, watchdog_trigger=True),
                Say(700, reloading=True),
                Say(2_500, watchdog_ms=0),
            )
        )
        says.extend((odd, Say(4_000, ready=draw.pick((True, False)), stopping=draw.pick((False, True)))))
    return tuple(says)


def _draw_writes(draw: Draw, faults: Sequence[str]) -> tuple[Write, ...]:
    """A few lines, or more than the pipes and the queue hold."""
    if "stalls" not in faults:
        return ()
    return tuple(
        Write(draw.pick(LONG_MS), *draw.pick(((1, 100), (20, 100), (100, 1_000), (25, 50_000), (300, 4_000))))
        for _ in _several(draw, (0, 0, 1, 2))
    )


def _draw_remnants(draw: Draw, faults: Sequence[str]) -> tuple[Remnant, ...]:
    if "remnants" not in faults and "escapes" not in faults:
        return ()
    return tuple(_draw_remnant(draw, faults) for _ in _several(draw, (0, 1, 2, 3)))


def _draw_remnant(draw: Draw, faults: Sequence[str]) -> Remnant:
    escapes = "escapes" in faults and draw.pick(("remnants" not in faults, True))
    return Remnant(
        born_ms=draw.pick((0, 100, 2_000)),
        escapes=escapes,
        adopted=draw.pick((False, True)),
        kept="keepers" in faults and not escapes and draw.pick((False, True)),
        heirs=draw.pick((0, 1, 2)) if "heirs" in faults else 0,
        run_ms=draw.pick((None, None, 500, 6_000)),
        stop_ms=draw.pick((0, 0, 500, 3_000, None if "deaf" in faults else 0)),
        kill_ms=draw.pick((0, 0, 0, 100, None if "undead" in faults else 0)),
        refuses="refusals" in faults and draw.pick((False, False, True)),
    )


def _draw_requests(draw: Draw, bundle: Bundle, faults: Sequence[str], stop_at_ms: int) -> tuple[Request, ...]:
    requests = []
    for number in _several(draw, (0, 1, 2, 4, 8)) if {"signals", "stops", "orders"} & set(faults) else ():
        event = _draw_request(draw, bundle, faults, number + 1)
        if event is not None:
            requests.append(Request(draw.pick(LONG_MS), event))
    if bundle.lease is not None and bundle.lease.renew_ms is not None and draw.pick((True, True, False)):
        requests.extend(
            Request(at_ms, happened.LeaseRenewed(1_000 + at_ms)) for at_ms in range(10_000, stop_at_ms + 20_000, 10_000)
        )
    if "stops" in faults and draw.pick((True, False)):
        again = happened.SignalReceived(bundle.stop_signals[-1], 1, 0)
        requests.append(Request(stop_at_ms + draw.pick((0, 1, 5, 6, 100, 3_000)), again))
    return tuple(requests)


def _draw_request(draw: Draw, bundle: Bundle, faults: Sequence[str], number: int) -> Event | None:
    child = draw.pick(range(len(bundle.children)))
    options: list[Event] = []
    if "signals" in faults:
        options.append(happened.SignalReceived(draw.pick((1, 10, 12, 28, 34, 18, 13)), draw.pick((1, 7, 0)), 0))
    if "orders" in faults:
        options += [
            happened.ChildStopOrdered(child, number),
            happened.ChildStartOrdered(child, number),
            happened.ChildRestartOrdered(child, number),
            happened.ChildSignalOrdered(child, draw.pick((15, 9, 1, 19, 18)), number),
        ]
    if "stops" in faults:
        signal = draw.pick((15, 2, 3, *bundle.stop_signals))
        options += [happened.SignalReceived(signal, 1, 0), happened.StopOrdered(number)]
        if bundle.lease is not None and bundle.lease.renew_ms is None:
            options.append(happened.LeaseEnded("the peer closed it"))
    return draw.pick(options) if options else None
