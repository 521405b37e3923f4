"""Changes of a manifest that leave its comments and its order as they are."""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import AoT, InlineTable

from launcher import state
from launcher.errors import LauncherError
from launcher.manifest.place import PROJECT_FILE
from launcher.manifest.source import read

BY_HAND = "change it by hand"


def add_host(paths: Sequence[Path], bottles: Sequence[str], host: str, table: dict[str, Any]) -> Path:
    """Add a host to the first of these bottles that one of the manifests has; returns the file.

    Raises `LauncherError` where none has it, `ManifestError` for a file with faults.
    """
    for path, document, bottle in _found(paths, bottles):
        inline = isinstance(bottle, InlineTable)
        egress = bottle.setdefault("egress", tomlkit.inline_table() if inline else tomlkit.table())
        if not table:
            allow = egress.setdefault("allow", tomlkit.array())
            if host not in allow:
                allow.append(host)
        else:
            hosts = egress.setdefault("hosts", tomlkit.array())
            entry = tomlkit.table() if isinstance(hosts, AoT) else tomlkit.inline_table()
            entry.update({"host": host, **table})
            hosts.append(entry)
        _write(path, document)
        return path
    raise LauncherError("no manifest is known that describes this bottle", hint=BY_HAND)


def remove_host(paths: Sequence[Path], bottles: Sequence[str], host: str) -> Path | None:
    """Take a host out of the first of these bottles that has it; returns the file, or `None`.

    Raises as `add_host` does.
    """
    for path, document, bottle in _found(paths, bottles):
        if _take(bottle.get("egress"), host):
            _write(path, document)
            return path
    return None


def _found(paths: Sequence[Path], bottles: Sequence[str]) -> Iterator[tuple[Path, tomlkit.TOMLDocument, Any]]:
    """The bottles in their order, each with the file that has it; a file of the first form is one bottle as a whole."""
    documents = {path: _document(path) for path in paths if path.name != PROJECT_FILE}
    for name in bottles:
        for path, document in documents.items():
            if name in document.get("bottles", {}):
                yield path, document, document["bottles"][name]
            elif "bottles" not in document and "agents" not in document:
                yield path, document, document


def _document(path: Path) -> tomlkit.TOMLDocument:
    read(path)
    return tomlkit.parse(path.read_text())


def _write(path: Path, document: tomlkit.TOMLDocument) -> None:
    """Raises `LauncherError`, and changes nothing, where the change cannot be written in the file's form."""
    text = tomlkit.dumps(document)
    try:
        written = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        written = None
    if written != document.unwrap():
        raise LauncherError(f"{path} is written in a form that cannot be changed here", hint=BY_HAND)
    state.replace(path, text)


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
