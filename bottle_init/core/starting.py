"""Bringing children up: the order, the start, readiness (contract 4)."""

from __future__ import annotations

from bottle_init.core import forwarding, judging, policies
from bottle_init.core.actions import Spawn, StartProbe
from bottle_init.core.events import (
    BackoffPassed,
    ProbeDue,
    ProbeTimedOut,
    ReadyDeadlinePassed,
    RunTimeoutPassed,
    WatchdogPassed,
)
from bottle_init.core.stopping import begin_stop, halt
from bottle_init.core.telling import span
from bottle_init.core.words import (
    BACKOFF,
    DAEMON,
    EX_UNAVAILABLE,
    HALT_READINESS,
    HALT_TIMEOUT,
    ONESHOT,
    POLICY,
    RUNNING,
    SPAWNING,
    STARTING,
    STOPPED,
    WAITING,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.core.events import ChildForked, Event, ExecFailed, ForkFailed, Notified
    from bottle_init.core.spec import Probe
    from bottle_init.core.state import Child
    from bottle_init.core.turn import Turn

FIRST_PAUSE_MS = 10
LONGEST_PAUSE_MS = 250
"""Readiness is asked for at once, and then at growing pauses of at most this (contract 4)."""

ATTEMPT_MS = 5_000
"""One attempt of a readiness probe may take so long; then the next is made."""


def may_start(turn: Turn, child: Child) -> bool:
    """Whether all that the child is after is ready, and nothing that runs after it is still going down.

    What a oneshot or an ended daemon is after is looked at too: rest-for-one takes readiness away.
    """
    state = turn.state
    if state.dropping or state.lease_due_ms is not None:
        return False
    if not all(turn.children[other].ready for other in state.needs[child.index]):
        return False
    if not child.spec.restart_dependents:
        return True
    return not any(turn.children[other].halt for other in turn.state.dependents[child.index])


# Rows of the table.


def spawn(turn: Turn, child: Child, event: Event) -> None:
    """Order the fork. Whatever death came before is answered by this start."""
    child.renew()
    child.generation += 1
    child.standing = None
    turn.move(child, SPAWNING)
    turn.act(Spawn(child.index, child.generation))


def forked(turn: Turn, child: Child, event: ChildForked) -> None:
    """The process exists; its deadlines begin."""
    child.pid = event.pid
    child.started_at_ms = turn.now_ms
    turn.move(child, STARTING)
    if child.spec.ready is not None and not child.halt:
        turn.set_timer(child, ReadyDeadlinePassed, child.spec.ready.timeout_ms)
    if child.spec.timeout_ms is not None and not child.halt:
        turn.set_timer(child, RunTimeoutPassed, child.spec.timeout_ms)
    turn.log("child_started", child, pid=event.pid, restart=child.generation - 1 or None)
    if event.barred:
        turn.log("child_not_signallable", child, "warning", pid=event.pid, reason=event.barred)


def fork_failed(turn: Turn, child: Child, event: ForkFailed) -> None:
    """A failed start (contract 8)."""
    turn.log("fork_failed", child, "error", reason=event.reason)
    child.session_cleared = True
    if judging.failed_start(turn, child, event.reason):
        turn.move(child, BACKOFF)
        turn.set_timer(child, BackoffPassed, child.resume_at_ms - turn.now_ms)
    else:
        turn.move(child, STOPPED)


def executed(turn: Turn, child: Child, event: Event) -> None:
    """Without a readiness probe a daemon or job is ready now; a oneshot is once it has succeeded."""
    child.executed = True
    if child.halt:
        return
    if child.spec.kind == ONESHOT:
        turn.move(child, RUNNING)
    elif child.spec.ready is None:
        become_ready(turn, child)
    elif child.spec.ready.probe.kind == "after":
        turn.set_timer(child, ProbeDue, child.spec.ready.probe.after_ms)
    elif child.spec.ready.probe.kind != "notify":
        probe_readiness(turn, child, event)


def note_executed(turn: Turn, child: Child, event: Event) -> None:
    """The child is being taken down already."""
    child.executed = True


def exec_failed(turn: Turn, child: Child, event: ExecFailed) -> None:
    """Keep the reason for the death that follows."""
    child.detail = event.reason


def probe_readiness(turn: Turn, child: Child, event: Event) -> None:
    """Make the next attempt; a daemon that only had to run for a time is ready now."""
    ready = child.spec.ready
    if child.halt or ready is None:
        return
    if ready.probe.kind == "after":
        become_ready(turn, child)
    else:
        start_probe(turn, child, ready.probe)


def start_probe(turn: Turn, child: Child, how: Probe) -> None:
    """Have one probe out, with its deadline."""
    turn.drop_timers(child, ProbeDue)
    turn.drop_probe(child)
    child.probes += 1
    child.probe = child.probes
    turn.set_timer(child, ProbeTimedOut, probe_timeout_ms(child))
    turn.act(StartProbe(child.index, child.generation, child.probe, how))


def probe_timeout_ms(child: Child) -> int:
    """How long the probe that is out may take: an attempt at readiness, or a check of a daemon that is ready."""
    health = child.spec.health
    return health.timeout_ms if child.fresh and health is not None else ATTEMPT_MS


def not_ready_yet(turn: Turn, child: Child, event: Event) -> None:
    """Try again after a growing pause."""
    turn.drop_probe(child)
    turn.drop_timers(child, ProbeTimedOut)
    child.check_detail = getattr(event, "reason", "no answer in time")
    child.pause_ms = min(child.pause_ms * 2 or FIRST_PAUSE_MS, LONGEST_PAUSE_MS)
    if not child.halt:
        turn.set_timer(child, ProbeDue, child.pause_ms)


def answered_ready(turn: Turn, child: Child, event: Event) -> None:
    """The readiness probe says yes."""
    child.probe = 0
    if not child.halt:
        become_ready(turn, child)


def become_ready(turn: Turn, child: Child) -> None:
    """Those that wait on the child may start; its health is asked for from now on."""
    turn.drop_timers(child, ReadyDeadlinePassed, ProbeDue, ProbeTimedOut)
    turn.drop_probe(child)
    child.check_detail = ""
    child.fresh = child.ready = child.ever_ready = True
    turn.move(child, RUNNING)
    if child.spec.health is not None:
        turn.set_timer(child, ProbeDue, child.spec.health.interval_ms)
    if child.watchdog_ms:
        turn.set_timer(child, WatchdogPassed, child.watchdog_ms)
    if child.spec.kind == DAEMON:
        turn.log("child_ready", child, after_ms=turn.now_ms - child.started_at_ms)
    forwarding.deliver(turn, child)


def notified(turn: Turn, child: Child, event: Notified) -> None:
    """sd_notify(3), before the daemon is ready."""
    note_said(turn, child, event)
    ready = child.spec.ready
    if event.ready and not child.halt and ready is not None and ready.probe.kind == "notify":
        become_ready(turn, child)


def note_said(turn: Turn, child: Child, event: Notified) -> None:
    """Keep what the daemon says of itself, also while it is being stopped."""
    if event.status is not None:
        child.text = event.status
    if event.watchdog_ms is not None:
        child.watchdog_ms = event.watchdog_ms
    if event.stopping:
        turn.log("child_says_stopping", child)
    if child.halt:
        _keep_said(child, event)


def _keep_said(child: Child, event: Notified) -> None:
    """A daemon may go on after all, if its stop signal is refused: then what it has said meanwhile counts."""
    child.said_ready = child.said_ready or event.ready
    if child.fresh and (event.watchdog_trigger or event.watchdog):
        child.said_ill = event.watchdog_trigger


def miss_readiness(turn: Turn, child: Child, event: Event) -> None:
    """`ready.timeout` is over: the restart policies answer it like a death, else it is a policy stop with 69."""
    turn.log("not_ready", child, "error", last=child.check_detail or None)
    child.halt_reason = _not_ready(child)
    if policies.restarts(child.spec.policy):
        halt(turn, child, HALT_READINESS)
        judging.rest_for_one(turn, child)
    else:
        begin_stop(turn, POLICY, f"{child.spec.name} {child.halt_reason}", EX_UNAVAILABLE, child.spec.name)


def _not_ready(child: Child) -> str:
    """What is known of why a daemon is not ready: how long it had, and what its probe was told last."""
    ready = child.spec.ready
    if ready is None:
        return "was not ready in time"
    told = f"was not ready within {span(ready.timeout_ms)}"
    if not child.executed:
        return f"{told}: its program had not been executed"
    if ready.probe.kind == "notify":
        return f"{told}: it had not said READY=1"
    return f"{told}: the last answer to its {ready.probe.kind} probe was: {child.check_detail or 'none yet'}"


def run_too_long(turn: Turn, child: Child, event: Event) -> None:
    """A oneshot's or job's `timeout` is over: it is stopped, and counts as forced."""
    turn.log("timed_out", child, "error", after_ms=child.spec.timeout_ms)
    halt(turn, child, HALT_TIMEOUT)


def resume(turn: Turn, child: Child, event: Event) -> None:
    """The pause before the restart is over; what the child is after has to be ready still."""
    turn.move(child, WAITING)
