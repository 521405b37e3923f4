"""Contract 4 on the real kernel: a capability that a oneshot keeps from all that start after it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bottle_init.linux.sys import libc
from tests.integration.support.init import PYTHON, Init, eventually, running, sh

pytestmark = [pytest.mark.real, pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to give up")]

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
TELL = "grep ^Cap /proc/self/status"


def bit(name: str) -> int:
    return 1 << libc.CAPABILITIES.index(name)


def sets_of(lines: str) -> dict[str, int]:
    pairs = [line.split(":") for line in lines.splitlines() if line.startswith("Cap")]
    return {name: int(value, 16) for name, value in pairs}


def told(init: Init, name: str) -> dict[str, int]:
    """The capability sets that a child has told of itself."""
    lines = [line.removeprefix(f"[{name}] ") for line in init.out if line.startswith(f"[{name}] Cap")]
    return sets_of("\n".join(lines))


def test_what_is_kept_is_in_nobodys_set_later(tmp_path: Path, pid_1: bool) -> None:
    """Not in root's own children, not after an exec that gives root all that is bounded, not in the init."""
    bundle = (
        sh("oneshot", "first", TELL, "keeps = ['NET_ADMIN', 'CAP_SYS_TIME']")
        + sh(
            "oneshot",
            "second",
            f"{TELL}; echo up; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done",
            "keeps = ['sys_time']",
        )
        + sh("daemon", "early", f"{TELL}; exec sleep 600")
        + sh("daemon", "late", f"{TELL}; echo up; exec sleep 600", "after = ['first', 'second']\nno_new_privs = false")
    )
    gone = bit("net_admin") | bit("sys_time")
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        init.line("[second] up")
        init.event("oneshot_done", "first")
        assert sets_of(Path(f"/proc/{init.pid}/status").read_text())["CapEff"] & gone == gone
        (tmp_path / "go").touch()
        init.line("[late] up")
        assert init.event("capabilities_dropped")["capabilities"] == ["net_admin", "sys_time"]
        assert {name: value & gone for name, value in told(init, "late").items()} == dict.fromkeys(SETS, 0)
        own = sets_of(Path(f"/proc/{init.pid}/status").read_text())
        assert {name: own[name] & gone for name in SETS} == dict.fromkeys(SETS, 0)
        assert own["CapEff"] & bit("kill"), "and nothing else is lost"
        for name in ("first", "second", "early"):
            assert told(init, name)["CapEff"] & gone == gone, name
        for order in () if pid_1 else ("start", "restart"):  # An init answers to its own PID namespace alone.
            asked = [*PYTHON, "ctl", order, "first", f"--control={init.control}"]
            refused = subprocess.run(asked, capture_output=True, text=True, check=False)
            assert refused.returncode == 1
            assert "first: cannot be started again: it has kept NET_ADMIN, SYS_TIME" in refused.stderr
        assert init.stop() == 0
    assert init.names().count(("child_started", "first")) == 1


def test_what_cannot_be_given_up_stops_all(tmp_path: Path) -> None:
    """Without SETPCAP nothing leaves the bounding set, out of which root's programs get it back."""
    bundle = sh("oneshot", "setup", "true", "keeps = ['net_admin']") + sh(
        "daemon", "d", "exec sleep 600", "after = ['setup']"
    )
    lacks = ("setpriv", "--bounding-set=-setpcap", "--inh-caps=-setpcap")
    with running(tmp_path, bundle, prefix=lacks) as init:
        assert init.wait() == 69
        cause = init.report()["cause"]
        assert ("child_started", "d") not in init.names()
    assert cause == "NET_ADMIN could not be given up: without SETPCAP nothing takes NET_ADMIN out of the bounding set"


def test_what_was_never_there_is_no_fault(tmp_path: Path) -> None:
    bundle = sh("oneshot", "setup", "true", "keeps = ['sys_time']") + sh(
        "daemon", "d", "echo up; exec sleep 600", "after = ['setup']"
    )
    lacks = ("setpriv", "--bounding-set=-sys_time", "--inh-caps=-sys_time")
    with running(tmp_path, bundle, prefix=lacks) as init:
        init.line("[d] up")
        eventually(lambda: ("capabilities_dropped", "") in init.names(), "the event")
        assert init.stop() == 0
