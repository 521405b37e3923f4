"""How bottles are: from one list of containers and the operator's own notes, without a call for each bottle."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from launcher import state
from launcher.backend.base import Running
from launcher.health import Health

ENDED = ("exited", "dead")
_EXITED = re.compile(r"Exited \((\d+)\)")


@dataclass(frozen=True, slots=True)
class Status:
    """One bottle, as a person asks for it."""

    slug: str
    agent: str
    state: str
    """What the bundle says of itself: `healthy`, `degraded`, `starting`, `unhealthy`, `stopping` or `kill switch on`.
    Where it was not asked or is silent, the engine's word, or `up`. Else `ended`, `bundle ended`, or `leftover`.
    """
    since: str
    cause: str = ""
    """Why it is not up, as far as the engine tells; `bottle why` knows more."""
    waiting: int | None = None
    """Requests and questions that wait for the operator; `None` where the bundle has not been asked or is silent."""
    engine: str = ""
    missing_walls: tuple[str, ...] = ()
    project: str = ""
    containers: tuple[tuple[str, str, str], ...] = field(default=())
    """Role, name and state of each container."""

    def as_json(self) -> dict[str, Any]:
        """The keys of `status --json`."""
        found = asdict(self)
        found["containers"] = [dict(zip(("role", "name", "state"), each, strict=True)) for each in self.containers]
        return found


def statuses(objects: Iterable[Running], health: Mapping[str, Health]) -> list[Status]:
    """The bottles of which there are objects; `health` is what those bundles say that were asked."""
    by_slug: dict[str, list[Running]] = {}
    for each in objects:
        by_slug.setdefault(each.slug, []).append(each)
    return [_status(slug, by_slug[slug], health.get(slug)) for slug in sorted(by_slug)]


def _status(slug: str, objects: Sequence[Running], health: Health | None) -> Status:
    containers = {each.role: each for each in objects if each.kind == "container"}
    agent, bundle = containers.get("agent"), containers.get("sidecars")
    known = state.facts_of(state.state_root() / slug) or {}
    words, cause = _state(agent, bundle, health)
    shown = agent or bundle
    return Status(
        slug=slug,
        agent=next((each.agent for each in objects if each.agent), str(known.get("agent", ""))),
        state=words,
        since=shown.detail.partition(" (")[0] if shown else "",
        cause=cause,
        waiting=None if health is None else health.waiting,
        engine=str(known.get("engine", "")),
        missing_walls=tuple(known.get("missing_walls", ())),
        project=str(known.get("project", "")),
        containers=tuple((each.role, each.name, each.state) for each in containers.values()),
    )


def _state(agent: Running | None, bundle: Running | None, health: Health | None) -> tuple[str, str]:
    if agent is None or bundle is None or agent.state == "created":
        return "leftover", "what a launcher left that was killed, or is still at work"
    if bundle.state in ENDED:
        return "bundle ended", f"the bundle ended with {_code(bundle)}"
    if agent.state in ENDED:
        return "ended", f"the agent ended with {_code(agent)}"
    if health is not None:
        return health.state, ""
    return bundle.state if bundle.state != "running" else "up", ""


def _code(container: Running) -> str:
    found = _EXITED.search(container.detail)
    return found[1] if found else "?"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns for a screen that is none: widths as needed, the last one as it is."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]) - 1)] if rows else []
    lines = [
        "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


COLUMNS = ("BOTTLE", "AGENT", "STATE", "SINCE", "WAITING", "NOTE")


def row(status: Status) -> tuple[str, ...]:
    """A bottle's cells under `COLUMNS`."""
    notes = [status.cause, *(f"without {wall}" for wall in status.missing_walls)]
    waiting = "-" if status.waiting is None else str(status.waiting)
    return (status.slug, status.agent, status.state, status.since, waiting, "; ".join(filter(None, notes)))
