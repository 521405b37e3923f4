"""A name is data too: no query of an agent leaves its bottle, on an engine that would let it.

The engine's own resolver is the way out (CVE-2024-29018: it forwards from internal networks, by the host's own resolver
where that is on loopback). So the test starts its own engine, next to a resolver on loopback that writes down what it
is asked, and first sees a query arrive from a container that lacks the launcher's precaution.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.backend.docker import DockerBottleBackend
from launcher.backend.docker.render import render
from launcher.plan import Subnets, object_name
from launcher.spec import AgentSpec, BottleSpec
from tests.integration.support.init import ROOT
from tests.integration.support.launching import AGENT_IMAGE, DEADLINE_S

pytestmark = [pytest.mark.docker, pytest.mark.real]

HELPER = ROOT / "tests/integration/support/private_engine.py"
FIXED_IN = (23, 0, 11)
Program = Callable[[str], tuple[str, ...]]


@dataclass(frozen=True)
class Forwarding:
    """A Docker engine and the names that its host's resolver was asked for."""

    directory: Path

    def run(self, *argv: str, check: bool = True) -> str:
        """A `docker` command line against it; returns what it wrote."""
        env = {**os.environ, "DOCKER_HOST": f"unix://{self.directory}/docker.sock"}
        return subprocess.run(argv, env=env, check=check, text=True, capture_output=True).stdout.strip()

    def queries(self) -> set[str]:
        """All names asked for so far."""
        return set((self.directory / "queries").read_text().split())


@pytest.fixture(scope="module")
def forwarding() -> Iterator[Forwarding]:
    if os.geteuid() != 0 or not (shutil.which("dockerd") and shutil.which("unshare")):
        pytest.skip("a second engine on this machine needs root, dockerd and unshare")
    # Not pytest's own directory: the path of a socket has room for 108 bytes.
    directory = Path("/tmp") / f"bottle-engine-{os.getpid()}"
    directory.mkdir(mode=0o700)
    (directory / "queries").touch()
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
    process = subprocess.Popen([*namespaces, sys.executable, str(HELPER), str(directory)])
    forwarding = Forwarding(directory)
    try:
        _wait_for_answer(forwarding, process)
        image = directory / "agent.tar"
        subprocess.run(["docker", "save", "--output", image, AGENT_IMAGE], check=True)
        forwarding.run("docker", "load", "--input", str(image))
        image.unlink()
        yield forwarding
        forwarding.run(
            "docker", "rm", "--force", *forwarding.run("docker", "ps", "--all", "--quiet").split(), check=False
        )
    finally:
        _end(process)
        shutil.rmtree(directory, ignore_errors=True)


def _wait_for_answer(forwarding: Forwarding, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not forwarding.run("docker", "version", "--format", "{{.Server.Version}}", check=False):
        log = (forwarding.directory / "log").read_text() if (forwarding.directory / "log").exists() else ""
        assert process.poll() is None, log[-3000:]
        assert time.monotonic() < deadline, log[-3000:]
        time.sleep(0.2)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask the engine to end: `unshare` passes no signal on, so its child is asked."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in map(int, children):
        os.kill(child, 15)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def by_libc(name: str) -> tuple[str, ...]:
    """What most programs do to resolve a name; ends well whether or not it resolves."""
    return ("sh", "-c", f"getent hosts {name} || true")


def by_hand(name: str) -> tuple[str, ...]:
    """A query to the engine's resolver itself, by a program that reads no resolv.conf."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = b"\0\1\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"
    program = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)\n"
        f"s.sendto({query!r}, ('127.0.0.11', 53))\n"
        "try: s.recv(512)\nexcept OSError: pass"
    )
    return ("python3", "-c", program)


def run_agent(
    forwarding: Forwarding, slug: str, command: tuple[str, ...], *, transparent: bool, precaution: bool
) -> None:
    """Run the launcher's own command lines for networks and agent, and wait for the agent's end."""
    agent = AgentSpec(image=AGENT_IMAGE, command=command, init="engine", runtime="")
    spec = BottleSpec("dns", slug=slug, agent=agent, transparent=transparent)
    plan = DockerBottleBackend().plan(spec, forwarding.directory / slug).with_networks(Subnets.drawn())
    steps = {step.name: step.command.argv for step in render(plan)}
    for name in ("internal.create", "agent.create", "agent.start"):
        forwarding.run(*(steps[name] if precaution else without_precaution(steps[name])))
    assert forwarding.run("docker", "wait", plan.agent.name) == "0"
    forwarding.run("docker", "rm", plan.agent.name)
    forwarding.run("docker", "network", "rm", object_name(slug, "internal"))


def without_precaution(argv: tuple[str, ...]) -> list[str]:
    """The command line without its options for DNS, each of which has a value."""
    kept, words = [], iter(argv)
    for word in words:
        if word.startswith("--dns"):
            next(words)
        else:
            kept.append(word)
    return kept


@pytest.mark.parametrize("program", [by_libc, by_hand])
def test_without_the_precaution_a_query_gets_out(forwarding: Forwarding, program: Program) -> None:
    """The negative control, where the engine is one that forwards."""
    version = forwarding.run("docker", "version", "--format", "{{.Server.Version}}")
    if tuple(int(part) for part in version.partition("+")[0].split(".")[:3]) >= FIXED_IN:
        pytest.skip(f"Docker {version} forwards no query from an internal network: there is nothing to see")
    name = f"control-{program.__name__.replace('_', '-')}"
    run_agent(forwarding, name, program(f"{name}.example"), transparent=False, precaution=False)
    assert f"{name}.example" in forwarding.queries()


@pytest.mark.parametrize("transparent", [True, False], ids=["transparent", "not transparent"])
@pytest.mark.parametrize("program", [by_libc, by_hand])
def test_no_query_of_an_agent_gets_out(forwarding: Forwarding, program: Program, transparent: bool) -> None:
    """Its nameserver is the bundle, which does not run here, or none."""
    name = f"walled-{program.__name__.replace('_', '-')}-{transparent}".lower()
    run_agent(forwarding, name, program(f"{name}.example"), transparent=transparent, precaution=True)
    assert f"{name}.example" not in forwarding.queries()
