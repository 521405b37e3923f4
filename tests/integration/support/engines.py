"""The engines that the walls are tried on: the machine's own, and others in a container each.

$BOTTLE_ENGINES names them, separated by spaces or commas, or is `all`. Those in a container are of the images that
`python -m tools.engines` builds; such a container has every capability, and is a machine for the engine in it.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest

from launcher.backend import get_bottle_backend
from launcher.backend.podman import docker_is_podman
from launcher.docker import docker
from launcher.plan import AGENT_IMAGE, BUNDLE_IMAGE
from tests.integration.support.init import eventually
from tools.engines import NotBuilt, is_compiled, make, tag

DEFAULT = ("docker", "swarm")
"""What CI has time for."""
VARIABLE = "BOTTLE_ENGINES"
IMAGES = (BUNDLE_IMAGE, AGENT_IMAGE)
PORT, SSH_PORT = 2375, 22
NUMBERS = count()
# CAP_SYS_RESOURCE is not everywhere there to be given, and no engine needs it.
PRIVILEGES = (
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--cgroupns", "private"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"),
    *("--security-opt", "apparmor=unconfined", "--device-cgroup-rule", "a *:* rwm"),
)


class NotHad(Exception):
    """Why an engine cannot be had here."""


@dataclass(frozen=True)
class Engine:
    """One that runs, while the environment leads to it."""

    backend: str
    """The name of the launcher's backend for it."""
    name: str = ""
    execute: Callable[..., str] | None = None
    """Runs a command on its machine, where names of a bottle's internet have to be written into a file."""
    node: str = ""
    """Of a cluster: the container that is its node, on this machine's engine."""

    @property
    def is_docker(self) -> bool:
        """Whether the command `docker` describes its containers, networks and volumes."""
        return self.backend != "kubernetes"

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine, and sees its files and processes."""
        return self.name == "docker"


class Box:
    """A container that is a machine with an engine on it. Its own engine is this machine's, whatever a test sets."""

    def __init__(self, name: str, image: str, *options: str, command: Sequence[str] = ()) -> None:
        self.name = name
        self.program = shutil.which("docker") or "docker"
        self._environment = dict(os.environ)
        self.own("network", "create", name)
        volumes = ("/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet")
        own = [word for target in volumes for word in ("--volume", target)]
        labels = ("--name", name, "--hostname", "box", "--network", name)
        self.own("run", "--detach", "--pull", "never", *labels, *PRIVILEGES, *own, *options, image, *command)

    def own(self, *words: str) -> str:
        """`docker WORDS…` of this machine's engine; raises `NotHad` with what it says where it fails."""
        argv = (self.program, *words)
        done = subprocess.run(argv, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotHad(f"docker {' '.join(words[:2])}: {done.stderr.strip()}")
        return done.stdout.strip()

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return self.own("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.name)

    def execute(self, *command: str) -> str:
        """Run a command in it."""
        return self.own("exec", self.name, *command)

    def answers(self, *command: str) -> Callable[[], bool]:
        """Whether a command succeeds in it; raises `NotHad` once the box has ended."""

        def asked() -> bool:
            if self.own("inspect", "--format", "{{.State.Running}}", self.name) != "true":
                raise NotHad(f"{self.name} has ended: {self.own('logs', '--tail', '20', self.name)}")
            argv = (self.program, "exec", self.name, *command)
            return subprocess.run(argv, env=self._environment, capture_output=True, check=False).returncode == 0

        return asked

    def load(self, images: Sequence[str], *command: str) -> None:
        """Bring images of this machine's engine there."""
        save, load = (self.program, "save", *images), (self.program, "exec", "--interactive", self.name, *command)
        with subprocess.Popen(save, env=self._environment, stdout=subprocess.PIPE) as source:
            loaded = subprocess.run(
                load, env=self._environment, stdin=source.stdout, capture_output=True, text=True, check=False
            )
        if source.returncode or loaded.returncode:
            raise NotHad(f"the images did not get to {self.name}: {loaded.stderr.strip()}")

    def program_on_path(self, directory: Path, name: str, *command: str) -> None:
        """A program of that name, which runs a command in the box, and its standard input and output are its own."""
        script = directory / name
        words = shlex.join((self.program, "exec", "--interactive", self.name, *command))
        environment = shlex.join(f"{key}={value}" for key, value in self._environment.items() if key == "PATH")
        script.write_text(f'#!/bin/sh\n# {name} in a box.\nexec env {environment} {words} "$@"\n')
        script.chmod(0o755)

    def close(self) -> None:
        """Take it down, with all that is in it."""
        self.own("rm", "--force", "--volumes", self.name)
        self.own("network", "rm", self.name)


@contextmanager
def box(image: str, *options: str, command: Sequence[str] = ()) -> Iterator[Box]:
    """A box of one of our own images, which is built where it is not up to date."""
    if docker_is_podman():
        raise NotHad("a box is a container of Docker's")
    if not is_compiled(image):
        raise NotHad(f"its programs are not built here: `make {image}` compiles them")
    try:
        make(image)
    except NotBuilt as error:
        raise NotHad(f"its image cannot be built: {error}") from None
    there = Box(f"bottle-engine-{image}-{os.getpid()}-{next(NUMBERS)}", tag(image), *options, command=command)
    try:
        yield there
    finally:
        there.close()


def here(*command: str) -> str:
    """Run a command on this machine."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def own_docker(_directory: Path, _patch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The engine of this machine, which may be Podman."""
    if docker_is_podman():
        yield Engine("podman", execute=here)
    else:
        yield Engine("docker")


@contextmanager
def docker_box(image: str = "docker") -> Iterator[Box]:
    """A box with a Docker engine that has our images."""
    with box(image) as there:
        eventually(there.answers("docker", "version"), "the engine's answer")
        there.load(IMAGES, "docker", "load", "--quiet")
        yield there


@contextmanager
def swarm(_directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A swarm of one, on an engine of its own.

    An engine that leaves its swarm forgets the names of all containers that run on it (moby/moby#45144), so this
    machine's, which has those of other tests, never joins one.
    """
    with docker_box() as there:
        patch.setenv("DOCKER_HOST", f"tcp://{there.address}:{PORT}")
        docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        yield Engine("swarm")


@contextmanager
def by_tcp(_directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine elsewhere, by $DOCKER_HOST."""
    with docker_box() as there:
        patch.setenv("DOCKER_HOST", f"tcp://{there.address}:{PORT}")
        yield Engine("docker")


@contextmanager
def docker_29(_directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A newer engine, by $DOCKER_HOST."""
    with docker_box("docker29") as there:
        patch.setenv("DOCKER_HOST", f"tcp://{there.address}:{PORT}")
        yield Engine("docker")


@contextmanager
def by_ssh(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine elsewhere, by $DOCKER_HOST over ssh."""
    ssh = shutil.which("ssh")
    if ssh is None:
        raise NotHad("ssh is not installed")
    with docker_box() as there:
        key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        public = key.with_suffix(".pub").read_text().strip()
        there.execute(
            "sh", "-c", f"mkdir -p -m 0700 /root/.ssh && echo {shlex.quote(public)} > /root/.ssh/authorized_keys"
        )
        there.execute("sh", "-c", "ssh-keygen -A && /usr/sbin/sshd -o MaxStartups=200")
        # The operator's own settings are by no means touched: OpenSSH takes them from the home that passwd names.
        options = (f"IdentityFile={key}", "StrictHostKeyChecking=no", f"UserKnownHostsFile={directory}/known_hosts")
        words = shlex.join((ssh, "-F", "none", *(word for option in options for word in ("-o", option))))
        (directory / "ssh").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (directory / "ssh").chmod(0o755)
        patch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        patch.setenv("DOCKER_HOST", f"ssh://root@{there.address}:{SSH_PORT}")
        yield Engine("docker")


@contextmanager
def by_context(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine elsewhere, by the context that `docker context use` has chosen."""
    with docker_box() as there:
        patch.setenv("DOCKER_CONFIG", str(directory))
        docker("context", "create", "elsewhere", "--docker", f"host=tcp://{there.address}:{PORT}")
        docker("context", "use", "elsewhere")
        yield Engine("docker")


@contextmanager
def podman(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Podman behind the command `docker`: here a program that runs it in its box."""
    if docker_is_podman():
        yield Engine("podman", execute=here)
        return
    # Podman's client reads the filter of system calls, and has the operator's directories on its own machine.
    sources = str(Path(__file__).parents[3] / "launcher")
    with box("podman", "--volume", f"{sources}:{sources}:ro") as there:
        eventually(there.answers("podman", "version"), "the engine's answer")
        there.load(IMAGES, "podman", "load", "--quiet")
        there.program_on_path(directory, "docker", "podman")
        patch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        assert docker_is_podman()
        yield Engine("podman", execute=there.execute)


@contextmanager
def cluster(directory: Path, *, fenced: bool = True) -> Iterator[Box]:
    """A cluster of one node that has our images, and a `kubectl` in the directory. Without `fenced` nothing enforces a
    NetworkPolicy in it. Raises `NotHad` where its programs were not built.
    """
    with box("kubernetes", command=() if fenced else ("cluster", "unfenced")) as there:
        try:
            make("pause")
        except NotBuilt as error:
            raise NotHad(f"the image of its pods cannot be built: {error}") from None
        ready = ("sh", "-c", "kubectl get nodes | grep -w Ready")
        eventually(there.answers(*ready), "the node")
        there.load((*IMAGES, tag("pause")), "ctr", "-n", "k8s.io", "images", "import", "-")
        there.program_on_path(directory, "kubectl", "kubectl")
        yield there


@contextmanager
def kubernetes(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A cluster of one node."""
    with cluster(directory) as there:
        patch.setenv("PATH", str(directory), prepend=":")
        yield Engine("kubernetes", node=there.name)


ENGINES: dict[str, Callable[[Path, pytest.MonkeyPatch], AbstractContextManager[Engine]]] = {
    "docker": own_docker,
    "swarm": swarm,
    "remote": by_tcp,
    "ssh": by_ssh,
    "context": by_context,
    "docker29": docker_29,
    "podman": podman,
    "kubernetes": kubernetes,
}


def chosen() -> tuple[str, ...]:
    """The engines of this run, in the order of the table above. Raises `ValueError` for one that is not known."""
    words = os.environ.get(VARIABLE, "").replace(",", " ").split() or list(DEFAULT)
    if words == ["all"]:
        return tuple(ENGINES)
    if unknown := set(words) - set(ENGINES):
        raise ValueError(f"${VARIABLE}: no engine {', '.join(sorted(unknown))}; known: {', '.join(ENGINES)}, all")
    return tuple(name for name in ENGINES if name in words)


@contextmanager
def running(name: str, directory: Path) -> Iterator[Engine]:
    """An engine by its name, and an environment that leads to it. Raises `NotHad` where it cannot be had."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        engine = stack.enter_context(ENGINES[name](directory, patch))
        patch.setenv("CLAUDE_BOTTLE_BACKEND", engine.backend)
        assert type(get_bottle_backend()) is type(get_bottle_backend(engine.backend))
        yield replace(engine, name=name)
