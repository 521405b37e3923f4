"""The negative control: the core is broken on purpose, once for each invariant, and each has to notice.

A mutant is a function of the core, replaced. The core's own invariants are off, so that it is the
harness that is tried here. A promise whose mutant lives has no test.
"""

from __future__ import annotations

import sys
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import pytest

from bottle_init.core import (
    backoff,
    control,
    dying,
    ending,
    flow,
    forwarding,
    frozen,
    health,
    invariants,
    judging,
    keeping,
    policies,
    refusing,
    signals,
    starting,
    state,
    status,
    stopping,
    supervisor,
    telling,
    verdict,
)
from bottle_init.core.actions import DropCapabilities, SendSignal
from bottle_init.core.events import ProbeDue, StopTimeoutPassed, SurvivorEnded
from bottle_init.core.transitions import TABLE, Row
from bottle_init.core.words import EX_UNAVAILABLE, GOING_DOWN, HALT_REQUEST, NATURAL, NEXT_START, REQUESTED, UP, WAITING
from bottle_init.testing import INVARIANTS, check, ledger, scenario_of, simulate, small_worlds
from bottle_init.testing.small import corners
from bottle_init.testing.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.core.events import Event
    from bottle_init.core.spec import Spec
    from bottle_init.core.state import Child, Survivor
    from bottle_init.core.turn import Turn

RUNS = 40_000
"""So many random lives at most are tried on a mutant, after a part of the small worlds."""


class Surgeon:
    """Replaces functions of the core wherever they are known by name, the table included."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def replace(self, old: Callable[..., Any], new: Callable[..., Any]) -> None:
        """Put `new` in the place of `old`, in every module and every row."""
        for name, module in list(sys.modules.items()):
            if name.startswith("bottle_init.core"):
                for attribute, value in list(vars(module).items()):
                    if value is old:
                        self._patch.setattr(module, attribute, new)
        for cells in TABLE.values():
            for event, cell in cells.items():
                if isinstance(cell, Row) and cell.rule is old:
                    self._patch.setitem(cells, event, Row(new, cell.to))

    def set(self, owner: object, name: str, value: object) -> None:
        """Replace one attribute."""
        self._patch.setattr(owner, name, value)


MUTANTS: dict[str, Callable[[Surgeon], None]] = {}


def mutant(invariant: str) -> Callable[[Callable[[Surgeon], None]], Callable[[Surgeon], None]]:
    def register(cut: Callable[[Surgeon], None]) -> Callable[[Surgeon], None]:
        MUTANTS[f"{invariant}: {cut.__name__}"] = cut
        return cut

    return register


def nothing(*_: object, **__: object) -> None:
    """Do nothing at all."""


@mutant("exit-code")
def the_mildest_death_counts(surgeon: Surgeon) -> None:
    surgeon.replace(verdict.worst, lambda deaths: max(deaths, key=verdict.rank, default=None))


@mutant("exit-code")
def every_term_is_taken_for_the_inits_own(surgeon: Surgeon) -> None:
    whole = verdict.severity_of

    def severity_of(spec: object, code: int, signal: int, **facts: Any) -> int:
        return whole(spec, code, signal, **{**facts, "sent": 1 << 15})  # type: ignore[arg-type]

    surgeon.replace(whole, severity_of)


@mutant("exit-code")
def the_kernel_s_order_chooses_the_cause(surgeon: Surgeon) -> None:
    surgeon.replace(verdict.rank, lambda death: (0, -death.child))


@mutant("exit-code")
def exit_code_from_is_ignored(surgeon: Surgeon) -> None:
    whole = verdict.exit_code
    surgeon.replace(whole, lambda stop, children, _: whole(stop, children, None))


@mutant("first-cause")
def a_crash_is_a_failure_like_any_other(surgeon: Surgeon) -> None:
    whole = policies.answer
    surgeon.set(policies, "answer", lambda policy, *, success, crash: whole(policy, success=success, crash=False))  # noqa: ARG005


@mutant("zero")
def a_stop_is_always_a_success(surgeon: Surgeon) -> None:
    surgeon.replace(verdict.exit_code, lambda *_: 0)


@mutant("first-cause")
def the_last_cause_wins(surgeon: Surgeon) -> None:
    whole = stopping.begin_stop

    def begin_stop(turn: Turn, kind: str, cause: str, code: int | None = None, *rest: Any) -> None:
        stop = turn.state.stop
        if stop is None:
            whole(turn, kind, cause, code, *rest)
        else:
            turn.state.stop = stop.replace(kind=kind, cause=cause, code=code)

    surgeon.replace(whole, begin_stop)


@mutant("no-start-in-stop")
def a_stop_does_not_keep_what_waits_from_starting(surgeon: Surgeon) -> None:
    whole = supervisor._advance

    def advance(turn: Turn) -> None:
        whole(turn)
        if turn.state.phase == GOING_DOWN:
            supervisor._start_ready(turn)

    surgeon.replace(stopping.stand_down, nothing)
    surgeon.replace(whole, advance)


@mutant("start-order")
def nobody_waits_for_readiness(surgeon: Surgeon) -> None:
    surgeon.replace(starting.may_start, lambda _, __: True)


@mutant("starts-at-once")
def one_start_at_a_time(surgeon: Surgeon) -> None:
    whole = starting.may_start

    def may_start(turn: Turn, child: Child) -> bool:
        return whole(turn, child) and not any(other.status == "starting" for other in turn.children)

    surgeon.replace(whole, may_start)


@mutant("first-cause")
def what_waits_does_not_keep_the_bundle(surgeon: Surgeon) -> None:
    def end_naturally(turn: Turn) -> None:
        if all(child.status in ("waiting", "stopped", "ended") for child in turn.children):
            stopping.begin_stop(turn, NATURAL, "no child is left")

    surgeon.replace(supervisor._end_naturally, end_naturally)


@mutant("health")
def a_watchdog_cannot_be_switched_off(surgeon: Surgeon) -> None:
    whole = health._arm_watchdog

    def arm(turn: Turn, child: Child, event: Any) -> None:
        if event.watchdog_ms != 0:
            whole(turn, child, event)

    surgeon.replace(whole, arm)


@mutant("backoff")
def half_the_pause(surgeon: Surgeon) -> None:
    whole = backoff.delay_ms
    surgeon.replace(whole, lambda spec, restarts: whole(spec, restarts) // 2)


@mutant("on-time")
def a_pause_of_a_second_more(surgeon: Surgeon) -> None:
    whole = backoff.delay_ms
    surgeon.replace(whole, lambda spec, restarts: whole(spec, restarts) + 1_000)


@mutant("on-time")
def the_count_of_restarts_never_begins_anew(surgeon: Surgeon) -> None:
    surgeon.replace(backoff.is_steady, lambda _, __: False)


@mutant("no-start-in-stop")
def a_budget_without_bounds(surgeon: Surgeon) -> None:
    surgeon.replace(backoff.is_spent, lambda *_: False)


@mutant("unwanted-start")
def what_was_stopped_by_request_comes_back(surgeon: Surgeon) -> None:
    whole = judging.answer

    def answer(turn: Turn, child: Child) -> judging.Trigger | None:
        asked = child.halt == HALT_REQUEST and turn.state.phase == UP
        found = whole(turn, child)
        if asked:
            child.next = NEXT_START
        return found

    surgeon.replace(whole, answer)


@mutant("clean-start")
def a_restart_does_not_look_for_the_session(surgeon: Surgeon) -> None:
    def clear_or_end(turn: Turn, child: Child, event: Event) -> None:  # noqa: ARG001
        dying.settle(turn, child)

    surgeon.replace(dying.clear_or_end, clear_or_end)


@mutant("vain-wait")
def nobody_is_awaited(surgeon: Surgeon) -> None:
    """The ledger is blinded as well: this fault must be noticed from the waiting child's side."""
    surgeon.replace(judging.is_awaited, lambda _, __: False)
    surgeon.set(ledger.Ledger, "_is_awaited", lambda _, __: False)


@mutant("stop-order")
def all_are_stopped_at_once(surgeon: Surgeon) -> None:
    surgeon.replace(stopping.may_stop, lambda _, __: True)


@mutant("stops-at-once")
def one_after_the_other(surgeon: Surgeon) -> None:
    whole = stopping.may_stop

    def may_stop(turn: Turn, index: int) -> bool:
        return whole(turn, index) and not any(child.status == "stopping" for child in turn.children)

    surgeon.replace(whole, may_stop)


@mutant("stop-delay")
def no_delay(surgeon: Surgeon) -> None:
    surgeon.replace(stopping.stop_when_drained, lambda turn, child, _: stopping.send_stop(turn, child))


@mutant("stop-signal")
def no_cont(surgeon: Surgeon) -> None:
    whole = stopping.send_stop

    def send_stop(turn: Turn, child: Child) -> None:
        whole(turn, child)
        turn.actions.remove(SendSignal(child.index, child.generation, signals.CONT))

    surgeon.replace(whole, send_stop)


@mutant("unasked-stop")
def every_restart_takes_its_dependents_along(surgeon: Surgeon) -> None:
    whole = judging.rest_for_one

    def rest_for_one(turn: Turn, child: Child) -> None:
        true, child.spec = child.spec, child.spec.replace(restart_dependents=True)
        whole(turn, child)
        child.spec = true

    surgeon.replace(whole, rest_for_one)


@mutant("kill-time")
def an_early_kill(surgeon: Surgeon) -> None:
    whole = stopping.send_stop

    def send_stop(turn: Turn, child: Child) -> None:
        whole(turn, child)
        turn.set_timer(child, StopTimeoutPassed, child.spec.stop_timeout_ms // 2)

    surgeon.replace(whole, send_stop)


@mutant("kill-time")
def sessions_are_killed_and_never_asked(surgeon: Surgeon) -> None:
    whole = dying.clear

    def clear(turn: Turn, child: Child, event: Event) -> None:
        turn.move(child, "clearing")
        dying.clear_by_force(turn, child, event)

    surgeon.replace(whole, clear)


@mutant("stop-order")
def the_session_of_what_ended_before_is_not_waited_for(surgeon: Surgeon) -> None:
    def may_stop(turn: Turn, index: int) -> bool:
        dependents = [turn.children[other] for other in turn.state.dependents[index]]
        return all(stopping.is_down(other) for other in dependents if other.halt or turn.state.phase != UP)

    surgeon.replace(stopping.may_stop, may_stop)


@mutant("on-time")
def no_kill_but_at_the_deadline(surgeon: Surgeon) -> None:
    whole = stopping.send_stop

    def send_stop(turn: Turn, child: Child) -> None:
        whole(turn, child)
        turn.drop_timers(child, StopTimeoutPassed)

    surgeon.replace(whole, send_stop)


@mutant("second-signal")
def the_second_signal_is_lost(surgeon: Surgeon) -> None:
    whole = supervisor._stop_signal

    def stop_signal(turn: Turn, event: Any, *, again: bool) -> None:
        whole(turn, event, again=again or turn.state.stop_signals > 0)

    surgeon.replace(whole, stop_signal)


@mutant("deadline")
def the_deadline_is_let_pass(surgeon: Surgeon) -> None:
    surgeon.replace(supervisor._fire_bundle_timers, nothing)


@mutant("ends-at-once")
def nobody_looks_again(surgeon: Surgeon) -> None:
    surgeon.replace(ending.look_again, nothing)


@mutant("whole-tree")
def what_escaped_is_left_behind(surgeon: Surgeon) -> None:
    def end_when_gone(turn: Turn) -> None:
        if all(stopping.is_down(child) and stopping.is_cleared(child) for child in turn.children):
            ending.finish(turn)

    surgeon.replace(ending.end_when_gone, end_when_gone)


@mutant("readiness")
def the_first_probe_is_not_made(surgeon: Surgeon) -> None:
    def executed(turn: Turn, child: Child, event: Event) -> None:
        child.executed = True
        if child.spec.ready is None and not child.halt:
            starting.become_ready(turn, child)
        del event

    surgeon.replace(starting.executed, executed)


@mutant("start-order")
def a_daemon_is_ready_before_it_has_run_that_long(surgeon: Surgeon) -> None:
    whole = starting.executed

    def executed(turn: Turn, child: Child, event: Event) -> None:
        whole(turn, child, event)
        if ProbeDue in child.timers:
            child.timers[ProbeDue] = turn.now_ms

    surgeon.replace(whole, executed)


@mutant("unwanted-start")
def what_is_disabled_is_started(surgeon: Surgeon) -> None:
    whole = state.Child.__init__

    def init(child: Child, index: int, spec: Spec, now_ms: int) -> None:
        whole(child, index, spec, now_ms)
        child.status = WAITING

    surgeon.set(state.Child, "__init__", init)


@mutant("starts-at-once")
def what_is_disabled_is_waited_for(surgeon: Surgeon) -> None:
    whole = state.Child.__init__

    def init(child: Child, index: int, spec: Spec, now_ms: int) -> None:
        whole(child, index, spec, now_ms)
        child.ready = False

    surgeon.set(state.Child, "__init__", init)


@mutant("health")
def what_is_disabled_counts(surgeon: Surgeon) -> None:
    surgeon.replace(status.is_disabled, lambda _: False)


@mutant("on-time")
def the_pauses_of_the_probes_grow_without_bounds(surgeon: Surgeon) -> None:
    surgeon.set(starting, "LONGEST_PAUSE_MS", 10_000)


@mutant("health")
def a_failing_check_is_not_told(surgeon: Surgeon) -> None:
    whole = status._judge

    def judge(child: Child) -> str:
        found = whole(child)
        return status.HEALTHY if found == status.DEGRADED else found

    surgeon.replace(whole, judge)


@mutant("health")
def the_bad_checks_of_the_start_period_count(surgeon: Surgeon) -> None:
    whole = health.fail_check

    def fail_check(turn: Turn, child: Child, event: Event) -> None:
        child.check_has_passed = True
        whole(turn, child, event)

    surgeon.replace(whole, fail_check)


@mutant("check-time")
def checks_come_twice_as_often(surgeon: Surgeon) -> None:
    whole = health._check_again

    def check_again(turn: Turn, child: Child) -> None:
        whole(turn, child)
        for timer, at_ms in list(child.timers.items()):
            if timer.__name__ == "ProbeDue":
                child.timers[timer] = turn.now_ms + (at_ms - turn.now_ms) // 2

    surgeon.replace(whole, check_again)


@mutant("forwarding")
def nothing_is_rewritten(surgeon: Surgeon) -> None:
    surgeon.replace(signals.for_child, lambda rules, signal: signal if dict(rules).get(signal) else 0)


@mutant("forwarding")
def silence_is_consent(surgeon: Surgeon) -> None:
    whole = signals.for_child
    surgeon.replace(whole, lambda rules, signal: whole(rules, signal) if signal in dict(rules) else signal)


@mutant("forwarding")
def nobody_is_waited_for_with_a_signal(surgeon: Surgeon) -> None:
    surgeon.replace(forwarding.keep, nothing)


@mutant("forwarding")
def what_waits_is_never_delivered(surgeon: Surgeon) -> None:
    surgeon.replace(forwarding.deliver, nothing)


@mutant("kill-time")
def two_kills_in_a_row_are_two_requests(surgeon: Surgeon) -> None:
    surgeon.replace(supervisor._is_same_request, lambda _: False)


@mutant("signals-told")
def a_signal_is_no_event(surgeon: Surgeon) -> None:
    surgeon.replace(forwarding.log_received, nothing)


@mutant("signals-told")
def what_is_dropped_is_dropped_in_silence(surgeon: Surgeon) -> None:
    def drop(_: Turn, child: Child) -> None:
        child.waiting_signals = ()

    surgeon.replace(forwarding.drop, drop)


@mutant("asked-first")
def what_is_forked_after_the_first_look_is_forgotten(surgeon: Surgeon) -> None:
    surgeon.replace(ending.look_again, nothing)


@mutant("stops-at-once")
def only_what_the_init_reaps_ends(surgeon: Surgeon) -> None:
    whole = supervisor._observe

    def observe(turn: Turn, event: Event) -> None:
        if not isinstance(event, SurvivorEnded):
            whole(turn, event)

    surgeon.replace(whole, observe)


@mutant("lease")
def nobody_waits_for_the_lease(surgeon: Surgeon) -> None:
    whole = starting.may_start

    def may_start(turn: Turn, child: Child) -> bool:
        due_ms, turn.state.lease_due_ms = turn.state.lease_due_ms, None
        found = whole(turn, child)
        turn.state.lease_due_ms = due_ms
        return found

    surgeon.replace(whole, may_start)


@mutant("first-cause")
def a_lease_that_cannot_be_had_is_a_wish(surgeon: Surgeon) -> None:
    def lose(turn: Turn, event: Any) -> None:
        stopping.begin_stop(turn, REQUESTED, event.reason)

    surgeon.replace(supervisor._lose_lease, lose)


@mutant("kept")
def the_init_keeps_what_was_kept_from_all_others(surgeon: Surgeon) -> None:
    surgeon.replace(keeping.drop_when_done, nothing)


@mutant("kept")
def the_first_that_succeeds_is_enough(surgeon: Surgeon) -> None:
    def drop(turn: Turn) -> None:
        state = turn.state
        if not state.dropping and not state.dropped and any(turn.children[index].ever_ready for index in state.keepers):
            state.dropping = True
            turn.act(DropCapabilities(keeping.kept(state)))

    surgeon.replace(keeping.drop_when_done, drop)


@mutant("kept")
def nobody_waits_for_the_init_to_give_it_up(surgeon: Surgeon) -> None:
    whole = starting.may_start

    def may_start(turn: Turn, child: Child) -> bool:
        turn.state.dropping = False
        return whole(turn, child)

    surgeon.replace(whole, may_start)


@mutant("starts-at-once")
def what_was_said_before_a_refusal_is_forgotten(surgeon: Surgeon) -> None:
    surgeon.replace(starting._keep_said, nothing)


@mutant("frozen")
def who_was_frozen_is_judged(surgeon: Surgeon) -> None:
    surgeon.set(frozen, "_FULL_MS", {})


@mutant("frozen")
def a_frozen_lease_is_over(surgeon: Surgeon) -> None:
    whole = frozen.thaw

    def thaw(turn: Turn, late_ms: int) -> None:
        times = turn.state.lease_at_ms, turn.state.lease_due_ms
        whole(turn, late_ms)
        turn.state.lease_at_ms, turn.state.lease_due_ms = times

    surgeon.replace(whole, thaw)


@mutant("frozen")
def half_a_second_is_frozen(surgeon: Surgeon) -> None:
    surgeon.set(frozen, "FROZEN_MS", 500)


@mutant("frozen")
def frozen_time_is_not_told(surgeon: Surgeon) -> None:
    surgeon.replace(frozen.thaw, nothing)


@mutant("kill-time")
def a_freeze_gives_a_stop_more_time(surgeon: Surgeon) -> None:
    full_ms = {**frozen._FULL_MS, StopTimeoutPassed: lambda child: child.spec.stop_timeout_ms}
    surgeon.set(frozen, "_FULL_MS", full_ms)


@mutant("refusals")
def a_refused_stop_signal_is_taken_for_sent(surgeon: Surgeon) -> None:
    surgeon.replace(refusing.refused, refusing.refused_too)


@mutant("refusals")
def a_refused_sigkill_is_taken_for_sent(surgeon: Surgeon) -> None:
    surgeon.replace(stopping.session_killed, nothing)


@mutant("one-copy")
def what_was_given_up_has_a_successor(surgeon: Surgeon) -> None:
    whole = control._may_start

    def may_start(turn: Turn, child: Child, event: Any) -> bool:
        child.ghost_pid = 0
        return whole(turn, child, event)

    surgeon.replace(whole, may_start)


@mutant("exit-code")
def a_death_that_the_init_asked_for_is_a_crash(surgeon: Surgeon) -> None:
    whole = verdict.severity_of

    def severity_of(*facts: Any, asked: bool, **more: Any) -> int:
        return whole(*facts, asked=asked and not facts[2], **more)

    surgeon.replace(whole, severity_of)


@mutant("answers")
def orders_are_carried_out_in_silence(surgeon: Surgeon) -> None:
    surgeon.replace(control._done, nothing)


@mutant("report")
def who_was_not_ready_is_not_named(surgeon: Surgeon) -> None:
    whole = stopping.begin_stop

    def begin_stop(turn: Turn, kind: str, cause: str, code: int | None = None, *rest: Any) -> None:
        whole(turn, kind, cause, code, *(("", *rest[1:]) if rest and "not ready" in cause else rest))

    surgeon.replace(whole, begin_stop)


@mutant("report")
def whatever_is_left_behind_gives_a_hint(surgeon: Surgeon) -> None:
    whole = telling.hint
    surgeon.set(telling, "hint", lambda stop, told, left: whole(stop, told, left) or "perhaps" * bool(left))


@mutant("report")
def survivors_are_not_named(surgeon: Surgeon) -> None:
    surgeon.replace(dying.note_survivors, nothing)


@mutant("report")
def a_pid_is_one_process_for_ever(surgeon: Surgeon) -> None:
    whole = dying.note_survivors

    def note_survivors(turn: Turn, found: tuple[Survivor, ...]) -> None:
        known = [survivor.pid for survivor in turn.state.survivors]
        whole(turn, tuple(survivor for survivor in found if survivor.pid not in known))

    surgeon.replace(whole, note_survivors)


@mutant("early-loss")
def half_a_second_is_enough(surgeon: Surgeon) -> None:
    surgeon.set(flow, "STALL_MS", 500)


@mutant("early-loss")
def a_reader_is_believed_to_read_only_by_whole_pages(surgeon: Surgeon) -> None:
    whole = flow.Outlet.refused

    def refused(outlet: flow.Outlet, now_ms: int, _unread: int = 0, *, moved: bool = False) -> None:
        whole(outlet, now_ms, 0, moved=moved)

    surgeon.set(flow.Outlet, "refused", refused)


@mutant("early-loss")
def an_old_refusal_is_as_good_as_a_new_one(surgeon: Surgeon) -> None:
    surgeon.set(flow.Outlet, "doubts", lambda *_: False)


@mutant("lost-lines")
def lines_are_counted_by_the_block(surgeon: Surgeon) -> None:
    whole = flow.Outlet.lose
    surgeon.set(flow.Outlet, "lose", lambda outlet, account, lines: whole(outlet, account, min(lines, 1)))


@mutant("lost-lines")
def what_is_left_at_the_end_is_not_counted(surgeon: Surgeon) -> None:
    def failed(outlet: flow.Outlet) -> None:
        outlet._blocks.clear()
        outlet._offset = outlet.size = 0
        outlet.failing, outlet.blocked_at_ms = True, None

    surgeon.set(flow.Outlet, "failed", failed)


@mutant("torn-lines")
def what_was_begun_is_begun_anew(surgeon: Surgeon) -> None:
    whole = flow.Outlet.took

    def took(outlet: flow.Outlet, written: int) -> None:
        whole(outlet, written)
        outlet._offset = 0

    surgeon.set(flow.Outlet, "took", took)


@mutant("made-to-wait")
def nobody_is_made_to_wait(surgeon: Surgeon) -> None:
    surgeon.set(flow.Outlet, "holds_up", lambda _: False)


@mutant("made-to-wait")
def a_queue_without_much_of_a_bound(surgeon: Surgeon) -> None:
    surgeon.set(flow, "QUEUE_BYTES", 3 * flow.QUEUE_BYTES)


@mutant("liveness")
def a_stalled_reader_is_waited_for(surgeon: Surgeon) -> None:
    surgeon.set(flow.Outlet, "stalled", lambda _: False)


@mutant("stalled-reader")
def nobody_is_let_go_on(surgeon: Surgeon) -> None:
    surgeon.set(flow.Outlet, "lets_go_on", lambda _: False)


@mutant("stalled-reader")
def the_reader_is_never_asked_again(surgeon: Surgeon) -> None:
    surgeon.set(flow.Outlet, "due_ms", nothing)


@mutant("stalled-reader")
def a_stop_hurries_nobody(surgeon: Surgeon) -> None:
    surgeon.set(flow.Outlet, "hurry", nothing)


@mutant("no-crash")
def a_late_death_is_a_surprise(surgeon: Surgeon) -> None:
    def reap_late(*_: object) -> None:
        raise RuntimeError("it was given up")

    surgeon.replace(dying.reap_late, reap_late)


@mutant("liveness")
def the_core_sleeps_through_its_deadlines(surgeon: Surgeon) -> None:
    surgeon.replace(supervisor.next_deadline_ms, nothing)


@mutant("health")
def a_missed_readiness_deadline_is_let_pass(surgeon: Surgeon) -> None:
    surgeon.replace(starting.miss_readiness, nothing)


@mutant("health")
def a_oneshots_failure_is_let_pass(surgeon: Surgeon) -> None:
    whole = judging._by_policy

    def by_policy(turn: Turn, child: Child, death: Any) -> judging.Trigger | None:
        return None if child.spec.kind == "oneshot" else whole(turn, child, death)

    surgeon.replace(whole, by_policy)


@mutant("exit-code")
def a_job_stops_the_bundle_with_69(surgeon: Surgeon) -> None:
    whole = judging._by_policy

    def by_policy(turn: Turn, child: Child, death: Any) -> judging.Trigger | None:
        found = whole(turn, child, death)
        return found.replace(code=EX_UNAVAILABLE) if found and child.spec.kind == "job" else found

    surgeon.replace(whole, by_policy)


@mutant("exit-code")
def what_the_init_brought_about_counts(surgeon: Surgeon) -> None:
    surgeon.set(dying, "BROUGHT_ABOUT", ())
    whole = judging.answer

    def answer(turn: Turn, child: Child) -> judging.Trigger | None:
        found = whole(turn, child)
        child.standing = child.last_death
        return found

    surgeon.replace(whole, answer)


@mutant("signals-told")
def a_bundle_has_no_say_in_its_stop_signals(surgeon: Surgeon) -> None:
    whole = supervisor._handle_requests

    def handle(turn: Turn, requests: list[Event]) -> None:
        bundle = turn.state.bundle
        turn.state.bundle = bundle.replace(stop_signals=signals.STOP_SIGNALS)
        whole(turn, requests)
        turn.state.bundle = bundle

    surgeon.replace(whole, handle)


@mutant("unwanted-start")
def a_crash_is_answered_as_a_failure(surgeon: Surgeon) -> None:
    """Of restart-on-crash a failure is answered by a restart too."""
    rows = {**policies.POLICIES, "restart-on-crash": policies.POLICIES["restart-on-failure"]}
    surgeon.set(policies, "POLICIES", rows)


@mutant("ends-at-once")
def the_end_of_a_probe_is_nobodys(surgeon: Surgeon) -> None:
    """Not of the core but of what tells it: a probe that was found dying was waited for until the deadline."""
    surgeon.set(World, "_count_probe", nothing)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "check", nothing)
    MUTANTS[name](Surgeon(monkeypatch))
    wanted = name.partition(":")[0]
    lives = chain(corners(), islice(small_worlds(), 0, None, 23), (scenario_of("mutants", run) for run in range(RUNS)))
    caught = (violation.invariant for scenario in lives for violation in check(simulate(scenario)))
    assert wanted in caught


def test_every_invariant_has_its_mutant() -> None:
    assert {name.partition(":")[0] for name in MUTANTS} == {invariant.name for invariant in INVARIANTS}


def test_nothing_is_caught_where_nothing_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the control: without a mutant the same lives break nothing."""
    monkeypatch.setattr(invariants, "check", nothing)
    lives = chain(islice(small_worlds(), 0, None, 23), (scenario_of("mutants", run) for run in range(500)))
    assert [check(simulate(scenario)) for scenario in lives] == [[]] * (len(range(0, _count(), 23)) + 500)


def _count() -> int:
    return sum(1 for _ in small_worlds())
