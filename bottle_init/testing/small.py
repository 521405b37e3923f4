"""Every small world there is: two daemons, all pairs of lives, and every order at every interesting moment.

Most bugs show in a small scope (Jackson, 2006), and a random driver may miss the corner where two
rare things meet. Here nothing is left to chance: the same few thousand runs every time.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from bottle_init.core import events as happened
from bottle_init.core.spec import Bundle, Check, Lease, Probe, Ready, Spec
from bottle_init.core.words import DAEMON, JOB, ONESHOT
from bottle_init.testing.scenario import End, Freeze, Life, Remnant, Request, Say, Scenario, Stall, Write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bottle_init.core.events import Event

HUP, USR1, TERM, CONT = 1, 10, 15, 18
DEAF_REMNANT = Remnant(stop_ms=None)
UNDEAD_REMNANT = Remnant(stop_ms=None, kill_ms=None)
UNDEAD = Life(catches=(TERM,), stop_ms=None, kill_ms=None)

LIVES = (
    Life(),
    Life(catches=(TERM,), stop_ms=300),
    Life(catches=(TERM,), stop_ms=None),
    Life(stopped_ms=50),
    Life(exec_ms=100),
    Life(exec_ms=100, exec_error=127),
    Life(ready_ms=500, catches=(HUP,)),
    Life(run_ms=100, end=End(1)),
    Life(run_ms=100),
    Life(run_ms=100, end=End(signal=11), leaves=(DEAF_REMNANT,)),
    Life(run_ms=100, end=End(1), leaves=(UNDEAD_REMNANT,)),
    Life(leaves=(DEAF_REMNANT, Remnant(escapes=True, stop_ms=None))),
    Life(leaves=(UNDEAD_REMNANT,)),
    UNDEAD,
    Life(catches=(TERM,), stop_ms=None, kill_ms=1_500),
    Life(ready_ms=100, catches=(TERM,), stop_ms=100, stop_end=End(3)),
    Life(says=(Say(100, ready=True), Say(150, watchdog_ms=200))),
    Life(fork_error="Resource temporarily unavailable"),
)

MOMENTS_MS = (0, 99, 100, 101, 350, 400, 600, 1_100, 1_400)


def small_worlds() -> Iterator[Scenario]:
    """All of them, simplest first."""
    for policy, ready in product(("exit-on-child-death", "restart", "wait-for-all"), ("", "tcp", "notify", "after")):
        bundle = _bundle(policy, ready)
        for life in LIVES:
            lives = ((life,), (LIVES[1],))
            yield Scenario(bundle, lives, stop_at_ms=3_000)
            turned = ((LIVES[1],), (life,))
            for at_ms, event in product(MOMENTS_MS, _orders()):
                yield Scenario(bundle, lives, (Request(at_ms, event),), stop_at_ms=3_000)
                yield Scenario(bundle, turned, (Request(at_ms, event),), stop_at_ms=3_000)
            for first, second in product(MOMENTS_MS[::2], _pairs()):
                pair = (Request(first, second[0]), Request(first + 300, second[1]))
                yield Scenario(bundle, lives, pair, stop_at_ms=8_000, jumbled=True)
    yield from corners()
    yield from _worlds_of_signals()
    yield from _worlds_of_keepers()
    yield from _worlds_of_leases()
    yield from _frozen_worlds()
    yield from _worlds_of_few_descriptors()
    yield from _worlds_of_late_users()
    yield from _worlds_of_refusals()
    yield from _stalled_worlds()


def corners() -> Iterator[Scenario]:
    """Where more than two rare things have to meet."""
    yield _killed_as_its_exec_fails()
    yield _outlived_by_what_it_has_left()
    yield from _disabled()
    yield _ready_before_its_stop_signal_is_refused()
    yield _ordered_again_while_what_was_given_up_lives()
    yield from _ordered_again_after_what_was_given_up_has_ended()
    yield _not_scheduled_while_the_reader_comes_back()
    yield _a_signal_is_passed_on_between_the_last_two_surveys()
    yield from _stopped_while_a_probe_is_dying()


def _stopped_while_a_probe_is_dying() -> Iterator[Scenario]:
    """The last daemon has ended, and the probe that was out, which was killed, takes longer to be gone."""
    ready = Ready(Probe("exec", command=("x",)), timeout_ms=2_000)
    check = Check(Probe("exec", command=("x",)), 300, 200, 3, 0)
    for spec in (Spec("a", DAEMON, ("a",), ready=ready), Spec("a", DAEMON, ("a",), health=check)):
        for kill_ms, stop_at_ms in product((1, 400, 1_500, None), (100, 350, 700)):
            life = Life(catches=(TERM,), stop_ms=50, kill_ms=kill_ms, probe_ms=10, hangs=((0, 9_000),))
            yield Scenario(Bundle((spec,)), ((life,),), stop_at_ms=stop_at_ms)


def _a_signal_is_passed_on_between_the_last_two_surveys() -> Scenario:
    """In one wake-up the last daemon dies, the second stop signal comes, and another one that is for the children."""
    life = Life(catches=(TERM,), stop_ms=1_000)
    signals = ((1_000, TERM), (2_000, CONT), (2_000, TERM))
    requests = tuple(Request(at_ms, happened.SignalReceived(signal, 1, 0)) for at_ms, signal in signals)
    return Scenario(Bundle((Spec("a", DAEMON, ("a",)),)), ((life,),), requests, stop_at_ms=10_000, jumbled=True)


def _worlds_of_signals() -> Iterator[Scenario]:
    """Two signals of every kind, so close that they may be one, whatever the bundle's stop signals are."""
    children = (Spec("a", DAEMON, ("a",), signals=((HUP, USR1),)), Spec("b", DAEMON, ("b",), ("a",)))
    life = Life(catches=(TERM, USR1), stop_ms=100)
    sent = [
        happened.SignalReceived(signal, pid, 0) for signal, pid in ((TERM, 1), (37, 0), (HUP, 7), (CONT, 7), (13, 7))
    ]
    for stop_signals, gap_ms in product(((TERM,), (37, TERM)), (0, 1, 5, 6)):
        bundle = Bundle(children, stop_timeout_ms=2_000, stop_signals=stop_signals)
        for first, second in product(sent, sent):
            requests = (Request(100, first), Request(100 + gap_ms, second))
            yield Scenario(bundle, ((life,), (life,)), requests, stop_at_ms=3_000)


def _worlds_of_keepers() -> Iterator[Scenario]:
    """Two oneshots that keep something, each with every end, and an order to start one of them again at any time."""
    keeper = Spec("a", ONESHOT, ("a",), keeps=("net_admin",))
    children = (
        keeper,
        keeper.replace(name="b", keeps=("sys_time",)),
        Spec("c", DAEMON, ("c",), ("a",)),
        Spec("d", DAEMON, ("d",)),
    )
    ends = (Life(run_ms=100), Life(run_ms=350), Life(run_ms=100, end=End(1)), Life())
    orders = (happened.ChildStartOrdered(0, 1), happened.ChildRestartOrdered(0, 1), happened.ChildStopOrdered(0, 1))
    for first, second, drop_error in product(ends, ends, ("", "not permitted")):
        lives = ((first,), (second,), (Life(),), (Life(),))
        for at_ms, order in product(MOMENTS_MS, orders):
            requests = (Request(at_ms, order), Request(at_ms + 300, happened.ChildRestartOrdered(3, 2)))
            yield Scenario(Bundle(children), lives, requests, stop_at_ms=3_000, drop_error=drop_error)


def _worlds_of_leases() -> Iterator[Scenario]:
    """A peer that comes at once, late or never, or goes again, and a stop or an order before and after that."""
    bundle = Bundle((Spec("a", DAEMON, ("a",)), Spec("b", DAEMON, ("b",), ("a",))), lease=Lease(connect="unix:/x"))
    orders = (
        happened.SignalReceived(TERM, 1, 0),
        happened.LeaseEnded("closed by the other side"),
        happened.ChildStopOrdered(0, 1),
        happened.ChildRestartOrdered(1, 1),
    )
    for lease_ms, error in product((0, 100, 4_999, 5_000, 5_001, None), ("", "connection refused")):
        for at_ms, order in product((0, 99, 100, 101, 5_000, 6_000), orders):
            request = Request(at_ms, order)
            yield Scenario(
                bundle, ((Life(),), (Life(),)), (request,), stop_at_ms=8_000, lease_ms=lease_ms, lease_error=error
            )


def _worlds_of_few_descriptors() -> Iterator[Scenario]:
    """Three daemons, of which one dies again and again, and room for one of them, for two, or for all but a start."""
    for policy, limit in product(("restart", "wait-for-all", "exit-on-child-death"), range(2, 11)):
        first = Spec("a", DAEMON, ("a",), (), policy, stop_timeout_ms=400)
        second, third = (first.replace(name="b"), first.replace(name="c", after=("a",)))
        bundle = Bundle((first, second, third), policy, stop_timeout_ms=2_000)
        for exec_ms, at_ms, event in product((0, 100, 1_001), MOMENTS_MS[::3], _orders()[:3]):
            lives = ((Life(run_ms=200, end=End(1), exec_ms=exec_ms),), (Life(exec_ms=exec_ms),), (LIVES[1],))
            yield Scenario(bundle, lives, (Request(at_ms, event),), stop_at_ms=3_000, descriptors=limit)


def _worlds_of_late_users() -> Iterator[Scenario]:
    """A oneshot makes the user of what runs after it, or ends in every other way, with an order at any time."""
    maker = Spec("a", ONESHOT, ("a",), success_codes=(0, 3))
    children = (maker, Spec("b", DAEMON, ("b",), ("a",)), Spec("c", JOB, ("c",), ("b",)), Spec("d", DAEMON, ("d",)))
    ends = (End(0), End(3), End(1), End(signal=11))
    orders = tuple(
        kind(child, 1) for kind in (happened.ChildRestartOrdered, happened.ChildStopOrdered) for child in (0, 1)
    )
    for end, makes, enabled in product(ends, (True, False), (True, False)):
        bundle = Bundle((maker.replace(enabled=enabled), *children[1:]))
        needs = Life(needs_user=True)
        lives = ((Life(run_ms=300, end=end, makes_user=makes),), (needs,), (replace(needs, run_ms=900),), (Life(),))
        for at_ms, order in product(MOMENTS_MS, orders):
            yield Scenario(bundle, lives, (Request(at_ms, order),), stop_at_ms=3_000)


def _frozen_worlds() -> Iterator[Scenario]:
    """Whatever has to be done in time, and a freeze of the init or of everything that begins and ends at any time."""
    check = Check(Probe("tcp", port=1), 200, 300, 1, 0)
    ready = Ready(Probe("notify"), timeout_ms=500)
    plain = Spec("a", DAEMON, ("a",))
    pings = tuple(Say(at_ms, watchdog=True) for at_ms in range(200, 4_000, 200))
    patients = (
        (plain.replace(ready=ready), Life(says=(Say(400, ready=True),))),
        (plain.replace(ready=ready, policy="restart"), Life(says=(Say(600, ready=True),))),
        (plain.replace(ready=Ready(Probe("tcp", port=1), timeout_ms=500)), Life(ready_ms=450, probe_ms=100)),
        (plain.replace(health=check, on_unhealthy="stop"), Life(probe_ms=250)),
        (plain.replace(health=check, on_unhealthy="restart"), Life(hangs=((700, 1_000),))),
        (plain.replace(on_unhealthy="stop"), Life(says=(Say(0, watchdog_ms=250), *pings))),
        (plain.replace(kind=JOB, timeout_ms=500), Life(run_ms=450)),
        (plain.replace(kind=ONESHOT, timeout_ms=500), Life(run_ms=550)),
    )
    for (spec, life), lease in product(patients, (None, Lease(renew_ms=700), Lease(connect="unix:/x"))):
        bundle = Bundle((spec,), lease=lease)
        renewed = lease is not None and lease.renew_ms is not None
        requests = tuple(
            Request(at_ms, happened.LeaseRenewed(1 + at_ms)) for at_ms in range(300, 6_000, 300) if renewed
        )
        for at_ms, for_ms, whole in product((0, 100, 400, 3_000), (1_000, 1_399, 2_000, 7_000), (False, True)):
            freezes = (Freeze(at_ms, for_ms, whole),)
            lease_ms = 4_900 if at_ms == 3_000 else 0
            yield Scenario(bundle, ((life,),), requests, freezes, stop_at_ms=12_000, lease_ms=lease_ms)


def _worlds_of_refusals() -> Iterator[Scenario]:
    """A child that the init may not signal, for each reason to end it, and each order about it, at any time."""
    check = Check(Probe("tcp", port=1), 200, 100, 1, 0)
    plain = Spec("a", DAEMON, ("a",), stop_timeout_ms=400)
    firsts = (
        plain,
        plain.replace(policy="restart", health=check, on_unhealthy="restart"),
        plain.replace(ready=Ready(Probe("tcp", port=1), timeout_ms=300), policy="restart"),
        plain.replace(kind=JOB, timeout_ms=300),
        plain.replace(kind=ONESHOT, timeout_ms=300),
        plain.replace(policy="wait-for-all", restart_dependents=True),
    )
    orders = (
        happened.ChildStopOrdered(0, 1),
        happened.ChildRestartOrdered(0, 1),
        happened.ChildSignalOrdered(0, USR1, 1),
        happened.ChildRestartOrdered(1, 1),
        happened.SignalReceived(TERM, 1, 0),
        happened.SignalReceived(HUP, 1, 0),
    )
    behaviours = product(("all", "stop", "kill"), (0, 450), (False, True))
    for first, (refuses, refuses_ms, remnant) in product(firsts, behaviours):
        second = Spec("b", DAEMON, ("b",), ("a",), stop_timeout_ms=400, signals=((HUP, HUP),), restart_dependents=True)
        bundle = Bundle(
            (first.replace(signals=((HUP, HUP),) if first.kind == DAEMON else ()), second), stop_timeout_ms=2_000
        )
        leaves = (Remnant(refuses=True, stop_ms=None), Remnant(stop_ms=100)) if remnant else ()
        sick = ((300, 9_999),) if first.health else ()
        ready_ms = None if first.ready else 0
        life = Life(catches=(HUP, TERM), stop_ms=None, refuses=refuses, refuses_ms=refuses_ms, leaves=leaves)
        life = replace(life, sick=sick, ready_ms=ready_ms)
        for at_ms, order in product((0, 200, 500, 1_000), orders):
            again = Request(at_ms + 300, happened.ChildStartOrdered(0, 2))
            yield Scenario(
                bundle, ((life,), (replace(life, sick=()),)), (Request(at_ms, order), again), stop_at_ms=3_000
            )


def _stalled_worlds() -> Iterator[Scenario]:
    """A child that writes more than the pipes and the queue hold, every kind of reader, and a stop at any time."""
    bundle = _bundle("wait-for-all", "")
    writer = Life(run_ms=600, catches=(TERM,), stop_ms=100, writes=(Write(100, 25, 50_000), Write(3_000, 100, 1_000)))
    for for_ms, sip_bytes in product((999, 1_000, 6_000, 100_000), (0, 500, 8_192)):
        for stop_at_ms, one_pipe in product((100, 1_099, 1_100, 4_000, 20_000), (False, True)):
            stalls = (Stall(50, for_ms, sip_bytes),)
            yield Scenario(bundle, ((writer,), (writer,)), stalls=stalls, stop_at_ms=stop_at_ms, one_pipe=one_pipe)


def _killed_as_its_exec_fails() -> Scenario:
    """The second stop signal and a failed exec meet in one wake-up, while a stop_delay passes."""
    bundle = Bundle((Spec("a", DAEMON, ("a",), stop_delay_ms=500),))
    term = happened.SignalReceived(TERM, 1, 0)
    return Scenario(bundle, ((Life(exec_ms=300, exec_error=127),),), (Request(0, term), Request(300, term)))


def _ready_before_its_stop_signal_is_refused() -> Scenario:
    """Daemon a says READY=1 once, while its stop_delay passes, and goes on: daemon b has waited for that."""
    waits = Spec("a", DAEMON, ("a",), ready=Ready(Probe("notify"), timeout_ms=1_000), stop_delay_ms=400)
    bundle = Bundle((waits, Spec("b", DAEMON, ("b",), ("a",))))
    lives = ((Life(refuses="stop", says=(Say(200, ready=True),)),), (Life(),))
    return Scenario(bundle, lives, (Request(100, happened.ChildStopOrdered(0, 1)),), stop_at_ms=3_000)


def _ordered_again_while_what_was_given_up_lives() -> Scenario:
    """Daemon a neither heeds its stop signal nor may be killed; an operator, who has stopped it, wants it back."""
    bundle = Bundle((Spec("a", DAEMON, ("a",), stop_timeout_ms=400), Spec("b", DAEMON, ("b",))))
    lives = ((Life(catches=(TERM,), stop_ms=None, refuses="kill"), Life()), (Life(),))
    orders = (Request(100, happened.ChildStopOrdered(0, 1)), Request(800, happened.ChildStartOrdered(0, 2)))
    return Scenario(bundle, lives, orders, stop_at_ms=3_000)


def _ordered_again_after_what_was_given_up_has_ended() -> Iterator[Scenario]:
    """It ends by itself, and leaves something in its session that SIGKILL does, does late, or may not end."""
    bundle = Bundle((Spec("a", DAEMON, ("a",), stop_timeout_ms=400), Spec("b", DAEMON, ("b",))))
    for remnant, again_at_ms in product((Remnant(), Remnant(kill_ms=900), Remnant(refuses=True)), (750, 1_200, 4_000)):
        first = Life(catches=(TERM,), stop_ms=600, refuses="kill", leaves=(remnant,))
        orders = (Request(100, happened.ChildStopOrdered(0, 1)), Request(again_at_ms, happened.ChildStartOrdered(0, 2)))
        yield Scenario(bundle, ((first, Life()), (Life(),)), orders, stop_at_ms=8_000)


def _disabled() -> Iterator[Scenario]:
    """Daemon b runs after one that is not started with the bundle, until it is ordered to."""
    bundle = _bundle("wait-for-all", "tcp")
    first, second = bundle.children
    bundle = bundle.replace(children=(first.replace(enabled=False), second))
    yield Scenario(bundle, ((LIVES[1],), (LIVES[1],)), stop_at_ms=3_000)
    for at_ms, event in product(MOMENTS_MS, _orders()):
        yield Scenario(bundle, ((LIVES[1],), (LIVES[1],)), (Request(at_ms, event),), stop_at_ms=3_000)


def _outlived_by_what_it_has_left() -> Scenario:
    """A child has ended long before the stop, and what it has left in its session outlives even SIGKILL."""
    setup = Spec("setup", ONESHOT, ("x",), ("a",), stop_timeout_ms=0)
    lives = ((Life(run_ms=0, leaves=(Remnant(kill_ms=None),)),), (Life(),))
    return Scenario(Bundle((setup, Spec("a", DAEMON, ("a",)))), lives, stop_at_ms=2_000)


def _not_scheduled_while_the_reader_comes_back() -> Scenario:
    """The reader had been given up; it reads again, and children write, before the init knows of either."""
    writes = (Write(100, 25, 50_000), Write(2_000, 25, 50_000), Write(4_000, 25, 50_000))
    freezes, stalls = (Freeze(3_000, 5_000),), (Stall(50, 3_200),)
    lives = ((Life(writes=writes),),)
    bundle = Bundle((Spec("a", DAEMON, ("a",)),))
    return Scenario(bundle, lives, freezes=freezes, stalls=stalls, stop_at_ms=10_000, jumbled=True)


def _bundle(policy: str, ready: str) -> Bundle:
    """Daemon b runs after daemon a; a takes it along when it restarts."""
    probe = Ready(Probe(ready, port=1, after_ms=150), timeout_ms=1_000) if ready else None
    first = Spec("a", DAEMON, ("a",), (), policy, stop_timeout_ms=400, restart_dependents=True, ready=probe)
    first = first.replace(signals=((HUP, HUP), (USR1, HUP)))
    second = Spec("b", DAEMON, ("b",), ("a",), policy, stop_timeout_ms=1_000, stop_delay_ms=200)
    return Bundle((first, second), policy, stop_timeout_ms=2_000)


def _orders() -> tuple[Event, ...]:
    return (
        happened.ChildStopOrdered(0, 1),
        happened.ChildStartOrdered(0, 1),
        happened.ChildRestartOrdered(0, 1),
        happened.ChildStopOrdered(1, 1),
        happened.ChildRestartOrdered(1, 1),
        happened.ChildSignalOrdered(0, 9, 1),
        happened.SignalReceived(TERM, 1, 0),
        happened.SignalReceived(HUP, 1, 0),
    )


def _pairs() -> tuple[tuple[Event, Event], ...]:
    stop, start = happened.ChildStopOrdered(0, 1), happened.ChildStartOrdered(0, 2)
    restart, term = happened.ChildRestartOrdered(0, 2), happened.SignalReceived(TERM, 1, 0)
    return (
        (stop, start),
        (stop, restart),
        (restart, restart),
        (restart, term),
        (stop, term),
        (term, term),
        (term, start),
        (happened.SignalReceived(HUP, 1, 0), happened.SignalReceived(USR1, 2, 0)),
    )
