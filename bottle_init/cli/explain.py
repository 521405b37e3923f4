"""`explain`: the story of a report, or of a whole log with one in it: a paragraph, then a timeline.

What it reads may be anything: the JSON of `--report`, a container's log with the daemons' lines in
between, one that a log driver has put its own prefix before each line of, or no such thing at all.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from datetime import datetime

from bottle_init.bundle import reading
from bottle_init.bundle.source import STANDARD_INPUT
from bottle_init.cli import console
from bottle_init.words import jsonlines, signames
from bottle_init.words.exits import EX_NO, EX_OK
from bottle_init.words.text import plain, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, BinaryIO, Protocol

    Event = dict[str, Any]

    class Options(Protocol):
        """What `explain` wants to know of the command line."""

        @property
        def file(self) -> str: ...


EVENTS_KEPT = 1_000
"""So many events of one life of the init are told; the last ones, where there are more."""

_LINE_BYTES = 8 << 20
_DEVICE_BYTES = 8 << 20
_EVENTS_BYTES = 16 << 20
"""So much of the text of events is kept at most. Each is about 200 bytes; but anything may be in what is read."""

_NAMED = 20
_LINES_SHOWN = 20
_TEXT = 300
_HINT = 1_000


class Unreadable(Exception):
    """What was given tells no story, for a reason that is a sentence for people."""


def run(options: Options, show: Callable[[Life], str]) -> int:
    """Print what `show` makes of `options.file` (`-` is standard input): `render`, or `drawing.svg`.

    1, and one line on stderr, where there is no story in it.
    """
    try:
        told = show(life_of(_lines(options.file)))
    except Unreadable as problem:
        console.complain(f"bottle-init explain: {problem}")
        return EX_NO
    except KeyboardInterrupt:
        return EX_NO
    console.print_if_open(told)
    return EX_OK


def _lines(path: str) -> Iterator[bytes]:
    """The lines of a file, each of a bounded length. Raises Unreadable."""
    shown = STANDARD_INPUT if path == "-" else path
    if path == "-" and sys.stdin is None:
        raise Unreadable("standard input is closed; name a file")
    try:
        with open(0, "rb", closefd=False) if path == "-" else open(reading.opened(path), "rb") as file:
            yield from _bounded_lines(file, shown)
    except (OSError, ValueError) as problem:
        raise Unreadable(f"{shown}: {getattr(problem, 'strerror', None) or problem}") from None


def _bounded_lines(file: BinaryIO, shown: str) -> Iterator[bytes]:
    """What a file or a pipe has is as long as it is. A device, but for a terminal, may have no end: /dev/zero."""
    room = None if file.isatty() or not _is_device(file) else _DEVICE_BYTES
    while line := file.readline(_LINE_BYTES):
        yield line
        if room is not None and (room := room - len(line)) < 0:
            raise Unreadable(f"{shown}: is a device; give a report or a log")


def _is_device(file: BinaryIO) -> bool:
    mode = os.fstat(file.fileno()).st_mode
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


REPORT = "exit_report"

PHRASES: dict[str, tuple[tuple[str, str], ...]] = {
    "child_started": (("", "started"), ("pid", " as process {}"), ("restart", ", restart {}")),
    "child_ready": (("", "ready"), ("after_ms", " after {}")),
    "child_exited": (
        ("", "ended"),
        ("code", " with code {}"),
        ("signal", ", killed by {}"),
        ("severity", ", {}"),
        ("oom", ", out of memory"),
        ("detail", ": {}"),
    ),
    "child_restarting": (("restart", "restart {} is due"), ("delay_ms", " in {}")),
    "child_killed": (("", "killed with its session"), ("after_ms", ": it had {} to stop")),
    "child_reaped_late": (("", "ended after all"), ("code", ", with code {}"), ("signal", ", killed by {}")),
    "child_healthy": (("", "healthy again"),),
    "child_unhealthy": (
        ("", "unhealthy"),
        ("failures", " (failed checks: {})"),
        ("reason", ": {}"),
        ("action", " (to do: {})"),
    ),
    "child_reloading": (("", "says that it reloads"),),
    "child_reloaded": (("", "says that it has reloaded"),),
    "child_says_stopping": (("", "says that it stops"),),
    "oneshot_done": (("", "done"),),
    "capabilities_dropped": (("capabilities", "the init has given up {}"),),
    "capabilities_not_dropped": (("capabilities", "the init could not give up {}"), ("reason", ": {}")),
    "fork_failed": (("", "could not be started"), ("reason", ": {}")),
    "not_ready": (("", "not ready in time"), ("last", ": {}")),
    "timed_out": (("", "ran for too long"), ("after_ms", ": {}")),
    "ordered": (("order", "{}"), ("answer", ": {}")),
    "gave_up": (("", "given up"), ("process", ": {}"), ("pid", " ({})"), ("reason", ", {}")),
    "signal_refused": (
        ("signal", "{} was refused by the kernel"),
        ("process", " for {}"),
        ("pid", " ({})"),
        ("reason", ": {}"),
    ),
    "child_not_signallable": (("", "the init will not be able to signal it"), ("reason", ": {}")),
    "signal_received": (
        ("signal", "{} reached the init"),
        ("sender_pid", ", from process {}"),
        ("sender_name", " ({})"),
        ("effect", ": {}"),
        ("sent_to", "; sent to {}"),
        ("waiting", "; waits for {}"),
        ("passed_over", "; passed over {}"),
    ),
    "signal_delivered": (("signal", "{} has waited until it was ready, and is sent to it"),),
    "signal_dropped": (("signal", "{} has waited for it and is dropped"), ("reason", ": {}")),
    "was_frozen": (("for_ms", "the init was frozen, or had no CPU: it woke {} too late, and blames nobody"),),
    "stopping": (("", "the stop begins"), ("kind", ", {}"), ("cause", ": {}")),
    "deadline_passed": (("", "the deadline is over, everything is killed"), ("after_ms", " after {}")),
    "lines_dropped": (("count", "{} lines dropped"), ("stream", " of {}")),
    "control_unavailable": (("", "no control socket"), ("reason", ": {}")),
    "leftover_output_closed": (("", "output of processes that it has left behind is read no more"),),
    "leftover_unwatched": (
        ("process", "the end of {}"),
        ("pid", " ({}) cannot be seen, so it may be waited for longer than it lives"),
        ("reason", ": {}"),
    ),
    "clients_waiting": (("address", "clients of {} have to wait"), ("reason", ": {}")),
    "setup_incomplete": (("reason", "{}"),),
    "manager_unreachable": (("", "the init's own NOTIFY_SOCKET takes nothing"), ("reason", ": {}")),
    "http_unavailable": (("", "no pages are served"), ("reason", ": {}")),
    "report_unwritten": (("", "the report could not be written"), ("reason", ": {}")),
    "internal_error": (("", "the init itself failed"), ("code", ", code {}")),
}
"""What each event of the init's is called: parts of a sentence, each told if the event has that key ("" always)."""


# Reading.


class Life:
    """One life of an init, as far as the log has it: its events, and its report if it came that far."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.earlier = 0
        self.report: Event | None = None
        self._sizes: list[int] = []
        self._size = 0

    def take(self, event: Event, size: int = 0) -> None:
        """Add one event, of so many bytes of text."""
        if event["event"] == REPORT:
            self.report = event
            return
        self.events.append(event)
        self._sizes.append(size)
        self._size += size
        while len(self.events) > EVENTS_KEPT or self._size > _EVENTS_BYTES:
            del self.events[0]
            self._size -= self._sizes.pop(0)
            self.earlier += 1


def story(lines: Iterable[bytes]) -> str:
    """The story of the last life in these lines. Raises Unreadable where there is none."""
    return render(life_of(lines))


def life_of(lines: Iterable[bytes]) -> Life:
    """The last life in these lines. Raises Unreadable where there is none."""
    life = Life()
    start = bytearray()
    for line in lines:
        event = read_event(line)
        if event is None:
            if len(start) < _LINE_BYTES:
                start += line
            continue
        if life.report is not None:  # What comes after a report is the next life of a container that was restarted.
            life = Life()
        life.take(event, len(line))
    if life.report is None and not life.events:
        life.take(_spread_out(bytes(start)))
    return life


def story_of(report: bytes) -> str:
    """The story of one report, without a timeline: what has just gone by on a terminal."""
    life = Life()
    life.take(_spread_out(report))
    found = life.report or {}
    return "\n\n".join([ending(life), *last_words(found)]) + "\n"


def _spread_out(text: bytes) -> Event:
    """The one event of a report that somebody has spread over many lines (`jq`). Raises Unreadable."""
    if not text.strip():
        raise Unreadable("there is nothing in it")
    event = read_event(text)
    if event is None:
        raise Unreadable("no event of the init is in it; give it a report or a log")
    return event


def read_event(line: bytes) -> Event | None:
    """The init's own event in a line, whatever a log driver has put before it; None where there is none.

    A daemon's line is not the init's, whatever it says: it has a `[name] ` before it, or a `logger` in it.
    """
    start = line.find(b"{")
    if start < 0 or b'"event"' not in line or b"] " in line[:start]:
        return None
    try:
        found = json.loads(line[start:])
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or "logger" in found:
        return None
    name = found.get("event")
    return found if isinstance(name, str) and (name in PHRASES or name == REPORT) else None


# Looking into what was read: anything may be missing, or be of another type than it should.


def words(event: Event, key: str, limit: int = _TEXT) -> str:
    """A text of an event on one line, "" where it has none."""
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return plain(str(value), limit)


def number(event: Event, key: str) -> int:
    """A number of an event, 0 where it has none."""
    value = event.get(key)
    return value if isinstance(value, int) and abs(value) < 1 << 53 else 0


def records(event: Event, key: str) -> list[Event]:
    """A list of objects of an event."""
    value = event.get(key)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def listed(found: list[Any] | dict[str, Any]) -> str:
    """`a, b` of a list of names; `a (not ready), b (not named)` of an object with a reason for each."""
    if isinstance(found, dict):
        named = [f"{name} ({why})" for name, why in found.items() if isinstance(why, str)]
    else:
        named = [name for name in found if isinstance(name, str)]
    return plain(", ".join(named[:_NAMED]) + (", ..." if len(named) > _NAMED else ""), _TEXT)


def signal_of(event: Event) -> str:
    """`TERM` for 15 and for "TERM"."""
    found = words(event, "signal")
    return signames.name(int(found)) if found.isascii() and found.isdigit() and len(found) < 3 else found


# Telling.


def render(life: Life) -> str:
    """The paragraph, the last words of those it is about, and the timeline."""
    parts = [ending(life)]
    if life.report is not None:
        parts.extend(faults(life.report))
        parts.extend(last_words(life.report))
    timeline = list(timeline_of(life))
    if timeline:
        parts.append("\n".join(timeline))
    return "\n\n".join(parts) + "\n"


def ending(life: Life) -> str:
    """How it ended, in one paragraph."""
    report = life.report
    if report is None and any(event["event"] == "internal_error" for event in life.events):
        return "The init itself failed, and the log ends without an exit report. Its code for that is 70."
    if report is None:
        return (
            "The log ends without an exit report: the init was still running when it was taken, or it was killed "
            "itself, as an engine does after its grace period, or the kernel for lack of memory."
        )
    sentences = [cause(report), *blame(report), *hint(report), *cleanup(report)]
    return " ".join(sentences)


def cause(report: Event) -> str:
    """The first sentence: the code, and why."""
    head = f"It ended with code {words(report, 'code') or 'unknown'}"
    why = words(report, "cause")
    if words(report, "kind") != "requested":
        return f"{head}: {named_signal(why) or 'for a reason that the report does not give'}."
    who = report.get("sender")
    return f"{head}: it was asked to stop by {named_signal(why)}{sender(who) if isinstance(who, dict) else ''}."


def named_signal(text: str) -> str:
    """`signal 15` becomes `signal 15 (TERM)`, wherever it stands."""
    head, found, rest = text.partition("signal ")
    if not found:
        return text
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    name = f" ({signames.name(int(digits))})" if digits and len(digits) < 3 else ""
    return f"{head}signal {digits}{name}{named_signal(rest[len(digits) :])}"


def sender(who: Event) -> str:
    """Who sent a signal or asked for a stop, as far as the kernel told."""
    pid = number(who, "pid")
    if not pid:
        return ", which came from outside of its PID namespace (`docker stop` does that) or from the kernel"
    name = words(who, "name")
    user = f", user {words(who, 'uid')}" if words(who, "uid") else ""
    return f", sent by process {pid}{f' ({name})' if name else ''}{user}"


def hint(report: Event) -> Iterator[str]:
    """What the init has made of it, and a person may try."""
    told = words(report, "hint", _HINT)
    if told:
        yield f"{told}."


def blame(report: Event) -> Iterator[str]:
    """Who ended how."""
    deaths = records(report, "deaths")
    culprit = words(report, "culprit")
    for death in deaths:
        if words(death, "name") == culprit and death.get("oom") is True:
            yield f"The kernel killed {culprit} for lack of memory."
        if words(death, "name") == culprit and isinstance(death.get("forwarded"), dict):
            yield f"{forwarded(death['forwarded'])}."
    others = [one for one in deaths if words(one, "name") != culprit or one.get("during_stop") is True]
    unclean = [one for one in others if words(one, "severity") != "clean"]
    clean = [one for one in others if words(one, "severity") == "clean"]
    for death in unclean[:_NAMED]:
        yield f"{words(death, 'name')} {how(death)}."
    if len(unclean) > _NAMED:
        yield f"So did {len(unclean) - _NAMED} more, each in its way."
    if clean:
        names = ", ".join(words(one, "name") for one in clean[:_NAMED]) + (", ..." if len(clean) > _NAMED else "")
        yield f"{len(clean)} ended cleanly: {names}." if len(clean) > 1 else f"{names} ended cleanly."


def how(death: Event) -> str:
    """One death as the rest of a sentence."""
    signal = signal_of(death)
    if death.get("given_up") is True:
        return f"could not be ended: {words(death, 'detail')}"
    timeout = f"ran longer than its timeout of {milliseconds(number(death, 'timeout_ms'))}, and "
    before = timeout if number(death, "timeout_ms") else ""
    if death.get("forced") is True and signal == "KILL" and death.get("sent_by_init") is not False:
        took = f" after {span(number(death, 'stop_ms'))}" if number(death, "stop_ms") else ""
        told = f"did not stop when asked and was killed{took}"
    elif signal:
        by = "which the init had sent" if death.get("sent_by_init") is True else "which the init had not sent"
        told = f"was killed by {signal}" + ("" if death.get("forwarded") else f", {by}")
        told += ": out of memory" if death.get("oom") is True else ""
    else:
        told = f"exited with {words(death, 'code')}"
    if isinstance(death.get("forwarded"), dict):
        told = f"{told}; {forwarded(death['forwarded'])}"
    detail = words(death, "detail")
    return f"{before}{told} ({detail})" if detail else before + told


def forwarded(signal: Event) -> str:
    """Whence the signal that a child died of had come."""
    ago = milliseconds(number(signal, "ago_ms"))
    return f"{signal_of(signal)} had been forwarded to it {ago} before{sender(signal)}"


def cleanup(report: Event) -> Iterator[str]:
    """How long it took, and what was left."""
    if isinstance(report.get("stop_ms"), int):
        yield f"The stop took {milliseconds(number(report, 'stop_ms'))}."
    left = records(report, "survivors")
    stays = [one for one in left if words(one, "reason")]
    left = [one for one in left if one not in stays]
    for one in stays[:_NAMED]:
        yield f"{words(one, 'name')} ({words(one, 'pid')}) {words(one, 'reason')}."
    if left:
        shown = ", ".join(f"{words(one, 'name')} ({words(one, 'pid')})" for one in left[:_NAMED])
        more = ", ..." if len(left) > _NAMED else ""
        yield f"Left behind by those that had ended, and ended by the init: {shown}{more}."
    dropped = number(report, "lines_dropped")
    if dropped:
        yield f"{dropped} log lines were dropped, because nobody read them."


def milliseconds(count: int) -> str:
    """A time that may be short."""
    return f"{count} ms" if count < 1_000 else span(count)


def faults(report: Event) -> Iterator[str]:
    """What was wrong with a bundle file that could not be run."""
    found = report.get("faults")
    if isinstance(found, list) and found:
        yield "\n".join(["Faults:", *(f"  {plain(fault, _TEXT)}" for fault in found if isinstance(fault, str))])


def last_words(report: Event) -> Iterator[str]:
    """The last lines of the culprit, and of all others that did not end cleanly."""
    for death in records(report, "deaths"):
        name = words(death, "name")
        lines = death.get("last_lines")
        if not isinstance(lines, list) or not lines:
            continue
        if name == words(report, "culprit") or words(death, "severity") != "clean":
            shown = [f"  {plain(line, _TEXT)}" for line in lines[-_LINES_SHOWN:] if isinstance(line, str)]
            yield "\n".join([f"Last lines of {name}:", *shown])


def told_events(life: Life) -> list[Event]:
    """The events of a timeline, the report last; what a report alone remembers where there are no others."""
    events = life.events or (list(remembered(life.report)) if life.report else [])
    return [*events, life.report] if events and life.report else events


def timeline_of(life: Life) -> Iterator[str]:
    """One line for each event, with the time since the first one."""
    events = told_events(life)
    if not events:
        return
    start = when(events[0])
    yield f"Timeline, from {words(events[0], 'timestamp') or 'an unknown time'}:"
    if life.earlier:
        yield f"  ({life.earlier} earlier events are not shown)"
    width = max(len(words(event, "child")) for event in events)
    for event in events:
        at = when(event)
        since = f"+{at - start:.3f}s" if at is not None and start is not None else "?"
        yield f"  {since:>12}  {words(event, 'child'):{width}}  {phrase(event)}".rstrip()


def remembered(report: Event) -> Iterator[Event]:
    """The events that a report alone still tells of: what its children did, and the stop."""
    end = when(report)
    if end is None:
        return
    stop = end - number(report, "stop_ms") / 1_000
    found: list[tuple[float, int, Event]] = [(stop, 1, {**report, "event": "stopping"})]
    for death in records(report, "deaths"):
        if "ended_ms" in death:
            ended = stop + number(death, "ended_ms") / 1_000
            about = {"child": words(death, "name"), "pid": number(death, "pid")}
            found.append((ended - number(death, "ran_ms") / 1_000, 0, {"event": "child_started", **about}))
            found.append(
                (ended, 2 if death.get("during_stop") is True else 0, {**death, "event": "child_exited", **about})
            )
    for at, _, event in sorted(found, key=_time_of):
        yield {**event, "timestamp": _stamp(at)}


def _time_of(told: tuple[float, int, Event]) -> tuple[float, int]:
    return told[:2]


def _stamp(at: float) -> str:
    try:
        return jsonlines.timestamp(at)
    except (ValueError, OverflowError, OSError):
        return ""  # No calendar has that day.


def when(event: Event) -> float | None:
    """An event's time in seconds since the epoch."""
    try:
        return datetime.fromisoformat(words(event, "timestamp")).timestamp()
    except (ValueError, OverflowError):
        return None


def phrase(event: Event) -> str:
    """An event in words."""
    if event["event"] == REPORT:
        return f"the end, with code {words(event, 'code')}"
    told = ""
    for key, part in PHRASES[event["event"]]:
        fact = fact_of(event, key) if key else ""
        if fact or not key:
            told += part.replace("{}", fact)
    return told


def fact_of(event: Event, key: str) -> str:
    """What an event says under a key, "" if nothing."""
    if event.get(key) is True:
        return "true"
    if isinstance(event.get(key), list | dict):
        return listed(event[key])
    if key.endswith("_ms"):
        return milliseconds(number(event, key)) if words(event, key) else ""
    return signal_of(event) if key == "signal" else named_signal(words(event, key))
