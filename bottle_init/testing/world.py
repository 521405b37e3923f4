"""The simulated kernel: processes, sessions, probes and a clock of its own, at a million events a minute.

`simulate(scenario)` runs the very core that PID 1 runs. It carries out the core's actions and hands
back events exactly by the protocol of `core/actions.py` and `core/events.py`: what answers a fork or
a survey comes in the next step, before anything else. Nothing here decides how a bundle is run.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

from bottle_init.core import events as happened
from bottle_init.core import supervisor
from bottle_init.core.actions import (
    Action,
    CancelProbe,
    DropCapabilities,
    Exit,
    ForwardSignal,
    KillSession,
    LogEvent,
    NoteStop,
    NoteTime,
    SendSignal,
    Spawn,
    StartProbe,
    SurveySession,
    SurveyTree,
)
from bottle_init.core.events import Event
from bottle_init.core.state import State, Survivor
from bottle_init.testing.pipes import Logs
from bottle_init.testing.process import Process
from bottle_init.testing.scenario import End, Life, Remnant, Say, Scenario, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Stepper = Callable[[State, int, Iterable[Event]], tuple[State, tuple[Action, ...]]]
    Order = Callable[[list[Event]], Sequence[Event]]

KILL, STOP, CONT, TERM = 9, 19, 18, 15

HARMLESS = (CONT, 17, 23, 28)
"""Signals that do nothing by default: CONT to what runs, CHLD, URG, WINCH (signal(7))."""

SUSPENDING = (STOP, 20, 21, 22)
"""Signals that stop a process by default."""

NOT_PERMITTED = "not permitted"
NO_DESCRIPTORS = "Too many open files"
USER_UNKNOWN = "user app: unknown"
EXEC_ERRORS = {126: "permission denied", 127: "command not found"}

OUTPUT_DESCRIPTORS, REPORT_DESCRIPTORS = 2, 1
EXEC_MS = 1_000
"""How long a start for which no descriptor is left waits until another child has been executed (contract 5.1)."""

MAX_STEPS = 20_000
"""More steps than a run takes whose bundle checks and restarts at the usual pace (`most_steps`)."""

STEPS_OF_A_CHECK, STEPS_OF_A_START = 4, 40
"""More steps than one check takes, and than one start with its probes and its end."""

MAX_TURNS = 1_000
"""More wake-ups at one moment than all that children can write in it takes."""


class Step:
    """One step of the core: what it was given, what it decided, and the state that it left.

    `late_ms` is how much later it came than the core had asked for.
    `settled` says that no answer is to come in the same wake-up any more; `living` is the number of
    processes below the init after it, without those that it has seen the kernel not let it kill.
    """

    __slots__ = ("actions", "events", "late_ms", "living", "now_ms", "settled", "state")

    def __init__(self, now_ms: int, events: tuple[Event, ...], actions: tuple[Action, ...], state: State) -> None:
        self.now_ms = now_ms
        self.events = events
        self.actions = actions
        self.state = state
        self.late_ms = 0
        self.settled = True
        self.living = 0


class Trace:
    """What a run left behind. `crash` is what the core raised; `stuck` says why a run could not go on.

    `logs` are the lines of the children, None in a run in which nobody writes and no reader stalls.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.steps: list[Step] = []
        self.processes: list[Process] = []
        self.exit: Exit | None = None
        self.crash: Exception | None = None
        self.stuck = ""
        self.events = 0
        self.logs: Logs | None = None

    @property
    def end_ms(self) -> int:
        """The time of the last step."""
        return self.steps[-1].now_ms if self.steps else 0


def most_steps(scenario: Scenario) -> int:
    """How many steps a run may take before it is going round in circles: as many as the bundle's own times bring."""
    bundle = scenario.bundle
    span_ms = scenario.stop_at_ms + bundle.stop_timeout_ms + sum(freeze.for_ms for freeze in scenario.freezes)
    steps = MAX_STEPS
    for spec in bundle.children:
        if spec.health is not None:
            steps += STEPS_OF_A_CHECK * span_ms // max(1, spec.health.interval_ms)
        windows = 1 + span_ms // max(1, spec.restarts.window_ms)
        steps += STEPS_OF_A_START * min(windows * spec.restarts.max, 1 + span_ms // max(1, spec.backoff.initial_ms))
    return steps


def simulate(scenario: Scenario, *, step: Stepper = supervisor.step, order: Order | None = None) -> Trace:
    """Run the scenario to the bundle's exit.

    Args:
        scenario: everything that happens.
        step: the core; another one in tests that break it on purpose.
        order: puts the deaths of each wake-up in another order; by default they come as they happened.
    """
    world = World(scenario, step, order)
    return world.run()


class World:
    """The simulated kernel, and the loop that runs the core on it. Time is virtual and starts at 0."""

    def __init__(self, scenario: Scenario, step: Stepper = supervisor.step, order: Order | None = None) -> None:
        self.now_ms = 0
        self.trace = Trace(scenario)
        self._scenario = scenario
        self._step = step
        self._order = order
        self._state = supervisor.begin(scenario.bundle, 0)
        self._leaders: dict[tuple[int, int], Process] = {}
        self._living: dict[int, Process] = {}
        self._probes: dict[tuple[int, int, int], bool] = {}
        self._probing: dict[tuple[int, int, int], Process] = {}
        self._pids = 1
        self._free_pids: list[int] = []
        self._agenda: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._seen: list[Event] = []
        self._answers: list[Event] = []
        self._orphans = 0
        self._turns = self._turned_ms = 0
        self._has_user = False
        self._most_steps = most_steps(scenario)
        self._logs = self.trace.logs = Logs(scenario) if scenario.has_logs else None
        lease = scenario.bundle.lease
        if lease is not None and lease.renew_ms is None and scenario.lease_ms is not None:
            error = scenario.lease_error
            self._at(scenario.lease_ms, self._see, happened.LeaseEnded(error) if error else happened.LeaseTaken())
        for request in scenario.requests:
            self._at(request.at_ms, self._ask, request.event)
        for freeze in scenario.freezes:
            if freeze.whole:
                self._at(freeze.at_ms, self._freeze, freeze.for_ms)
        for storm in scenario.storms:
            self._at(storm.at_ms, self._storm, storm.count)
        self._at(scenario.stop_at_ms, self._see, happened.SignalReceived(scenario.bundle.stop_signals[0], 1, 0))

    def run(self) -> Trace:
        """Run to the bundle's exit, a crash of the core, or a standstill."""
        trace = self.trace
        try:
            self._wake([])
            while trace.exit is None and not trace.stuck:
                self._sleep()
        except Exception as crash:  # noqa: BLE001 - whatever the core raises is what is looked for
            trace.crash = crash
        return trace

    # The loop.

    def _sleep(self) -> None:
        """Until the next thing that happens or the core's own deadline, whichever comes first."""
        deadline_ms = supervisor.next_deadline_ms(self._state)
        next_ms = self._agenda[0][0] if self._agenda else None
        lines_ms = self._logs.next_ms() if self._logs is not None else None
        times = [at_ms for at_ms in (deadline_ms, next_ms, lines_ms) if at_ms is not None]
        if not times:
            self.trace.stuck = "nothing will ever happen again, and the bundle has not ended"
            return
        self.now_ms = self._scenario.thaw(max(self.now_ms, min(times)))
        events = self._gather()
        if events or self._logs is None or (deadline_ms is not None and deadline_ms <= self.now_ms):
            self._wake(events, deadline_ms)  # As on Linux, lines alone give the core nothing to judge.

    def _gather(self) -> list[Event]:
        """All that has happened by now."""
        agenda = self._agenda
        self._seen = []
        if self._logs is not None:
            self._logs.begin(self.now_ms)
        while agenda and agenda[0][0] <= self.now_ms:
            _, _, happens, facts = heappop(agenda)
            happens(*facts)
        if self._logs is not None:
            self._pass_lines(self._logs)
        if self._orphans:
            self._seen.append(happened.OrphansReaped(self._orphans))
            self._orphans = 0
        if self._scenario.jumbled:
            self._seen.reverse()
        if self._order is not None:
            self._reorder(self._order)
        return self._seen

    def _pass_lines(self, logs: Logs) -> None:
        """Let the lines flow; who has waited for room in its pipe, and has it now, goes on."""
        logs.turn()
        free, logs.free = logs.free, []
        for pipe in free:
            process = self._leaders[pipe.child, pipe.generation]
            if not process.stopped:
                self._go_on(process)
        self._turns = self._turns + 1 if self._turned_ms == self.now_ms else 0
        self._turned_ms = self.now_ms
        if self._turns > MAX_TURNS:
            self.trace.stuck = f"{MAX_TURNS} wake-ups for lines at one moment"

    def _reorder(self, order: Order) -> None:
        deaths = [event for event in self._seen if isinstance(event, happened.ChildExited)]
        if len(deaths) > 1:
            others = [event for event in self._seen if not isinstance(event, happened.ChildExited)]
            self._seen = [*others, *order(list(deaths))]

    def _wake(self, events: list[Event], asked_ms: int | None = None) -> None:
        """One wake-up: a step, and then one more for as long as there are answers to hand over."""
        self._turn(events, 0 if asked_ms is None else max(0, self.now_ms - asked_ms))
        while self._answers and self.trace.exit is None:
            self.trace.steps[-1].settled = False
            events, self._answers = self._answers, []
            self._turn(events)

    def _turn(self, events: list[Event], late_ms: int = 0) -> None:
        trace = self.trace
        self._state, actions = self._step(self._state, self.now_ms, events)
        trace.steps.append(Step(self.now_ms, tuple(events), actions, self._state))
        trace.steps[-1].late_ms = late_ms
        trace.events += len(events) or 1
        if len(trace.steps) > self._most_steps:
            trace.stuck = f"{self._most_steps} steps, and the bundle has not ended"
        for action in actions:
            do = _DO.get(type(action))
            if do is not None:
                do(self, action)
        if self._logs is not None:
            self._tell(self._logs, actions)
        trace.steps[-1].living = sum(one.barred_ms is None for one in self._living.values())

    def _tell(self, logs: Logs, actions: tuple[Action, ...]) -> None:
        """The init's own lines; and who is hurried once a stop has begun."""
        for action in actions:
            if isinstance(action, NoteStop):
                logs.stop()
            elif isinstance(action, LogEvent):
                logs.event(action.event)
        done = self.trace.exit
        if done is not None:
            logs.close(self.now_ms, done.stop.deadline_ms)

    def _at(self, at_ms: int, happens: Callable[..., None], *facts: Any) -> None:
        self._sequence += 1
        heappush(self._agenda, (at_ms, self._sequence, happens, facts))

    def _after(self, after_ms: int, happens: Callable[..., None], *facts: Any) -> None:
        self._at(self.now_ms + after_ms, happens, *facts)

    # What happens.

    def _see(self, event: Event) -> None:
        self._seen.append(event)

    def _ask(self, event: Event) -> None:
        """Something reaches the init from outside: an order to end a child with whether that may be signalled."""
        if isinstance(event, happened.ChildStopOrdered | happened.ChildRestartOrdered):
            generation = self._state.children[event.child].generation
            process = self._leaders.get((event.child, generation))
            if process is not None and process.ended is None and process.refuses(0, self.now_ms):
                event = event.replace(barred=NOT_PERMITTED)
        self._see(event)

    def _freeze(self, for_ms: int) -> None:
        """All processes are frozen as well: whatever they would have done, they do so much later."""
        outside = (self._see, self._ask, self._storm, self._freeze)
        for index, (at_ms, sequence, happens, facts) in enumerate(self._agenda):
            if happens not in outside:
                self._agenda[index] = (at_ms + for_ms, sequence, happens, facts)
        heapify(self._agenda)
        for process in self._living.values():
            process.reports_ms += for_ms
            if process.executed_ms is not None:
                process.executed_ms += for_ms

    def _storm(self, count: int) -> None:
        self._orphans += count

    def _execute(self, process: Process) -> None:
        if process.is_dying:
            return
        life = process.life
        child, generation = process.child, process.generation
        reason = EXEC_ERRORS.get(life.exec_error, USER_UNKNOWN if life.needs_user and not self._has_user else "")
        if reason:
            self._see(happened.ExecFailed(child, generation, reason))
            self._die(process, End(life.exec_error or 126))
            return
        process.executed_ms = self.now_ms
        self._see(happened.ChildExecuted(child, generation))
        for say in life.says:
            self._after(say.at_ms, self._say, process, say)
        for write in life.writes:
            self._after(write.at_ms, self._write, process, write)
        for remnant in life.leaves:
            self._after(remnant.born_ms, self._bear, process, remnant)
        if life.stopped_ms is not None:
            self._after(life.stopped_ms, self._signal, process, STOP)
        if life.run_ms is not None:
            self._after(life.run_ms, self._end, process, life.end)

    def _say(self, process: Process, say: Say) -> None:
        if self._is_held(process, self._say, say) or process.is_dying:
            return
        facts = (say.ready, say.stopping, say.reloading, say.watchdog, say.watchdog_trigger, say.watchdog_ms)
        self._see(happened.Notified(process.child, process.generation, *facts, say.status))

    def _write(self, process: Process, write: Write) -> None:
        if process.is_dying or process.pipe is None or self._is_held(process, self._write, write):
            return
        process.pipe.write(write.lines, write.line_bytes)
        process.writing_ms = self.now_ms - (process.executed_ms or 0)

    def _end(self, process: Process, end: End) -> None:
        """It ends of its own accord, once it has written what it is writing."""
        if not self._is_held(process, self._end, end):
            self._die(process, end)

    def _bear(self, leader: Process, remnant: Remnant) -> None:
        if not self._is_held(leader, self._bear, remnant) and not leader.is_dying:
            self._beget(leader, remnant)

    def _beget(self, leader: Process, remnant: Remnant) -> Process:
        process = self._create(leader.child, leader.generation, leader.life, remnant, leader)
        leader.family.append(process)
        if remnant.run_ms is not None:
            self._after(remnant.run_ms, self._die, process, End())
        return process

    def _is_suspended(self, process: Process, does: Callable[..., None], *facts: Any) -> bool:
        """Whether the process is under SIGSTOP; what it would have done, it does after a CONT."""
        if process.stopped:
            process.postponed.append((does, facts))
        return process.stopped

    def _is_held(self, process: Process, does: Callable[..., None], *facts: Any) -> bool:
        """The same, or waits for room in its pipe."""
        if process.is_writing:
            process.postponed.append((does, facts))
            return True
        return process.stopped and self._is_suspended(process, does, *facts)

    def _die(self, process: Process, end: End) -> None:
        if process.is_dying and (end.signal != KILL or process.ended is not None):
            return
        if end.signal != KILL and self._is_suspended(process, self._die, end):
            return
        process.ended, process.ended_ms = end, self.now_ms
        del self._living[process.pid]
        remnant, leader = process.remnant, process.leader
        if remnant is not None and leader is not None and remnant.heirs and end.signal != KILL:
            self._beget(leader, replace(remnant, heirs=remnant.heirs - 1)).barred_ms = process.barred_ms
        if remnant is None:
            spec = self._scenario.bundle.children[process.child]
            self._has_user |= process.life.makes_user and end.signal == 0 and end.code in spec.success_codes
            self._reap_child(process, end)
        elif remnant.probes:
            self._reap(process)
            self._count_probe()
        elif not remnant.kept and (leader is None or leader.ended is not None or remnant.adopted):
            self._reap(process)
            self._orphans += 1
        else:
            if process.surveyed:
                self._see(happened.SurvivorEnded(process.pid))
            if leader is None or remnant.kept or leader.life.reaps:
                self._reap(process)
            else:
                leader.zombies += 1

    def _count_probe(self) -> None:
        """To whoever waits for the last process, a probe's end is one like an orphan's."""
        self._orphans += 1

    def _reap(self, process: Process) -> None:
        """Its parent has taken it away; its pid is free, unless that is the number of a session still (setsid(2))."""
        process.reaped_ms = self.now_ms
        if self._scenario.recycled and not self._session(process):
            self._free_pids.append(process.pid)

    def _reap_child(self, process: Process, end: End) -> None:
        """A child has become a zombie: the init reaps it, and what it had not reaped itself."""
        self._reap(process)
        if self._logs is not None and process.pipe is not None:
            self._logs.drain(process.pipe)
        self._orphans += process.zombies
        for relative in process.family:
            if relative.ended is not None and relative.reaped_ms is None:
                self._reap(relative)
        self._see(happened.ChildExited(process.child, process.generation, end.code, end.signal, end.oom))

    def _create(
        self, child: int, generation: int, life: Life, remnant: Remnant | None = None, leader: Process | None = None
    ) -> Process:
        self._pids += not self._free_pids
        pid = self._free_pids.pop() if self._free_pids else self._pids
        process = Process(pid, child, generation, life, remnant, leader, self.now_ms)
        process.serial = len(self.trace.processes)
        self._living[process.pid] = process
        self.trace.processes.append(process)
        return process

    def _signal(self, process: Process, signal: int) -> None:
        """What a signal does to a process (signal(7))."""
        if process.ended is not None:
            return
        if signal == KILL:
            self._kill(process)
        elif signal == CONT:
            self._resume(process)
        elif signal in SUSPENDING:
            process.stopped = True
        elif process.stopped:
            process.pending.append(signal)
        elif process.remnant is not None:
            if process.remnant.stop_ms is not None:
                self._after(process.remnant.stop_ms, self._die, process, End(signal=signal))
        elif process.catches(signal, self.now_ms):
            self._handle(process, signal)
        elif signal not in HARMLESS:
            self._die_soon(process, End(signal=signal), process.life.dies_ms)

    def _kill(self, process: Process) -> None:
        if process.killed_ms is None:
            process.killed_ms = self.now_ms
            kill_ms = process.life.kill_ms if process.remnant is None else process.remnant.kill_ms
            if kill_ms is not None:
                self._after(kill_ms, self._die, process, End(signal=KILL))

    def _resume(self, process: Process) -> None:
        if not process.stopped:
            return
        process.stopped = False
        pending, process.pending = process.pending, []
        for signal in pending:
            self._signal(process, signal)
        self._go_on(process)

    def _go_on(self, process: Process) -> None:
        """Do what was put off."""
        postponed, process.postponed = process.postponed, []
        for does, facts in postponed:
            self._after(0, does, process, *facts)

    def _handle(self, process: Process, signal: int) -> None:
        """A signal that the process has a handler for."""
        life = process.life
        stop_signal = self._scenario.bundle.children[process.child].stop_signal
        if (signal == stop_signal or signal in life.heeds) and life.stop_ms is not None:
            self._die_soon(process, life.stop_end, life.stop_ms)

    def _die_soon(self, process: Process, end: End, after_ms: int) -> None:
        self._after(after_ms, self._die, process, end)

    # What the core wants done.

    def _spawn(self, action: Spawn) -> None:
        life = self._scenario.life(action.child, action.generation)
        error = life.fork_error or ("" if self._has_room(action.child) else NO_DESCRIPTORS)
        if error:
            self._answers.append(happened.ForkFailed(action.child, action.generation, error))
            return
        process = self._create(action.child, action.generation, life)
        if self._logs is not None:
            process.pipe = self._logs.open(action.child, action.generation)
        self._leaders[action.child, action.generation] = process
        barred = NOT_PERMITTED if life.refuses == "all" and not life.refuses_ms else ""
        self._answers.append(happened.ChildForked(action.child, action.generation, process.pid, barred))
        self._after(life.exec_ms, self._execute, process)

    def _has_room(self, child: int) -> bool:
        """Whether there are descriptors for a start; it waits for those of children that are about to be executed.

        The wait is that for an exec(2), and takes no virtual time. The output of what has outlived its child is let go.
        """
        limit = self._scenario.descriptors
        if limit is None:
            return True
        others = [one for one in self._leaders.values() if one.ended is None]
        used = sum(self._output_of(one.child) for one in others)
        soon = sum(REPORT_DESCRIPTORS for one in others if one.reports_ms > self.now_ms + EXEC_MS)
        return used + soon + self._output_of(child) + REPORT_DESCRIPTORS <= limit

    def _output_of(self, child: int) -> int:
        """How many descriptors the output of a child takes for as long as it lives."""
        logs = self._scenario.bundle.children[child].logs
        return 0 if logs in ("inherit", "none") else OUTPUT_DESCRIPTORS

    def _send_signal(self, action: SendSignal) -> None:
        process = self._leaders[action.child, action.generation]
        about = (action.child, action.generation, action.signal)
        if process.ended is not None:
            refused, reason = False, "not running"
        else:
            refused = process.refuses(action.signal, self.now_ms)
            reason = NOT_PERMITTED if refused else ""
        if not reason:
            self._signal(process, action.signal)
        if action.request:
            self._answers.append(happened.OrderedSignalSent(action, reason, refused))
        elif refused:
            self._answers.append(happened.SignalRefused(*about, reason))

    def _forward_signal(self, action: ForwardSignal) -> None:
        sent, refused = [], []
        for child, generation, signal in action.targets:
            process = self._leaders[child, generation]
            if process.ended is None and process.refuses(signal, self.now_ms):
                refused.append((child, NOT_PERMITTED))
            elif process.ended is None:
                self._signal(process, signal)
                sent.append(child)
        self._answers.append(happened.SignalForwarded(action, tuple(sent), tuple(refused)))

    def _drop_capabilities(self, _action: DropCapabilities) -> None:
        self._answers.append(happened.CapabilitiesDropped(self._scenario.drop_error))

    def _note_time(self, _action: NoteTime) -> None:
        self._answers.append(happened.TimeNoted())

    def _kill_session(self, action: KillSession) -> None:
        leader = self._leaders[action.child, action.generation]
        refused = leader.ended is None and leader.refuses(KILL, self.now_ms)
        if refused:
            self._bar(leader)
        for process in (leader, *self._session(leader)):
            if not process.refuses(KILL, self.now_ms):
                self._signal(process, KILL)
        reason = NOT_PERMITTED if refused else ""
        self._answers.append(happened.SessionKilled(action.child, action.generation, reason))

    def _survey_session(self, action: SurveySession) -> None:
        found = self._session(self._leaders[action.child, action.generation])
        survivors = self._look(found, action.signal)
        self._answers.append(happened.SessionSurveyed(action.child, action.generation, survivors))

    def _survey_tree(self, action: SurveyTree) -> None:
        survivors = self._look(list(self._living.values()), action.signal)
        self._answers.append(happened.TreeSurveyed(survivors))

    def _look(self, found: list[Process], signal: int) -> tuple[Survivor, ...]:
        survivors = []
        for process in found:
            process.surveyed = True
            if signal == KILL or process.asked_ms is None:
                self._press(process, signal)
            survivors.append(Survivor(process.pid, process.name, born=process.serial, barred=process.refusal))
        return tuple(survivors)

    def _press(self, process: Process, signal: int) -> None:
        """Send a survivor the signal, or SIGKILL where the kernel refuses it, or note that it refuses both."""
        if signal != KILL:
            process.asked_ms = self.now_ms
        if process.refuses(signal, self.now_ms):
            signal = KILL
        process.refusal = NOT_PERMITTED if process.refuses(signal, self.now_ms) else ""
        if process.refusal:
            self._bar(process)
        else:
            self._signal(process, signal)

    def _bar(self, process: Process) -> None:
        """The init has seen that it may not kill this one."""
        if process.barred_ms is None:
            process.barred_ms = self.now_ms

    def _session(self, leader: Process) -> list[Process]:
        """What still lives of a child's session, without the child."""
        return [
            process
            for process in leader.family
            if process.ended is None and process.remnant is not None and not process.remnant.escapes
        ]

    def _start_probe(self, action: StartProbe) -> None:
        key = (action.child, action.generation, action.probe)
        self._probes[key] = True
        process = self._leaders[action.child, action.generation]
        if action.how.kind == "exec" and process.life.kill_ms != 0:
            own = Remnant(escapes=True, stop_ms=None, kill_ms=process.life.kill_ms, probes=True)
            self._probing[key] = self._create(action.child, action.generation, process.life, own, process)
        self._after(process.life.probe_ms, self._answer_probe, process, key)

    def _cancel_probe(self, action: CancelProbe) -> None:
        key = (action.child, action.generation, action.probe)
        if not self._scenario.late_answers:
            self._probes[key] = False
        if key in self._probing:
            self._signal(self._probing.pop(key), KILL)

    def _answer_probe(self, process: Process, key: tuple[int, int, int]) -> None:
        if not self._probes.pop(key):
            return
        life = process.life
        if process.stopped or process.executed_ms is None or process.ended is not None:
            works = None if process.stopped else False
        else:
            since_ms = self.now_ms - process.executed_ms
            works = self._is_ready(process, since_ms) and not _within(life.sick, since_ms)
            works = None if _within(life.hangs, since_ms) else works
        if works is not None:
            if key in self._probing:
                self._die(self._probing.pop(key), End())
            self._see(happened.ProbeSucceeded(*key) if works else happened.ProbeFailed(*key, "connection refused"))

    def _is_ready(self, process: Process, since_ms: int) -> bool:
        """Whether its port answers: not before it has written what it was writing when it would have opened that."""
        ready_ms = process.life.ready_ms
        if ready_ms is None or since_ms < ready_ms:
            return False
        return not process.is_writing or process.writing_ms > ready_ms

    def _exit(self, action: Exit) -> None:
        self.trace.exit = action


def _within(spans: tuple[tuple[int, int], ...], at_ms: int) -> bool:
    return any(start_ms <= at_ms < end_ms for start_ms, end_ms in spans)


_DO: dict[type[Action], Callable[[World, Any], None]] = {
    Spawn: World._spawn,  # noqa: SLF001 - the table of its own class
    SendSignal: World._send_signal,  # noqa: SLF001
    ForwardSignal: World._forward_signal,  # noqa: SLF001
    DropCapabilities: World._drop_capabilities,  # noqa: SLF001
    NoteTime: World._note_time,  # noqa: SLF001
    KillSession: World._kill_session,  # noqa: SLF001
    SurveySession: World._survey_session,  # noqa: SLF001
    SurveyTree: World._survey_tree,  # noqa: SLF001
    StartProbe: World._start_probe,  # noqa: SLF001
    CancelProbe: World._cancel_probe,  # noqa: SLF001
    Exit: World._exit,  # noqa: SLF001
}
