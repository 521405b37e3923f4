"""What is left of a bottle that is gone: its logs, its end, its audit trail, in ~/.claude-bottle/history/SLUG/."""

import json
import shutil
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launcher import state
from launcher.docker import docker, docker_to_file
from launcher.plan import STATE_DIR

KEPT = 30
"""Bottles that are remembered; the oldest are forgotten."""
KEPT_BYTES = 256 * 2**20
AGENT_LOG, BUNDLE_LOG, AUDIT, FACTS = "agent.log", "sidecars.log", "audit.tar", "bottle.json"


def history_root() -> Path:
    """Where bottles that are gone are remembered."""
    return state.own_root() / "history"


class Saving:
    """Saves what a bottle leaves while it is taken down. What cannot be saved is left out, never in the way."""

    def __init__(self, slug: str, agent: str | None, bundle: str | None) -> None:
        self.directory = history_root() / slug
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._agent, self._bundle = agent, bundle
        self._facts = _facts_now(slug)
        self._following: threading.Thread | None = None

    def follow_bundle(self) -> None:
        """Begin to copy the bundle's log, to its last line."""
        if self._bundle is not None:
            arguments = (self.directory / BUNDLE_LOG, "logs", "--timestamps", "--follow", self._bundle)
            self._following = threading.Thread(target=docker_to_file, args=arguments, daemon=True)
            self._following.start()

    def take_agent(self) -> None:
        """Copy what the agent has said, and how it is, before it goes."""
        if self._agent is not None:
            docker_to_file(self.directory / AGENT_LOG, "logs", "--timestamps", self._agent)
            self._facts["agent_state"] = _state_of(self._agent)

    def take_bundle(self) -> str:
        """Note how the bundle ended, and copy its audit trail; returns its exit code, or `?`."""
        if self._bundle is None:
            return "?"
        self._facts["bundle_state"] = ended = _state_of(self._bundle)
        if self._following is not None:
            self._following.join(timeout=10)
        audit = self.directory / AUDIT
        if not docker_to_file(audit, "cp", f"{self._bundle}:{STATE_DIR}/audit", "-"):
            audit.unlink(missing_ok=True)
        return str(ended.get("ExitCode", "?"))

    def finish(self) -> None:
        """Write down what is known, and forget the oldest."""
        state.write(self.directory / FACTS, json.dumps(self._facts, indent=1) + "\n", mode=0o600)
        forget_oldest()


def remember(slug: str, logs: Mapping[str, str], **facts: Any) -> None:
    """Keep what was said in a bottle that goes now, `AGENT_LOG` and `BUNDLE_LOG` by their names, and how it was."""
    directory = history_root() / slug
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, said in logs.items():
        state.write(directory / name, said, mode=0o600)
    state.write(directory / FACTS, json.dumps(_facts_now(slug) | facts, indent=1) + "\n", mode=0o600)
    forget_oldest()


def _facts_now(slug: str) -> dict[str, Any]:
    """What is known of a bottle at its end."""
    known = state.facts_of(state.state_root() / slug) or {}
    return {**known, "slug": slug, "ended": datetime.now(UTC).isoformat(timespec="seconds")}


def _state_of(container: str) -> dict[str, Any]:
    inspected = docker("container", "inspect", "--format", "{{json .State}}", container, check=False)
    try:
        found: dict[str, Any] = json.loads(inspected.stdout)
    except ValueError:
        return {}
    return {key: found.get(key) for key in ("Status", "ExitCode", "OOMKilled", "Error", "StartedAt", "FinishedAt")}


def forget_oldest() -> None:
    """Keep the last `KEPT` bottles, and of those as many as have room in `KEPT_BYTES`."""
    found = sorted(history_root().iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    used = 0
    for index, directory in enumerate(found):
        used += sum(path.lstat().st_size for path in directory.rglob("*"))
        if index and (index >= KEPT or used > KEPT_BYTES):
            shutil.rmtree(directory, ignore_errors=True)


def facts_of(slug: str) -> dict[str, Any] | None:
    """What is remembered of a bottle that is gone, or `None`."""
    try:
        known = json.loads((history_root() / slug / FACTS).read_text())
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def remembered() -> tuple[str, ...]:
    """The bottles that are gone and remembered, the latest last."""
    found = history_root().glob(f"*/{FACTS}")
    return tuple(path.parent.name for path in sorted(found, key=lambda path: path.stat().st_mtime))
