"""What an engine has of bottles: one call for each kind of object, however many there are."""

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from launcher.backend.base import Running
from launcher.docker import Command, CommandError, docker_json, run
from launcher.plan import LABEL_AGENT, LABEL_OPERATOR, LABEL_ROLE, LABEL_SLUG, LABEL_STAGE

PODMAN = "can't evaluate field Label"
"""What Podman says of a template over the labels of networks and volumes, which Docker knows."""
_LABELS = tuple(f'.Label "{label}"' for label in (LABEL_SLUG, LABEL_ROLE, LABEL_STAGE, LABEL_OPERATOR, LABEL_AGENT))
_KINDS = {
    "container": (("--all",), (*_LABELS, ".Names", ".State", ".Status")),
    "network": ((), (*_LABELS, ".Name", '"network"', '""')),
    "volume": ((), (*_LABELS, ".Name", '"volume"', '""')),
}
"""For each kind the options of its list, and what is told of each object."""
KINDS = tuple(_KINDS)


def listed(*conditions: str, kinds: Sequence[str] = KINDS) -> tuple[Running, ...]:
    """All objects whose labels meet the conditions (`claude-bottle.slug=…`, or a label's name alone).

    The kinds are asked for side by side. Raises `CommandError` where the engine does not answer.
    """
    if len(kinds) == 1:
        return tuple(_listed(kinds[0], conditions))
    with ThreadPoolExecutor(len(kinds)) as pool:
        answers = list(pool.map(lambda kind: _listed(kind, conditions), kinds))
    return tuple(each for answer in answers for each in answer)


def _listed(kind: str, conditions: Sequence[str]) -> list[Running]:
    filters = [word for condition in conditions for word in ("--filter", f"label={condition}")]
    options, fields = _KINDS[kind]
    template = ",".join(f"{{{{json ({field})}}}}" for field in fields)
    command = Command(("docker", kind, "ls", *options, *filters, "--format", f"[{template}]"))
    result = run(command, check=False)
    if PODMAN in result.stderr:
        return [_object(kind, _fields(kind, each)) for each in docker_json(kind, "ls", *filters, "--format", "json")]
    if result.code:
        raise CommandError(command.argv, result)
    return [_object(kind, json.loads(line)) for line in result.stdout.splitlines()]


def _fields(kind: str, found: Mapping[str, Any]) -> list[str]:
    """A network or a volume as Podman tells of it."""
    told = {key.lower(): value for key, value in found.items()}
    labels = told.get("labels") or {}
    keys = (LABEL_SLUG, LABEL_ROLE, LABEL_STAGE, LABEL_OPERATOR, LABEL_AGENT)
    return [*(str(labels.get(key, "")) for key in keys), str(told["name"]), kind, ""]


def _object(kind: str, fields: Sequence[str]) -> Running:
    slug, role, stage, operator, agent, name, state, detail = fields
    # Podman goes on telling the health of a container that has ended.
    health = state == "running" and re.search(r"\((healthy|unhealthy|(?:health: )?starting)\)", detail)
    return Running(
        slug=slug,
        role=role,
        name=name,
        state=health[1].removeprefix("health: ") if health else state,
        stage_dir=Path(stage),
        kind=kind,
        detail=detail,
        operator=operator,
        agent=agent,
    )
