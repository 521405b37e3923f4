"""`bottle-audit`: every daemon's audit trail and the operator's own, merged by time.

Each is read as its owner, for root has no CAP_DAC_OVERRIDE: a daemon's directory is closed to all others.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import time

from sidecars import layout, privileges
from sidecars.identity import acting_as, user_ids
from sidecars.operator.channel import fail, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any, Final

DAEMONS: Final = ("egress", "pipelock", "git-gate", "supervise")
OPERATOR: Final = "operator"
FILTERS: Final = ("daemon", "event", "verdict", "host", "method", "rule", "credential", "consumer", "status")
_FILES: Final = 8
_PAUSE_S: Final = 0.2
_LINE_MAX: Final = 1 << 16


class Trail:
    """One audit file that grows and is rotated, with those that it has been."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        directory = layout.OPERATOR if owner == OPERATOR else layout.AUDIT / owner
        self.path = directory / "audit.jsonl"
        self._file: int = -1
        self._identity: tuple[int, int] = (0, 0)
        self._rest = b""

    def past(self) -> Iterator[dict[str, Any]]:
        """What the rotated files hold, the oldest first."""
        for number in range(_FILES, 0, -1):
            descriptor = self._open(self.path.with_name(f"{self.path.name}.{number}"))
            if descriptor < 0:
                continue
            with open(descriptor, "rb") as file:
                for line in file:
                    yield from self._entry(line)

    def news(self) -> Iterator[dict[str, Any]]:
        """What the present file holds that was not told yet; after a rotation, of both files."""
        while True:
            if self._file < 0:
                self._file = self._open(self.path)
                if self._file < 0:
                    return
                status = os.fstat(self._file)
                self._identity = status.st_dev, status.st_ino
            yield from self._read()
            if not self._replaced():
                return
            # The last lines may have been written between the read and the look.
            yield from self._read()
            os.close(self._file)
            self._file, self._rest = -1, b""

    def _read(self) -> Iterator[dict[str, Any]]:
        while piece := os.read(self._file, _LINE_MAX):
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                yield from self._entry(line)

    def _replaced(self) -> bool:
        with self._acting():
            try:
                status = self.path.stat()
            except OSError:
                return False
        return (status.st_dev, status.st_ino) != self._identity

    def _open(self, path: Path) -> int:
        with self._acting():
            try:
                # A daemon owns its directory: what it put there instead of a file must not be waited for.
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                return -1

    def _acting(self) -> Any:
        return acting_as(*((0, 0) if self.owner == OPERATOR else user_ids(self.owner)))

    def _entry(self, line: bytes) -> Iterator[dict[str, Any]]:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return
        if isinstance(entry, dict):
            # What a daemon says of itself is what it is by its directory.
            yield {**entry, "timestamp": str(entry.get("timestamp", "")), "daemon": self.owner}


def merged(trails: list[Trail], *, follow: bool) -> Iterator[dict[str, Any]]:
    """All entries in the order of their time; with `follow`, those to come as well."""
    streams = [(entry for part in (trail.past(), trail.news()) for entry in part) for trail in trails]
    yield from heapq.merge(*streams, key=lambda entry: str(entry["timestamp"]))
    while follow:
        time.sleep(_PAUSE_S)
        yield from sorted(
            (entry for trail in trails for entry in trail.news()), key=lambda entry: str(entry["timestamp"])
        )


def told(entry: dict[str, Any]) -> str:
    """A line for people's eyes."""
    named = ("timestamp", "daemon", "event", "verdict")
    facts = [f"{key}={value}" for key, value in entry.items() if key not in named and value not in ("", None, 0)]
    return printable("  ".join([*(str(entry[key]) for key in named if entry.get(key)), *facts]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bottle-audit", description="What was let through, refused and decided.", allow_abbrev=False
    )
    parser.add_argument("--follow", action="store_true", help="go on with what is to come")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--since", default="", metavar="TIME", help="RFC 3339, or the beginning of it: 2026-01-31T08")
    parser.add_argument("--until", default="", metavar="TIME")
    parser.add_argument("--last", type=int, default=0, metavar="N", help="the last N entries only")
    for name in FILTERS:
        parser.add_argument(f"--{name}", action="append", default=[], metavar=name.upper(), help="may be repeated")
    return parser


def wanted(entry: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether an entry passes every filter; of one that is repeated, any value does."""
    at = entry["timestamp"]
    if at < options.since or (options.until and at > options.until):
        return False
    return all(not getattr(options, name) or str(entry.get(name, "")) in getattr(options, name) for name in FILTERS)


def main() -> None:
    """Exits 2 for a usage, 1 where no audit can be read."""
    privileges.drop()
    options = _parser().parse_args()
    if os.geteuid() != 0:
        raise fail("bottle-audit", "only root reads the audit (docker exec)")
    trails = [Trail(owner) for owner in (*DAEMONS, OPERATOR)]
    found: Iterator[dict[str, Any]] = (
        entry for entry in merged(trails, follow=options.follow) if wanted(entry, options)
    )
    if options.last and not options.follow:
        found = iter([*found][-options.last :])
    try:
        for entry in found:
            print(json.dumps(entry) if options.json else told(entry), flush=options.follow)
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(0)  # Nobody reads any more, and the interpreter would flush.
