"""Why the bundle has ended: an event for the log, a file, a text for the termination log (contract 7).

What is said of children's processes is their names, codes, signals and last lines, and of those
left behind a bounded part of their command lines; never anything of an environment.
"""

from __future__ import annotations

import errno
import posix
from fcntl import F_GETFL, fcntl
from posixpath import realpath
from select import POLLOUT, poll
from stat import S_ISREG

from bottle_init.core import verdict
from bottle_init.core.telling import span
from bottle_init.core.words import REQUESTED
from bottle_init.linux.sys import outputs
from bottle_init.linux.sys.clock import monotonic_ms, wall_s
from bottle_init.words import jsonlines, signames
from bottle_init.words.exits import EX_CONFIG
from bottle_init.words.text import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from bottle_init.core.actions import Exit
    from bottle_init.core.spec import Bundle
    from bottle_init.core.state import Death, Stop, Survivor

    Record = dict[str, Any]

TERMINATION_LOG = "/dev/termination-log"
"""Kubernetes' default `terminationMessagePath`; BOTTLE_INIT_TERMINATION_LOG names another."""

TERMINATION_LOG_BYTES = 4_096
"""What Kubernetes reads of it."""

_COMMAND_LIMIT = 200
_LAST_LINE_LIMIT = 1_000
_LINE_LIMIT = 200
_MODE = 0o644
_STALL_MS = 100
_READER_MS = 1_000


def build(
    end: Exit,
    bundle: Bundle,
    tail: Callable[[int], Sequence[str]],
    lines_dropped: int,
    asker: str = "",
    names: Mapping[int, str] | None = None,
) -> Record:
    """The report as plain dicts, lists, strings, numbers and None; times are whole milliseconds.

    `tail` gives a child's last lines by its index; `asker` is the name of the process that asked for
    the stop, as it was then; `names` has those of the processes that have sent
    signals, by their pids.
    """
    stop = end.stop
    return {
        "code": end.code,
        "kind": stop.kind,
        "cause": stop.cause,
        "sender": _sender(stop, asker),
        "culprit": stop.culprit or None,
        "hint": end.hint or None,
        "stop_ms": end.ended_at_ms - stop.at_ms,
        "deaths": [
            _death(death, stop, bundle.children[death.child].kind, tail(death.child), names or {})
            for death in end.deaths
        ],
        "survivors": [_survivor(survivor) for survivor in end.survivors],
        "lines_dropped": lines_dropped,
    }


def of_invalid(source: str, faults: Sequence[str]) -> Record:
    """The report of a bundle that was not started, because its file has these faults (contract 9)."""
    return {
        "code": EX_CONFIG,
        "kind": "invalid",
        "cause": f"{source} is not a valid bundle",
        "faults": [_bounded(fault, _LAST_LINE_LIMIT) for fault in faults],
        "sender": None,
        "culprit": None,
        "hint": None,
        "stop_ms": None,
        "deaths": [],
        "survivors": [],
        "lines_dropped": 0,
    }


def _sender(stop: Stop, name: str) -> Record | None:
    """Who asked for a stop; pid 0 is the kernel, or a process outside of the container."""
    if stop.kind != REQUESTED:
        return None
    return {"pid": stop.sender_pid, "uid": stop.sender_uid, "name": name or None}


def _death(death: Death, stop: Stop, kind: str, lines: Sequence[str], names: Mapping[int, str]) -> Record:
    return {
        "name": death.name,
        "kind": kind,
        "pid": death.pid,
        "code": death.code,
        "signal": signames.name(death.signal) if death.signal else None,
        "severity": verdict.SEVERITIES[death.severity],
        "sent_by_init": death.sent,
        "forwarded": _forwarded(death, names) if death.forwarded else None,
        "forced": death.forced,
        "timeout_ms": death.timeout_ms,
        "given_up": death.given_up,
        "oom": death.oom,
        "during_stop": death.stopping,
        "ended_ms": death.at_ms - stop.at_ms,
        "ran_ms": death.ran_ms,
        "stop_ms": death.stop_ms,
        "detail": death.detail or None,
        "last_lines": [_bounded(line, _LAST_LINE_LIMIT) for line in lines],
    }


def _forwarded(death: Death, names: Mapping[int, str]) -> Record:
    """The signal that the child ended by, as it reached the init, when, and who had sent it."""
    signal = death.forwarded
    if signal is None:
        return {}
    return {
        "signal": signames.name(signal.source),
        "ago_ms": death.at_ms - signal.at_ms,
        "pid": signal.sender_pid,
        "uid": signal.sender_uid,
        "name": names.get(signal.sender_pid),
    }


def _survivor(survivor: Survivor) -> Record:
    return {
        "pid": survivor.pid,
        "name": survivor.name,
        "command": _bounded(survivor.command, _COMMAND_LIMIT),
        "reason": f"may not be signalled: {survivor.barred}" if survivor.barred else None,
    }


def _bounded(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def for_log(record: Record) -> Record:
    """The report with the last lines of those alone that are to blame: the log has the lines of all others anyway."""
    deaths = [
        death if death["name"] == record["culprit"] or death["severity"] != "clean" else {**death, "last_lines": []}
        for death in record["deaths"]
    ]
    return {**record, "deaths": deaths}


def encode(record: Record, timestamp: str) -> bytes:
    """The report as the event `exit_report`: one JSON line, without its newline."""
    level = "info" if record["code"] == 0 else "error"
    return jsonlines.encode("exit_report", level, record.items(), timestamp)


def write(record: Record, line: bytes, path: str | None = None) -> list[str]:
    """Write the report's line to `path`, and its text to the termination log if there is one.

    Never raises for what the files are like: returns what could not be done, in words.
    """
    problems = []
    if path:
        try:
            write_file(path, line + b"\n")
        except OSError as problem:
            problems.append(f"{path}: {problem.strerror}")
    return problems + write_text(text(record))


def write_invalid(source: str, faults: Sequence[str], path: str | None) -> list[str]:
    """The same for a bundle that was not started, because its file has these faults."""
    record = of_invalid(source, faults)
    return write(record, encode(record, jsonlines.timestamp(wall_s())), path)


def write_text(told: bytes) -> list[str]:
    """Write to the termination log if there is one; returns what could not be done, in words."""
    log = termination_log(posix.environ)
    try:
        write_existing(log, told, truncate=True)
    except FileNotFoundError:
        pass  # Nobody wants one.
    except OSError as problem:
        return [f"{log}: {problem.strerror}"]
    return []


def termination_log(environ: Mapping[bytes, bytes]) -> str:
    """Where the container's termination log is to be, if there is one."""
    return environ.get(b"BOTTLE_INIT_TERMINATION_LOG", b"").decode("utf-8", "surrogateescape") or TERMINATION_LOG


def text(record: Record) -> bytes:
    """The report for people, in UTF-8, at most 4096 bytes: the cause, the culprit's last words, the other deaths."""
    deaths = record["deaths"]
    culprit = [death for death in deaths if death["name"] == record["culprit"]]
    unclean = [death for death in deaths if death["severity"] != "clean" and death not in culprit]
    lines = [f"exit code {record['code']}: {_cause(record)}"]
    lines.extend(f"  {plain(fault, _LAST_LINE_LIMIT)}" for fault in record.get("faults", ()))
    if record["hint"]:
        lines.append(plain(record["hint"], _LAST_LINE_LIMIT))
    for death in (*culprit, *unclean):
        lines.append(f"{death['name']}: {_ending(death)}")
        lines.extend(f"  {plain(line, _LINE_LIMIT)}" for line in death["last_lines"])
    clean = len(deaths) - len(culprit) - len(unclean)
    if clean:
        lines.append(f"{clean} ended cleanly")
    for one in record["survivors"]:
        why = f": {one['reason']}" if one["reason"] else ""
        lines.append(f"left behind: {one['name']} ({one['pid']}) {one['command']}{why}")
    return cut("\n".join(lines) + "\n", TERMINATION_LOG_BYTES)


def cut(text: str, limit_bytes: int) -> bytes:
    """`text` in UTF-8, at most so many bytes and never with half a character; an ellipsis says where it was cut."""
    whole = text.encode("utf-8", "replace")
    if len(whole) <= limit_bytes:
        return whole
    return whole[: limit_bytes - 4].decode("utf-8", "ignore").encode() + b"...\n"


def _cause(record: Record) -> str:
    """The cause in words, with who asked where somebody did."""
    sender = record["sender"]
    if sender is None:
        return str(record["cause"])
    return f"stop requested by {record['cause']}{_by(sender)}"


def _by(sender: Record) -> str:
    if not sender["pid"]:
        return ""
    name = f" ({sender['name']})" if sender["name"] else ""
    return f" from process {sender['pid']}{name}"


def _ending(death: Record) -> str:
    """One death in a few words."""
    if death["given_up"]:
        return f"could not be ended: {plain(death['detail'], _LINE_LIMIT)}"
    parts = [f"killed by {death['signal']}" if death["signal"] else f"exited with {death['code']}"]
    if death["forwarded"]:
        parts.append(f"{death['forwarded']['signal']} had been forwarded to it{_by(death['forwarded'])}")
    if death["oom"]:
        parts.append("out of memory")
    if death["timeout_ms"] is not None:
        parts.append(f"its timeout of {span(death['timeout_ms'])} was over")
    if death["forced"] and death["signal"] == "KILL" and death["sent_by_init"]:
        parts.append("had to be killed")
    if death["detail"]:
        parts.append(plain(death["detail"], _LINE_LIMIT))
    return ", ".join(parts)


def write_file(path: str, content: bytes) -> None:
    """Write a file so that whoever reads it sees the old content or the new one, whole (rename(2)).

    What the init itself has open for writing (`/dev/stdout`, a log) gets it at its end: it is not to be taken from
    those who share it. What is no regular file is written as it is, and waited for only while somebody reads it;
    so is a file whose directory does not let itself be written, or that is a mount of its own. Raises OSError.
    """
    try:
        kind = posix.stat(path)
    except FileNotFoundError:
        kind = None
    if kind is not None and (not S_ISREG(kind.st_mode) or _own_descriptor(kind) >= 0):
        write_existing(path, content, truncate=False)
    else:
        _write_regular(path, content)


def _own_descriptor(file: posix.stat_result) -> int:
    """A descriptor that the init writes to this file by, -1 for none."""
    try:
        numbers = sorted(int(name) for name in posix.listdir("/proc/self/fd"))
    except OSError:
        numbers = [1, 2]
    for fd in numbers:
        try:
            ours = posix.fstat(fd)
            if (ours.st_dev, ours.st_ino) == (file.st_dev, file.st_ino) and fcntl(fd, F_GETFL) & posix.O_ACCMODE:
                return fd
        except OSError:
            continue  # The descriptor of the listing itself is gone by now.
    return -1


def _write_regular(path: str, content: bytes) -> None:
    try:
        _replace(path, content)
    except OSError as problem:
        if problem.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV, errno.ENAMETOOLONG):
            raise
        try:
            write_existing(path, content, truncate=True)
        except FileNotFoundError:
            raise problem from None


def _replace(path: str, content: bytes) -> None:
    """A new file beside it, in its place once it is complete; a symbolic link stays one."""
    target = realpath(path)
    folder, slash, name = target.rpartition("/")
    temporary = f"{folder}{slash}.{name}.{posix.getpid()}"
    fd = _create(temporary)
    try:
        try:
            _write_all(fd, lambda blocks: posix.writev(fd, blocks), content)
        finally:
            posix.close(fd)
        posix.rename(temporary, target)
    except OSError:
        posix.unlink(temporary)
        raise


def _create(path: str) -> int:
    """A new file. One of this name was left by an earlier init of the same pid, 1 for example, that was killed."""
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC | posix.O_NOFOLLOW
    try:
        return posix.open(path, flags, _MODE)
    except FileExistsError:
        posix.unlink(path)
        return posix.open(path, flags, _MODE)


def write_existing(path: str, content: bytes, *, truncate: bool) -> None:
    """Write to what is there already, by the init's own descriptor if it has one. Raises OSError, FileNotFoundError."""
    fd = _own_descriptor(posix.stat(path))
    if fd >= 0:
        ours, write = outputs.writer(fd)
        try:
            _write_all(ours, write, content)
        finally:
            if ours != fd:
                posix.close(ours)
        return
    flags = posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY
    fd = posix.open(path, flags | (posix.O_TRUNC if truncate else 0))
    try:
        _write_all(fd, lambda blocks: posix.writev(fd, blocks), content)
    finally:
        posix.close(fd)


def _write_all(fd: int, write: Callable[[list[memoryview]], int], content: bytes) -> None:
    """Write without blocking; a reader is waited for as long as it takes something, and a second in all."""
    view = memoryview(content)
    until_ms = monotonic_ms() + _READER_MS
    watcher = poll()
    watcher.register(fd, POLLOUT)
    while view:
        try:
            view = view[write([view]) :]
        except BlockingIOError:
            if not watcher.poll(max(0, min(_STALL_MS, until_ms - monotonic_ms()))):
                raise
