"""What the init tells: its log, its answers to an operator, the details of its health, the report's deaths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bottle_init.core import events as happened
from bottle_init.core import status
from bottle_init.core.actions import Answer, LogEvent
from bottle_init.core.spec import Bundle, Check, Lease, Probe, Ready, Spec
from bottle_init.core.state import Forwarded
from bottle_init.core.words import DAEMON, JOB, ONESHOT
from bottle_init.testing import End, Life, Request, Say, Scenario, Trace, check, render, simulate
from bottle_init.testing.scenario import Remnant

if TYPE_CHECKING:
    from bottle_init.core.events import Event

TERM = 15
TCP = Probe("tcp", port=1)
STAYS = (Life(),)
SLOW = (Life(catches=(TERM,), stop_ms=1_000),)
CHECKED = Check(TCP, interval_ms=1_000, timeout_ms=500, retries=2)


def spec(name: str, kind: str = DAEMON, **facts: object) -> Spec:
    return Spec(name, kind, (name,), **facts)  # type: ignore[arg-type]


def live(bundle: Bundle | tuple[Spec, ...], *lives: tuple[Life, ...], **facts: object) -> Trace:
    whole = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    trace = simulate(Scenario(whole, lives, **facts))  # type: ignore[arg-type]
    violations = check(trace)
    assert not violations, render(trace, violations)
    return trace


def told(trace: Trace, event: str, child: str = "a") -> list[tuple[str, dict[str, object]]]:
    """The level and the facts of each such record."""
    return [
        (action.level, {name: value for name, value in action.facts if value is not None})
        for step in trace.steps
        for action in step.actions
        if isinstance(action, LogEvent) and action.event == event and action.child == child
    ]


def answers(trace: Trace) -> list[tuple[int, bool, str]]:
    return [
        (action.request, action.done, action.text)
        for step in trace.steps
        for action in step.actions
        if isinstance(action, Answer)
    ]


def daemon_health(trace: Trace, at_ms: int) -> status.DaemonHealth:
    """The first daemon's part of the answer, as it was at a moment."""
    state = [step.state for step in trace.steps if step.now_ms <= at_ms][-1]
    return status.health(state).daemons[0]


# The log.


def test_a_death_is_told_with_all_that_is_known_of_it() -> None:
    trace = live((spec("a"),), (Life(run_ms=700, end=End(signal=9, oom=True)),))
    facts = {"pid": 2, "code": 137, "signal": 9, "severity": "crash", "oom": True}
    assert told(trace, "child_exited") == [("warning", facts)]


def test_a_clean_death_is_no_warning() -> None:
    trace = live((spec("a"),), STAYS)
    assert told(trace, "child_exited") == [("info", {"pid": 2, "code": 143, "signal": 15, "severity": "clean"})]


def test_a_death_that_was_ordered_is_no_warning() -> None:
    trace = live((spec("a"), spec("b")), STAYS, STAYS, requests=(Request(1_000, happened.ChildRestartOrdered(0, 1)),))
    assert [level for level, _ in told(trace, "child_exited")] == ["info", "info"]


def test_a_failed_exec_is_told_with_its_reason() -> None:
    trace = live((spec("a"),), (Life(exec_error=127),))
    facts = {"pid": 2, "code": 127, "severity": "failure", "detail": "command not found"}
    assert told(trace, "child_exited") == [("warning", facts)]


def test_a_restart_has_a_delay_and_a_number() -> None:
    """A restart is told with its delay and its number."""
    trace = live((spec("a", policy="restart"),), (Life(run_ms=10, end=End(1)), Life(run_ms=10, end=End(1)), Life()))
    assert told(trace, "child_restarting") == [
        ("warning", {"delay_ms": 500, "restart": 1}),
        ("warning", {"delay_ms": 1_000, "restart": 2}),
    ]
    assert told(trace, "child_started") == [
        ("info", {"pid": 2}),
        ("info", {"pid": 3, "restart": 1}),
        ("info", {"pid": 4, "restart": 2}),
    ]


def test_who_asked_for_a_stop_is_told() -> None:
    asked = Request(500, happened.SignalReceived(2, 77, 1000))
    trace = live((spec("a"),), STAYS, requests=(asked,))
    facts = {"kind": "requested", "cause": "signal 2", "sender_pid": 77, "sender_uid": 1000}
    assert told(trace, "stopping", "") == [("info", facts)]
    assert trace.exit is not None
    assert (trace.exit.stop.sender_pid, trace.exit.stop.sender_uid) == (77, 1000)


def test_a_signal_is_told_with_whom_it_went_to() -> None:
    named = ((1, 10),)
    children = (
        *(spec("a", signals=named), spec("b"), spec("c", signals=named, ready=Ready(TCP))),
        spec("d", policy="wait-for-all", signals=named),
    )
    got = Request(500, happened.SignalReceived(1, 77, 1000))
    trace = live(children, (Life(catches=(10,)),), STAYS, (Life(ready_ms=900),), (Life(run_ms=100),), requests=(got,))
    facts = {
        "signal": 1,
        "sender_pid": 77,
        "sender_uid": 1000,
        "sent_to": ("a",),
        "waiting": {"c": "not ready"},
        "passed_over": {"b": "not named", "d": "not running"},
    }
    assert told(trace, "signal_received", "")[0] == ("info", facts)
    assert told(trace, "signal_delivered", "c") == [("info", {"signal": 1, "sent": 10})]


def test_a_signal_that_nobody_gets_has_no_empty_key() -> None:
    """docs/events.md: a key whose value would be empty is left out."""
    got = Request(500, happened.SignalReceived(1, 77, 1000))
    _, facts = told(live((spec("a"),), STAYS, requests=(got,)), "signal_received", "")[0]
    assert facts == {"signal": 1, "sender_pid": 77, "sender_uid": 1000, "passed_over": {"a": "not named"}}


def test_every_other_signal_is_told_with_its_effect() -> None:
    got = [(100, 13), (200, 15), (203, 2), (900, 3)]
    requests = tuple(Request(at_ms, happened.SignalReceived(number)) for at_ms, number in got)
    trace = live((spec("a"),), (Life(catches=(15,), stop_ms=None),), requests=requests)
    effects = [(facts["signal"], facts["effect"]) for _, facts in told(trace, "signal_received", "")]
    assert effects == [
        *((13, "ignored"), (15, "stop requested"), (2, "the same request"), (3, "kills what is left")),
    ]


def test_a_death_by_a_forwarded_signal_has_its_sender() -> None:
    got = Request(500, happened.SignalReceived(10, 77, 1000))
    trace = live((spec("a", signals=((10, 1),)),), (Life(dies_ms=3),), requests=(got,))
    assert trace.exit is not None
    assert trace.exit.code == 129
    forwarded = trace.exit.deaths[0].forwarded
    assert forwarded == Forwarded(1, 10, 77, 1000, 500)
    assert (
        trace.exit.stop.cause == "a was killed by signal 1, which the init had forwarded for signal 10 from process 77"
    )


def test_a_missed_readiness_has_the_last_answer() -> None:
    """A missed readiness deadline is told with the last answer."""
    trace = live((spec("a", ready=Ready(TCP, 1_000)),), (Life(ready_ms=None),))
    assert told(trace, "not_ready") == [("error", {"last": "connection refused"})]


def test_a_job_out_of_time_is_told() -> None:
    trace = live((spec("a", JOB, timeout_ms=2_000),), STAYS)
    assert told(trace, "timed_out") == [("error", {"after_ms": 2_000})]


# The answers.

ORDERS: dict[str, tuple[tuple[Event, ...], list[tuple[int, bool, str]]]] = {
    "stop": ((happened.ChildStopOrdered(0, 1),), [(1, True, "a: stopping")]),
    "stop twice": (
        (happened.ChildStopOrdered(0, 1), happened.ChildStopOrdered(0, 2)),
        [(1, True, "a: stopping"), (2, True, "a: not running")],
    ),
    "start what runs": ((happened.ChildStartOrdered(0, 1),), [(1, True, "a: already started")]),
    "restart": ((happened.ChildRestartOrdered(0, 1),), [(1, True, "a: restarting")]),
    "signal": ((happened.ChildSignalOrdered(0, 18, 1),), [(1, True, "a: sent signal 18")]),
    "signal what does not run": (
        (happened.ChildStopOrdered(0, 1), happened.ChildSignalOrdered(0, 18, 2)),
        [(1, True, "a: stopping"), (2, False, "a: not running")],
    ),
    "stop the bundle": ((happened.StopOrdered(1),), [(1, True, "stopping")]),
    "renew no lease": ((happened.LeaseRenewed(1),), [(1, False, "this bundle has no lease to renew")]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_is_answered(name: str) -> None:
    orders, expected = ORDERS[name]
    requests = tuple(Request(1_000 * number, event) for number, event in enumerate(orders, 1))
    assert answers(live((spec("a"), spec("b")), STAYS, STAYS, requests=requests)) == expected


def test_an_order_during_a_stop_is_refused() -> None:
    late = Request(60_500, happened.ChildRestartOrdered(0, 1))
    assert answers(live((spec("a"),), SLOW, requests=(late,))) == [(1, False, "the bundle is stopping")]


def test_a_renewal_is_answered() -> None:
    trace = live(
        Bundle((spec("a"),), lease=Lease(renew_ms=9_000)), STAYS, requests=(Request(1, happened.LeaseRenewed(3)),)
    )
    assert answers(trace) == [(3, True, "renewed")]


# The details of health.


def test_a_check_is_told_with_its_times() -> None:
    trace = live((spec("a", health=CHECKED),), (Life(sick=((2_500, 5_500),)),))
    good, bad, fatal = (daemon_health(trace, at_ms) for at_ms in (2_000, 3_000, 4_000))
    assert (good.check, good.check_at_ms, good.check_since_ms, good.detail) == (True, 2_000, 1_000, "")
    assert (bad.check, bad.check_at_ms, bad.check_since_ms, bad.detail) == (False, 3_000, 3_000, "connection refused")
    assert (fatal.check_at_ms, fatal.check_since_ms, fatal.health) == (4_000, 3_000, "unhealthy")


def test_the_answer_is_of_the_current_start() -> None:
    """The answer is never older than the daemon's current start."""
    restart = Request(1_500, happened.ChildRestartOrdered(0, 1))
    trace = live((spec("a", health=CHECKED),), STAYS, requests=(restart,))
    old, new = daemon_health(trace, 1_400), daemon_health(trace, 1_600)
    assert (old.generation, old.check) == (1, True)
    assert (new.generation, new.check, new.check_at_ms) == (2, None, None)
    assert new.since_ms == 1_500


def test_what_a_daemon_says_of_itself_is_told() -> None:
    trace = live((spec("a"),), (Life(says=(Say(100, status="warming up"), Say(200, watchdog=True))),))
    assert daemon_health(trace, 300).detail == "warming up"


def test_what_it_says_while_it_stops_is_told() -> None:
    """What a daemon says while it is being stopped is told. That is when sd_notify(3) has it say STOPPING=1."""
    says = (Say(100, status="serving"), Say(1_100, stopping=True, status="draining"))
    trace = live((spec("a"),), (Life(catches=(TERM,), stop_ms=500, says=says),), stop_at_ms=1_000)
    assert daemon_health(trace, 1_050).detail == "serving"
    assert daemon_health(trace, 1_200).detail == "draining"
    assert told(trace, "child_says_stopping") == [("info", {})]


def test_why_unhealthy_beside_a_passing_check() -> None:
    """Why a daemon is unhealthy is told even beside a check that passes."""
    trace = live((spec("a", health=CHECKED),), (Life(says=(Say(200, watchdog_ms=1_500),)),))
    ill = daemon_health(trace, 3_000)
    assert (ill.health, ill.check, ill.detail) == ("unhealthy", True, "no WATCHDOG=1 for 1500 ms")


def test_how_many_checks_have_failed_is_told() -> None:
    """Of a daemon's own word there is nothing to count."""
    trace = live((spec("a", health=CHECKED),), (Life(sick=((100, 99_000),)),), stop_at_ms=9_000)
    assert told(trace, "child_unhealthy") == [
        ("error", {"failures": 2, "reason": "connection refused", "action": "ignore"})
    ]
    trace = live((spec("a"),), (Life(says=(Say(200, watchdog_trigger=True),)),))
    assert [facts.get("failures") for _, facts in told(trace, "child_unhealthy")] == [None]


def test_a_reload_is_told() -> None:
    trace = live((spec("a"),), (Life(says=(Say(100, reloading=True), Say(200, ready=True))),))
    assert len(told(trace, "child_reloading")) == len(told(trace, "child_reloaded")) == 1


# The deaths of the report.


def test_the_report_has_senders_and_times() -> None:
    """The report has who sent what and how long it took."""
    deaf = (Life(catches=(TERM,), stop_ms=None),)
    trace = live((spec("a"), spec("b", stop_timeout_ms=2_000)), SLOW, deaf, stop_at_ms=3_000)
    assert trace.exit is not None
    slow, killed = trace.exit.deaths
    assert (slow.sent, slow.forced, slow.stop_ms, slow.ran_ms, slow.stopping) == (False, False, 1_000, 4_000, True)
    assert (killed.sent, killed.forced, killed.stop_ms, killed.signal) == (True, True, 2_000, 9)


def test_the_report_names_the_culprit() -> None:
    trace = live((spec("a"), spec("b")), SLOW, (Life(run_ms=500, end=End(4)),))
    assert trace.exit is not None
    assert (trace.exit.stop.culprit, trace.exit.stop.cause) == ("b", "b exited with 4")


# What the cause tells (contract 7).

NEVER = (Life(ready_ms=None),)
PROBED = Ready(TCP, timeout_ms=1_000)
FAILED_CHECKS = "2 checks in a row have failed, the last answer to its tcp probe was: connection refused"
SPENT = "a used up its restarts (5 within 60 s)"


@pytest.mark.parametrize(
    ("child", "lives", "cause"),
    [
        (
            spec("a", ready=PROBED),
            NEVER,
            "a was not ready within 1 s: the last answer to its tcp probe was: connection refused",
        ),
        (
            spec("a", ready=PROBED),
            (Life(hangs=((0, 9_000),)),),
            "a was not ready within 1 s: the last answer to its tcp probe was: none yet",
        ),
        (
            spec("a", ready=Ready(Probe("notify"), timeout_ms=1_500)),
            NEVER,
            "a was not ready within 1.5 s: it had not said READY=1",
        ),
        (
            spec("a", ready=PROBED, policy="restart"),
            NEVER * 9,
            f"{SPENT}: was not ready within 1 s: the last answer to its tcp probe was: connection refused",
        ),
        (
            spec("a", health=CHECKED, on_unhealthy="stop"),
            (Life(sick=((100, 99_000),)),),
            f"a is unhealthy: {FAILED_CHECKS}",
        ),
        (
            spec("a", health=CHECKED.replace(retries=1), on_unhealthy="stop"),
            (Life(sick=((100, 99_000),)),),
            "a is unhealthy: a check has failed, the last answer to its tcp probe was: connection refused",
        ),
        (
            spec("a", health=CHECKED, on_unhealthy="stop"),
            (Life(says=(Say(200, watchdog_trigger=True),)),),
            "a is unhealthy: the daemon said WATCHDOG=trigger",
        ),
        (
            spec("a", health=CHECKED, on_unhealthy="restart"),
            (Life(sick=((100, 99_000),)),) * 9,
            f"{SPENT}: was unhealthy: {FAILED_CHECKS}",
        ),
        (
            spec("a", policy="restart"),
            (Life(run_ms=9, end=End(3)),) * 9,
            f"{SPENT}: exited with 3",
        ),
        (spec("a", ONESHOT), (Life(run_ms=9, end=End(3)),), "a exited with 3"),
        (spec("a", ONESHOT, timeout_ms=300), STAYS, "a ran longer than its timeout of 300 ms"),
        (
            spec("a", JOB, timeout_ms=300, stop_timeout_ms=100),
            (Life(catches=(TERM,), stop_ms=None),),
            "a ran longer than its timeout of 300 ms and had to be killed",
        ),
        (
            spec("a", ONESHOT, timeout_ms=300),
            (Life(catches=(TERM,), stop_ms=5, stop_end=End(0)),),
            "a ran longer than its timeout of 300 ms",
        ),
        (spec("a"), (Life(fork_error="no memory"),), "a could not be started: no memory"),
    ],
)
def test_the_cause_tells_what_is_known(child: Spec, lives: tuple[Life, ...], cause: str) -> None:
    """And names the child as the culprit, so that its last lines are in the report. The ledger checks the culprit."""
    trace = live((child, spec("b")), lives, STAYS)
    assert trace.exit is not None
    assert (trace.exit.stop.cause, trace.exit.stop.culprit) == (cause, "a")


def test_one_that_others_wait_for() -> None:
    waiting = spec("b", after=("a",))
    gone = spec("a", ready=PROBED, policy="exit-on-child-failure")
    trace = live((gone, waiting), (Life(ready_ms=None, run_ms=500),), STAYS)
    assert trace.exit is not None
    assert trace.exit.stop.cause == "a exited with 0 before it was ready, and others wait for it"


SEEMS = "a seems to have gone into the background: it ended with success and left processes behind (remnant"


@pytest.mark.parametrize("policy", ["exit-on-child-death", "restart", "wait-for-all"])
@pytest.mark.parametrize("escapes", [False, True])
def test_a_daemon_that_goes_into_the_background(policy: str, escapes: bool) -> None:
    """What it left behind is seen in the stop, and the hint says so; the ledger allows it nowhere else."""
    left = Remnant(escapes=escapes, adopted=escapes, stop_ms=50)
    trace = live((spec("a", policy=policy),), (Life(run_ms=500, leaves=(left,)),) * 9)
    assert trace.exit is not None
    if policy == "restart" and not escapes:
        assert trace.exit.stop.culprit == "a"
    else:
        assert trace.exit.hint.startswith(SEEMS)


def test_no_hint_without_a_reason() -> None:
    """One that fails, or that was asked to end, has not gone into the background; nor has one that leaves nothing."""
    left = (Remnant(stop_ms=50),)
    for lives, facts in (
        ((Life(run_ms=500, end=End(1), leaves=left),), {}),
        ((Life(catches=(TERM,), leaves=left),), {"stop_at_ms": 900}),
        ((Life(run_ms=500),), {}),
    ):
        trace = live((spec("a"),), lives, **facts)
        assert trace.exit is not None
        assert not trace.exit.hint
