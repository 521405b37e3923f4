"""A trace as people read it: what happened, and what the init did about it, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bottle_init.core import actions as acts
from bottle_init.core import events as happened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bottle_init.core.actions import Action
    from bottle_init.core.events import Event
    from bottle_init.core.model import Bundle
    from bottle_init.testing.invariants import Violation
    from bottle_init.testing.scenario import Scenario
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


def render(trace: Trace, violations: list[Violation] | None = None) -> str:
    """The whole run as a table of `time  what`; `!` marks what was broken."""
    lines = [*describe(trace.scenario), ""]
    names = [spec.name for spec in trace.scenario.bundle.children]
    clock = -1
    for step in trace.steps:
        told = [*(_event(event, names) for event in step.events), *(_action(action, names) for action in step.actions)]
        for line in told:
            if line:
                lines.append(f"{'' if step.now_ms == clock else _clock(step.now_ms):>11}  {line}")
                clock = step.now_ms
    for violation in violations or ():
        lines.append(f"{_clock(violation.at_ms):>11}  ! {violation.invariant}: {violation.what}")
    return "\n".join(lines)


def describe(scenario: Scenario) -> Iterator[str]:
    """The bundle and the script of this run, only where they say something."""
    bundle = scenario.bundle
    yield f"bundle: {_facts(bundle.but(children=())) or 'as by default'}"
    for spec, lives in zip(bundle.children, scenario.lives, strict=True):
        yield f"  {spec.name}: {_facts(spec)}".rstrip()
        for number, life in enumerate(lives, 1):
            behaviour = _non_default(life)
            yield f"    life {number}: {behaviour or 'well behaved'}"
    for freeze in scenario.freezes:
        yield f"  the init is not scheduled from {_clock(freeze.at_ms)} on, for {_clock(freeze.for_ms)}"


def _facts(value: Bundle | object) -> str:
    """The fields of a core value that are not at their default."""
    defaults = getattr(type(value), "_defaults", {})
    shown = []
    for name, content in value.fields():  # type: ignore[attr-defined]
        if name not in ("name", "command", "children", "process") and content != defaults.get(name, object()):
            shown.append(f"{name}={content!r}")
    return ", ".join(shown)


def _non_default(life: object) -> str:
    plain = type(life)()
    names: tuple[str, ...] = life.__dataclass_fields__.keys()  # type: ignore[attr-defined]
    facts = [f"{name}={getattr(life, name)}" for name in names if getattr(life, name) != getattr(plain, name)]
    return ", ".join(facts)


def _clock(at_ms: int) -> str:
    return f"{at_ms // 1000}.{at_ms % 1000:03d} s"


def _signal(number: int) -> str:
    return SIGNALS.get(number, f"signal {number}")


def _event(event: Event, names: list[str]) -> str:
    name = names[event.child] if hasattr(event, "child") else ""
    match event:
        case happened.SignalReceived(signal=signal):
            return f"> the init gets {_signal(signal)}"
        case happened.StopOrdered():
            return "> somebody orders: stop"
        case happened.LeaseEnded(reason=reason):
            return f"> the lease ends: {reason}"
        case happened.ChildForked(pid=pid):
            return f"  {name} is forked as {pid}"
        case happened.ForkFailed(reason=reason):
            return f"  {name} cannot be forked: {reason}"
        case happened.ExecFailed(reason=reason):
            return f"> {name} cannot be executed: {reason}"
        case happened.ChildExited(code=code, signal=signal, oom=oom):
            how = f"is killed by {_signal(signal)}" if signal else f"exits with {code}"
            return f"> {name} {how}{' (out of memory)' if oom else ''}"
        case happened.ChildSignalOrdered(signal=signal):
            return f"> somebody orders: signal {name} {_signal(signal)}"
        case happened.ChildStopOrdered():
            return f"> somebody orders: stop {name}"
        case happened.ChildStartOrdered():
            return f"> somebody orders: start {name}"
        case happened.ChildRestartOrdered():
            return f"> somebody orders: restart {name}"
        case happened.SignalForwarded(signal=signal):
            return f"  {name} catches {_signal(signal)}"
        case happened.SessionSurveyed(survivors=survivors) | happened.TreeSurveyed(survivors=survivors):
            where = f"the session of {name}" if name else "the tree"
            return f"  of {where} there {'is' if len(survivors) == 1 else 'are'} {len(survivors) or 'none'} left"
        case happened.OrphansReaped(count=count):
            return f"> {count} orphan{'s' if count > 1 else ''} reaped"
        case happened.ChildExecuted():
            return f"> {name} runs"
        case happened.ProbeSucceeded():
            return f"> {name} answers its probe"
        case happened.ProbeFailed(reason=reason):
            return f"> {name} fails its probe: {reason}"
        case happened.Notified():
            said = [f"{key}={value!r}" for key, value in event.fields()[2:] if value]
            return f"> {name} notifies: {', '.join(said)}"
        case _:
            return f"> {event!r}"


def _action(action: Action, names: list[str]) -> str:
    name = names[action.child] if isinstance(getattr(action, "child", ""), int) else ""
    match action:
        case acts.Spawn(generation=generation):
            return f"    start {name}" + (f", for the {generation}. time" if generation > 1 else "")
        case acts.SendSignal(signal=signal):
            return f"    send {_signal(signal)} to {name}"
        case acts.ForwardSignal(signal=signal):
            return f"    forward {_signal(signal)} to {name}, if it catches it"
        case acts.KillSession():
            return f"    kill {name} and its session"
        case acts.SurveySession(signal=signal):
            return f"    look for the session of {name}" + (f", send {_signal(signal)}" if signal else "")
        case acts.SurveyTree(signal=signal):
            return "    look for the whole tree" + (f", send {_signal(signal)}" if signal else "")
        case acts.StartProbe(how=how):
            return f"    probe {name} ({how.kind})"
        case acts.CancelProbe():
            return f"    drop the probe of {name}"
        case acts.Exit(code=code, stop=stop):
            return f"    EXIT {code} ({stop.kind}: {stop.cause})"
        case _:
            return ""
