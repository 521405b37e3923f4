"""Simulated pipes: children that write, the init in between, and a reader that stalls (contract 8).

Who waits for the reader, and what is dropped and told, is decided by `core/flow.py`, as on Linux. Here are the pipes
themselves (pipe(7)), the readers, and what a wake-up does with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bottle_init.core import flow
from bottle_init.core.flow import Account, Farewell, Flow, Outlet, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.testing.scenario import Scenario, Stall

PIPE_BYTES = 64 * 1024
PIPE_BUF = 4_096
"""A pipe with less room than this takes nothing: it gets room by the page."""
READ_BYTES = 64 * 1024
SECOND_MS = 1_000
"""Contract 8's, in other words than the core's."""
SHORTEST_LINE = 40
NOTHING = memoryview(b"")
SIP_MS = 500
"""How often a reader takes a sip."""


class Reader:
    """Who reads the init's stdout, and the pipe before it."""

    def __init__(self, stalls: tuple[Stall, ...]) -> None:
        self._stalls = stalls
        self._pipe = bytearray()
        self._seen_ms = 0
        self._took: list[bytes] = []
        """All that it has taken, in order."""
        self.took_ms = 0
        """When it has last taken something, or began to have something before it."""
        self.hopeless_ms: int | None = None
        """From when on nobody has to wait for it; None while its pipe has room.

        That is a second after its pipe was full. A sip that makes no room is known only when the init asks next, which
        is within a second where somebody waits; and then it has another one.
        """
        self._sipped = False
        """Whether it has taken a sip since the init asked last."""

    @property
    def got(self) -> bytes:
        """All that has reached it, or will when it reads again."""
        return b"".join((*self._took, self._pipe))

    @property
    def unread(self) -> int:
        """What waits before it."""
        return len(self._pipe)

    def idle_ms(self, now_ms: int) -> int:
        """For how long it has taken nothing of what is before it."""
        return now_ms - self.took_ms if self._pipe else 0

    def has_room(self, now_ms: int) -> bool:
        """Whether a write would take something."""
        return self._stall(now_ms) is None or PIPE_BYTES - len(self._pipe) >= PIPE_BUF

    def write(self, data: bytes, now_ms: int) -> int:
        """Write what it has room for: all, while it reads. Returns how much, 0 where it is full."""
        if self._stall(now_ms) is None:
            self._took.append(data)
            self.took_ms = now_ms
            return len(data)
        if not self.has_room(now_ms):
            if self._sipped or self.hopeless_ms is None:
                self.hopeless_ms = now_ms + SECOND_MS
            self._sipped = False
            return 0
        if not self._pipe:
            self.took_ms = now_ms
        piece = data[: PIPE_BYTES - len(self._pipe)]
        self._pipe += piece
        return len(piece)

    def next_ms(self) -> int | None:
        """When it takes something next of what is before it; None if nothing is."""
        if not self._pipe:
            return None
        stall = self._stall(self._seen_ms)
        if stall is None:
            return self._seen_ms
        end_ms = stall.at_ms + stall.for_ms
        sips = (self._seen_ms - stall.at_ms) // SIP_MS + 1
        return min(end_ms, stall.at_ms + sips * SIP_MS) if stall.sip_bytes else end_ms

    def advance(self, now_ms: int) -> None:
        """Take what it takes until then, each piece at its moment."""
        while (at_ms := self.next_ms()) is not None and at_ms <= now_ms:
            stall = self._stall(at_ms)
            self._seen_ms = at_ms
            size = len(self._pipe) if stall is None else stall.sip_bytes
            if size:
                self._took.append(bytes(self._pipe[:size]))
                del self._pipe[:size]
                self.took_ms = at_ms
                self._sipped = True
                self.hopeless_ms = None if self.has_room(at_ms) else at_ms + 2 * SECOND_MS
        self._seen_ms = max(self._seen_ms, now_ms)

    def _stall(self, at_ms: int) -> Stall | None:
        for stall in self._stalls:
            if stall.at_ms <= at_ms < stall.at_ms + stall.for_ms:
                return stall
        return None


class Queue(Outlet):
    """What waits for one reader."""

    __slots__ = ("_note_loss", "reader")

    def __init__(self, reader: Reader, note_loss: Callable[[Account, int], None]) -> None:
        super().__init__()
        self.reader = reader
        self._note_loss = note_loss

    def lose(self, account: Account, lines: int) -> None:
        """Count lines that nobody will get, and note when and why."""
        if lines:
            self._note_loss(account, lines)
        super().lose(account, lines)


class Pipe(Stream):
    """The stdout of one process. `outgoing` is what its writer is still to write: it waits while there is any."""

    __slots__ = ("begun", "child", "content", "ended", "generation", "inside", "outgoing")

    def __init__(self, child: int, generation: int, account: Account, queue: Queue) -> None:
        super().__init__(account, queue, _tagging(account.name))
        self.child = child
        self.generation = generation
        self.content = bytearray()
        self.outgoing = NOTHING
        self.begun = 0
        """How many lines have at least begun to be in the pipe."""
        self.inside = False
        """Whether the last of them has no end yet."""
        self.ended = False

    def write(self, lines: int, width: int) -> None:
        """Begin to write so many more lines, numbered, of `width` bytes each."""
        generation, first = self.generation, self.begun
        width = min(max(width, SHORTEST_LINE), flow.LINE_BYTES)
        numbers = range(first, first + lines)
        text = b"".join((b"%d %d " % (generation, number)).ljust(width - 1, b"x") + b"\n" for number in numbers)
        self.outgoing = memoryview(text)
        self.fill()

    def fill(self) -> None:
        """Write what there is room for."""
        piece = bytes(self.outgoing[: PIPE_BYTES - len(self.content)])
        if piece:
            was_inside, self.inside = self.inside, not piece.endswith(b"\n")
            self.begun += piece.count(b"\n") + self.inside - was_inside
            self.content += piece
            self.outgoing = self.outgoing[len(piece) :]

    def end(self) -> None:
        """The writer has died: what it has not written, it never will."""
        self.ended, self.outgoing = True, NOTHING


class Loss:
    """Lines that were dropped: whose, how many, when, and how long the reader had taken nothing by then."""

    __slots__ = ("at_ms", "closing", "count", "idle_ms", "name")

    def __init__(self, name: str, count: int, at_ms: int, idle_ms: int, *, closing: bool) -> None:
        self.name = name
        self.count = count
        self.at_ms = at_ms
        self.idle_ms = idle_ms
        self.closing = closing


class Logs:
    """The children's pipes, the queues, and the readers. `accounts` are the children's, and `own` the init's.

    With `one_pipe` the init's own lines go to the same reader; else to a stderr that somebody always reads.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.now_ms = 0
        self.reader = Reader(scenario.stalls)
        self.readers = [self.reader] if scenario.one_pipe else [self.reader, Reader(())]
        self.queue, *other = [Queue(reader, self._note_loss) for reader in self.readers]
        self.queues = [self.queue, *other]
        self.accounts = [Account(spec.name, "stdout") for spec in scenario.bundle.children]
        self.own = Account("", "stderr")
        self.own_lines = 0
        self.flow = Flow(self.queue, self.queues[-1], self.own, self._report)
        self.pipes: list[Pipe] = []
        self.all: list[Pipe] = []
        self.free: list[Pipe] = []
        """Pipes whose writer has waited, and that have taken everything since the last look."""
        self.losses: list[Loss] = []
        self.told: list[tuple[str, int]] = []
        """Every `lines_dropped` event, in order: whose, how many."""
        self.vain: list[tuple[int, str]] = []
        """Who was kept waiting although nobody had to be waited for, and when."""
        self.greedy: list[tuple[int, str]] = []
        """Whose pipe was read although the queue was full and the reader read, and when."""
        self.peak = 0
        self.story: list[tuple[int, str]] = []
        self._jumbled = scenario.jumbled
        self._stopping = False

    # Children.

    def open(self, child: int, generation: int) -> Pipe:
        """A pipe for a new process of a child's."""
        pipe = Pipe(child, generation, self.accounts[child], self.queue)
        self.pipes.append(pipe)
        self.all.append(pipe)
        return pipe

    def begin(self, now_ms: int) -> None:
        """A wake-up: what has the reader taken since the last one?"""
        self.now_ms = now_ms
        self.reader.advance(now_ms)

    def turn(self) -> None:
        """The pipes' part of a wake-up: one chunk of each, and the reader, in whichever order; then the clock."""
        if not self._jumbled:
            self._writable()
        for pipe in [pipe for pipe in self.pipes if self._is_ready(pipe)]:
            self._readable(pipe)
        if self._jumbled:
            self._writable()
        self._tick()
        self.peak = max(self.peak, self.queue.size)
        if not self.is_busy():
            self._look_for_waits()

    def is_busy(self) -> bool:
        """Whether a pipe has something to read."""
        return any(map(self._is_ready, self.pipes))

    def next_ms(self) -> int | None:
        """When the next thing happens here."""
        if self.is_busy():
            return self.now_ms
        times = (self.flow.due_ms(), self.reader.next_ms())
        return min((at_ms for at_ms in times if at_ms is not None), default=None)

    def drain(self, pipe: Pipe) -> None:
        """The writer has died: take its last words."""
        pipe.end()
        taken = 0
        while taken < flow.DRAIN_BYTES and self._asked(self.flow.left, pipe) == flow.READ:
            read = self._take(pipe)
            if not read:
                return
            taken += read

    def stop(self) -> None:
        """A stop has begun."""
        self._stopping = True
        self.flow.stop()
        self._settle()

    def event(self, name: str) -> None:
        """A line of the init's own."""
        self.own_lines += 1
        self.flow.said(b'{"event": "%s"}\n' % name.encode())
        self._settle()

    def close(self, now_ms: int, deadline_ms: int) -> None:
        """The bundle has ended: hand out what is left, for as long as somebody reads."""
        self.begin(now_ms)
        self.flow.is_closing = True
        for pipe in list(self.pipes):
            self.drain(pipe)
        self._flush(deadline_ms)
        for queue in self.queues:
            if not queue.is_empty() and not queue.failing:
                queue.failed()
                self._wrote(queue)
        self.event("exit_report")
        self._flush(deadline_ms)

    def begun(self) -> int:
        """How many lines the children have written, the last one of a child perhaps in part."""
        return sum(pipe.begun for pipe in self.all)

    def dropped(self) -> int:
        """How many of those nobody got whole."""
        return sum(map(self.dropped_of, self.accounts))

    def dropped_of(self, account: Account) -> int:
        """Lines of this account that nobody got whole."""
        return self.flow.lost(account)

    def queued_of(self, account: Account) -> int:
        """Lines of this account that were still waiting for the reader at the end."""
        return sum(self._queued(queue, account) for queue in self.queues)

    def _queued(self, queue: Queue, account: Account) -> int:
        waiting = sum(block.count(b"\n") for block, whose in queue.blocks() if whose is account)
        return waiting - (queue.failing and queue.begun() is account)

    # From the pipes to the queue.

    def _is_ready(self, pipe: Pipe) -> bool:
        return not pipe.waits and (bool(pipe.content) or pipe.ended)

    def _asked(self, question: Callable[[Stream, int], str], pipe: Pipe) -> str:
        """What the flow says to a question about a pipe, with the reader asked first where the flow wants to know."""
        while (answer := question(pipe, self.now_ms)) == flow.ASK:
            self._push(self.queue)
        return answer

    def _readable(self, pipe: Pipe) -> None:
        if self._asked(self.flow.readable, pipe) == flow.WAIT:
            self._say(f"{pipe.account.name} is made to wait for the reader")
            return
        idle = self._stopping or self.reader.idle_ms(self.now_ms) >= SECOND_MS
        if self.queue.size >= flow.QUEUE_BYTES and not idle:
            self.greedy.append((self.now_ms, pipe.account.name))
        self._take(pipe)

    def _take(self, pipe: Pipe) -> int:
        chunk = bytes(pipe.content[:READ_BYTES])
        del pipe.content[: len(chunk)]
        if chunk:
            if pipe.outgoing:
                pipe.fill()
                if not pipe.outgoing:
                    self.free.append(pipe)
            self.flow.got(pipe, chunk)
        else:
            self.flow.ended(pipe)
            if pipe.ended:
                self.flow.closed(pipe)
                self.pipes.remove(pipe)
        self._settle()
        return len(chunk)

    # From the queues to the readers.

    def _push(self, queue: Queue) -> None:
        queue.is_urged = False
        moved = False
        while not queue.is_empty():
            written = queue.reader.write(b"".join(queue.head()), self.now_ms)
            if not written:
                queue.refused(self.now_ms, queue.reader.unread, moved=moved)
                break
            queue.took(written)
            moved = True
        else:
            queue.blocked_at_ms = None
        if moved:
            self._wrote(queue)

    def _wrote(self, queue: Queue) -> None:
        self.flow.wrote(queue)
        self._settle()

    def _settle(self) -> None:
        """Write what has been queued; a pipe that may be read again is ready by itself."""
        self.flow.resumed.clear()
        for queue in self.queues:
            if queue.is_urged:
                self._push(queue)

    def _writable(self) -> None:
        if self.queue.blocked_at_ms is not None and self.reader.has_room(self.now_ms):
            self._push(self.queue)

    def _tick(self) -> None:
        if self.flow.overdue(self.now_ms):
            self._push(self.queue)
            if self.flow.refused(self.queue):
                self._say("nobody waits for the reader any more")

    def _report(self, account: Account, count: int) -> None:
        self.told.append((account.name, count))
        self._say(f"it is told that {count} lines of {account.name or 'the init'} were dropped")
        self.event(f"lines_dropped {account.name} {count}")

    def _note_loss(self, account: Account, lines: int) -> None:
        idle_ms = self.reader.idle_ms(self.now_ms)
        self.losses.append(Loss(account.name, lines, self.now_ms, idle_ms, closing=self.flow.is_closing))

    def _flush(self, deadline_ms: int) -> None:
        farewell = Farewell(self.now_ms, deadline_ms)
        while (until_ms := farewell.until_ms(self.flow.pending(), self.flow.unread(), self.now_ms)) is not None:
            next_ms = self.reader.next_ms()
            self.begin(until_ms if next_ms is None else min(until_ms, max(next_ms, self.now_ms)))
            self._push(self.queue)

    # What is noted.

    def _look_for_waits(self) -> None:
        """Who waits has to wait for somebody: for a reader that has taken something within the last second."""
        hopeless_ms = self.reader.hopeless_ms
        if self._stopping or hopeless_ms is None or self.now_ms >= hopeless_ms:
            self.vain.extend((self.now_ms, pipe.account.name) for pipe in self.pipes if pipe.outgoing)

    def _say(self, what: str) -> None:
        self.story.append((self.now_ms, what))


def _tagging(name: str) -> Callable[[bytes], bytes]:
    tag = b"[%s] " % name.encode()
    return lambda lines: tag + lines[:-1].replace(b"\n", b"\n" + tag) + b"\n"
