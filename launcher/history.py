"""What is left of a bottle that is gone: its logs, its end, its audit trail, in ~/.claude-bottle/history/SLUG/."""

import json
import shutil
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
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
        self._agent, self._bundle = agent, bundle
        with suppress(OSError):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._facts = _facts_now(slug)
        self._following: threading.Thread | None = None

    def follow_bundle(self) -> None:
        """Begin to copy the bundle's log, to its last line."""
        if self._bundle is not None:
            arguments = (BUNDLE_LOG, "logs", "--timestamps", "--follow", self._bundle)
            self._following = threading.Thread(target=self._copy, args=arguments, daemon=True)
            self._following.start()

    def take_agent(self) -> None:
        """Copy what the agent has said, and how it is, before it goes."""
        if self._agent is not None:
            self._copy(AGENT_LOG, "logs", "--timestamps", self._agent)
            self._facts["agent_state"] = _state_of(self._agent)

    def take_bundle(self) -> str:
        """Note how the bundle ended, and copy its audit trail; returns its exit code, or `?`."""
        if self._bundle is None:
            return "?"
        self._facts["bundle_state"] = ended = _state_of(self._bundle)
        if self._following is not None:
            self._following.join(timeout=10)
        if not self._copy(AUDIT, "cp", f"{self._bundle}:{STATE_DIR}/audit", "-"):
            with suppress(OSError):
                (self.directory / AUDIT).unlink(missing_ok=True)
        return str(ended.get("ExitCode", "?"))

    def _copy(self, name: str, *args: str) -> bool:
        """What `docker ARGS…` says, as a file of the directory; whether all of it is there."""
        try:
            return docker_to_file(self.directory / name, *args).code == 0
        except OSError:
            return False

    def finish(self) -> None:
        """Write down what is known, and forget the oldest."""
        with suppress(OSError):
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
    used = 0
    for index, directory in enumerate(reversed(_oldest_first(history_root().iterdir()))):
        used += sum(_size(path) for path in directory.rglob("*"))
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
    return tuple(path.parent.name for path in _oldest_first(history_root().glob(f"*/{FACTS}")))


def _oldest_first(paths: Iterable[Path]) -> list[Path]:
    """Those that are there: another launcher may be forgetting one of them."""
    times = {}
    for path in paths:
        with suppress(FileNotFoundError):
            times[path] = path.stat().st_mtime
    return sorted(times, key=times.__getitem__)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
