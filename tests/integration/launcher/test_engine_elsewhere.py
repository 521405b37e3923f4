"""An engine that the operator has chosen, and that is down, is never answered by starting one on this machine.

The real client decides which engine is meant; the `dockerd` and the package manager on PATH only write down that they
were started. Defence: `_refuse_where_not_ours` in launcher/engine.py.
"""

import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from launcher import engine
from launcher.docker import Command, docker, run
from launcher.errors import LauncherError

pytestmark = [pytest.mark.docker]

STARTERS = ("dockerd", "apt-get", "systemctl", "cgroupfs-mount")
ELSEWHERE = {
    "DOCKER_HOST by TCP": {"DOCKER_HOST": "tcp://127.0.0.1:{port}"},
    "DOCKER_HOST by ssh": {"DOCKER_HOST": "ssh://nobody@127.0.0.1:{port}"},
    "DOCKER_HOST by a socket": {"DOCKER_HOST": "unix://{home}/docker.sock"},
    "DOCKER_CONTEXT": {"DOCKER_CONTEXT": "down"},
    "a context that is not there": {"DOCKER_CONTEXT": "gone"},
    "docker context use": {"config": "down"},
    "docker context use of one that is gone": {"config": "gone"},
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose programs for starting an engine only say so, and a client with a context that nothing answers."""
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in STARTERS:
        (programs / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/started\nexit 1\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    docker("context", "create", "down", "--docker", f"host=tcp://127.0.0.1:{nobodys_port()}")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return tmp_path


def nobodys_port() -> int:
    """A port at which nothing listens, and which the kernel gives to nobody else soon."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def chosen(home: Path, monkeypatch: pytest.MonkeyPatch, how: Mapping[str, str]) -> None:
    port = nobodys_port()
    for name, value in how.items():
        if name == "config":
            settings = json.loads((home / "config.json").read_text()) if (home / "config.json").exists() else {}
            (home / "config.json").write_text(json.dumps(settings | {"currentContext": value}))
        else:
            monkeypatch.setenv(name, value.format(port=port, home=home))


@pytest.mark.parametrize("how", ELSEWHERE.values(), ids=ELSEWHERE)
def test_an_engine_elsewhere_is_not_replaced(home: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, str]) -> None:
    """It is refused, in words that name what was chosen, and nothing is started or installed."""
    chosen(home, monkeypatch, how)
    with pytest.raises(LauncherError, match="does not answer") as caught:
        engine.ensure_engine(lambda _line: None)
    named = how.get("DOCKER_HOST", "").partition(":{")[0].partition("{")[0] or next(reversed(how.values()))
    assert named in str(caught.value)
    assert "docker context use default" in caught.value.hint
    assert not (home / "started").exists()


def test_nor_is_its_client_installed_with_an_engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's package of the client and that of the engine start the engine: not for an engine elsewhere."""
    chosen(home, monkeypatch, ELSEWHERE["docker context use"])
    monkeypatch.setenv("PATH", str(home / "bin"))
    with pytest.raises(LauncherError, match=r"the context 'down'.*docker command is not installed"):
        engine.ensure_engine(lambda _line: None)
    assert not (home / "started").exists()


def test_this_machines_own_engine_is_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: where nothing else was chosen, the same refusal of the client's leads to a start."""
    monkeypatch.setattr(engine, "_version", lambda: ("", "Cannot connect to the Docker daemon"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(engine, "_mount_cgroups", lambda: None)
    monkeypatch.setattr(engine, "LOG", home / "log")
    with pytest.raises(LauncherError):
        engine.ensure_engine(lambda _line: None)
    assert (home / "started").read_text().split()[0] in ("dockerd", "systemctl")


def test_the_default_context_is_this_machines(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is another context that leads to the same socket."""
    del home
    assert engine._elsewhere() == ""
    run(Command(("docker", "context", "create", "here", "--docker", "host=unix:///var/run/docker.sock")))
    monkeypatch.setenv("DOCKER_CONTEXT", "here")
    assert engine._elsewhere() == ""
