"""The built image, started as the launcher starts it: it becomes healthy, and ends as the contract says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support.image import DAEMONS, Bundle, bundle, check, eventually, run

pytestmark = pytest.mark.docker

SECOND_NS = 1_000_000_000


@pytest.fixture
def running(bundle_image: str, tmp_path: Path) -> Iterator[Bundle]:
    """A healthy bundle of the test's own."""
    with bundle(bundle_image, tmp_path) as started:
        started.wait_healthy()
        yield started


def test_healthy_in_all_four_then_a_clean_stop(bundle_image: str, tmp_path: Path) -> None:
    """The bundle becomes healthy in all four daemons, and a stop is a success. The check is the image's own, sooner."""
    with bundle(bundle_image, tmp_path, healthcheck={"interval": SECOND_NS}) as running:
        eventually(lambda: running.health() == "healthy", "Docker's own health check")
        assert sorted(running.daemons()) == sorted(DAEMONS)
        _, answer = run(running.container, "python3", "-I", "-m", "bottle_init", "health")
        assert all(daemon in answer for daemon in DAEMONS)
        assert running.stop() == 0, running.logs


@pytest.mark.parametrize("victim", DAEMONS)
def test_a_killed_daemon_ends_the_bundle_with_its_code(running: Bundle, victim: str) -> None:
    check(running.container, "sh", "-c", f"kill -KILL {running.daemons()[victim].pid}")
    assert running.wait_ended() == 137, running.logs
    assert not running.docker.attrs["State"]["OOMKilled"]


def test_no_signal_for_other_purposes_kills_anything(running: Bundle) -> None:
    """HUP reloads egress, pipelock and git-gate; USR1 and USR2 reach no daemon, least of all the kill switch."""
    before = {name: process.pid for name, process in running.daemons().items()}
    for name in ("SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGHUP"):
        running.docker.kill(signal=name)
    reloaded = ("egress.reloaded", "pipelock.reloaded", "git_gate.reloaded")
    eventually(lambda: all(event in running.logs for event in reloaded), "three reloads")
    assert {name: process.pid for name, process in running.daemons().items()} == before
    health = check(running.container, "python3", "-I", "-c", _PIPELOCK_HEALTH)
    assert json.loads(health)["kill_switch_active"] is False


_PIPELOCK_HEALTH = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8888/health').read().decode())"
_ORPHANS = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do (sleep 0.05 &) ; done"


def test_orphans_of_fifty_execs_leave_no_zombie(running: Bundle) -> None:
    for _ in range(50):
        check(running.container, "sh", "-c", _ORPHANS)
    eventually(lambda: not [p for p in running.processes() if p.command.startswith("sleep")], "the orphans' end")
    assert [process for process in running.processes() if process.status["State"].startswith("Z")] == []
    assert sorted(running.daemons()) == sorted(DAEMONS)


def test_a_subset_runs_alone(bundle_image: str, tmp_path: Path) -> None:
    chosen = {"CLAUDE_BOTTLE_SIDECAR_DAEMONS": "egress,pipelock"}
    with bundle(bundle_image, tmp_path, environment=chosen) as started:
        started.wait_healthy()
        assert sorted(started.daemons()) == ["egress", "pipelock"]
        assert started.stop() == 0, started.logs


def test_a_policy_with_faults_starts_no_daemon(bundle_image: str, tmp_path: Path) -> None:
    broken = '[egress]\nallow = ["*."]\nalow = []\n'
    with bundle(bundle_image, tmp_path, broken) as started:
        assert started.wait_ended() == 78, started.logs
        assert "/etc/bottle/policy.toml: egress.allow[0]: " in started.logs
        assert "a wildcard has the form *.DOMAIN" in started.logs
        assert "egress.alow: unknown key; did you mean allow?" in started.logs
        assert "Traceback" not in started.logs


def test_a_secret_that_is_missing_starts_no_daemon(bundle_image: str, tmp_path: Path) -> None:
    policy = """
        [egress]
        allow = ["a.test"]
        credentials = [{ host = "a.test", header = "X-Key", value_file = "/run/secrets/missing" }]
    """
    with bundle(bundle_image, tmp_path, policy) as started:
        assert started.wait_ended() == 78, started.logs
        assert "egress.credentials[0].value_file: /run/secrets/missing: No such file or directory" in started.logs


def test_missing_capabilities_are_named(bundle_image: str, tmp_path: Path) -> None:
    """A container without the capabilities that the bundle needs says which ones."""
    with bundle(bundle_image, tmp_path, capabilities=["KILL"]) as started:
        assert started.wait_ended() == 78, started.logs
        assert "setup: Operation not permitted. The bundle has to start as root with SETUID" in started.logs
        assert "Traceback" not in started.logs


def test_pipelock_by_name_never_falls_back(bundle_image: str, tmp_path: Path) -> None:
    """Without the kernel rules there is no redirect, whether the image has the binary or not."""
    policy = 'walls = "without-kernel-rules"'
    with bundle(bundle_image, tmp_path, policy, environment={"PIPELOCK_ENGINE": "pipelock"}) as started:
        assert started.wait_ended() == 69, started.logs
        assert "PIPELOCK_ENGINE asks for the engine 'pipelock', and" in started.logs
