"""Bottles on Podman, behind a command that is called `docker` (the package podman-docker)."""

from launcher.backend.podman.backend import PodmanBottleBackend, docker_is_podman
from launcher.backend.podman.render import translated

__all__ = ["PodmanBottleBackend", "docker_is_podman", "translated"]
