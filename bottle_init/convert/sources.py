"""What a file or a directory is, and who converts it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bottle_init.convert import compose, pebble, procfile, s6rc, supervisord
from bottle_init.convert.draft import Unconvertible
from bottle_init.convert.files import Unreadable, read_file
from bottle_init.convert.scalars import table, yaml

if TYPE_CHECKING:
    from bottle_init.convert.draft import Draft

KINDS: Final = ("supervisord", "procfile", "compose", "pebble", "s6-rc")

_SECTION: Final = re.compile(r"^\[(?:program:|supervisord|group:|include|eventlistener:|fcgi-program:)", re.MULTILINE)
_PROCESS: Final = re.compile(r"^[A-Za-z0-9_-]+:[ \t]*\S", re.MULTILINE)
_LAYER_NAME: Final = re.compile(r"[0-9]{3}-.*\.yaml")


def draft_of(path: str, kind: str | None) -> Draft:
    """The draft of what is at a path, `-` for standard input; `kind` is one of KINDS, None to look.

    Raises Unconvertible, ExtraMissing.
    """
    place = Path(path)
    if path != "-" and place.is_dir():
        return _of_directory(place, kind)
    if kind == "s6-rc":
        raise Unconvertible("", "an s6-rc source is a directory")
    text = _read(path)
    source = "standard input" if path == "-" else place.name
    directory = None if path == "-" else place.parent
    kind = kind or _kind_of(text, place.name)
    if kind == "pebble":
        return pebble.convert([(source, text)], source)
    reader = {"supervisord": supervisord.convert, "procfile": procfile.convert, "compose": compose.convert}[kind]
    return reader(text, source, directory)


def _of_directory(place: Path, kind: str | None) -> Draft:
    source = place.resolve().name
    if kind in (None, "s6-rc") and (found := s6rc.is_source(place)) is not None:
        return s6rc.convert(found, source)
    layers = place / "layers" if (place / "layers").is_dir() else place
    names = sorted(each.name for each in layers.iterdir() if _LAYER_NAME.fullmatch(each.name))
    if kind in (None, "pebble") and names:
        return pebble.convert([(name, _read(str(layers / name))) for name in names], source)
    raise Unconvertible(
        "",
        "a directory is either an s6-rc source (of directories with a file `type`) or has Pebble layers (001-x.yaml)",
    )


def _read(path: str) -> str:
    if path == "-" and sys.stdin is None:
        raise Unconvertible("", "standard input is closed; name a file")
    try:
        return read_file(0 if path == "-" else path)
    except Unreadable as problem:
        raise Unconvertible("", f"cannot be read: {problem}") from None


def _kind_of(text: str, name: str) -> str:
    """What a file is, by its name where that says it, else by its text."""
    if name.startswith("Procfile"):
        return "procfile"
    if name.endswith((".conf", ".ini")) or _SECTION.search(text):
        return "supervisord"
    if name.endswith((".yml", ".yaml")) or re.search(r"^services[ \t]*:", text, re.MULTILINE):
        return _kind_of_yaml(text)
    if _PROCESS.search(text):
        return "procfile"
    raise Unconvertible("", f"what it is cannot be told; say it with --kind: {', '.join(KINDS)}")


def _kind_of_yaml(text: str) -> str:
    """In a layer, every service and every check says how it overrides; a compose file has no such word."""
    content = table(yaml(text))
    entries = [
        entry for section in ("services", "checks") if section in content for entry in table(content[section]).values()
    ]
    is_layer = any(isinstance(entry, dict) and "override" in entry for entry in entries)
    return "pebble" if is_layer or "log-targets" in content or pebble.is_rock(content) else "compose"
