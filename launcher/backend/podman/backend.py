"""The Podman backend: Docker's, with Podman's own words and field names."""

import ipaddress
import shutil
from pathlib import Path

from launcher.backend.docker.backend import DockerBottleBackend
from launcher.backend.podman.render import translated
from launcher.docker import docker_json
from launcher.plan import object_name
from launcher.steps import Step


def docker_is_podman() -> bool:
    """Whether the command `docker` on PATH is Podman's (podman-docker installs a script of that name). Runs nothing."""
    program = shutil.which("docker")
    if program is None:
        return False
    resolved = Path(program).resolve()
    if resolved.name == "podman":
        return True
    with resolved.open("rb") as file:
        start = file.read(4096)
    return start.startswith(b"#!") and b"podman" in start


LOST = (
    ("W20", "the launcher's lease: none is made, as Podman was not seen to end a container's input with its client"),
)
"""The wall of docs/walls.md that cannot stand here as it does on Docker, and why."""


class PodmanBottleBackend(DockerBottleBackend):
    """A bottle on Podman, as root: rootless was never tried."""

    name = "podman"
    LEASES = False
    lost = LOST

    def carried_out(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        return translated(steps)

    def host_addresses(self, slug: str) -> tuple[str, ...]:
        names = (object_name(slug, "internal"), object_name(slug, "egress"))
        found = docker_json("network", "inspect", *names)
        subnets = [ipaddress.ip_network(subnet["subnet"]) for each in found for subnet in each["subnets"]]
        return tuple(str(subnet[1]) for subnet in subnets)
