"""A trace as people read it: what happened, and what the init did about it, in virtual time."""

from __future__ import annotations

from dataclasses import MISSING, fields
from heapq import merge
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from bottle_init.core import actions as acts
from bottle_init.core import events as happened
from bottle_init.core.spec import Bundle, Probe, Spec
from bottle_init.core.values import Value
from bottle_init.testing.scenario import Life, Remnant, Say, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bottle_init.core.actions import Action
    from bottle_init.core.events import Event
    from bottle_init.testing.invariants import Violation
    from bottle_init.testing.pipes import Logs
    from bottle_init.testing.scenario import Scenario, Stall
    from bottle_init.testing.world import Trace

SIGNALS = {
    0: "nothing",
    1: "HUP",
    2: "INT",
    3: "QUIT",
    6: "ABRT",
    9: "KILL",
    10: "USR1",
    11: "SEGV",
    12: "USR2",
    13: "PIPE",
    15: "TERM",
    18: "CONT",
    19: "STOP",
    28: "WINCH",
}


ODDITIES = {
    "one_pipe": "stdout and stderr of the init are one pipe",
    "jumbled": "what happens in one wake-up is seen in the reverse order",
    "recycled": "a new process gets the pid that was freed last",
    "late_answers": "probes that were dropped answer nevertheless",
    "drop_error": "the kernel takes no capability away from the init",
}
"""What a scenario says of the machine."""


def render(trace: Trace, violations: list[Violation] | None = None, *, bundle: bool = True) -> str:
    """The whole run as a table of `time  what`; `!` marks what was broken. The script of the run comes first.

    `bundle` says whether what is special about the bundle is told as well.
    """
    lines = [*describe(trace.scenario, bundle=bundle), ""]
    names = [spec.name for spec in trace.scenario.bundle.children]
    clock = -1
    for at_ms, line in _merged(_steps(trace, names), _story(trace)):
        lines.append(f"{'' if at_ms == clock else _clock(at_ms):>11}  {line}")
        clock = at_ms
    lines.extend(f"{_clock(broken.at_ms):>11}  ! {broken.invariant}: {broken.what}" for broken in violations or ())
    return "\n".join(lines)


def _steps(trace: Trace, names: list[str]) -> Iterator[tuple[int, str]]:
    for step in trace.steps:
        told = [*(_event(event, names) for event in step.events), *(_action(action, names) for action in step.actions)]
        yield from ((step.now_ms, line) for line in told if line)


def _story(trace: Trace) -> Iterator[tuple[int, str]]:
    """What became of the lines."""
    told = [*trace.logs.story, *_losses(trace.logs)] if trace.logs is not None else []
    for stall in trace.scenario.stalls:
        turns = (
            (stall.at_ms, f"the reader of the logs {_takes(stall)}"),
            (stall.at_ms + stall.for_ms, "the reader of the logs reads again"),
        )
        told.extend(turn for turn in turns if turn[0] <= trace.end_ms)
    for at_ms, line in sorted(told, key=itemgetter(0)):
        yield at_ms, f"~ {line}"


def _losses(logs: Logs) -> Iterator[tuple[int, str]]:
    """What was dropped, one line for all of a child's that were dropped at the same time."""
    counts: dict[tuple[int, str], int] = {}
    for loss in logs.losses:
        counts[loss.at_ms, loss.name] = counts.get((loss.at_ms, loss.name), 0) + loss.count
    for (at_ms, name), count in counts.items():
        yield at_ms, f"{count} lines of {name or 'the init'} are dropped"


def _merged(*stories: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    return merge(*stories, key=itemgetter(0))


def _takes(stall: Stall) -> str:
    return f"takes {stall.sip_bytes} bytes twice a second" if stall.sip_bytes else "takes nothing"


def describe(scenario: Scenario, *, bundle: bool = True) -> Iterator[str]:
    """The script of a run, only where it differs from a good day: who behaves how."""
    if bundle:
        yield f"bundle: {_special(scenario.bundle, Bundle(())) or 'as by default'}"
    for spec, lives in zip(scenario.bundle.children, scenario.lives, strict=True):
        facts = _special(spec, Spec(spec.name, "", ())) if bundle else ""
        odd = [f"  start {number}: {brief(life)}" for number, life in enumerate(lives, 1) if life != Life()]
        if facts or odd:
            yield f"{spec.name}: {facts}".rstrip(": ") + (":" if odd else "")
        yield from odd
    for freeze in scenario.freezes:
        who = "everything is frozen" if freeze.whole else "the init is not scheduled"
        yield f"{who} from {_clock(freeze.at_ms)} on, for {_clock(freeze.for_ms)}"
    for stall in scenario.stalls:
        yield f"the reader of the logs {_takes(stall)} from {_clock(stall.at_ms)} on, for {_clock(stall.for_ms)}"
    if scenario.descriptors is not None:
        yield f"the init may have {scenario.descriptors} descriptors open for its children"
    yield from (text for name, text in ODDITIES.items() if getattr(scenario, name))


def _special(value: Value, plain: Value) -> str:
    """The fields of a core value that differ from a plain one's."""
    hidden = ("name", "command", "children", "process")
    return ", ".join(
        f"{name}={brief(content)}"
        for (name, content), (_, default) in zip(value.fields(), plain.fields(), strict=True)
        if name not in hidden and content != default
    )


def brief(value: object) -> str:
    """A value as one would write it: without the fields that are at their default."""
    if isinstance(value, Life | Remnant | Say | Write):
        shown = [
            f"{field.name}={brief(getattr(value, field.name))}"
            for field in fields(value)
            if field.default is MISSING or getattr(value, field.name) != field.default
        ]
        return ", ".join(shown) if isinstance(value, Life) else f"{type(value).__name__}({', '.join(shown)})"
    if isinstance(value, Probe):
        return f"{value.kind} {' '.join(value.command) or value.path or value.port or ''}".strip()
    if isinstance(value, tuple) and not isinstance(value, Value):
        return f"[{', '.join(map(brief, value))}]"
    if isinstance(value, Value):
        return f"{{ {', '.join(f'{name} = {brief(content)}' for name, content in value.fields())} }}"
    return str(value)


def _clock(at_ms: int) -> str:
    return f"{at_ms // 1000}.{at_ms % 1000:03d} s"


def _signal(number: int) -> str:
    return SIGNALS.get(number, f"signal {number}")


def _event(event: Event, names: list[str]) -> str:
    if isinstance(event, happened.SignalForwarded):
        told = ", ".join(names[child] for child in event.sent)
        return f"  {_signal(event.order.signal)} has gone to {told or 'no child'}"
    say = _EVENTS.get(type(event))
    name = names[event.child] if hasattr(event, "child") else ""
    return say(event, name) if say is not None else f"> {event!r}"


def _action(action: Action, names: list[str]) -> str:
    if isinstance(action, acts.ForwardSignal):
        told = [f"{_signal(signal)} to {names[child]}" for child, _, signal in action.targets]
        return f"    forward {_signal(action.signal)}{' late' if action.late else ''}: {', '.join(told)}"
    say = _ACTIONS.get(type(action))
    child = getattr(action, "child", "")
    name = names[child] if isinstance(child, int) else ""
    return f"    {say(action, name)}" if say is not None else ""


def _exited(event: happened.ChildExited, name: str) -> str:
    how = f"is killed by {_signal(event.signal)}" if event.signal else f"exits with {event.code}"
    return f"> {name} {how}{' (out of memory)' if event.oom else ''}"


def _surveyed(event: happened.SessionSurveyed | happened.TreeSurveyed, name: str) -> str:
    where = f"the session of {name}" if name else "the tree"
    count = len(event.survivors)
    return f"  of {where} there {'is' if count == 1 else 'are'} {count or 'none'} left"


def _notified(event: happened.Notified, name: str) -> str:
    said = [f"{key}={value!r}" for key, value in event.fields()[2:] if value]
    return f"> {name} notifies: {', '.join(said)}"


def _with(signal: int) -> str:
    return f", send {_signal(signal)}" if signal else ""


_EVENTS: dict[type[Event], Callable[[Any, str], str]] = {
    happened.SignalReceived: lambda event, _: f"> the init gets {_signal(event.signal)}",
    happened.StopOrdered: lambda _, __: "> somebody orders: stop",
    happened.LeaseTaken: lambda _, __: "> the peer of the lease is there",
    happened.LeaseEnded: lambda event, _: f"> the lease ends: {event.reason}",
    happened.LeaseRenewed: lambda _, __: "> the lease is renewed",
    happened.ChildStopOrdered: lambda _, name: f"> somebody orders: stop {name}",
    happened.ChildStartOrdered: lambda _, name: f"> somebody orders: start {name}",
    happened.ChildRestartOrdered: lambda _, name: f"> somebody orders: restart {name}",
    happened.ChildSignalOrdered: lambda event, name: f"> somebody orders: signal {name} {_signal(event.signal)}",
    happened.ChildForked: lambda event, name: f"  {name} is forked as {event.pid}",
    happened.ForkFailed: lambda event, name: f"  {name} cannot be forked: {event.reason}",
    happened.ChildExecuted: lambda _, name: f"> {name} runs",
    happened.ExecFailed: lambda event, name: f"> {name} cannot be executed: {event.reason}",
    happened.ChildExited: _exited,
    happened.ProbeSucceeded: lambda _, name: f"> {name} answers its probe",
    happened.ProbeFailed: lambda event, name: f"> {name} fails its probe: {event.reason}",
    happened.Notified: _notified,
    happened.SignalRefused: lambda event, name: f"  {_signal(event.signal)} to {name} is refused: {event.reason}",
    happened.OrderedSignalSent: lambda event, _: f"  {_signal(event.order.signal)} by order: {event.reason or 'sent'}",
    happened.SessionKilled: lambda event, name: f"  SIGKILL to {name}: {event.reason or 'sent'}",
    happened.CapabilitiesDropped: lambda event, _: f"  {event.reason or 'the init has them no more'}",
    happened.TimeNoted: lambda _, __: "  all of that has been done",
    happened.SessionSurveyed: _surveyed,
    happened.TreeSurveyed: _surveyed,
    happened.SurvivorEnded: lambda event, _: f"> {event.pid} has ended, and is another's to reap",
    happened.OrphansReaped: lambda event, _: f"> {event.count} orphan{'s' if event.count > 1 else ''} reaped",
}

_ACTIONS: dict[type[Action], Callable[[Any, str], str]] = {
    acts.Spawn: lambda action, name: (
        f"start {name}" + (f" (start {action.generation})" if action.generation > 1 else "")
    ),
    acts.SendSignal: lambda action, name: f"send {_signal(action.signal)} to {name}",
    acts.DropCapabilities: lambda action, _: f"give up {', '.join(action.names)}",
    acts.NoteTime: lambda _, __: "say when that has been done",
    acts.KillSession: lambda _, name: f"kill {name} and its session",
    acts.SurveySession: lambda action, name: f"look for the session of {name}{_with(action.signal)}",
    acts.SurveyTree: lambda action, _: f"look for the whole tree{_with(action.signal)}",
    acts.StartProbe: lambda action, name: f"probe {name} ({action.how.kind})",
    acts.CancelProbe: lambda _, name: f"drop the probe of {name}",
    acts.Exit: lambda action, _: f"EXIT {action.code} ({action.stop.kind}: {action.stop.cause})",
}
