"""What the core remembers: the state of the bundle and of each child, their deaths, what they left, the stop.

Everything here is frozen except `Child`, which is the one record that `step` edits, on a copy of
its own (see `turn.py`). Times are whole milliseconds on one monotonic clock, never wall-clock time.
"""

from __future__ import annotations

from bottle_init.core.values import Value
from bottle_init.core.words import ENDED, GOING_DOWN, NEXT_END, NO_HALT, RUNNING, UP, WAITING

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

    `signal` is 0 for a child that exited; `severity` is one of `verdict.py`'s ranks;
    `sent` says that the init sent or forwarded the signal it ended by, `forwarded` which one that was if it was
    forwarded; `stop_ms` is how long it took from its stop signal, None where none was sent.
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
    oom: bool = False
    stopping: bool = False
    brought_about: bool = False
    stop_ms: int | None = None
    detail: str = ""
    forwarded: Forwarded | None = None


class Survivor(Value):
    """A process that outlived its leader, as the report names it (contract 7).

    `born` tells it from another that has got its pid since: whatever the kernel counts starts in, None
    where that is not known. `dying`: it is no child's, and SIGKILL had been sent to it before, so it
    is waited for and not named.
    """

    pid: int
    name: str
    command: str = ""
    born: int | None = None
    dying: bool = False


class Stop(Value):
    """Why and until when the bundle stops. `code` is None where the stop's own deaths decide it."""

    kind: str
    cause: str
    at_ms: int
    deadline_ms: int
    code: int | None = None
    culprit: Death | None = None
    sender_pid: int = 0
    sender_uid: int | None = None


class Child:
    """What the core knows of one child.

    Invariants: `pid` is 0 exactly when no process is known to exist; `timers` holds only what
    belongs to the present `generation`; `ready` is what those waiting on this child see, and it
    outlives the process (contract 4), while `fresh` says that the present process is ready itself.
    `forwarded` and `waiting_signals` hold at most one for each signal that the child gets: the last one.
    """

    __slots__ = (
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
        "halt",
        "halt_at_ms",
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
        self.spec = spec
        self.status: str = WAITING
        self.since_ms = now_ms
        self.generation = 0
        self.ready = False
        self.ever_ready = False
        self.last_death: Death | None = None
        self.standing: Death | None = None
        self.restarts: tuple[int, ...] = ()
        self.streak = 0
        self.resume_at_ms = 0
        self.renew()

    def renew(self) -> None:
        """Forget everything that belonged to the process before."""
        self.pid = 0
        self.executed = False
        self.fresh = False
        self.started_at_ms = 0
        self.signalled_at_ms: int | None = None
        self.halt = NO_HALT
        self.halt_at_ms = 0
        self.next = NEXT_END
        self.sent = 0
        self.forwarded: tuple[Forwarded, ...] = ()
        self.waiting_signals: tuple[Forwarded, ...] = ()
        self.forced = False
        self.session_cleared = False
        self.survivors: tuple[Survivor, ...] = ()
        self.timers: dict[type[Any], int] = {}
        self.probe = 0
        self.probes = 0
        self.pause_ms = 0
        self.failures = 0
        self.unhealthy = False
        self.check_has_passed = False
        self.self_reported_unhealthy = ""
        self.check_ok: bool | None = None
        self.check_at_ms: int | None = None
        self.check_since_ms: int | None = None
        self.check_detail = ""
        self.detail = ""
        self.text = ""
        self.reloading = False
        self.watchdog_ms = 0

    def copy(self) -> Child:
        """A record of its own with the same content, for one step to edit."""
        twin = Child.__new__(Child)
        for name in Child.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.timers = dict(self.timers)
        return twin


class State:
    """All that the core remembers between two steps. Nobody changes one: `step` returns a new one.

    `stop_signals` are the requests to stop that signals have made; `stop_noted_ms` is when the first one had been
    acted on, None before.

    `lease_at_ms` is when a lease is over that has to be renewed, `lease_due_ms` until when one on a peer is awaited
    that the init does not have yet; None for none.
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
        "refused_signals",
        "stop",
        "stop_noted_ms",
        "stop_signals",
        "survivors",
    )

    def __init__(self, bundle: Bundle, now_ms: int) -> None:
        self.bundle = bundle
        self.children: tuple[Child, ...] = tuple(
            Child(index, spec, now_ms) for index, spec in enumerate(bundle.children)
        )
        self.needs, self.dependents = _order(bundle)
        self.phase: str = UP
        self.stop: Stop | None = None
        self.stop_signals = 0
        self.refused_signals = 0
        self.stop_noted_ms: int | None = None
        self.code: int | None = None
        self.finishing = False
        self.keepers = tuple(index for index, spec in enumerate(bundle.children) if spec.keeps)
        self.dropping = self.dropped = False
        self.give_up_at_ms: int | None = None
        self.survivors: tuple[Survivor, ...] = ()
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
