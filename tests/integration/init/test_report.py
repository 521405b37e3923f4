"""Why it ended (contract 7): what the report says, and that nothing it is written to can do any harm."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.cli import explain
from bottle_init.core import verdict
from bottle_init.core.actions import Exit
from bottle_init.core.spec import Bundle, Spec
from bottle_init.core.state import Death, Stop, Survivor
from bottle_init.core.words import DAEMON, POLICY, REQUESTED
from bottle_init.linux import oom, report
from bottle_init.linux.sys import environ
from tests.integration.support.init import NAMESPACE, PATIENCE_S, eventually, sh
from tests.integration.support.init import running as running_bundle
from tests.integration.support.one_command import ENVIRON, one, python, run, running

NAMES = ("egress", "pipelock", "git-gate")
BUNDLE = Bundle(tuple(Spec(name, DAEMON, (name,)) for name in NAMES))


def death(child: int, **facts: Any) -> Death:
    """A clean death of a child."""
    given_facts = {"code": 143, "signal": 15, "severity": verdict.CLEAN, "sent": True, "stopping": True, **facts}
    return Death(child, NAMES[child], 100 + child, at_ms=1_000, ran_ms=900, **given_facts)


def crash() -> Exit:
    """One daemon was killed for lack of memory, another had to be, a third stopped cleanly."""
    culprit = death(0, code=137, signal=9, severity=verdict.CRASH, sent=False, stopping=False, oom=True)
    forced = death(1, code=137, signal=9, severity=verdict.FORCED, forced=True, stop_ms=5_000)
    stop = Stop(POLICY, "egress was killed by signal 9 (out of memory)", 1_000, 9_000, 137, "egress")
    left = (Survivor(77, "sleep", "sleep " + "9" * 1_000),)
    return Exit(137, stop, (culprit, forced, death(2, stop_ms=3)), left, 6_000)


def lines_of(child: int) -> tuple[str, ...]:
    """The last lines of a child."""
    return (f"last of {NAMES[child]}", "x" * 5_000)


def test_it_says_everything_that_the_contract_lists() -> None:
    record = report.build(crash(), BUNDLE, lines_of, 42)
    facts = json.loads(report.encode(record, "2026-01-01T00:00:00Z"))
    assert facts["event"] == "exit_report"
    assert facts["level"] == "error"
    assert (facts["code"], facts["kind"], facts["culprit"]) == (137, "policy", "egress")
    assert facts["cause"] == "egress was killed by signal 9 (out of memory)"
    assert facts["sender"] is None
    assert facts["stop_ms"] == 5_000
    assert facts["lines_dropped"] == 42
    first, second, third = facts["deaths"]
    assert (first["name"], first["signal"], first["severity"], first["oom"]) == ("egress", "KILL", "crash", True)
    assert (second["forced"], second["sent_by_init"], second["stop_ms"]) == (True, True, 5_000)
    assert (third["code"], third["severity"], third["forced"], third["oom"]) == (143, "clean", False, False)
    assert first["last_lines"][0] == "last of egress"
    assert len(first["last_lines"][1]) <= 1_000
    (left,) = facts["survivors"]
    assert (left["pid"], left["name"]) == (77, "sleep")
    assert left["command"].startswith("sleep 999")
    assert len(left["command"]) <= 200


def test_it_says_who_asked() -> None:
    stop = Stop(REQUESTED, "signal 15", 0, 9_000, None, "", os.getpid(), os.getuid())
    asked = Exit(0, stop, (), (), 1)
    assert report.build(asked, BUNDLE, lines_of, 0, "docker-init")["sender"] == {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "name": "docker-init",
    }
    outside = Exit(0, Stop(REQUESTED, "signal 15", 0, 9_000, None, "", 0, 0), (), (), 1)
    assert report.build(outside, BUNDLE, lines_of, 0)["sender"] == {"pid": 0, "uid": 0, "name": None}


# The termination log.


def test_the_short_text_begins_with_the_cause() -> None:
    """The short text begins with the cause and the culprit's last lines."""
    lines = report.text(report.build(crash(), BUNDLE, lines_of, 0)).decode().splitlines()
    assert lines[0] == "exit code 137: egress was killed by signal 9 (out of memory)"
    assert lines[1] == "egress: killed by KILL, out of memory"
    assert lines[2] == "  last of egress"
    assert lines[4] == "pipelock: killed by KILL, had to be killed"
    assert lines[7] == "1 ended cleanly"
    assert lines[8].startswith("left behind: sleep (77) sleep 999")


@given(st.lists(st.text(max_size=3_000), max_size=60))
def test_the_short_text_is_short_and_plain(lines: list[str]) -> None:
    """The short text is at most 4096 bytes of UTF-8 without control characters."""
    told = report.text(report.build(crash(), BUNDLE, lambda _child: lines, 0))
    assert len(told) <= 4_096
    text = told.decode("utf-8")
    assert text.startswith("exit code 137: egress")
    assert all(character.isprintable() or character == "\n" for character in text)


@given(st.text(alphabet="aé漢😀", max_size=3_000), st.integers(8, 4_096))
def test_a_cut_never_leaves_half_a_character(text: str, limit: int) -> None:
    told = report.cut(text, limit)
    assert len(told) <= limit
    whole = told.decode("utf-8")
    assert whole == text or (whole.endswith("...\n") and text.startswith(whole[:-4]))


def test_it_is_written_only_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "termination-log"
    monkeypatch.setattr(report, "TERMINATION_LOG", str(log))
    record = report.build(crash(), BUNDLE, lines_of, 0)
    assert report.write(record, b"{}") == []
    assert not log.exists()
    log.write_text("what an earlier container said, which was a lot more" * 1_000)
    assert report.write(record, b"{}") == []
    assert log.read_bytes() == report.text(record)


# The file.


def publish(path: Path | str) -> list[str]:
    """Write a report there; what could not be done."""
    return report.write(report.build(crash(), BUNDLE, lines_of, 0), b'{"a": 1}', str(path))


def test_the_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """A reader that has the old one open continues to read the old one."""
    path = tmp_path / "report.json"
    path.write_text("old\n")
    with path.open() as old:
        assert publish(path) == []
        assert old.read() == "old\n"
    assert path.read_text() == '{"a": 1}\n'
    assert os.listdir(tmp_path) == ["report.json"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "report.json"
    link.symlink_to("real/report.json")
    assert publish(link) == []
    assert link.is_symlink()
    assert (tmp_path / "real" / "report.json").read_text() == '{"a": 1}\n'


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert publish(pipe) == [f"{pipe}: {os.strerror(errno.ENXIO)}"]
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert publish(pipe) == []
    assert os.read(reader, 100) == b'{"a": 1}\n'
    os.close(reader)


def test_a_report_larger_than_its_pipe(tmp_path: Path) -> None:
    """A pipe that is being read gets the whole of a report that is larger than the pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    line = b"x" * 500_000
    with (tmp_path / "got").open("wb") as got, subprocess.Popen(["cat", pipe], stdout=got):
        writer = os.open(pipe, os.O_WRONLY)
        problems = report.write(report.build(crash(), BUNDLE, lines_of, 0), line, str(pipe))
        os.close(writer)
    assert problems == []
    assert (tmp_path / "got").read_bytes() == line + b"\n"


def test_an_earlier_inits_leftover_is_replaced(tmp_path: Path) -> None:
    """What an earlier init of the same pid left half written is replaced.

    A container's init is always 1, and may have been killed in the middle.
    """
    (tmp_path / f".report.json.{os.getpid()}").write_text("half a rep")
    assert publish(tmp_path / "report.json") == []
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.mark.real
@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "out"])
def test_a_log_that_the_init_writes_to_is_added_to(path: str, tmp_path: Path) -> None:
    """It is stdout's file that is named there: what is in it already stays, for all who have it open."""
    out = tmp_path / "out"
    out.write_text("earlier\n")
    bundle = "[jobs.work]\ncommand = ['echo', 'hello']\n"
    env = {"BOTTLE_INIT_TERMINATION_LOG": path}
    with (
        out.open("ab") as stdout,
        running_bundle(tmp_path, bundle, f"--report={path}", stdout=stdout, env=env, cwd=tmp_path) as init,
    ):
        assert init.wait() == 0
        facts = init.report()
    first, second, third, *rest = out.read_text().splitlines()
    assert [first, second] == ["earlier", "[work] hello"]
    assert json.loads(third) == facts
    assert rest[:1] == (["exit code 0: work exited with 0"] if path != "out" else [])


@pytest.mark.real
def test_a_socket_that_is_stdout_is_written_to(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    bundle = "[jobs.work]\ncommand = ['true']\n"
    with ours, theirs, running_bundle(tmp_path, bundle, "--report=/dev/stdout", stdout=theirs) as init:
        assert init.wait() == 0
        assert json.loads(ours.recv(100_000)) == init.report()


@pytest.mark.parametrize(
    ("path", "number"),
    [("/dev/full", errno.ENOSPC), ("/nonexistent/report.json", errno.ENOENT), ("/proc/report.json", errno.ENOENT)],
)
def test_what_cannot_be_written_is_said(path: str, number: int) -> None:
    assert publish(path) == [f"{path}: {os.strerror(number)}"]


@pytest.mark.real
def test_a_full_or_read_only_filesystem(tmp_path: Path) -> None:
    """Where the filesystem is full or read-only the init says so and leaves nothing behind.

    In a new mount namespace: a tmpfs that is full, and one that is read-only but for one mounted file.
    """
    script = r"""
        set -e
        mkdir full ro; mount -t tmpfs -o size=8k none full; mount -t tmpfs none ro
        head -c 1M /dev/zero >full/filler 2>/dev/null || true
        "$@" --report=full/report.json -- sh -c 'exit 3' || echo "code $?"
        ls -A full
        touch ro/report.json file; mount --bind file ro/report.json; mount -o remount,ro ro
        "$@" --report=ro/other.json -- sh -c 'exit 4' || echo "code $?"
        "$@" --report=ro/report.json -- sh -c 'exit 5' || echo "code $?"
        grep -c exit_report file
    """
    init = [sys.executable, "-m", "bottle_init"]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *init]
    end = subprocess.run(
        command, cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert end.stdout.splitlines() == ["code 3", "filler", "code 4", "code 5", "1"], end.stderr
    said = end.stderr.splitlines()
    assert said[0].endswith(f"full/report.json: {os.strerror(errno.ENOSPC)}")
    assert said[1].endswith(f"ro/other.json: {os.strerror(errno.EROFS)}")
    assert len(said) == 2


# The whole of it, for real.


@pytest.mark.real
def test_one_command_is_reported_on_only_when_asked(tmp_path: Path) -> None:
    end = run("sh", "-c", "echo out; echo err >&2; exit 9", cwd=tmp_path)
    assert (end.returncode, end.stdout, end.stderr) == (9, "out\n", "err\n")
    end = run("sh", "-c", "echo out; echo err >&2; exit 9", options=["--report", "report.json"], cwd=tmp_path)
    assert (end.returncode, end.stdout, end.stderr) == (9, "out\n", "err\n")
    facts = json.loads((tmp_path / "report.json").read_text())
    assert (facts["code"], facts["kind"], facts["cause"]) == (9, "natural", "sh exited with 9")
    assert facts["deaths"][0]["severity"] == "failure"


@pytest.mark.real
def test_one_commands_report_says_who_asked(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with running("sh", "-c", "echo ready; exec sleep 1000", options=[f"--report={path}"]) as it:
        assert it.line() == "ready"
        it.send(signal.SIGTERM)
        assert it.wait() == 143
    facts = json.loads(path.read_text())
    assert (facts["code"], facts["kind"], facts["cause"]) == (143, "requested", "signal 15")
    assert (facts["sender"]["pid"], facts["sender"]["uid"]) == (os.getpid(), os.getuid())
    assert (facts["deaths"][0]["severity"], facts["deaths"][0]["sent_by_init"]) == ("clean", True)


@pytest.mark.real
def test_a_signal_from_outside_has_no_pid(tmp_path: Path) -> None:
    """A signal from outside the PID namespace has no pid."""
    path = tmp_path / "report.json"
    with running("sh", "-c", "echo ready; exec sleep 1000", options=[f"--report={path}"], pid_1=True) as it:
        assert it.line() == "ready"
        it.send(signal.SIGTERM)
        assert it.wait() == 143
    assert json.loads(path.read_text())["sender"] == {"pid": 0, "uid": os.getuid(), "name": None}


ASK = "import os, sys; os.kill(int(sys.argv[1]), 15); print('asked', flush=True); input()"


@contextmanager
def asker(pid: int) -> Iterator[tuple[int, str]]:
    """A process that has sent TERM and is there still; its pid and name."""
    words = [sys.executable, "-c", ASK, str(pid)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asked\n"
        yield process.pid, Path(f"/proc/{process.pid}/comm").read_text().strip()
        process.communicate(b"\n")


@pytest.mark.real
def test_a_bundles_report_names_a_sender_gone_since(tmp_path: Path) -> None:
    """A bundle's report names the process that asked for the stop, even if it is gone by then."""
    wait = (
        f"trap 'while ! [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    )
    with running_bundle(tmp_path, sh("daemon", "d", wait)) as init:
        init.line("[d] up")
        with asker(init.pid) as (pid, name):
            init.event("stopping")
        (tmp_path / "go").touch()
        assert init.wait() == 0
        sender = init.report()["sender"]
    assert (sender["pid"], sender["name"]) == (pid, name)


@pytest.mark.real
def test_a_commands_report_names_a_sender_gone_since(tmp_path: Path) -> None:
    """A command's report names the process that asked for the stop, even if it is gone by then."""
    path = tmp_path / "report.json"
    wait = "trap : TERM; trap 'echo hup' HUP; trap 'exit 0' USR1; echo up; while :; do sleep 0.05; done"
    with running("sh", "-c", wait, options=[f"--report={path}"]) as it:
        assert it.line() == "up"
        with asker(it.init) as (pid, name):
            it.send(signal.SIGHUP)
            assert it.line() == "hup"
        it.send(signal.SIGUSR1)
        assert it.wait() == 0
    sender = json.loads(path.read_text())["sender"]
    assert (sender["pid"], sender["name"]) == (pid, name)


@pytest.mark.real
def test_log_and_file_have_the_same_report(tmp_path: Path) -> None:
    """A bundle's report is the same in its log and in its file, but for the last lines of those not to blame."""
    path = tmp_path / "report.json"
    log = tmp_path / "termination-log"
    log.touch()
    bundle = """
        [daemons.steady]
        command = ["sh", "-c", "echo steady; exec sleep 1000"]
        ready = { exec = ["true"] }
        [jobs.work]
        command = ["sh", "-c", "echo one; echo two >&2; exit 7"]
        after = ["steady"]
    """
    env = {"BOTTLE_INIT_TERMINATION_LOG": str(log), "PASSWORD": "hunter2hunter2"}
    with running_bundle(tmp_path, bundle, f"--report={path}", env=env) as init:
        assert init.wait() == 7
        facts = init.report()
    whole = json.loads(path.read_text())
    assert [death["last_lines"] for death in whole["deaths"] if death["name"] == "steady"] == [["steady"]]
    for death in whole["deaths"]:
        death["last_lines"] = death["last_lines"] if death["name"] == "work" else []
    assert whole == facts
    assert (facts["code"], facts["kind"], facts["culprit"]) == (7, "policy", "work")
    deaths = {one["name"]: one for one in facts["deaths"]}
    assert sorted(deaths["work"]["last_lines"]) == ["one", "two"]
    assert deaths["steady"]["severity"] == "clean"
    assert log.read_text().startswith("exit code 7: work exited with 7\nwork: exited with 7\n")
    assert "hunter2" not in path.read_text() + log.read_text() + "".join(init.err)


# What the cause tells.


def test_failed_checks_are_counted(tmp_path: Path) -> None:
    """The cause has their number and the last answer, and the daemon's last lines are shown, as it is to blame."""
    probe = 'exec = ["sh", "-c", "echo no upstream; exit 3"]'
    more = f'health = {{ {probe}, interval = "50ms", timeout = "60s", retries = 2 }}\non_unhealthy = "stop"'
    bundle = sh("daemon", "web", "echo serving; exec sleep 600", more)
    with running_bundle(tmp_path, bundle) as init:
        assert init.wait() == 69
        facts = init.report()
    assert facts["cause"] == (
        "web is unhealthy: 2 checks in a row have failed, the last answer to its exec probe was:"
        " exit code 3: no upstream"
    )
    assert (facts["culprit"], facts["deaths"][0]["last_lines"]) == ("web", ["serving"])
    assert init.event("child_unhealthy", "web")["failures"] == 2


def test_a_missed_readiness_tells_the_last_answer(tmp_path: Path) -> None:
    log = tmp_path / "termination"
    log.touch()
    more = "ready = { tcp = 1, timeout = '3s' }"
    bundle = sh("daemon", "web", "echo cannot bind; exec sleep 600", more) + sh("daemon", "other", "exec sleep 600")
    with running_bundle(tmp_path, bundle, env={"BOTTLE_INIT_TERMINATION_LOG": str(log)}) as init:
        assert init.wait() == 69
        facts = init.report()
    cause = "web was not ready within 3 s: the last answer to its tcp probe was: connection refused"
    assert facts["cause"].startswith(cause)
    assert facts["culprit"] == "web"
    lines = {death["name"]: death["last_lines"] for death in facts["deaths"]}
    assert lines == {"web": ["cannot bind"], "other": []}
    told = log.read_text()
    assert told.startswith(f"exit code 69: {cause}")
    assert "  cannot bind\n" in told


def test_a_timeout_is_called_one(tmp_path: Path) -> None:
    """Its word and its time; nobody was killed, and nothing says so."""
    log = tmp_path / "termination"
    log.touch()
    bundle = sh("oneshot", "m", "echo working; exec sleep 600", "timeout = '300ms'") + sh("daemon", "d", "exec sleep 9")
    with running_bundle(tmp_path, bundle, env={"BOTTLE_INIT_TERMINATION_LOG": str(log)}) as init:
        assert init.wait() == 137
        facts = init.report()
    assert (facts["cause"], facts["culprit"]) == ("m ran longer than its timeout of 300 ms", "m")
    death, _ = facts["deaths"]
    assert (death["name"], death["kind"]) == ("m", "oneshot")
    assert (death["timeout_ms"], death["signal"], death["last_lines"]) == (300, "TERM", ["working"])
    story = explain.story_of(json.dumps(facts).encode())
    for told in (log.read_text(), story):
        assert "timeout of 300 ms" in told
        assert "had to be killed" not in told
        assert "was killed after" not in told


def test_a_failed_oneshot_has_its_last_lines(tmp_path: Path) -> None:
    with running_bundle(
        tmp_path, sh("oneshot", "m", "echo no disk; exit 3") + sh("daemon", "d", "exec sleep 9")
    ) as init:
        assert init.wait() == 3
        facts = init.report()
    assert (facts["cause"], facts["culprit"], facts["hint"]) == ("m exited with 3", "m", None)
    assert facts["deaths"][0]["last_lines"] == ["no disk"]


def test_a_daemon_in_the_background_is_recognized(tmp_path: Path) -> None:
    """As nginx without `daemon off;`: it forks into a session of its own, and its first process ends with success."""
    log = tmp_path / "termination"
    log.touch()
    bundle = sh("daemon", "web", "setsid sleep 600 >/dev/null 2>&1 & sleep 0.2; exit 0")
    with running_bundle(tmp_path, bundle, env={"BOTTLE_INIT_TERMINATION_LOG": str(log)}) as init:
        assert init.wait() == 69
        facts = init.report()
    assert facts["cause"] == "web exited with 0"
    assert facts["hint"].startswith("web seems to have gone into the background")
    assert [one["name"] for one in facts["survivors"]] == ["sleep"]
    for told in (log.read_text(), explain.story_of(json.dumps(facts).encode())):
        assert "seems to have gone into the background" in told


# The OOM killer.


def test_the_counter_is_found_where_the_kernel_has_it() -> None:
    v2 = b"22 1 0:2 / / rw - ext4 /dev/vda rw\n30 22 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw\n"
    assert oom.counters(b"0::/a/b\n", v2) == [b"/sys/fs/cgroup/a/b/memory.events"]
    assert oom.counters(b"0::/\n", v2) == [b"/sys/fs/cgroup/memory.events"]
    v1 = b"35 31 0:32 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    hybrid = b"4:memory:/docker/x\n1:cpu,cpuacct:/docker/x\n0::/docker/x\n"
    assert oom.counters(hybrid, v1 + v2) == [
        b"/sys/fs/cgroup/memory/memory.oom_control",
        b"/sys/fs/cgroup/docker/x/memory.events",
    ]
    assert oom.counters(b"", b"") == []
    assert oom.counters(b"garbage", b"more - of it\n") == []


def test_the_count_is_read_in_both_versions() -> None:
    assert oom.count_of(b"low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n") == 2
    assert oom.count_of(b"oom_kill_disable 0\nunder_oom 0\noom_kill 5\n") == 5
    assert oom.count_of(b"oom_kill_disable 0\nunder_oom 0\n") is None


def test_the_victim_is_read_from_the_kernels_log() -> None:
    record = b"3,1,2,-;Memory cgroup out of memory: Killed process 123 (python3) total-vm:47776kB, UID:0"
    assert oom.victim_of(record) == 123
    assert oom.victim_of(b"6,1,2,-;eth0: link up") == 0
    assert oom.victim_of(b"3,1,2,-;Killed process x") == 0


class Cgroup:
    """A /proc and a cgroup made of files."""

    def __init__(self, path: Path, namespace: str) -> None:
        self.events = path / "group" / "memory.events"
        self.log = path / "kmsg"
        self.proc = path / "proc"
        (self.proc / "self" / "ns").mkdir(parents=True)
        self.events.parent.mkdir()
        (self.proc / "self" / "cgroup").write_text("0::/group\n")
        (self.proc / "self" / "mountinfo").write_text(f"30 22 0:26 / {path} rw - cgroup2 cgroup rw\n")
        (self.proc / "self" / "ns" / "pid").symlink_to(namespace)
        self.log.write_text("3,1,2,-;Killed process 41 (long ago)")
        self.count(1)

    def count(self, kills: int) -> None:
        """Let the kernel have killed so many."""
        self.events.write_text(f"oom 9\noom_kill {kills}\n")

    def counter(self, before: dict[bytes, bytes] | None = None) -> oom.OomCounter:
        """One that looks here."""
        return oom.OomCounter(before, str(self.proc), str(self.log))


def test_each_kill_explains_one_death(tmp_path: Path) -> None:
    group = Cgroup(tmp_path, "pid:[4026532000]")
    counter = group.counter()
    assert not counter.killed(10), "what had been killed before is not this bundle's"
    group.count(3)
    assert [counter.killed(pid) for pid in (10, 11, 12)] == [True, True, False]


def test_where_the_kernel_names_oom_victims(tmp_path: Path) -> None:
    """Where the kernel names the victims of an out-of-memory kill, the names count.

    The kill of a worker explains no daemon's death; a kill that is not in the log yet does.
    """
    group = Cgroup(tmp_path, oom.FIRST_PID_NAMESPACE)
    counter = group.counter()

    def kernel_kills(pid: int, count: int, *, logged: bool = True) -> None:
        group.count(count)
        if logged:
            with group.log.open("a") as log:
                log.write(f"3,1,2,-;Memory cgroup out of memory: Killed process {pid} (python3)")

    kernel_kills(11, 2)
    assert not counter.killed(10)
    kernel_kills(12, 3)
    assert counter.killed(12)
    kernel_kills(13, 4, logged=False)
    assert counter.killed(13)
    assert not counter.killed(14)


@pytest.mark.parametrize("path", ["/group", "/somewhere/else"], ids=["below", "at-the-top"])
def test_kills_before_the_counter_count(tmp_path: Path, path: str) -> None:
    """The defence is `environ.kills_so_far`, at the path of /proc/self/cgroup or where a container mounts its own."""
    group = Cgroup(tmp_path, "pid:[4026532000]")
    root = "/" if path == "/group" else path
    mount = tmp_path if path == "/group" else group.events.parent
    (group.proc / "self" / "cgroup").write_text(f"3:cpu:/x\n0::{path}\n")
    (group.proc / "self" / "mountinfo").write_text(f"30 22 0:26 {root} {mount} rw - cgroup2 cgroup rw\n")
    before = environ.kills_so_far(str(group.proc), str(mount))
    group.count(2)
    assert [group.counter(before).killed(10), group.counter().killed(10)] == [True, False]


def test_a_machine_that_tells_nothing_is_never_fatal(tmp_path: Path) -> None:
    """And what it does not tell is unknown, which is not the same as no."""
    counter = oom.OomCounter({}, str(tmp_path / "proc"), str(tmp_path / "kmsg"))
    assert counter.killed(10) is None
    assert environ.kills_so_far(str(tmp_path / "proc"), str(tmp_path)) == {}


def test_an_old_kernel_that_does_not_count_is_no_proof(tmp_path: Path) -> None:
    group = Cgroup(tmp_path, "pid:[4026532000]")
    group.events.write_text("oom 9\n")
    assert group.counter(environ.kills_so_far(str(group.proc), str(tmp_path))).killed(10) is None


MEMORY = Path("/sys/fs/cgroup/memory")
UNIFIED = Path("/sys/fs/cgroup")

EATER = "hoard = []\nwhile True: hoard.append(b'x' * (1 << 20))"


@pytest.fixture
def small_cgroup() -> Any:
    """A cgroup of 64 MiB, of either version; the path of the file that takes a pid into it."""
    v1 = (MEMORY / "memory.limit_in_bytes").exists()
    path = (MEMORY if v1 else UNIFIED) / f"bottle-test-{os.getpid()}"
    try:
        path.mkdir()
        (path / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text("64M")
        if not v1:
            (path / "memory.swap.max").write_text("0")
    except OSError as problem:
        if path.exists():
            path.rmdir()
        pytest.skip(f"no cgroup with a memory limit can be made here: {problem.strerror}")
    yield path / "cgroup.procs"
    eventually(lambda: not path.joinpath("cgroup.procs").read_text())
    path.rmdir()


@pytest.mark.real
@pytest.mark.parametrize("pid_1", [False, True], ids=["subreaper", "pid1"])
def test_the_oom_killers_deaths_are_told_from_others(small_cgroup: Path, tmp_path: Path, pid_1: bool) -> None:
    path = tmp_path / "report.json"
    for script, oom_kill in ((EATER, True), ("import os; os.kill(os.getpid(), 9)", False)):
        command = one(*python(script), options=[f"--report={path}"])
        inside = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(small_cgroup), *(NAMESPACE if pid_1 else []), *command]
        end = subprocess.run(inside, env=ENVIRON, timeout=PATIENCE_S, check=False, capture_output=True, text=True)
        assert end.returncode == 137, end.stderr
        facts = json.loads(path.read_text())
        assert (facts["deaths"][0]["signal"], facts["deaths"][0]["oom"]) == ("KILL", oom_kill)
        assert ("out of memory" in facts["cause"]) == oom_kill


# What could not even start.

INVALID = """
[daemons.web]
command = ["true"]
stop_timeout = "soon"
users = "www"
"""


@pytest.mark.real
def test_an_invalid_bundle_is_reported_too(tmp_path: Path) -> None:
    log, path = tmp_path / "termination-log", tmp_path / "report.json"
    log.write_text("an old one")
    env = {"BOTTLE_INIT_TERMINATION_LOG": str(log)}
    with running_bundle(tmp_path, INVALID, f"--report={path}", env=env) as init:
        assert init.wait() == 78
    lines = log.read_text().splitlines()
    assert lines[0] == f"exit code 78: {tmp_path}/bundle.toml is not a valid bundle"
    assert [line.partition(": ")[0] for line in lines[1:]] == ["  daemons.web.users", "  daemons.web.stop_timeout"]
    record = json.loads(path.read_text())
    assert (record["code"], record["kind"], record["deaths"]) == (78, "invalid", [])
    assert [fault.partition(":")[0] for fault in record["faults"]] == ["daemons.web.users", "daemons.web.stop_timeout"]
    assert [line for line in init.err if line.startswith("{")] == []
    assert all(fault in "\n".join(init.err) for fault in record["faults"])
    story = explain.story([path.read_bytes()])
    cause = f"It ended with code 78: {tmp_path}/bundle.toml is not a valid bundle."
    assert story.startswith(f"{cause}\n\nFaults:\n  daemons.")


@pytest.mark.real
@pytest.mark.parametrize("pid_1", [False, True], ids=["child", "pid1"])
def test_only_pid_1_notes_a_command_line(tmp_path: Path, pid_1: bool) -> None:
    """A wrong word to `docker exec` is not the end of the container."""
    log = tmp_path / "termination-log"
    log.touch()
    with running_bundle(tmp_path, "", "--onyl=a", pid_1=pid_1, env={"BOTTLE_INIT_TERMINATION_LOG": str(log)}) as init:
        assert init.wait() == 2
    text = "exit code 2: unknown option --onyl; did you mean --only?\n`bottle-init --help` shows the command line.\n"
    assert log.read_text() == (text if pid_1 else "")
