"""Docker's compose as a peer of the launcher: `up` and `down` of the two services that the launcher's compose file has.

The file is the launcher's own, but for what compose has no place for: the policy is a directory and not a volume that
is filled, the agent has the engine's init and not ours from a volume, and there are no rules on the host and no gate.
The health check comes each second, since compose would wait for the image's, which comes each 15 s.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import yaml

from benchmarks.data_path import ROOT, Fault

if TYPE_CHECKING:
    from pathlib import Path

NAME = "compose"
FORMS = (("docker", "compose"), ("docker-compose",))
NOT_HERE = "neither `docker compose` nor `docker-compose` is here (Debian: apt-get install docker-compose)"
COMMANDS = {"up": ("up", "--detach"), "down": ("down", "--volumes")}
MANIFEST = """\
[bottles.bench]
sidecars = "{image}"
init = "engine"
runtime = "runc"
limits.agent.cpus = 1

[agents.bench]
bottle = "bench"
command = ["sleep", "infinity"]
"""
POLICY_DIR = "/etc/bottle/policy"


class Compose(NamedTuple):
    """The command, its version, and the file that it is given."""

    command: tuple[str, ...]
    version: str
    file: Path

    def argv(self, verb: str) -> list[str]:
        """The command line of `up` or `down`."""
        return [*self.command, "--project-name", "bottle-bench", "--file", str(self.file), *COMMANDS[verb]]


def found() -> tuple[tuple[str, ...], str] | None:
    """The command for compose and its version; None where there is none."""
    for form in FORMS:
        if shutil.which(form[0]):
            done = subprocess.run([*form, "version", "--short"], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return form, done.stdout.strip()
    return None


def made(directory: Path, image: str) -> Compose | None:
    """Compose with its file in a directory of its own; None where there is no compose. Raises `Fault`."""
    if (here := found()) is None:
        return None
    (directory / "policy").mkdir(parents=True)
    (directory / "bench.toml").write_text(MANIFEST.format(image=image))
    (directory / "policy" / "policy.toml").write_text(_rendered(directory, "--policy"))
    document = yaml.safe_load(_rendered(directory))
    document.pop("name", None)  # compose 1 does not know it, and the command line says it.
    bundle = document["services"]["sidecars"]
    bundle["healthcheck"] = {"interval": "1s"}
    document["services"]["agent"]["stop_signal"] = "SIGKILL"  # As the launcher ends an agent.
    for volume in bundle["volumes"]:
        if volume["target"] == POLICY_DIR:
            volume |= {"type": "bind", "source": str(directory / "policy")}
    del document["volumes"]["policy"]
    (directory / "compose.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return Compose(*here, directory / "compose.yaml")


def _rendered(directory: Path, *options: str) -> str:
    argv = [sys.executable, "-m", "launcher", "render", str(directory / "bench.toml"), *options]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Fault(f"bottle render: {done.stderr}")
    return done.stdout
