"""One step's own copy of the state: what the rules read and write between two wake-ups.

The rules (`starting.py`, `stopping.py`, `policy.py`, `health.py`) are functions of a `Turn`, a
`Child` and an event. They edit only records that `edit` has handed out, which are copies, so the
state that `step` was given stays as it was.
"""

from __future__ import annotations

from bottle_init.core.actions import CancelProbe, LogEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.core.actions import Action
    from bottle_init.core.events import Timer
    from bottle_init.core.state import Child, State


class Turn:
    """A mutable copy of `state` at `now_ms`, and the actions decided so far."""

    __slots__ = ("actions", "children", "edited", "now_ms", "others_ended", "state", "sweep")

    def __init__(self, state: State, now_ms: int) -> None:
        self.state = state.copy()
        self.now_ms = now_ms
        self.children: list[Child] = list(state.children)
        self.edited: dict[int, None] = {}
        self.actions: list[Action] = []
        self.sweep: list[int] = []
        self.others_ended = False

    def edit(self, index: int) -> Child:
        """The child's record, as a copy of this turn's own."""
        if index not in self.edited:
            self.edited[index] = None
            self.children[index] = self.children[index].copy()
        return self.children[index]

    def act(self, action: Action) -> None:
        """Decide one action."""
        self.actions.append(action)

    def log(self, event: str, child: Child | None = None, level: str = "info", **facts: object) -> None:
        """Decide to tell the log and the followers of an event."""
        self.act(LogEvent(event, child.spec.name if child else "", level, tuple(facts.items())))

    def move(self, child: Child, status: str) -> None:
        """Set a child's status; `supervisor.py` checks each move against the table."""
        if child.status != status:
            child.status = status
            child.since_ms = self.now_ms

    def set_timer(self, child: Child, timer: type[Timer], after_ms: int) -> None:
        """Let `timer` come to this child `after_ms` from now, instead of whenever it was to come."""
        child.timers[timer] = self.now_ms + after_ms

    def drop_timers(self, child: Child, *timers: type[Timer]) -> None:
        """Let these timers not come to this child."""
        for timer in timers:
            child.timers.pop(timer, None)

    def drop_probe(self, child: Child) -> None:
        """Forget the probe that is out, if one is."""
        if child.probe:
            self.act(CancelProbe(child.index, child.generation, child.probe))
            child.probe = 0
