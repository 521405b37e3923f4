"""Contract 4 on the real kernel: order, deadlines, stop signals, and the whole tree."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.integration.support.init import HEARS, descendants, eventually, running, sh

pytestmark = pytest.mark.real


def test_start_in_order_and_stop_in_reverse(tmp_path: Path, pid_1: bool) -> None:
    """Children start when what they are after is ready, and stop in reverse order."""

    def daemon(name: str, after: str) -> str:
        # Ready once the trap is set, so that what each prints comes in the order of the starts.
        script = f"trap 'sleep 0.2; echo {name} down; exit 0' TERM; echo {name} up; touch {name}; "
        script += "while :; do sleep 0.05; done"
        return sh(
            "daemon",
            name,
            script,
            f"after = {after}\nready = {{ exec = ['test', '-e', '{name}'] }}\ncwd = '{tmp_path}'",
        )

    bundle = (
        daemon("c", "['b']")
        + daemon("b", "['a', 'o']")
        + daemon("a", "[]")
        + sh("oneshot", "o", "sleep 0.3; echo o done")
    )
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        init.event("child_ready", "c")
        assert init.stop() == 0
        order = [line.partition("] ")[2] for line in init.out]
        assert order.index("o done") < order.index("b up") < order.index("c up")
        assert order.index("a up") < order.index("b up")
        assert order[-3:] == ["c down", "b down", "a down"]


def test_a_stop_during_startup(tmp_path: Path, pid_1: bool) -> None:
    """A stop during startup stops what runs and starts nothing more."""
    bundle = sh("oneshot", "slow", "echo up; exec sleep 600") + sh("daemon", "d", "echo never", "after = ['slow']")
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        init.line("[slow] up")
        assert init.stop() == 0
        assert ("child_started", "d") not in init.names()


def test_a_wait_ends_the_moment_the_child_is_gone(tmp_path: Path) -> None:
    bundle = "[bundle]\nstop_timeout = '500s'\n" + sh("daemon", "d", "exec sleep 600", "stop_timeout = '400s'")
    with running(tmp_path, bundle) as init:
        init.event("child_ready", "d")
        assert init.stop() == 0  # Well within the test's own patience, and far from either timeout.


def test_the_second_stop_signal_kills_what_is_left(tmp_path: Path, pid_1: bool) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    bundle = "[bundle]\nstop_timeout = '500s'\n" + sh("daemon", "d", script, "stop_timeout = '400s'")
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        init.line("[d] up")
        init.send(signal.SIGTERM)
        init.event("stopping")
        assert init.stop(signal.SIGINT) == 137


def test_the_bundles_deadline_is_one_for_all_phases(tmp_path: Path, pid_1: bool) -> None:
    script = "trap '' TERM; echo {0} up; while :; do sleep 0.05; done"
    bundle = (
        "[bundle]\nstop_timeout = '600ms'\n"
        + sh("daemon", "a", script.format("a"), "stop_timeout = '400s'")
        + sh("daemon", "b", script.format("b"), "after = ['a']\nstop_timeout = '400s'")
    )
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        init.line("[b] b up")
        assert init.stop() == 137
        assert ("deadline_passed", "") in init.names()


def test_a_stop_signal_during_a_policy_stop(tmp_path: Path) -> None:
    """A stop signal during a policy stop changes neither its cause nor its code."""
    bundle = sh("daemon", "slow", "trap 'sleep 1; exit 0' TERM; echo up; while :; do sleep 0.05; done") + sh(
        "job", "j", "while ! [ -e go ]; do sleep 0.02; done; exit 6", f"cwd = '{tmp_path}'"
    )
    with running(tmp_path, bundle) as init:
        init.line("[slow] up")
        (tmp_path / "go").touch()
        init.event("stopping")
        assert init.stop() == 6


def test_a_stopped_child_is_woken_to_stop(tmp_path: Path) -> None:
    """A stopped child is woken so that it can act on its stop signal."""
    with running(tmp_path, sh("daemon", "d", "echo up; exec sleep 600", "stop_timeout = '300s'")) as init:
        init.line("[d] up")
        os.kill(init.event("child_started", "d")["pid"], signal.SIGSTOP)
        assert init.stop() == 0


def test_stop_signal_of_its_own(tmp_path: Path) -> None:
    script = "trap 'echo got usr1; exit 0' USR1; trap '' TERM; echo up; while :; do sleep 0.05; done"
    with running(tmp_path, sh("daemon", "d", script, "stop_signal = 'USR1'")) as init:
        init.line("[d] up")
        assert init.stop() == 0
        assert "[d] got usr1" in init.out


def test_stop_delay_lets_a_daemon_serve_on(tmp_path: Path) -> None:
    script = "trap 'exit 0' TERM; i=0; echo up; while :; do sleep 0.1; i=$((i+1)); echo tick; done"
    bundle = "[bundle]\nstop_timeout = '2h'\n" + sh("daemon", "d", script, "stop_delay = '1h'")
    with running(tmp_path, bundle, leaps=True) as init:
        init.line("[d] up")
        init.send(signal.SIGTERM)
        init.event("stopping")
        before = init.out.count("[d] tick")
        eventually(lambda: init.out.count("[d] tick") > before + 2, "a daemon that serves on")
        init.leap(3_600)
        assert init.wait() == 0


def test_what_is_left_behind_gets_no_cont(tmp_path: Path) -> None:
    """One that runs may have a handler for it (contract 4.2)."""
    (tmp_path / "hears.py").write_text(HEARS)
    script = f"setsid {sys.executable} -I -S {tmp_path}/hears.py & exec sleep 600"
    with running(tmp_path, sh("daemon", "d", script)) as init:
        init.line("[d] up")
        assert init.stop() == 0
        assert [line for line in init.out if "heard" in line] == ["[d] heard 15"]


@pytest.mark.parametrize("how", ["plain", "setsid", "double"])
def test_what_a_child_leaves_behind_goes_too(tmp_path: Path, pid_1: bool, how: str) -> None:
    leave = {
        "plain": "sleep 4242 &",
        "setsid": "setsid sleep 4242 &",
        "double": "(setsid sh -c 'sleep 4242 & sleep 4242' &) &",
    }[how]
    bundle = sh("daemon", "d", f"{leave} sleep 0.3; echo up; exec sleep 600")
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        init.line("[d] up")
        below = descendants(init.pid)
        assert len(below) >= 2
        assert init.stop() == 0
        assert any("4242" in survivor["command"] for survivor in init.report()["survivors"])
        assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]


def test_survivors_that_ignore_term_are_killed(tmp_path: Path, pid_1: bool) -> None:
    """Survivors that ignore TERM are killed within the deadline."""
    stubborn = 'trap "" TERM; while :; do sleep 0.05; done'
    script = 'setsid sh -c "$STUBBORN" & sh -c "$STUBBORN" & sleep 0.2; echo up; exec sleep 600'
    more = f"stop_timeout = '1h'\nenv = {{ STUBBORN = '{stubborn}' }}"
    bundle = "[bundle]\nstop_timeout = '2h'\n" + sh("daemon", "d", script, more)
    with running(tmp_path, bundle, pid_1=pid_1, leaps=True) as init:
        init.line("[d] up")
        below = descendants(init.pid)
        init.send(signal.SIGTERM)
        init.event("child_exited", "d")
        init.leap(7_200)
        assert init.wait() == 0, "survivors never change the exit code"
        assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]


def test_leftovers_go_before_a_restart(tmp_path: Path) -> None:
    # The leftover holds the port that the next start needs, as git-daemon's does when its wrapper dies.
    """What is left of a session is gone before the daemon is started again."""
    worker = "import socket, time; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(('127.0.0.1', 18431)); "
    worker += "s.listen(); print('bound', flush=True); open('bound', 'w').close(); time.sleep(600)"
    (tmp_path / "worker.py").write_text(worker)
    script = "rm -f bound; python3 worker.py & while ! [ -e bound ]; do sleep 0.05; done; "
    script += "[ -e once ] && exec sleep 600; touch once; exit 1"
    more = f"cwd = '{tmp_path}'\npolicy = 'restart'\nbackoff = {{ initial = '1ms' }}"
    with running(tmp_path, sh("daemon", "d", script, more)) as init:
        init.event("child_ready", "d", count=2)
        eventually(lambda: init.out.count("[d] bound") == 2, f"the second bind: {init.out} {init.err}")
        assert init.stop() == 0


def test_orphans_are_reaped_while_the_bundle_runs(tmp_path: Path, pid_1: bool) -> None:
    script = "i=0; while [ $i -lt 200 ]; do (sleep 0.01 &) ; i=$((i+1)); done; echo done; exec sleep 600"
    with running(tmp_path, sh("daemon", "d", script), pid_1=pid_1) as init:
        init.line("[d] done")
        root = init.pid
        eventually(lambda: len(descendants(root)) == 1, "the last orphan's end")
        assert init.stop() == 0


def test_who_asked_is_in_the_report(tmp_path: Path) -> None:
    with running(tmp_path, sh("daemon", "d", "exec sleep 600")) as init:
        init.event("child_ready")
        assert init.stop() == 0
        report = init.report()
        assert report["kind"] == "requested"
        assert init.event("stopping")["sender_pid"] == os.getpid()
