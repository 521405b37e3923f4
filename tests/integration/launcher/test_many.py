"""Many bottles: killed launchers, ten side by side, and how often the engine is called."""

import json
import os
import random
import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from launcher.docker import docker
from launcher.host_rules import SHOW, table_name
from launcher.plan import BUNDLE_IMAGE, object_name
from tests.integration.support.launching import cli, finish, kill, leftovers, slugs_of

pytestmark = [pytest.mark.docker]

KILLS = int(os.environ.get("BOTTLE_KILLS", "12"))
"""How many launchers are killed; 200 take about as many minutes as an `up` takes seconds."""
AT_ONCE = 10
MANIFEST = """\
[bottles.many]
daemons = ["pipelock", "egress"]

[agents.many]
bottle = "many"
command = ["sleep", "infinity"]
"""
RECORDER = """\
#!/bin/sh
echo "$1 $2 $3 $4" >>"{record}"
exec {docker} "$@"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An operator's home with one manifest."""
    (tmp_path / ".claude-bottle").mkdir()
    (tmp_path / ".claude-bottle/bottle.toml").write_text(MANIFEST)
    return tmp_path


def said_by(home: Path, *command: str) -> str:
    """What a command says that has to succeed."""
    code, said = finish(cli(home, *command))
    assert code == 0, said
    return said


def tables_of(slug: str) -> int:
    """The number of tables of rules that the engine's host has of a bottle."""
    options = ("--rm", "--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--entrypoint", "sh")
    rules = docker("run", *options, BUNDLE_IMAGE, "-c", SHOW).stdout
    return len(re.findall(rf"^table \w+ {table_name(slug)} ", rules, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.timeout(900 + 10 * KILLS)
def test_prune_removes_what_killed_launchers_leave(home: Path) -> None:
    """Each dies at a moment drawn from the length of a whole `up`. A bottle that was complete by then stays up."""
    began = time.monotonic()
    said_by(home, "up", "--detach", "many")
    length_s = time.monotonic() - began
    (first,) = slugs_of(home)
    assert tables_of(first) == 2
    seen, moments = {first}, random.Random(KILLS)
    for _ in range(KILLS):
        process = cli(home, "up", "--detach", "--new", "many")
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, length_s))
        kill(process)
        seen.update(slugs_of(home))
    said_by(home, "prune")
    whole = {each["slug"] for each in json.loads(said_by(home, "status", "--json"))}
    assert first in whole
    assert set(slugs_of(home)) == whole
    for slug in seen - whole:
        assert (leftovers(slug), tables_of(slug)) == ([], 0), slug
    said_by(home, "down", "--all")
    for slug in seen:
        assert (leftovers(slug), tables_of(slug)) == ([], 0), slug
    assert slugs_of(home) == []
    assert said_by(home, "prune") == "there was nothing to remove\n"


@pytest.mark.slow
def test_ten_bottles_at_once_share_nothing(home: Path) -> None:
    """Names, addresses, bridges and volumes: each has its own, and `status` tells them apart by one list."""
    launchers = [cli(home, "up", "--detach", "--new", "many") for _ in range(AT_ONCE)]
    try:
        for launcher in launchers:
            code, said = finish(launcher)
            assert code == 0, said
        found = json.loads(said_by(home, "status", "--json"))
        slugs = [each["slug"] for each in found]
        assert len(slugs) == AT_ONCE
        names = [object_name(slug, role) for slug in slugs for role in ("internal", "egress")]
        networks = json.loads(docker("network", "inspect", *names).stdout)
        assert len({each["IPAM"]["Config"][0]["Subnet"] for each in networks}) == 2 * AT_ONCE
    finally:
        said_by(home, "down", "--all")
    for slug in slugs:
        assert leftovers(slug) == []


def calls_of(home: Path, monkeypatch: pytest.MonkeyPatch, *command: str) -> list[str]:
    """The command lines of `docker` that a command of the launcher runs."""
    record, directory = home / "calls", home / "bin"
    directory.mkdir(exist_ok=True)
    record.write_text("")
    real = shutil.which("docker")
    (directory / "docker").write_text(RECORDER.format(record=record, docker=real))
    (directory / "docker").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        said_by(home, *command)
    return record.read_text().splitlines()


def test_other_bottles_cost_no_more_calls(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of a command do not grow with the bottles of others; `status` asks each of one's own by a call."""
    other = tmp_path / "other"
    shutil.copytree(home / ".claude-bottle", other / ".claude-bottle")
    said_by(home, "up", "--detach", "many")
    (first,) = slugs_of(home)
    alone = calls_of(home, monkeypatch, "status")
    said_by(other, "up", "--detach", "many")
    (theirs,) = slugs_of(other)
    beside_others = calls_of(home, monkeypatch, "status")
    up = calls_of(home, monkeypatch, "up", "--detach", "--new", "many")
    (second,) = set(slugs_of(home)) - {first}
    beside_own = calls_of(home, monkeypatch, "status")
    down = calls_of(home, monkeypatch, "down", second)
    assert len(alone) == len(beside_others) == len(beside_own) - 1 == 2
    assert len(up) <= 24, up
    assert len(down) <= 16, down
    said_by(other, "down", theirs)
    again = calls_of(home, monkeypatch, "down", first)
    assert len(again) <= len(down)
    assert leftovers(first) == leftovers(second) == leftovers(theirs) == []
