"""How lines flow from the children to a reader: who waits for it, what is dropped, and when (contract 8).

A child that is ahead of a reader that still reads is made to wait. Once the reader has taken nothing for a second
(during a stop: at once), whole lines are dropped and counted, so that nobody waits for it any more.

All of it is decided here, and none of it is done here: a `Flow` is told what was read, and an `Outlet` what a reader
has taken or refused, and when; both are asked what follows. On Linux `linux/logs.py` and `linux/outputs.py` move the
bytes, in the simulated kernel `testing/pipes.py`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    Render = Callable[[bytes], bytes]

STALL_MS: Final = 1_000
"""A reader that takes nothing for so long is waited for no more (contract 8)."""
FLUSH_STALL_MS: Final = 100
"""At the end, a reader that takes nothing for so long gets no more (contract 8: during a stop, at once)."""
LINE_BYTES: Final = 64 * 1024
"""A longer line goes out in pieces of this length (contract 9)."""
QUEUE_BYTES: Final = 1024 * 1024
"""A queue that is longer makes the children wait."""
RESUME_BYTES: Final = 256 * 1024
"""A queue that is shorter lets them go on."""
OWN_BYTES: Final = 64 * 1024
"""How much longer a queue may get by the init's own lines: they say why the others are missing."""
LAST_WORDS_BYTES: Final = 8 * 1024 * 1024
"""How long a queue may get by what the dead have left in their pipes: they can't be made to wait."""
DRAIN_BYTES: Final = 1024 * 1024
"""How much is taken from one pipe of the dead: a descendant that goes on writing holds up nothing."""
BLOCK_BYTES: Final = 128
"""What a queued block costs beside its content."""
WRITE_BLOCKS: Final = 64
"""How many blocks one writev(2) gets."""


class Account:
    """Lines lost of one stream of one child's, or of the init's own log (`name` is "" then)."""

    __slots__ = ("lost", "name", "stream", "unreported")

    def __init__(self, name: str, stream: str) -> None:
        self.name = name
        self.stream = stream
        self.lost = 0
        self.unreported = 0


class Outlet:
    """The queue of what one output is to get: blocks of whole lines.

    What was begun is finished before anything else, so no line is ever torn.
    """

    __slots__ = (
        "_blocks",
        "_offset",
        "asked_at_ms",
        "blocked_at_ms",
        "failing",
        "is_urged",
        "owed",
        "patience_ms",
        "size",
        "unread",
    )

    def __init__(self) -> None:
        self._blocks: list[tuple[bytes, Account]] = []
        self._offset = 0
        """How much of the first block has been written."""
        self.unread = 0
        """How much of what was written the reader had still before it when it refused last."""
        self.size = 0
        """Bytes in the queue, with what their keeping costs."""
        self.blocked_at_ms: int | None = None
        """Since when the reader has taken nothing of what waits for it; None while it takes all."""
        self.asked_at_ms = 0
        """When it refused last."""
        self.failing = False
        """Whether the last write failed: the reader is gone, the disk is full."""
        self.is_urged = False
        """Whether something was queued since the last write and the reader had not refused: it may be written now."""
        self.patience_ms = STALL_MS
        self.owed: dict[Account, None] = {}
        """Whose losses are to be told once the reader reads again."""

    # What has happened.

    def queue(self, block: bytes, account: Account) -> None:
        """Let whole lines wait for the reader."""
        self._blocks.append((block, account))
        self.size += len(block) + BLOCK_BYTES
        self.is_urged = self.blocked_at_ms is None

    def lose(self, account: Account, lines: int) -> None:
        """Count lines that nobody will get."""
        if lines:
            account.lost += lines
            account.unreported += lines
            self.owed[account] = None

    def told(self, account: Account) -> int:
        """The account's losses are being told; how many there are since the last time."""
        count, account.unreported = account.unreported, 0
        del self.owed[account]
        return count

    def took(self, written: int) -> None:
        """The reader has taken so many bytes of `head`."""
        self.size -= written
        written += self._offset
        done = 0
        while done < len(self._blocks) and written >= len(self._blocks[done][0]):
            written -= len(self._blocks[done][0])
            self.size -= BLOCK_BYTES
            done += 1
        del self._blocks[:done]
        self._offset = written
        self.failing = False

    def refused(self, now_ms: int, unread: int = 0, *, moved: bool = False) -> None:
        """The reader takes no more for now.

        Args:
            now_ms: when it was asked.
            unread: how many bytes it has before it, 0 where that is not known. A pipe is writable again only once
                a whole page of it has been read (pipe(7)): by this number a reader of single lines is known to read.
            moved: whether it has taken something just before.
        """
        if moved or self.blocked_at_ms is None or unread < self.unread:
            self.blocked_at_ms = now_ms
        self.asked_at_ms = now_ms
        self.unread = unread

    def failed(self) -> None:
        """Nobody can get the queue: drop it, but for the rest of a line of which somebody has the beginning.

        That one goes out first should a reader come back (a FIFO's, or a disk with room again).
        """
        self.blocked_at_ms = None
        self.failing = True
        blocks, offset = self._blocks, self._offset
        self._blocks, self._offset, self.size = [], 0, 0
        if blocks and offset and blocks[0][0][offset - 1] != 0x0A:
            block, account = blocks[0]
            end = block.index(b"\n", offset) + 1
            begun = block[offset - 1 : end]
            self._blocks, self._offset, self.size = [(begun, account)], 1, len(begun) - 1 + BLOCK_BYTES
            blocks[0], offset = (block[end:], account), 0
        for block, account in blocks:
            self.lose(account, block.count(b"\n", offset))
            offset = 0

    def hurry(self) -> None:
        """A stop has begun: a reader that takes nothing is waited for no more."""
        self.patience_ms = 0

    # What follows.

    def head(self) -> list[memoryview]:
        """As much of the queue as one writev(2) takes."""
        views = [memoryview(block) for block, _ in self._blocks[:WRITE_BLOCKS]]
        if self._offset:
            views[0] = views[0][self._offset :]
        return views

    def stalled(self) -> bool:
        """Whether the reader has taken nothing for so long that lines are dropped.

        Its answers count, not the clock: an init that was not scheduled for a while has not asked.
        """
        return self.blocked_at_ms is not None and self.asked_at_ms - self.blocked_at_ms >= self.patience_ms

    def holds_up(self) -> bool:
        """Whether a child is made to wait: its pipe is not to be read now."""
        return self.size >= QUEUE_BYTES and not self.stalled()

    def holds_up_the_dead(self) -> bool:
        """The same of what a dead child has left in its pipe."""
        return self.size >= LAST_WORDS_BYTES and not self.stalled()

    def drops(self) -> bool:
        """Whether lines that are read now are lost, by what the reader has answered last."""
        return self.size >= QUEUE_BYTES and self.stalled()

    def doubts(self, now_ms: int) -> bool:
        """Whether that answer is an old one: the reader is to be asked again before lines are lost by it."""
        return self.asked_at_ms < now_ms

    def lets_go_on(self) -> bool:
        """Whether those that were made to wait may go on, because the queue has become short."""
        return self.size <= RESUME_BYTES

    def admits(self, own: Account) -> bool:
        """Whether there is room for another of the init's own lines."""
        return self.size < QUEUE_BYTES or self.queued(own) < OWN_BYTES

    def due_ms(self) -> int | None:
        """When the reader is to be asked again for the sake of those who wait; None while it takes all."""
        return None if self.blocked_at_ms is None else self.blocked_at_ms + self.patience_ms

    def queued(self, account: Account) -> int:
        """How much of the queue is of one account."""
        return sum(len(block) + BLOCK_BYTES for block, whose in self._blocks if whose is account)

    def blocks(self) -> tuple[tuple[bytes, Account], ...]:
        """All of the queue: blocks of lines, and whose they are; the first one may have been written in part."""
        return tuple(self._blocks)

    def begun(self) -> Account | None:
        """Whose line has been written in part, if the last one has."""
        if not self._offset:
            return None
        block, account = self._blocks[0]
        return account if block[self._offset - 1] != 0x0A else None

    def is_empty(self) -> bool:
        """Whether the reader has everything."""
        return not self._blocks


READ: Final = "read"
ASK: Final = "ask"
WAIT: Final = "wait"


class Stream:
    """One pipe of a child: whose lines it carries, how they are rendered, where they go, and the unfinished one."""

    __slots__ = ("account", "outlet", "render", "rest", "waits")

    def __init__(self, account: Account, outlet: Outlet, render: Render) -> None:
        self.account = account
        self.outlet = outlet
        self.render = render
        self.rest = b""
        """The beginning of a line, at most LINE_BYTES of it."""
        self.waits = False
        """Whether it is not read until there is room in its queue again."""


class Flow:
    """From all pipes to all outlets.

    `err` is the outlet of the init's own lines, which are `own`'s account. `log_loss(account, count)` is called when
    lost lines have to be logged; that line comes back by `said`.
    """

    __slots__ = ("_err", "_log_loss", "_own", "_waiting", "is_closing", "outlets", "resumed")

    def __init__(self, out: Outlet, err: Outlet, own: Account, log_loss: Callable[[Account, int], None]) -> None:
        self.outlets = (out,) if out is err else (out, err)
        self.resumed: list[Any] = []
        """The streams that may be read again; whoever reads them takes them from here."""
        self.is_closing = False
        """Whether all children have ended: what the init says from now on is the last, and all of it may be queued."""
        self._err = err
        self._own = own
        self._log_loss = log_loss
        self._waiting: dict[Outlet, list[Stream]] = {outlet: [] for outlet in self.outlets}

    # From the pipes to the queues.

    def readable(self, stream: Stream, now_ms: int) -> str:
        """READ a chunk, let the writer WAIT, or ASK the reader first: write to it, and put this question again."""
        outlet = stream.outlet
        if outlet.drops() and outlet.doubts(now_ms):
            return ASK
        if not outlet.holds_up():
            return READ
        stream.waits = True
        self._waiting[outlet].append(stream)
        return WAIT

    def left(self, stream: Stream, now_ms: int) -> str:
        """The same of what a dead child has left in its pipe; to WAIT is to leave it until its turn comes."""
        outlet = stream.outlet
        if outlet.drops() and outlet.doubts(now_ms):
            return ASK
        return WAIT if outlet.holds_up_the_dead() else READ

    def got(self, stream: Stream, chunk: bytes) -> bytes:
        """Take what was read; returns the whole lines that it brings to an end."""
        lines, stream.rest = whole_lines(stream.rest + chunk)
        self._pass_on(stream, lines)
        return lines

    def ended(self, stream: Stream) -> bytes:
        """Nothing is left to be read: give the line without an end one; returns it."""
        if not stream.rest:
            return b""
        line, stream.rest = stream.rest + b"\n", b""
        self._pass_on(stream, line)
        return line

    def closed(self, stream: Stream) -> None:
        """The pipe is gone."""
        if stream.waits:
            self._waiting[stream.outlet].remove(stream)
            stream.waits = False

    def said(self, line: bytes) -> None:
        """A line of the init's own, with its newline."""
        if self.is_closing or self._err.admits(self._own):
            self._err.queue(line, self._own)
        else:
            self._err.lose(self._own, 1)

    def _pass_on(self, stream: Stream, lines: bytes) -> None:
        if not lines:
            return
        outlet, account = stream.outlet, stream.account
        if outlet.drops():
            outlet.lose(account, lines.count(b"\n"))
            return
        if account.unreported and not outlet.failing:
            self._report(outlet, account)
        outlet.queue(stream.render(lines), account)

    # When a reader reads again, or is given up.

    def wrote(self, outlet: Outlet) -> None:
        """There is room again: the reader has taken something, or what it did not take is lost."""
        if not outlet.lets_go_on():
            return
        self._resume(outlet)
        if not outlet.failing:
            for account in tuple(outlet.owed):
                self._report(outlet, account)

    def refused(self, outlet: Outlet) -> bool:
        """The reader was asked again, for the sake of those who wait; whether they wait for it no more."""
        if not outlet.stalled():
            return False
        self._resume(outlet)
        return True

    def stop(self) -> None:
        """A stop has begun: a reader that takes nothing is waited for no more."""
        for outlet in self.outlets:
            outlet.hurry()
            self.refused(outlet)

    def _resume(self, outlet: Outlet) -> None:
        """Read those pipes again that wait for room."""
        for stream in self._waiting[outlet]:
            stream.waits = False
        self.resumed += self._waiting[outlet]
        self._waiting[outlet] = []

    def _report(self, outlet: Outlet, account: Account) -> None:
        """Tell how many lines are missing, unless there is no room even for that, or the last line has led to it."""
        if account in outlet.owed and (self.is_closing or self._err.admits(self._own)):
            self._log_loss(account, outlet.told(account))

    # Time.

    def due_ms(self) -> int | None:
        """When a reader is to be asked again, as somebody will have waited long enough; None while nobody waits."""
        times = [outlet.due_ms() for outlet, waiting in self._waiting.items() if waiting]
        return min((at_ms for at_ms in times if at_ms is not None), default=None)

    def overdue(self, now_ms: int) -> list[Outlet]:
        """The outlets whose readers are to be asked now."""
        due = [(outlet, outlet.due_ms()) for outlet, waiting in self._waiting.items() if waiting]
        return [outlet for outlet, due_ms in due if due_ms is not None and due_ms <= now_ms]

    # What is left.

    def lost(self, *accounts: Account) -> int:
        """Lines of these accounts that nobody got whole."""
        torn = [outlet.begun() for outlet in self.outlets if outlet.failing]
        return sum(account.lost + torn.count(account) for account in accounts)

    def pending(self) -> int:
        """Bytes that a reader may still get."""
        return sum(outlet.size for outlet in self.outlets if not outlet.failing)

    def unread(self) -> int:
        """Bytes that readers had before them when they took no more, where that is known."""
        return sum(outlet.unread for outlet in self.outlets)


class Farewell:
    """How long the last lines of all are held out: for as long as the reader takes some, within the stop's deadline."""

    __slots__ = ("_end_ms", "_left", "_moved_ms")

    def __init__(self, now_ms: int, deadline_ms: int) -> None:
        self._left: tuple[int, int] | None = None
        self._moved_ms = now_ms
        self._end_ms = max(deadline_ms, now_ms + FLUSH_STALL_MS)

    def until_ms(self, pending: int, unread: int, now_ms: int) -> int | None:
        """When to give up unless the reader takes some before; None if that is now, or it has everything.

        `pending` are the bytes in the queues, `unread` those that the reader has before it.
        """
        if (pending, unread) != self._left:
            self._left, self._moved_ms = (pending, unread), now_ms
        until_ms = min(self._moved_ms + FLUSH_STALL_MS, self._end_ms)
        return until_ms if pending and now_ms < until_ms else None


def whole_lines(data: bytes) -> tuple[bytes, bytes]:
    """The whole lines in `data`, and the unfinished one after them, at most LINE_BYTES of it.

    A line of more than LINE_BYTES is cut into pieces that are lines, never inside a UTF-8 character.
    """
    pieces = []
    start = position = 0
    while len(data) - position > LINE_BYTES:
        newline = data.rfind(b"\n", position, position + LINE_BYTES + 1)
        if newline >= 0:
            position = newline + 1
        else:
            cut = _character_start(data, position + LINE_BYTES)
            pieces.append(data[start:cut])
            start = position = cut
    if pieces:
        data = b"\n".join((*pieces, data[start:]))
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


def _character_start(data: bytes, at: int) -> int:
    """The start of the UTF-8 character that `at` lies in; `at` itself where that is none."""
    for start in range(at, at - 4, -1):
        if data[start] & 0xC0 != 0x80:
            return start
    return at
