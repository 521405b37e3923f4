"""What `allow --keep` and `revoke --keep` change in a manifest, and what `reload` and `resume` read of it again."""

import os
import tomllib
from pathlib import Path

import pytest

from launcher import state
from launcher.errors import LauncherError, ManifestError
from launcher.manifest import Wishes, again, find
from launcher.manifest.editing import add_host, remove_host

HOST = "docs.example.org"
BOTTLES = ("work", "base")
FORMS = {
    "a table": '[bottles.work]\n[bottles.work.egress]\nallow = ["a.example"]  # why\n',
    "dotted": '[bottles.work]\negress.allow = ["a.example"]  # why\n',
    "inline": '[bottles.work]\negress = { allow = ["a.example"] }  # why\n',
    "all inline": 'bottles.work = { egress = { allow = ["a.example"] } }  # why\n',
    "empty": "[bottles.work]  # why\n",
    "with rules": '[bottles.work]  # why\n[[bottles.work.egress.hosts]]\nhost = "b.example"\n',
    "with inline rules": '[bottles.work]  # why\negress = { hosts = [{ host = "b.example" }] }\n',
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    state.own_root().mkdir()
    return tmp_path


@pytest.mark.parametrize("table", [{}, {"methods": ["GET"], "private": True}], ids=["a host", "with rules of its own"])
@pytest.mark.parametrize("form", FORMS)
def test_a_host_is_added_in_whatever_form(home: Path, form: str, table: dict[str, object]) -> None:
    """What was there stays, comments too; and what was added can be taken out again."""
    path = home / "made.toml"
    path.write_text(FORMS[form])
    before = tomllib.loads(FORMS[form])
    assert add_host([path], BOTTLES, HOST, table) == path
    egress = tomllib.loads(path.read_text())["bottles"]["work"]["egress"]
    assert ({"host": HOST, **table} in egress["hosts"]) if table else (HOST in egress["allow"])
    assert "# why" in path.read_text()
    assert remove_host([path], BOTTLES, HOST) == path
    left = tomllib.loads(path.read_text())["bottles"]["work"].get("egress", {})
    old = before["bottles"]["work"].get("egress", {})
    assert {key: value for key, value in left.items() if value} == old
    assert remove_host([path], BOTTLES, HOST) is None


def test_no_other_bottle_is_opened(home: Path) -> None:
    """The file may describe several: the one that the agent is in gets the host, wherever it stands."""
    path = home / "made.toml"
    path.write_text(
        '[bottles.work]\nextends = "base"\n[bottles.base]\n[bottles.other]\negress.allow = ["docs.example.org"]\n'
    )
    add_host([path], BOTTLES, HOST, {})
    found = tomllib.loads(path.read_text())["bottles"]
    assert (found["work"]["egress"]["allow"], "egress" in found["base"]) == ([HOST], False)
    remove_host([path], BOTTLES, HOST)
    assert remove_host([path], BOTTLES, HOST) is None
    assert tomllib.loads(path.read_text())["bottles"]["other"]["egress"]["allow"] == [HOST]


def test_a_manifest_with_faults_is_left_alone(home: Path) -> None:
    """It is told what is wrong, as `up` does."""
    path = home / "made.toml"
    path.write_text("[bottles.work\n")
    with pytest.raises(ManifestError):
        add_host([path], BOTTLES, HOST, {})
    assert path.read_text() == "[bottles.work\n"
    with pytest.raises(LauncherError, match="no manifest"):
        add_host([], BOTTLES, HOST, {})


def test_the_form_without_names_is_one_bottle(home: Path) -> None:
    path = home / "bottle.toml"
    path.write_text('name = "work"\n[egress]\nallow = []\n')
    add_host([path], ["work"], HOST, {})
    assert tomllib.loads(path.read_text())["egress"]["allow"] == [HOST]


# What is read again.


def test_reload_does_not_depend_on_where_one_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bottle reload` and `rotate` in one's home: it is no project, and holds the manifests."""
    (state.own_root() / "made.toml").write_text('[bottles.work]\n[agents.made]\nbottle = "work"\nproject = "copy"\n')
    (home / "src").mkdir()
    monkeypatch.chdir(home / "src")
    facts = find("made").facts()
    monkeypatch.chdir(home)
    with pytest.raises(ManifestError, match="an agent may not have it"):
        find("made")
    assert again(facts).bottles == ("work",)


def test_an_agent_of_several_is_found_again(home: Path) -> None:
    path = home / "two.toml"
    path.write_text('[bottles.work]\n[agents.one]\nbottle = "work"\n[agents.two]\nbottle = "work"\n')
    assert again({"sources": [str(path)], "agent": "two"}).agent.name == "two"


def test_a_projects_own_file_opens_no_wall_later(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent may have written into it before `resume`. Defence: it is read as a project's own."""
    (state.own_root() / "made.toml").write_text("[bottles.work]\n")
    project = home / "src"
    project.mkdir()
    path = project / ".claude-bottle.toml"
    path.write_text('[agents.mine]\nbottle = "work"\n')
    monkeypatch.chdir(project)
    facts = find("mine").facts()
    assert again(facts, Wishes()).agent.name == "mine"
    path.write_text(path.read_text() + f'[[agents.mine.mounts]]\nsource = "{os.sep}"\ntarget = "/all"\n')
    with pytest.raises(ManifestError, match="mounts nothing but of the project"):
        again(facts, Wishes())
