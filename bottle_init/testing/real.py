"""The same script, played to the simulated kernel and to Linux: does the simulation tell the truth?

On Linux a real init runs stand-ins (`standin.py`) that behave as the scenario says; in the simulated
kernel the same scenario is played many times, each time with its moments shifted by up to a third
of a second, as a busy machine does it. What all those lives have in common has to be so on Linux as
well: what became of each child, in order; everything that always came before something else; the
exit code, the kind of the stop, the deaths of the report. A scenario whose outcome hangs on a
moment is refused, since it says nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from random import Random
from select import select
from threading import Thread
from typing import TYPE_CHECKING, Any

from bottle_init.bundle.written import document_of, toml_of
from bottle_init.core import events as happened
from bottle_init.core.actions import LogEvent
from bottle_init.core.spec import Bundle, ExecSettings, Probe, Spec
from bottle_init.core.values import Value
from bottle_init.core.verdict import SEVERITIES
from bottle_init.testing.pipes import SIP_MS
from bottle_init.testing.scenario import Life, Scenario
from bottle_init.testing.strategies import Dice, draw_scenario
from bottle_init.testing.world import simulate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bottle_init.testing.scenario import Remnant, Request, Say, Stall, Write
    from bottle_init.testing.world import Trace

STANDIN = Path(__file__).with_name("standin.py")
PACKAGES = Path(__file__).parents[2]
SHIFT_MS = 330
SHIFTS = 40
PATIENCE_S = 180.0
WARM_UP_MS = 2_000
"""Nothing is asked of a real init before it and its stand-ins surely run."""

TICK_S = 0.02

SPANS = ("sick", "hangs")
"""The fields of a scenario that are spans of time; all other times are fields whose names end with `_ms`."""

LATE = ("exec_ms", "handlers_ms", "run_ms", "stop_ms", "dies_ms", "kill_ms", "stopped_ms", "ready_ms", "probe_ms")

TOLD = ("code", "signal", "severity", "kind", "restart")
"""The facts of an event that do not depend on the machine."""

PLAYABLE = ("deaths", "own-code", "deaf", "suspended", "remnants", "escapes", "signals", "stops", "orders", "stalls")
"""The faults of `strategies.py` that a stand-in can act."""

Mark = tuple[str, int]
"""The nth event of a child's, or of the bundle's (`""`)."""


class Undecided(Exception):
    """The scenario's outcome hangs on a moment; it cannot be compared."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one run told: every event in order, the exit code, and the deaths of the report.

    `lines` is how many the children wrote: those that arrived, and those that are counted as dropped. `dropped` is
    whether any was. Which ones always hangs on moments, and where a writer is killed, these two may do so as well.
    """

    events: tuple[tuple[str, str, tuple[object, ...]], ...]
    code: int
    deaths: tuple[tuple[object, ...], ...]
    survivors: int
    lines: int
    dropped: bool

    def by_child(self) -> dict[str, list[tuple[str, tuple[object, ...]]]]:
        """Each child's own story, in order."""
        stories: dict[str, list[tuple[str, tuple[object, ...]]]] = {}
        for name, child, facts in self.events:
            stories.setdefault(child, []).append((name, facts))
        return stories

    def marks(self) -> dict[Mark, int]:
        """Where in the whole each child's nth event stands."""
        counts: dict[str, int] = {}
        places: dict[Mark, int] = {}
        for place, (_, child, _) in enumerate(self.events):
            places[child, counts.get(child, 0)] = place
            counts[child] = counts.get(child, 0) + 1
        return places


def compare(scenario: Scenario, directory: Path, *, seed: str = "0", attempts: int = 3) -> list[str]:
    """Where Linux and the simulated kernel differ on this scenario; empty where they agree.

    A machine may be late by more than the simulated ones are. So each further attempt plays the scenario at half the
    pace of the one before, and a difference counts only if it is there in all of them; one that is in the rules always
    is. Raises Undecided where the scenario's outcome hangs on a moment.
    """
    expected = decide(scenario, seed=seed)
    found: list[str] = []
    for attempt in range(attempts):
        place = directory / str(attempt)
        place.mkdir()
        found = differences(expected, play(scenario, place))
        if not found:
            break
        slower = slowed(scenario, 2)
        try:
            expected, scenario = decide(slower, seed=seed), slower
        except Undecided:
            continue  # Some of the init's own times do not slow down with it.
    return found


def slowed(value: Any, factor: int) -> Any:
    """A scenario, or a part of one, with every time in it multiplied."""
    if isinstance(value, Value):
        return value.replace(**{name: _slowed_field(name, content, factor) for name, content in value.fields()})
    if isinstance(value, tuple):
        return tuple(slowed(each, factor) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        return replace(value, **{name: _slowed_field(name, getattr(value, name), factor) for name in names})
    return value


def _slowed_field(name: str, content: Any, factor: int) -> Any:
    if name in SPANS:
        return tuple((start * factor, end * factor) for start, end in content)
    if name.endswith("_ms"):
        return None if content is None else content * factor
    return slowed(content, factor)


def decide(scenario: Scenario, *, seed: str = "0") -> list[Told]:
    """The scenario in the simulated kernel, with its moments shifted in many ways. Raises Undecided."""
    random = Random(seed)  # noqa: S311 - chance, not secrecy
    lives = [told_by(simulate(scenario)), *(told_by(simulate(shifted(scenario, random))) for _ in range(SHIFTS))]
    for life in lives[1:]:
        if _outcome(life) != _outcome(lives[0]):
            raise Undecided
    return lives


def _outcome(life: Told) -> tuple[object, ...]:
    """What must not hang on a moment: all but the lines, and the order in which different children did things."""
    return life.by_child(), life.code, life.deaths, life.survivors


def differences(expected: list[Told], real: Told) -> list[str]:
    """What is not so on Linux although all simulated lives have it in common."""
    one = expected[0]
    found: list[str] = []
    if real.code != one.code:
        found.append(f"exit code: simulated {one.code}, real {real.code}")
    for child in sorted({*one.by_child(), *real.by_child()}):
        simulated, seen = one.by_child().get(child), real.by_child().get(child)
        if simulated != seen:
            found.append(f"{child or 'the bundle'}:\n  simulated {simulated}\n  real      {seen}")
    if real.deaths != one.deaths:
        found.append(f"deaths:\n  simulated {one.deaths}\n  real      {real.deaths}")
    if real.survivors != one.survivors:
        found.append(f"survivors: simulated {one.survivors}, real {real.survivors}")
    if real.lines != one.lines and all(life.lines == one.lines for life in expected):
        found.append(f"lines: simulated {one.lines}, real {real.lines}")
    if real.dropped != one.dropped and all(life.dropped == one.dropped for life in expected):
        found.append(f"whether lines were dropped: simulated {one.dropped}, real {real.dropped}")
    if not found:
        found.extend(_disorder([life.marks() for life in expected], real.marks()))
    return found


def _disorder(simulated: list[dict[Mark, int]], real: dict[Mark, int]) -> Iterator[str]:
    for one, place in real.items():
        for other, later in real.items():
            if place > later and all(places[one] < places[other] for places in simulated):
                yield f"order: {one} comes before {other} in every simulated life, and after it on Linux"


def draw_real(seed: str, run: int, bundle: Bundle) -> Scenario:
    """A run that this machine can play: with faults that need no help of the kernel, and of a few seconds."""
    draw = Dice(Random(f"{seed}/real/{run}"))  # noqa: S311 - chance, not secrecy
    scenario = draw_scenario(draw, bundle.replace(lease=None), faults=PLAYABLE)
    requests = tuple(replace(request, at_ms=request.at_ms + WARM_UP_MS) for request in scenario.requests)
    return replace(scenario, requests=requests, stop_at_ms=draw.pick((5_000, 9_000)), one_pipe=False)


# The simulated kernel.


def told_by(trace: Trace) -> Told:
    """What a simulated run told. Raises RuntimeError for one that did not come to its end."""
    done = trace.exit
    if done is None:
        raise RuntimeError(str(trace.crash or trace.stuck))
    logged = [action for step in trace.steps for action in step.actions if isinstance(action, LogEvent)]
    return Told(
        tuple(_event(action.event, action.child, dict(action.facts)) for action in logged),
        done.code,
        tuple((death.name, death.code, SEVERITIES[death.severity], death.sent, death.forced) for death in done.deaths),
        len(done.survivors),
        trace.logs.begun() if trace.logs is not None else 0,
        dropped=trace.logs is not None and trace.logs.dropped() > 0,
    )


def _event(name: str, child: str, facts: dict[str, Any]) -> tuple[str, str, tuple[object, ...]]:
    return name, child, tuple(facts.get(fact) for fact in TOLD)


def shifted(scenario: Scenario, random: Random) -> Scenario:
    """The scenario as a busy machine might play it."""

    def late(at_ms: int | None) -> int | None:
        return None if at_ms is None else at_ms + int(random.random() * SHIFT_MS)

    def shift(value: Any, *names: str) -> Any:
        return replace(value, **{name: late(getattr(value, name)) for name in names})

    def shift_life(life: Life) -> Life:
        moved: Life = shift(life, *LATE)
        return replace(
            moved,
            says=tuple(shift(say, "at_ms") for say in life.says),
            writes=tuple(shift(write, "at_ms") for write in life.writes),
            leaves=tuple(shift(remnant, "born_ms", "run_ms", "stop_ms", "kill_ms") for remnant in life.leaves),
            sick=tuple((start + (late(0) or 0), end + (late(0) or 0)) for start, end in life.sick),
        )

    moved: Scenario = shift(scenario, "stop_at_ms")
    return replace(
        moved,
        lives=tuple(tuple(map(shift_life, lives)) for lives in scenario.lives),
        requests=tuple(shift(request, "at_ms") for request in scenario.requests),
        stalls=tuple(shift(stall, "at_ms", "for_ms") for stall in scenario.stalls),
    )


# Linux.


def play(scenario: Scenario, directory: Path) -> Told:
    """The scenario on this machine: a real init as a subreaper, with stand-ins for the children."""
    bundle = directory / "bundle.toml"
    report = directory / "report.json"
    control = f"@bottle-testing-{os.getpid()}-{time.monotonic_ns()}"
    bundle.write_text(toml_of(document_of(standing_in(scenario, directory))))
    command = [sys.executable, "-m", "bottle_init", "--config", str(bundle), "--report", str(report)]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGES), "BOTTLE_INIT_CONTROL": control}
    out, stdout = os.pipe()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, env=environment, text=True
    ) as init:
        os.close(stdout)
        reader = LineReader(out, scenario.stalls, init)
        reader.start()
        timer = Thread(target=_ask, args=(scenario, init, environment), daemon=True)
        timer.start()
        try:
            _, log = init.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            init.send_signal(signal.SIGTERM)
            init.kill()
            raise
    reader.join(PATIENCE_S)
    return _read(log, json.loads(report.read_text()), init.returncode, reader.lines)


class LineReader(Thread):
    """Reads the init's stdout as the scenario says, and counts the lines; all that is left once the init has ended."""

    def __init__(self, fd: int, stalls: tuple[Stall, ...], init: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.lines = 0
        self._fd = fd
        self._stalls = stalls
        self._init = init

    def run(self) -> None:
        """Read to the end."""
        started_s = time.monotonic()
        while True:
            at_ms = (time.monotonic() - started_s) * 1_000
            stall = next((one for one in self._stalls if one.at_ms <= at_ms < one.at_ms + one.for_ms), None)
            if stall is None or self._init.returncode is not None:
                if select([self._fd], [], [], TICK_S)[0] and not self._take(1 << 20):
                    break
            else:
                time.sleep(SIP_MS / 1_000 if stall.sip_bytes else TICK_S)
                if stall.sip_bytes and select([self._fd], [], [], 0)[0] and not self._take(stall.sip_bytes):
                    break
        os.close(self._fd)

    def _take(self, most: int) -> int:
        piece = os.read(self._fd, most)
        self.lines += piece.count(b"\n")
        return len(piece)


def _ask(scenario: Scenario, init: subprocess.Popen[str], environment: dict[str, str]) -> None:
    """Send what the scenario's requests say, each at its moment."""
    stop = happened.SignalReceived(scenario.bundle.stop_signals[0])
    asked = [*((request.at_ms, request.event) for request in scenario.requests), (scenario.stop_at_ms, stop)]
    started_s = time.monotonic()
    for at_ms, event in sorted(asked, key=_moment):
        time.sleep(max(0.0, started_s + at_ms / 1_000 - time.monotonic()))
        if init.poll() is not None:
            return
        if isinstance(event, happened.SignalReceived):
            init.send_signal(event.signal)
        else:
            order = [sys.executable, "-m", "bottle_init", "ctl", *_order(event, scenario.bundle)]
            subprocess.run(order, env=environment, check=False, capture_output=True, timeout=PATIENCE_S)


def _moment(asked: tuple[int, object]) -> int:
    return asked[0]


def _order(event: object, bundle: Bundle) -> list[str]:
    match event:
        case happened.ChildStopOrdered(child=child):
            return ["stop", bundle.children[child].name]
        case happened.ChildStartOrdered(child=child):
            return ["start", bundle.children[child].name]
        case happened.ChildRestartOrdered(child=child):
            return ["restart", bundle.children[child].name]
        case happened.ChildSignalOrdered(child=child, signal=number):
            return ["signal", bundle.children[child].name, str(number)]
        case happened.StopOrdered():
            return ["stop"]
        case _:
            raise ValueError(f"{event} cannot be ordered on a real machine")


def _read(log: str, report: dict[str, Any], code: int, arrived: int) -> Told:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    records = [line for line in lines if "stream" not in line]  # Those are about a child's own output, or are it.
    deaths = [
        (death["name"], death["code"], death["severity"], death["sent_by_init"], death["forced"])
        for death in report["deaths"]
    ]
    events = [
        _event(record.pop("event"), record.pop("child", ""), record)
        for record in records
        if record["event"] not in ("exit_report", "control_unavailable")
    ]
    dropped = report["lines_dropped"]
    return Told(tuple(events), code, tuple(deaths), len(report["survivors"]), arrived + dropped, dropped=dropped > 0)


def standing_in(scenario: Scenario, directory: Path) -> Bundle:
    """The scenario's bundle with a stand-in for every command, and a probe that asks the stand-in."""
    children = []
    for spec, lives in zip(scenario.bundle.children, scenario.lives, strict=True):
        probe = Probe("exec", command=("/bin/sh", "-c", f'kill -0 "$(cat "{directory}/{spec.name}.ready")"'))
        real = spec.replace(command=_command(spec, lives or (Life(),), directory), settings=ExecSettings())
        if spec.ready is not None and spec.ready.probe.kind not in ("notify", "after"):
            real = real.replace(ready=spec.ready.replace(probe=probe))
        if spec.health is not None:
            real = real.replace(health=spec.health.replace(probe=probe))
        children.append(real)
    return scenario.bundle.replace(children=tuple(children), lease=None)


def _command(spec: Spec, lives: tuple[Life, ...], directory: Path) -> tuple[str, ...]:
    errors = {life.exec_error for life in lives}
    if errors != {0}:
        if len(errors) > 1:
            raise ValueError(f"{spec.name}: its command is found in some of its lives and not in others")
        return ("/nonexistent/command",) if 127 in errors else ("/",)
    script = {
        "lives": [_fields(life) for life in lives],
        "stop_signal": spec.stop_signal,
        "directory": str(directory),
        "name": spec.name,
    }
    return (sys.executable, "-I", "-S", str(STANDIN), json.dumps(script))


def _fields(value: Life | Remnant | Say | Request | Write) -> dict[str, Any]:
    """The fields of a scenario's value that are not at their default, as JSON has them."""
    facts: dict[str, Any] = {}
    for field in fields(value):
        content = getattr(value, field.name)
        if field.default is MISSING or content != field.default:
            facts[field.name] = _plain(content)
    return facts


def _plain(content: Any) -> Any:
    if isinstance(content, tuple):
        return [_plain(part) for part in content]
    return _fields(content) if hasattr(content, "__dataclass_fields__") else content
