"""How many requests and questions wait in each bottle: from what the bundle's health check last said."""

import json
import re
from collections.abc import Iterable

from launcher.backend.base import Running
from launcher.docker import docker

_WAITING = re.compile(r"\b(\d+) wait(?:s)? for the operator\b")


def waiting_in(objects: Iterable[Running]) -> dict[str, int]:
    """The numbers by slug, in one call for all; a bundle that was not checked yet is left out."""
    bundles = {each.name: each.slug for each in objects if each.role == "sidecars" and each.state != "created"}
    if not bundles:
        return {}
    template = "{{.Name}}\t{{json .State.Health}}"
    lines = docker("container", "inspect", "--format", template, *bundles, check=False).stdout.splitlines()
    found = {}
    for line in lines:
        name, _, health = line.partition("\t")
        log = (json.loads(health) or {}).get("Log") or []
        if log and (told := _WAITING.search(log[-1].get("Output", ""))):
            found[bundles[name.lstrip("/")]] = int(told[1])
    return found
