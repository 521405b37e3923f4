"""What an agent has done is kept before its bottle goes, whatever goes wrong then, without an engine."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from launcher import bottles, history, state, work
from launcher.backend.base import Running
from launcher.backend.docker import DockerBottleBackend, backend, removal
from launcher.backend.kubernetes import KubernetesBottleBackend
from launcher.backend.kubernetes import backend as kubernetes
from launcher.cli.lifecycle import start
from launcher.cli.work import _patch
from launcher.docker import Command, Result
from launcher.errors import Interrupted, LauncherError
from launcher.plan import LABEL_ROLE, LABEL_SLUG
from launcher.spec import AgentSpec, BottleSpec

SLUG = "made-1234"
DEAD = LauncherError("Cannot connect to the Docker daemon at unix:///var/run/docker.sock")


class Engine(DockerBottleBackend):
    """Docker, whose agent is interrupted as soon as somebody looks at it."""

    stopped = False

    def launch(self, *_plan: object, **_start: object) -> str:
        state.create(state.state_root() / SLUG, SLUG, home="/home/agent", project="copy", project_target="/nowhere")
        return f"bottle-{SLUG}-agent"

    def prepare(self, *_wanted: object) -> object:  # type: ignore[override]
        return None

    def attach(self, *_target: object, **_started: object) -> int:
        raise Interrupted(2, "SIGINT")

    def stop(self, *_target: object) -> bool:
        self.stopped = True
        return True

    def in_agent(self, slug: str, *command: str, tty: bool = False) -> Command:  # noqa: ARG002
        return Command(("false", *command))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def engine_has(monkeypatch: pytest.MonkeyPatch, *volumes: str) -> list[tuple[str, ...]]:
    """An engine with these volumes, whose containers run their scripts right here; the value is what it was asked."""
    asked: list[tuple[str, ...]] = []

    def docker(*args: str) -> Result:
        asked.append(args)
        return Result(0, "\n".join(volumes), "")

    def run(command: Command, *, check: bool = True) -> Result:
        argv = command.argv
        if argv[0] == "docker":
            asked.append(argv[1:])
            argv = ("env", f"SCRATCH={os.environ['HOME']}", sys.executable, *argv[argv.index("-I") :])
        done = subprocess.run(argv, capture_output=True, text=True, check=check)
        return Result(done.returncode, done.stdout, done.stderr)

    monkeypatch.setattr(backend, "docker", docker)
    monkeypatch.setattr(work, "run", run)
    return asked


def repository(place: Path) -> None:
    """A work tree with one file that is in no commit."""
    place.mkdir(parents=True)
    subprocess.run(("git", "init", "--quiet", str(place)), check=True)
    (place / "new").write_text("")


# An interrupt.


def test_an_interrupted_up_keeps_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at `up` takes the bottle down; what the agent changed in its copy is kept, as it is by `down`."""
    engine_has(monkeypatch, f"bottle-{SLUG}-project")
    monkeypatch.setattr(work, "make_patch", lambda *_bottle: b"the patch")
    engine = Engine()
    with pytest.raises(Interrupted):
        start(engine, BottleSpec("made", agent=AgentSpec("made"), slug=SLUG))
    assert work.patch_path(SLUG).read_bytes() == b"the patch"
    assert engine.stopped


@pytest.mark.parametrize("fault", [DEAD, OSError(errno.ENOSPC, "No space left on device", "made.patch")])
def test_where_work_cannot_be_kept_the_bottle_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: Exception
) -> None:
    """An engine that does not answer, or a disk that is full, costs nobody the work; how to go on is said."""

    def fails(*_bottle: object) -> bytes:
        raise fault

    engine_has(monkeypatch, f"bottle-{SLUG}-project")
    monkeypatch.setattr(work, "make_patch", fails)
    engine = Engine()
    with pytest.raises(Interrupted):
        start(engine, BottleSpec("made", agent=AgentSpec("made"), slug=SLUG))
    assert not engine.stopped
    assert f"`bottle down {SLUG}` tries again" in capsys.readouterr().err
    with pytest.raises(LauncherError):
        work.settled(engine, SLUG, print)


@pytest.mark.parametrize(("how", "asked"), [("exited", [SLUG]), ("created", [])])
def test_prune_asks_for_work_first(monkeypatch: pytest.MonkeyPatch, how: str, asked: list[str]) -> None:
    """A bottle whose agent has ended is no leftover like others: what it did stays, where it cannot be kept."""
    engine, wanted = Engine(), list[str]()
    agent = Running(SLUG, "agent", f"bottle-{SLUG}-agent", how, Path())
    monkeypatch.setattr(engine, "own", lambda: {SLUG: [agent]})
    monkeypatch.setattr("launcher.backend.docker.backend.sweep", tuple)

    def cannot(slug: str) -> bool:
        wanted.append(slug)
        return False

    assert engine.prune(print, cannot) == (() if asked else (SLUG,))
    assert wanted == asked
    assert engine.stopped is not bool(asked)


# What is nowhere else.


def test_an_agent_names_its_directories_as_it_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotes and line ends in a path neither hide a work tree nor end `down` with an error of the parser's."""
    engine_has(monkeypatch, f"bottle-{SLUG}-home")
    places = [tmp_path / "agent" / name for name in ('a "quoted" one', "two\nlines", "it's \\0 % one")]
    for place in places:
        repository(place)
    found = work.unsaved(Engine(), SLUG, {"home": str(tmp_path / "agent")})
    assert sorted(each.tree for each in found) == sorted(map(str, places))
    assert {(each.changed, each.commits) for each in found} == {(1, 0)}


def test_an_engine_that_fails_hides_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """`down` does not go on where nobody could look."""

    def docker(*_args: str, **_check: bool) -> Result:
        raise DEAD

    monkeypatch.setattr(backend, "docker", docker)
    with pytest.raises(LauncherError, match="Cannot connect"):
        work.unsaved(Engine(), SLUG, {"home": "/home/agent"})


def test_looking_makes_no_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bottle whose volumes somebody has removed by hand: a container that names one would make it anew."""
    asked = engine_has(monkeypatch)
    state.create(state.state_root() / SLUG, SLUG, home="/home/agent", project="copy", project_target="/nowhere")
    work.settled(Engine(), SLUG, print)
    assert {args[0] for args in asked} == {"volume"}


def test_a_half_written_archive_is_not_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk that fills up meanwhile leaves the archive that was there, and no part of a new one."""

    def full(*_files: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(work, "to_file", lambda target, *_args: Result(target.write_bytes(b""), "", ""))
    monkeypatch.setattr(shutil, "copyfileobj", full)
    target = tmp_path / "kept" / "home.tar.gz"
    target.parent.mkdir()
    target.write_bytes(b"the one before")
    with pytest.raises(OSError, match="No space"):
        work.keep_directory(Engine(), SLUG, "/home/agent", target)
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == b"the one before"


KUBECTL = """\
#!/bin/sh
case "$*" in
*" --container agent "*) echo 'container not found ("agent")' >&2; exit 1 ;;
*" --container keeper "*) while [ "$1" != -- ]; do shift; done; shift; exec "$@" ;;
*) exec cat "$0.json" ;;
esac
"""


@pytest.fixture
def pod(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A cluster with one pod, whose agent has ended: this machine is what is left of it. The value has its places."""
    places = {name: home / f"the {name}" for name in ("base", "scratch", "project", "home")}
    for place in places.values():
        place.mkdir()
    labels = {LABEL_SLUG: SLUG, LABEL_ROLE: "agent"}
    ended = [{"name": "agent", "state": {"terminated": {"exitCode": 0}}}, {"name": "keeper", "state": {"running": {}}}]
    status = {"phase": "Running", "containerStatuses": ended}
    pods = [{"kind": "Pod", "metadata": {"name": "agent", "labels": labels}, "status": status}]
    (home / "kubectl").write_text(KUBECTL)
    (home / "kubectl").chmod(0o755)
    (home / "kubectl.json").write_text(json.dumps({"items": pods}))
    monkeypatch.setenv("PATH", str(home), prepend=":")
    monkeypatch.setattr(work, "BASE_DIR", str(places["base"]))
    monkeypatch.setattr(kubernetes, "SCRATCH_DIR", str(places["scratch"]))
    facts = {"home": str(places["home"]), "project": "clone", "project_target": str(places["project"])}
    state.create(state.state_root() / SLUG, SLUG, **facts)
    return places


def test_work_of_an_ended_agent_in_a_cluster_is_kept(pod: dict[str, Path]) -> None:
    """Its container cannot be asked any more. Defence: the container beside it that has its volumes."""
    (pod["project"] / "new.txt").write_text("nowhere else")
    repository(pod["home"] / "a tree")
    said: list[str] = []
    work.settled(KubernetesBottleBackend(), SLUG, said.append)
    assert b"+nowhere else" in work.patch_path(SLUG).read_bytes()
    with tarfile.open(work.work_root() / f"{SLUG}-home.tar.gz") as archive:
        assert "the home/a tree/new" in archive.getnames()
    assert "a tree: 1 changed files" in said[1]
    assert list(pod["scratch"].iterdir()) == []


def test_an_ended_agent_in_a_cluster_is_no_running_one(pod: dict[str, Path]) -> None:
    """Though its pod still runs."""
    del pod
    (found,) = KubernetesBottleBackend().running(SLUG, containers_alone=True)
    assert (found.state, found.detail) == ("exited", "Exited (0)")


# What waits to be brought home.


def kept_work(*names: str) -> None:
    for name in names:
        work.work_root().mkdir(parents=True, exist_ok=True)
        (work.work_root() / f"{name}.patch").write_bytes(name.encode())


def test_work_of_a_bottle_that_is_gone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its agent's name, as the guide has it, or by nothing; and not again once it has been brought home."""
    monkeypatch.setattr("launcher.cli.work.get_bottle_backend", Engine)
    monkeypatch.setattr(Engine, "running", lambda *_bottle, **_conditions: ())
    kept_work("made-1234", "made-0000.applied")
    history.remember("made-1234", {}, project_path="/where/it/is/from")
    for name in (None, "made", "made-1234"):
        slug, patch, facts = _patch(name)
        assert (slug, patch, facts["project_path"]) == ("made-1234", b"made-1234", "/where/it/is/from")
    kept_work("made-5678")
    with pytest.raises(LauncherError, match="several"):
        _patch("made")
    with pytest.raises(LauncherError, match="no bottle other"):
        _patch("other")


def test_of_those_that_are_gone_the_last_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bottle why claude`, every day anew; by time, and not by the alphabet."""
    monkeypatch.setattr(Engine, "running", lambda *_bottle, **_conditions: ())
    for at, slug in enumerate(("made-9999", "made-5555", "made-0000", "other-1")):
        history.remember(slug, {}, agent="made")
        os.utime(history.history_root() / slug / history.FACTS, (at, at))
    assert bottles.named(Engine(), "made", gone_too=True) == "made-0000"
    assert bottles.named(Engine(), None, gone_too=True) == "other-1"
    state.create(state.state_root() / "made-7777", "made-7777", engine="docker")
    assert bottles.named(Engine(), "made", gone_too=True) == "made-7777", "one that is there comes first"


def test_what_stands_in_the_way_is_told(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """In the engine's words, and not as the end of half a patch."""
    script = "echo half a patch; echo 'no space left on device' >&2; exit 1"
    (home / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (home / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(home), prepend=":")
    facts = {"project": "copy", "project_target": "/work"}
    with pytest.raises(LauncherError, match=r"made: no space left on device$"):
        work.make_patch(Engine(), SLUG, facts)
    with pytest.raises(LauncherError, match=r"kept: no space left on device$"):
        work.keep_directory(Engine(), SLUG, "/home/agent", work.work_root() / "home.tar.gz")
    assert list(work.work_root().iterdir()) == []


# Notes and memories.


@pytest.mark.parametrize(("rollback", "left"), [(False, True), (True, False)])
def test_notes_outlive_an_engine_that_is_gone(monkeypatch: pytest.MonkeyPatch, *, rollback: bool, left: bool) -> None:
    """They say where an agent's work is, once the engine is back. Only a launch that failed has none to keep."""

    def listed(*_conditions: str) -> tuple[Running, ...]:
        raise DEAD

    monkeypatch.setattr(removal, "listed", listed)
    stage_dir = state.state_root() / SLUG
    state.create(stage_dir, SLUG)
    state.write(stage_dir / "secrets" / "api", "made up", mode=0o600)
    with pytest.raises(LauncherError):
        removal.remove(SLUG, {stage_dir}, print, keep_history=not rollback)
    assert stage_dir.exists() is left
    assert not (stage_dir / "secrets").exists()


def test_a_memory_is_never_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written, a bottle goes down all the same."""
    monkeypatch.setattr(history, "docker", lambda *_args, **_check: Result(1, "", ""))
    state.own_root().mkdir()
    history.history_root().write_text("not a directory")
    saving = history.Saving(SLUG, "an agent", "a bundle")
    saving.follow_bundle()
    saving.take_agent()
    saving.take_bundle()
    saving.finish()
    assert history.history_root().read_text() == "not a directory"


def test_another_launcher_may_forget_at_the_same_time(home: Path) -> None:
    """A memory that vanishes between two looks (here: a link to nothing) is no fault."""
    history.history_root().mkdir(parents=True)
    (history.history_root() / "gone").symlink_to(home / "nowhere")
    history.remember(SLUG, {}, agent="made")
    assert history.remembered() == (SLUG,)
