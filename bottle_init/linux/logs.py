"""The children's lines and the init's own, on their way out (contract 8 and 9, `logs`).

Each child writes into two pipes of its own. What the pipes hold is taken in chunks, made into tagged
lines or JSON objects, and queued for the init's stdout or stderr (`outputs.py`); one queue for both where they are the
same file, so that a line is never torn by another.

A child that is ahead of a reader that still reads is made to wait, by not reading its pipe. Once the reader has
taken nothing for a second (during a stop: at once), whole lines are dropped and counted; where the reader comes back, a
`lines_dropped` event says how many were lost, just before the line that follows the gap.

Memory is bounded, whatever children write and readers do not read. For each output: 1 MiB of queue, 64 KiB more for
the init's own lines, 8 MiB for what the dead have left in their pipes, and one chunk on top. For each pipe: an
unfinished line of 64 KiB; for each child: its last 20 lines, 4 KiB of each. A chunk is what one read takes: 64 KiB,
times the tag's length where every line is empty; as JSON 16 KiB, times the length of an object.
"""

from __future__ import annotations

import os
from itertools import repeat
from select import EPOLLIN

from bottle_init.core import flow
from bottle_init.core.flow import Account, Flow, Stream
from bottle_init.linux.sys.clock import monotonic_ms, wall_s
from bottle_init.linux.sys.outputs import Sink, same_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from bottle_init.core.flow import Render
    from bottle_init.linux.sys.outputs import Poller
    from bottle_init.words.pretty import Renderer

READ_BYTES: Final = {"tag": 64 * 1024, "json": 16 * 1024}
"""What one read takes. Larger ones, and pipes that hold more, have been measured to be slower: they leave the cache."""
HELD_LINES: Final = 256
"""How many events wait for their renderer."""
_CHARACTER_BYTES: Final = 4
TAIL_LINES: Final = 20
TAIL_LINE_BYTES: Final = 4 * 1024
"""How much of each of a child's last lines is kept: more than a report shows."""


class Source(Stream):
    """The read end of one pipe."""

    __slots__ = ("child", "chunk_bytes", "fd", "sink")

    def __init__(self, fd: int, child: int, account: Account, sink: Sink, render: Render, chunk_bytes: int) -> None:
        super().__init__(account, sink, render)
        self.fd = fd
        self.chunk_bytes = chunk_bytes
        self.child = child
        self.sink = sink


class Logs:
    """All outputs and all pipes; what is read and written when is decided by `flow.Flow`.

    `mode` is one of `words.LOGS`, `modes` what holds for each child where that is not the same; `names` are the
    children's, by index; `stdout` and `stderr` are the init's own (none
    of 0, 1 and 2 is closed: else a descriptor of ours would get that number); `clock` gives monotonic milliseconds.
    """

    def __init__(
        self,
        mode: str,
        names: Sequence[str],
        poller: Poller,
        stdout: int = 1,
        stderr: int = 2,
        clock: Callable[[], int] = monotonic_ms,
        modes: Sequence[str] = (),
    ) -> None:
        self._modes = modes or [mode] * len(names)
        self._null = -1
        self._poller = poller
        self._clock = clock
        self._given = stdout, stderr
        self._own = Account("", "stderr")
        err = Sink(stderr, poller, clock, self._wrote)
        out = err if same_file(stdout, stderr) else Sink(stdout, poller, clock, self._wrote)
        self._sinks = out, err
        self._flow = Flow(out, err, self._own, self._report)
        self._accounts = [(Account(name, "stdout"), Account(name, "stderr")) for name in names]
        self._sources: dict[int, list[Source]] = {}
        self._handed: dict[int, list[tuple[Source, int]]] = {}
        self._left: list[Source] = []
        """Pipes of processes that have ended, which others hold open; the oldest first."""
        self._tails: dict[int, list[bytes]] = {}
        self._renderer: Renderer | None = None
        self._held: list[bytes] = []
        """Events that wait for the renderer."""
        self._is_terminal = os.isatty(stderr)
        self.is_read_by_people = self._is_terminal
        """Whether the init's own events go to a terminal."""
        self._tags: list[bytes] = []

    # Children.

    def open(self, child: int) -> tuple[int, int]:
        """Descriptors for a new process's stdout and stderr, close-on-exec. Raises OSError.

        `opened` must follow in any case, the fork having failed included.
        """
        if self._modes[child] == "inherit":
            return self._given
        if self._modes[child] == "none":
            null = self._open_null()
            return null, null
        handed = self._handed[child] = []
        for sink, account, fd in zip(self._sinks, self._accounts[child], self._given, strict=True):
            handed.append(self._open_pipe(child, sink, account, os.isatty(fd)))
        (_, out), (_, err) = handed
        return out, err

    def _open_pipe(self, child: int, sink: Sink, account: Account, is_terminal: bool) -> tuple[Source, int]:
        """A pipe whose read end is watched, and its write end; its lines go to a terminal or not."""
        read, write = os.pipe()
        try:
            os.set_blocking(read, False)
            mode = self._modes[child]
            render = _tagging(self._tag(child, is_terminal)) if mode == "tag" else _jsonning(account)
            source = Source(read, child, account, sink, render, READ_BYTES[mode])
            self._watch(source)
        except OSError:
            os.close(read)
            os.close(write)
            raise
        self._sources.setdefault(child, []).append(source)
        return source, write

    def _tag(self, child: int, is_terminal: bool) -> bytes:
        """What stands before each line of a child; on a terminal the lines of all children begin in one column."""
        if not is_terminal:
            return f"[{self._accounts[child][0].name}] ".encode()
        if not self._tags:
            from bottle_init.words import tags

            names = [each.name for each, _ in self._accounts]
            self._tags = tags.for_terminal(names, colour=tags.has_colour(os.environ))
        return self._tags[child]

    def _open_null(self) -> int:
        """Where the output of children goes that is dropped. Raises OSError."""
        if self._null < 0:
            self._null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        return self._null

    def opened(self, child: int, *, forked: bool = True) -> None:
        """The fork has been tried: the write ends are the child's alone from now on, if there is one."""
        for source, write in self._handed.pop(child, ()):
            os.close(write)
            if not forked:
                self._close(source)

    def drain(self, child: int) -> None:
        """The child has died: take its last words, and end the line that it did not.

        What other processes still write into its pipes is read as before.
        """
        for source in list(self._sources.get(child, ())):
            self._drain(source)
            if source in self._sources[child] and source not in self._left:
                self._left.append(source)

    def let_go(self) -> bool:
        """Close the oldest pipe that only what escaped from a child still holds; whether there was one.

        Each restart would otherwise keep two more, until no descriptor is left to start anything with.
        """
        if not self._left:
            return False
        source = self._left[0]
        self._drain(source)
        if source in self._left:
            self._close(source)
        facts = (("child", source.account.name), ("stream", source.account.stream))
        self._note("leftover_output_closed", (*facts, ("reason", "no descriptor is left for a start")))
        return True

    def _drain(self, source: Source) -> None:
        """Take what a pipe holds, within bounds: what is left is read when its turn comes."""
        taken = 0
        while taken < flow.DRAIN_BYTES:
            if self._asked(self._flow.left, source) == flow.WAIT:
                return
            read = self._take(source)
            if not read:
                self._end_line(source)
                return
            taken += read

    def finish(self) -> None:
        """No child is left: take what all pipes hold, end all lines and close the pipes.

        To be called before the last report, which then has all counts, all tails, and the last word.
        """
        self._flow.is_closing = True
        for sources in list(self._sources.values()):
            for source in list(sources):
                self._drain(source)
                if source in sources:
                    self._close(source)

    def tail(self, child: int) -> tuple[str, ...]:
        """The last lines of a child, both streams as they were read, as far as TAIL_LINE_BYTES hold them."""
        return tuple(_printable(line.decode("utf-8", "replace")) for line in self._tails.get(child, ()))

    # The init's own.

    def event(self, line: bytes) -> None:
        """One line of the init's own log, without its newline, to stderr; on a terminal, as people like it."""
        if not self._is_terminal:
            self._write_own(line)
        elif self._renderer is not None and self._renderer.ready():
            self._write_own(self._renderer.render(line))
        else:
            self._held.append(line)
            if len(self._held) > HELD_LINES:
                self._release()

    def story(self, text: bytes) -> None:
        """Lines for people, without the last newline: they take the place of an event where a terminal shows it."""
        self._release()
        self._write_own(text)

    def _write_own(self, line: bytes) -> None:
        self._flow.said(line + b"\n")
        self._settle()

    def _load(self) -> None:
        """Get a step nearer to the renderer."""
        if self._renderer is None:
            from bottle_init.words.pretty import Renderer

            self._renderer = Renderer()
        if not self._renderer.load():
            self._release()

    def _release(self) -> None:
        """Show what was held back: rendered if that is possible by now, and as JSON from now on if not."""
        self._is_terminal = self._renderer is not None and self._renderer.ready()
        held, self._held = self._held, []
        for line in held:
            self.event(line)

    def _report(self, account: Account, count: int) -> None:
        """Say how many lines are missing."""
        whose = (("child", account.name),) if account.name else ()
        self._note("lines_dropped", (*whose, ("stream", account.stream), ("count", count)))

    def _note(self, event: str, facts: tuple[tuple[str, object], ...]) -> None:
        from bottle_init.words import jsonlines

        self.event(jsonlines.encode(event, "warning", facts, jsonlines.timestamp(wall_s())))

    # Time, and the end.

    def stop(self) -> None:
        """A stop has begun: a reader that takes nothing is waited for no more."""
        self._release()
        self._flow.stop()
        self._settle()

    def deadline_ms(self) -> int | None:
        """When `tick` is to be called: when somebody will have waited long enough for a stalled reader.

        0 (at once, and then again) while events wait for their renderer.
        """
        return 0 if self._held else self._flow.due_ms()

    def tick(self, now_ms: int) -> None:
        """Let those go on that have waited for a stalled reader long enough."""
        if self._held:
            self._load()
        overdue = self._flow.overdue(now_ms)
        for sink in self._sinks:
            if sink in overdue:
                sink.push()
                self._flow.refused(sink)
                self._settle()

    def dropped(self) -> int:
        """Lines that were read from children, or said by the init, and that nobody got whole."""
        accounts = [account for pair in self._accounts for account in pair]
        return self._flow.lost(self._own, *accounts)

    def dropped_of(self, child: int) -> int:
        """The same of one child."""
        return self._flow.lost(*self._accounts[child])

    def pending(self) -> int:
        """Bytes that a reader may still get."""
        return self._flow.pending()

    def unread(self) -> int:
        """Bytes that readers had before them when they took no more, where that is known."""
        return self._flow.unread()

    def flush(self, _now_ms: int) -> bool:
        """Write what can be written; whether nothing is left that anybody could get."""
        self._release()
        for sink in self._sinks:
            sink.push()
        return not self.pending()

    def pump(self) -> bool:
        """Take a chunk of each pipe and write what can be written, where nobody polls; whether there was a chunk."""
        sources = [source for each in self._sources.values() for source in each]
        taken = [self._take(source) for source in sources]
        for sink in self._sinks:
            sink.push()
        return any(taken)

    def give_up(self) -> None:
        """Nobody takes what is left in the queues: count it as lost, before the report is made."""
        for sink in dict.fromkeys(self._sinks):
            sink.give_up()

    # From the pipes to the queues, and from there to the readers.

    def _asked(self, question: Callable[[Stream, int], str], source: Source) -> str:
        """What the flow says to a question about a pipe, with its reader asked first where the flow wants to know."""
        while (answer := question(source, self._clock())) == flow.ASK:
            source.sink.push()
        return answer

    def _readable(self, source: Source) -> None:
        """One chunk of one pipe: epoll comes back to it, after all others had their turn."""
        if self._asked(self._flow.readable, source) == flow.WAIT:
            self._poller.forget(source.fd)
        else:
            self._take(source)

    def _take(self, source: Source) -> int:
        """Read once; the number of bytes, 0 if there are none by now or ever."""
        try:
            chunk = os.read(source.fd, source.chunk_bytes)
        except BlockingIOError:
            return 0
        if chunk:
            self._keep(source, self._flow.got(source, chunk))
            self._settle()
        else:
            self._close(source)
        return len(chunk)

    def _keep(self, source: Source, lines: bytes) -> None:
        """Keep the last lines of a child, for the report."""
        if lines:
            fresh = [line[:TAIL_LINE_BYTES] for line in lines[:-1].rsplit(b"\n", TAIL_LINES)[-TAIL_LINES:]]
            self._tails[source.child] = (self._tails.get(source.child, []) + fresh)[-TAIL_LINES:]

    def _end_line(self, source: Source) -> None:
        self._keep(source, self._flow.ended(source))
        self._settle()

    def _close(self, source: Source) -> None:
        """All writers are gone, or the init is about to be."""
        self._end_line(source)
        if source.waits:
            self._flow.closed(source)
        else:
            self._poller.forget(source.fd)
        os.close(source.fd)
        self._sources[source.child].remove(source)
        if source in self._left:
            self._left.remove(source)

    def _wrote(self, sink: Sink) -> None:
        """A reader has taken something, or is gone."""
        self._flow.wrote(sink)
        self._settle()

    def _settle(self) -> None:
        """Write what has been queued, and read those pipes again that may go on."""
        for sink in self._sinks:
            if sink.is_urged:
                sink.push()
        resumed, self._flow.resumed = self._flow.resumed, []
        for source in resumed:
            self._watch(source)

    def _watch(self, source: Source) -> None:
        self._poller.watch(source.fd, EPOLLIN, lambda _mask: self._readable(source))


def _tagging(tag: bytes) -> Render:
    """Whole lines -> the same with the tag before each."""
    between = b"\n" + tag

    def render(lines: bytes) -> bytes:
        return b"%b%b\n" % (tag, lines[:-1].replace(b"\n", between))

    return render


def _jsonning(account: Account) -> Render:
    """Whole lines -> a JSON object for each, with structlog's keys; a line that is an object already stays that one.

    The level is `info` whatever the stream: programs use stderr for all their logging, and only they know better.
    """
    from bottle_init.words import jsonlines, objects

    quote = jsonlines.quoting()
    facts = (("logger", account.name), ("stream", account.stream))
    is_piece = False
    read: Callable[[str], dict[str, Any] | None] | None = None
    head = '{"event": '

    def render(lines: bytes) -> bytes:
        stamp = jsonlines.timestamp(wall_s())
        end = f', "level": "info", "logger": "{account.name}", "stream": "{account.stream}", "timestamp": "{stamp}"}}\n'
        texts = lines.decode("utf-8", "replace")[:-1].split("\n")
        if b"{" not in lines:
            return (head + (end + head).join(map(quote, texts)) + end).encode("ascii")
        return b"".join(map(one, texts, lines[:-1].split(b"\n"), repeat(end)))

    def one(text: str, line: bytes, end: str) -> bytes:
        """A piece of a line that was too long is no object, whatever it looks like."""
        nonlocal is_piece, read
        was_piece, is_piece = is_piece, len(line) > flow.LINE_BYTES - _CHARACTER_BYTES
        if "{" in text and not (was_piece or is_piece):
            try:
                read = read or objects.reading()
                whole = objects.passed_on(text, facts, read, quote)
            except (ImportError, OSError):
                whole = None
            if whole is not None:
                return whole.encode("ascii") + b"\n"
        return (head + quote(text) + end).encode("ascii")

    return render


def _printable(line: str) -> str:
    """A line with all that could move a cursor, but for tabs, in the form `\\x1b`."""
    line = line.removesuffix("\r")
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() or each == "\t" else ascii(each)[1:-1] for each in line)
