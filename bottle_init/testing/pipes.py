"""Simulated pipes: children that write, the init in between, and a reader that stalls (contract 8).

Who waits for the reader, and what is dropped, is decided by `core/flow.py`, as on Linux. Here are the pipes
themselves (pipe(7)), and what a wake-up does with them: as `linux/logs.py`, by the same questions in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bottle_init.core import flow
from bottle_init.core.flow import Account, Farewell, Outlet, whole_lines

if TYPE_CHECKING:
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


class Pipe:
    """The stdout of one process. `outgoing` is what its writer is still to write: it waits while there is any."""

    __slots__ = ("account", "begun", "child", "content", "ended", "generation", "inside", "outgoing", "parked", "rest")

    def __init__(self, child: int, generation: int, account: Account) -> None:
        self.child = child
        self.generation = generation
        self.account = account
        self.content = bytearray()
        self.outgoing = NOTHING
        self.rest = b""
        self.begun = 0
        """How many lines have at least begun to be in the pipe."""
        self.inside = False
        """Whether the last of them has no end yet."""
        self.parked = False
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
    """The children's pipes, the queue, and the reader. `accounts` are the children's, and `own` the init's.

    With `one_pipe` the init's own lines go to the same reader; else to a stderr that somebody always reads.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.now_ms = 0
        self.reader = Reader(scenario.stalls)
        self.outlet = Outlet()
        self.accounts = [Account(spec.name, "stdout") for spec in scenario.bundle.children]
        self.own = Account("", "stderr")
        self.own_lines = 0
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
        self._one_pipe = scenario.one_pipe
        self._jumbled = scenario.jumbled
        self._closing = False
        self._stopping = False

    # Children.

    def open(self, child: int, generation: int) -> Pipe:
        """A pipe for a new process of a child's."""
        pipe = Pipe(child, generation, self.accounts[child])
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
        self.peak = max(self.peak, self.outlet.size)
        if not self.is_busy():
            self._look_for_waits()

    def is_busy(self) -> bool:
        """Whether a pipe has something to read."""
        return any(map(self._is_ready, self.pipes))

    def next_ms(self) -> int | None:
        """When the next thing happens here."""
        if self.is_busy():
            return self.now_ms
        due_ms = self.outlet.due_ms() if any(pipe.parked for pipe in self.pipes) else None
        times = (due_ms, self.reader.next_ms())
        return min((at_ms for at_ms in times if at_ms is not None), default=None)

    def drain(self, pipe: Pipe) -> None:
        """The writer has died: take its last words."""
        pipe.end()
        self._drain(pipe)

    def stop(self) -> None:
        """A stop has begun."""
        self._stopping = True
        self.outlet.hurry()
        if self.outlet.stalled():
            self._resume()

    def event(self, name: str) -> None:
        """A line of the init's own."""
        if not self._one_pipe:
            return
        self.own_lines += 1
        if self._closing or self.outlet.admits(self.own):
            self._put(b'{"event": "%s"}\n' % name.encode(), self.own)
        else:
            self._lose(self.own, 1)

    def close(self, now_ms: int, deadline_ms: int) -> None:
        """The bundle has ended: hand out what is left, for as long as somebody reads."""
        self.begin(now_ms)
        self._closing = True
        for pipe in list(self.pipes):
            self.drain(pipe)
        self._flush(deadline_ms)
        if not self.outlet.is_empty() and not self.outlet.failing:
            self._fail()
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
        torn = self.outlet.failing and self.outlet.begun() is account
        return account.lost + torn

    def queued_of(self, account: Account) -> int:
        """Lines of this account that were still waiting for the reader at the end."""
        blocks = self.outlet._blocks  # noqa: SLF001 - nobody but a test asks
        waiting = sum(block.count(b"\n") for block, whose in blocks if whose is account)
        return waiting - (self.outlet.failing and self.outlet.begun() is account)

    # From the pipes to the queue.

    def _is_ready(self, pipe: Pipe) -> bool:
        return not pipe.parked and (bool(pipe.content) or pipe.ended)

    def _readable(self, pipe: Pipe) -> None:
        self._ask()
        if self.outlet.holds_up():
            pipe.parked = True
            self._say(f"{pipe.account.name} is made to wait for the reader")
            return
        idle = self._stopping or self.reader.idle_ms(self.now_ms) >= SECOND_MS
        if self.outlet.size >= flow.QUEUE_BYTES and not idle:
            self.greedy.append((self.now_ms, pipe.account.name))
        self._take(pipe)

    def _drain(self, pipe: Pipe) -> None:
        taken = 0
        while taken < flow.DRAIN_BYTES:
            self._ask()
            if self.outlet.holds_up_the_dead():
                return
            read = self._take(pipe)
            if not read:
                return
            taken += read

    def _take(self, pipe: Pipe) -> int:
        chunk = bytes(pipe.content[:READ_BYTES])
        del pipe.content[: len(chunk)]
        if not chunk:
            self._end(pipe)
            return 0
        lines, pipe.rest = whole_lines(pipe.rest + chunk)
        if pipe.outgoing:
            pipe.fill()
            if not pipe.outgoing:
                self.free.append(pipe)
        self._pass_on(pipe, lines)
        return len(chunk)

    def _end(self, pipe: Pipe) -> None:
        if pipe.rest:
            line, pipe.rest = pipe.rest + b"\n", b""
            self._pass_on(pipe, line)
        if pipe.ended:
            self.pipes.remove(pipe)

    def _pass_on(self, pipe: Pipe, lines: bytes) -> None:
        if not lines:
            return
        account = pipe.account
        if self.outlet.drops():
            self._lose(account, lines.count(b"\n"))
            return
        if account.unreported and not self.outlet.failing:
            self._report(account)
        tag = b"[%s] " % account.name.encode()
        self._put(tag + lines[:-1].replace(b"\n", b"\n" + tag) + b"\n", account)

    # From the queue to the reader.

    def _put(self, block: bytes, account: Account) -> None:
        self.outlet.queue(block, account)
        if self.outlet.blocked_at_ms is None:
            self._push()

    def _ask(self) -> None:
        if self.outlet.drops() and self.outlet.doubts(self.now_ms):
            self._push()

    def _push(self) -> None:
        moved = False
        while not self.outlet.is_empty():
            written = self.reader.write(b"".join(self.outlet.head()), self.now_ms)
            if not written:
                self.outlet.refused(self.now_ms, self.reader.unread, moved=moved)
                break
            self.outlet.took(written)
            moved = True
        else:
            self.outlet.blocked_at_ms = None
        if moved:
            self._progressed()

    def _writable(self) -> None:
        if self.outlet.blocked_at_ms is not None and self.reader.has_room(self.now_ms):
            self._push()

    def _tick(self) -> None:
        due_ms = self.outlet.due_ms()
        if due_ms is not None and self.now_ms >= due_ms and any(pipe.parked for pipe in self.pipes):
            self._push()
            if self.outlet.stalled():
                self._say("nobody waits for the reader any more")
                self._resume()

    def _progressed(self) -> None:
        if self.outlet.lets_go_on():
            self._resume()
            if not self.outlet.failing:
                for account in tuple(self.outlet.owed):
                    self._report(account)

    def _resume(self) -> None:
        for pipe in self.pipes:
            pipe.parked = False

    def _report(self, account: Account) -> None:
        if account in self.outlet.owed and (self._closing or not self._one_pipe or self.outlet.admits(self.own)):
            count = self.outlet.told(account)
            self.told.append((account.name, count))
            self._say(f"it is told that {count} lines of {account.name or 'the init'} were dropped")
            self.event(f"lines_dropped {account.name} {count}")

    def _lose(self, account: Account, lines: int) -> None:
        self._note_loss(account, lines)
        self.outlet.lose(account, lines)

    def _fail(self) -> None:
        accounts = (self.own, *self.accounts)
        before = [account.lost for account in accounts]
        self.outlet.failed()
        for account, lost in zip(accounts, before, strict=True):
            if account.lost > lost:
                self._note_loss(account, account.lost - lost)
        self._progressed()

    def _note_loss(self, account: Account, lines: int) -> None:
        idle_ms = self.reader.idle_ms(self.now_ms)
        self.losses.append(Loss(account.name, lines, self.now_ms, idle_ms, closing=self._closing))

    def _flush(self, deadline_ms: int) -> None:
        farewell = Farewell(self.now_ms, deadline_ms)
        while (until_ms := farewell.until_ms(self._pending(), self.outlet.unread, self.now_ms)) is not None:
            next_ms = self.reader.next_ms()
            self.begin(until_ms if next_ms is None else min(until_ms, max(next_ms, self.now_ms)))
            self._push()

    def _pending(self) -> int:
        return 0 if self.outlet.failing else self.outlet.size

    # What is noted.

    def _look_for_waits(self) -> None:
        """Who waits has to wait for somebody: for a reader that has taken something within the last second."""
        hopeless_ms = self.reader.hopeless_ms
        if self._stopping or hopeless_ms is None or self.now_ms >= hopeless_ms:
            self.vain.extend((self.now_ms, pipe.account.name) for pipe in self.pipes if pipe.outgoing)

    def _say(self, what: str) -> None:
        self.story.append((self.now_ms, what))
