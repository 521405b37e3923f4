"""Which engine fills pipelock's slot, and the kernel's redirect that the real one needs.

The real pipelock has no notion of a parent proxy: it connects to origins itself. So the kernel sends what its user
sends to egress instead, and lets that user reach nothing else.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from sidecars import layout
from sidecars.identity import user_ids
from sidecars.policy import ENGINES, Policy

_CHAIN = "BOTTLE_PIPELOCK"


class EngineUnavailableError(Exception):
    """The engine that was asked for by name can't run here."""


@dataclass(frozen=True, slots=True)
class Choice:
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


def redirect_rules(uid: int) -> tuple[tuple[str, ...], ...]:
    """The commands that make every connection of `uid` egress's, and everything else that it sends unsendable."""
    owner = ("-m", "owner", "--uid-owner", str(uid))
    rules: list[tuple[str, ...]] = [
        ("iptables", "-w", "-t", "nat", "-N", _CHAIN),
        ("iptables", "-w", "-t", "nat", "-A", _CHAIN, "-d", "127.0.0.0/8", "-j", "RETURN"),
        (
            "iptables",
            "-w",
            "-t",
            "nat",
            "-A",
            _CHAIN,
            "-p",
            "tcp",
            "-j",
            "REDIRECT",
            "--to-ports",
            str(layout.TRANSPARENT_PORT),
        ),
        ("iptables", "-w", "-t", "nat", "-A", "OUTPUT", *owner, "-j", _CHAIN),
    ]
    for command, loopback in (("iptables", "127.0.0.0/8"), ("ip6tables", "::1/128")):
        rules += [
            (command, "-w", "-N", _CHAIN),
            # By destination: a redirected packet still shows the interface that it would have left by.
            (command, "-w", "-A", _CHAIN, "-d", loopback, "-j", "ACCEPT"),
            # Its answers to the agent.
            (command, "-w", "-A", _CHAIN, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"),
            (command, "-w", "-A", _CHAIN, "-j", "REJECT"),
            (command, "-w", "-A", "OUTPUT", *owner, "-j", _CHAIN),
        ]
    return tuple(rules)


def _redirect(uid: int) -> str | None:
    """Sets the rules. Returns what went wrong, in one line, or `None`."""
    if subprocess.run(["iptables", "-w", "-t", "nat", "-S", _CHAIN], capture_output=True, check=False).returncode == 0:
        return None
    for command in redirect_rules(uid):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"{command[0]}: {error.strerror}"
        if done.returncode:
            return f"`{' '.join(command)}`: {' '.join(done.stderr.split())}"
    return None


def _obstacle() -> str | None:
    """Why the real pipelock can't run here, or `None` once its redirect is set."""
    if not os.access(layout.PIPELOCK_BINARY, os.X_OK):
        return "this image was built without the pipelock binary (build it with PIPELOCK_IMAGE)"
    if (problem := _redirect(user_ids("pipelock")[0])) is not None:
        return f"the kernel redirect could not be set (does the container have NET_ADMIN?): {problem}"
    return None


def choose(policy: Policy) -> Choice:
    """Decides, and sets the redirect where the real pipelock is to run.

    Raises `EngineUnavailableError` where `pipelock` was asked for by name: that never falls back.
    """
    name, source = requested(policy)
    if name == "portable":
        return Choice("portable", f"{source} asks for it")
    obstacle = _obstacle()
    if obstacle is None:
        return Choice("pipelock", "the image has the binary and the redirect is set")
    if name == "pipelock":
        raise EngineUnavailableError(f"{source} asks for the engine 'pipelock', and {obstacle}")
    return Choice("portable", obstacle)
