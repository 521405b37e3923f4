"""Contract 5 on the real kernel: which signals reach whom, and what is told of each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.support.init import PYTHON, eventually, running, sh

pytestmark = pytest.mark.real

RTMIN = 34


def catches(name: str, number: str, more: str = "") -> str:
    """A daemon with a handler that says so."""
    return sh("daemon", name, f'trap "echo got {number}" {number}; echo up; while :; do sleep 0.05; done', more)


def test_whom_a_signal_reaches(tmp_path: Path, pid_1: bool) -> None:
    """Those that name it, and not even one that has a handler: that shows no wish (docs/signals.md says why)."""
    bundle = (
        catches("catches", "HUP")
        + sh("daemon", "dies", "echo up; exec sleep 600")
        + catches("named", "HUP", "signals = { HUP = 'HUP' }")
        + catches("rewrites", "USR2", "signals = { HUP = 'USR2' }")
        + catches("drops", "HUP", "signals = { HUP = 0 }")
    )
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        for name in ("catches", "dies", "named", "rewrites", "drops"):
            init.line(f"[{name}] up")
        init.send(signal.SIGHUP)
        init.line("[named] got HUP")
        init.line("[rewrites] got USR2")
        told = init.event("signal_received")
        assert init.stop() == 0
    assert (told["signal"], told["sent_to"]) == (1, ["named", "rewrites"])
    assert told["passed_over"] == dict.fromkeys(("catches", "dies", "drops"), "not named")
    assert not {"[catches] got HUP", "[drops] got HUP"} & set(init.out)


def test_a_child_that_waits_without_a_handler(tmp_path: Path) -> None:
    """It gets what it names: `SigCgt` does not show sigwait(3)."""
    code = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [1]); print(chr(117) + chr(112), flush=True); "
    code += 'print(f"got {signal.sigwait([1])}", flush=True); signal.pause()'
    bundle = f"[daemons.d]\ncommand = ['{sys.executable}', '-c', '''{code}''']\nsignals = {{ HUP = 'HUP' }}\n"
    with running(tmp_path, bundle) as init:
        init.line("[d] up")
        init.send(signal.SIGHUP)
        init.line("[d] got 1")
        assert init.stop() == 0


def test_who_sent_a_signal_is_told(tmp_path: Path) -> None:
    bundle = catches("d", "HUP", "signals = { HUP = 'HUP' }")
    with running(tmp_path, bundle) as init:
        init.line("[d] up")
        script = f"kill -HUP {init.pid}; exec sleep 600"
        with subprocess.Popen(["/bin/sh", "-c", script]) as sender:
            told = init.event("signal_received")
            sender.kill()
        assert init.stop() == 0
    assert (told["sender_pid"], told["sender_uid"]) == (sender.pid, os.getuid())
    assert told["sender_name"] in ("sh", "dash", "sleep")


def test_a_signal_that_comes_too_early(tmp_path: Path, pid_1: bool) -> None:
    """It is delivered once, and later than the handler is set: at once it would have ended the child."""
    script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; "
    script += f'trap "echo got HUP" HUP; touch {tmp_path}/ready; while :; do sleep 0.05; done'
    ready = f"ready = {{ exec = ['test', '-e', '{tmp_path}/ready'] }}\nsignals = {{ HUP = 'HUP', USR1 = 'HUP' }}"
    with running(tmp_path, sh("daemon", "d", script, ready), pid_1=pid_1) as init:
        init.event("child_started", "d")
        init.send(signal.SIGHUP)
        assert init.event("signal_received")["waiting"] == {"d": "not ready"}
        init.send(signal.SIGUSR1)
        init.event("signal_received", count=2)
        (tmp_path / "go").touch()
        init.line("[d] got HUP")
        assert init.event("signal_delivered", "d")["signal"] == 10
        assert init.stop() == 0
    assert init.out.count("[d] got HUP") == 1


def test_what_waits_for_a_process_ends_with_it(tmp_path: Path) -> None:
    script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit 3"
    ready = f"ready = {{ exec = ['test', '-e', '{tmp_path}/never'] }}\nsignals = {{ HUP = 'HUP' }}"
    with running(tmp_path, sh("daemon", "d", script, ready)) as init:
        init.event("child_started", "d")
        init.send(signal.SIGHUP)
        init.event("signal_received")
        (tmp_path / "go").touch()
        assert init.wait() == 3
        assert init.event("signal_dropped", "d")["signal"] == 1


def test_a_death_by_a_forwarded_signal(tmp_path: Path) -> None:
    """Report and `explain` say who sent it."""
    path = tmp_path / "report.json"
    bundle = sh("daemon", "d", "echo up; exec sleep 600", "signals = { USR1 = 'HUP' }")
    with running(tmp_path, bundle, f"--report={path}") as init:
        init.line("[d] up")
        init.send(signal.SIGUSR1)
        assert init.wait() == 129
        death = init.report()["deaths"][0]
    assert (death["signal"], death["severity"]) == ("HUP", "crash")
    forwarded = death["forwarded"]
    assert (forwarded["signal"], forwarded["pid"], forwarded["uid"]) == ("USR1", os.getpid(), os.getuid())
    assert forwarded["name"] == Path("/proc/self/comm").read_text().strip()
    told = subprocess.run([*PYTHON, "explain", str(path)], capture_output=True, text=True, check=True).stdout
    assert f"USR1 had been forwarded to it {forwarded['ago_ms']} ms before, sent by process {os.getpid()}" in told


MEANT = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCONT),
    *(signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH),
}
THREADS = (32, 33)
"""The C library's own two are no real-time signals, and in nobody's mask."""


def test_any_other_signal_is_ignored_and_told(tmp_path: Path, pid_1: bool) -> None:
    with running(tmp_path, catches("d", "HUP", "signals = { HUP = 'HUP' }"), pid_1=pid_1) as init:
        init.line("[d] up")
        others = sorted(set(range(1, RTMIN)) - MEANT)
        for number in others:
            init.send(number)
        init.send(signal.SIGHUP)
        init.line("[d] got HUP")
        assert init.stop() == 0
        ignored = {event["signal"] for event in init.events if event.get("effect") == "ignored"}
        assert ignored == set(others) - {signal.SIGCHLD, *THREADS}


def test_real_time_signals_are_forwarded(tmp_path: Path) -> None:
    script = "import signal, time; signal.signal(40, lambda *a: print('got 40', flush=True)); "
    script += "print('up', flush=True)\nwhile True: time.sleep(0.1)"
    (tmp_path / "d.py").write_text(script)
    bundle = f"[daemons.d]\ncommand = ['{sys.executable}', '{tmp_path}/d.py']\nsignals = {{ 'RTMIN+6' = 'RTMIN+6' }}\n"
    with running(tmp_path, bundle) as init:
        init.line("[d] up")
        init.send(40)
        init.line("[d] got 40")
        assert init.stop() == 0


def test_a_failed_write_of_the_inits_own(tmp_path: Path) -> None:
    """That is no signal to tell of: told where nobody reads, it would bring the next one about, without an end."""
    read, write = os.pipe()
    os.close(read)
    bundle = "[bundle]\nstop_signals = ['PIPE', 'TERM']\n"
    bundle += sh("daemon", "d", f"for i in 1 2 3; do echo line; done; touch {tmp_path}/up; exec sleep 600")
    with running(tmp_path, bundle, stdout=write) as init:
        os.close(write)
        eventually((tmp_path / "up").exists, "the lines")
        assert init.stop() == 0
        assert init.report()["lines_dropped"] == 3
        told = [event["signal"] for event in init.events if event["event"] == "signal_received"]
    assert told == [15]


# Stop signals.


@pytest.mark.parametrize("number", [signal.SIGWINCH, signal.SIGRTMIN + 3, signal.SIGPWR])
def test_a_bundle_names_its_stop_signals(tmp_path: Path, number: int, pid_1: bool) -> None:
    """Of the usual ones what it does not name is ignored."""
    bundle = "[bundle]\nstop_signals = ['WINCH', 'RTMIN+3', 'PWR']\n"
    bundle += sh("daemon", "d", 'trap "echo term; exit 0" TERM; echo up; while :; do sleep 0.05; done')
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        init.line("[d] up")
        for usual in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            init.send(usual)
        init.event("signal_received", count=3)
        assert init.stop(number) == 0
        assert init.report()["cause"] == f"signal {number}"
        effects = [event["effect"] for event in init.events if event["event"] == "signal_received"]
    assert effects == ["ignored"] * 3 + ["stop requested"]
    assert init.out.count("[d] term") == 1


SLOW_CLOCK = """
import sys
from bottle_init.linux import init
real = init.monotonic_ms
init.monotonic_ms = lambda: real() // 100_000
from bottle_init.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""The init's five milliseconds last for minutes."""


def test_a_stop_signal_soon_after_the_first(tmp_path: Path, pid_1: bool) -> None:
    script = f'trap "" TERM; echo up; while [ ! -e {tmp_path}/end ]; do sleep 0.05; done'
    with running(tmp_path, sh("daemon", "d", script), pid_1=pid_1, executable_code=(SLOW_CLOCK,)) as init:
        init.line("[d] up")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            init.send(number)
            init.event("signal_received", count=init.names().count(("signal_received", "")) + 1)
        (tmp_path / "end").touch()
        assert init.wait() == 0
        effects = [event["effect"] for event in init.events if event["event"] == "signal_received"]
    assert effects == ["stop requested", "the same request", "the same request"]
