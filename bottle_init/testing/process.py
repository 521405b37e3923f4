"""One simulated process, and what has become of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.testing.pipes import Pipe
    from bottle_init.testing.scenario import End, Life, Remnant

KILL = 9


class Process:
    """One simulated process; a child of the bundle's (`remnant` is None), or something that one has started.

    `session` is the child's process whose session it is in, None for what has escaped; `ended` is
    set when it becomes a zombie, `reaped_ms` when its parent has taken it away; `asked_ms` when a survey sent it TERM.
    `serial` is never another's, as `pid` may be. `reports_ms` is when a child's program is executed, or would be.
    """

    __slots__ = (
        "asked_ms",
        "barred_ms",
        "born_ms",
        "child",
        "ended",
        "ended_ms",
        "executed_ms",
        "family",
        "generation",
        "killed_ms",
        "leader",
        "life",
        "pending",
        "pid",
        "pipe",
        "postponed",
        "reaped_ms",
        "refusal",
        "remnant",
        "reports_ms",
        "serial",
        "stopped",
        "surveyed",
        "writing_ms",
        "zombies",
    )

    def __init__(
        self,
        pid: int,
        child: int,
        generation: int,
        life: Life,
        remnant: Remnant | None,
        leader: Process | None,
        born_ms: int,
    ) -> None:
        self.pid = pid
        self.serial = 0
        self.child = child
        self.generation = generation
        self.life = life
        self.remnant = remnant
        self.leader = leader
        self.born_ms = born_ms
        self.executed_ms: int | None = None
        self.reports_ms = born_ms + life.exec_ms
        self.ended: End | None = None
        self.ended_ms: int | None = None
        self.reaped_ms: int | None = None
        self.killed_ms: int | None = None
        self.asked_ms: int | None = None
        self.surveyed = False
        self.barred_ms: int | None = None
        self.refusal = ""
        self.stopped = False
        self.pending: list[int] = []
        self.postponed: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.family: list[Process] = []
        self.zombies = 0
        self.pipe: Pipe | None = None
        self.writing_ms = 0

    @property
    def name(self) -> str:
        """How a survey names it."""
        return f"child-{self.child}" if self.remnant is None else f"remnant-{self.pid}"

    @property
    def is_dying(self) -> bool:
        """Whether it does nothing any more: it has ended, or SIGKILL has been sent to it."""
        return self.ended is not None or self.killed_ms is not None

    @property
    def is_writing(self) -> bool:
        """Whether it waits for room in its pipe."""
        return self.pipe is not None and bool(self.pipe.outgoing)

    def refuses(self, signal: int, now_ms: int) -> bool:
        """Whether the kernel does not let the init send it this signal; 0 is the question itself (kill(2))."""
        if self.remnant is not None:
            return self.remnant.refuses
        refused = self.life.refuses
        if not refused or self.executed_ms is None or now_ms < self.executed_ms + self.life.refuses_ms:
            return False
        return {"all": True, "stop": signal not in (0, KILL), "kill": signal == KILL}[refused]

    def is_barred(self, now_ms: int) -> bool:
        """Whether the init has seen that it may not kill it."""
        return self.barred_ms is not None and self.barred_ms <= now_ms

    def catches(self, signal: int, now_ms: int) -> bool:
        """Whether it has a handler for the signal."""
        if self.executed_ms is None or now_ms < self.executed_ms + self.life.handlers_ms:
            return False
        return signal in self.life.catches
