"""What the core remembers: the state of the bundle and of each child, their deaths, what they left, the stop.

Everything here is frozen except `Child`, which is the one record that `step` edits, on a copy of
its own (see `turn.py`). Times are whole milliseconds on one monotonic clock, never wall-clock time.
"""

from __future__ import annotations

from bottle_init.core.values import Value
from bottle_init.core.words import ENDED, GOING_DOWN, NEXT_END, NO_HALT, RUNNING, STOPPED, UP, WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from bottle_init.core.spec import Bundle, Spec


LEASE_PATIENCE_MS: Final = 5_000
"""A peer that has not taken the init's connection by then counts as none (contract 4)."""


class Forwarded(Value):
    """A signal that reached the init as `source` and that a child gets as `signal`, with who sent it.

    `at_ms` is when the child was sent it, or when it came, for one that waits until the child is ready.
    """

    signal: int
    source: int
    sender_pid: int = 0
    sender_uid: int | None = None
    at_ms: int = 0


class Death(Value):
    """One child's end, with what the verdict and the report need to know of it.

    `signal` is 0 for a child that exited; `severity` is one of `verdict.py`'s ranks; `sent` says that the init sent or
    forwarded the signal it ended by, `forwarded` which one that was if it was forwarded; `oom` is None where it cannot
    be known; `stop_ms` is how long it took from its stop signal, None where none was sent. `given_up`: it has not
    ended, for the reason in `detail`, and nothing that the init may do ends it. `timeout_ms` is the `timeout` that it
    was stopped for, None if it was not.
    """

    child: int
    name: str
    pid: int
    code: int
    signal: int
    severity: int
    at_ms: int
    ran_ms: int
    sent: bool = False
    forced: bool = False
    oom: bool | None = False
    stopping: bool = False
    brought_about: bool = False
    stop_ms: int | None = None
    detail: str = ""
    forwarded: Forwarded | None = None
    given_up: bool = False
    timeout_ms: int | None = None


class Survivor(Value):
    """A process that outlived its leader, as the report names it (contract 7).

    `born` tells it from another that has got its pid since: whatever the kernel counts starts in, None
    where that is not known. `dying`: it is no child's, and SIGKILL had been sent to it before, so it
    is waited for and not named. `barred` is why the kernel does not even let the init kill it, "" if it does: such a
    process is not waited for.
    """

    pid: int
    name: str
    command: str = ""
    born: int | None = None
    dying: bool = False
    barred: str = ""


class Stop(Value):
    """Why and until when the bundle stops. `code` is None where the stop's own deaths decide it.

    `culprit` is the name of the child that the cause is about, "" where it is about none.
    """

    kind: str
    cause: str
    at_ms: int
    deadline_ms: int
    code: int | None = None
    culprit: str = ""
    sender_pid: int = 0
    sender_uid: int | None = None


class Child:
    """What the core knows of one child.

    What `renew` sets belongs to its present process, the timers included; the rest outlives that.
    """

    __slots__ = (
        "barred",
        "check_at_ms",
        "check_detail",
        "check_has_passed",
        "check_ok",
        "check_since_ms",
        "detail",
        "ever_ready",
        "executed",
        "failures",
        "forced",
        "forwarded",
        "fresh",
        "generation",
        "ghost_pid",
        "halt",
        "halt_at_ms",
        "halt_reason",
        "index",
        "last_death",
        "next",
        "pause_ms",
        "pid",
        "probe",
        "probes",
        "ready",
        "reloading",
        "restarts",
        "resume_at_ms",
        "said_ill",
        "said_ready",
        "self_reported_unhealthy",
        "sent",
        "session_cleared",
        "signalled_at_ms",
        "since_ms",
        "spec",
        "standing",
        "started_at_ms",
        "status",
        "streak",
        "survivors",
        "text",
        "timers",
        "unhealthy",
        "waiting_signals",
        "watchdog_ms",
    )

    def __init__(self, index: int, spec: Spec, now_ms: int) -> None:
        self.index = index
        """Its place in the order of declaration."""
        self.spec = spec
        self.status: str = WAITING if spec.enabled else STOPPED
        """Where it stands in the table of `transitions.py`."""
        self.since_ms = now_ms
        """When it took that status."""
        self.generation = 0
        """How many processes it has had; 0 before the first. What speaks of an earlier one is stale."""
        self.ready = not spec.enabled
        """Whether those that run after it may start. Outlives the process (contract 4)."""
        self.ever_ready = False
        """Whether any of its processes has been ready."""
        self.last_death: Death | None = None
        """How its last process ended."""
        self.standing: Death | None = None
        """The death that counts for the exit code: the last one, unless a restart or an operator has answered it."""
        self.restarts: tuple[int, ...] = ()
        """When restarts were decided that count for its budget."""
        self.streak = 0
        """How many restarts in a row: the exponent of the backoff."""
        self.resume_at_ms = 0
        """When the pause before its restart ends."""
        self.ghost_pid = 0
        """The process that was given up and has not ended since, 0 for none. It has no successor."""
        self.renew()

    def renew(self) -> None:  # noqa: PLR0915 - each field and its docstring are a statement.
        """Forget everything that belonged to the process before."""
        self.pid = 0
        """Its process, 0 while none is known to exist."""
        self.executed = False
        """Whether the process runs the child's own program yet."""
        self.fresh = False
        """Whether this very process has become ready."""
        self.started_at_ms = 0
        """When the process was forked."""
        self.signalled_at_ms: int | None = None
        """When it got its stop signal, None before."""
        self.halt = NO_HALT
        """Why the init takes it down; NO_HALT while that has not been decided."""
        self.halt_at_ms = 0
        """When that was decided: its `stop_delay` counts from here."""
        self.halt_reason = ""
        """The same in words, where there is more to say of it."""
        self.next = NEXT_END
        """What becomes of it once the process and its session are gone."""
        self.sent = 0
        """The signals that the init has sent to the process on its own decision, as bits `1 << signal`."""
        self.barred = ""
        """Why the kernel has refused SIGKILL for the process, "" where it has not."""
        self.forwarded: tuple[Forwarded, ...] = ()
        """What was forwarded to the process, and for whom: the last of each signal."""
        self.waiting_signals: tuple[Forwarded, ...] = ()
        """What will be forwarded to the process once it is ready: the last of each signal."""
        self.forced = False
        """Whether the init has sent it SIGKILL."""
        self.session_cleared = False
        """Whether nothing of its session is left to wait for: gone, given up, or left to the end of the whole tree."""
        self.survivors: tuple[Survivor, ...] = ()
        """What the last survey has found of its session."""
        self.timers: dict[type[Any], int] = {}
        """When each of its timers comes."""
        self.probe = 0
        """The number of the probe that is out, 0 while none is."""
        self.probes = 0
        """How many probes there have been: the number of the last one."""
        self.pause_ms = 0
        """The pause before the last readiness probe; the next one is longer."""
        self.failures = 0
        """How many checks in a row have failed."""
        self.unhealthy = False
        """Whether `on_unhealthy` holds: enough checks have failed, or the daemon has said so itself."""
        self.check_has_passed = False
        """Whether a check has passed since the start: then `start_period` is over."""
        self.self_reported_unhealthy = ""
        """Why the daemon is unhealthy by its own word (sd_notify(3)), "" where it is not."""
        self.check_ok: bool | None = None
        """What the last check said, None before the first."""
        self.check_at_ms: int | None = None
        """When it said so."""
        self.check_since_ms: int | None = None
        """Since when every check has said the same."""
        self.check_detail = ""
        """Why the last check or readiness probe failed, "" where it did not."""
        self.detail = ""
        """Why the process could not become the child's program."""
        self.text = ""
        """What the daemon says of itself by `STATUS=`."""
        self.reloading = False
        """Whether the daemon has said `RELOADING=1`, and not yet `READY=1` again."""
        self.said_ready = False
        """Whether the daemon has said `READY=1` since the init decided to take it down."""
        self.said_ill: bool | None = None
        """What it has said of its health since then: ill (`WATCHDOG=trigger`) or well (`WATCHDOG=1`); None: nothing."""
        self.watchdog_ms = 0
        """How often the daemon has promised `WATCHDOG=1`, 0 for never."""

    def copy(self) -> Child:
        """A record of its own with the same content, for one step to edit."""
        twin = Child.__new__(Child)
        for name in Child.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.timers = dict(self.timers)
        return twin


class State:
    """All that the core remembers between two steps. Nobody changes one: `step` returns a new one.

    `seen_ms` is when the last step was.
    `stop_signals` are the requests to stop that signals have made; `stop_noted_ms` is when the first one had been
    acted on, None before.

    `lease_at_ms` is when a lease is over that has to be renewed, `lease_due_ms` until when one on a peer is awaited
    that the init does not have yet; None for none.
    `told_barred` are the pids and births of the survivors of which the log says that they may not be killed.
    `keepers` are the indexes of the oneshots that keep a capability from those after them; `dropping` while the init is
    giving those up, `dropped` once it has.
    `needs[i]` are the indexes of all children that child `i` runs after, `dependents[i]` of all that
    run after it; both transitively.
    """

    __slots__ = (
        "bundle",
        "children",
        "code",
        "dependents",
        "dropped",
        "dropping",
        "finishing",
        "give_up_at_ms",
        "keepers",
        "lease_at_ms",
        "lease_due_ms",
        "needs",
        "phase",
        "seen_ms",
        "stop",
        "stop_noted_ms",
        "stop_signals",
        "survivors",
        "told_barred",
    )

    def __init__(self, bundle: Bundle, now_ms: int) -> None:
        self.bundle = bundle
        self.children: tuple[Child, ...] = tuple(
            Child(index, spec, now_ms) for index, spec in enumerate(bundle.children)
        )
        self.needs, self.dependents = _order(bundle)
        self.phase: str = UP
        self.seen_ms = now_ms
        self.stop: Stop | None = None
        self.stop_signals = 0
        self.stop_noted_ms: int | None = None
        self.code: int | None = None
        self.finishing = False
        self.keepers = tuple(index for index, spec in enumerate(bundle.children) if spec.keeps)
        self.dropping = self.dropped = False
        self.give_up_at_ms: int | None = None
        self.survivors: tuple[Survivor, ...] = ()
        self.told_barred: tuple[tuple[int, int | None], ...] = ()
        lease = bundle.lease
        self.lease_at_ms = now_ms + lease.renew_ms if lease is not None and lease.renew_ms is not None else None
        has_peer = lease is not None and lease.renew_ms is None
        self.lease_due_ms = now_ms + LEASE_PATIENCE_MS if has_peer else None

    def copy(self) -> State:
        """A shallow copy: the children are shared until a step edits one."""
        twin = State.__new__(State)
        for name in State.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin


def of_command(bundle: Bundle, pid: int, started_at_ms: int, *, stopping: bool, ended: bool) -> State:
    """What there is to see of one command, as of the one job of a bundle: `step` never gets this one."""
    state = State(bundle, started_at_ms)
    child = state.children[0]
    child.pid = pid
    child.generation = 1
    child.started_at_ms = started_at_ms
    child.status = ENDED if ended else RUNNING
    if stopping or ended:
        state.phase = GOING_DOWN
    return state


def _order(bundle: Bundle) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """`after` as indexes: all that each child runs after, and all that run after it, transitively."""
    index = {spec.name: position for position, spec in enumerate(bundle.children)}
    before = [[index[name] for name in spec.after] for spec in bundle.children]
    if not any(before):
        nobody = tuple(() for _ in before)
        return nobody, nobody
    after: list[list[int]] = [[] for _ in before]
    for child, wanted in enumerate(before):
        for other in wanted:
            after[other].append(child)
    everybody = range(len(before))
    return tuple(_reach(before, child) for child in everybody), tuple(_reach(after, child) for child in everybody)


def _reach(edges: list[list[int]], start: int) -> tuple[int, ...]:
    """Every node that can be reached from `start`, in ascending order."""
    found: dict[int, None] = {}
    todo = list(edges[start])
    while todo:
        node = todo.pop()
        if node not in found:
            found[node] = None
            todo.extend(edges[node])
    return tuple(sorted(found))
