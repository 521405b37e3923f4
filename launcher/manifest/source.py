"""One manifest file, read and checked: its tables, and the line of each of its faults."""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from launcher.errors import LauncherError, ManifestError
from launcher.manifest import legacy
from launcher.manifest.lines import Path as KeyPath
from launcher.manifest.lines import line_of, positions
from launcher.manifest.schema import Manifest

WORDS = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
    "string_type": "a string is needed",
    "int_type": "a whole number is needed",
    "bool_type": "true or false is needed",
    "list_type": "a list is needed",
    "dict_type": "a table is needed",
    "model_type": "a table is needed",
    "model_attributes_type": "a table is needed",
    "string_pattern_mismatch": "letters, digits, - and _ are what a name is made of",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}
"""The grammar's own words for what pydantic says to programmers."""
SECRETIVE = ("credentials", "ssh_key", "env")
"""Below these a value that is wrong may be a secret that has come to the wrong place: it is not shown."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with one key of one file."""

    path: KeyPath
    message: str


@dataclass(frozen=True, eq=False)
class Source:
    """A manifest file that has no fault of its own. `tables` hold what is written, and no defaults."""

    path: Path
    manifest: Manifest
    tables: Mapping[str, Any]
    lines: Mapping[KeyPath, int] = field(repr=False)
    migrated: bool = False

    def error(self, faults: Iterable[Fault]) -> ManifestError:
        """The error for faults that only more than this file's grammar could tell."""
        return _error(self.path, faults, self.lines, migrated=self.migrated)


def read(path: Path) -> Source:
    """Read a manifest file.

    Raises `ManifestError` with every fault in it, `LauncherError` where the file can't be read.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LauncherError(
            f"{path}: {error.strerror if isinstance(error, OSError) else 'not a text file'}",
            hint="`bottle init` writes a manifest; docs/launcher.md explains it",
        ) from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(str(path), (str(error),)) from None
    except (RecursionError, ValueError):  # Python's own limits, for lists in lists and for digits.
        raise ManifestError(str(path), ("nested too deep, or a number of thousands of digits",)) from None
    if not document:  # The first form would take it for a bottle that needs nothing.
        return Source(path.absolute(), Manifest(), {}, {})
    return parse(document, path.absolute(), positions(text))


def parse(document: Mapping[str, Any], path: Path, lines: Mapping[KeyPath, int] | None = None) -> Source:
    """The same for a document that was read from `path`; raises `ManifestError` with every fault."""
    lines = lines or {}
    migrated = legacy.is_old(document)
    tables = legacy.migrated(document, path) if migrated else document
    try:
        manifest = Manifest.model_validate(tables)
    except ValidationError as error:
        faults = list(_faults(error.errors(), tables))
        raise _error(path, faults, lines, migrated=migrated) from None
    return Source(path, manifest, tables, lines, migrated)


def _faults(errors: Iterable[ErrorDetails], tables: Mapping[str, Any]) -> Iterator[Fault]:
    """A value that may be of several types has an error for each; one of them is told."""
    told: set[KeyPath] = set()
    for error in errors:
        path = _written(error["loc"], tables)
        if path not in told:
            told.add(path)
            value = error.get("input")
            shown = isinstance(value, str | int | float) and error["type"] not in ("extra_forbidden", "missing")
            shown = shown and not any(part in SECRETIVE for part in path)
            yield Fault(path, f"{_message(error, path)}, not {value!r}" if shown else _message(error, path))


def _message(error: ErrorDetails, path: KeyPath) -> str:
    if error["type"] == "literal_error":
        return f"one of {error['ctx']['expected'].replace(' or ', ', ')} is needed"
    message = WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))
    if error["type"] == "extra_forbidden" and (known := _known_keys(path[:-1])):
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        message += f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}"
    return message


def _known_keys(path: KeyPath) -> list[str]:
    """The keys of the table at a path, as the grammar has them."""
    whole = Manifest.model_json_schema()
    places: list[Mapping[str, Any]] = [whole]
    for part in path:
        places = [inner for place in places for inner in _inside(place, part, whole["$defs"])]
    return sorted({key for place in places for key in place.get("properties", ())})


def _inside(place: Mapping[str, Any], part: str | int, named: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    found = place.get("items") if isinstance(part, int) else place.get("properties", {}).get(part)
    found = found or place.get("additionalProperties") or next(iter(place.get("patternProperties", {}).values()), None)
    for each in found.get("anyOf", [found]) if isinstance(found, dict) else []:
        yield named[each["$ref"].rpartition("/")[2]] if "$ref" in each else each


def _written(location: tuple[str | int, ...], tables: Mapping[str, Any]) -> KeyPath:
    """The part of an error's location that is in the document: pydantic adds the names of types and of checks."""
    path: list[str | int] = []
    here: Any = tables
    for index, part in enumerate(location):
        if _holds(here, part):
            here = here[part]
        elif index == len(location) - 1 and isinstance(here, dict) and part != "[key]":
            path.append(part)  # A key that is missing.
            break
        else:
            continue
        path.append(part)
    return tuple(path)


def _holds(here: Any, part: str | int) -> bool:
    if isinstance(part, int):
        return isinstance(here, list) and part < len(here)
    return isinstance(here, dict) and part in here


def _error(path: Path, faults: Iterable[Fault], lines: Mapping[KeyPath, int], *, migrated: bool) -> ManifestError:
    told = [Fault(legacy.old_path(fault.path), fault.message) if migrated else fault for fault in faults]
    numbered = [(line_of(dict(lines), fault.path), fault) for fault in told]
    numbered.sort(key=lambda pair: pair[0] or 0)
    texts = [f"{dotted(fault.path)}: {fault.message}" if fault.path else fault.message for _, fault in numbered]
    return ManifestError(str(path), texts, [line for line, _ in numbered])


def dotted(path: KeyPath) -> str:
    """`agents.claude.command[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
