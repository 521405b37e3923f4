"""Faults in the kernel's face: each is done for real, and the init still answers a TERM (contract 8)."""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.support.cgroups import cgroup, inside
from tests.integration.support.init import PATIENCE_S, descendants, eventually, running, sh
from tests.integration.support.one_command import ENVIRON

pytestmark = pytest.mark.real


def test_a_fork_that_fails_is_a_failed_start(tmp_path: Path) -> None:
    bundle = "".join(f"[daemons.d{n}]\ncommand = ['sleep', '600']\n" for n in range(10))
    with cgroup("pids", max="6") as group, running(tmp_path, bundle, prefix=inside(group)) as init:
        assert init.wait() == 69
        assert "Resource temporarily unavailable" in init.event("fork_failed")["reason"]
        assert [e for e in init.events if e["event"] == "child_started"], "some were started, and were stopped again"


LOSE_FORKS = """
import ctypes, os, sys
from bottle_init.cli.main import main
def lose_forks():
    # A PID namespace whose first process has ended takes no other: fork(2) gives ENOMEM from then on.
    ctypes.CDLL(None).unshare(0x20000000)
    first = os.fork() or os._exit(0)
    os.waitpid(first, 0)
"""

NO_MORE_FORKS = (
    LOSE_FORKS
    + """
from bottle_init.linux import spawn
real, lost = spawn.start, []
def start(plan, *rest):
    if plan.command[0] == b"lost" and not lost:
        lost.append(lose_forks())
    return real(plan, *rest)
spawn.start = start
sys.exit(main(sys.argv[1:]))
"""
)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a PID namespace")
def test_no_memory_for_a_fork_is_a_failed_start(tmp_path: Path) -> None:
    bundle = sh("daemon", "steady", "exec sleep 600") + "[daemons.lost]\ncommand = ['lost']\nafter = ['steady']\n"
    with running(tmp_path, bundle, executable_code=(NO_MORE_FORKS,)) as init:
        assert init.wait() == 69
        assert init.event("fork_failed", "lost")["reason"] == os.strerror(errno.ENOMEM)
        assert [death["name"] for death in init.report()["deaths"]] == ["steady"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a PID namespace")
def test_no_memory_for_any_fork_delays_no_stop(tmp_path: Path) -> None:
    """Starts and probes fail all the time; what runs is stopped as ever."""
    checked = "health = { exec = ['true'], interval = '20ms', retries = 1 }"
    restarted = (
        "policy = 'restart'\nbackoff = { initial = '20ms', limit = '20ms' }\nrestarts = { max = 100000, window = '1h' }"
    )
    bundle = (
        sh("daemon", "steady", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done", checked)
        + f"[daemons.lost]\ncommand = ['lost']\nafter = ['steady']\n{restarted}\n"
    )
    with running(tmp_path, bundle, executable_code=(NO_MORE_FORKS,)) as init:
        init.line("[steady] up")
        init.event("fork_failed", "lost", count=3)
        assert os.strerror(errno.ENOMEM) in init.event("child_unhealthy", "steady")["reason"]
        assert init.stop() == 0
        assert "[steady] bye" in init.out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a PID namespace")
def test_one_command_that_cannot_be_forked(tmp_path: Path) -> None:
    """A single command that cannot be forked is reported too."""
    path = tmp_path / "report.json"
    words = [
        sys.executable,
        "-c",
        LOSE_FORKS + "lose_forks(); sys.exit(main(sys.argv[1:]))",
        f"--report={path}",
        "--",
        "true",
    ]
    end = subprocess.run(
        words, env=ENVIRON, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert end.returncode == 69
    assert os.strerror(errno.ENOMEM) in end.stderr
    facts = json.loads(path.read_text())
    assert (facts["code"], facts["deaths"]) == (69, [])
    assert os.strerror(errno.ENOMEM) in facts["cause"]


def test_no_descriptors_left_is_a_failed_start(tmp_path: Path) -> None:
    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))

    bundle = "".join(sh("daemon", f"d{n}", "exec sleep 600") for n in range(30))
    with running(tmp_path, bundle, preexec_fn=few_descriptors) as init:
        assert init.wait() == 69
        assert "Too many open files" in init.event("fork_failed")["reason"]


def test_a_failed_start_is_tried_again(tmp_path: Path) -> None:
    """A failed start is tried again where the policy restarts."""

    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))

    more = "policy = 'restart'\nbackoff = { initial = '10ms' }\nrestarts = { max = 3, window = '60s' }"
    bundle = "".join(sh("daemon", f"d{n}", "exec sleep 600", more) for n in range(30))
    with running(tmp_path, bundle, preexec_fn=few_descriptors) as init:
        assert init.wait() == 69
        assert len([e for e in init.events if e["event"] == "fork_failed" and e["child"] == "d29"]) == 4


@pytest.mark.parametrize("limit", [12, 14, 16, 18, 22, 26])
@pytest.mark.parametrize("logs", ["inherit", "tag"])
def test_few_descriptors_never_break_the_init(tmp_path: Path, logs: str, limit: int) -> None:
    """It imports what it will need before it uses its reserve, and each child has one to look its user up with."""

    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    user = "user = 'nobody'\n" if os.geteuid() == 0 else ""
    more = f"{user}env_files = ['/dev/null']\nready = {{ exec = ['true'] }}"
    bundle = f"[bundle]\nlogs = '{logs}'\nhttp = 'unix:{tmp_path}/pages'\n"
    bundle += "".join(sh("daemon", f"d{n}", "exit 0", more) for n in range(6))
    with running(tmp_path, bundle, preexec_fn=few_descriptors) as init:
        assert init.wait() == 69
        assert ("internal_error", "") not in init.names()


@pytest.mark.parametrize("limit", [6, 8, 10])
def test_few_descriptors_never_break_one_command(tmp_path: Path, limit: int) -> None:
    """A report and a control socket may be out of reach; the command runs, and its code is the init's."""

    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    options = [f"--report={tmp_path}/report.json", f"--control={tmp_path}/control"]
    end = subprocess.run(
        [sys.executable, "-I", "-m", "bottle_init", *options, "--", "/bin/sh", "-c", "sleep 0.1 & exit 7"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        preexec_fn=few_descriptors,
    )
    assert (end.returncode, "Traceback" in end.stderr) == (7, False), end.stderr


def test_starts_keep_no_descriptor_from_the_rest(tmp_path: Path) -> None:
    """Children between fork and exec take every descriptor: all of them start, and the control socket is there."""

    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))

    bundle = "[bundle]\nlogs = 'inherit'\n" + "".join(sh("daemon", f"d{n}", "exec sleep 600") for n in range(40))
    with running(tmp_path, bundle, preexec_fn=few_descriptors) as init:
        init.event("child_ready", count=40)
        assert ("control_unavailable", "") not in init.names()
        assert init.stop() == 0


def test_a_daemon_that_no_kill_ends_is_given_up(tmp_path: Path) -> None:
    # A v1 freezer holds a process as uninterruptible sleep does: no SIGKILL ends it before it is thawed.
    bundle = "[bundle]\nstop_timeout = '2s'\n" + sh("daemon", "d", "echo up; exec sleep 600", "stop_timeout = '300ms'")
    with cgroup("freezer") as freezer, running(tmp_path, bundle) as init:
        init.line("[d] up")
        pid = init.event("child_started", "d")["pid"]
        (freezer / "cgroup.procs").write_text(str(pid))
        (freezer / "freezer.state").write_text("FROZEN")
        assert init.stop() == 137, "what did not end did not end well"
        assert ("gave_up", "d") in init.names()


def test_ten_thousand_orphans_hold_up_no_stop(tmp_path: Path) -> None:
    storm = (
        "import os, time\n"
        "for _ in range(100):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        for _ in range(100):\n"
        "            if os.fork() == 0: time.sleep(0.01); os._exit(0)\n"
        "        os._exit(0)\n"
        "print('storm', flush=True)\n"
        "time.sleep(600)\n"
    )
    (tmp_path / "storm.py").write_text(storm)
    with running(tmp_path, f"[daemons.d]\ncommand = ['python3', '{tmp_path}/storm.py']\n", pid_1=True) as init:
        init.line("[d] storm")
        below = init.pid
        assert init.stop() == 0
        assert not descendants(below)


def test_a_stalled_reader_delays_no_stop(tmp_path: Path) -> None:
    read, write = os.pipe()
    try:
        with running(tmp_path, sh("daemon", "d", "exec yes"), stdout=write) as init:
            init.event("child_ready", "d")
            eventually(lambda: _is_full(write), "a full pipe")
            assert init.stop() == 0
            assert init.report()["lines_dropped"] > 0
    finally:
        os.close(read)
        os.close(write)


def _is_full(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return not poller.poll(0)


def test_both_outputs_stalled_delay_no_stop(tmp_path: Path) -> None:
    read, write = os.pipe()
    try:
        with running(tmp_path, sh("daemon", "d", "yes & exec yes >&2"), stdout=write, stderr=write) as init:
            eventually(lambda: _is_full(write), "a full pipe")
            assert init.stop() == 0
    finally:
        os.close(read)
        os.close(write)


def test_a_reader_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        with running(tmp_path, sh("daemon", "d", "while :; do echo x; sleep 0.05; done"), stdout=write) as init:
            init.event("child_ready", "d")
            assert init.stop() == 0
    finally:
        os.close(write)


def test_no_space_for_the_report(tmp_path: Path) -> None:
    script = (
        f"mount -t tmpfs -o size=4k none {tmp_path}/full; "
        f"dd if=/dev/zero of={tmp_path}/full/x bs=4k count=1 2>/dev/null; "
        'exec "$@"'
    )
    (tmp_path / "full").mkdir()
    prefix = ("unshare", "--mount", "sh", "-c", script, "sh")
    with running(tmp_path, sh("job", "j", "exit 5"), f"--report={tmp_path}/full/report", prefix=prefix) as init:
        assert init.wait() == 5
        assert ("report_unwritten", "") in init.names()


def test_a_read_only_root(tmp_path: Path) -> None:
    """The init runs on a read-only root without any writable filesystem."""
    script = (
        "mount --make-rprivate /; mount -o bind,ro / /mnt; mount -o bind /dev /mnt/dev; "
        'mount -t proc proc /mnt/proc; exec chroot /mnt "$@"'
    )
    bundle = sh("daemon", "d", "echo x > /tmp/x || echo read-only; exec sleep 600", "policy = 'restart'")
    prefix = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh")
    with running(tmp_path, bundle, prefix=prefix) as init:
        init.line("[d] read-only")
        child = eventually(lambda: descendants(init.process.pid), "the init")[0]
        os.kill(child, signal.SIGTERM)
        assert init.wait() == 0


BREAK = """
import os, sys
from bottle_init.linux import init
real = init.supervisor.step
def step(state, now_ms, events):
    events = list(events)
    if any(type(event).__name__ == "SignalReceived" and event.signal == 10 for event in events):
        try:
            while sys.argv[1] == "without descriptors":
                os.dup(0)
        except OSError:
            pass
        raise ZeroDivisionError('on "purpose" ' * 1_000)
    return real(state, now_ms, events)
init.supervisor.step = step
from bottle_init.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("state", ["as usual", "without descriptors"])
def test_an_internal_error_ends_everything_with_70(tmp_path: Path, state: str) -> None:
    """An error inside the init stops every child, ends the whole tree, and gives 70."""

    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    asleep = "echo up; while :; do sleep 0.05; done"
    bundle = (
        "[bundle]\nstop_timeout = '1h'\n"
        + sh("daemon", "good", f"trap 'seq 50000; touch {tmp_path}/TERM; printf gone; exit 0' TERM; {asleep}")
        + sh("daemon", "usr2", f"trap 'touch {tmp_path}/USR2; exit 0' USR2; {asleep}", "stop_signal = 'USR2'")
        + sh("daemon", "bad", f"trap '' TERM; setsid sleep 4545 & {asleep}")
    )
    path, log = tmp_path / "report.json", tmp_path / "termination-log"
    log.touch()
    with running(
        tmp_path,
        bundle,
        f"--report={path}",
        env={"BOTTLE_INIT_TERMINATION_LOG": str(log)},
        executable_code=(BREAK, state),
        leaps=True,
        preexec_fn=few_descriptors,
    ) as init:
        for name in ("good", "usr2", "bad"):
            init.line(f"[{name}] up")
        below = descendants(init.pid)
        usr2 = init.event("child_started", "usr2")["pid"]
        init.send(signal.SIGUSR1)
        init.line("[good] 50000")
        eventually(lambda: not Path(f"/proc/{usr2}").exists(), "the end of usr2")
        init.leap(3_600)
        assert init.wait() == 70
        assert (tmp_path / "TERM").exists(), "each child gets its own stop signal, and is read while it ends"
        assert (tmp_path / "USR2").exists(), "each child gets its own stop signal"
        # Its last act is SIGKILL for all; whoever is nearest above it reaps them.
        eventually(lambda: not [pid for pid in below if Path(f"/proc/{pid}").exists()], f"the end of all of {below}")
        assert init.out[-1] == "[good] gone"
        error = init.event("internal_error")
        assert 'on "purpose"' in error["exception"]
        assert error["timestamp"]
        report = init.events[-1]
    assert (report["event"], report["code"], report["kind"]) == ("exit_report", 70, "internal")
    assert report["cause"].startswith("internal error: ZeroDivisionError: on ")
    assert json.loads(path.read_text()) == report
    assert log.read_text().startswith("exit code 70: internal error: ZeroDivisionError: on ")


@pytest.mark.parametrize(
    ("closed", "out"), [("<&-", ["[d] out"]), (">&-", []), ("2>&-", ["[d] out"]), ("<&- >&- 2>&-", [])]
)
def test_what_was_closed_at_the_start_becomes_nobodys(tmp_path: Path, closed: str, out: list[str]) -> None:
    """Else the first file that the init opens would be its stderr, or its children's."""
    path = tmp_path / "report.json"
    script = f"trap 'exit 0' TERM; echo out; echo err >&2; cat; touch {tmp_path}/up; while :; do sleep 0.05; done"
    prefix = ("sh", "-c", f'exec "$@" {closed}', "sh")
    with running(tmp_path, sh("daemon", "d", script), f"--report={path}", prefix=prefix) as init:
        eventually((tmp_path / "up").exists, "a daemon that is up")
        assert init.stop() == 0
        assert init.out == out
    (death,) = json.loads(path.read_text())["deaths"]
    assert sorted(death["last_lines"]) == ["err", "out"]


@pytest.mark.parametrize(("kind", "reason"), [("busy", errno.ETXTBSY), ("corrupt", errno.ENOEXEC)])
def test_a_busy_or_corrupt_program_is_a_126(tmp_path: Path, kind: str, reason: int) -> None:
    """A program that cannot be executed now is a death with 126."""
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes() if kind == "busy" else b"\x7fELF but no more")
    program.chmod(0o755)
    bundle = sh("daemon", "calm", "exec sleep 600") + f"[daemons.d]\ncommand = ['{program}', '600']\nafter = ['calm']\n"
    with program.open("r+b" if kind == "busy" else "rb"), running(tmp_path, bundle) as init:
        assert init.wait() == 126
        assert os.strerror(reason) in init.report()["deaths"][1]["detail"]


def test_sigchld_inherited_ignored_loses_no_death(tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    with running(tmp_path, sh("daemon", "d", "exit 7"), preexec_fn=ignore) as init:
        assert init.wait() == 7


DIES_MEANWHILE = """
import os, sys, time
from bottle_init.linux import reaper
from bottle_init.linux.sys import proc
real, killed = reaper.Tree.reap, []
def reap(tree):
    found = real(tree)
    if found[0] and not killed:
        killed.extend(pid for pid in tree._started if pid != found[0][0][0])
        for pid in killed:
            os.kill(pid, 9)
            while proc.look(pid).state != b"Z":
                time.sleep(0.01)
        time.sleep(0.1)
    return found
reaper.Tree.reap = reap
from bottle_init.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_death_while_others_are_reaped_is_not_missed(tmp_path: Path) -> None:
    """Its SIGCHLD is read in the wake-up of the death before; no pipe closes, so nothing else would show it."""
    bundle = '[bundle]\npolicy = "wait-for-all"\nlogs = "inherit"\n'
    bundle += sh("daemon", "first", "exec sleep 0.3") + sh("daemon", "second", "exec sleep 600")
    with running(tmp_path, bundle, executable_code=(DIES_MEANWHILE,)) as init:
        assert init.wait() == 137


def test_a_job_that_is_killed_for_memory_is_said_so(tmp_path: Path) -> None:
    hog = "x = bytearray(256 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1"
    bundle = (
        "[daemons.calm]\ncommand = ['sleep', '600']\n"
        f"[jobs.hog]\nafter = ['calm']\ncommand = ['python3', '-c', '''{hog}''']\n"
    )
    with (
        cgroup("memory", limit_in_bytes=str(64 << 20)) as group,
        running(tmp_path, bundle, prefix=inside(group)) as init,
    ):
        assert init.wait() == 137
        deaths = {death["name"]: death for death in init.report()["deaths"]}
        assert deaths["hog"]["oom"] is True
        assert deaths["calm"]["oom"] is False


def test_a_missing_proc_is_no_reason_not_to_stop(tmp_path: Path) -> None:
    prefix = (
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        'mount -t tmpfs none /proc; exec "$@"',
        "sh",
    )
    bundle = sh("daemon", "d", "setsid sleep 4646 & echo up; exec sleep 600", "stop_timeout = '300ms'")
    with running(tmp_path, bundle, prefix=prefix) as init:
        init.line("[d] up")
        os.kill(eventually(lambda: descendants(init.process.pid), "the init")[0], signal.SIGTERM)
        assert init.wait() == 0
        assert [survivor["pid"] for survivor in init.report()["survivors"]] == [0], "something was left, unseen"
