"""`--image`: the whole benchmark inside the bundle's image: its interpreter, and the peers of its Debian."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.install import DEBIAN_PACKAGES
from benchmarks.interpreter import ROOT, keep_before

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.peers import Peer

BUNDLE = "claude-bottle-sidecars"
IMAGE = "claude-bottle-benchmarks"
PROJECT = "/project"
COMMAND = "BENCHMARKS_COMMAND"
"""The variable that tells the benchmark inside which command was given outside."""
COMMIT = "BENCHMARKS_COMMIT"
"""The one that tells it which commit that was: a work tree's repository may be elsewhere."""

TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
DOCKERFILE = f"""FROM {BUNDLE}
RUN apt-get update && apt-get install -y --no-install-recommends {" ".join(DEBIAN_PACKAGES)}
"""


def run(cache: Path, peers: list[Peer], arguments: list[str], commit: str) -> int:
    """Build the image, run the benchmark in it with these arguments; returns its exit code.

    The container may make mount and PID namespaces. Peers that were found on PATH are lent to it.
    """
    build = ["docker", "build", "--quiet", "--network=host", "--tag", IMAGE, "-"]
    built = subprocess.run(build, input=DOCKERFILE, text=True, stdout=subprocess.PIPE, check=False)
    if built.returncode:
        print(f"There must be an image {BUNDLE} to build upon: `make image` builds it.", file=sys.stderr)
        return built.returncode
    inside = cache / "image"
    kept = inside / cache.name
    kept.mkdir(parents=True, exist_ok=True)
    keep_before(kept)
    mounts = [f"{ROOT}:{PROJECT}:ro", f"{ROOT / 'docs'}:{PROJECT}/docs", f"{inside}:/cache", f"{TRUSTED}:{TRUSTED}:ro"]
    mounts += [f"{peer.program}:/usr/local/bin/{peer.executable or peer.name}:ro" for peer in peers if peer.program]
    command = shlex.join(["python", "-m", "benchmarks", "--image", *arguments])
    variables = [
        f"{COMMAND}={command}",
        f"{COMMIT}={commit}",
        "XDG_CACHE_HOME=/cache",
        f"PIP_CERT={TRUSTED}",
        "PYTHONDONTWRITEBYTECODE=1",
    ]
    variables += [name for name in os.environ if name.startswith("PIP_") and name != "PIP_CERT"]
    return subprocess.run(
        [
            *("docker", "run", "--rm", "--init", "--no-healthcheck", "--network=host", "--user=0"),
            *("--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined", "--security-opt=seccomp=unconfined"),
            *(word for mount in mounts for word in ("--volume", mount)),
            *(word for variable in variables for word in ("--env", variable)),
            *("--workdir", PROJECT, "--entrypoint=python3", IMAGE, "-m", "benchmarks", "--install", *arguments),
        ],
        check=False,
    ).returncode
