"""What is in the two distributions: `bottle-init`, the init alone, and `claude-bottle`, the launcher."""

from __future__ import annotations

import re
import subprocess
import sys
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.property.test_docs import tracked

ROOT = Path(__file__).parents[2]

OF_BOTTLES = re.compile(
    rb"claude|anthropic|sidecar|pipelock|\begress\b|git-gate|gitgate|mitmproxy|mitmdump|\bsupervise\b", re.IGNORECASE
)
"""Words of bottles' agents and daemons."""


def built(project: Path, directory: Path) -> ZipFile:
    """The wheel of a project, built from its files without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    return ZipFile(wheel)


def content(wheel: ZipFile, ending: str) -> str:
    (name,) = (name for name in wheel.namelist() if name.endswith(ending))
    return wheel.read(name).decode()


def required(wheel: ZipFile) -> list[str]:
    """What is installed along with it: all requirements but those of extras."""
    metadata = message_from_bytes(content(wheel, ".dist-info/METADATA").encode())
    return [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]


def test_the_init_is_a_wheel_of_its_own(tmp_path: Path) -> None:
    wheel = built(ROOT, tmp_path)
    names = set(wheel.namelist())
    data = "bottle_init-0.1.0.data/data/share/"
    expected = {name for name in tracked() if name.startswith("bottle_init/")}
    expected |= {data + name.removeprefix("share/") for name in tracked() if name.startswith("share/")}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert data + "man/man1/bottle-init.1" in names
    assert required(wheel) == [], "PID 1 runs on the standard library alone"
    told = [name for name in expected if OF_BOTTLES.search(wheel.read(name))]
    assert told == [], "the init knows nothing of what bottles run"
    assert "bottle-init = bottle_init.__main__:main" in content(wheel, "entry_points.txt")


@pytest.mark.skipif(not (ROOT / "launcher/pyproject.toml").exists(), reason="the launcher is no project of its own yet")
def test_the_launcher_is_a_wheel_of_its_own(tmp_path: Path) -> None:
    wheel = built(ROOT / "launcher", tmp_path)
    packages = {name.partition("/")[0] for name in wheel.namelist()}
    assert {name for name in packages if not name.endswith(".dist-info")} == {"launcher"}
    assert any(each.startswith("bottle-init") for each in required(wheel))
    assert "bottle = launcher." in content(wheel, "entry_points.txt")
