"""What to do: the core's only output, in the imperative.

Whoever runs the core carries them out in order. What a syscall answers comes back as an event
(`Spawn` by `ChildForked` or `ForkFailed`, a survey by what was found), handed to the next step
before anything else is looked at.
"""

from __future__ import annotations

from bottle_init.core.spec import Probe
from bottle_init.core.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.core.state import Death, Stop, Survivor


class Action(Value):
    """Base of all actions."""


class Spawn(Action):
    """Fork and execute the child. Answered by `ChildForked` or `ForkFailed`, at once."""

    child: int
    generation: int


class SendSignal(Action):
    """Send a signal to the child alone."""

    child: int
    generation: int
    signal: int


class ForwardSignal(Action):
    """Send a signal to the child if it catches it. Answered by `SignalForwarded` where it was sent."""

    child: int
    generation: int
    signal: int


class KillSession(Action):
    """SIGKILL the child, if it is still there, and every process of its session."""

    child: int
    generation: int


class SurveySession(Action):
    """Send a signal to what is left of a dead child's session; `SessionSurveyed` answers, at once.

    TERM goes to each process once, however often it is found.
    """

    child: int
    generation: int
    signal: int


class SurveyTree(Action):
    """Send a signal to all that is left of the init's descendants; `TreeSurveyed` answers, at once.

    TERM goes to each process once, however often it is found. SIGKILL goes to everything below the init that
    there is, the children included.
    """

    signal: int


class StartProbe(Action):
    """Start a probe of the child's; `ProbeSucceeded` or `ProbeFailed` with this number answers, later."""

    child: int
    generation: int
    probe: int
    how: Probe


class CancelProbe(Action):
    """Drop a probe that is out, and kill what it has started. No answer is awaited."""

    child: int
    generation: int
    probe: int


class Answer(Action):
    """Answer a request of the control socket."""

    request: int
    done: bool
    text: str


class Announce(Action):
    """Write one event of the init's own to its log, and to whoever follows. `child` is "" for the bundle's.

    `level` is a structlog level name, `facts` are further `(key, value)` pairs of the record.
    """

    event: str
    child: str = ""
    level: str = "info"
    facts: tuple[tuple[str, object], ...] = ()


class NoteStop(Action):
    """The stop of the bundle begins: wait for no reader of the logs any more, and keep the name of who asked for it.

    At the end another process may have that pid; 0 where no process is known to have asked.
    """

    sender_pid: int = 0


class Exit(Action):
    """The bundle has ended: report and exit with `code`. Nothing comes after it."""

    code: int
    stop: Stop
    deaths: tuple[Death, ...]
    survivors: tuple[Survivor, ...]
    ended_at_ms: int
