"""What is started when: daemons that are disabled, and daemons that are ready after a time (contract 4)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.support.init import PYTHON, ROOT, Init, running, sh

pytestmark = pytest.mark.real


def ask(init: Init, *words: str) -> str:
    """What a command prints that asks this init."""
    env = {"BOTTLE_INIT_CONTROL": init.control, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([*PYTHON, *words], env=env, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_a_disabled_child_waits_for_ctl_start(tmp_path: Path) -> None:
    """It is not started with the bundle, what is after it does not wait for it, and it is no part of the health."""
    bundle = sh("daemon", "off", "exec sleep 600", "enabled = false") + sh(
        "daemon", "on", "exec sleep 600", "after = ['off']"
    )
    with running(tmp_path, bundle) as init:
        init.event("child_ready", "on")
        assert ask(init, "health").startswith("healthy")
        assert ("child_started", "off") not in init.names()
        assert "starting" in ask(init, "ctl", "start", "off")
        init.event("child_ready", "off")
        ask(init, "ctl", "stop", "off")
        init.event("child_exited", "off")
        assert ask(init, "health").startswith("healthy")
        assert init.stop() == 0


def test_ready_after_a_time(tmp_path: Path) -> None:
    """A daemon with `ready.after` is ready once it has run that long; what is after it starts then."""
    bundle = sh("daemon", "slow", "exec sleep 600", "ready = { after = '300ms' }") + sh(
        "job", "j", "exit 0", "after = ['slow']"
    )
    with running(tmp_path, bundle) as init:
        assert init.wait() == 0
        assert init.event("child_ready", "slow")["after_ms"] >= 300
        names = init.names()
        assert names.index(("child_ready", "slow")) < names.index(("child_started", "j"))


def test_a_daemon_that_ends_before_its_time(tmp_path: Path) -> None:
    bundle = sh("daemon", "slow", "exit 3", "ready = { after = '10s' }") + sh("job", "j", "exit 0", "after = ['slow']")
    with running(tmp_path, bundle) as init:
        assert init.wait() == 3
        assert ("child_ready", "slow") not in init.names()
