"""What must hold in every run, checked on its trace: the promises of the contract, one name for each.

`check(trace)` returns what was broken, the earliest first, and nothing after it: once the books
(`ledger.py`) and the bundle have parted, what follows says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bottle_init.core import events as happened
from bottle_init.core import status
from bottle_init.core.actions import (
    Answer,
    CancelProbe,
    DropCapabilities,
    Exit,
    ForwardSignal,
    KillSession,
    LogEvent,
    SendSignal,
    Spawn,
    StartProbe,
    SurveySession,
    SurveyTree,
)
from bottle_init.testing import lines
from bottle_init.testing.ledger import CONT, FORCED, FROZEN_MS, GIVE_UP_MS, HELD, KILL, OVER, PENDING, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bottle_init.core.actions import Action
    from bottle_init.core.events import Event
    from bottle_init.testing.ledger import Page
    from bottle_init.testing.process import Process
    from bottle_init.testing.world import Step, Trace


ABOUT_SIGNALS = (
    *("signal_received", "signal_delivered", "signal_dropped"),
    *("signal_refused", "child_not_signallable"),
)
FOR_PEOPLE = ("sender_uid", "reason", "sent", "pid", "process")


@dataclass(frozen=True, slots=True)
class Invariant:
    """One promise: its name, and the sentence of `docs/contract.md` that makes it."""

    name: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, when, and how."""

    invariant: str
    at_ms: int
    what: str


EXIT_CODE = "exit-code"
ZERO = "zero"
FIRST_CAUSE = "first-cause"
NO_START_IN_STOP = "no-start-in-stop"
START_ORDER = "start-order"
STARTS_AT_ONCE = "starts-at-once"
BACKOFF = "backoff"
UNWANTED_START = "unwanted-start"
CLEAN_START = "clean-start"
VAIN_WAIT = "vain-wait"
STOP_ORDER = "stop-order"
STOPS_AT_ONCE = "stops-at-once"
STOP_DELAY = "stop-delay"
STOP_SIGNAL = "stop-signal"
UNASKED_STOP = "unasked-stop"
ASKED_FIRST = "asked-first"
KILL_TIME = "kill-time"
SECOND_SIGNAL = "second-signal"
DEADLINE = "deadline"
ENDS_AT_ONCE = "ends-at-once"
WHOLE_TREE = "whole-tree"
ON_TIME = "on-time"
READINESS = "readiness"
HEALTH = "health"
CHECK_TIME = "check-time"
FORWARDING = "forwarding"
SIGNALS_TOLD = "signals-told"
REFUSALS = "refusals"
ONE_COPY = "one-copy"
LEASE = "lease"
KEPT = "kept"
FROZEN = "frozen"
ANSWERS = "answers"
REPORT = "report"
EARLY_LOSS = lines.EARLY_LOSS
LOST_LINES = lines.LOST_LINES
TORN_LINES = lines.TORN_LINES
MADE_TO_WAIT = lines.MADE_TO_WAIT
STALLED_READER = lines.STALLED_READER
NO_CRASH = "no-crash"
LIVENESS = "liveness"

INVARIANTS = (
    Invariant(
        EXIT_CODE,
        "So the order in which the kernel hands over simultaneous deaths never changes the exit code.",
    ),
    Invariant(ZERO, "The exit code is 0 exactly if what was asked for has happened."),
    Invariant(FIRST_CAUSE, "In a policy stop the first cause wins."),
    Invariant(NO_START_IN_STOP, "No child is started during a stop."),
    Invariant(START_ORDER, "A child starts at once when everything that it is `after` is ready, and never before."),
    Invariant(STARTS_AT_ONCE, "A child starts at once when everything that it is `after` is ready, and never before."),
    Invariant(
        BACKOFF,
        "The n-th restart in a row (counting from 0) comes `backoff.initial` \u00d7 `backoff.factor`\u207f"
        " after the death, but never more than `backoff.limit` after it.",
    ),
    Invariant(UNWANTED_START, "More than `restarts.max` restarts within `restarts.window` are too many."),
    Invariant(CLEAN_START, "No child starts before everything that its last process left in its session is gone."),
    Invariant(VAIN_WAIT, "So no child waits for what will never come."),
    Invariant(
        STOP_ORDER,
        "The stop order is the reverse of the start order, and parallel where that leaves a choice.",
    ),
    Invariant(STOPS_AT_ONCE, "The moment a child is gone, the next step is taken; no grace period is waited out."),
    Invariant(STOP_DELAY, "A `stop_delay` passes between the decision to stop a child and its stop signal."),
    Invariant(
        STOP_SIGNAL,
        "Only the child itself gets its stop signal (`stop_signal`, by default TERM), then CONT,"
        " so that a suspended one can act on it.",
    ),
    Invariant(UNASKED_STOP, "`wait-for-all` | nothing: the bundle ends when its last child has ended"),
    Invariant(ASKED_FIRST, "What is left of its session gets TERM as soon as the child is gone"),
    Invariant(
        KILL_TIME,
        "SIGKILL comes when the child's `stop_timeout` has passed since its stop signal,"
        " for the child and all of its session, and not earlier.",
    ),
    Invariant(SECOND_SIGNAL, "The second stop signal that reaches the init kills everything that is left at once."),
    Invariant(DEADLINE, "when it is reached, everything that is left is killed."),
    Invariant(ENDS_AT_ONCE, "The moment a child is gone, the next step is taken; no grace period is waited out."),
    Invariant(
        WHOLE_TREE,
        "What a child left behind in its session, or what was reparented to the init, is stopped and killed"
        " within the same deadline, reaped, and named in the report.",
    ),
    Invariant(ON_TIME, "The init wakes only when there is something to do, and then on time."),
    Invariant(
        READINESS,
        "A readiness probe is made at once, and again after growing pauses of at most 250 ms.",
    ),
    Invariant(HEALTH, "If more than one applies, the first in this table is the answer."),
    Invariant(
        CHECK_TIME,
        "with the meanings that Docker gives to `interval`"
        " (the first check comes one interval after the daemon is ready)",
    ),
    Invariant(
        FORWARDING,
        "forwarded to the children whose `signals` names it, each as it says there, once they are ready",
    ),
    Invariant(SIGNALS_TOLD, "Every signal that reaches the init, except CHLD, is an event"),
    Invariant(
        REFUSALS,
        "If the stop signal of a child is refused during a stop of the bundle, the child gets SIGKILL at once,"
        " and if that is refused too, the child is given up at once.",
    ),
    Invariant(ONE_COPY, "A process that was given up and still lives has no successor"),
    Invariant(LEASE, "Until the init has its lease, no child is started."),
    Invariant(KEPT, "what starts later never has it"),
    Invariant(FROZEN, "it judges nothing as missed in that wake-up"),
    Invariant(ANSWERS, "Every request is answered, once."),
    Invariant(
        REPORT,
        "every death with its code and signal, whether the init had sent that, whether it was forced",
    ),
    Invariant(
        EARLY_LOSS, "Lines are dropped only when the reader has taken nothing for a second (at once during a stop)"
    ),
    Invariant(LOST_LINES, "only whole, and every one is counted."),
    Invariant(TORN_LINES, "only whole, and every one is counted."),
    Invariant(MADE_TO_WAIT, "A child that writes faster than a reader reads has to wait."),
    Invariant(STALLED_READER, "The init never blocks: not for a log reader that stalls"),
    Invariant(NO_CRASH, "An exception inside the init ends it with 70"),
    Invariant(LIVENESS, "So a stop takes at most its deadline and one second."),
)
"""Every promise that is checked on every run. `docs/invariants.md` says which test breaks each of them."""


def check(trace: Trace) -> list[Violation]:
    """What this run has broken; empty for a good one."""
    auditor = Auditor(trace)
    for step in trace.steps:
        found = list(auditor.audit(step))
        if found:
            return found
    return list(auditor.close())


class Auditor:
    """Compares what the core did, step by step, with what the ledger says."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.ledger = Ledger(trace.scenario.bundle)
        self.left: dict[int, list[Process]] = {}
        self.found: dict[tuple[int, int | None], None] = {}
        self.alive: list[int] = []
        self.stopping = False
        self.actions: tuple[Action, ...] = ()
        self._rules: dict[type[Action], Callable[[Any, int], Iterator[Violation]]] = {
            Spawn: self._spawn,
            KillSession: self._kill_session,
            DropCapabilities: self._drop,
            SurveySession: self._survey,
            StartProbe: self._probe,
            SurveyTree: self._survey_tree,
        }
        for process in trace.processes:
            if process.remnant is not None and not process.remnant.escapes:
                self.left.setdefault(process.child, []).append(process)

    def audit(self, step: Step) -> Iterator[Violation]:
        """Read one step; what it has broken."""
        ledger, now_ms = self.ledger, step.now_ms
        due_ms = ledger.deadline_ms()
        if due_ms is not None and now_ms > self.trace.scenario.thaw(max(due_ms, ledger.now_ms)):
            yield Violation(ON_TIME, now_ms, f"nothing woke the init at {due_ms} ms")
        killed = ledger.kill_ms is not None
        self.alive = [page.index for page in ledger.pages if page.alive]
        self.stopping = bool(ledger.stop_kind)
        ledger.read(step)
        self.actions = step.actions
        yield from self._frozen(step)
        for action in step.actions:
            yield from self._action(action, step)
        yield from self._whole_step(step, killed=killed)
        ledger.decided(step)
        if step.settled and self.trace.exit is not None and step is self.trace.steps[-1]:
            return
        if step.settled:
            yield from self._settled(step)

    def _frozen(self, step: Step) -> Iterator[Violation]:
        """An init that wakes much too late says so, and blames nobody (contract 4.3)."""
        late_ms = step.late_ms if step.late_ms > FROZEN_MS else 0
        events = [_event_of(action) for action in step.actions if isinstance(action, LogEvent)]
        told = [event["for_ms"] for event in events if event["event"] == "was_frozen"]
        if told != ([late_ms] if late_ms else []):
            yield Violation(FROZEN, step.now_ms, f"it wakes {step.late_ms} ms too late, and {told} is told")
        for event in events if late_ms else ():
            if _is_of_time(event):
                yield Violation(FROZEN, step.now_ms, f"it wakes {late_ms} ms too late, and judges: {event}")

    # One action.

    def _action(self, action: Action, step: Step) -> Iterator[Violation]:
        rule = self._rules.get(type(action))
        if rule is not None:
            yield from rule(action, step.now_ms)

    def _kill_session(self, action: KillSession, now_ms: int) -> Iterator[Violation]:
        page = self.ledger.pages[action.child]
        if page.refused:
            return
        if page.signalled_ms is None or now_ms < page.signalled_ms + page.spec.stop_timeout_ms:
            yield self._of(page, KILL_TIME, "SIGKILL before its stop_timeout was over")

    def _drop(self, action: DropCapabilities, now_ms: int) -> Iterator[Violation]:
        if not self.ledger.has_to_drop():
            yield Violation(KEPT, now_ms, f"{action.names} are given up before all that need them have succeeded")

    def _survey_tree(self, action: SurveyTree, now_ms: int) -> Iterator[Violation]:
        if action.signal == KILL and self.ledger.kill_ms is None:
            yield Violation(KILL_TIME, now_ms, "SIGKILL for the whole tree, before the deadline")
        elif action.signal and any(page.alive for page in self.ledger.pages) and self.ledger.kill_ms is None:
            yield Violation(STOP_ORDER, now_ms, "the rest of the tree is stopped while children live")

    def _survey(self, action: SurveySession, now_ms: int) -> Iterator[Violation]:
        """What is left of a session has the child's own time, from the first signal on."""
        page = self.ledger.pages[action.child]
        if action.signal != KILL or page.killed_ms is not None or self.ledger.kill_ms is not None:
            return
        if now_ms < page.force_ms(now_ms):
            yield self._of(page, KILL_TIME, "left something in its session, which gets SIGKILL too early")

    def _spawn(self, action: Spawn, now_ms: int) -> Iterator[Violation]:
        ledger, page = self.ledger, self.ledger.pages[action.child]
        if ledger.stop_kind:
            yield self._of(page, NO_START_IN_STOP, "is started during a stop")
        if not all(ledger.pages[need].ready for need in ledger.needs[page.index]):
            yield self._of(page, START_ORDER, "is started before all that it is after are ready")
        if any(self._has_ghost(page, process, now_ms) for process in self.trace.processes):
            yield self._of(page, ONE_COPY, "is started although a process of it lives that was given up")
        if ledger.lease_due_ms is not None:
            yield self._of(page, LEASE, "is started before the init has its lease")
        if ledger.has_to_drop():
            yield self._of(page, KEPT, "is started with a capability that was kept from it")
        if now_ms < page.due_ms:
            yield self._of(page, BACKOFF, f"is started {page.due_ms - now_ms} ms too early")
        if page.fate in (HELD, OVER) or page.alive:
            yield self._of(page, UNWANTED_START, f"is started although it is {'alive' if page.alive else page.fate}")
        if any(process.ended_ms is None or process.ended_ms > now_ms for process in self._unkilled(page, now_ms)):
            yield self._of(page, CLEAN_START, "is started before what its last process left is gone")

    def _probe(self, action: StartProbe, now_ms: int) -> Iterator[Violation]:
        page = self.ledger.pages[action.child]
        if CancelProbe(action.child, action.generation, action.probe) in self.actions:
            return
        thaw = self.trace.scenario.thaw
        if page.down or not page.alive:
            yield self._of(page, CHECK_TIME, "is probed while it is being taken down")
        elif page.fresh and (page.check_ms is None or now_ms != thaw(page.check_ms)):
            yield self._of(page, CHECK_TIME, f"is checked at {now_ms} ms, not at {page.check_ms}")

    def _has_ghost(self, page: Page, process: Process, now_ms: int) -> bool:
        """Whether this is an earlier process of the child's own that lives."""
        if process.child != page.index or process.remnant is not None or process.generation > page.generation:
            return False
        return process.born_ms <= now_ms and (process.ended_ms is None or process.ended_ms > now_ms)

    # The actions of one step together.

    def _whole_step(self, step: Step, *, killed: bool) -> Iterator[Violation]:
        ledger, now_ms = self.ledger, step.now_ms
        yield from self._signals(step)
        ended = bool(step.actions) and isinstance(step.actions[-1], Exit)
        if ledger.kill_ms is not None and not (killed or ended) and SurveyTree(KILL) not in step.actions:
            second = ledger.stop_signals > 1 and now_ms < ledger.stop_ms + ledger.bundle.stop_timeout_ms
            yield Violation(SECOND_SIGNAL if second else DEADLINE, now_ms, "not everything is killed at once")
        if step.events:
            yield from self._refusals(step)
            yield from self._requests(step)
            self._survivors(step)
        if Exit in map(type, step.actions[:-1]):
            yield Violation(LIVENESS, now_ms, "there are actions after the exit")

    def _signals(self, step: Step) -> Iterator[Violation]:
        """Every signal that the core sends has a reason, and every forwarding is carried out (contract 4, 5)."""
        yield from self._forwards(step)
        expected = self._expected_signals(step.events) if step.events else []
        sent = [action for action in step.actions if isinstance(action, SendSignal)]
        for wanted in expected:
            if wanted not in sent:
                page = self.ledger.pages[wanted.child]
                yield self._of(page, FORWARDING, f"does not get signal {wanted.signal}")
            else:
                sent.remove(wanted)
        while sent:
            action = sent.pop(0)
            page = self.ledger.pages[action.child]
            cont = SendSignal(action.child, action.generation, CONT)
            if action.signal != page.spec.stop_signal:
                yield self._of(page, FORWARDING, f"gets signal {action.signal}, which nobody has sent for it")
            elif cont not in sent:
                yield self._of(page, STOP_SIGNAL, "gets no CONT after its stop signal")
            else:
                sent.remove(cont)
                yield from self._stop_signal(page, step.now_ms)

    def _expected_signals(self, events: tuple[Event, ...]) -> list[SendSignal]:
        """What an operator has ordered to be sent to those that lived when the order came."""
        found: list[SendSignal] = []
        for event in events:
            if isinstance(event, happened.ChildSignalOrdered):
                page = self.ledger.pages[event.child]
                if page.index in self.alive:
                    found.append(SendSignal(page.index, page.generation, event.signal, event.request))
        return found

    def _forwards(self, step: Step) -> Iterator[Violation]:
        """What reached the init goes on to those that it is for, now or once they are ready, and it says so."""
        orders = [action for action in step.actions if isinstance(action, ForwardSignal)]
        found = [(order.signal, order.targets) for order in orders if not order.late]
        wanted = [(passing.signal, tuple(passing.to)) for passing in self.ledger.passing if passing.to]
        if found != wanted:
            yield Violation(FORWARDING, step.now_ms, f"{found} is forwarded, and should be {wanted}")
        late = [(*target, order.signal, order.sender_pid) for order in orders if order.late for target in order.targets]
        if late != self.ledger.delivering:
            what = f"of what waited, {late} is delivered, and should be {self.ledger.delivering}"
            yield Violation(FORWARDING, step.now_ms, what)
        events = [_event_of(action) for action in step.actions if isinstance(action, LogEvent)]
        told = sorted(_essence(event) for event in events if event["event"] in ABOUT_SIGNALS)
        known = sorted(map(_essence, self.ledger.told))
        if told != known:
            yield Violation(SIGNALS_TOLD, step.now_ms, f"{told} is told, and should be {known}")

    def _stop_signal(self, page: Page, now_ms: int) -> Iterator[Violation]:
        if not page.alive or not page.down:
            yield self._of(page, UNASKED_STOP, "gets its stop signal, and nothing has asked for that")
        if page.signalled_ms is not None:
            yield self._of(page, STOP_SIGNAL, "gets its stop signal twice")
        if now_ms < page.down_ms + page.spec.stop_delay_ms:
            yield self._of(page, STOP_DELAY, "gets its stop signal before its stop_delay is over")
        if not self.ledger.may_stop(page):
            yield self._of(page, STOP_ORDER, "gets its stop signal while others that run after it are still there")
        if self.ledger.stop_kind:
            for index in self.ledger.after[page.index]:
                later = self.ledger.pages[index]
                if later.given_up:
                    continue  # What could not be ended was not waited for, and nor is its session, whatever ends later.
                if any(process.ended_ms is None for process in self._unkilled(later, now_ms)):
                    yield self._of(page, STOP_ORDER, "gets its stop signal while a session after it is still there")

    def _unkilled(self, page: Page, now_ms: int) -> list[Process]:
        """What is left of a child's session, but for what has had its second after SIGKILL."""
        return [
            process
            for process in self.left.get(page.index, ())
            if process.born_ms < now_ms
            and (process.ended_ms is None or process.ended_ms > now_ms)
            and (process.killed_ms is None or process.killed_ms > now_ms - GIVE_UP_MS)
            and not process.is_barred(now_ms)
        ]

    def _refusals(self, step: Step) -> Iterator[Violation]:
        """Whom a stop signal did not reach in a stop is sent SIGKILL now."""
        killed = [action.child for action in step.actions if isinstance(action, KillSession)]
        for event in step.events:
            page = self.ledger.pages[event.child] if isinstance(event, happened.SignalRefused) else None
            if page is not None and page.refused and page.killed_ms is None and page.index not in killed:
                yield self._of(page, REFUSALS, "does not get its stop signal, and no SIGKILL either")

    def _requests(self, step: Step) -> Iterator[Violation]:
        """An order to send a signal is answered when it has been carried out, all others at once."""
        later = [
            event.request
            for event in step.events
            if isinstance(event, happened.ChildSignalOrdered) and event.child in self.alive
        ]
        asked = [number for event in step.events if (number := _request_of(event)) not in (0, *later)]
        answered = [action.request for action in step.actions if isinstance(action, Answer)]
        if asked != answered:
            yield Violation(ANSWERS, step.now_ms, f"requests {asked} got the answers {answered}")

    def _survivors(self, step: Step) -> None:
        if self.stopping:
            for event in step.events:
                if isinstance(event, happened.SessionSurveyed | happened.TreeSurveyed):
                    self.found.update(((survivor.pid, survivor.born), None) for survivor in event.survivors)

    # The end of a wake-up.

    def _settled(self, step: Step) -> Iterator[Violation]:
        ledger, now_ms = self.ledger, step.now_ms
        for page in ledger.pages:
            if step.state.children[page.index].pid and page.ghost:
                yield self._of(page, REFUSALS, "is not given up, although nothing that is sent to it reaches it")
            if page.alive:
                yield from self._settled_living(page, now_ms)
            elif ledger.may_start(page):
                yield self._of(page, STARTS_AT_ONCE, "could be started, and is not")
            elif page.fate == PENDING and not ledger.stop_kind:
                yield from self._vain(page)
            if page.clearing and ledger.kill_ms is None:
                yield from self._clearing(page, now_ms)
        if ledger.has_to_drop() and not ledger.stop_kind:
            yield Violation(KEPT, now_ms, "the init keeps what is needed no more")
        if ledger.stop_kind and not step.living and not any(page.alive for page in ledger.pages):
            yield Violation(ENDS_AT_ONCE, now_ms, "everything is gone, and the init has not ended")
        found = status.health(step.state).health
        if found != ledger.health():
            yield Violation(HEALTH, now_ms, f"the answer is {found}, and should be {ledger.health()}")

    def _clearing(self, page: Page, now_ms: int) -> Iterator[Violation]:
        """What a dead child has left in its session is asked to end, and is waited for no longer than it lives."""
        left = [
            process
            for process in self.left.get(page.index, ())
            if process.generation == page.generation and process.born_ms <= now_ms
            if (process.ended_ms is None or process.ended_ms >= now_ms) and not process.is_barred(now_ms)
        ]
        if not left:
            yield self._of(page, STOPS_AT_ONCE, "is waited for, and nothing is left of its session")
        for process in left:
            signalled = [at_ms for at_ms in (process.asked_ms, process.killed_ms) if at_ms is not None]
            if process.ended_ms != now_ms and min(signalled, default=now_ms + 1) > now_ms:
                yield self._of(page, ASKED_FIRST, f"has left {process.name} in its session, which gets no TERM")

    def _settled_living(self, page: Page, now_ms: int) -> Iterator[Violation]:
        ledger = self.ledger
        if ledger.kill_ms is not None:
            return
        if page.down and page.signalled_ms is None:
            if ledger.may_stop(page) and now_ms >= page.down_ms + page.spec.stop_delay_ms:
                yield self._of(page, STOPS_AT_ONCE, "could be stopped, and is not")
        elif page.signalled_ms is not None and page.killed_ms is None:
            if now_ms > page.signalled_ms + page.spec.stop_timeout_ms:
                yield self._of(page, KILL_TIME, "has outlived its stop_timeout, and is not killed")
        elif page.attempt_ms is not None and not page.down and now_ms >= page.attempt_ms:
            yield self._of(page, READINESS, "is not asked whether it is ready")

    def _vain(self, page: Page) -> Iterator[Violation]:
        """Nobody waits for what will never come, unless an operator has wanted that."""
        for index in self.ledger.needs[page.index]:
            need = self.ledger.pages[index]
            if not need.ready and not need.alive and need.fate == OVER and not (need.touched or page.touched):
                yield self._of(page, VAIN_WAIT, f"waits for {need.spec.name}, which has ended for good")

    # The end of the run.

    def close(self) -> Iterator[Violation]:
        """What the end of the run says."""
        trace, ledger = self.trace, self.ledger
        end_ms = trace.end_ms
        if trace.crash is not None:
            yield Violation(NO_CRASH, end_ms, f"{type(trace.crash).__name__}: {trace.crash}")
        elif trace.exit is None:
            yield Violation(LIVENESS, end_ms, trace.stuck)
        else:
            yield from self._exit(trace.exit)
            if trace.logs is not None:
                found = sorted(lines.faults(trace.logs, ledger.stop_ms, end_ms), key=_when)
                yield from (Violation(*fault) for fault in found)
            named = {(survivor.pid, survivor.born) for survivor in trace.exit.survivors if survivor.barred}
            for process in trace.processes:
                parent = process.leader if not process.surveyed else None
                if parent is not None and (process.is_barred(end_ms) or parent.refuses(KILL, end_ms)):
                    continue  # Forked after the last look, by one that the init could not end.
                if process.is_barred(end_ms):
                    if process.ended_ms is None and (process.pid, process.serial) not in named:
                        yield Violation(REPORT, end_ms, f"{process.name} stays, and the report does not say why")
                elif process.ended_ms is None and not self._is_given_up(process):
                    what = f"{process.name} of {ledger.pages[process.child].spec.name} is left behind"
                    yield Violation(WHOLE_TREE, end_ms, what)

    def _is_given_up(self, process: Process) -> bool:
        """Whether it has had its second after SIGKILL; what was forked since that for everything has what is left."""
        if process.killed_ms is None:
            return False
        everything_ms = process.killed_ms if self.ledger.kill_ms is None else self.ledger.kill_ms
        return self.trace.end_ms >= min(process.killed_ms, everything_ms) + GIVE_UP_MS

    def _exit(self, done: Exit) -> Iterator[Violation]:
        ledger, end_ms = self.ledger, self.trace.end_ms
        if (done.stop.kind, done.stop.at_ms) != (ledger.stop_kind, ledger.stop_ms):
            what = f"a {done.stop.kind} stop at {done.stop.at_ms} ms is reported ({done.stop.cause})"
            yield Violation(FIRST_CAUSE, end_ms, f"{what}, it was a {ledger.stop_kind} one at {ledger.stop_ms}")
        if done.stop.culprit != ledger.culprit:
            what = f"{done.stop.culprit or 'nobody'} is the culprit ({done.stop.cause}), it was {ledger.culprit}"
            yield Violation(REPORT, end_ms, what)
        if done.code != ledger.exit_code():
            yield Violation(EXIT_CODE, end_ms, f"the exit code is {done.code}, and should be {ledger.exit_code()}")
        if ledger.bundle.exit_code_from is None and (done.code == 0) != ledger.was_asked_for():
            yield Violation(ZERO, end_ms, f"the exit code is {done.code}")
        latest_ms = self.trace.scenario.thaw(ledger.stop_ms + ledger.bundle.stop_timeout_ms)
        if end_ms > self.trace.scenario.thaw(latest_ms + GIVE_UP_MS):
            yield Violation(DEADLINE, end_ms, f"the stop began at {ledger.stop_ms} ms")
        yield from self._report(done)

    def _report(self, done: Exit) -> Iterator[Violation]:
        told = {
            death.child: (
                *(death.code, death.severity, death.forced),
                death.forwarded and (death.forwarded.source, death.forwarded.sender_pid),
            )
            for death in done.deaths
        }
        lasts = {page.index: page.last for page in self.ledger.pages if page.last is not None}
        known = {index: (last.code, last.severity, last.killed, last.forwarded) for index, last in lasts.items()}
        if told != known:
            yield Violation(REPORT, self.trace.end_ms, f"the deaths are told as {told}, and were {known}")
        left = [survivor for survivor in done.survivors if survivor.pid and not survivor.barred]
        seems = bool(left) and self._has_left(done)
        if bool(done.hint) != seems:
            yield Violation(REPORT, self.trace.end_ms, f"the hint is {done.hint!r}, with {left} left behind")
        named = {(survivor.pid, survivor.born) for survivor in done.survivors}
        remnants = {(process.pid, process.serial) for process in self.trace.processes if process.remnant is not None}
        missing = [pid for pid, born in self.found if (pid, born) in remnants - named]
        if missing:
            yield Violation(REPORT, self.trace.end_ms, f"the processes {missing} are not named as survivors")

    def _has_left(self, done: Exit) -> bool:
        """Whether a daemon that nobody asked to end is to blame, or was the last, and ended with success."""
        blamed = {
            page.index
            for page in self.ledger.pages
            if page.spec.kind == "daemon" and (done.stop.kind == "natural" or page.spec.name == self.ledger.culprit)
        }
        return any(
            death.child in blamed
            and death.code in self.ledger.pages[death.child].spec.success_codes
            and death.severity != FORCED
            and not (death.stopping or death.brought_about)
            for death in done.deaths
        )

    def _of(self, page: Page, invariant: str, what: str) -> Violation:
        return Violation(invariant, self.ledger.now_ms, f"{page.spec.name} {what}")


def _event_of(action: LogEvent) -> dict[str, Any]:
    return {"event": action.event, "child": action.child, **dict(action.facts)}


def _is_of_time(event: dict[str, Any]) -> bool:
    """Whether somebody has not been in time for something, other than in a stop."""
    why = event.get("cause") or event.get("reason") or ""
    by_time = ("no answer in time", "no WATCHDOG=1", "the lease was not renewed", "nobody has taken the connection")
    return event["event"] in ("not_ready", "timed_out") or any(part in why for part in by_time)


def _essence(event: dict[str, Any]) -> str:
    """What an event says, without what it leaves out or says for people."""
    return str({key: value for key, value in sorted(event.items()) if value and key not in FOR_PEOPLE})


def _request_of(event: Event) -> int:
    """The number of the request that is to be answered now, 0 where none is."""
    return event.order.request if isinstance(event, happened.OrderedSignalSent) else getattr(event, "request", 0)


def _when(fault: lines.Fault) -> int:
    return fault[1]
