"""A child's end, from its death to the moment when nothing of its session is left (contract 4)."""

from __future__ import annotations

from bottle_init.core import forwarding, signals, verdict
from bottle_init.core.actions import SurveySession
from bottle_init.core.events import BackoffPassed, GiveUpPassed, StopTimeoutPassed
from bottle_init.core.state import Death, Survivor
from bottle_init.core.stopping import NOT_SIGNALLED, begin_stop
from bottle_init.core.words import (
    BACKOFF,
    CLEARING,
    DEAD,
    ENDED,
    EX_UNAVAILABLE,
    GIVE_UP_MS,
    HALT_DEPENDENCY,
    HALT_HEALTH,
    HALT_READINESS,
    HALT_REQUEST,
    HALT_RESTART,
    HALT_TIMEOUT,
    KILLING_ALL,
    NEXT_BACKOFF,
    NEXT_END,
    NEXT_HOLD,
    NO_HALT,
    OOM_UNKNOWN,
    POLICY,
    STOPPED,
    UP,
    WAITING,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bottle_init.core.events import ChildExited, Event, SessionSurveyed
    from bottle_init.core.state import Child
    from bottle_init.core.turn import Turn

BROUGHT_ABOUT = (HALT_REQUEST, HALT_RESTART, HALT_DEPENDENCY, HALT_HEALTH, HALT_READINESS)
"""Deaths for these reasons are the init's own doing (contract 2, rule 7)."""

UNKILLABLE: Final = "no SIGKILL ended it"


def die(turn: Turn, child: Child, event: ChildExited) -> None:
    """Take a death in; it is judged together with all others of its sweep."""
    stopping = turn.state.phase != UP
    timed_out = child.halt == HALT_TIMEOUT
    brought_about = not stopping and child.halt in BROUGHT_ABOUT
    forwarded = sum(1 << one.signal for one in child.forwarded)
    code = 128 + event.signal if event.signal else event.code
    child.last_death = Death(
        child=child.index,
        name=child.spec.name,
        pid=child.pid,
        code=code,
        signal=event.signal,
        severity=verdict.severity_of(
            child.spec,
            code,
            event.signal,
            sent=child.sent | forwarded if stopping else child.sent,
            stopping=stopping,
            forced=timed_out,
            asked=brought_about,
        ),
        at_ms=turn.now_ms,
        ran_ms=turn.now_ms - child.started_at_ms,
        sent=bool(event.signal) and bool((child.sent | forwarded) >> event.signal & 1),
        forced=child.forced or timed_out,
        oom=event.oom,
        stopping=stopping,
        brought_about=brought_about,
        stop_ms=None if child.signalled_at_ms is None else turn.now_ms - child.signalled_at_ms,
        detail=child.detail or (OOM_UNKNOWN if event.oom is None else ""),
        forwarded=next((one for one in child.forwarded if 128 + one.signal == code), None),
        timeout_ms=child.spec.timeout_ms if timed_out else None,
    )
    mark_gone(turn, child)


def mark_gone(turn: Turn, child: Child) -> None:
    """The process is gone, or given up: nothing that belonged to it is awaited any more."""
    child.pid = 0
    turn.drop_probe(child)
    forwarding.drop(turn, child)
    child.timers.clear()
    turn.move(child, DEAD)
    turn.sweep.append(child.index)


def clear_or_end(turn: Turn, child: Child, event: Event) -> None:
    """After the judgement: see to what is left of the session, or leave it for the bundle's stop."""
    phase = turn.state.phase
    if phase == KILLING_ALL or child.session_cleared:
        settle(turn, child)
    elif child.signalled_at_ms is None and (phase != UP or child.next == NEXT_END):
        turn.move(child, ENDED)
    else:
        clear(turn, child, event)


def clear(turn: Turn, child: Child, event: Event) -> None:
    """TERM for what a child has left in its session; SIGKILL once its `stop_timeout` is over."""
    turn.move(child, CLEARING)
    since_ms = turn.now_ms if child.signalled_at_ms is None else child.signalled_at_ms
    left_ms = since_ms + child.spec.stop_timeout_ms - turn.now_ms
    if child.forced or left_ms <= 0:
        clear_by_force(turn, child, event)
    else:
        turn.act(SurveySession(child.index, child.generation, signals.TERM))
        turn.set_timer(child, StopTimeoutPassed, left_ms)


def clear_by_force(turn: Turn, child: Child, event: Event) -> None:
    """SIGKILL for what a child has left in its session."""
    turn.act(SurveySession(child.index, child.generation, signals.KILL))
    turn.set_timer(child, GiveUpPassed, GIVE_UP_MS)


def surveyed(turn: Turn, child: Child, event: SessionSurveyed) -> None:
    """Once nothing is left of its session that can be waited for, the child is down."""
    child.survivors = event.survivors
    log_barred(turn, event.survivors, child)
    note_survivors(turn, event.survivors)
    if all(survivor.barred for survivor in event.survivors):
        settle(turn, child)


def log_barred(turn: Turn, found: tuple[Survivor, ...], child: Child | None = None) -> None:
    """Say of whom the kernel does not let the init kill, once: nothing waits for it."""
    state = turn.state
    ghosts = {child.ghost_pid: None for child in turn.children if child.ghost_pid}
    for survivor in found:
        known = (survivor.pid, survivor.born)
        if survivor.barred and known not in state.told_barred:
            state.told_barred += (known,)
            if survivor.pid in ghosts:
                continue  # It was given up, and the log says so.
            turn.log(
                "signal_refused",
                child,
                "error",
                pid=survivor.pid,
                process=survivor.name,
                signal=signals.KILL,
                reason=survivor.barred,
            )


def note_survivors(turn: Turn, found: tuple[Survivor, ...]) -> None:
    """Keep what outlived its leader into the bundle's stop, for the report (contract 7).

    A child that was given up is named already, and is known by its birth from its first survey on. Pid 0 is one that
    cannot be seen, and no child's.
    """
    state = turn.state
    if not found or state.phase == UP:
        return
    named = list(state.survivors)
    known = {(survivor.pid, survivor.born): index for index, survivor in enumerate(named)}
    children = {child.pid: None for child in turn.children if child.pid}
    for survivor in found:
        if survivor.dying or survivor.pid in children:
            continue
        index = known.get((survivor.pid, survivor.born), known.pop((survivor.pid, None), None))
        if index is None:
            named.append(survivor)
        else:
            named[index] = named[index].replace(born=survivor.born, barred=survivor.barred or named[index].barred)
    state.survivors = tuple(named)


def give_up_session(turn: Turn, child: Child, event: Event) -> None:
    """What no SIGKILL ends is left behind."""
    for survivor in child.survivors:
        if not survivor.barred:  # Of the others the log says so already.
            turn.log("gave_up", child, "error", pid=survivor.pid, process=survivor.name, reason=UNKILLABLE)
    settle(turn, child)


def settle(turn: Turn, child: Child) -> None:
    """The child and its session are gone: what comes next was decided before."""
    child.timers.clear()
    child.session_cleared = True
    child.halt = NO_HALT
    if turn.state.phase != UP or child.next == NEXT_END:
        turn.move(child, ENDED)
    elif child.next == NEXT_HOLD:
        turn.move(child, STOPPED)
    elif child.next == NEXT_BACKOFF and child.resume_at_ms > turn.now_ms:
        turn.move(child, BACKOFF)
        turn.set_timer(child, BackoffPassed, child.resume_at_ms - turn.now_ms)
    else:
        turn.move(child, WAITING)


def give_up(turn: Turn, child: Child, event: Event) -> None:
    """Nothing ends the child itself: during a stop that counts as forced; else nothing can follow it."""
    spec = child.spec
    detail = f"{NOT_SIGNALLED}: {child.barred}" if child.barred else UNKILLABLE
    survivor = Survivor(child.pid, spec.name, " ".join(spec.command), barred=child.barred)
    turn.state.survivors += (survivor,)
    child.session_cleared = True
    child.ghost_pid = child.pid
    turn.log("gave_up", child, "error", pid=child.pid, process=spec.name, reason=detail)
    child.last_death = Death(
        child.index,
        spec.name,
        child.pid,
        128 + signals.KILL,
        0 if child.barred else signals.KILL,
        verdict.FORCED,
        turn.now_ms,
        turn.now_ms - child.started_at_ms,
        sent=not child.barred,
        forced=not child.barred,
        stopping=turn.state.phase != UP,
        detail=detail,
        given_up=True,
        timeout_ms=spec.timeout_ms if child.halt == HALT_TIMEOUT else None,
    )
    mark_gone(turn, child)
    if turn.state.phase == UP and child.halt != HALT_REQUEST:
        begin_stop(turn, POLICY, f"{spec.name} could not be ended: {detail}", EX_UNAVAILABLE, spec.name)


def reap_late(turn: Turn, child: Child, event: ChildExited) -> None:
    """A child that was given up has ended after all. What it has left in its session goes before a successor comes."""
    child.ghost_pid = 0
    turn.log("child_reaped_late", child, code=event.code, signal=event.signal or None)
    turn.others_ended = True
    if turn.state.phase == UP and child.status == STOPPED:
        child.session_cleared = False
        child.next = NEXT_HOLD
        turn.move(child, CLEARING)
        clear_by_force(turn, child, event)


def leave_to_all(turn: Turn, child: Child, event: Event) -> None:
    """What is left of this child's session goes with everything else."""
    child.timers.clear()
    child.session_cleared = True
    turn.move(child, ENDED)
