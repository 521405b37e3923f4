"""What must hold of the children's lines, checked on what has become of each of them (contract 8).

Every simulated line says whose it is and which one, so that the whole of what the reader got can be compared with
the whole of what was written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bottle_init.testing.pipes import Logs

EARLY_LOSS = "early-loss"
LOST_LINES = "lost-lines"
TORN_LINES = "torn-lines"
MADE_TO_WAIT = "made-to-wait"
STALLED_READER = "stalled-reader"

SECOND_MS = 1_000
QUEUE_BYTES = (1024 + 64) * 1024
"""What the queue may hold of the living, and of the init's own lines."""
CHUNK_BYTES = 128 * 1024
"""What one read of a pipe adds at most, with its tags: the last one, and what each of the dead has left."""

_LINE = re.compile(rb"\[([A-Za-z0-9_-]+)\] (\d+) (\d+) x*\Z")
_OWN = re.compile(rb'\{"event": "[^"]*"\}\Z')

Fault = tuple[str, int, str]
"""The invariant, when, and what."""


def faults(logs: Logs, stop_ms: int, end_ms: int) -> Iterator[Fault]:
    """What is wrong with the lines of one run, whose stop has begun at `stop_ms`."""
    for loss in logs.losses:
        if loss.name and not loss.closing and loss.at_ms < stop_ms and loss.idle_ms < SECOND_MS:
            what = f"{loss.count} lines of {loss.name} are dropped, {loss.idle_ms} ms after the reader has read"
            yield EARLY_LOSS, loss.at_ms, what
    for at_ms, name in logs.greedy:
        if at_ms < stop_ms:
            yield MADE_TO_WAIT, at_ms, f"{name} is read although the queue is full, and the reader reads"
    most = QUEUE_BYTES + (len(logs.all) + 1) * CHUNK_BYTES
    if logs.peak > most:
        yield MADE_TO_WAIT, end_ms, f"the queue has grown to {logs.peak} bytes"
    for at_ms, name in logs.vain:
        yield STALLED_READER, at_ms, f"{name} has to wait, and there is nobody to wait for"
    yield from _lines(logs, end_ms)


def _lines(logs: Logs, end_ms: int) -> Iterator[Fault]:
    """Every line that was begun has reached the reader whole, or is counted."""
    delivered = dict.fromkeys((account.name for account in (logs.own, *logs.accounts)), 0)
    last: dict[tuple[str, int], int] = {}
    got_by_all = [line for reader in logs.readers for line in reader.got.split(b"\n")[:-1]]
    for line in got_by_all:
        found = _LINE.match(line)
        if found is not None:
            name, generation, number = found[1].decode(), int(found[2]), int(found[3])
            if number <= last.get((name, generation), -1):
                yield TORN_LINES, end_ms, f"line {number} of {name} comes after line {last[name, generation]}"
            last[name, generation] = number
            delivered[name] += 1
        elif _OWN.match(line):
            delivered[""] += 1
        else:
            yield TORN_LINES, end_ms, f"the reader gets a line that nobody has written: {line[:60]!r}"
    begun = dict.fromkeys(delivered, 0) | {"": logs.own_lines}
    for pipe in logs.all:
        begun[pipe.account.name] += pipe.begun
    for account in (logs.own, *logs.accounts):
        whose = account.name or "the init"
        written, got, dropped = begun[account.name], delivered[account.name], logs.dropped_of(account)
        queued = logs.queued_of(account)
        if written != got + dropped + queued:
            what = f"{whose} has written {written} lines: {got} arrive, {dropped} are counted as dropped, {queued} wait"
            yield LOST_LINES, end_ms, what
        told = sum(count for name, count in logs.told if name == account.name)
        if told + account.unreported != account.lost:
            yield LOST_LINES, end_ms, f"{account.lost} lines of {whose} are dropped, and {told} are told"
