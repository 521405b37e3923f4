"""Backends: what a bottle runs on, behind one interface."""

import os
from collections.abc import Callable

from launcher.backend.base import BottleBackend
from launcher.backend.docker import DockerBottleBackend
from launcher.errors import LauncherError

DEFAULT_BACKEND = "docker"
VARIABLE = "CLAUDE_BOTTLE_BACKEND"
_BACKENDS: dict[str, Callable[[], BottleBackend]] = {"docker": DockerBottleBackend}

__all__ = ["_BACKENDS", "BottleBackend", "get_bottle_backend"]


def get_bottle_backend(name: str | None = None) -> BottleBackend:
    """The backend of that name; without one, the one that CLAUDE_BOTTLE_BACKEND names; else Docker.

    Raises `LauncherError` for a name that is not known.
    """
    source = "the backend asked for" if name else f"${VARIABLE}"
    chosen = name or os.environ.get(VARIABLE) or DEFAULT_BACKEND
    if chosen not in _BACKENDS:
        raise LauncherError(f"{source}: no backend {chosen!r}", hint=f"known: {', '.join(sorted(_BACKENDS))}")
    return _BACKENDS[chosen]()
