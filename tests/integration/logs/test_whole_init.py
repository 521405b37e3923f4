"""The logs of a whole init: readers that stall hold up no stop, and the report has the last words (contract 7, 8)."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
from pathlib import Path

import pytest

from bottle_init.core.flow import QUEUE_BYTES
from tests.integration.support.init import eventually, running
from tests.integration.support.logs_bench import Pipe, is_full

pytestmark = pytest.mark.real

FLOOD = "[daemons.flood]\ncommand = ['yes', 'a line of a daemon that never stops']\n"


@pytest.mark.parametrize("mode", ["tag", "json"])
def test_a_stop_without_any_reader_is_clean(tmp_path: Path, mode: str) -> None:
    """A stop is clean even if no one reads any output."""
    out = Pipe()
    flags = fcntl.fcntl(out.writer, fcntl.F_GETFL)
    bundle = f"[bundle]\nlogs = '{mode}'\nstop_timeout = '100s'\n{FLOOD}"
    with running(tmp_path, bundle, stdout=out.writer, stderr=out.writer) as init:
        eventually(lambda: is_full(out.writer))
        assert init.stop(signal.SIGTERM) == 0
    assert fcntl.fcntl(out.writer, fcntl.F_GETFL) == flags
    out.close()


def test_a_slow_reader_does_not_move_the_deadline(tmp_path: Path) -> None:
    """A reader that is too slow for the deadline does not move it.

    What is written fits into the queue, so nothing is lost but what the deadline leaves there.
    """
    out = Pipe()
    script = "seq -f 'line %090.0f' 9000; echo up >&2; exec sleep 1000"
    bundle = f"[bundle]\nstop_timeout = '1h'\n[daemons.d]\ncommand = ['/bin/sh', '-c', {json.dumps(script)}]\n"
    with running(tmp_path, bundle, stdout=out.writer, leaps=True) as init:
        eventually(lambda: "[d] up" in init.err)
        init.hold()
        init.send(signal.SIGTERM)
        init.event("child_exited", "d")
        for _ in range(20):
            eventually(lambda: out.read(4_096), "more lines")
        init.leap(3_600)
        assert init.wait() == 0
        assert init.report()["lines_dropped"] > 0
    out.close()


def written_by(pid: int) -> int:
    """How many bytes a process has written so far (proc_pid_io(5))."""
    return int(Path(f"/proc/{pid}/io").read_text().partition("wchar: ")[2].split()[0])


def test_a_slow_reader_gets_lines_until_the_deadline(tmp_path: Path) -> None:
    out = Pipe()
    bundle = f"[bundle]\nstop_timeout = '1h'\n{FLOOD}"
    with running(tmp_path, bundle, stdout=out.writer, leaps=True) as init:
        flood = init.event("child_started", "flood")["pid"]
        init.hold()
        eventually(lambda: is_full(out.writer) and written_by(flood) > QUEUE_BYTES / 2, "lines that wait")
        init.send(signal.SIGTERM)
        init.event("child_exited", "flood")
        eventually(lambda: out.read(4_096) and len(out.got) > 64 * 4_096, "more than was in the pipe")
        init.leap(3_600)
        assert init.wait() == 0
        assert init.report()["lines_dropped"] > 0
    out.close()


def test_a_reader_that_went_away_ends_nothing(tmp_path: Path) -> None:
    """A reader that went away does not end the bundle."""
    out = Pipe()
    with running(tmp_path, FLOOD, stdout=out.writer) as init:
        eventually(lambda: out.read(100_000))
        out.close_reader()
        os.close(out.writer)
        out.writer = -1
        init.event("child_ready", "flood")
        assert init.stop() == 0
        assert init.report()["lines_dropped"] > 0


def test_the_report_is_the_last_line(tmp_path: Path) -> None:
    """The report is the last line and has the culprit's last lines."""
    script = "echo starting; printf 'first line\\nfatal: no newline' >&2; exit 3"
    bundle = f"[daemons.egress]\ncommand = ['/bin/sh', '-c', {json.dumps(script)}]\n"
    with running(tmp_path, bundle) as init:
        assert init.wait() == 3
        assert init.out == ["[egress] starting"]
        assert [line for line in init.err if not line.startswith("{")] == [
            "[egress] first line",
            "[egress] fatal: no newline",
        ]
        report = json.loads(init.err[-1])
        assert report["event"] == "exit_report"
        (death,) = report["deaths"]
        assert sorted(death["last_lines"]) == ["fatal: no newline", "first line", "starting"]
        assert report["lines_dropped"] == 0


def test_each_child_may_have_logs_of_its_own(tmp_path: Path) -> None:
    """`logs` of a child overrides the bundle's, and "none" drops what it writes, the report's last lines included."""
    jobs = "".join(
        f"[oneshots.{mode}]\ncommand = ['/bin/sh', '-c', 'echo of {mode}; echo err >&2']\nlogs = '{mode}'\n"
        for mode in ("inherit", "tag", "json", "none")
    )
    bundle = f"[bundle]\nlogs = 'json'\n{jobs}[jobs.j]\ncommand = ['echo', 'of the bundle']\n"
    with running(tmp_path, bundle + "after = ['inherit', 'tag', 'json', 'none']\n") as init:
        assert init.wait() == 0
        objects = [json.loads(line) for line in init.out if line.startswith("{")]
        assert sorted((each["logger"], each["event"]) for each in objects) == [
            ("j", "of the bundle"),
            ("json", "of json"),
        ]
        assert sorted(line for line in init.out if not line.startswith("{")) == ["[tag] of tag", "of inherit"]
        assert sorted(line for line in init.err if not line.startswith("{")) == ["[tag] err", "err"]
        assert not any("none" in line for line in init.out)
        lines = {death["name"]: death.get("last_lines", []) for death in init.report()["deaths"]}
        assert not lines.get("none")
        assert init.report()["lines_dropped"] == 0


def test_a_descendant_outlives_its_leader_and_is_read(tmp_path: Path) -> None:
    """What a descendant writes after its leader has died is read."""
    script = "(trap 'echo from below; exit 0' TERM; echo up; while :; do sleep 0.05; done) & sleep 0.3; printf gone"
    bundle = f"[daemons.egress]\ncommand = ['/bin/sh', '-c', {json.dumps(script)}]\n"
    with running(tmp_path, bundle) as init:
        init.wait()
        assert init.out == ["[egress] up", "[egress] gone", "[egress] from below"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a daemon as another user")
def test_another_users_daemon_opens_dev_stdout(tmp_path: Path) -> None:
    """A daemon of another user can open its /dev/stdout."""
    script = "echo out > /dev/stdout; echo err > /dev/stderr; cat < /dev/stdout"
    bundle = f"[jobs.a]\ncommand = ['/bin/sh', '-c', {json.dumps(script)}]\nuser = 65534\n"
    with running(tmp_path, bundle) as init:
        assert init.wait() == 2  # Writing is for it; reading what was written is not.
        assert init.out == ["[a] out"]
        assert "[a] err" in init.err
        assert any("Permission denied" in line for line in init.err)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a daemon as another user")
@pytest.mark.parametrize(("user", "code"), [("user = 65534", 0), ("", 0)], ids=["another", "own"])
def test_another_user_opens_an_inherited_terminal(tmp_path: Path, user: str, code: int) -> None:
    """With `inherit` a child of another user can open a terminal; without such a child the terminal stays closed."""
    master, slave = pty.openpty()
    os.fchmod(slave, 0o600)
    try:
        script = "echo x > /dev/stdout && echo y > /dev/stderr"
        bundle = f"[bundle]\nlogs = 'inherit'\n[jobs.a]\ncommand = ['/bin/sh', '-c', '{script}']\n{user}\n"
        with running(tmp_path, bundle, stdout=slave, stderr=slave) as init:
            assert init.wait() == code
        assert os.fstat(slave).st_mode & 0o777 == (0o622 if user else 0o600)
    finally:
        os.close(master)
        os.close(slave)


def test_an_inherited_file_keeps_its_mode(tmp_path: Path) -> None:
    """A file, or a FIFO that has a path, is opened to no other user: whoever knows the path could write to it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for path in (fifo, tmp_path / "file"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        bundle = "[bundle]\nlogs = 'inherit'\n[jobs.a]\ncommand = ['true']\nuser = 65534\n"
        with running(tmp_path, bundle, stdout=fd, stderr=fd) as init:
            assert init.wait() == 0
        assert os.fstat(fd).st_mode & 0o777 == 0o600
        os.close(fd)


def test_a_hundred_daemons_lose_and_tear_nothing(tmp_path: Path) -> None:
    script = "n=0; while [ $n -lt 20 ]; do echo line $n of this daemon; n=$((n+1)); done"
    children = "".join(
        f"[daemons.d{number}]\ncommand = ['/bin/sh', '-c', '{script}']\npolicy = 'wait-for-all'\n"
        for number in range(100)
    )
    with running(tmp_path, children) as init:
        assert init.wait() == 0
        assert sorted(init.out) == sorted(
            f"[d{child}] line {line} of this daemon" for child in range(100) for line in range(20)
        )
