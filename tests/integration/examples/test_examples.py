"""Every directory of examples/ is run as its own first line says. So no example goes stale."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support.init import PATIENCE_S, PYTHON, ROOT, Init, eventually, running

EXAMPLES = ROOT / "examples"
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x49))  # SIOCSIFFLAGS: IFF_UP
os.execvp(sys.argv[1], sys.argv[1:])
"""
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}
OWN_NETWORK = ("unshare", "--net", sys.executable, "-c", LOOPBACK_UP)
"""The ports of an example are fixed; a network namespace keeps them apart from everything else on the machine."""


@contextmanager
def example(name: str, tmp_path: Path, **options: Any) -> Iterator[Init]:
    """The bundle of an example, run in a copy of its directory as PID 1."""
    shutil.copytree(EXAMPLES / name, tmp_path / name)
    text = (EXAMPLES / name / "bundle.toml").read_text()
    with running(tmp_path, text, pid_1=True, prefix=OWN_NETWORK, cwd=tmp_path / name, **options) as init:
        yield init


def beside(init: Init, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the network and PID namespaces of an init."""
    inside = ["nsenter", f"--target={init.pid}", "--net", "--pid", *command]
    return subprocess.run(inside, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=ENVIRON)


def fetched(init: Init, url: str) -> str:
    """The body at a URL inside; empty if there is no answer, or one that is an error."""
    code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode(), end='')"
    return beside(init, sys.executable, "-c", code, url).stdout


@pytest.mark.real
def test_web_starts_recovers_and_stops(tmp_path: Path) -> None:
    with example("web", tmp_path) as init:
        init.event("child_ready", "proxy")
        assert fetched(init, "http://127.0.0.1:8080/hello") == "the application answers /hello\n"

        beside(init, *PYTHON, "ctl", f"--control={init.control}", "signal", "app", "KILL")
        init.event("child_ready", "app", count=2)
        assert fetched(init, "http://127.0.0.1:8080/again") == "the application answers /again\n"

        assert init.stop() == 0
        ended = [child for event, child in init.names() if event == "child_exited"]
        assert ended == ["migrate", "app", "proxy", "app"]


@pytest.mark.real
@pytest.mark.parametrize(("broken", "code"), [("", 0), ("1", 1)], ids=["passes", "fails"])
def test_job_gives_the_exit_code(tmp_path: Path, broken: str, code: int) -> None:
    """Both outcomes, so that the 0 means something."""
    with example("job", tmp_path, env={"BROKEN": broken}) as init:
        assert init.wait() == code


@pytest.mark.real
def test_follow_prints_a_death(tmp_path: Path) -> None:
    bundle = "[bundle]\npolicy = 'restart'\n[daemons.web]\ncommand = ['/bin/sleep', 'inf']\n"
    command = [sys.executable, str(EXAMPLES / "follow/follow.py")]
    with running(tmp_path, bundle) as init:
        pid = init.event("child_started", "web")["pid"]
        init.event("child_ready", "web")
        with subprocess.Popen([*command, init.control], stdout=subprocess.PIPE, text=True, env=ENVIRON) as follow:
            assert follow.stdout
            assert follow.stdout.readline() == "following a bundle that is healthy\n"
            os.kill(pid, signal.SIGKILL)
            assert follow.stdout.readline() == "web has ended with 137\n"
            assert follow.stdout.readline() == "web is started again in 500 ms\n"
            assert init.stop() == 0
        assert follow.returncode == 0


@pytest.mark.parametrize("missing", ["", "after", "restart_dependents"])
def test_promise_holds_with_both_lines_only(tmp_path: Path, missing: str) -> None:
    """The negative control belongs to the example: its promise depends on two lines of the bundle file."""
    directory = tmp_path / "promise"
    shutil.copytree(EXAMPLES / "promise", directory)
    lines = (directory / "bundle.toml").read_text().splitlines()
    kept = [line for line in lines if not (missing and line.startswith(missing))]
    assert len(kept) == len(lines) - bool(missing)
    (directory / "bundle.toml").write_text("\n".join(kept))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--bottle-runs=200"]
    done = subprocess.run(command, cwd=directory, env=ENVIRON, capture_output=True, text=True, check=False)
    assert done.returncode == bool(missing), done.stdout


@pytest.mark.docker
def test_container_is_healthy(agent_image: str, tmp_path: Path) -> None:
    """Built on the agent's image: it has Debian's Python, and no init of ours yet."""
    tag = f"bottle-example-{os.getpid()}"
    name = f"{tag}-{tmp_path.name}"

    def docker(*words: str) -> str:
        return subprocess.run(["docker", *words], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()

    docker("build", "-q", "-t", tag, "-f", "examples/container/Dockerfile", f"--build-arg=BASE={agent_image}", ".")
    try:
        docker("run", "-d", "--name", name, tag)
        eventually(lambda: docker("inspect", "-f", "{{.State.Health.Status}}", name) == "healthy")
        docker("stop", name)
        assert docker("inspect", "-f", "{{.State.ExitCode}}", name) == "0"
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
        docker("rmi", tag)


def test_every_example_is_run_here() -> None:
    tests: dict[str, Callable[..., object]] = {name: value for name, value in globals().items() if callable(value)}
    directories = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert directories == {name.split("_")[1] for name in tests if name.startswith("test_")} - {"every"}
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"[{name}]({name})" in listed for name in directories)
