"""What the operator approved while the bottle runs: the overlay that `bottle-approve` writes, and who obeys it.

The file is root's, and each entry has an end that egress, pipelock and git-gate judge themselves. It is part of the
compiled policy. What an entry allows has the shapes of the policy's own tables, so that one judgement takes both.
"""

from __future__ import annotations

import json

from bottle_init.bundle.readers import choice, integer, list_of, text
from bottle_init.bundle.source import Wrong
from bottle_init.bundle.table import Table, join, shown, table
from sidecars.policy import compiled, grammar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from bottle_init.bundle.source import Faults

KINDS: Final = ("host", "repository", "request", "push")
_COMMON: Final = ("id", "kind", "reason", "at", "until")
_KEYS: Final = {
    "host": ("host", "for", "methods", "paths", "private", "on_secret", "idle"),
    "repository": ("name", "repository"),
    "request": ("request", "host", "port", "method", "path", "pattern"),
    "push": ("push", "repository"),
}


def parse(content: bytes) -> tuple[tuple[dict[str, Any], ...], Faults]:
    """The approvals that the overlay's text holds, compiled, and its faults, each `(path, message)`."""
    faults: Faults = []
    try:
        items = list_of(table, "tables")(json.loads(content or b"[]"))
    except (ValueError, RecursionError) as error:
        return (), [("", f"not JSON: {error}")]
    except Wrong as wrong:
        return (), wrong.faults
    found = []
    for index, item in enumerate(items):
        read = _entry(Table(f"[{index}]", item, faults))
        if read is not None:
            found.append(read)
    return tuple(found), faults


def _entry(item: Table) -> dict[str, Any] | None:
    kind = item.read("kind", choice(KINDS), None)
    if kind is None:
        if "kind" not in item:
            item.fault("kind", "is missing")
        return None
    item.allow((*_COMMON, *_KEYS[kind]))
    entry: dict[str, Any] = {
        "id": item.read("id", text, ""),
        "kind": kind,
        "reason": item.read("reason", _reason, ""),
        "at": item.read("at", integer(0), 0),
        "until": item.read("until", integer(0), 0),
        "hosts": [],
        "tunnels": [],
        "repos": {},
        "request": None,
        "push": None,
    }
    entry.update(_READERS[kind](item, entry["id"]))
    return entry


def _reason(value: object) -> str:
    """A reason: any string."""
    if not isinstance(value, str):
        raise Wrong(f"must be a string, is {shown(value)}")
    return value


def _host(item: Table, approval: str) -> dict[str, Any]:
    pattern = grammar.required(item, "host", grammar.pattern_of_hosts)
    if pattern is None:
        return {}
    return {"hosts": [compiled.host(grammar.host(item, pattern, f"approval {approval}"))]}


def _repository(item: Table, approval: str) -> dict[str, Any]:
    name = grammar.required(item, "name", text)
    keys = item.read("repository", table, {})
    if name is None:
        return {}
    below: Faults = []
    repositories = grammar.repositories(join(item.path, "repository"), {name: keys}, below)
    for _, message in below:
        item.fault("repository", message)
    implied = [rule.replace(rule=f"approval {approval}") for rule in grammar.implied_hosts(repositories)]
    return {
        "hosts": [compiled.host(rule) for rule in implied],
        "tunnels": [compiled.tunnel(each) for each in repositories if each.tunnelled],
        "repos": {each.name: compiled.repository(each) for each in repositories},
    }


def _request(item: Table, _approval: str) -> dict[str, Any]:
    words = ("request", "host", "method", "path", "pattern")
    read = {key: grammar.required(item, key, text) for key in words}
    return {"request": {**read, "port": grammar.required(item, "port", integer(1, 65_535))}}


def _push(item: Table, _approval: str) -> dict[str, Any]:
    return {"push": {key: grammar.required(item, key, text) for key in ("push", "repository")}}


_READERS: Final = {"host": _host, "repository": _repository, "request": _request, "push": _push}
