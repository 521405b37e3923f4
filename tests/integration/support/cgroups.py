"""A cgroup v1 of a test's own, and a command line that starts something in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.support.init import eventually


@contextmanager
def cgroup(controller: str, **settings: str) -> Iterator[Path]:
    """A cgroup v1 of the test's own; it is empty again at the end."""
    root = Path("/sys/fs/cgroup") / controller
    if not (root / "cgroup.procs").exists():
        pytest.skip(f"no cgroup v1 {controller} controller here that a test could make a group in")
    group = root / f"bottle-test-{os.getpid()}"
    group.mkdir()
    try:
        for name, value in settings.items():
            (group / f"{controller}.{name}").write_text(value)
        yield group
    finally:
        if controller == "freezer":
            thaw(group)
        eventually(lambda: not (group / "cgroup.procs").read_text(), "the end of the group's processes")
        group.rmdir()


def inside(group: Path) -> tuple[str, ...]:
    """A command line that runs the next one in this cgroup."""
    return ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")


def freeze(group: Path) -> None:
    """Stop every process of this freezer, and return once all are stopped."""
    (group / "freezer.state").write_text("FROZEN")
    eventually(lambda: (group / "freezer.state").read_text() == "FROZEN\n", "the freeze")


def thaw(group: Path) -> None:
    """Let them go on."""
    (group / "freezer.state").write_text("THAWED")
