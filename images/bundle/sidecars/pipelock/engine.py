"""Which engine fills pipelock's slot.

The real pipelock has no notion of a parent proxy: it connects to origins itself. So it needs the kernel rules, which
send what its user sends to egress instead (walls.py).
"""

from __future__ import annotations

import os

from bottle_init.core.values import Value
from sidecars import layout
from sidecars.policy import ENGINES, Policy
from sidecars.policy.model import KERNEL_RULES


class EngineUnavailableError(Exception):
    """The engine that was asked for by name can't run here."""


class Choice(Value):
    """An engine's name, and why it is this one."""

    name: str
    reason: str


def requested(policy: Policy) -> tuple[str, str]:
    """The engine asked for, and by whom. The environment variable is stronger than the file."""
    name = os.environ.get("PIPELOCK_ENGINE")
    if name:
        if name not in ENGINES:
            raise EngineUnavailableError(f"PIPELOCK_ENGINE: {name!r} is none of {', '.join(map(repr, ENGINES))}")
        return name, "PIPELOCK_ENGINE"
    return policy.engine, "pipelock.engine"


def _obstacle(policy: Policy) -> str | None:
    """Why the real pipelock can't run here, or `None`."""
    if not os.access(layout.PIPELOCK_BINARY, os.X_OK):
        return "this image was built without the pipelock binary (build it with PIPELOCK_IMAGE)"
    if policy.walls != KERNEL_RULES:
        return f'it needs the kernel rules, and the policy does without (walls = "{policy.walls}")'
    return None


def choose(policy: Policy) -> Choice:
    """Decides. Raises `EngineUnavailableError` where `pipelock` was asked for by name: that never falls back."""
    name, source = requested(policy)
    if name == "portable":
        return Choice("portable", f"{source} asks for it")
    obstacle = _obstacle(policy)
    if obstacle is None:
        return Choice("pipelock", "the image has the binary")
    if name == "pipelock":
        raise EngineUnavailableError(f"{source} asks for the engine 'pipelock', and {obstacle}")
    return Choice("portable", obstacle)
