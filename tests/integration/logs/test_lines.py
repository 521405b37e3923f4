"""The children's lines, from their pipes to the init's stdout and stderr (contract 8 and 9, `logs`)."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import resource
import socket
import subprocess
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from bottle_init.core import flow
from bottle_init.core.flow import LINE_BYTES
from bottle_init.linux.logs import TAIL_LINE_BYTES, TAIL_LINES
from tests.integration.support.logs_bench import Pipe, bench, events, write_all
from tests.integration.support.turning import open_descriptors

# A write that blocks would block the test for ever: this is what ends it then.
pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tags have no colour, on a terminal neither: these tests compare bytes."""
    monkeypatch.setenv("NO_COLOR", "1")


def test_each_line_has_its_tag_and_its_stream() -> None:
    with bench(names=["egress", "git-gate"]) as (logs, out, err):
        first, second = logs.open(0), logs.open(1)
        os.write(first[0], b"one\n\nthree\n")
        os.write(second[1], b"four\nfi")
        logs.settle()
        os.write(second[1], b"ve\n")
        logs.settle()
        out.read(), err.read()
        assert out.lines == [b"[egress] one", b"[egress] ", b"[egress] three"]
        assert err.lines == [b"[git-gate] four", b"[git-gate] five"]


def test_bytes_that_are_no_text_pass_as_they_are() -> None:
    with bench() as (logs, out, _):
        os.write(logs.open()[0], b"\xff\x00\r\x1b[31m\n")
        logs.settle()
        out.read()
        assert out.lines == [b"[egress] \xff\x00\r\x1b[31m"]


OBJECTS = {
    '{"a": 1}': '{"a": 1, "logger": "egress", "stream": "stdout"}',
    "{}": '{"logger": "egress", "stream": "stdout"}',
    ' {"logger": "own", "n": 1.50e3, "n": 2}\r': '{"logger": "own", "n": 1.50e3, "n": 2, "stream": "stdout"}',
    '{"stream": null, "logger": "x"}': '{"stream": null, "logger": "x"}',
    '{"text": "é😀", "big": 123456789012345678901234567890}': (
        '{"text": "\\u00e9\\ud83d\\ude00", "big": 123456789012345678901234567890,'
        ' "logger": "egress", "stream": "stdout"}'
    ),
}
"""Lines that are JSON objects, and what becomes of them."""

STRINGS = (
    '{"a": 1} x',
    "{a}",
    "{",
    "[1]",
    '"x"',
    '{"a": NaN}',
    '{"a": "\t"}',
    '{"a": ' + "[" * 60_000,
    "{'a': 1}",
    "",
)


def test_a_line_that_is_an_object_stays_that_object() -> None:
    """With `json` an object is passed on with `logger` and `stream` where it has no such keys; all else is a string."""
    with bench("json", ["egress"]) as (logs, out, _):
        one, _ = logs.open()

        def turn() -> None:
            logs.settle()
            out.read()

        for line in (*OBJECTS, *STRINGS):
            write_all(one, line.encode() + b"\n", turn)
            logs.settle()
            out.read()
        told = [line.decode() for line in out.lines]
        assert told[: len(OBJECTS)] == list(OBJECTS.values())
        events = [json.loads(line)["event"] for line in told[len(OBJECTS) :]]
        assert events == list(STRINGS)


def test_no_piece_of_a_long_line_is_an_object() -> None:
    """A line over 64 KiB is cut, and none of its pieces is an object, not even one that looks like it."""
    with bench("json", ["egress"]) as (logs, out, _):
        one, _ = logs.open()

        def turn() -> None:
            logs.settle()
            out.read()

        for text in (b"x" * 65_536 + b'{"a": 1}\n', b'{"a": "' + b"x" * 65_536 + b'"}\n', b'{"a": 1}\n'):
            write_all(one, text, turn)
            logs.settle()
            out.read()
        records = [json.loads(line) for line in out.lines]
        assert ["event" in record for record in records] == [True, True, True, True, False]
        assert records[1]["event"] == '{"a": 1}'


def test_json_lines_have_structlogs_keys() -> None:
    with bench("json", ["egress"]) as (logs, out, err):
        ends = logs.open()
        os.write(ends[0], 'said "so"\\\t\x1b[31m \u00e9\n\n'.encode() + b"\xff\n")
        os.write(ends[1], b"oops\n")
        logs.settle()
        out.read(), err.read()
        records = [json.loads(line) for line in (*out.lines, *err.lines)]
        assert [record["event"] for record in records] == ['said "so"\\\t\x1b[31m \u00e9', "", "\ufffd", "oops"]
        assert [record["stream"] for record in records] == ["stdout"] * 3 + ["stderr"]
        for record in records:
            assert list(record) == ["event", "level", "logger", "stream", "timestamp"]
            assert record["logger"] == "egress"
            assert record["level"] == "info"


def test_inherit_hands_out_the_inits_own_descriptors() -> None:
    with bench("inherit") as (logs, out, err):
        assert logs.logs.open(0) == (out.writer, err.writer)
        logs.logs.opened(0)
        logs.logs.drain(0)
        assert logs.logs.tail(0) == ()
        logs.logs.event(b'{"event": "started"}')
        assert err.read() == b'{"event": "started"}\n'


def test_only_the_child_holds_its_pipe() -> None:
    """A child writes to its own pipe, and no other process holds it."""
    with bench() as (logs, out, err):
        logs.start("import sys; print('out'); print('err', file=sys.stderr)")
        logs.until(logs.ended, "the end of both pipes")
        out.read(), err.read()
        assert out.lines == [b"[egress] out"]
        assert err.lines == [b"[egress] err"]


@pytest.mark.parametrize(
    ("length", "pieces"),
    [(LINE_BYTES - 1, 1), (LINE_BYTES, 1), (LINE_BYTES + 1, 2), (2 * LINE_BYTES, 2), (5 * LINE_BYTES + 7, 6)],
)
def test_a_long_line_goes_out_in_pieces_that_are_lines(length: int, pieces: int) -> None:
    with bench() as (logs, out, _):
        fd = logs.open()[0]
        content = (b"0123456789abcdef" * (length // 16 + 1))[:length]

        def turn() -> None:
            logs.turn()
            out.read()

        write_all(fd, b"before\n" + content + b"\nafter\n", turn)
        logs.until(lambda: out.read_all().endswith(b"after\n"), "the last line")
        assert out.lines[0] == b"[egress] before"
        assert len(out.lines) == pieces + 2
        assert all(line.startswith(b"[egress] ") for line in out.lines)
        assert all(len(line) <= len(b"[egress] ") + LINE_BYTES for line in out.lines)
        assert b"".join(line.removeprefix(b"[egress] ") for line in out.lines[1:-1]) == content


def test_an_unfinished_line_gets_its_end() -> None:
    """An unfinished line gets its end when the pipe ends."""
    with bench() as (logs, out, _):
        ends = logs.open()
        os.write(ends[0], b"no newline")
        logs.settle()
        assert out.read() == b""
        logs.close(ends[0])
        logs.settle()
        assert out.read() == b"[egress] no newline\n"


def test_the_last_lines_of_a_dead_leader() -> None:
    """The last lines of a dead child are taken, and its descendant is read on."""
    with bench() as (logs, out, err):
        ends = logs.open()
        os.write(ends[0], b"working\npanic: ")
        os.write(ends[1], b"traceback")
        logs.logs.drain(0)
        out.read(), err.read()
        assert out.lines == [b"[egress] working", b"[egress] panic: "]
        assert err.lines == [b"[egress] traceback"]
        assert logs.logs.tail(0) == ("working", "panic: ", "traceback")
        os.write(ends[0], b"a descendant\n")
        logs.settle()
        out.read()
        assert out.lines[-1] == b"[egress] a descendant"


def test_drain_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draining takes a bounded amount, and the rest comes afterwards.

    A descendant that goes on writing must not hold up the judgement of its leader's death.
    """
    monkeypatch.setattr(flow, "DRAIN_BYTES", 128 * 1024)
    with bench() as (logs, out, _):
        stdout = logs.open()[0]
        fcntl.fcntl(stdout, fcntl.F_SETPIPE_SZ, 1024 * 1024)
        lines = (b"y" * 63 + b"\n") * 8_192
        write_all(stdout, lines, lambda: pytest.fail("the pipe is too small for this test"))
        logs.logs.drain(0)
        left = int.from_bytes(fcntl.ioctl(stdout, termios.FIONREAD, bytes(4)), sys.byteorder)
        assert left == len(lines) - 128 * 1024
        while out.read() or logs.ready():
            logs.turn()
        assert len(out.lines) == 8_192


def test_a_restarted_child_has_new_pipes() -> None:
    """A restarted child has new pipes, and the old ones are read to their end."""
    with bench() as (logs, out, _):
        old = logs.open()
        logs.logs.drain(0)
        new = logs.open()
        os.write(new[0], b"new\n")
        os.write(old[0], b"old\n")
        logs.settle()
        out.read()
        assert sorted(out.lines) == [b"[egress] new", b"[egress] old"]
        logs.close(*old)
        logs.settle()
        os.write(new[0], b"still here\n")
        logs.settle()
        out.read()
        assert out.lines[-1] == b"[egress] still here"


def test_finish_takes_everything_and_closes_everything() -> None:
    before = open_descriptors()
    with bench(names=["a", "b"]) as (logs, out, _):
        held = logs.open(0), logs.open(1)
        os.write(held[0][0], b"one\ntwo")
        os.write(held[1][0], b"three")
        logs.logs.finish()
        out.read()
        assert out.lines == [b"[a] one", b"[a] two", b"[b] three"]
        for fd in (*held[0], *held[1]):
            with pytest.raises(BrokenPipeError):
                os.write(fd, b"nobody")
    assert open_descriptors() == before


def test_each_child_costs_two_descriptors() -> None:
    """A hundred children cost two descriptors each, and give them back."""
    names = [f"daemon{number}" for number in range(100)]
    with bench(names=names) as (logs, out, _):
        before = open_descriptors()
        ends = [logs.open(child) for child in range(100)]
        assert open_descriptors() == before + 4 * 100  # Two of ours, two of the test's.
        for child, (stdout, _) in enumerate(ends):
            os.write(stdout, b"here: %d\n" % child)
        logs.settle()
        out.read()
        assert sorted(out.lines) == sorted(b"[daemon%d] here: %d" % (child, child) for child in range(100))
        for pair in ends:
            logs.close(*pair)
        logs.settle()
        assert open_descriptors() == before


@pytest.mark.parametrize("room", range(5))
def test_without_descriptors_nothing_is_left(room: int) -> None:
    """Without free descriptors, opening a child's pipes is an error that leaves nothing behind."""
    with bench() as (logs, _, _):
        before = open_descriptors()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        gaps = [os.dup(0) for _ in range(64)]  # So that every number below the limit is taken, but for `room` of them.
        for fd in gaps[:room]:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(gaps) + 1, hard))
        try:
            if room < 4:
                with pytest.raises(OSError, match="Too many open files"):
                    logs.logs.open(0)
            else:
                logs.logs.open(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        logs.logs.opened(0)
        for fd in gaps[room:]:
            os.close(fd)
        logs.settle()
        assert open_descriptors() == before


def test_a_failed_start_closes_its_pipes() -> None:
    with bench() as (logs, _, _):
        before = open_descriptors()
        logs.logs.open(0)
        logs.logs.opened(0)
        logs.settle()
        assert open_descriptors() == before


# What it wrote last.


def test_the_tail_is_the_last_twenty_lines() -> None:
    """The tail is the last twenty lines of both streams."""
    with bench() as (logs, out, err):
        ends = logs.open()
        for number in range(30):
            os.write(ends[number % 2], b"line %d\n" % number)
            logs.settle()
        out.read(), err.read()
        assert logs.logs.tail(0) == tuple(f"line {number}" for number in range(10, 30))


def test_the_tail_is_printable() -> None:
    with bench() as (logs, _, _):
        os.write(logs.open()[0], "\x1b[31mred\x07\r\n\ta\u00e9\u2028b\x9b\n".encode() + b"\xff\xfe\n")
        logs.settle()
        assert logs.logs.tail(0) == ("\\x1b[31mred\\x07", "\ta\u00e9\\u2028b\\x9b", "\ufffd\ufffd")


def test_the_tail_of_long_lines_is_bounded() -> None:
    """The tail of long lines has as many lines, and is bounded in bytes."""
    with bench() as (logs, out, _):
        fd = logs.open()[0]

        def turn() -> None:
            logs.turn()
            out.read()

        letters = b"abcdefghijklmnopqrstuvwxyz"
        for letter in letters:
            write_all(fd, bytes([letter]) * 9_000 + b"\n", turn)
            turn()
        logs.settle()
        assert logs.logs.tail(0) == tuple(chr(letter) * TAIL_LINE_BYTES for letter in letters[-TAIL_LINES:])


# Where it goes to.

Output = tuple[int, Callable[[], bytes]]
"""A descriptor to write to, and what reads from its other end."""


def read_nonblocking(fd: int) -> bytes:
    os.set_blocking(fd, False)
    got = b""
    try:
        while piece := os.read(fd, 1 << 20):
            got += piece
    except BlockingIOError:
        pass
    return got


@contextmanager
def a_file(directory: Path) -> Iterator[Output]:
    path = directory / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    yield fd, path.read_bytes
    os.close(fd)


@contextmanager
def a_pipe(_: Path) -> Iterator[Output]:
    pipe = Pipe()
    yield pipe.writer, lambda: read_nonblocking(pipe.reader)
    pipe.close()


@contextmanager
def a_fifo(directory: Path) -> Iterator[Output]:
    os.mkfifo(directory / "fifo")
    reader = os.open(directory / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(directory / "fifo", os.O_WRONLY)
    yield writer, lambda: read_nonblocking(reader)
    os.close(reader)
    os.close(writer)


@contextmanager
def a_terminal(_: Path) -> Iterator[Output]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield slave, lambda: read_nonblocking(master)
    os.close(master)
    os.close(slave)


def a_socket_of(kind: socket.SocketKind) -> Callable[[Path], AbstractContextManager[Output]]:
    @contextmanager
    def a_socket(_: Path) -> Iterator[Output]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with ours, theirs:
            yield theirs.fileno(), lambda: read_nonblocking(ours.fileno())

    return a_socket


OUTPUTS: dict[str, Callable[[Path], AbstractContextManager[Output]]] = {
    "file": a_file,
    "pipe": a_pipe,
    "fifo": a_fifo,
    "terminal": a_terminal,
    "stream socket": a_socket_of(socket.SOCK_STREAM),
    "datagram socket": a_socket_of(socket.SOCK_DGRAM),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_kind_of_output_keeps_its_flags(kind: str, tmp_path: Path) -> None:
    """Every kind of output gets the lines and keeps its file status flags."""
    with OUTPUTS[kind](tmp_path) as (fd, read):
        flags, descriptor_flags = fcntl.fcntl(fd, fcntl.F_GETFL), fcntl.fcntl(fd, fcntl.F_GETFD)
        with bench(stdout=fd) as (logs, _, _):
            ends = logs.open()
            os.write(ends[0], b"".join(b"line %d\n" % number for number in range(100)))
            logs.settle()
            assert fcntl.fcntl(fd, fcntl.F_GETFL) == flags
            assert fcntl.fcntl(fd, fcntl.F_GETFD) == descriptor_flags
            assert read() == b"".join(b"[egress] line %d\n" % number for number in range(100))
            assert logs.logs.dropped() == 0


@pytest.mark.parametrize("kind", ["pipe", "fifo", "terminal", "stream socket"])
def test_no_full_output_ever_blocks(kind: str, tmp_path: Path) -> None:
    """No full output ever blocks the init, and none gets other file status flags.

    If a write blocked, this test would end by its timeout.
    """
    with OUTPUTS[kind](tmp_path) as (fd, read):
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        with bench(stdout=fd) as (logs, _, _):
            stdout = logs.open()[0]
            lines = [b"%06d " % number + b"x" * 92 + b"\n" for number in range(8_000)]
            write_all(stdout, b"".join(lines), logs.turn)
            logs.settle()
            assert logs.logs.pending() > 0
            assert logs.logs.deadline_ms() is None  # Everything is in the queue; no child has to wait.
            assert fcntl.fcntl(fd, fcntl.F_GETFL) == flags
            got = b""
            while logs.logs.pending():
                piece = read()
                got += piece
                logs.turn()
                assert piece or logs.ready() or not logs.logs.pending()
            got += read()
            assert got.splitlines(keepends=True) == [b"[egress] " + line for line in lines]


@pytest.mark.parametrize("nowait", [True, False], ids=["RWF_NOWAIT", "poll"])
@pytest.mark.parametrize("kind", ["pipe", "fifo", "terminal"])
def test_an_output_that_cannot_be_reopened(
    kind: str, nowait: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An output that cannot be opened again never blocks the init either.

    So it is where the output is another user's, or there is no /proc.
    """
    opened = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if path.startswith("/proc/self/fd/"):
            raise PermissionError(errno.EACCES, "refused")
        return opened(path, flags, mode)

    def unsupported(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    with OUTPUTS[kind](tmp_path) as (fd, read):
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        monkeypatch.setattr(os, "open", refuse)
        if not nowait:
            monkeypatch.setattr(os, "pwritev", unsupported)
        with bench(stdout=fd) as (logs, _, _):
            stdout = logs.open()[0]
            lines = [b"%06d " % number + b"x" * 92 + b"\n" for number in range(5_000)]
            write_all(stdout, b"".join(lines), logs.turn)
            logs.settle()
            assert logs.logs.pending() > 0
            got = b""
            while logs.logs.pending():
                got += read()
                logs.turn()
            got += read()
            assert got.splitlines(keepends=True) == [b"[egress] " + line for line in lines]
            assert fcntl.fcntl(fd, fcntl.F_GETFL) == flags


@pytest.mark.skipif(os.geteuid() != 0, reason="gives its privileges up, so has to have some")
def test_the_pipe_of_another_user_gets_the_lines() -> None:
    pipe = Pipe()
    code = (
        "import os\n"
        "from bottle_init.linux.logs import Logs\n"
        "from bottle_init.linux.sys.poller import Poller\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "poller = Poller(); logs = Logs('tag', ['egress'], poller)\n"
        "fd = logs.open(0)[0]; os.write(fd, b'mine\\n'); logs.drain(0)\n"
    )
    subprocess.run([sys.executable, "-c", code], stdout=pipe.writer, check=True)
    assert pipe.read() == b"[egress] mine\n"
    pipe.close()


def test_a_closed_outputs_lines_are_counted() -> None:
    """A closed output loses its lines, and they are counted."""
    with bench(stdout=resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1) as (logs, _, _):
        os.write(logs.open()[0], b"one\ntwo\n")
        logs.settle()
        assert logs.logs.dropped() == 2
        assert logs.logs.flush(0)


def test_a_reader_that_is_gone_costs_only_lines() -> None:
    """A reader that is gone costs lines and nothing else."""
    with bench() as (logs, out, err):
        stdout = logs.open()[0]
        os.write(stdout, b"read\n")
        logs.settle()
        out.read()
        out.close_reader()
        write_all(stdout, b"never read\n" * 1_000, logs.turn)
        logs.settle()
        assert logs.ready() == 0  # EPOLLERR of a pipe without readers would wake the loop for ever.
        assert logs.logs.dropped() == logs.logs.dropped_of(0) == 1_000
        assert logs.logs.flush(0)
        err.read()
        assert err.lines == []


def test_a_reader_that_goes_away_frees_its_writers() -> None:
    """A reader that goes away while children wait for it leaves none of them waiting."""
    with bench() as (logs, out, _):
        logs.start("import os\nfor _ in range(40_000): os.write(1, b'x' * 99 + b'\\n')")
        logs.until(lambda: logs.logs._flow._waiting[logs.logs._sinks[0]], "a child that is made to wait")
        before = len(out.read_all().split(b"\n"))
        out.close_reader()
        logs.until(logs.ended, "the child's end")
        assert before + logs.logs.dropped() >= 40_000 - 1_311  # At most a pipe full was with the reader still.


def test_a_fifos_reader_comes_back_to_whole_lines(tmp_path: Path) -> None:
    """A FIFO whose reader comes back gets whole lines again."""
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(tmp_path / "fifo", os.O_WRONLY)
    with bench(stdout=writer) as (logs, _, err):
        stdout = logs.open()[0]
        lines = [b"%06d " % number + b"x" * 92 + b"\n" for number in range(2_000)]
        write_all(stdout, b"".join(lines), logs.turn)
        logs.settle()
        got = os.read(reader, 50)
        os.close(reader)
        logs.settle()
        assert logs.logs.dropped() > 0
        reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        got += read_nonblocking(reader)
        os.write(stdout, b"again\n")
        logs.settle()
        got += read_nonblocking(reader)
        received = got.split(b"\n")
        assert received[-2:] == [b"[egress] again", b""]
        assert received[:-2] == [b"[egress] " + line[:-1] for line in lines[: len(received) - 2]]
        assert len(received) - 1 + logs.logs.dropped() == 2_001
        err.read()
        assert [record["count"] for record in events(err, "lines_dropped")] == [logs.logs.dropped()]
        os.close(reader)
    os.close(writer)


def test_losses_are_told_once_per_child(tmp_path: Path) -> None:
    """The losses of several children are reported once each when the reader comes back."""
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(tmp_path / "fifo", os.O_WRONLY)
    with bench(names=["a", "b", "c"], stdout=writer, stderr=writer) as (logs, _, _):
        ends = [logs.open(child)[0] for child in range(3)]
        os.close(reader)
        for fd in ends:
            os.write(fd, b"lost\n")
        logs.settle()
        reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        os.write(ends[0], b"again\n")
        logs.settle()
        lines = read_nonblocking(reader).splitlines()
        told = sorted(json.loads(line)["child"] for line in lines if b"lines_dropped" in line)
        assert told == ["a", "b", "c"]
        assert b"[a] again" in lines
        os.close(reader)
    os.close(writer)


def test_a_full_device_costs_lines_and_nothing_else() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with bench(stdout=fd) as (logs, _, _):
        os.write(logs.open()[0], b"one\ntwo\n")
        logs.settle()
        assert logs.logs.dropped() == 2
        assert logs.logs.flush(0)
    os.close(fd)


def test_a_full_disk_tears_no_line_that_has_room_again(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for the disk: the kernel writes a part, then refuses (setrlimit(2), EFBIG)."""
    fd = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with bench(stdout=fd) as (logs, _, err):
        stdout = logs.open()[0]
        os.ftruncate(fd, 1 << 30)
        os.lseek(fd, (1 << 30) - 25, os.SEEK_SET)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, limits[1]))
        try:
            os.write(stdout, b"first\nsecond\nthird\n")
            logs.settle()
            os.write(stdout, b"fourth\n")
            logs.settle()
            assert logs.logs.dropped() == 3
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        os.write(stdout, b"fifth\n")
        logs.settle()
        assert os.pread(fd, 100, (1 << 30) - 25) == b"[egress] first\n[egress] second\n[egress] fifth\n"
        assert logs.logs.dropped() == 2
        err.read()
        assert sum(record["count"] for record in events(err, "lines_dropped")) == 2
    os.close(fd)


def test_stdout_and_stderr_in_one_pipe_share_one_queue() -> None:
    """Else a line of one would go out in the middle of a line of the other."""
    out = Pipe()
    second = os.dup(out.writer)
    with bench(stdout=out.writer, stderr=second) as (logs, _, _):
        ends = logs.open()
        lines = 4_000
        for number in range(lines):
            write_all(ends[0], b"o%05d" % number + b"o" * 90 + b"\n", logs.turn)
            write_all(ends[1], b"e%05d" % number + b"e" * 90 + b"\n", logs.turn)
            logs.logs.event(b'{"event": "own"}')
            logs.turn()
            if number % 7 == 0:
                out.read(1_000)
        while logs.logs.pending() or logs.ready():
            out.read()
            logs.turn()
        out.read_all()
        assert len(out.lines) == 3 * lines
        kinds = {b"[egress] o": 0, b"[egress] e": 0, b'{"event": ': 0}
        for line in out.lines:
            kinds[line[:10]] += 1
            assert line == b'{"event": "own"}' or line[9:10] * 90 == line[15:]
        assert set(kinds.values()) == {lines}
    os.close(second)
    out.close()


def test_nothing_is_woken_while_nothing_happens() -> None:
    with bench(names=["a", "b"]) as (logs, _, _):
        logs.open(0), logs.open(1)
        logs.logs.event(b"{}")
        logs.settle()
        assert logs.ready() == 0
        assert logs.logs.deadline_ms() is None
