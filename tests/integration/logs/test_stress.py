"""Slow readers, stalled readers and endless lines: nothing is torn, and what is lost is counted (contract 8)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bottle_init.core.flow import DRAIN_BYTES, LAST_WORDS_BYTES, QUEUE_BYTES, STALL_MS
from tests.integration.support.init import ROOT
from tests.integration.support.logs_bench import Bench, Pipe, bench, events, fill, is_full, write_all

# A write that blocks would block the test for ever: this is what ends it then.
pytestmark = pytest.mark.real

LINE = 100


def numbered(first: int, count: int, width: int = LINE) -> bytes:
    """Lines that say which they are, of `width` bytes each with the newline."""
    return b"".join((b"%07d " % number).ljust(width - 1, b"x") + b"\n" for number in range(first, first + count))


def numbers(lines: list[bytes], tag: bytes = b"[egress] ", width: int = LINE) -> list[int]:
    """Which lines these are. Raises AssertionError for one that is not whole."""
    found = []
    for line in lines:
        if not line.startswith(b"{"):
            assert line.startswith(tag), line
            assert len(line) == len(tag) + width - 1, line
            found.append(int(line[len(tag) :].split(b" ")[0]))
    return found


def writer(count: int) -> str:
    """A program that writes numbered lines to stdout and stderr, in blocks that end in the middle of lines."""
    return (
        "import os\n"
        f"data = b''.join((b'%07d ' % n).ljust({LINE - 1}, b'x') + b'\\n' for n in range({count}))\n"
        "for at in range(0, len(data), 4096):\n"
        "    for fd in (1, 2):\n"
        "        piece = data[at:at + 4096]\n"
        "        while piece: piece = piece[os.write(fd, piece):]\n"
    )


@pytest.mark.parametrize("one_pipe", [False, True], ids=["two outputs", "one output"])
def test_four_writers_and_a_slow_reader(one_pipe: bool) -> None:
    """Four writers and a slow reader lose and tear nothing."""
    names = ["egress", "pipelock", "git-gate", "supervise"]
    count = 5_000
    out = Pipe()
    with bench(names=names, stdout=out.writer, stderr=out.writer if one_pipe else None) as (logs, _, err):
        for child in range(4):
            logs.start(writer(count), child)
        while not (logs.ended() and logs.logs.flush(0)):
            logs.turn(1)
            logs.now_ms += 300  # The reader takes something at every turn: never nothing for a second.
            out.read(9_001)
            err.read(7_001)
        out.read_all(), err.read_all()
        assert logs.logs.dropped() == 0
        lines = out.lines if one_pipe else [*out.lines, *err.lines]
        assert len(lines) == 4 * 2 * count
        for name in names:
            tag = b"[%s] " % name.encode()
            mine = numbers([line for line in lines if line.startswith(tag)], tag)
            assert sorted(mine) == sorted([*range(count), *range(count)])
        if not one_pipe:
            mine = numbers([line for line in out.lines if line.startswith(b"[egress] ")])
            assert mine == list(range(count))
    out.close()


def stall(logs: Bench, stdout: int) -> int:
    """Write numbered lines while there is no reader, until the child has to wait; how many lines were taken."""
    written = 0
    os.set_blocking(stdout, False)
    for _ in range(100_000):
        if is_full(stdout) and not logs.ready():
            return written
        try:
            piece = numbered(written, 40)
            assert os.write(stdout, piece) == len(piece)  # Atomic: 40 lines are no more than PIPE_BUF (pipe(7)).
            written += 40
        except BlockingIOError:
            logs.turn()
    raise AssertionError("a stalled reader never makes the child wait")


def test_a_child_ahead_of_its_reader_waits() -> None:
    """A child ahead of its reader waits, and loses nothing within a second."""
    with bench() as (logs, out, err):
        stdout = logs.open()[0]
        written = stall(logs, stdout)
        assert logs.ready() == 0
        assert logs.logs.pending() >= QUEUE_BYTES
        assert logs.logs.deadline_ms() == logs.now_ms + STALL_MS
        logs.now_ms += STALL_MS - 1
        logs.turn()
        assert is_full(stdout)
        while out.read():
            logs.settle()
        assert not is_full(stdout)
        assert logs.logs.dropped() == 0
        assert numbers(out.lines) == list(range(written))
        assert err.read() == b""


def test_a_reader_of_sips_is_waited_for() -> None:
    """A reader that takes a little every second is waited for."""
    with bench() as (logs, out, _):
        stdout = logs.open()[0]
        stall(logs, stdout)
        for _ in range(40):
            logs.now_ms += STALL_MS - 1
            assert out.read(8_192)
            logs.settle()
        assert is_full(stdout)
        assert logs.logs.dropped() == 0


def test_a_reader_of_single_lines_is_one_that_reads() -> None:
    """A pipe gets room again by the page, which takes such a reader half a minute here (pipe(7))."""
    with bench() as (logs, out, _):
        stdout = logs.open()[0]
        stall(logs, stdout)
        for _ in range(30):
            logs.now_ms += STALL_MS - 1
            assert out.read(LINE)
            logs.now_ms += 1
            logs.settle()
        assert is_full(stdout)
        assert logs.logs.dropped() == 0


@pytest.mark.parametrize("first", ["the clock", "the children", "the output"])
def test_an_unscheduled_init_asks_before_it_drops(first: str) -> None:
    """An init that was not scheduled asks the reader before it drops anything.

    The reader may have read all the while, as where a container was paused.
    """
    with bench() as (logs, out, _):
        stdout = logs.open()[0]
        written = stall(logs, stdout)
        logs.now_ms += 60_000
        assert out.read(65_536)
        if first == "the clock":
            logs.logs.tick(logs.now_ms)
        elif first == "the children":
            for source in logs.logs._sources[0]:
                logs.logs._drain(source)
        logs.settle()
        while out.read():
            logs.settle()
        assert logs.logs.dropped() == 0
        assert numbers(out.lines) == list(range(written))


def test_whole_lines_are_dropped_after_a_second() -> None:
    """After a second whole lines are dropped, and the loss is reported where they are missing.

    Lines written = lines delivered + lines reported as dropped, exactly.
    """
    out = Pipe()
    with bench(stdout=out.writer, stderr=out.writer) as (logs, _, _):
        stdout = logs.open()[0]
        written = stall(logs, stdout)
        logs.now_ms += STALL_MS
        logs.settle()
        assert not is_full(stdout)
        write_all(stdout, numbered(written, 50_000), logs.settle)
        written += 50_000
        logs.settle()
        assert logs.logs.deadline_ms() is None  # No child has to wait any more.
        dropped = logs.logs.dropped()
        assert dropped > 0
        for _ in range(3):
            out.read()
            logs.settle()
        write_all(stdout, numbered(written, 10), logs.settle)
        written += 10
        while out.read():
            logs.settle()
        found = numbers(out.lines)
        told = events(out, "lines_dropped")
        assert [(record["child"], record["stream"], record["level"]) for record in told] == [
            ("egress", "stdout", "warning")
        ]
        assert told[0]["count"] == dropped == logs.logs.dropped() == logs.logs.dropped_of(0)
        assert len(found) + dropped == written
        at = next(index for index, line in enumerate(out.lines) if line.startswith(b"{"))
        assert numbers([out.lines[at + 1]])[0] - numbers([out.lines[at - 1]])[0] == dropped + 1
        assert found == [*range(at), *range(at + dropped, written)]
    out.close()


def test_an_unfinished_line_is_finished_before_the_gap() -> None:
    """What was cut off by the stall is the reader's pipe, not the line."""
    with bench() as (logs, out, err):
        stdout = logs.open()[0]
        written = stall(logs, stdout)
        logs.now_ms += STALL_MS
        logs.settle()
        os.write(stdout, b"half a ")
        logs.settle()
        while out.read():
            logs.settle()
        os.write(stdout, b"line\n")
        logs.settle()
        out.read(), err.read()
        assert out.lines[-1] == b"[egress] half a line"
        assert len(out.lines) - 1 + logs.logs.dropped() == written


def test_a_stalled_reader_delays_no_stop() -> None:
    """During a stop a stalled reader makes no child wait."""
    with bench() as (logs, out, _):
        stdout = logs.open()[0]
        written = stall(logs, stdout)
        assert is_full(stdout)
        logs.logs.stop()
        logs.settle()
        assert not is_full(stdout)
        write_all(stdout, numbered(written, 20_000), logs.settle)
        written += 20_000
        logs.logs.drain(0)
        while out.read():
            logs.settle()
        assert len(numbers(out.lines)) + logs.logs.dropped() == written
        assert logs.logs.dropped() >= 20_000 - DRAIN_BYTES // LINE


def test_each_byte_that_a_reader_takes_is_seen() -> None:
    """At the end of the init only this distinguishes a slow reader from one that is gone."""
    with bench() as (logs, out, _):
        stall(logs, logs.open()[0])
        before = logs.logs.pending()
        assert len(out.read(4_096)) == 4_096
        logs.settle()
        assert logs.logs.pending() == before - 4_096


def test_a_waiting_childs_last_lines_are_kept() -> None:
    """A child that waits for a slow reader dies, and its last lines are kept for that reader."""
    with bench() as (logs, out, _):
        stdout = logs.open()[0]
        written = stall(logs, stdout)
        logs.logs.drain(0)
        assert logs.logs.tail(0)[-1].startswith(f"{written - 1:07d} ")
        logs.close(stdout)
        while out.read():
            logs.settle()
        assert numbers(out.lines) == list(range(written))


def test_what_the_dead_leave_is_bounded() -> None:
    """What dead children leave in their pipes is bounded too."""
    names = [f"daemon{number}" for number in range(100)]
    with bench(names=names) as (logs, out, _):
        fill(out.writer)
        for generation in range(3):
            for child in range(100):
                stdout = logs.open(child)[0]
                os.set_blocking(stdout, False)
                os.write(stdout, numbered(0, 40) * 16)
                logs.logs.drain(child)
            assert logs.logs.pending() < LAST_WORDS_BYTES + DRAIN_BYTES, generation
        assert logs.logs.dropped() == 0


def test_the_inits_own_lines_are_queued() -> None:
    """The init's own lines are queued while the children's are dropped."""
    out = Pipe()
    with bench(stdout=out.writer, stderr=out.writer) as (logs, _, _):
        stdout = logs.open()[0]
        stall(logs, stdout)
        logs.logs.stop()
        logs.settle()
        logs.logs.event(b'{"event": "report"}')
        while out.read():
            logs.settle()
        assert len(events(out, "report")) == 1
    out.close()


def test_the_inits_own_lines_are_bounded() -> None:
    """The init's own lines are bounded and counted as well."""
    with bench() as (logs, _, err):
        line = b'{"event": "%s"}' % (b"x" * 1_000)
        for _ in range(3_000):
            logs.logs.event(line)
        dropped = logs.logs.dropped()
        assert 0 < dropped < 3_000
        assert logs.logs.dropped_of(0) == 0
        while err.read():
            logs.settle()
        assert err.lines.count(line) + dropped == 3_000
        assert [record["count"] for record in events(err, "lines_dropped")] == [dropped]


def test_a_stalled_reader_and_a_dead_child_wake_nobody() -> None:
    """An epoll that is level-triggered reports the hang-up of a pipe that has no reader, for ever."""
    with bench() as (logs, _, _):
        stdout = logs.open()[0]
        stall(logs, stdout)
        logs.close(*logs.held)
        assert logs.ready() <= 1  # The end of its stderr, which is still read.
        logs.settle()
        assert logs.ready() == 0


def test_a_stalled_stdout_holds_up_nothing_else() -> None:
    """A stalled stdout holds up neither stderr nor the init's events."""
    with bench(names=["egress", "pipelock"]) as (logs, _, err):
        stall(logs, logs.open(0)[0])
        os.write(logs.open(1)[1], b"still here\n")
        logs.logs.event(b'{"event": "own"}')
        logs.settle()
        err.read()
        assert sorted(err.lines) == [b"[pipelock] still here", b'{"event": "own"}']


def test_a_flood_leaves_others_their_turn() -> None:
    """A flood does not keep another child from its turn. One wake-up takes one chunk of each pipe at most."""
    with bench(names=["flood", "quiet"]) as (logs, out, _):
        logs.start("import os\nwhile True: os.write(1, b'y' * 99 + b'\\n')", 0)
        logs.until(lambda: out.read(1 << 20), "the flood")
        quiet = logs.open(1)[0]
        os.write(quiet, b"here\n")
        for _ in range(5):
            logs.turn()
            out.read_all()
        assert b"[quiet] here\n" in out.got


ENDLESS = """
import os, resource, sys
from bottle_init.linux.logs import Logs
from bottle_init.linux.sys.poller import Poller

poller = Poller()
logs = Logs(sys.argv[1], ["egress"], poller)
out, _ = logs.open(0)
if os.fork() == 0:
    for _ in range(int(sys.argv[2])):
        os.write(out, sys.argv[3].encode().decode("unicode_escape").encode() * 65_536)
    os._exit(0)
logs.opened(0)

def peak_kib():
    with open("/proc/self/status") as status:
        return int(status.read().partition("VmHWM:")[2].split()[0])

before = peak_kib()
while any(logs._sources.values()):
    poller.wait(None)
while not logs.flush(0):
    poller.wait(None)
os.write(2, b"%d %d\\n" % (peak_kib() - before, logs.dropped()))
os._exit(0)
"""


@pytest.mark.parametrize(
    ("mode", "unit", "most_mib"),
    [("tag", "x", 4), ("json", "x", 8), ("tag", "\\n", 8), ("json", "\\n", 16)],
    ids=["one line, tagged", "one line, json", "empty lines, tagged", "empty lines, json"],
)
def test_64_mib_in_constant_memory(mode: str, unit: str, most_mib: int, tmp_path: Path) -> None:
    """64 MiB of one line, or of empty lines, pass in constant memory."""
    count = 1_024 if unit == "x" else 32
    command = [sys.executable, "-S", "-c", ENDLESS, mode, str(count), unit]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        (tmp_path / "err").open("w+b") as err,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, env=environment) as init,
    ):
        assert init.stdout is not None
        lines = content = 0
        while piece := init.stdout.read(1 << 20):
            lines += piece.count(b"\n")
            content += piece.count(b"x")
        assert init.wait() == 0
        err.seek(0)
        grown_kib, dropped = map(int, err.read().split())
    assert dropped == 0
    assert lines == (count if unit == "x" else count * 65_536)
    assert content == (count * 65_536 if unit == "x" else 0)
    assert grown_kib < most_mib * 1_024
