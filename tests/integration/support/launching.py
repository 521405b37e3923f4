"""What the tests of the launcher share: its command line, and a look at what the engine has of a bottle."""

import os
import subprocess
import sys
from pathlib import Path

from launcher.docker import docker
from launcher.plan import LABEL_SLUG
from tests.integration.support.init import PATIENCE_S

AGENT_IMAGE = "claude-bottle-agent"
DEADLINE_S = PATIENCE_S


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
