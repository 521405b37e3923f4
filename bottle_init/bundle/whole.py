"""A bundle file and the files that it includes, as one document (contract 9.5)."""

from __future__ import annotations

from bottle_init.bundle import include, readers, variables
from bottle_init.bundle.keys import KINDS
from bottle_init.bundle.table import Table, join, shown
from bottle_init.core.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from bottle_init.bundle.include import Files
    from bottle_init.bundle.source import Faults

    Content = dict[str, Any]

_MERGED = (*KINDS, "variables")
_ELSEWHERE = {
    "include": "an included file includes no others",
    "bundle": "belongs in the file that includes this one, which has children and variables only",
}


class Whole(Value):
    """The document: `content` as TOML gives it, of all files.

    `patterns` are those of `include`, as they are written; `files` what they matched, `(path, text)` each, and
    `unmatched` those that nothing did. `owners` are `(path of a table, file)` of what an included file says, and
    `idle` the tables with `override` that replaced nothing.
    """

    content: Any
    patterns: tuple[str, ...] = ()
    files: tuple[tuple[str, bytes], ...] = ()
    unmatched: tuple[str, ...] = ()
    owners: tuple[tuple[str, str], ...] = ()
    idle: tuple[str, ...] = ()

    def named(self, path: str) -> str:
        """The path of a fault, with its file where that is an included one."""
        for table, file in self.owners:
            if path == table or path.startswith((f"{table}.", f"{table}[")):
                return f"{file}: {path}"
        return path


def read(text: bytes | str, source: str, environ: Mapping[str, str]) -> tuple[Whole | None, Faults]:
    """The document of a bundle file and all that it includes, and what is wrong with the files as such.

    Where one is no TOML, there is no document, and those faults are the only ones.
    """
    from bottle_init.bundle import toml

    content, faults = toml.read(text)
    if content is None:
        return None, faults
    patterns = patterns_of(content, faults)
    files, unread, unmatched = include.read(source, replaced(patterns, content, environ))
    faults.extend(unread)
    parts, broken = _parts(files)
    if broken:
        return None, broken
    merged = _Merged(content)
    merged.add("", content)
    for file, part in parts:
        merged.add(file, part)
    faults.extend(merged.faults)
    whole = Whole(
        merged.content, patterns, tuple(files), tuple(unmatched), tuple(merged.owners.items()), tuple(merged.idle)
    )
    return whole, faults


def patterns_of(content: Content, faults: Faults) -> tuple[str, ...]:
    """What `include` says, as it is written."""
    return Table("", content, faults).read("include", readers.paths, ())


def replaced(patterns: tuple[str, ...], content: Content, environ: Mapping[str, str]) -> list[str]:
    """The patterns with the variables that the file itself declares."""
    if not patterns or "variables" not in content:
        return list(patterns)
    declared = Table("", content, []).read("variables", readers.variables, ())
    return variables.replace_each(patterns, declared, environ)


def _parts(files: Files) -> tuple[list[tuple[str, Content]], Faults]:
    """Each included file as TOML gives it; faults of syntax are told alone."""
    from bottle_init.bundle import toml

    parts = []
    broken: Faults = []
    for file, text in files:
        content, faults = toml.read(text)
        if content is not None:
            parts.append((file, content))
        broken.extend((f"{file}: {where}" if where else file, message) for where, message in faults)
    return parts, broken


class _Merged:
    """The tables of several files as one document; faults are those of the files that are included."""

    def __init__(self, content: Content) -> None:
        self.content: Content = {
            key: {} if key in _MERGED and isinstance(each, dict) else each for key, each in content.items()
        }
        self.faults: Faults = []
        self.owners: dict[str, str] = {}
        self.idle: list[str] = []
        self._kinds: dict[str, str] = {}

    def add(self, file: str, content: Content) -> None:
        """The tables of one more file; `""` is the one that includes the others."""
        own: Faults = []
        if file:
            Table("", content, own).allow(_MERGED, _ELSEWHERE)
        for key, table in content.items():
            if key in _MERGED and isinstance(table, dict):
                if isinstance(self.content.setdefault(key, {}), dict):
                    for name, each in table.items():
                        own.extend(self._place(file, key, name, each))
            elif key in _MERGED and file:
                own.append((key, f"must be a table, is {shown(table)}"))
        self.faults.extend((f"{file}: {path}", message) for path, message in own)

    def _place(self, file: str, key: str, name: str, each: object) -> Iterator[tuple[str, str]]:
        path = join(key, name)
        earlier = self._earlier(key, name)
        overrides = isinstance(each, dict) and each.get("override") is True
        if overrides and not earlier:
            self.idle.append(f"{file}: {path}" if file else path)
        if earlier and not overrides and file:
            yield path, f"the name is taken by {self._shown(earlier, name)}: `override = true` would replace that"
            return
        if earlier and overrides and earlier != key:
            del self.content[earlier][name]
            self.owners.pop(join(earlier, name), None)
        self.content[key][name] = each
        if key in KINDS:
            self._kinds[name] = key
        self.owners.pop(path, None)
        if file:
            self.owners[path] = file

    def _earlier(self, key: str, name: str) -> str:
        """The table that has this name already, empty for none. Variables and children have names of their own."""
        if key == "variables":
            return key if name in self.content.get(key, {}) else ""
        return self._kinds.get(name, "")

    def _shown(self, key: str, name: str) -> str:
        path = join(key, name)
        file = self.owners.get(path)
        return f"{path} of {file}" if file else path
