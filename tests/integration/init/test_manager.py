"""What a service manager hears of the init that it has started (contract 5, sd_notify(3))."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support.init import eventually, running, sh

pytestmark = pytest.mark.real


class Heard:
    """A manager's socket, and the assignments that have come in, in their order."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.lines: list[str] = []

    def look(self) -> list[str]:
        try:
            while True:
                self.lines += self.socket.recv(4_096).decode().split("\n")
        except BlockingIOError:
            return self.lines


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    found = Heard(str(tmp_path / "notify"))
    yield found
    found.socket.close()


def env(tmp_path: Path) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify")}


def test_ready_is_said_once_all_daemons_have_been(tmp_path: Path, heard: Heard) -> None:
    """READY=1 comes when all daemons have been ready, once; STATUS= with each change of health; STOPPING=1 at last."""
    gate = tmp_path / "gate"
    bundle = sh("daemon", "a", "exec sleep 600") + sh(
        "daemon", "b", "exec sleep 600", f"ready = {{ exec = ['test', '-e', '{gate}'] }}\npolicy = 'restart'"
    )
    with running(tmp_path, bundle, env=env(tmp_path)) as init:
        eventually(lambda: "STATUS=starting (b)" in heard.look())
        init.event("child_ready", "a")
        assert "READY=1" not in heard.look()
        gate.touch()
        eventually(lambda: "STATUS=healthy" in heard.look())
        assert heard.lines.count("READY=1") == 1
        pid = init.event("child_started", "b")["pid"]
        gate.unlink()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: "STATUS=degraded (b)" in heard.look())
        gate.touch()
        eventually(lambda: heard.look().count("STATUS=healthy") == 2)
        assert init.stop() == 0
    assert heard.look()[-2:] == ["STOPPING=1", "STATUS=stopping"]
    assert heard.lines.count("READY=1") == 1


def test_without_daemons_ready_is_when_the_jobs_run(tmp_path: Path, heard: Heard) -> None:
    bundle = sh("oneshot", "o", "exit 0") + sh("job", "j", "exec sleep 600", "after = ['o']")
    with running(tmp_path, bundle, env=env(tmp_path)) as init:
        eventually(lambda: "READY=1" in heard.look())
        init.event("child_started", "j")
        assert init.stop() == 0


@pytest.mark.parametrize("address", ["{}/nothing", "relative", "vsock:2:1234"])
def test_an_unreachable_manager_stops_nothing(tmp_path: Path, address: str) -> None:
    variables = {"NOTIFY_SOCKET": address.format(tmp_path)}
    with running(tmp_path, sh("daemon", "a", "exec sleep 600"), env=variables) as init:
        assert init.event("manager_unreachable")["reason"]
        assert init.stop() == 0
        assert len([name for name, _ in init.names() if name == "manager_unreachable"]) == 1


def test_a_manager_that_does_not_read_delays_nothing(tmp_path: Path, heard: Heard) -> None:
    """Where the manager's queue is full the init goes on, and says what there was to say when there is room."""
    filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    filler.connect(str(tmp_path / "notify"))
    filler.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            filler.send(b"X=1")
    with running(tmp_path, sh("daemon", "a", "exec sleep 600"), env=env(tmp_path)) as init:
        init.event("child_ready", "a")
        eventually(lambda: "READY=1" in heard.look())
        assert init.stop() == 0
    filler.close()
