"""Backends: what a bottle runs on, behind one interface."""

import os
from collections.abc import Callable

from launcher.backend.base import BottleBackend
from launcher.backend.docker import DockerBottleBackend
from launcher.errors import LauncherError

DEFAULT_BACKEND = "docker"
VARIABLE = "CLAUDE_BOTTLE_BACKEND"


def _podman() -> BottleBackend:
    from launcher.backend.podman import PodmanBottleBackend

    return PodmanBottleBackend()


def _swarm() -> BottleBackend:
    from launcher.backend.swarm import SwarmBottleBackend

    return SwarmBottleBackend()


def _kubernetes() -> BottleBackend:
    from launcher.backend.kubernetes import KubernetesBottleBackend

    return KubernetesBottleBackend()


def _smolmachines() -> BottleBackend:
    from launcher.backend.smolmachines import SmolmachinesBottleBackend

    return SmolmachinesBottleBackend()


_BACKENDS: dict[str, Callable[[], BottleBackend]] = {
    "docker": DockerBottleBackend,
    "podman": _podman,
    "swarm": _swarm,
    "kubernetes": _kubernetes,
    "smolmachines": _smolmachines,
}

__all__ = ["_BACKENDS", "BottleBackend", "get_bottle_backend"]


def get_bottle_backend(name: str | None = None) -> BottleBackend:
    """The backend of that name; without one, the one that CLAUDE_BOTTLE_BACKEND names; else Docker, or Podman where the
    command `docker` is Podman's.

    Raises `LauncherError` for a name that is not known.
    """
    source = "the backend asked for" if name else f"${VARIABLE}"
    chosen = name or os.environ.get(VARIABLE) or DEFAULT_BACKEND
    if chosen not in _BACKENDS:
        raise LauncherError(f"{source}: no backend {chosen!r}", hint=f"known: {', '.join(sorted(_BACKENDS))}")
    if chosen == DEFAULT_BACKEND:
        from launcher.backend.podman import docker_is_podman

        chosen = "podman" if docker_is_podman() else chosen
    return _BACKENDS[chosen]()
