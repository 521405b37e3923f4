"""What the init has told of the bundle: each daemon's state, and its deaths and restarts.

The agent reads this. It holds names, codes, numbers and times that the init made, and nothing that a daemon has
written: no last lines, no command lines, no reasons of checks.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from bottle_init.client import NoAnswer

HISTORY_MAX = 100
"""Events that are kept."""

STATES = {
    "child_started": "starting",
    "child_ready": "running",
    "child_healthy": "running",
    "child_unhealthy": "unhealthy",
    "child_exited": "ended",
    "fork_failed": "ended",
    "child_restarting": "backoff",
}
"""The state in which a daemon is after an event, in the words of `bottle-init status`."""

TOLD = frozenset(
    {*STATES, "ordered", "not_ready", "timed_out", "child_killed", "child_reaped_late", "gave_up", "stopping"}
)
"""The events that are kept. What a daemon can cause at will (a dropped line, a notification) must not push them out."""

FACTS: dict[str, type] = {
    "timestamp": str,
    "event": str,
    "level": str,
    "child": str,
    "order": str,
    "code": int,
    "signal": int,
    "severity": str,
    "oom": bool,
    "restart": int,
}
"""The keys of an event that are kept, and the types of their values."""


class Watch:
    """The bundle as the subscription tells it. One thread feeds it; any may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: str | None = None
        self._lost: dict[str, str] | None = None
        self._stopping = False
        self._daemons: dict[str, dict[str, Any]] = {}
        self._history: deque[dict[str, Any]] = deque(maxlen=HISTORY_MAX)

    def follow(self, lines: Iterable[bytes], problem: str = "") -> str:
        """Take the lines until there are no more, or none at all for a `problem`. Returns why the rest is not known."""
        reason = problem or "the init has ended the subscription"
        try:
            for line in lines:
                event = json.loads(line)
                if event["event"] == "follower_too_slow":
                    reason = "supervise was too slow to take the init's events"
                self.take(event)
        except NoAnswer as error:
            reason = str(error)
        except (ValueError, KeyError, TypeError):
            reason = "the init said something that is not understood"
        self.lose(reason, datetime.now(UTC))
        return reason

    def take(self, event: dict[str, Any]) -> None:
        """One event. Raises `ValueError`, `KeyError` and `TypeError` for what is none."""
        with self._lock:
            if event["event"] == "following":
                self._begin(event)
            elif event["event"] in TOLD:
                facts = {key: event[key] for key, kind in FACTS.items() if isinstance(event.get(key), kind)}
                if event.get("level") == "info":
                    # An ending that was brought about is put to no policy, so its severity would only alarm.
                    facts.pop("severity", None)
                self._history.append(facts)
                self._apply(facts)

    def lose(self, reason: str, at: datetime) -> None:
        """Whatever happens after `at` is not known. There is no second subscription: only root could make it."""
        with self._lock:
            self._lost = {"since": _iso(at), "reason": reason}

    def status(self) -> dict[str, Any]:
        """`events` (`following` with `following_since`, or `unknown` with `unknown_since` and `reason`), `stopping`,
        `daemons` and `recent`, the events that are kept, oldest first.
        """
        with self._lock:
            return {
                **self._subscription(),
                "stopping": self._stopping,
                "daemons": [dict(daemon) for daemon in self._daemons.values()],
                "recent": [dict(event) for event in self._history],
            }

    def _subscription(self) -> dict[str, Any]:
        if self._lost is None:
            return {"events": "following", "following_since": self._since}
        return {"events": "unknown", "unknown_since": self._lost["since"], "reason": self._lost["reason"]}

    def _begin(self, event: dict[str, Any]) -> None:
        at, status = datetime.fromisoformat(event["timestamp"]), event["status"]
        self._since = _iso(at)
        self._stopping = status["phase"] != "up"
        self._daemons = {child["name"]: _daemon(child, at) for child in status["children"] if child["kind"] == "daemon"}

    def _apply(self, facts: dict[str, Any]) -> None:
        if facts["event"] == "stopping":
            self._stopping = True
        daemon = self._daemons.get(facts.get("child", ""))
        if daemon is None:
            return
        if state := STATES.get(facts["event"]):
            daemon.update(state=state, since=facts["timestamp"])
        if facts["event"] == "child_exited":
            daemon["last_exit"] = {key: facts.get(key) for key in ("code", "signal", "timestamp")}
        if facts["event"] == "child_started":
            daemon["restarts"] = facts.get("restart", 0)


def _daemon(child: dict[str, Any], at: datetime) -> dict[str, Any]:
    """A daemon of the first line: what it says in ages is told in times."""
    unhealthy = child["state"] == "running" and child["health"] == "unhealthy"
    last = child["last_exit"]
    return {
        "name": child["name"],
        "state": "unhealthy" if unhealthy else child["state"],
        "since": _iso(at - timedelta(milliseconds=child["state_ms"])),
        "restarts": child["restarts"],
        "last_exit": last
        and {
            "code": last["code"],
            "signal": last["signal"],
            "timestamp": _iso(at - timedelta(milliseconds=last["ago_ms"])),
        },
    }


def _iso(at: datetime) -> str:
    """As the init writes its timestamps."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
