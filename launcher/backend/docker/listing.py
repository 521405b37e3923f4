"""What an engine has of bottles: one call for each kind of object, however many there are."""

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from launcher.backend.base import Running
from launcher.docker import docker
from launcher.plan import LABEL_AGENT, LABEL_OPERATOR, LABEL_ROLE, LABEL_SLUG, LABEL_STAGE

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
    lines = docker(kind, "ls", *options, *filters, "--format", f"[{template}]").stdout.splitlines()
    return [_object(kind, json.loads(line)) for line in lines]


def _object(kind: str, fields: Sequence[str]) -> Running:
    slug, role, stage, operator, agent, name, state, detail = fields
    health = re.search(r"\((healthy|unhealthy|health: starting)\)", detail)
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
