"""Contract 3, 4 and 6 by example: a small bundle, one thing that happens, and when exactly the init acts.

Times are virtual and exact: nothing here sleeps, and nothing depends on the machine.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from bottle_init.core import events as happened
from bottle_init.core import status
from bottle_init.core.actions import (
    Answer,
    DropCapabilities,
    ForwardSignal,
    KillSession,
    LogEvent,
    SendSignal,
    Spawn,
    StartProbe,
    SurveySession,
    SurveyTree,
)
from bottle_init.core.spec import Backoff, Budget, Bundle, Check, Lease, Probe, Ready, Spec
from bottle_init.core.words import DAEMON, JOB, ONESHOT
from bottle_init.testing import (
    End,
    Freeze,
    Life,
    Remnant,
    Request,
    Say,
    Scenario,
    Storm,
    Trace,
    check,
    render,
    simulate,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.core.actions import Action
    from bottle_init.core.events import Event

TERM, KILL, HUP, USR1, CONT = 15, 9, 1, 10, 18
STAYS = Life()
SLOW_TO_STOP = Life(catches=(TERM,), stop_ms=1_000)
IGNORES_TERM = Life(catches=(TERM,), stop_ms=None)
TCP = Probe("tcp", port=1)


def spec(name: str, kind: str = DAEMON, **facts: object) -> Spec:
    return Spec(name, kind, (name,), **facts)  # type: ignore[arg-type]


def live(bundle: Bundle | tuple[Spec, ...], *lives: Life | tuple[Life, ...], **facts: object) -> Trace:
    """Run it, and insist that no promise was broken on the way."""
    whole = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    each = tuple(life if isinstance(life, tuple) else (life,) for life in lives)
    trace = simulate(Scenario(whole, each, **facts))  # type: ignore[arg-type]
    violations = check(trace)
    assert not violations, render(trace, violations)
    return trace


def times(trace: Trace, *wanted: type[Action], child: int | None = None, signal: int | None = None) -> list[int]:
    """When these actions were taken."""
    return [
        step.now_ms
        for step in trace.steps
        for action in step.actions
        if isinstance(action, wanted)
        and (child is None or getattr(action, "child", None) == child)
        and (signal is None or getattr(action, "signal", None) == signal)
    ]


def order(trace: Trace, wanted: type[Action], signal: int | None = None) -> list[int]:
    """Which children these actions were about, in order."""
    return [
        action.child  # type: ignore[attr-defined]
        for step in trace.steps
        for action in step.actions
        if isinstance(action, wanted) and (signal is None or getattr(action, "signal", None) == signal)
    ]


def answers(trace: Trace) -> list[tuple[int, str]]:
    """The health answer, each time that it changed."""
    told: list[tuple[int, str]] = []
    for step in trace.steps:
        word = status.health(step.state).health
        if step.settled and (not told or told[-1][1] != word):
            told.append((step.now_ms, word))
    return told


def code(trace: Trace) -> int:
    assert trace.exit is not None
    return trace.exit.code


CHAIN = (spec("a"), spec("b", after=("a",)), spec("c", after=("b",)))


# Starting.


def test_a_chain_starts_link_by_link() -> None:
    """A chain starts link by link, as each becomes ready."""
    ready = Ready(TCP)
    chain = (spec("a", ready=ready), spec("b", after=("a",), ready=ready), spec("c", after=("b",)))
    trace = live(chain, Life(ready_ms=30), Life(ready_ms=0), STAYS)
    assert order(trace, Spawn) == [0, 1, 2]
    assert times(trace, Spawn) == [0, 30, 30]


def test_readiness_probes_come_at_growing_pauses() -> None:
    """A readiness probe is made at once, and then after growing pauses."""
    trace = live((spec("a", ready=Ready(TCP, timeout_ms=2_000)),), Life(ready_ms=None))
    made = times(trace, StartProbe)
    pauses = [later - earlier for earlier, later in itertools.pairwise(made)]
    assert made[0] == 0
    assert pauses == sorted(pauses)
    assert max(pauses) == 250


def test_readiness_lasts_for_those_that_wait() -> None:
    """What has been ready stays ready for those that wait for it.

    b is ready, dies and comes back; c, which is after a slow d and b, starts while b is still down.
    """
    bundle = (
        spec("b", policy="restart", backoff=Backoff(10_000, 1.0, 10_000)),
        spec("d", ready=Ready(TCP)),
        spec("c", after=("b", "d")),
    )
    trace = live(bundle, (Life(run_ms=1_000, end=End(1)), STAYS), Life(ready_ms=3_000), STAYS)
    assert 3_000 <= times(trace, Spawn, child=2)[0] <= 3_250
    assert times(trace, Spawn, child=0) == [0, 11_000]


def test_a_oneshot_is_ready_only_when_it_has_succeeded() -> None:
    trace = live((spec("set-up", ONESHOT), spec("a", after=("set-up",))), Life(run_ms=700), STAYS)
    assert times(trace, Spawn) == [0, 700]


def test_notify_is_ready_with_its_datagram() -> None:
    """Notify makes a daemon ready at the moment of its datagram."""
    bundle = (spec("a", ready=Ready(Probe("notify"))), spec("b", after=("a",)))
    trace = live(bundle, Life(says=(Say(420, ready=True),)), STAYS)
    assert times(trace, Spawn) == [0, 420]


# Stopping.


def test_the_stop_order_is_the_reverse() -> None:
    """The stop order is the reverse of the start order, and no timeout is waited out."""
    trace = live(CHAIN, SLOW_TO_STOP, SLOW_TO_STOP, SLOW_TO_STOP, stop_at_ms=2_000)
    assert order(trace, SendSignal, TERM) == [2, 1, 0]
    assert times(trace, SendSignal, signal=TERM) == [2_000, 3_000, 4_000]
    assert trace.end_ms == 5_000
    assert code(trace) == 0


def test_independent_children_stop_in_parallel() -> None:
    trace = live((spec("a"), spec("b"), spec("c")), SLOW_TO_STOP, SLOW_TO_STOP, SLOW_TO_STOP, stop_at_ms=2_000)
    assert times(trace, SendSignal, signal=TERM) == [2_000] * 3
    assert trace.end_ms == 3_000


def test_the_deadline_is_one_for_all_phases() -> None:
    trace = live(CHAIN, IGNORES_TERM, IGNORES_TERM, IGNORES_TERM, stop_at_ms=2_000)
    assert times(trace, SendSignal, signal=TERM) == [2_000, 7_000]
    assert trace.end_ms == 2_000 + 8_000
    assert code(trace) == 137


def test_the_second_stop_signal_kills_at_once() -> None:
    second = Request(2_300, happened.SignalReceived(2))
    trace = live(CHAIN, IGNORES_TERM, IGNORES_TERM, IGNORES_TERM, stop_at_ms=2_000, requests=(second,))
    assert times(trace, SurveyTree, signal=KILL)[0] == 2_300
    assert trace.end_ms == 2_300
    assert code(trace) == 137


def test_the_stop_signals_of_one_wake_up_count_as_one() -> None:
    same = (Request(2_000, happened.SignalReceived(TERM)), Request(2_000, happened.SignalReceived(2)))
    trace = live(CHAIN[:1], SLOW_TO_STOP, stop_at_ms=2_000, requests=same)
    assert trace.end_ms == 3_000
    assert code(trace) == 0


def test_a_stop_signal_during_a_policy_stop() -> None:
    """A stop signal during a policy stop changes neither cause nor code."""
    bundle = (spec("a"), spec("b"))
    trace = live(bundle, Life(run_ms=1_500, end=End(3)), SLOW_TO_STOP, stop_at_ms=2_000)
    assert code(trace) == 3
    assert trace.exit is not None
    assert trace.exit.stop.kind == "policy"
    assert trace.end_ms == 2_500


def test_a_stop_during_startup() -> None:
    """A stop during startup stops what was started and starts nothing more."""
    bundle = (spec("a", ready=Ready(TCP)), spec("b", after=("a",)), spec("c", policy="restart"))
    trace = live(bundle, Life(ready_ms=None), STAYS, Life(run_ms=1_999, end=End(1)), stop_at_ms=2_000)
    assert order(trace, Spawn) == [0, 2]
    assert trace.end_ms == 2_000
    assert code(trace) == 0


def test_a_suspended_child_gets_its_term_and_then_cont() -> None:
    trace = live((spec("a"),), Life(stopped_ms=100), stop_at_ms=2_000)
    assert times(trace, SendSignal, signal=CONT) == [2_000]
    assert trace.end_ms == 2_000
    assert code(trace) == 0


def test_a_stop_delay_lies_inside_the_deadline() -> None:
    trace = live((spec("a", stop_delay_ms=3_000),), STAYS, stop_at_ms=2_000)
    assert times(trace, SendSignal, signal=TERM) == [5_000]
    trace = live((spec("a", stop_delay_ms=30_000),), STAYS, stop_at_ms=2_000)
    assert trace.end_ms == 10_000


def test_leftovers_get_term_and_then_kill() -> None:
    """What is left of a session gets TERM, and then KILL."""
    deaf = Life(leaves=(Remnant(stop_ms=None),))
    trace = live((spec("a"), spec("b", after=("a",))), STAYS, deaf, stop_at_ms=2_000)
    assert times(trace, SendSignal, child=0, signal=TERM) == [7_000]
    assert trace.exit is not None
    assert [survivor.name for survivor in trace.exit.survivors] == ["remnant-4"]
    assert code(trace) == 0


def test_what_is_forked_while_a_session_ends() -> None:
    """What is forked while a session is being ended gets its TERM too."""
    heirs = Life(leaves=(Remnant(stop_ms=500, heirs=2),))
    trace = live((spec("a"), spec("b", after=("a",))), STAYS, heirs, stop_at_ms=2_000)
    assert times(trace, SendSignal, child=0, signal=TERM) == [3_500]
    assert times(trace, SurveySession, signal=KILL) == []
    assert trace.exit is not None
    assert [survivor.name for survivor in trace.exit.survivors] == ["remnant-4", "remnant-5", "remnant-6"]


def test_what_another_process_reaps() -> None:
    """The end of what another process reaps is noticed, and no timeout is waited out for it."""
    kept = Life(leaves=(Remnant(stop_ms=500, kept=True),))
    trace = live((spec("a"), spec("b", after=("a",))), STAYS, kept, stop_at_ms=2_000)
    assert times(trace, SendSignal, child=0, signal=TERM) == [2_500]
    assert trace.end_ms == 2_500


def test_all_that_is_left_is_named() -> None:
    """More of them than anybody would read: the contract knows no bound."""
    many = Life(leaves=(Remnant(),) * 500)
    trace = live((spec("a"), spec("b", after=("a",))), many, many, stop_at_ms=2_000)
    assert trace.exit is not None
    assert len(trace.exit.survivors) == 1_000


def test_what_escaped_its_session_goes_too() -> None:
    """What escaped its session goes with the whole tree."""
    trace = live((spec("a"),), Life(leaves=(Remnant(escapes=True, stop_ms=None),)), stop_at_ms=2_000)
    assert trace.end_ms == 10_000
    assert trace.processes[-1].ended_ms == 10_000
    assert code(trace) == 0


def test_what_no_kill_ends_is_given_up() -> None:
    """What no KILL ends is given up one second later."""
    trace = live((spec("a"),), Life(catches=(TERM,), stop_ms=None, kill_ms=None), stop_at_ms=2_000)
    assert times(trace, KillSession) == [7_000]
    assert trace.end_ms <= 2_000 + 8_000 + 1_000
    assert code(trace) == 137


def test_a_storm_of_orphans_changes_nothing() -> None:
    """A storm of orphans is reaped and changes nothing."""
    trace = live((spec("a"),), STAYS, storms=(Storm(1_000, 10_000), Storm(2_000, 10_000)), stop_at_ms=2_000)
    assert trace.end_ms == 2_000
    assert code(trace) == 0


@pytest.mark.parametrize(
    ("kill_ms", "end_ms"),
    [(1, 150), (400, 500), (1_500, 1_600), (None, 9_100)],
    ids=["quick", "slow", "slower", "never"],
)
def test_a_dying_probe_is_waited_for(kill_ms: int | None, end_ms: int) -> None:
    """An exec probe that was killed is gone once the kernel says so.

    The bundle ends with it and no later, and where it is never gone, at the deadline. The daemon itself needs 50 ms.
    """
    asked = Ready(Probe("exec", command=("x",)), timeout_ms=30_000)
    hangs = Life(catches=(TERM,), stop_ms=50, kill_ms=kill_ms, hangs=((0, 60_000),))
    trace = live((spec("a", ready=asked),), hangs, stop_at_ms=100)
    assert trace.end_ms == end_ms
    assert code(trace) == 0


def test_a_machine_suspended_past_all_deadlines() -> None:
    """A machine was suspended past all deadlines.

    The whole stop falls into one wake-up; what is dead is not killed, what lives is.
    """
    trace = live((spec("a"), spec("b")), SLOW_TO_STOP, IGNORES_TERM, stop_at_ms=2_000, freezes=(Freeze(2_500, 60_000),))
    assert trace.end_ms == 62_500
    assert code(trace) == 137


# Restarts.


def test_the_delays_grow_up_to_the_limit() -> None:
    """The delays grow by the factor up to the limit, and begin anew."""
    backoff = Backoff(500, 2.0, 3_000)
    lives = (*(Life(run_ms=0, end=End(1)),) * 5, Life(run_ms=3_000, end=End(1)), STAYS)
    trace = live((spec("a", policy="restart", backoff=backoff, restarts=Budget(10)),), lives)
    starts = times(trace, Spawn)
    delays = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert delays == [500, 1_000, 2_000, 3_000, 3_000, 3_000 + 500]


def test_a_spent_budget_is_a_policy_stop() -> None:
    """One restart more than the budget is a policy stop, at the death."""
    bundle = (spec("a", policy="restart", backoff=Backoff(0, 1.0, 0), restarts=Budget(3, 60_000)),)
    trace = live(bundle, Life(run_ms=100, end=End(7)))
    assert len(times(trace, Spawn)) == 1 + 3
    assert trace.end_ms == 400
    assert code(trace) == 7


def test_restarts_outside_the_window_do_not_count() -> None:
    """Restarts that have left the window do not count any more."""
    bundle = (spec("a", policy="restart", backoff=Backoff(0, 1.0, 0), restarts=Budget(1, 1_000)),)
    trace = live(bundle, (*(Life(run_ms=1_000, end=End(7)),) * 3, STAYS))
    assert len(times(trace, Spawn)) == 4
    assert code(trace) == 0


@pytest.mark.parametrize("policy", ["restart", "restart-on-failure"])
def test_a_failed_fork_is_a_failed_start(policy: str) -> None:
    trace = live((spec("a", policy=policy),), (Life(fork_error="EAGAIN"), STAYS))
    assert times(trace, Spawn) == [0, 500]
    assert code(trace) == 0


def test_a_missed_readiness_is_answered_by_a_restart() -> None:
    """A missed readiness deadline is answered by a restart."""
    bundle = (spec("a", policy="restart-on-failure", ready=Ready(TCP, 1_000)),)
    trace = live(bundle, (Life(ready_ms=None), STAYS))
    assert times(trace, SendSignal, signal=TERM)[0] == 1_000
    assert times(trace, Spawn) == [0, 1_500]


def test_rest_for_one() -> None:
    """a dies: c and b, which run after it, stop in reverse order and start again in order; d is left alone."""
    bundle = (
        spec("a", policy="restart", restart_dependents=True, ready=Ready(TCP)),
        spec("b", after=("a",), ready=Ready(TCP)),
        spec("c", after=("b",)),
        spec("d"),
    )
    again = Life(ready_ms=100)
    trace = live(bundle, (Life(run_ms=2_000, end=End(1)), again), (SLOW_TO_STOP, again), SLOW_TO_STOP, STAYS)
    assert order(trace, Spawn) == [0, 3, 1, 2, 0, 1, 2]
    stops = [child for child in order(trace, SendSignal, TERM) if child in (1, 2)]
    assert stops[:2] == [2, 1]
    assert times(trace, SendSignal, child=3, signal=TERM) == [60_000]
    assert times(trace, Spawn, child=0)[1] == 4_000
    assert code(trace) == 0


NOTIFY = Ready(Probe("notify"))
READY_AT_ONCE = (Say(0, ready=True),)
READY_LATER = (Say(400, ready=True),)


def test_rest_for_one_holds_through_a_oneshot() -> None:
    """c is after a oneshot that is after a: it waits for a, not only for the oneshot, which is done already."""
    bundle = (
        spec("set-up", ONESHOT, after=("a",)),
        spec("a", policy="restart", restart_dependents=True, ready=NOTIFY),
        spec("c", after=("set-up",)),
    )
    a = (Life(says=READY_AT_ONCE, run_ms=1_000, end=End(1)), Life(says=READY_LATER))
    trace = live(bundle, Life(run_ms=10), a, STAYS)
    assert times(trace, Spawn, child=1) == [0, 1_500]
    assert times(trace, Spawn, child=2) == [10, 1_900]


def test_rest_for_one_waits_for_who_was_going_down() -> None:
    """Rest for one starts nothing before a dependent that was going down already.

    b is being restarted by request when a dies: c, which runs after both, is the last to come back.
    """
    bundle = (
        spec("a", policy="restart", restart_dependents=True, ready=NOTIFY),
        spec("b", after=("a",), ready=NOTIFY),
        spec("c", after=("b",)),
    )
    a = (Life(says=READY_AT_ONCE, run_ms=1_500, end=End(1)), Life(says=READY_LATER))
    b = (Life(says=READY_AT_ONCE, catches=(TERM,), stop_ms=1_000), Life(says=READY_LATER))
    again = Request(1_000, happened.ChildRestartOrdered(1, 1))
    trace = live(bundle, a, b, STAYS, requests=(again,))
    assert order(trace, Spawn) == [0, 1, 2, 0, 1, 2]
    assert times(trace, Spawn)[3:] == [2_000, 2_400, 2_800]


def test_an_awaited_daemon_that_ends_well() -> None:
    """A daemon that ended is not awaited in vain by one whose session is still there.

    a and b die together and both come back; a then ends well before it is ready, while b's session lives on.
    """
    backoff = Backoff(100, 1.0, 100)
    bundle = (
        spec("a", policy="restart-on-failure", restart_dependents=True, ready=NOTIFY, backoff=backoff),
        spec("b", policy="restart", after=("a",), backoff=backoff),
    )
    a = (Life(says=READY_AT_ONCE, run_ms=1_000, end=End(1)), Life(run_ms=100))
    trace = live(bundle, a, Life(run_ms=1_000, end=End(1), leaves=(Remnant(stop_ms=2_000),)))
    assert trace.exit is not None
    assert (trace.exit.stop.kind, trace.exit.stop.at_ms) == ("policy", 1_200)
    assert code(trace) == 69


def test_a_bundle_with_a_waiting_child_goes_on() -> None:
    """A bundle with a child that waits has not ended.

    What the job waits for is stopped by request, and later started again by request.
    """
    bundle = (spec("a", ready=NOTIFY), spec("tests", JOB, after=("a",)))
    orders = (Request(1_000, happened.ChildStopOrdered(0, 1)), Request(3_000, happened.ChildStartOrdered(0, 2)))
    trace = live(bundle, (STAYS, Life(says=READY_LATER)), Life(run_ms=500, end=End(4)), requests=orders)
    assert times(trace, Spawn) == [0, 3_000, 3_400]
    assert code(trace) == 4


def test_held_dependents_keep_the_bundle() -> None:
    """Dependents that will come back keep the bundle alive while their daemon is held."""
    bundle = (spec("a", policy="restart", restart_dependents=True), spec("b", after=("a",)))
    orders = (Request(1_200, happened.ChildStopOrdered(0, 1)), Request(3_000, happened.ChildStartOrdered(0, 2)))
    trace = live(bundle, (Life(run_ms=1_000, end=End(1)), STAYS), STAYS, requests=orders)
    assert times(trace, Spawn) == [0, 0, 3_000, 3_000]
    assert trace.end_ms == 60_000


def test_a_long_run_begins_the_delays_anew() -> None:
    """A long run begins the delays anew, however it ended.

    Two quick failures, then a run of nearly twenty seconds that an order ends: the next failure waits 500 ms.
    """
    fails = Life(run_ms=0, end=End(1))
    again = Request(20_000, happened.ChildRestartOrdered(0, 1))
    bundle = (spec("a", policy="restart", backoff=Backoff(500, 2.0, 3_000)),)
    trace = live(bundle, (fails, fails, STAYS, fails, STAYS), requests=(again,))
    assert times(trace, Spawn) == [0, 500, 1_500, 20_000, 20_500]


def test_a_requested_restart_takes_dependents_along() -> None:
    """A requested restart takes its dependents with it, without delay and without using the budget."""
    bundle = (spec("a", restart_dependents=True, restarts=Budget(0)), spec("b", after=("a",), restarts=Budget(0)))
    order_given = Request(2_000, happened.ChildRestartOrdered(0, 1))
    trace = live(bundle, STAYS, STAYS, requests=(order_given,))
    assert order(trace, SendSignal, TERM)[:2] == [1, 0]
    assert times(trace, Spawn) == [0, 0, 2_000, 2_000]
    assert code(trace) == 0


# Signals.


def forwards(trace: Trace) -> list[tuple[int, int, int]]:
    """What was forwarded: when, to which child, as which signal."""
    return [
        (step.now_ms, child, signal)
        for step in trace.steps
        for action in step.actions
        if isinstance(action, ForwardSignal)
        for child, _, signal in action.targets
    ]


def test_whom_a_signal_goes_to() -> None:
    """It goes to those that name it, as they name it, also to one that dies of it: the name is the consent."""
    bundle = (
        spec("a", signals=((USR1, HUP),)),
        spec("b", signals=((USR1, 0),)),
        spec("c"),
        spec("d", signals=((1, 1),)),
    )
    got = Request(1_000, happened.SignalReceived(USR1))
    trace = live(bundle, STAYS, STAYS, Life(catches=(USR1,)), STAYS, requests=(got,))
    assert forwards(trace) == [(1_000, 0, HUP)]
    assert code(trace) == 129


def test_a_signal_that_comes_too_early() -> None:
    """It is delivered once when the child is ready. Two for one signal are one, whatever they were when they came."""
    bundle = (spec("a", ready=Ready(TCP), signals=((HUP, HUP), (USR1, HUP), (28, 28))),)
    got = tuple(Request(at_ms, happened.SignalReceived(number)) for at_ms, number in ((10, HUP), (20, USR1), (30, 28)))
    trace = live(bundle, Life(ready_ms=1_000, catches=(HUP,)), requests=got)
    ready_ms = next(step.now_ms for step in trace.steps if step.state.children[0].fresh)
    assert ready_ms >= 1_000
    assert forwards(trace) == [(ready_ms, 0, HUP), (ready_ms, 0, 28)]


def test_a_signal_that_waits_ends_with_its_process() -> None:
    """The next process reads everything anew when it starts."""
    bundle = (spec("a", ready=Ready(TCP), policy="restart", signals=((HUP, HUP),)),)
    lives = (Life(run_ms=500, ready_ms=None, end=End(1)), STAYS)
    trace = live(bundle, lives, requests=(Request(10, happened.SignalReceived(HUP)),))
    assert forwards(trace) == []


def test_a_signal_still_reaches_a_child_that_drains() -> None:
    bundle = (spec("a", stop_delay_ms=1_000, signals=((HUP, HUP),)),)
    got = Request(2_500, happened.SignalReceived(HUP))
    trace = live(bundle, Life(catches=(HUP,)), requests=(got,), stop_at_ms=2_000)
    assert forwards(trace) == [(2_500, 0, HUP)]
    assert code(trace) == 0


def test_cont_goes_to_every_child() -> None:
    trace = live((spec("a"), spec("b")), STAYS, STAYS, requests=(Request(500, happened.SignalReceived(CONT)),))
    assert forwards(trace) == [(500, 0, CONT), (500, 1, CONT)]


@pytest.mark.parametrize(("after_ms", "code_of_two"), [(0, 0), (5, 0), (6, 137)])
def test_a_stop_signal_soon_after_the_first(after_ms: int, code_of_two: int) -> None:
    """Within 5 ms it is the same request."""
    again = Request(2_000 + after_ms, happened.SignalReceived(2))
    trace = live((spec("a"),), SLOW_TO_STOP, requests=(again,), stop_at_ms=2_000)
    assert code(trace) == code_of_two


def test_the_bundle_names_its_stop_signals() -> None:
    """What it leaves out is ignored, TERM too."""
    bundle = Bundle((spec("a"),), stop_signals=(37,))
    got = tuple(Request(at_ms, happened.SignalReceived(number)) for at_ms, number in ((500, TERM), (900, 37)))
    trace = live(bundle, STAYS, requests=got)
    assert times(trace, SendSignal, signal=TERM) == [900]


def test_a_forwarded_signal_is_the_inits_own_in_a_stop() -> None:
    got = Request(2_100, happened.SignalReceived(HUP))
    life = Life(catches=(HUP, TERM), heeds=(HUP,), stop_ms=500, stop_end=End(129))
    trace = live((spec("a", signals=((HUP, HUP),)),), life, requests=(got,), stop_at_ms=2_000)
    assert code(trace) == 0


def test_what_ctl_signal_sends_is_not_the_inits_own() -> None:
    by_ctl = Request(2_100, happened.ChildSignalOrdered(0, 11, 1))
    trace = live((spec("a"),), SLOW_TO_STOP, requests=(by_ctl,), stop_at_ms=2_000)
    assert code(trace) == 139


# What oneshots keep.

KEEPER = spec("a", ONESHOT, keeps=("net_admin",))


def test_what_a_oneshot_keeps_is_given_up() -> None:
    """Once all have succeeded that keep something, and before anything else starts."""
    children = (
        KEEPER,
        spec("b", ONESHOT, keeps=("sys_time", "net_admin")),
        spec("c", after=("a",)),
        spec("d", after=("b",)),
    )
    trace = live(children, Life(run_ms=100), Life(run_ms=300), STAYS, STAYS)
    assert times(trace, DropCapabilities) == [300]
    assert [times(trace, Spawn, child=child) for child in range(4)] == [[0], [0], [100], [300]]
    dropped = next(step for step in trace.steps if any(isinstance(action, DropCapabilities) for action in step.actions))
    assert dropped.actions[-1] == DropCapabilities(("net_admin", "sys_time"))


def test_what_the_kernel_does_not_take_stops_all() -> None:
    """Else whoever starts later would have what was kept from it."""
    trace = live((KEEPER, spec("b", after=("a",))), Life(run_ms=100), STAYS, drop_error="not permitted")
    assert times(trace, Spawn) == [0]
    assert code(trace) == 69
    assert trace.exit is not None
    assert trace.exit.stop.cause == "NET_ADMIN could not be given up: not permitted"


@pytest.mark.parametrize("order_given", [happened.ChildStartOrdered(0, 1), happened.ChildRestartOrdered(0, 1)])
def test_a_keeper_is_not_started_again(order_given: Event) -> None:
    trace = live((KEEPER, spec("b")), Life(run_ms=100), STAYS, requests=(Request(500, order_given),))
    answered = [action for step in trace.steps for action in step.actions if isinstance(action, Answer)]
    told = "a: cannot be started again: it has kept NET_ADMIN from all that start after it"
    assert answered == [Answer(1, False, told)]
    assert times(trace, Spawn, child=0) == [0]


# Lease.

PEER = Bundle((spec("a"), spec("b", after=("a",))), lease=Lease(connect="unix:/x"))


def test_children_wait_for_the_lease() -> None:
    trace = live(PEER, STAYS, STAYS, lease_ms=700)
    assert times(trace, Spawn) == [700, 700]
    assert code(trace) == 0


@pytest.mark.parametrize(
    ("lease_ms", "error", "ended_ms"), [(700, "refused", 700), (None, "", 5_000), (5_001, "", 5_000)]
)
def test_a_lease_that_cannot_be_had(lease_ms: int | None, error: str, ended_ms: int) -> None:
    """It is no request, and nothing is started."""
    trace = live(PEER, STAYS, STAYS, lease_ms=lease_ms, lease_error=error)
    assert times(trace, Spawn) == []
    assert (trace.end_ms, code(trace)) == (ended_ms, 69)
    assert trace.exit is not None
    why = error or "nobody has taken the connection for 5 seconds"
    assert trace.exit.stop.cause == f"the lease cannot be had: {why}"


def test_a_lapsed_lease_is_a_requested_stop() -> None:
    """A lease that is not renewed is a requested stop."""
    bundle = Bundle((spec("a"),), lease=Lease(renew_ms=5_000))
    trace = live(bundle, STAYS, requests=(Request(3_000, happened.LeaseRenewed(1)),))
    assert trace.end_ms == 8_000
    assert code(trace) == 0


# Health.

CHECKED = Check(TCP, interval_ms=1_000, timeout_ms=500, retries=3)


def test_the_course_of_health() -> None:
    """Health goes from starting to healthy to stopping."""
    trace = live((spec("a", ready=Ready(TCP)),), Life(ready_ms=1_000, catches=(TERM,), stop_ms=10))
    assert [word for _, word in answers(trace)] == ["starting", "healthy", "stopping"]


def test_a_failing_check_degrades_and_then_is_fatal() -> None:
    trace = live((spec("a", health=CHECKED),), Life(sick=((1_500, 5_500),)))
    assert answers(trace)[1:] == [
        (0, "healthy"),
        (2_000, "degraded"),
        (4_000, "unhealthy"),
        (6_000, "healthy"),
        (60_000, "stopping"),
    ]


def test_a_hung_check_fails_at_its_timeout() -> None:
    trace = live((spec("a", health=CHECKED),), Life(hangs=((1_000, 2_000),)))
    assert (1_500, "degraded") in answers(trace)


def test_failures_within_the_start_period_do_not_count() -> None:
    patient = CHECKED.replace(start_period_ms=10_000, retries=2)
    trace = live((spec("a", health=patient),), Life(sick=((0, 10_500),)))
    assert "unhealthy" not in [word for _, word in answers(trace)]


def test_a_success_ends_the_start_period() -> None:
    patient = CHECKED.replace(start_period_ms=10_000, retries=2)
    trace = live((spec("a", health=patient),), Life(sick=((2_500, 100_000),)))
    assert (4_000, "unhealthy") in answers(trace)


def test_a_restart_for_health_uses_the_budget() -> None:
    """A restart for health has its delay and uses the budget."""
    bundle = (spec("a", health=CHECKED, on_unhealthy="restart", restarts=Budget(1, 60_000)),)
    trace = live(bundle, Life(sick=((0, 100_000),)))
    assert times(trace, Spawn) == [0, 3_500]
    assert code(trace) == 69


def test_a_daemon_that_failed_for_good_is_unhealthy() -> None:
    """A daemon that ended for good without success is unhealthy."""
    bundle = (spec("a", policy="wait-for-all"), spec("b", policy="wait-for-all"))
    trace = live(bundle, Life(run_ms=1_000, end=End(1)), STAYS)
    assert (1_000, "unhealthy") in answers(trace)


def test_an_accepted_success_does_not_affect_health() -> None:
    """A daemon that ended with success, and whose policy accepts that, does not count for health."""
    bundle = (spec("a", policy="wait-for-all"), spec("b", policy="wait-for-all"))
    trace = live(bundle, Life(run_ms=1_000), STAYS)
    assert [word for _, word in answers(trace)] == ["starting", "healthy", "stopping"]


def test_a_restarting_daemon_degrades() -> None:
    trace = live((spec("a", policy="restart"),), (Life(run_ms=1_000, end=End(1)), STAYS))
    assert answers(trace)[2:4] == [(1_000, "degraded"), (1_500, "healthy")]


def test_a_watchdog_that_is_not_fed_is_unhealthy() -> None:
    fed = tuple(Say(at_ms, watchdog=True) for at_ms in range(1_000, 10_000, 1_000))
    trace = live((spec("a"),), Life(says=(Say(0, watchdog_ms=1_500), *fed)))
    assert (10_500, "unhealthy") in answers(trace)


@pytest.mark.parametrize("ill", [Say(200, watchdog_ms=2_300), Say(2_500, watchdog_trigger=True)])
def test_no_check_takes_back_the_watchdogs_word(ill: Say) -> None:
    """What the watchdog has said no check takes back."""
    trace = live((spec("a", health=CHECKED),), Life(says=(ill, Say(6_500, watchdog=True))))
    assert answers(trace)[1:4] == [(0, "healthy"), (2_500, "unhealthy"), (6_500, "healthy")]


def test_the_watchdog_takes_back_no_checks_word() -> None:
    """Nor does the watchdog take back what a check has said."""
    trace = live((spec("a", health=CHECKED),), Life(sick=((500, 5_500),), says=(Say(3_500, watchdog=True),)))
    assert answers(trace)[2:5] == [(1_000, "degraded"), (3_000, "unhealthy"), (6_000, "healthy")]


def test_the_job_ends_the_bundle() -> None:
    """The job ends the bundle, and its daemons are stopped."""
    trace = live((spec("a"), spec("tests", JOB, after=("a",))), SLOW_TO_STOP, Life(run_ms=500))
    assert trace.end_ms == 1_500
    assert code(trace) == 0


# Descriptors that run out, and users that appear late.


@pytest.mark.parametrize(("descriptors", "started"), [(7, 3), (6, 2), (4, 1), (2, 0)])
def test_descriptors_run_out(descriptors: int, started: int) -> None:
    """A start takes three, of which one comes back when the program is executed; without them it has failed."""
    trace = live((spec("a"), spec("b"), spec("c")), STAYS, STAYS, STAYS, descriptors=descriptors, stop_at_ms=2_000)
    assert len(trace.processes) == started
    assert code(trace) == (0 if started == 3 else 69)


def test_a_start_has_to_wait_too_long_for_a_descriptor() -> None:
    """The others take more than a second until their programs are executed."""
    slow = Life(exec_ms=1_001)
    trace = live((spec("a"), spec("b"), spec("c")), slow, slow, STAYS, descriptors=8, stop_at_ms=2_000)
    assert len(trace.processes) == 2
    assert code(trace) == 69


def test_a_restart_gets_freed_descriptors() -> None:
    dies = Life(run_ms=500, end=End(1), leaves=(Remnant(escapes=True, stop_ms=None),))
    trace = live((spec("a", policy="restart"), spec("b")), (dies, dies, STAYS), STAYS, descriptors=5, stop_at_ms=9_000)
    assert len(times(trace, Spawn, child=0)) == 3
    assert code(trace) == 0


@pytest.mark.parametrize(("end", "exit_code", "runs"), [(End(0), 0, True), (End(1), 1, False)])
def test_a_user_that_a_oneshot_makes(end: End, exit_code: int, *, runs: bool) -> None:
    """What runs after it never finds its user missing: it starts after the oneshot's success, or not at all."""
    children = (spec("setup", ONESHOT), spec("a", after=("setup",)))
    lives = (Life(run_ms=300, end=end, makes_user=True), Life(needs_user=True))
    trace = live(children, *lives, stop_at_ms=2_000)
    assert times(trace, Spawn, child=1) == ([300] if runs else [])
    assert code(trace) == exit_code


def test_a_user_that_is_still_unknown() -> None:
    """The oneshot has not made it: that is a death with 126."""
    children = (spec("setup", ONESHOT), spec("a", after=("setup",)))
    trace = live(children, Life(run_ms=300), Life(needs_user=True), stop_at_ms=2_000)
    assert code(trace) == 126
    assert trace.exit is not None
    assert trace.exit.stop.cause == "a exited with 126 (user app: unknown)"


# Frozen time.


def frozen_ms(trace: Trace) -> list[tuple[int, object]]:
    """When the init found that it had been frozen, and how late it was."""
    return [
        (step.now_ms, dict(action.facts)["for_ms"])
        for step in trace.steps
        for action in step.actions
        if isinstance(action, LogEvent) and action.event == "was_frozen"
    ]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("facts", "life", "for_ms"),
    [
        ({"ready": Ready(Probe("notify"), 1_000)}, lambda in_time_ms: Life(says=(Say(in_time_ms, ready=True),)), 5_000),
        ({"health": Check(TCP, 500, 600, 1, 0), "on_unhealthy": "stop"}, lambda _: Life(probe_ms=550), 1_700),
        ({"kind": JOB, "timeout_ms": 1_000}, lambda in_time_ms: Life(run_ms=in_time_ms), 5_000),
    ],
)
def test_a_freeze_is_nobodys_fault(
    facts: dict[str, Any], life: Callable[[int], Life], for_ms: int, *, whole: bool
) -> None:
    """From 600 ms on the init does not run. What it then finds overdue has its full time once more."""
    bundle = (spec("a", **facts), spec("b"))
    freezes = (Freeze(600, for_ms, whole),)
    in_time_ms = 900 if whole else 900 + for_ms
    trace = live(bundle, life(in_time_ms), STAYS, freezes=freezes, stop_at_ms=9_000)
    assert frozen_ms(trace)
    assert trace.exit is not None
    assert trace.exit.stop.cause in ("signal 15", "a exited with 0")
    assert code(trace) == 0


def test_a_daemon_that_was_frozen_feeds_its_watchdog() -> None:
    """Its next ping comes 200 ms after the freeze, well within its full time."""
    pings = tuple(Say(at_ms, watchdog=True) for at_ms in range(200, 9_000, 200))
    life = Life(says=(Say(0, watchdog_ms=600), *pings))
    trace = live((spec("a", on_unhealthy="stop"),), life, freezes=(Freeze(1_100, 4_000, True),), stop_at_ms=8_000)
    assert frozen_ms(trace) == [(5_100, 3_500)]
    assert code(trace) == 0


@pytest.mark.parametrize(("for_ms", "spared"), [(1_400, False), (1_401, True)])
def test_a_second_too_late_is_not_frozen(for_ms: int, *, spared: bool) -> None:
    """The init asked for 1,000 ms, and a wake-up up to a second later is judged as ever."""
    child = spec("a", ready=Ready(Probe("notify"), 1_000))
    trace = live((child,), Life(says=(Say(2_500, ready=True),)), freezes=(Freeze(600, for_ms),), stop_at_ms=9_000)
    assert code(trace) == (0 if spared else 69)


def test_a_stop_has_no_more_time_for_a_freeze() -> None:
    """SIGKILL comes as soon as the init runs again."""
    trace = live((spec("a"),), IGNORES_TERM, freezes=(Freeze(2_500, 60_000, True),), stop_at_ms=2_000)
    assert frozen_ms(trace) == [(62_500, 55_500)]
    assert times(trace, KillSession) == [62_500]


def test_a_renewed_lease_outlasts_a_freeze() -> None:
    renewals = tuple(Request(at_ms, happened.LeaseRenewed(at_ms)) for at_ms in (500, 6_400))
    bundle = Bundle((spec("a"),), lease=Lease(renew_ms=1_000))
    trace = live(bundle, STAYS, requests=renewals, freezes=(Freeze(600, 5_000),), stop_at_ms=7_000)
    assert frozen_ms(trace) == [(5_600, 4_100)]
    assert trace.end_ms == 7_000


# What may not be signalled.

REFUSES = Life(catches=(TERM,), stop_ms=None, refuses="all")


def all_answers(trace: Trace) -> list[tuple[int, bool, str]]:
    return [
        (action.request, action.done, action.text)
        for step in trace.steps
        for action in step.actions
        if isinstance(action, Answer)
    ]


def test_a_stop_that_reaches_nobody() -> None:
    """The child is given up at once, the next one gets its turn, and the report says why the child stays."""
    trace = live((spec("a"), spec("b", after=("a",))), STAYS, REFUSES, stop_at_ms=1_000)
    assert times(trace, KillSession, child=1) == [1_000]
    assert times(trace, SendSignal, child=0, signal=TERM) == [1_000]
    assert trace.end_ms == 1_000
    assert code(trace) == 137
    assert trace.exit is not None
    last = next(death for death in trace.exit.deaths if death.child == 1)
    assert (last.given_up, last.sent, last.forced) == (True, False, False)
    assert [(one.name, one.barred) for one in trace.exit.survivors] == [("b", "not permitted")]


def test_a_stop_signal_that_alone_is_refused() -> None:
    """A security module may let SIGKILL through; the child does not wait for its stop_timeout then."""
    life = Life(catches=(TERM,), stop_ms=None, refuses="stop")
    trace = live((spec("a"),), life, stop_at_ms=1_000)
    assert times(trace, KillSession) == [1_000]
    assert (trace.end_ms, code(trace)) == (1_000, 137)


@pytest.mark.parametrize(
    "order_given",
    [
        happened.ChildStopOrdered(0, 1),
        happened.ChildRestartOrdered(0, 1),
        happened.ChildSignalOrdered(0, USR1, 1),
    ],
)
def test_an_order_that_reaches_nobody(order_given: Event) -> None:
    """It is answered with the reason; the child goes on, and so does the bundle."""
    trace = live((spec("a"), spec("b")), REFUSES, STAYS, requests=(Request(500, order_given),), stop_at_ms=2_000)
    assert all_answers(trace) == [(1, False, "a: may not be signalled: not permitted")]
    assert times(trace, Spawn, child=0) == [0]
    assert times(trace, SendSignal, signal=TERM) == [2_000, 2_000]


def test_ready_while_an_order_is_refused() -> None:
    """The daemon says READY=1 once, between the order to stop it and the refusal: so it misses no deadline."""
    child = spec("a", ready=Ready(Probe("notify"), 1_000), stop_delay_ms=400)
    life = Life(refuses="stop", says=(Say(200, ready=True),))
    requests = (Request(100, happened.ChildStopOrdered(0, 1)),)
    trace = live((child, spec("b", after=("a",))), life, STAYS, requests=requests, stop_at_ms=5_000)
    assert times(trace, Spawn, child=1) == [500]
    assert trace.exit is not None
    assert trace.exit.stop.kind == "requested"


@pytest.mark.parametrize(("says", "health"), [((), "healthy"), ((Say(200, watchdog_trigger=True),), "unhealthy")])
def test_ill_while_an_order_is_refused(says: tuple[Say, ...], health: str) -> None:
    """The daemon says once that it is ill, while its stop_delay passes."""
    life = Life(refuses="stop", says=says)
    requests = (Request(100, happened.ChildStopOrdered(0, 1)),)
    trace = live((spec("a", stop_delay_ms=400),), life, requests=requests, stop_at_ms=5_000)
    before = next(step.state for step in trace.steps if step.now_ms == 500 and step.settled)
    assert status.health(before).health == health


def test_what_the_init_wants_to_end_and_may_not() -> None:
    """Outside a stop no policy can be had for it: that is a policy stop with 69."""
    check_it = Check(TCP, 1_000, 500, 1, 0)
    child = spec("a", health=check_it, on_unhealthy="restart", policy="restart")
    trace = live((child, spec("b")), Life(refuses="all", sick=((1_000, 9_999),)), STAYS, stop_at_ms=9_000)
    assert code(trace) == 69
    assert trace.exit is not None
    assert trace.exit.stop.cause == "a may not be signalled: not permitted"
    assert trace.exit.stop.kind == "policy"


def test_what_was_given_up_has_no_successor() -> None:
    """Two copies would run."""
    life = Life(catches=(TERM,), stop_ms=None, kill_ms=None)
    requests = (Request(500, happened.ChildStopOrdered(0, 1)), Request(8_000, happened.ChildStartOrdered(0, 2)))
    trace = live((spec("a"), spec("b")), life, STAYS, requests=requests, stop_at_ms=9_000)
    pid = next(process.pid for process in trace.processes if process.child == 0)
    assert all_answers(trace)[1] == (2, False, f"a: process {pid}, which could not be ended, still lives")
    assert times(trace, Spawn, child=0) == [0]


def test_what_was_given_up_and_ends_late_has_one() -> None:
    life = Life(catches=(TERM,), stop_ms=None, kill_ms=2_000)
    requests = (Request(500, happened.ChildStopOrdered(0, 1)), Request(8_000, happened.ChildStartOrdered(0, 2)))
    trace = live((spec("a"), spec("b")), (life, STAYS), STAYS, requests=requests, stop_at_ms=9_000)
    assert times(trace, Spawn, child=0) == [0, 8_000]


def test_a_restart_does_not_wait_for_the_unkillable() -> None:
    """What a child has left in its session, and the kernel lets nobody end, blocks nothing."""
    life = Life(run_ms=500, leaves=(Remnant(refuses=True),))
    trace = live((spec("a", policy="restart", backoff=Backoff(100, 2.0, 1_000)),), (life, STAYS), stop_at_ms=2_000)
    assert times(trace, Spawn) == [0, 600]
    assert trace.exit is not None
    assert [survivor.barred for survivor in trace.exit.survivors] == ["not permitted"]
