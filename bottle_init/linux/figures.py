"""Memory and CPU time of the children, each with all that is in its session, from one look at all processes (proc(5)).

The look is cut into slices, each a wake-up of its own: on a machine with thousands of processes it takes longer than a
signal is to wait.
"""

from __future__ import annotations

import posix

from bottle_init.linux.sys import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    Figures = dict[int, tuple[int, float]]
    """`(bytes of resident memory, seconds of CPU)` of each session, by the pid of its leader."""

SLICE: Final = 32
"""So many processes are looked at in one wake-up."""
FRESH_MS: Final = 1_000
"""So long a look is good for: however many ask, the processes are looked at once a second."""

_PAGE: Final = posix.sysconf("SC_PAGE_SIZE")
_TICKS: Final = posix.sysconf("SC_CLK_TCK")


class Sampler:
    """Looks when it is asked to. `clock` gives monotonic milliseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._left: list[str] = []
        self._found: Figures = {}
        self._done: Figures = {}
        self._done_at_ms: int | None = None
        self._waiting: list[Callable[[Figures], None]] = []

    def ask(self, then: Callable[[Figures], None]) -> None:
        """Call back with the figures: at once with those of less than a second ago, else after the next look."""
        if self._done_at_ms is not None and self._clock() - self._done_at_ms < FRESH_MS:
            then(self._done)
            return
        if not self._waiting:
            self._left = _pids()
            self._found = {}
        self._waiting.append(then)

    @property
    def is_looking(self) -> bool:
        """Whether `look_on` has anything to do."""
        return bool(self._waiting)

    def look_on(self) -> None:
        """Look at the next few processes; after the last, tell those who wait."""
        if not self._waiting:
            return
        here, self._left = self._left[:SLICE], self._left[SLICE:]
        for name in here:
            read = figures_of(proc.read(f"/proc/{name}/stat"))
            if read is not None:
                session, memory, cpu = read
                was_memory, was_cpu = self._found.get(session, (0, 0.0))
                self._found[session] = was_memory + memory, was_cpu + cpu
        if not self._left:
            self._done, self._done_at_ms = self._found, self._clock()
            waiting, self._waiting = self._waiting, []
            for then in waiting:
                then(self._done)


def _pids() -> list[str]:
    try:
        return [name for name in posix.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def figures_of(stat: bytes) -> tuple[int, int, float] | None:
    """`(session, bytes of resident memory, seconds of CPU)` from a line of /proc/PID/stat, None where it has none.

    The time of children that have been waited for is part of it: so the time of a session does not fall when one of its
    workers ends.
    """
    fields = stat.rpartition(b") ")[2].split()
    if len(fields) < 22:
        return None
    ticks = sum(int(field) for field in fields[11:15])
    return int(fields[3]), int(fields[21]) * _PAGE, ticks / _TICKS
