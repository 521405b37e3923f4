"""The one answer for all ports, and what there is to tell of a running bundle (contract 6).

What is told is plain dicts, lists, strings, numbers and None. All times in it are ages in milliseconds: a monotonic
clock says nothing to another process.
"""

from __future__ import annotations

from bottle_init.core.values import Value
from bottle_init.core.words import ALIVE, DAEMON, ENDED, RUNNING, STOPPED, UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bottle_init.core.state import Child, State

STARTING: Final = "starting"
HEALTHY: Final = "healthy"
DEGRADED: Final = "degraded"
UNHEALTHY: Final = "unhealthy"
STOPPING: Final = "stopping"
WORST_FIRST: Final = (STOPPING, UNHEALTHY, STARTING, DEGRADED, HEALTHY)


class DaemonHealth(Value):
    """One daemon's part: its status, since when, and its last check (`check` is None before the first)."""

    name: str
    health: str
    status: str
    since_ms: int
    generation: int
    check: bool | None
    check_at_ms: int | None
    check_since_ms: int | None
    detail: str


class Health(Value):
    """One answer for all: the worst of its daemons'."""

    health: str
    daemons: tuple[DaemonHealth, ...]


def health(state: State) -> Health:
    """The health of the bundle, as of the present start of each daemon (contract 6)."""
    daemons = tuple(_daemon(child) for child in state.children if child.spec.kind == DAEMON and not is_disabled(child))
    counted = [daemon.health for daemon in daemons]
    if state.phase != UP:
        counted.append(STOPPING)
    return Health(min(counted, key=WORST_FIRST.index, default=HEALTHY), daemons)


def is_disabled(child: Child) -> bool:
    """Whether a child is not to run until an operator starts it: for health it is as if it were not there."""
    return not child.spec.enabled and child.status == STOPPED


def _daemon(child: Child) -> DaemonHealth:
    current = child.status == RUNNING
    return DaemonHealth(
        child.spec.name,
        _judge(child),
        child.status,
        child.since_ms,
        child.generation,
        child.check_ok if current else None,
        child.check_at_ms if current else None,
        child.check_since_ms if current else None,
        child.self_reported_unhealthy or child.check_detail or child.detail or child.text,
    )


def _judge(child: Child) -> str:
    """One daemon's health. A child that ended with success, and was let go, does not count."""
    if child.status == ENDED:
        forgiven = child.last_death is not None and child.last_death.code in child.spec.success_codes
        return HEALTHY if forgiven else UNHEALTHY
    if child.unhealthy and child.status in ALIVE:
        return UNHEALTHY
    if not child.ever_ready:
        return STARTING
    if child.status != RUNNING or child.halt or child.check_ok is False:
        return DEGRADED
    return HEALTHY


# What is told.


def health_facts(state: State, now_ms: int) -> dict[str, object]:
    """The health of the bundle and of each daemon, for programs."""
    found = health(state)
    return {"health": found.health, "daemons": [_daemon_facts(daemon, now_ms) for daemon in found.daemons]}


def _daemon_facts(daemon: DaemonHealth, now_ms: int) -> dict[str, object]:
    check: dict[str, object] | None = None
    if daemon.check is not None:
        check = {
            "passed": daemon.check,
            "ago_ms": _age(daemon.check_at_ms, now_ms),
            "unchanged_ms": _age(daemon.check_since_ms, now_ms),
        }
    return {
        "name": daemon.name,
        "health": daemon.health,
        "state": daemon.status,
        "state_ms": now_ms - daemon.since_ms,
        "start": daemon.generation,
        "check": check,
        "detail": daemon.detail,
    }


def facts(state: State, now_ms: int, pid: int) -> dict[str, object]:
    """All children of the init that has this pid, with the health of daemons, and the stop if one is under way."""
    found = health(state)
    daemons = {daemon.name: daemon for daemon in found.daemons}
    stop = state.stop
    return {
        "pid": pid,
        "health": found.health,
        "phase": state.phase,
        "policy": state.bundle.policy,
        "stop": None if stop is None else {"kind": stop.kind, "cause": stop.cause, "ago_ms": now_ms - stop.at_ms},
        "lease_ms": None if state.lease_at_ms is None else max(0, state.lease_at_ms - now_ms),
        "children": [_child_facts(child, daemons.get(child.spec.name), now_ms) for child in state.children],
    }


def _child_facts(child: Child, daemon: DaemonHealth | None, now_ms: int) -> dict[str, object]:
    alive = child.status in ALIVE
    death = child.last_death
    told: dict[str, object] = {
        "name": child.spec.name,
        "kind": child.spec.kind,
        "state": child.status,
        "state_ms": now_ms - child.since_ms,
        "pid": child.pid if alive and child.pid else None,
        "uptime_ms": now_ms - child.started_at_ms if alive and child.pid else None,
        "restarts": max(0, child.generation - 1),
        "says": child.text,
        "last_exit": None,
    }
    if death is not None:
        told["last_exit"] = {
            "code": death.code,
            "signal": death.signal or None,
            "ago_ms": now_ms - death.at_ms,
            "ran_ms": death.ran_ms,
            "detail": death.detail,
        }
    if daemon is not None and child.spec.kind == DAEMON:
        known = _daemon_facts(daemon, now_ms)
        told.update({key: known[key] for key in ("health", "start", "check", "detail")})
    return told


def _age(at_ms: int | None, now_ms: int) -> int | None:
    return None if at_ms is None else now_ms - at_ms
