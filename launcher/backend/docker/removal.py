"""Taking a bottle down: what bears its label goes, the agent first, so that it never runs without its walls."""

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from launcher import state
from launcher.backend.base import ENDED, Running, Tell
from launcher.backend.docker.listing import listed
from launcher.docker import docker
from launcher.engine import is_unreachable
from launcher.errors import LauncherError
from launcher.history import Saving
from launcher.host_rules import remove_rules
from launcher.plan import LABEL_SLUG, SIDECARS
from launcher.together import together

REMOVED_WITHIN_S = 5.0
PAUSE_S = 0.2
# Another process that removes the same, and the engine's own housekeeping, are done within moments.
GONE = ("no such", "not found")
PASSING = ("already in progress", "in use", "has active endpoints", "being removed")


def attempt(*args: str, stdin: bytes | None = None) -> list[str]:
    """Run a command of the clean-up and return its fault, if any: what is gone already is as good as removed.

    It is tried again for a while where another process may be removing the same object.
    """
    deadline = time.monotonic() + REMOVED_WITHIN_S
    while True:
        result = docker(*args, check=False, stdin=stdin)
        words = result.stderr.lower()
        lines = [line for line in words.splitlines() if line]
        if result.code == 0 or (lines and all(any(gone in line for gone in GONE) for line in lines)):
            return []
        if time.monotonic() > deadline or not any(passing in words for passing in PASSING):
            return [f"docker {' '.join(args[:3])}: {result.stderr.strip()}"]
        time.sleep(PAUSE_S)


def remove(slug: str, stage_dirs: set[Path], tell: Tell, *, keep_history: bool = True) -> bool:
    """Remove all that bears this slug; returns whether there was anything.

    Raises `LauncherError` with every fault; what could be removed is gone all the same.
    """
    try:
        found = listed(f"{LABEL_SLUG}={slug}")
    except LauncherError as error:
        if is_unreachable(error):
            # What an engine that is gone may still have is found by its labels, once it is back. The notes of an agent
            # that has worked stay until then: they say where its work is.
            for stage_dir in stage_dirs:
                if keep_history:
                    state.discard_secrets(stage_dir)
                else:
                    state.discard(stage_dir, slug)
        raise
    faults = _remove_objects(slug, found, tell, keep_history=keep_history)
    if faults:
        raise LauncherError("\n".join(faults), hint=f"`bottle down {slug}` tries again")
    there = [stage_dir for stage_dir in {*stage_dirs, *(each.stage_dir for each in found)} if stage_dir.exists()]
    for stage_dir in there:
        state.discard(stage_dir, slug)
    return bool(found or there)


def _remove_objects(slug: str, found: Sequence[Running], tell: Tell, *, keep_history: bool) -> list[str]:
    containers = {each.role: each for each in found if each.kind == "container"}
    bundle, walls, agent = (containers.get(role) for role in (SIDECARS, "walls", "agent"))
    others = [each.name for role, each in containers.items() if role not in (SIDECARS, "walls")]
    saving = None
    if keep_history and agent is not None and agent.state != "created":
        saving = Saving(slug, agent.name, bundle.name if bundle else None)

    def take_agent_and_rules() -> list[str]:
        if saving is not None:
            saving.take_agent()
        faults = attempt("container", "rm", "--force", "--volumes", *sorted(others)) if others else []
        return faults + (_remove_host_rules(slug, walls.name) if walls is not None else [])

    def stop_bundle() -> list[str]:
        if bundle is None:
            return []
        running = bundle.state not in ENDED
        faults = attempt("container", "stop", bundle.name) if running else []
        code = saving.take_bundle() if saving is not None else exit_code(bundle.name) if running else ""
        if running:
            tell(f"{bundle.name} ended with {code}")
        return faults

    if saving is not None:
        saving.follow_bundle()
    faults = together([take_agent_and_rules, stop_bundle])
    if saving is not None:
        saving.finish()
    rest = [each.name for each in (bundle, walls) if each is not None]
    if rest:
        faults += attempt("container", "rm", "--force", "--volumes", *rest)
    networks = [each.name for each in found if each.kind == "network"]
    volumes = [each.name for each in found if each.kind == "volume"]
    last = [partial(attempt, "network", "rm", name) for name in networks]
    last += [partial(attempt, "volume", "rm", "--force", *volumes)] if volumes else []
    return faults + together(last)


def _remove_host_rules(slug: str, walls: str) -> list[str]:
    """By the container that set them, started once more; it may have been killed before it set any."""
    return attempt("start", "--attach", "--interactive", walls, stdin=remove_rules(slug).encode())


def exit_code(container: str) -> str:
    """A container's exit code as the engine tells it, or `?`."""
    inspected = docker("container", "inspect", "--format", "{{.State.ExitCode}}", container, check=False)
    return inspected.stdout.strip() or "?"


def stop_with_volumes(container: str, *, grace: bool = True) -> None:
    """Remove a container and the volumes in it that were made for its bottle; with `grace` it may end in order first.
    One that is gone is as good as removed.

    Raises `LauncherError` where the engine refuses.
    """
    described = docker("container", "inspect", container, check=False)
    faults = attempt("container", "stop", container) if grace else []
    faults += attempt("container", "rm", "--force", "--volumes", container)
    if described.code == 0 and (volumes := _own_volumes(json.loads(described.stdout)[0])):
        faults += attempt("volume", "rm", "--force", *volumes)
    if faults:
        raise LauncherError("\n".join(faults))


def _own_volumes(container: dict[str, object]) -> list[str]:
    """The volumes in a container that were made for its bottle: those that its label tells."""
    config, mounts = container["Config"], container["Mounts"]
    assert isinstance(config, dict) and isinstance(mounts, list)  # noqa: PT018 -- what the engine always writes
    if LABEL_SLUG not in (config.get("Labels") or {}):
        return []
    return sorted({str(mount["Name"]) for mount in mounts if mount["Type"] == "volume"})
