"""What the tests of the launcher share: its command line, a bottle with an internet beside it, and a look at what the
engine has of a bottle.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from launcher import state
from launcher.backend import BottleBackend, get_bottle_backend
from launcher.backend.docker.removal import remove
from launcher.backend.kubernetes.kubectl import kubectl
from launcher.demo import Answer, Internet, ask
from launcher.docker import Result, docker, run
from launcher.plan import LABEL_ROLE, LABEL_SLUG, new_slug
from launcher.spec import BottleSpec
from launcher.trial import Trial
from tests.integration.support.engines import Engine
from tests.integration.support.init import PATIENCE_S

AGENT_IMAGE = "claude-bottle-agent"
DEADLINE_S = PATIENCE_S


@dataclass(frozen=True)
class Bottle:
    """One that runs on an engine, and what is around it."""

    engine: Engine
    backend: BottleBackend
    slug: str
    stage_dir: Path
    internet: Internet

    @property
    def trial(self) -> Trial:
        """Attempts from its places."""
        return Trial(self.backend, self.slug)

    def in_agent(self, *command: str) -> Result:
        """A command beside the agent, as its user."""
        return run(self.backend.in_agent(self.slug, *command), check=False)

    def in_bundle(self, *command: str) -> Result:
        """A command in the bundle, as its root."""
        return run(self.backend.in_bundle(self.slug, *command), check=False)

    def ask(self, url: str, *options: str) -> Answer:
        """What the agent's curl gets."""
        return ask(self.backend, self.slug, url, *options)

    def container(self, role: str) -> str:
        """The engine's name of one of its containers, where `docker` knows it."""
        conditions = [word for key, value in ((LABEL_SLUG, self.slug), (LABEL_ROLE, role)) for word in
                      ("--filter", f"label={key}={value}")]  # fmt: skip
        return docker("container", "ls", "--all", "--quiet", "--no-trunc", *conditions).stdout.split()[0]

    def described(self) -> str:
        """All that the engine tells of its containers."""
        if not self.engine.is_docker:
            condition = f"{LABEL_SLUG}={self.slug}"
            every = ("pods,configmaps,secrets,namespaces", "--all-namespaces", "--selector", condition)
            return kubectl("", "get", *every, "--output", "json").stdout
        names = docker("container", "ls", "--all", "--quiet", "--filter", f"label={LABEL_SLUG}={self.slug}")
        return docker("container", "inspect", *names.stdout.split()).stdout


@contextmanager
def a_bottle(
    engine: Engine, directory: Path, spec: BottleSpec, *names: str, of: Callable[[str, Path], Internet] = Internet
) -> Iterator[Bottle]:
    """A bottle that runs, beside an internet of its own in which these names are; the bundle trusts its authority."""
    slug = new_slug(spec.name)
    backend = get_bottle_backend(engine.backend)
    stage_dir = directory / slug
    state.create(stage_dir, slug)
    internet = of(slug, stage_dir)
    authority = directory / f"{slug}.pem"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(directory))
        bottle = Bottle(engine, backend, slug, stage_dir, internet)
        try:
            authority.write_text(internet.start(names))
            backend.launch(backend.prepare(replace(spec, slug=slug, upstream_ca=authority), stage_dir))
            if engine.node:
                # Its pods get there by their node.
                internet.connect(engine.node)
                line = f"{internet.address} {' '.join(names)}"
                assert bottle.in_bundle("sh", "-c", f"echo {line} >> /etc/hosts").code == 0
            else:
                internet.connect(bottle.container("sidecars"))
            if engine.execute is not None:
                # A network that is connected later brings no names with it there.
                hosts = docker("inspect", "--format", "{{.HostsPath}}", bottle.container("sidecars")).stdout.strip()
                engine.execute("sh", "-c", f"echo '{internet.address} {' '.join(names)}' >> {hosts}")
            yield bottle
        finally:
            backend.stop(slug)
            if engine.node:
                docker("network", "disconnect", "--force", internet.name, engine.node, check=False)
                remove(slug, set(), lambda _line: None, keep_history=False)
            assert leftovers(slug) == []
            assert backend.running(slug) == ()


def cli(home: Path, *args: str, terminal: int | None = None) -> "subprocess.Popen[str]":
    """Start `python -m launcher ARGS…` for an operator whose home directory this is, and perhaps at a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "launcher", *args],
        env={**os.environ, "HOME": str(home)},
        stdin=subprocess.DEVNULL if terminal is None else terminal,
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit code, and all that it said elsewhere than at a terminal."""
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    return process.returncode, (stdout or "") + stderr


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a launcher, and wait until the engine has done what the launcher had asked of it by then."""
    process.send_signal(signal.SIGSTOP)
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    pending = {}
    for child in (int(word) for path in children for word in path.read_text().split()):
        with suppress(ProcessLookupError):
            pending[child] = os.pidfd_open(child)
    process.kill()
    process.wait(DEADLINE_S)
    # Its pipes may be open in a `docker logs --follow` that outlives it: their end is not waited for.
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    for child, descriptor in pending.items():
        deadline = time.monotonic() + DEADLINE_S
        # A child that is about to call execve(2) still bears the launcher's command line, so this is read each time.
        while not select.select([descriptor], [], [], 0.1)[0] and not _outlives_its_launcher(child):
            assert time.monotonic() < deadline, Path(f"/proc/{child}/cmdline").read_bytes()
        os.close(descriptor)


def _outlives_its_launcher(child: int) -> bool:
    """Whether this command asks the engine for nothing but what comes later: it ends when its container does."""
    try:
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"wait" in words or b"--follow" in words


def leftovers(slug: str) -> list[str]:
    """Every object of the engine that bears the bottle's label, or its name without the label."""
    found = []
    for kind, every in (("container", ["--all"]), ("network", []), ("volume", [])):
        for condition in (f"label={LABEL_SLUG}={slug}", f"name=bottle-{slug}-"):
            found += docker(kind, "ls", *every, "--quiet", "--filter", condition).stdout.split()
    return found


def slugs_of(home: Path) -> list[str]:
    """The bottles that this operator has files of."""
    root = home / ".claude-bottle" / "state"
    return sorted(path.name for path in root.iterdir()) if root.exists() else []
