"""Contract 4 and 6 on the real kernel: what an init without CAP_KILL may not signal (kill(2))."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.support.init import PYTHON, ROOT, Init, running, sh

pytestmark = [pytest.mark.real, pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")]

WITHOUT_KILL = ("setpriv", "--inh-caps=-all", "--bounding-set=-kill")
LACKS = "the init lacks CAP_KILL"
REASON = f"may not be signalled: {LACKS}"
OTHER = 'user = "nobody"\n'


@contextmanager
def powerless(tmp_path: Path, bundle: str, *, pid_1: bool = False) -> Iterator[Init]:
    """An init that may not signal other users' processes. What it had to leave alone is ended afterwards."""
    with running(tmp_path, bundle, pid_1=pid_1, prefix=WITHOUT_KILL) as init:
        try:
            yield init
        finally:
            for event in init.events:
                if not pid_1 and event["event"] == "child_started":
                    end(event["pid"])


def end(pid: int) -> None:
    """End what is left of a test's own child: it has not been reaped by anyone, or it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return
    if "\nUid:\t65534\t" in status:
        os.kill(pid, signal.SIGKILL)


def ctl(init: Init, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [*PYTHON, "ctl", *words, f"--control={init.control}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout + done.stderr


def test_a_stop_that_reaches_nobody(tmp_path: Path, pid_1: bool) -> None:
    """It ends at once although both have all the time in the world, and the report says why they stay."""
    bundle = sh("daemon", "theirs", "echo up; exec sleep 600", OTHER) + sh("daemon", "ours", "echo up; exec sleep 600")
    with powerless(tmp_path, bundle, pid_1=pid_1) as init:
        init.line("[theirs] up")
        init.line("[ours] up")
        warning = init.event("child_not_signallable")
        assert init.stop() == 137
        report = init.report()
        refused = [(event["signal"], event["reason"]) for event in init.events if event["event"] == "signal_refused"]
    assert (warning["child"], warning["level"], warning["reason"]) == ("theirs", "warning", LACKS)
    theirs, ours = (next(one for one in report["deaths"] if one["name"] == name) for name in ("theirs", "ours"))
    assert (theirs["given_up"], theirs["sent_by_init"], theirs["forced"]) == (True, False, False)
    assert theirs["detail"] == REASON
    assert (ours["sent_by_init"], ours["code"]) == (True, 143)
    assert [(one["name"], one["reason"]) for one in report["survivors"]] == [("theirs", REASON)]
    assert (signal.SIGTERM, LACKS) in refused
    assert (signal.SIGKILL, LACKS) in refused


def test_orders_that_reach_nobody(tmp_path: Path) -> None:
    """Each says why, and nothing happens: a restart stops no bundle, and a stop and a start make no second copy."""
    with powerless(tmp_path, sh("daemon", "a", "echo up; exec sleep 600", OTHER)) as init:
        init.line("[a] up")
        pid = init.event("child_ready", "a") and init.event("child_started", "a")["pid"]
        for words in (("signal", "a", "USR1"), ("stop", "a"), ("restart", "a")):
            code, text = ctl(init, *words)
            assert code == 1
            assert REASON in text
        assert "State:\tS" in Path(f"/proc/{pid}/status").read_text()
        assert [event["event"] for event in init.events].count("child_started") == 1
        assert init.stop() == 137


def test_a_forwarded_signal_that_is_refused(tmp_path: Path) -> None:
    with powerless(
        tmp_path, sh("daemon", "a", "echo up; exec sleep 600", OTHER + "signals = { HUP = 'HUP' }\n")
    ) as init:
        init.line("[a] up")
        init.event("child_ready", "a")
        init.send(signal.SIGHUP)
        told = init.event("signal_received")
        assert (told.get("sent_to", []), told["passed_over"]) == ([], {"a": "refused by the kernel"})
        assert init.event("signal_refused")["signal"] == signal.SIGHUP
        assert init.stop() == 137


def test_a_timeout_of_what_may_not_be_ended(tmp_path: Path) -> None:
    """The init cannot keep its word, so it stops the bundle, with 69 and the reason."""
    bundle = sh("job", "a", "exec sleep 600", OTHER + "timeout = '300ms'\n")
    with powerless(tmp_path, bundle) as init:
        assert init.wait() == 69
        assert init.report()["cause"] == f"a {REASON}"


def test_what_is_left_and_may_not_be_killed(tmp_path: Path) -> None:
    """The end does not wait for it; the report names it, with the reason.

    The job ends once the other has changed its user: before that the init may signal it.
    """
    other = "setpriv --reuid=65534 --clear-groups sh -c 'echo $$; exec sleep 600'"
    told = f"read pid < {tmp_path}/up; echo $pid > {tmp_path}/pid"
    script = f"mkfifo {tmp_path}/up; {other} > {tmp_path}/up & {told}; exit 3"
    bundle = sh("job", "a", script)
    with powerless(tmp_path, bundle) as init:
        assert init.wait() == 3
        pid = int((tmp_path / "pid").read_text())
        survivors = init.report()["survivors"]
        assert [(one["pid"], one["reason"]) for one in survivors] == [(pid, REASON)]
        end(pid)


def test_an_exec_probe_that_cannot_be_ended(tmp_path: Path) -> None:
    """One of them lives at most; each further attempt says which."""
    ready = "ready = { exec = ['sleep', '601'], timeout = '3s' }\n"
    with powerless(tmp_path, sh("daemon", "a", "exec sleep 600", OTHER + ready)) as init:
        assert init.wait() == 69
        named = init.event("not_ready")
        probes = [path for path in Path("/proc").glob("[0-9]*") if is_probe(path)]
        for path in probes:
            end(int(path.name))
    assert named["child"] == "a"
    assert len(probes) <= 1


def is_probe(path: Path) -> bool:
    try:
        words = (path / "cmdline").read_bytes().split(b"\0")
        return words[:2] == [b"sleep", b"601"] and "Uid:\t65534" in (path / "status").read_text()
    except OSError:
        return False


def test_a_change_of_user_names_what_is_missing(tmp_path: Path) -> None:
    """And the key that the file has: a `user` brings its group and its groups along."""
    prefix = ("setpriv", "--inh-caps=-all", "--bounding-set=-setgid")
    with running(tmp_path, sh("daemon", "a", "exec sleep 600", OTHER), prefix=prefix) as init:
        assert init.wait() == 126
        text = init.event("child_exited", "a")["detail"]
    assert "user nobody: its group" in text
    assert "the init lacks CAP_SETGID" in text


def test_one_command_that_may_not_be_signalled() -> None:
    """The signal that was not passed on is told, and the end of the command is its own."""
    command = ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "echo up; read line; exit 5"]
    full = [*WITHOUT_KILL, *PYTHON, "--", *command]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(full, env=environ, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        line = process.stderr.readline().decode()
        assert f"signal {int(signal.SIGTERM)} could not be passed on: {LACKS}" in line
        process.stdin.close()
        assert process.wait() == 5
