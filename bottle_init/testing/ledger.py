"""The contract once more, in other words: what has to follow from the events that a bundle has seen.

The ledger reads a trace step by step and keeps its own books. It is written from the text of
`docs/contract.md` and shares no decision with `core/`: from there come only the words (the events,
the actions, the bundle). Where the core and the ledger disagree, one of them is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bottle_init.core import events as happened
from bottle_init.core.actions import (
    CancelProbe,
    KillSession,
    SendSignal,
    Spawn,
    StartProbe,
    SurveySession,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bottle_init.core.actions import Action
    from bottle_init.core.events import Event
    from bottle_init.core.spec import Bundle, Check, Spec
    from bottle_init.core.state import Survivor
    from bottle_init.testing.world import Step

KILL, CONT = 9, 18
BY_NAME = (1, 10, 12, 28, *range(34, 65))
SAME_REQUEST_MS = 5
LEASE_PATIENCE_MS = 5_000
UNAVAILABLE = 69
GIVE_UP_MS = 1_000
FROZEN_MS = 1_000
LONGEST_PAUSE_MS = 250

CRASH, FORCED, FAILURE, LEFT, CLEAN = range(5)
"""Contract 2's severities, worst first."""

RESTARTING = ("restart", "restart-on-failure")

# Why a child is being taken down by the init.
ASKED, AGAIN, FOR_ANOTHER, FOR_HEALTH, FOR_READINESS, OUT_OF_TIME, BUNDLE = (
    "asked",
    "again",
    "for-another",
    "for-health",
    "for-readiness",
    "out-of-time",
    "bundle",
)

# What is to become of a child that has no process.
PENDING, HELD, OVER = "pending", "held", "over"


Sender = tuple[int, int]
"""The signal as it reached the init, and the pid of who had sent it."""


class Passing:
    """A signal that reached the init and is for children: what each child gets, waits for, or is passed over for."""

    __slots__ = ("passed_over", "sender", "signal", "to", "waiting")

    def __init__(self, signal: int, sender: int) -> None:
        self.signal = signal
        self.sender = sender
        self.to: list[tuple[int, int, int]] = []
        self.waiting: dict[str, str] = {}
        self.passed_over: dict[str, str] = {}


class Fall:
    """A death as the contract's table sees it."""

    __slots__ = ("brought_about", "child", "code", "forwarded", "killed", "killed_by", "severity", "success")

    def __init__(
        self,
        child: int,
        severity: int,
        code: int,
        *,
        success: bool,
        brought_about: bool,
        killed: bool,
        forwarded: Sender | None = None,
    ) -> None:
        self.child = child
        self.severity = severity
        self.code = code
        self.success = success
        self.brought_about = brought_about
        self.killed = killed
        self.killed_by = 0
        self.forwarded = forwarded

    @property
    def exit_code(self) -> int:
        """The table's last column."""
        return {CLEAN: 0, LEFT: UNAVAILABLE, FORCED: 137}.get(self.severity, self.code)

    @property
    def rank(self) -> tuple[int, int]:
        """Worst first; ties go to the child declared first."""
        return self.severity, self.child


class Page:
    """What the ledger knows of one child."""

    def __init__(self, index: int, spec: Spec) -> None:
        self.index = index
        self.spec = spec
        self.fate = PENDING if spec.enabled else HELD
        self.due_ms = 0
        self.ready = not spec.enabled
        self.ever_ready = False
        self.counted: Fall | None = None
        self.last: Fall | None = None
        self.restarts: list[int] = []
        self.streak = 0
        self.generation = 0
        self.clearing = False
        self.clear_give_up_ms: int | None = None
        self.cleared_from_ms = 0
        self.was_down = False
        self.touched = False
        self.ghost = False
        self.reset()
        self.alive = False

    def reset(self) -> None:
        """A new process: nothing of the last one's is known of it."""
        self.alive = True
        self.forked_ms: int | None = None
        self.executed = False
        self.fresh = False
        self.down = ""
        self.down_ms = 0
        self.signalled_ms: int | None = None
        self.killed_ms: int | None = None
        self.sent: dict[int, None] = {}
        self.forwarded: dict[int, Sender] = {}
        self.waiting: dict[int, Sender] = {}
        self.pid = 0
        self.refused = False
        self.given_up = False
        self.run_from_ms = 0
        self.ready_from_ms = 0
        self.give_up_ms: int | None = None
        self.probe = 0
        self.probe_ends_ms = 0
        self.failures = 0
        self.failing = False
        self.unhealthy = False
        self.check_has_passed = False
        self.self_reported_unhealthy = False
        self.said_ready = False
        self.said_ill: bool | None = None
        self.watchdog_ms = 0
        self.watchdog_at_ms: int | None = None
        self.check_ms: int | None = None
        self.attempt_ms: int | None = None
        self.settled_ms: int | None = None

    def force_ms(self, now_ms: int) -> int:
        """When what is left of the dead child's session is to be killed, if TERM is sent to it by now."""
        began_ms = self.cleared_from_ms if self.clearing else now_ms
        since_ms = self.signalled_ms if self.signalled_ms is not None else began_ms
        return since_ms + self.spec.stop_timeout_ms

    def decide_down(self, reason: str, now_ms: int) -> None:
        """The init has decided to take the living child down; a run out of time stays one."""
        if not self.down:
            self.down_ms = now_ms
        if self.down != OUT_OF_TIME:
            self.down = reason
        self.watchdog_at_ms = None


class Ledger:
    """The books of one run. Read each step, in order; then ask."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.pages = [Page(index, spec) for index, spec in enumerate(bundle.children)]
        names = {spec.name: index for index, spec in enumerate(bundle.children)}
        self.direct = [[names[name] for name in spec.after] for spec in bundle.children]
        self.after = [self._reach(index) for index in range(len(self.pages))]
        self.needs = [[i for i, later in enumerate(self.after) if page.index in later] for page in self.pages]
        self.stop_kind = ""
        self.stop_ms = 0
        self.stop_code: int | None = None
        self.culprit = ""
        """The name of the child that the cause of the stop is about."""
        self.trigger: Fall | None = None
        self.stop_signals = 0
        self.acted_ms: int | None = None
        self.passing: list[Passing] = []
        self.delivering: list[tuple[int, int, int, int, int]] = []
        self.told: list[dict[str, Any]] = []
        self._underway: list[Passing] = []
        self.keepers = [page for page in self.pages if page.spec.keeps]
        self.dropped = False
        self._barred: set[tuple[int, int | None]] = set()
        self.kill_ms: int | None = None
        self.lease_ms = bundle.lease.renew_ms if bundle.lease is not None else None
        has_peer = bundle.lease is not None and bundle.lease.renew_ms is None
        self.lease_due_ms = LEASE_PATIENCE_MS if has_peer else None
        self.now_ms = 0
        self._rules: dict[type[Event], Callable[[Any], None]] = {
            happened.ChildForked: self._forked,
            happened.ForkFailed: self._fork_failed,
            happened.ChildExecuted: self._executed,
            happened.ProbeSucceeded: self._answered,
            happened.Notified: self._notified,
            happened.SignalForwarded: self._forwarded,
            happened.TimeNoted: self._noted,
            happened.CapabilitiesDropped: self._dropped,
            happened.SignalRefused: self._refused,
            happened.OrderedSignalSent: self._ordered_signal_sent,
            happened.SessionKilled: self._session_killed,
            happened.TreeSurveyed: self._tree_surveyed,
            happened.SessionSurveyed: self._surveyed,
        }
        self._deeds: dict[type[Action], Callable[[Any], None]] = {
            Spawn: self._spawn,
            KillSession: self._kill_session,
            StartProbe: self._start_probe,
            CancelProbe: self._cancel_probe,
            SurveySession: self._survey,
        }

    def _reach(self, index: int) -> list[int]:
        """All that runs after this child, transitively, in the order of declaration."""
        reached = {index}
        for _ in self.pages:
            reached.update(other for other, needs in enumerate(self.direct) if reached.intersection(needs))
        return sorted(reached - {index})

    # Reading: requests, observations, deaths, failed probes, timers (contract 8); then what the core decided.

    def read(self, step: Step) -> None:
        """Take in one step."""
        self.now_ms = step.now_ms
        if step.late_ms > FROZEN_MS:
            self._thaw()
        self.passing, self.delivering, self.told = [], [], []
        deaths: list[happened.ChildExited] = []
        rest: list[Event] = []
        failed: list[happened.ProbeFailed] = []
        if step.events:
            heard = False
            for event in step.events:
                kind = type(event)
                if kind is happened.ChildExited:
                    deaths.append(event)  # type: ignore[arg-type]
                elif kind is happened.ProbeFailed:
                    failed.append(event)  # type: ignore[arg-type]
                elif kind in happened.REQUESTS:
                    heard = self._request(event, heard=heard)
                else:
                    rest.append(event)
            for event in self._in_order(rest):
                rule = self._rules.get(type(event))
                if rule is not None:
                    rule(event)
            self._sweep([fall for death in deaths if (fall := self._death(death)) is not None])
            for event in failed:
                self._answered(event)
        self._fire_timers()

    def _in_order(self, events: list[Event]) -> list[Event]:
        """Outside a stop, that a child cannot be ended is judged with the deaths, after all else that was seen."""
        if self.stop_kind:
            return events
        return sorted(events, key=lambda event: type(event) is happened.SessionKilled)

    def _thaw(self) -> None:
        """Contract 4.3: what others have to be in time for has its full time once more."""
        for page in self.pages:
            page.run_from_ms = page.ready_from_ms = self.now_ms
            if page.probe and page.fresh and page.spec.health is not None:
                page.probe_ends_ms = self.now_ms + page.spec.health.timeout_ms
            if page.watchdog_at_ms is not None:
                page.watchdog_at_ms = self.now_ms + page.watchdog_ms
        if self.lease_ms is not None and self.bundle.lease is not None and self.bundle.lease.renew_ms is not None:
            self.lease_ms = self.now_ms + self.bundle.lease.renew_ms
        if self.lease_due_ms is not None:
            self.lease_due_ms = self.now_ms + LEASE_PATIENCE_MS

    def decided(self, step: Step) -> None:
        """Take in what the core has answered to the step that was read last."""
        ordered = [
            (event.child, event.signal) for event in step.events if isinstance(event, happened.ChildSignalOrdered)
        ]
        for action in step.actions:
            self._act(action, ordered)
        if not self.stop_kind and not any(self._is_up(page) for page in self.pages):
            self._stop("natural")

    def _is_up(self, page: Page) -> bool:
        """Whether it keeps the bundle from its natural end (contract 2, rule 4)."""
        clearing = page.clearing and (page.signalled_ms is not None or page.fate != OVER)
        return page.alive or clearing or page.fate == PENDING

    def _stop(self, kind: str, code: int | None = None, culprit: Page | None = None) -> None:
        """The first cause wins; `culprit` is the child that it is about."""
        if self.stop_kind:
            return
        self.culprit = "" if culprit is None else culprit.spec.name
        self.stop_kind, self.stop_ms, self.stop_code = kind, self.now_ms, code
        for page in self.pages:
            if page.alive:
                page.decide_down(BUNDLE, self.now_ms)

    # Requests (contract 1, 4, 5, and rule 7 of 2).

    def _request(self, event: Event, *, heard: bool) -> bool:
        """Returns whether a stop signal has been heard in this wake-up."""
        if isinstance(event, happened.SignalReceived):
            if event.signal not in self.bundle.stop_signals:
                self._signal(event)
                return heard
            self._stop_signal(event, heard=heard)
            return True
        if isinstance(event, happened.StopOrdered):
            self._stop("requested")
        elif isinstance(event, happened.LeaseEnded):
            self._lose_lease()
        elif isinstance(event, happened.LeaseTaken):
            self.lease_due_ms = None
        elif isinstance(event, happened.LeaseRenewed):
            if self.bundle.lease is not None and self.bundle.lease.renew_ms is not None:
                self.lease_ms = self.now_ms + self.bundle.lease.renew_ms
        elif not self.stop_kind:
            self._order(event)
        return heard

    def _lose_lease(self) -> None:
        """Contract 4: one that was never had is nobody's wish."""
        if self.lease_due_ms is None:
            self._stop("requested")
        else:
            self._stop("policy", UNAVAILABLE)

    def _stop_signal(self, event: happened.SignalReceived, *, heard: bool) -> None:
        """The second kills; those of one wake-up are one, and so are those within 5 ms of the first one's effect."""
        soon = self.acted_ms is None or self.now_ms - self.acted_ms <= SAME_REQUEST_MS
        if heard or (self.stop_signals and soon):
            self._tell(event, effect="the same request")
            return
        self.stop_signals += 1
        self._tell(event, effect="stop requested" if self.stop_signals == 1 else "kills what is left")
        if self.stop_signals == 1:
            self._stop("requested")
        elif self.kill_ms is None:
            self._kill_all()

    def _noted(self, _event: happened.TimeNoted) -> None:
        self.acted_ms = self.now_ms

    def _signal(self, event: happened.SignalReceived) -> None:
        """Contract 5: CONT is for every child, some are for those that name them, all others are ignored."""
        if event.signal != CONT and event.signal not in BY_NAME:
            self._tell(event, effect="ignored")
            return
        passing = Passing(event.signal, event.sender_pid)
        for page in self.pages:
            name = page.spec.name
            wanted = CONT if event.signal == CONT else dict(reversed(page.spec.signals)).get(event.signal, 0)
            if not wanted:
                passing.passed_over[name] = "not named"
            elif not page.alive:
                passing.passed_over[name] = "not running"
            elif page.fresh or wanted == CONT == event.signal:
                passing.to.append((page.index, page.generation, wanted))
            else:
                passing.waiting[name] = "not ready"
                page.waiting.pop(wanted, None)
                page.waiting[wanted] = (event.signal, event.sender_pid)
        self.passing.append(passing)
        if passing.to:
            self._underway.append(passing)
        else:
            self._tell_passing(passing, (), {})

    def _tell(self, event: happened.SignalReceived, **facts: object) -> None:
        received = {"event": "signal_received", "signal": event.signal, "sender_pid": event.sender_pid}
        self.told.append({**received, **facts})

    def _tell_dropped(self, page: Page) -> None:
        """What waited for the process ends with it."""
        for source, _ in page.waiting.values():
            self.told.append({"event": "signal_dropped", "child": page.spec.name, "signal": source})
        page.waiting = {}

    def _tell_passing(self, passing: Passing, sent: tuple[int, ...], refused: dict[int, str]) -> None:
        others = [index for index, _, _ in passing.to if index not in sent]
        ended = {
            self.pages[index].spec.name: "refused by the kernel" if index in refused else "not running"
            for index in others
        }
        facts = {
            "event": "signal_received",
            "signal": passing.signal,
            "sender_pid": passing.sender,
            "sent_to": tuple(self.pages[index].spec.name for index, _, _ in passing.to if index in sent),
            "waiting": passing.waiting,
            "passed_over": {**passing.passed_over, **ended},
        }
        self.told.append(facts)

    def _kill_all(self) -> None:
        self.kill_ms = self.now_ms
        for page in self.pages:
            page.clearing = False
            if page.alive:
                page.sent[KILL] = None
                page.killed_ms = self.now_ms if page.killed_ms is None else page.killed_ms
                page.give_up_ms = self.now_ms + GIVE_UP_MS

    def _order(self, event: Event) -> None:
        if isinstance(event, happened.ChildStopOrdered):
            page = self.pages[event.child]
            if page.alive and event.barred:
                self._tell_refused(page, page.spec.stop_signal)
                return
            page.touched = True
            if page.alive:
                page.decide_down(ASKED, self.now_ms)
            elif page.fate == PENDING:
                page.fate = HELD
        elif isinstance(event, happened.ChildStartOrdered | happened.ChildRestartOrdered):
            self._order_start(event)

    def _order_start(self, event: happened.ChildStartOrdered | happened.ChildRestartOrdered) -> None:
        page = self.pages[event.child]
        if (page.spec.keeps and page.ever_ready) or page.ghost:
            return
        again = isinstance(event, happened.ChildRestartOrdered)
        if page.alive and isinstance(event, happened.ChildRestartOrdered) and event.barred:
            self._tell_refused(page, page.spec.stop_signal)
            return
        page.touched = True
        if not page.alive:
            page.fate, page.due_ms, page.counted = PENDING, self.now_ms, None
        elif again or page.down == ASKED:
            page.decide_down(AGAIN, self.now_ms)
            if again:
                self._rest_for_one(page)

    # Observations.

    def _forked(self, event: happened.ChildForked) -> None:
        page = self.pages[event.child]
        page.forked_ms = page.run_from_ms = page.ready_from_ms = self.now_ms
        page.pid = event.pid
        if event.barred:
            self.told.append({"event": "child_not_signallable", "child": page.spec.name})

    def _fork_failed(self, event: happened.ForkFailed) -> None:
        page = self.pages[event.child]
        page.alive = False
        page.fate = OVER
        if self.stop_kind:
            return
        if page.spec.kind == "daemon" and page.spec.policy in RESTARTING and self._plan_restart(page):
            self._rest_for_one(page)
        else:
            self._stop("policy", UNAVAILABLE, page)

    def _executed(self, event: happened.ChildExecuted) -> None:
        page = self.pages[event.child]
        if page.generation != event.generation or not page.alive:
            return
        page.executed = True
        if page.spec.ready is not None and page.spec.ready.probe.kind == "after":
            page.settled_ms = self.now_ms + page.spec.ready.probe.after_ms
        elif page.spec.ready is not None and page.spec.ready.probe.kind != "notify" and not page.down:
            page.attempt_ms = self.now_ms
        if page.spec.kind != "oneshot" and page.spec.ready is None and not page.down:
            self._become_ready(page)

    def _become_ready(self, page: Page) -> None:
        page.fresh = page.ready = page.ever_ready = True
        for signal, sender in page.waiting.items():
            self.delivering.append((page.index, page.generation, signal, *sender))
        page.waiting = {}
        page.probe = 0
        page.attempt_ms = None
        if page.spec.health is not None:
            page.check_ms = self.now_ms + page.spec.health.interval_ms
        if page.watchdog_ms:
            page.watchdog_at_ms = self.now_ms + page.watchdog_ms

    def _answered(self, event: happened.ProbeSucceeded | happened.ProbeFailed) -> None:
        page = self.pages[event.child]
        if page.generation != event.generation or page.probe != event.probe or not page.alive or page.down:
            return
        page.probe = 0
        works = isinstance(event, happened.ProbeSucceeded)
        if page.fresh:
            self._checked(page, works=works)
        elif works:
            self._become_ready(page)
        else:
            page.attempt_ms = self.now_ms + LONGEST_PAUSE_MS

    def _checked(self, page: Page, *, works: bool) -> None:
        """One result of a health check (contract 6)."""
        check: Check | None = page.spec.health
        if check is None or page.forked_ms is None:
            return
        page.failing = not works
        page.check_ms = self.now_ms + check.interval_ms
        if works:
            page.failures, page.check_has_passed, page.unhealthy = 0, True, page.self_reported_unhealthy
        elif page.check_has_passed or self.now_ms >= page.forked_ms + check.start_period_ms:
            page.failures += 1
            if page.failures >= check.retries:
                self._become_unhealthy(page)

    def _become_unhealthy(self, page: Page) -> None:
        if page.unhealthy:
            return
        page.unhealthy = True
        if self.stop_kind:
            return
        if page.spec.on_unhealthy == "restart":
            page.decide_down(FOR_HEALTH, self.now_ms)
            self._rest_for_one(page)
        elif page.spec.on_unhealthy == "stop":
            self._stop("policy", UNAVAILABLE, page)

    def _notified(self, event: happened.Notified) -> None:
        """sd_notify(3)."""
        page = self.pages[event.child]
        if page.generation != event.generation or not page.alive:
            return
        if event.watchdog_ms is not None and page.signalled_ms is None:
            page.watchdog_ms = event.watchdog_ms
        if page.down:
            page.said_ready |= event.ready
            if page.fresh and (event.watchdog or event.watchdog_trigger):
                page.said_ill = event.watchdog_trigger
            return
        ready = page.spec.ready
        if not page.fresh:
            if event.ready and ready is not None and ready.probe.kind == "notify":
                self._become_ready(page)
            return
        if event.watchdog_trigger:
            self._say_ill(page)
        elif event.watchdog:
            self._say_well(page)
        self._arm_watchdog(page, event)

    def _say_well(self, page: Page) -> None:
        check: Check | None = page.spec.health
        if page.self_reported_unhealthy:
            page.self_reported_unhealthy = False
            page.failing = page.failing and check is not None
            page.unhealthy = check is not None and page.failures >= check.retries

    def _say_ill(self, page: Page) -> None:
        """By its own word, or for lack of it: what no check has said, no check takes back."""
        page.self_reported_unhealthy = True
        page.failing = page.failing or page.spec.health is None
        self._become_unhealthy(page)

    def _arm_watchdog(self, page: Page, event: happened.Notified) -> None:
        if page.down or event.watchdog_ms == 0:
            page.watchdog_at_ms = None
        elif page.watchdog_ms and (event.watchdog or event.watchdog_ms is not None):
            page.watchdog_at_ms = self.now_ms + page.watchdog_ms

    def _forwarded(self, event: happened.SignalForwarded) -> None:
        """Whoever has got it may die of it, and who sent it is known then."""
        passing = None if event.order.late else self._underway.pop(0)
        for child, generation, signal in event.order.targets:
            page = self.pages[child]
            sender = (event.order.signal, event.order.sender_pid)
            if passing is None and child in event.sent:
                self.told.append({"event": "signal_delivered", "child": page.spec.name, "signal": sender[0]})
            if child in event.sent and page.generation == generation and page.alive and signal != CONT:
                page.forwarded[signal] = sender
        if passing is not None:
            self._tell_passing(passing, event.sent, dict(event.refused))
        for child, _, signal in event.order.targets:
            if child in dict(event.refused):
                self._tell_refused(self.pages[child], signal)

    def _tell_refused(self, page: Page, signal: int) -> None:
        self.told.append({"event": "signal_refused", "child": page.spec.name, "signal": signal})

    def _ordered_signal_sent(self, event: happened.OrderedSignalSent) -> None:
        if event.refused:
            self._tell_refused(self.pages[event.order.child], event.order.signal)

    def _refused(self, event: happened.SignalRefused) -> None:
        """Contract 4: it was never sent. In a stop SIGKILL follows; outside one, only an operator can do without."""
        page = self.pages[event.child]
        if event.signal != page.spec.stop_signal or page.refused or page.signalled_ms is None:
            return
        self._tell_refused(page, event.signal)
        page.sent.pop(event.signal, None)
        if self.stop_kind:
            page.refused = True
            return
        page.signalled_ms = None
        if page.down in (ASKED, AGAIN):
            self._carry_on(page)
        else:
            self._stop("policy", UNAVAILABLE, page)

    def _carry_on(self, page: Page) -> None:
        """The child is not to be stopped after all, and has all its time anew."""
        page.down = ""
        page.ready = page.ready or page.fresh
        page.run_from_ms = page.ready_from_ms = self.now_ms
        if page.fresh and page.spec.health is not None:
            page.check_ms = self.now_ms + page.spec.health.interval_ms
        if page.fresh and page.watchdog_ms:
            page.watchdog_at_ms = self.now_ms + page.watchdog_ms
        said_ready, said_ill = page.said_ready, page.said_ill
        page.said_ready, page.said_ill = False, None
        if said_ill is not None:
            (self._say_ill if said_ill else self._say_well)(page)
        if said_ready and not page.fresh and page.spec.ready and page.spec.ready.probe.kind == "notify":
            self._become_ready(page)
        if page.executed and not page.fresh and page.spec.ready and page.spec.ready.probe.kind == "after":
            page.settled_ms = self.now_ms + page.spec.ready.probe.after_ms
        elif page.executed and not page.fresh and page.spec.ready and page.spec.ready.probe.kind != "notify":
            page.attempt_ms = self.now_ms
        if page.executed and not page.fresh and page.spec.ready is None and page.spec.kind != "oneshot":
            self._become_ready(page)

    def _session_killed(self, event: happened.SessionKilled) -> None:
        page = self.pages[event.child]
        if event.reason and page.alive and page.generation == event.generation:
            self._tell_refused(page, KILL)
            self._give_up(page, barred=True)

    def _tree_surveyed(self, event: happened.TreeSurveyed) -> None:
        barred = {survivor.pid for survivor in event.survivors if survivor.barred}
        if self.kill_ms is not None:
            for page in self.pages:
                if page.alive and page.pid in barred:
                    self._give_up(page, barred=True)
        self._note_barred(event.survivors, "")

    def _note_barred(self, survivors: tuple[Survivor, ...], name: str) -> None:
        """Each survivor that may not be killed is told of once, and one that was given up has been."""
        for survivor in survivors:
            known = (survivor.pid, survivor.born)
            if survivor.barred and known not in self._barred:
                self._barred.add(known)
                if survivor.pid not in {page.pid for page in self.pages if page.ghost}:
                    self.told.append({"event": "signal_refused", "child": name, "signal": KILL})

    def _dropped(self, event: happened.CapabilitiesDropped) -> None:
        self.dropped = not event.reason
        if event.reason:
            self._stop("policy", UNAVAILABLE)

    def has_to_drop(self) -> bool:
        """Contract 4: whether all oneshots that keep a capability are done with it, and the init has it still."""
        done = bool(self.keepers) and all(page.ever_ready for page in self.keepers)
        return done and not self.dropped

    def _surveyed(self, event: happened.SessionSurveyed) -> None:
        page = self.pages[event.child]
        if page.generation != event.generation or not page.clearing or self.kill_ms is not None:
            return
        if all(survivor.barred for survivor in event.survivors):
            page.clearing = False
        self._note_barred(event.survivors, page.spec.name)

    # Deaths (contract 2 and 3).

    def _death(self, event: happened.ChildExited) -> Fall | None:
        page = self.pages[event.child]
        if page.generation == event.generation:
            page.ghost = False
        if page.generation != event.generation or not page.alive:
            return None
        code = 128 + event.signal if event.signal else event.code
        self._tell_dropped(page)
        fall = Fall(
            page.index,
            self._severity(page, code, event.signal),
            code,
            success=code in page.spec.success_codes,
            brought_about=not self.stop_kind and page.down not in ("", OUT_OF_TIME),
            killed=KILL in page.sent or page.down == OUT_OF_TIME,
            forwarded=page.forwarded.get(code - 128),
        )
        fall.killed_by = event.signal
        return fall

    def _severity(self, page: Page, code: int, signal: int) -> int:
        if page.down == OUT_OF_TIME or (signal == KILL and KILL in page.sent):
            return FORCED
        if code in page.spec.success_codes:
            policy = page.spec.policy
            wanted = page.spec.kind == "daemon" and policy in ("exit-on-child-death", "restart")
            unasked = not self.stop_kind and not page.down
            return LEFT if wanted and unasked else CLEAN
        asked = page.down not in ("", OUT_OF_TIME)
        if (self.stop_kind or asked) and code - 128 in page.sent:
            return CLEAN
        if self.stop_kind and code - 128 in page.forwarded:
            return CLEAN
        return CRASH if signal else FAILURE

    def _sweep(self, falls: list[Fall]) -> None:
        """All deaths of one wake-up are judged as one."""
        stopping = bool(self.stop_kind)
        triggers = [trigger for fall in falls if (trigger := self._fall(fall, stopping=stopping)) is not None]
        if triggers:
            self.trigger, code = min(triggers, key=_trigger_rank)
            self._stop("policy", code, self.pages[self.trigger.child])
            return
        for fall in falls:
            page = self.pages[fall.child]
            if page.fate == PENDING:
                self._rest_for_one(page)

    def _fall(self, fall: Fall, *, stopping: bool) -> tuple[Fall, int] | None:
        """What one death leads to: a trigger and its exit code, or nothing."""
        page = self.pages[fall.child]
        page.alive, page.last, page.fate = False, fall, OVER
        down, page.down = page.down, ""
        page.was_down = bool(down)
        if page.forked_ms is not None and self.now_ms - page.forked_ms >= page.spec.backoff.limit_ms:
            page.streak = 0
        if stopping:
            page.counted = fall
            return None
        if down == ASKED:
            page.fate = HELD
        elif down in (AGAIN, FOR_ANOTHER):
            page.fate, page.due_ms = PENDING, self.now_ms
        elif down in (FOR_HEALTH, FOR_READINESS):
            return self._restart(page, fall)
        else:
            return self._put_to_policy(page, fall)
        return None

    def _put_to_policy(self, page: Page, fall: Fall) -> tuple[Fall, int] | None:
        spec, success = page.spec, fall.success and fall.severity != FORCED
        if spec.kind == "job" or (spec.kind == "oneshot" and not success):
            return fall, fall.exit_code
        if spec.kind == "oneshot":
            page.ready = page.ever_ready = True
            return None
        crashed = fall.killed_by and not success and spec.policy == "restart-on-crash"
        if spec.policy == "restart" or (spec.policy == "restart-on-failure" and not success) or crashed:
            return self._restart(page, fall)
        strict = spec.policy in ("exit-on-child-failure", "restart-on-crash")
        if spec.policy == "exit-on-child-death" or (strict and not success):
            return fall, fall.exit_code
        page.counted = fall
        if not page.ready and self._is_awaited(page):
            return fall, UNAVAILABLE if success else fall.exit_code
        return None

    def _is_awaited(self, page: Page) -> bool:
        return any(self._comes_back(self.pages[index]) for index in self.after[page.index])

    def _restart(self, page: Page, fall: Fall) -> tuple[Fall, int] | None:
        if self._plan_restart(page):
            return None
        return fall, UNAVAILABLE if fall.success or fall.brought_about else fall.exit_code

    def _plan_restart(self, page: Page) -> bool:
        """Contract 3: the budget, judged now; then initial x factor^n, capped."""
        budget, backoff = page.spec.restarts, page.spec.backoff
        recent = [at_ms for at_ms in page.restarts if at_ms > self.now_ms - budget.window_ms]
        if len(recent) + 1 > budget.max:
            return False
        page.restarts.append(self.now_ms)
        delay_ms = min(backoff.initial_ms * backoff.factor**page.streak, backoff.limit_ms)
        page.streak += 1
        page.fate, page.due_ms, page.counted = PENDING, self.now_ms + int(delay_ms), None
        return True

    def _rest_for_one(self, page: Page) -> None:
        """At every restart of such a daemon, the daemons that run after it go down and come back."""
        if not page.spec.restart_dependents:
            return
        page.ready = False
        for index in self.after[page.index]:
            other = self.pages[index]
            if other.spec.kind != "daemon":
                continue
            if other.alive and not other.down:
                other.decide_down(FOR_ANOTHER, self.now_ms)
                other.ready = False
            elif self._comes_back(other):
                other.ready = False

    def _comes_back(self, page: Page) -> bool:
        """Whether a child that is not up, or is going down, is to be started again."""
        if page.alive:
            return page.down in (AGAIN, FOR_ANOTHER, FOR_HEALTH, FOR_READINESS)
        return page.fate == PENDING

    # Timers.

    def _fire_timers(self) -> None:
        """What is due, in the order of its time: an earlier one may make a later one pointless."""
        now_ms = self.now_ms
        due = [
            (at_ms, page.index, ring)
            for page in self.pages
            if page.alive and page.forked_ms is not None
            for at_ms, ring in self._timers(page)
            if at_ms is not None and at_ms <= now_ms
        ]
        for _, index, ring in sorted(due, key=_timer_order):
            page = self.pages[index]
            if page.alive and (not page.down or ring == self._give_up):
                ring(page)
        for page in self.pages:
            if page.clearing and page.clear_give_up_ms is not None and page.clear_give_up_ms <= now_ms:
                page.clearing = False
        if not self.stop_kind and self.lease_ms is not None and self.lease_ms <= now_ms:
            self._stop("requested")
        elif not self.stop_kind and self.lease_due_ms is not None and self.lease_due_ms <= now_ms:
            self._lose_lease()
        elif self.stop_kind and self.kill_ms is None and self.stop_ms + self.bundle.stop_timeout_ms <= now_ms:
            self._kill_all()

    def _timers(self, page: Page) -> Iterator[tuple[int | None, Callable[[Page], None]]]:
        spec = page.spec
        yield page.give_up_ms, self._give_up
        if page.down:
            return
        if spec.timeout_ms is not None:
            yield page.run_from_ms + spec.timeout_ms, self._run_out
        if spec.ready is not None and not page.fresh:
            yield page.ready_from_ms + spec.ready.timeout_ms, self._miss_readiness
            yield page.settled_ms, self._become_ready
        if page.probe and page.fresh:
            yield page.probe_ends_ms, self._miss_check
        yield page.watchdog_at_ms, self._miss_watchdog

    def _run_out(self, page: Page) -> None:
        page.decide_down(OUT_OF_TIME, self.now_ms)

    def _miss_readiness(self, page: Page) -> None:
        if page.fresh:
            return
        if page.spec.policy in RESTARTING:
            page.decide_down(FOR_READINESS, self.now_ms)
            self._rest_for_one(page)
        else:
            self._stop("policy", UNAVAILABLE, page)

    def _miss_check(self, page: Page) -> None:
        page.probe = 0
        self._checked(page, works=False)

    def _miss_watchdog(self, page: Page) -> None:
        page.watchdog_at_ms = None
        self._say_ill(page)

    def _give_up(self, page: Page, *, barred: bool = False) -> None:
        """No SIGKILL has ended it, or may be sent to it: it counts as forced, and nothing can take its place."""
        page.alive, page.fate, page.ghost, page.given_up = False, OVER, True, True
        self._tell_dropped(page)
        down, page.down = page.down, ""
        page.last = Fall(page.index, FORCED, 128 + KILL, success=False, brought_about=False, killed=not barred)
        if self.stop_kind:
            page.counted = page.last
        elif down == ASKED:
            page.fate = HELD
        else:
            self._stop("policy", UNAVAILABLE, page)

    # What the core has decided, as far as it can be seen from outside.

    def _act(self, action: Action, ordered: list[tuple[int, int]]) -> None:
        if isinstance(action, SendSignal):
            if (action.child, action.signal) in ordered:
                ordered.remove((action.child, action.signal))
            else:
                self._sent(action)
            return
        rule = self._deeds.get(type(action))
        if rule is not None:
            rule(action)

    def _sent(self, action: SendSignal) -> None:
        """A signal that is the init's own; CONT ends nothing, so no end is ever its doing."""
        page = self.pages[action.child]
        if action.signal != CONT:
            page.sent[action.signal] = None
        if action.signal == page.spec.stop_signal and page.down:
            page.signalled_ms = self.now_ms

    def _spawn(self, action: Spawn) -> None:
        page = self.pages[action.child]
        page.reset()
        page.generation = action.generation
        page.counted = None

    def _kill_session(self, action: KillSession) -> None:
        page = self.pages[action.child]
        page.sent[KILL] = None
        page.killed_ms = self.now_ms
        page.give_up_ms = self.now_ms + GIVE_UP_MS

    def _start_probe(self, action: StartProbe) -> None:
        page = self.pages[action.child]
        page.probe = action.probe
        page.check_ms = page.attempt_ms = None
        page.probe_ends_ms = self.now_ms + (page.spec.health.timeout_ms if page.spec.health else 0)

    def _cancel_probe(self, action: CancelProbe) -> None:
        page = self.pages[action.child]
        if page.probe == action.probe:
            page.probe = 0
            page.attempt_ms = None if page.fresh or page.down else self.now_ms + LONGEST_PAUSE_MS

    def _survey(self, action: SurveySession) -> None:
        page = self.pages[action.child]
        if not page.clearing:
            page.cleared_from_ms, page.clear_give_up_ms = self.now_ms, None
        page.clearing = True
        if action.signal == KILL and page.clear_give_up_ms is None:
            page.clear_give_up_ms = self.now_ms + GIVE_UP_MS

    # Asking.

    def deadline_ms(self) -> int | None:
        """When the init has to act next even if nothing happens; it has to be awake then, and not later."""
        if self.kill_ms is not None:
            return self.kill_ms + GIVE_UP_MS
        times = [at_ms for page in self.pages for at_ms in self._deadlines(page) if at_ms is not None]
        if self.stop_kind:
            times.append(self.stop_ms + self.bundle.stop_timeout_ms)
        else:
            times.extend(at_ms for at_ms in (self.lease_ms, self.lease_due_ms) if at_ms is not None)
        return min(times, default=None)

    def _deadlines(self, page: Page) -> list[int | None]:
        spec, forked_ms = page.spec, page.forked_ms
        if not page.alive:
            if page.clearing:
                return [page.clear_give_up_ms if page.clear_give_up_ms is not None else page.force_ms(self.now_ms)]
            return [page.due_ms] if page.fate == PENDING and page.due_ms > self.now_ms and not self.stop_kind else []
        if page.down:
            if page.killed_ms is not None:
                return [page.give_up_ms]
            if page.signalled_ms is not None:
                return [page.signalled_ms + spec.stop_timeout_ms]
            return [page.down_ms + spec.stop_delay_ms] if self.may_stop(page) else []
        if forked_ms is None:
            return []
        times = [page.watchdog_at_ms, page.check_ms, page.attempt_ms]
        if spec.timeout_ms is not None:
            times.append(page.run_from_ms + spec.timeout_ms)
        if spec.ready is not None and not page.fresh:
            times.append(page.ready_from_ms + spec.ready.timeout_ms)
        if page.probe and page.fresh:
            times.append(page.probe_ends_ms)
        return times

    def may_stop(self, page: Page) -> bool:
        """Contract 4: whether all that runs after this child, and is to be stopped, is gone."""
        others = [self.pages[index] for index in self.after[page.index]]
        if self.stop_kind:
            return not any(other.alive or other.clearing for other in others)
        return not any(self.is_going(other) for other in others)

    def exit_code(self) -> int:
        """What contract 2 says, now that the bundle has ended."""
        chosen = self.bundle.exit_code_from
        if chosen is not None:
            last = next(page.last for page in self.pages if page.spec.name == chosen)
            return UNAVAILABLE if last is None else last.exit_code
        if self.stop_code is not None:
            return self.stop_code
        falls = [page.counted for page in self.pages if page.counted is not None]
        return min(falls, key=_rank).exit_code if falls else 0

    def was_asked_for(self) -> bool:
        """Contract 2's first sentence: whether what was asked for has happened."""
        falls = [page.counted for page in self.pages if page.counted is not None]
        if self.stop_kind == "policy":
            job = self.trigger is not None and self.pages[self.trigger.child].spec.kind == "job"
            return job and self.trigger is not None and self.trigger.severity == CLEAN
        return all(fall.severity == CLEAN for fall in falls)

    def health(self) -> str:
        """Contract 6's one answer."""
        if self.stop_kind:
            return "stopping"
        counted = [page for page in self.pages if page.spec.enabled or page.alive or page.clearing or page.fate != HELD]
        found = {self._health(page) for page in counted if page.spec.kind == "daemon"}
        return next((word for word in ("unhealthy", "starting", "degraded") if word in found), "healthy")

    def _health(self, page: Page) -> str:
        if not page.alive and page.fate == OVER:
            return "healthy" if page.last is not None and page.last.success else "unhealthy"
        if page.alive and page.unhealthy:
            return "unhealthy"
        if not page.ever_ready:
            return "starting"
        if not page.alive or page.down or not page.fresh or page.failing:
            return "degraded"
        return "healthy"

    def may_start(self, page: Page) -> bool:
        """Contract 4: whether this child has to start now."""
        if page.alive or page.clearing or page.fate != PENDING or page.due_ms > self.now_ms or self.stop_kind:
            return False
        if self.lease_due_ms is not None or not all(self.pages[need].ready for need in self.needs[page.index]):
            return False
        return not (page.spec.restart_dependents and any(self.is_going(self.pages[i]) for i in self.after[page.index]))

    def is_going(self, page: Page) -> bool:
        """Whether the init has decided to take the child down, and it is not down yet."""
        return bool(page.down) or (page.clearing and page.was_down)


def _rank(fall: Fall) -> tuple[int, int]:
    return fall.rank


def _timer_order(due: tuple[int, int, Callable[[Page], None]]) -> tuple[int, int]:
    return due[0], due[1]


def _trigger_rank(trigger: tuple[Fall, int]) -> tuple[int, int]:
    """What the init brought about does not count; where it has to end the bundle, it is a 69 like any other."""
    fall = trigger[0]
    return LEFT if fall.brought_about else fall.severity, fall.child
