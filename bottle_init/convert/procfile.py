"""From a Procfile, as foreman, honcho and Heroku read it (devcenter.heroku.com/articles/procfile)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from bottle_init.convert import shell
from bottle_init.convert.draft import Draft, ExtraMissing, Unconvertible
from bottle_init.convert.files import Unreadable, read_file
from bottle_init.core.words import DAEMON, ONESHOT

if TYPE_CHECKING:
    from pathlib import Path

TOOL: Final = "Procfile"
_RELEASE: Final = "release"
_FIRST_PORT: Final = 5_000
_PORTS_APART: Final = 100
_PROCESS: Final = re.compile(r"[A-Za-z0-9_-]+:\s*.+")
_PORT: Final = re.compile(r"\$(?:PORT\b|\{PORT\})")


def convert(text: str, source: str, directory: Path | None) -> Draft:
    """The draft of a Procfile. `directory` is where its .env would be. Raises Unconvertible, ExtraMissing."""
    try:
        from honcho.environ import parse_procfile
    except ImportError:
        raise ExtraMissing("honcho") from None
    try:
        processes = dict(parse_procfile(text).processes)
    except AssertionError:
        raise Unconvertible("", "a name is there twice") from None
    draft = Draft(source, TOOL)
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#") and not _PROCESS.match(line):
            draft.note(f"line {number} is `NAME: COMMAND` for no runner either: {line}")
    released = []
    number = 0
    for name, line in processes.items():
        child = draft.child(name, ONESHOT if name == _RELEASE else DAEMON, name)
        port = f"$((${{PORT:-{_FIRST_PORT}}} + {number * _PORTS_APART}))" if number else f"${{PORT:-{_FIRST_PORT}}}"
        words, variables = shell.command_of(line)
        child.command(_with_port(word, port) if words[0] == "sh" else word for word in words)
        child.env(variables.items())
        if child.kind == ONESHOT:
            released.append(child.name)
            child.note("a release phase: it runs to its end before the others start")
            continue
        if not _PORT.search(line):
            child.note(
                f"PORT is the container's; foreman and honcho set it to {_FIRST_PORT + number * _PORTS_APART} here"
            )
        number += 1
    for child in draft.children.values():
        if child.kind != ONESHOT:
            child.after(released)
    _read_env_file(draft, directory)
    return draft


def _with_port(line: str, port: str) -> str:
    """The line with a default for `$PORT`, except where the shell would not look at it."""
    parts = re.split(r"('[^']*')", line)
    return "".join(part if index % 2 else _PORT.sub(lambda _: port, part) for index, part in enumerate(parts))


def _read_env_file(draft: Draft, directory: Path | None) -> None:
    """The .env beside a Procfile is read by every runner of them."""
    path = directory / ".env" if directory is not None else None
    if path is None or not path.is_file():
        return
    try:
        lines = read_file(path).splitlines()
    except Unreadable as problem:
        draft.lose(f".env: it cannot be read: {problem}")
        return
    said = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=[^\s'\"$\\#]*", line) for line in said):
        for child in draft.children.values():
            child.table["env_files"] = [".env"]
        draft.note(".env is read by every child at each start; it must be in the directory that the init starts in")
    else:
        draft.lose(".env: env_files takes NAME=VALUE as it is, without quotes, spaces, export or $; then name it there")
