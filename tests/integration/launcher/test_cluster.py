"""Bottles in a real cluster: API server, kubelet, containerd, and kube-router, which enforces NetworkPolicy.

`make kubernetes` compiles its programs. Without them these tests are skipped, and say so.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.backend import get_bottle_backend
from tests.integration.support.engines import Box, NotHad, cluster
from tests.integration.support.launching import cli, finish

pytestmark = [pytest.mark.docker, pytest.mark.slow]

MANIFEST = """\
[bottles.small]

[agents.short]
bottle = "small"
command = ["sh", "-c", "git ls-remote git://sidecars/none 2>&1; echo words of the agent; exit 3"]

[agents.works]
bottle = "small"
command = ["sh", "-c", "git init --quiet ~/made && echo content > ~/made/new"]

[agents.long]
bottle = "small"
command = ["sh", "-c", "echo it works; exec sleep infinity"]
"""


@dataclass(frozen=True)
class Operator:
    """An operator of the cluster in a box."""

    home: Path
    box: Box

    def say(self, *command: str) -> tuple[int, str]:
        """The exit code of a command, and what it said."""
        code, said = finish(cli(self.home, *command))
        assert "Traceback" not in said
        return code, said

    @property
    def namespaces(self) -> list[str]:
        """Those of bottles."""
        every = self.box.execute("kubectl", "get", "namespaces", "--output", "name").split()
        return [name for name in every if "/bottle-" in name]


def operator_of(box: Box, directory: Path, patch: pytest.MonkeyPatch) -> Operator:
    (directory / ".claude-bottle").mkdir()
    (directory / ".claude-bottle/bottle.toml").write_text(MANIFEST)
    patch.setenv("PATH", str(directory), prepend=":")
    patch.setenv("CLAUDE_BOTTLE_BACKEND", "kubernetes")
    return Operator(directory, box)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """A cluster that enforces policies."""
    directory = tmp_path_factory.mktemp("cluster")
    try:
        with cluster(directory) as box, pytest.MonkeyPatch.context() as patch:
            yield operator_of(box, directory, patch)
    except NotHad as error:
        pytest.skip(f"a cluster cannot be had here: {error}")


def test_an_agent_runs_in_a_cluster(operator: Operator) -> None:
    """Its words and its exit code are the command's, and nothing is left in the cluster."""
    code, said = operator.say("up", "short")
    assert "the walls stand" in said
    assert "words of the agent" in said
    assert code == 3
    assert operator.namespaces == []


def test_work_of_an_ended_agent_is_kept(operator: Operator) -> None:
    """What it did not push. Defence: the container beside it, which sees its volumes when its own has ended."""
    code, said = operator.say("up", "works")
    assert code == 0, said
    assert "made: 1 changed files" in said
    (kept,) = (operator.home / ".claude-bottle/work").iterdir()
    with tarfile.open(kept) as archive:
        assert "agent/made/new" in archive.getnames()


def test_a_bottle_stays_up_in_a_cluster(operator: Operator) -> None:
    code, said = operator.say("up", "--detach", "long")
    assert code == 0, said
    (found,) = json.loads(operator.say("status", "--json")[1])
    assert found["state"] == "healthy", found
    slug = found["slug"]
    assert "it works" in operator.say("logs", slug)[1]
    assert operator.say("exec", slug, "--", "cat", "/proc/1/comm")[0] == 0
    assert operator.say("down", slug)[0] == 0
    assert operator.namespaces == []
    assert "it works" in operator.say("logs", slug)[1], "what was said is kept"


def test_the_walls_stand_in_a_cluster(operator: Operator) -> None:
    """Each is tried from its place. Those that do not stand are those of which the backend says so."""
    found = json.loads(operator.say("doctor", "--json")[1])
    assert {each["about"] for each in found} >= {"cluster", "nodes", "gate", "W1", "W2", "W3", "W4", "W5"}
    lost = {wall for wall, _ in get_bottle_backend("kubernetes").lost}
    assert {each["about"] for each in found if not each["good"]} <= lost
    inside = [each for each in found if each["about"] in ("gate", "W2", "W4")]
    assert all(each["good"] for each in inside)
    assert operator.namespaces == []


def test_a_cluster_without_an_enforcer_is_refused(tmp_path: Path) -> None:
    """It takes each policy and does nothing. Defence: the gate."""
    try:
        with cluster(tmp_path, fenced=False) as box, pytest.MonkeyPatch.context() as patch:
            operator = operator_of(box, tmp_path, patch)
            code, said = operator.say("up", "short")
            assert code == 1
            assert "the walls do not stand: the agent's network reaches" in said
            assert "words of the agent" not in said
            assert operator.namespaces == []
    except NotHad as error:
        pytest.skip(f"a cluster cannot be had here: {error}")
