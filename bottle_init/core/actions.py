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
    """Send a signal to the child alone. Answered at once: by `SignalRefused` where the kernel does not let it through.

    One that an operator has ordered, by `request`, is always answered, by `OrderedSignalSent`.
    """

    child: int
    generation: int
    signal: int
    request: int = 0


class ForwardSignal(Action):
    """Pass a signal that reached the init on to each of `targets`. Answered by `SignalForwarded`, at once.

    A target is `(child, generation, signal)`: what the child gets may be another signal than the one that came.
    `waiting` and `passed_over` are the names of all other children, each with the reason; the answer
    carries them on into the event that says where the signal went. `late`: it came before the target was ready.
    """

    signal: int
    targets: tuple[tuple[int, int, int], ...]
    sender_pid: int = 0
    sender_uid: int | None = None
    waiting: tuple[tuple[str, str], ...] = ()
    passed_over: tuple[tuple[str, str], ...] = ()
    late: bool = False


class NoteTime(Action):
    """Say when the actions before this one have been carried out: `TimeNoted` answers, in a step at that time."""


class KillSession(Action):
    """SIGKILL the child, if it is still there, and every process of its session. `SessionKilled` answers, at once."""

    child: int
    generation: int


class DropCapabilities(Action):
    """Take these capabilities out of every set of the init's own. Answered by `CapabilitiesDropped`, at once."""

    names: tuple[str, ...]


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


class LogEvent(Action):
    """Write one event of the init's own to its log, and to whoever follows. `child` is "" for the bundle's.

    `level` is a structlog level name, `facts` are further `(key, value)` pairs of the record. The name of the process
    `sender_pid` is added as `sender_name`, and kept for the report; 0 for none.
    """

    event: str
    child: str = ""
    level: str = "info"
    facts: tuple[tuple[str, object], ...] = ()
    sender_pid: int = 0


class NoteStop(Action):
    """The stop of the bundle begins: wait for no reader of the logs any more, and keep the name of who asked for it.

    At the end another process may have that pid; 0 where no process is known to have asked.
    """

    sender_pid: int = 0


class Exit(Action):
    """The bundle has ended: report and exit with `code`. Nothing comes after it.

    `hint` is what a person may try, "" for nothing.
    """

    code: int
    stop: Stop
    deaths: tuple[Death, ...]
    survivors: tuple[Survivor, ...]
    ended_at_ms: int
    hint: str = ""
