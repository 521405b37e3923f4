"""Changes of a manifest that leave its comments and its order as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import AoT, Array

from launcher import state
from launcher.errors import LauncherError
from launcher.manifest.place import PROJECT_FILE


def _bottle(paths: Sequence[Path]) -> tuple[Path, tomlkit.TOMLDocument, Any]:
    """The file that describes the bottle, and the table of its last bottle.

    Raises `LauncherError` where none of the files does.
    """
    for path in reversed(paths):
        if path.name == PROJECT_FILE:
            continue
        document = tomlkit.parse(path.read_text())
        bottles = document.get("bottles")
        if bottles:
            return path, document, bottles[list(bottles)[-1]]
        if "agents" not in document:
            return path, document, document
    raise LauncherError("no manifest is known that describes this bottle", hint="add the host to it by hand")


def add_host(paths: Sequence[Path], host: str, table: dict[str, Any]) -> Path:
    """Add a host to the bottle's manifest; returns the file."""
    path, document, bottle = _bottle(paths)
    egress = bottle.setdefault("egress", tomlkit.table())
    if table:
        hosts = egress.setdefault("hosts", tomlkit.aot())
        entry = tomlkit.table()
        entry.update({"host": host, **table})
        assert isinstance(hosts, AoT)
        hosts.append(entry)
    else:
        allow = egress.setdefault("allow", tomlkit.array())
        assert isinstance(allow, Array)
        if host not in allow:
            allow.append(host)
    state.replace(path, tomlkit.dumps(document))
    return path


def remove_host(paths: Sequence[Path], host: str) -> Path | None:
    """Take a host out of the first manifest that has it; returns the file, or `None`."""
    for path in paths:
        if path.name == PROJECT_FILE:
            continue
        document = tomlkit.parse(path.read_text())
        tables = [each for each in (*document.get("bottles", {}).values(), document) if isinstance(each, dict)]
        taken = [_take(table.get("egress"), host) for table in tables]
        if any(taken):
            state.replace(path, tomlkit.dumps(document))
            return path
    return None


def _take(egress: Any, host: str) -> bool:
    if egress is None:
        return False
    allow, hosts = egress.get("allow", []), egress.get("hosts", [])
    found = False
    for index in reversed(range(len(allow))):
        if allow[index] == host:
            del allow[index]
            found = True
    for index in reversed(range(len(hosts))):
        if hosts[index].get("host") == host:
            del hosts[index]
            found = True
    return found
