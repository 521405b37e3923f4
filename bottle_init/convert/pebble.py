"""From layers of Pebble, one or all of them (documentation.ubuntu.com/pebble/reference/layer-specification)."""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

from bottle_init.convert.draft import UNLIMITED_RESTARTS, Child, Draft, Unconvertible
from bottle_init.convert.scalars import bounded, go_duration, table, text_of, texts, whole, yaml
from bottle_init.core.words import DAEMON, JOB

TOOL: Final = "Pebble layer"

_OKAY_DELAY: Final = "1s"
"""How long a service has to run before those after it are started."""

_POLICIES: Final = {
    ("restart", "restart"): "restart",
    ("ignore", "restart"): "restart-on-failure",
    ("ignore", "ignore"): "wait-for-all",
    ("ignore", "shutdown"): "exit-on-child-failure",
    ("shutdown", "shutdown"): "exit-on-child-death",
}
_NEAREST: Final = {
    ("shutdown", "restart"): "restart-on-failure",
    ("shutdown", "ignore"): "wait-for-all",
    ("restart", "ignore"): "restart",
    ("restart", "shutdown"): "exit-on-child-failure",
}
_ACTIONS: Final = ("restart", "shutdown", "success-shutdown", "failure-shutdown", "ignore")
_OF_LAYER: Final = ("summary", "description")
_KNOWN: Final = (
    *("override", "summary", "description", "startup", "command", "after", "before", "requires", "environment"),
    *("user", "user-id", "group", "group-id", "working-dir", "on-success", "on-failure", "on-check-failure"),
    *("backoff-delay", "backoff-factor", "backoff-limit", "kill-delay"),
)


def convert(layers: list[tuple[str, str]], source: str) -> Draft:
    """The draft of layers, each `(name, text)`, the lowest first. Raises Unconvertible, ExtraMissing."""
    draft = Draft(source, TOOL)
    plan: dict[str, dict[str, dict[str, Any]]] = {"services": {}, "checks": {}}
    for name, text in layers:
        content = table(bounded(yaml(text)))
        for section, known in plan.items():
            _lay(draft, known, content, section, name)
        for key in content:
            if key == "log-targets":
                draft.lose('log-targets: logs = "json", and a collector that reads the log of the container')
            elif key not in (*plan, *_OF_LAYER) and not is_rock(content):
                draft.lose(f"{key}: Pebble has no such key")
    services = plan["services"]
    if not services:
        raise Unconvertible("services", "there are none")
    for name, content in services.items():
        kind = JOB if _is_job(content) else DAEMON
        _fill(draft.child(name, kind, f"services.{name}"), content)
    children = dict(zip(services, draft.children.values(), strict=True))
    _order(children, services)
    _enable(children, services)
    _check(draft, children, plan)
    if any("restart" in child.table.get("policy", "") for child in children.values()):
        draft.bundle["restarts"] = {"max": UNLIMITED_RESTARTS}
        draft.note("Pebble never gives up a restart; a smaller `max` ends the bundle when a daemon keeps failing")
    return draft


def is_rock(content: dict[str, Any]) -> bool:
    """Whether this is a rockcraft.yaml, whose services and checks become the layer of its image."""
    return {"name", "base", "parts", "platforms"} <= content.keys()


def _lay(draft: Draft, known: dict[str, dict[str, Any]], content: dict[str, Any], section: str, layer: str) -> None:
    """Put one layer over those below: each entry replaces the one of its name, or is merged with it."""
    for name, entry in table(content.get(section)).items():
        if not isinstance(entry, dict):
            raise Unconvertible(f"{section}.{name}", "must be a mapping")
        override = text_of(entry.get("override"))
        if override not in ("merge", "replace"):
            raise Unconvertible(f"{section}.{name}.override", f"must be merge or replace, is {override!r}")
        if override == "merge" and name not in known:
            draft.lose(f"{section}.{name}: it is merged with a layer below {layer}, which is not here")
        known[name] = _merged(known.get(name, {}), entry) if override == "merge" else entry


def _merged(base: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged, lists are added, and of anything else the upper layer's holds."""
    found = dict(base)
    for key, value in entry.items():
        below = found.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            found[key] = _merged(below, value)
        elif isinstance(below, list) and isinstance(value, list):
            found[key] = below + value
        else:
            found[key] = value
    return found


def _actions(content: dict[str, Any]) -> tuple[str, str]:
    """What follows success and failure; the flavours of a shutdown are one."""
    found = [text_of(content.get(key)) or "restart" for key in ("on-success", "on-failure")]
    success, failure = ("shutdown" if action.endswith("-shutdown") else action for action in found)
    return success, failure


def _is_job(content: dict[str, Any]) -> bool:
    """Whether its end is the natural end of the whole: then the exit code is its own, 0 for a success."""
    watched = table(content.get("on-check-failure"))
    return _actions(content) == ("shutdown", "shutdown") and not watched


def _fill(child: Child, content: dict[str, Any]) -> None:
    try:
        words = shlex.split(re.sub(r"(?:(?<=\s)|^)[\[\]](?=\s|$)", "", text_of(content.get("command")) or ""))
    except ValueError as problem:
        raise Unconvertible(f"{child.place}.command", f"{problem}") from None
    if words:
        child.command(words)
    child.env(
        (name, text)
        for name, value in table(content.get("environment")).items()
        if (text := text_of(value)) is not None
    )
    for key in ("user", "group"):
        name, number = text_of(content.get(key)), whole(content.get(f"{key}-id"))
        if name is not None or number is not None:
            child.table[key] = number if name is None else name
    if (directory := text_of(content.get("working-dir"))) is not None:
        child.table["cwd"] = directory
    if (delay := _duration(child, content, "kill-delay")) is not None:
        child.table["stop_timeout"] = delay
    if child.kind == DAEMON:
        _policy(child, content)
    for key in content:
        if key not in _KNOWN:
            child.lose(f"{key}: Pebble has no such key")


def _duration(child: Child, content: dict[str, Any], key: str) -> str | None:
    if content.get(key) is None:
        return None
    found = go_duration(content[key])
    if found is None:
        child.lose(f"{key} = {text_of(content[key])}: it is no duration")
    return found


def _policy(child: Child, content: dict[str, Any]) -> None:
    for key in ("on-success", "on-failure"):
        action = text_of(content.get(key)) or "restart"
        if action not in _ACTIONS:
            child.lose(f"{key} = {action}: there is no such action")
        elif action == {"on-success": "failure-shutdown", "on-failure": "success-shutdown"}[key]:
            child.lose(f"{key} = {action}: the exit code tells how it ended")
    wanted = _actions(content)
    child.table["policy"] = _POLICIES.get(wanted) or _NEAREST.get(wanted, "restart")
    if wanted not in _POLICIES:
        child.lose(f"on-success = {wanted[0]} with on-failure = {wanted[1]}: no policy says both")
    backoff: dict[str, Any] = {
        key: found for key in ("delay", "limit") if (found := _duration(child, content, f"backoff-{key}")) is not None
    }
    if "delay" in backoff:
        backoff = {"initial": backoff.pop("delay"), **backoff}
    factor = content.get("backoff-factor")
    if isinstance(factor, int | float) and not isinstance(factor, bool) and 1 <= factor <= 1_000_000:
        backoff["factor"] = factor
    elif factor is not None:
        child.lose(f"backoff-factor = {text_of(factor)}: it is no number from 1 on")
    if backoff:
        child.table["backoff"] = backoff


def _order(children: dict[str, Child], services: dict[str, dict[str, Any]]) -> None:
    """`after` and `before` are one order; who is waited for is given the second that Pebble waits."""
    awaited: dict[str, None] = {}
    for name, content in services.items():
        pairs = [(name, other) for other in texts(content.get("after") or [])]
        pairs += [(other, name) for other in texts(content.get("before") or [])]
        for later, earlier in pairs:
            if later in children and earlier in children:
                children[later].after([children[earlier].name])
                awaited[earlier] = None
            else:
                children[name].lose(f"after or before {earlier if later == name else later}: there is no such service")
        ordered = texts(content.get("after") or [])
        for other in texts(content.get("requires") or []):
            if other not in children:
                children[name].lose(f"requires {other}: there is no such service")
            elif other not in ordered:
                children[name].note(f"requires {other}: both are started; `after` would wait for it as well")
    for name in awaited:
        if children[name].kind == DAEMON:
            children[name].table["ready"] = {"after": _OKAY_DELAY}


def _enable(children: dict[str, Child], services: dict[str, dict[str, Any]]) -> None:
    """Enabled is what starts by itself, and what that requires."""
    todo = [name for name, content in services.items() if text_of(content.get("startup")) == "enabled"]
    started: dict[str, None] = {}
    while todo:
        name = todo.pop()
        if name in services and name not in started:
            started[name] = None
            todo.extend(texts(services[name].get("requires") or []))
    for name, child in children.items():
        if name not in started:
            child.table["enabled"] = False


# Checks.


def _check(draft: Draft, children: dict[str, Child], plan: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Each check becomes the health of the one service that it is about."""
    owners: dict[str, list[str]] = {}
    for service, content in plan["services"].items():
        for check in table(content.get("on-check-failure")):
            owners.setdefault(check, []).append(service)
    for name, content in plan["checks"].items():
        context = text_of(table(content.get("exec")).get("service-context"))
        about = owners.get(name) or [context or (next(iter(children)) if len(children) == 1 else "")]
        if text_of(content.get("startup")) == "disabled":
            draft.lose(f"checks.{name}: it is not started by itself; here a check runs as long as its daemon does")
        elif len(about) > 1 or about[0] not in children:
            draft.lose(f"checks.{name}: a check is of one daemon; write it as `health` of the one that it is about")
        elif children[about[0]].kind != DAEMON:
            draft.lose(f"checks.{name}: {about[0]} is a job, which has no health")
        elif "health" in children[about[0]].table:
            draft.lose(f"checks.{name}: a daemon has one check, and {about[0]} has another")
        else:
            action = text_of(table(plan["services"][about[0]].get("on-check-failure")).get(name)) or "ignore"
            _attach(children[about[0]], name, content, action)
    for check, services in owners.items():
        if check not in plan["checks"]:
            draft.lose(f"services.{services[0]}.on-check-failure: there is no check {check}")


def _attach(child: Child, name: str, content: dict[str, Any], action: str) -> None:
    probe = _probe(child, name, content)
    if not probe:
        return
    for key, target, default in (("period", "interval", "10s"), ("timeout", "timeout", "3s")):
        found = _duration(child, content, key)
        probe[target] = found if found not in (None, "0s") else default
    threshold = whole(content.get("threshold"))
    probe["retries"] = threshold if threshold is not None and threshold > 0 else 3
    child.table["health"] = probe
    known = {"restart": "restart", "shutdown": "stop", "failure-shutdown": "stop", "ignore": "ignore"}
    if action not in known:
        child.lose(f"on-check-failure {name} = {action}: the bundle ends with 69, and not with 0")
    if known.get(action, "stop") != "ignore":
        child.table["on_unhealthy"] = known.get(action, "stop")
    if text_of(content.get("level")):
        child.note(f"the check {name} is of the level {text_of(content.get('level'))}: /health and /live of the pages")


def _probe(child: Child, name: str, content: dict[str, Any]) -> dict[str, Any]:
    """The probe of a check; empty where it has none that can be converted."""
    kinds = [key for key in ("http", "tcp", "exec") if isinstance(content.get(key), dict)]
    if len(kinds) != 1:
        child.lose(f"checks.{name}: it needs exactly one of http, tcp and exec")
        return {}
    about = table(content[kinds[0]])
    if kinds[0] == "tcp":
        host, port = text_of(about.get("host")) or "localhost", whole(about.get("port"))
        return {"tcp": port if host == "localhost" else f"{host}:{port}"}
    if kinds[0] == "http":
        headers = {key: text_of(value) or "" for key, value in table(about.get("headers")).items()}
        child.note(f"the check {name}: a status from 300 to 399 passes here, as well as one from 200 to 299")
        return {"http": text_of(about.get("url")) or ""} | ({"headers": headers} if headers else {})
    try:
        words = shlex.split(text_of(about.get("command")) or "")
    except ValueError:
        words = []
    if not words:
        child.lose(f"checks.{name}.exec.command: it is no command")
        return {}
    for key in ("environment", "user", "user-id", "group", "group-id", "working-dir"):
        if about.get(key) is not None:
            child.lose(f"checks.{name}.exec.{key}: a check runs as its daemon does")
    return {"exec": words}
