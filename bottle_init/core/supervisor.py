"""`step(state, now_ms, events) -> (state, actions)`: the one funnel of the core.

In one step: requests, then observations, then all deaths, judged as one sweep, then failed probes
and the timers that are due, and at last whatever may now be started or stopped (contract 8). A step is a function
of its arguments: same input, same output, in every world that runs it.
"""

from __future__ import annotations

from bottle_init.core import control, ending, forwarding, frozen, invariants, judging, keeping, starting, stopping
from bottle_init.core.actions import Answer, Exit, NoteTime
from bottle_init.core.events import (
    REQUESTS,
    CapabilitiesDropped,
    ChildExited,
    DeathJudged,
    GiveUpPassed,
    KillOrdered,
    LeaseEnded,
    LeaseRenewed,
    LeaseTaken,
    OrderedSignalSent,
    OrphansReaped,
    ProbeFailed,
    SignalForwarded,
    SignalReceived,
    StartDue,
    StopDue,
    StopOrdered,
    SurvivorEnded,
    TimeNoted,
    TreeSurveyed,
)
from bottle_init.core.state import LEASE_PATIENCE_MS, State
from bottle_init.core.transitions import TABLE, Ignore, Row
from bottle_init.core.turn import Turn
from bottle_init.core.words import (
    BACKOFF,
    CLEARING,
    DONE,
    ENDED,
    EX_UNAVAILABLE,
    GOING_DOWN,
    KILLING,
    KILLING_ALL,
    NATURAL,
    POLICY,
    REQUESTED,
    STOPPED,
    UP,
    WAITING,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Final

    from bottle_init.core.actions import Action
    from bottle_init.core.events import Event
    from bottle_init.core.spec import Bundle

SAME_REQUEST_MS: Final = 5
"""A stop signal that is found so soon after the first one has been acted on is the same request (contract 4)."""

STOP_REQUESTED: Final = "stop requested"
SAME_REQUEST: Final = "the same request"
KILLS_EVERYTHING: Final = "kills what is left"


def begin(bundle: Bundle, now_ms: int) -> State:
    """The state before the first step; that one, with no events at all, starts what waits on nothing."""
    return State(bundle, now_ms)


def step(state: State, now_ms: int, events: Iterable[Event]) -> tuple[State, tuple[Action, ...]]:
    """Judge one wake-up: `events` in the order in which they were seen, at `now_ms`.

    Raises `InvariantViolated`, or RuntimeError for an event that cannot come; both are bugs.
    """
    if state.phase == DONE:
        return state, ()
    turn = Turn(state, now_ms)
    if now_ms - state.seen_ms > frozen.FROZEN_MS:
        _thaw_if_late(turn, state)
    requests, observations, deaths, failures = _sort(events)
    _handle_requests(turn, requests)
    for event in observations:
        _observe(turn, event)
    for death in deaths:
        dispatch(turn, death)
    _judge(turn)
    for failure in failures:
        dispatch(turn, failure)
    if turn.state.phase != DONE:
        _fire_timers(turn)
        _judge(turn)
        _fire_bundle_timers(turn)
        _advance(turn)
    if turn.state.phase == DONE:
        turn.actions.sort(key=_is_exit)  # Whatever was answered after the last survey is told before the exit.
    elif turn.state.stop_signals > state.stop_signals == 0:
        turn.act(NoteTime())
    turn.state.children = tuple(turn.children)
    turn.state.seen_ms = now_ms
    everybody = range(len(turn.children))
    invariants.check(turn.state, turn.edited if turn.state.phase == state.phase else everybody)
    return turn.state, tuple(turn.actions)


def _is_exit(action: Action) -> bool:
    return isinstance(action, Exit)


def _thaw_if_late(turn: Turn, state: State) -> None:
    """The core has not been asked for more than a second: that is too late if it was to be asked in the meantime."""
    asked_ms = next_deadline_ms(state)
    if asked_ms is not None and turn.now_ms - asked_ms > frozen.FROZEN_MS:
        frozen.thaw(turn, turn.now_ms - asked_ms)


def awaits_orphans(state: State) -> bool:
    """Whether `OrphansReaped` would make the core look at anything: else nobody need tell it."""
    return state.finishing or any(child.status == CLEARING for child in state.children)


def next_deadline_ms(state: State) -> int | None:
    """When `step` has to be called even if nothing happens; None for never."""
    times = [at_ms for child in state.children for at_ms in child.timers.values()]
    if state.phase == UP and state.lease_at_ms is not None:
        times.append(state.lease_at_ms)
    if state.phase == UP and state.lease_due_ms is not None:
        times.append(state.lease_due_ms)
    if state.phase == GOING_DOWN and state.stop is not None:
        times.append(state.stop.deadline_ms)
    if state.phase == KILLING_ALL and state.give_up_at_ms is not None:
        times.append(state.give_up_at_ms)
    return min(times, default=None)


def _sort(events: Iterable[Event]) -> tuple[list[Event], list[Event], list[ChildExited], list[ProbeFailed]]:
    """Requests, observations, deaths, failed probes; the deaths in the order of declaration, whatever the kernel's was.

    A probe that fails is judged after the deaths, because a death may be why it failed.
    """
    requests: list[Event] = []
    observations: list[Event] = []
    deaths: list[ChildExited] = []
    failures: list[ProbeFailed] = []
    for event in events:
        if isinstance(event, ChildExited):
            deaths.append(event)
        elif isinstance(event, ProbeFailed):
            failures.append(event)
        elif isinstance(event, REQUESTS):
            requests.append(event)
        else:
            observations.append(event)
    deaths.sort(key=_by_child)
    return requests, observations, deaths, failures


def _by_child(death: ChildExited) -> int:
    return death.child


def dispatch(turn: Turn, event: Any) -> None:
    """Carry one child's event through the table; what speaks of an earlier process is dropped."""
    child = turn.children[event.child]
    if getattr(event, "generation", child.generation) != child.generation:
        return
    if getattr(event, "probe", child.probe) != child.probe:
        return
    cell = TABLE[child.status][type(event)]
    if isinstance(cell, Row):
        child = turn.edit(event.child)
        before = child.status
        cell.rule(turn, child, event)
        if child.status != before and child.status not in cell.to:
            raise RuntimeError(f"{child.spec.name}: {before} -> {child.status} is not declared for {event}")
    elif not isinstance(cell, Ignore):
        raise RuntimeError(f"{child.spec.name} ({child.status}) cannot get {event}: {cell.why}")


def _handle_requests(turn: Turn, requests: list[Event]) -> None:
    """Requests, in the order in which they came."""
    stop_signals = turn.state.bundle.stop_signals
    heard = False
    for event in requests:
        if isinstance(event, SignalReceived):
            if event.signal in stop_signals:
                _stop_signal(turn, event, again=heard or _is_same_request(turn))
                heard = True
            else:
                forwarding.receive(turn, event)
        elif isinstance(event, StopOrdered):
            turn.act(Answer(event.request, True, "stopping"))
            cause = "the control socket"
            stopping.begin_stop(turn, REQUESTED, cause, None, "", event.sender_pid, event.sender_uid)
        elif isinstance(event, LeaseEnded):
            _lose_lease(turn, event)
        elif isinstance(event, LeaseTaken):
            turn.state.lease_due_ms = None
        elif isinstance(event, LeaseRenewed):
            _renew_lease(turn, event)
        else:
            dispatch(turn, event)


def _is_same_request(turn: Turn) -> bool:
    """Whether a stop signal comes so soon after the first one has been acted on that both are one request (contract 4).

    `kill` of a process and then of its group takes longer than one wake-up of the init's.
    """
    state = turn.state
    if not state.stop_signals:
        return False
    return state.stop_noted_ms is None or turn.now_ms <= state.stop_noted_ms + SAME_REQUEST_MS


def _stop_signal(turn: Turn, event: SignalReceived, *, again: bool) -> None:
    """The first one is a requested stop, the second one kills what is left at once; `again`: it is the one before."""
    turn.state.stop_signals += not again
    is_first = turn.state.stop_signals == 1
    effect = SAME_REQUEST if again else STOP_REQUESTED if is_first else KILLS_EVERYTHING
    forwarding.log_received(turn, event.signal, event.sender_pid, event.sender_uid, effect=effect)
    if again:
        return
    if is_first:
        cause = f"signal {event.signal}"
        stopping.begin_stop(turn, REQUESTED, cause, None, "", event.sender_pid, event.sender_uid)
    elif turn.state.phase != KILLING_ALL:
        _kill_all(turn)


def _lose_lease(turn: Turn, event: LeaseEnded) -> None:
    """The end of a lease is a request to stop; that it cannot be had is none, and nothing has been started then."""
    if turn.state.lease_due_ms is None:
        stopping.begin_stop(turn, REQUESTED, f"the lease: {event.reason}")
    else:
        stopping.begin_stop(turn, POLICY, f"the lease cannot be had: {event.reason}", EX_UNAVAILABLE)


def _renew_lease(turn: Turn, event: LeaseRenewed) -> None:
    lease = turn.state.bundle.lease
    if lease is None or lease.renew_ms is None:
        control.refuse(turn, event.request, "this bundle has no lease to renew")
    else:
        turn.state.lease_at_ms = turn.now_ms + lease.renew_ms
        turn.act(Answer(event.request, True, "renewed"))


def _observe(turn: Turn, event: Event) -> None:
    if isinstance(event, (OrphansReaped, SurvivorEnded)):
        turn.others_ended = True
    elif isinstance(event, TreeSurveyed):
        _tree_surveyed(turn, event)
    elif isinstance(event, SignalForwarded):
        forwarding.forwarded(turn, event)
    elif isinstance(event, OrderedSignalSent):
        control.signal_sent(turn, event)
    elif isinstance(event, CapabilitiesDropped):
        keeping.dropped(turn, event)
    elif isinstance(event, TimeNoted):
        turn.state.stop_noted_ms = turn.now_ms
    else:
        dispatch(turn, event)


def _tree_surveyed(turn: Turn, event: TreeSurveyed) -> None:
    """What may not be killed is not waited for, a child as little as what it has left."""
    if turn.state.phase == KILLING_ALL:
        for index in ending.barred_children(turn, event):
            dispatch(turn, GiveUpPassed(index))
        _judge(turn)
    ending.tree_surveyed(turn, event)


def _judge(turn: Turn) -> None:
    """All deaths of the sweep together, then each child's own consequences."""
    if not turn.sweep:
        return
    judging.judge(turn)
    fallen, turn.sweep = sorted(turn.sweep), []
    for index in fallen:
        dispatch(turn, DeathJudged(index))


def _fire_timers(turn: Turn) -> None:
    """The timers that are due, in the order of their times; one may take the next one away."""
    now_ms = turn.now_ms
    due = [
        (at_ms, child.index, timer)
        for child in turn.children
        for timer, at_ms in child.timers.items()
        if at_ms <= now_ms
    ]
    for _, index, timer in sorted(due, key=_by_time):
        child = turn.edit(index)
        if child.timers.get(timer, now_ms + 1) <= now_ms:
            del child.timers[timer]
            dispatch(turn, timer(index))


def _by_time(due: tuple[int, int, type[Event]]) -> tuple[int, int]:
    return due[0], due[1]


def _fire_bundle_timers(turn: Turn) -> None:
    """The lease, the one hard deadline of the stop, and the end of all patience."""
    state, now_ms = turn.state, turn.now_ms
    if state.phase == UP and state.lease_at_ms is not None and state.lease_at_ms <= now_ms:
        stopping.begin_stop(turn, REQUESTED, "the lease was not renewed")
    elif state.phase == UP and state.lease_due_ms is not None and state.lease_due_ms <= now_ms:
        waited_s = LEASE_PATIENCE_MS // 1_000
        _lose_lease(turn, LeaseEnded(f"nobody has taken the connection for {waited_s} seconds"))
    elif state.phase == GOING_DOWN and state.stop is not None and state.stop.deadline_ms <= now_ms:
        turn.log("deadline_passed", level="warning", after_ms=now_ms - state.stop.at_ms)
        _kill_all(turn)
    elif state.phase == KILLING_ALL and state.give_up_at_ms is not None and state.give_up_at_ms <= now_ms:
        for child in turn.children:
            if child.status == KILLING:
                dispatch(turn, GiveUpPassed(child.index))
        _judge(turn)
        ending.finish(turn)


def _kill_all(turn: Turn) -> None:
    for child in turn.children:
        dispatch(turn, KillOrdered(child.index))
    ending.kill_all(turn)


def _advance(turn: Turn) -> None:
    """Start and stop whatever has its turn, until nothing moves any more."""
    if turn.state.phase == DONE:
        return
    if turn.others_ended:
        ending.look_again(turn)
    if turn.state.phase == UP:
        _take_down_halted(turn)
        keeping.drop_when_done(turn)
        _start_ready(turn)
        _end_naturally(turn)
    if turn.state.phase == GOING_DOWN:
        for index in range(len(turn.children) - 1, -1, -1):
            if _is_stop_due(turn, index):
                dispatch(turn, StopDue(index))
    if turn.state.phase != UP:
        ending.end_when_gone(turn)


def _is_stop_due(turn: Turn, index: int) -> bool:
    """Whether a child's part in the bundle's stop has come. What has no process has nobody to wait for."""
    child = turn.children[index]
    if child.status in (WAITING, BACKOFF):
        return True
    left = stopping.awaits_stop_signal(child) or (child.status == ENDED and not stopping.is_cleared(child))
    return left and stopping.may_stop(turn, index)


def _take_down_halted(turn: Turn) -> None:
    for index in range(len(turn.children) - 1, -1, -1):
        child = turn.children[index]
        if child.halt and stopping.awaits_stop_signal(child) and stopping.may_stop(turn, index):
            dispatch(turn, StopDue(index))


def _start_ready(turn: Turn) -> None:
    for child in list(turn.children):
        if child.status == WAITING and starting.may_start(turn, child):
            dispatch(turn, StartDue(child.index))


def _end_naturally(turn: Turn) -> None:
    """Where no child is left and none is to be started again, the bundle ends (contract 2, rule 4).

    What still waits is left: only an operator can have taken away what it waits for, and can bring that back.
    """
    if all(child.status in (STOPPED, ENDED) for child in turn.children):
        stopping.begin_stop(turn, NATURAL, "no child is left")
