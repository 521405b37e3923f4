"""`ctl start`, `stop` and `restart` of several children, and the wait for their effect (contract 6.2)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.support.init import PYTHON, ROOT, Init, running, sh

pytestmark = pytest.mark.real

SLOW = "exec sleep 600"
AFTER = "ready = { after = '300ms' }"


def ctl(init: Init, *words: str) -> tuple[int, str, str]:
    """What one command line of `ctl` comes to: its code, and what it prints."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "BOTTLE_INIT_CONTROL": init.control}
    done = subprocess.run([*PYTHON, "ctl", *words], env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def states(init: Init) -> dict[str, str]:
    """The state of each child."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "BOTTLE_INIT_CONTROL": init.control}
    done = subprocess.run([*PYTHON, "status", "--json"], env=env, capture_output=True, text=True, check=True)
    return {child["name"]: child["state"] for child in json.loads(done.stdout)["children"]}


def test_each_wait_ends_with_its_effect(tmp_path: Path) -> None:
    """Stopped means gone, started and restarted mean ready; and the stop of all is the stop of the bundle."""
    bundle = sh("daemon", "a", SLOW, AFTER) + sh("daemon", "b", SLOW, AFTER) + sh("oneshot", "first", "exit 0")
    bundle += sh("daemon", "c", SLOW)
    with running(tmp_path, bundle) as init:
        init.event("child_ready", "a")
        init.event("child_ready", "b")
        assert ctl(init, "restart", "a", "b", "--wait") == (0, "a: restarting\nb: restarting\n", "")
        assert [init.names().count(("child_ready", name)) for name in "ab"] == [2, 2]
        assert ctl(init, "stop", "a", "b", "--wait") == (0, "a: stopping\nb: stopping\n", "")
        assert states(init) == {"first": "ended", "a": "stopped", "b": "stopped", "c": "running"}
        assert ctl(init, "start", "--all", "--wait=20s") == (0, "a: starting\nb: starting\nc: already started\n", "")
        assert states(init) == {"first": "ended", "a": "running", "b": "running", "c": "running"}
        assert ctl(init, "stop", "--all", "--wait") == (0, "stopping\n", "")
        assert init.process.wait(1) == 0


def test_one_unknown_name_and_nothing_is_done(tmp_path: Path) -> None:
    with running(tmp_path, sh("daemon", "a", SLOW) + sh("daemon", "b", SLOW)) as init:
        init.event("child_ready", "a")
        init.event("child_ready", "b")
        told = "bottle-init ctl: nothing here is called 'c'; there are: a, b\n"
        assert ctl(init, "stop", "a", "c", "b") == (2, "", told)
        assert states(init) == {"a": "running", "b": "running"}
        assert init.stop() == 0


def test_what_does_not_come_in_time(tmp_path: Path) -> None:
    more = "enabled = false\nready = { exec = ['false'], timeout = '300s' }"
    with running(tmp_path, sh("daemon", "never", SLOW, more) + sh("daemon", "a", SLOW)) as init:
        init.event("child_ready", "a")
        told = "bottle-init ctl: never: not ready within 0.3s\n"
        assert ctl(init, "start", "never", "a", "--wait=300ms") == (
            1,
            "never: starting\na: already started\n",
            told,
        )
        assert init.stop() == 0
