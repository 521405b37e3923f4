"""What the launcher makes of its notes, of an engine's answers and of a bundle's words, without an engine."""

import errno
import fcntl
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

import pytest

from launcher import state
from launcher.backend.base import Running
from launcher.backend.docker import DockerBottleBackend
from launcher.backend.docker.argv import create
from launcher.backend.docker.facts import facts_in
from launcher.containers import bundle
from launcher.docker import AT_ONCE, Command, Result, run
from launcher.errors import LauncherError
from launcher.health import KILL_SWITCH, Health, health_of, read
from launcher.images import context
from launcher.plan import BundleSettings, PipelockProxyPlan
from launcher.status import statuses


class Engine(DockerBottleBackend):
    """Docker, with these objects and no others; it remembers what it was asked to take down."""

    def __init__(self, *objects: Running) -> None:
        super().__init__()
        self.objects, self.stopped = objects, list[str]()

    def running(self, *_slug: str, **_conditions: object) -> tuple[Running, ...]:
        return self.objects

    def stop(self, target: str, *_tell: object) -> bool:
        self.stopped.append(target)
        state.discard(state.state_root() / target, target)
        return True


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's home, and an engine's host without rules."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("launcher.backend.docker.backend.sweep", tuple)
    return tmp_path


def container(slug: str, role: str, how: str = "running", operator: str = "") -> Running:
    return Running(slug, role, f"bottle-{slug}-{role}", how, Path(), operator=operator)


def noted(slug: str, engine: str) -> None:
    state.create(state.state_root() / slug, slug, engine=engine)


# What `prune` removes.


def test_prune_leaves_the_bottles_of_other_backends() -> None:
    """A bottle of a cluster has nothing on this engine, one of a microVM only its bundle: neither is a leftover here.

    Defence: the notes say which backend a bottle is of.
    """
    for slug, name in (("old", "docker"), ("cluster", "kubernetes"), ("vm", "smolmachines"), ("whole", "docker")):
        noted(slug, name)
    engine = Engine(
        *(container("vm", role) for role in ("sidecars", "stage")),
        *(container("whole", role) for role in ("sidecars", "agent")),
        container("unknown", "sidecars", "exited"),
    )
    assert engine.prune() == ("old", "unknown")
    assert sorted(engine.stopped) == ["old", "unknown"]
    assert state.slugs() == ("cluster", "vm", "whole")


def test_prune_leaves_the_bottles_of_other_engines(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is on an engine elsewhere has nothing on this one either. Defence: the engine's id is noted."""
    (home / "docker").write_text("#!/bin/sh\necho here\n")
    (home / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(home), prepend=":")
    for slug, engine_id in (("gone", "here"), ("remote", "elsewhere"), ("killed", "")):
        state.create(state.state_root() / slug, slug, engine="docker", engine_id=engine_id)
    engine = Engine()
    assert list(engine.own()) == ["gone", "killed"], "`down --all` takes no others either"
    assert engine.prune() == ("gone", "killed")
    assert state.slugs() == ("remote",)


def test_prune_leaves_what_a_launcher_works_at() -> None:
    noted("held", "docker")
    with state.held(state.state_root() / "held"), state.held(state.state_root() / "begun"):
        assert Engine().prune() == ()
        assert (state.state_root() / "begun").exists()
    assert Engine().prune() == ("held",)


def test_one_that_stays_does_not_keep_the_others() -> None:
    """Defence: `stop_all` gathers the errors."""

    class Reluctant(Engine):
        def stop(self, target: str, *tell: object) -> bool:
            super().stop(target, *tell)
            if target in ("b", "d"):
                raise LauncherError(f"{target} is in use")
            return True

    engine = Reluctant()
    with pytest.raises(LauncherError) as raised:
        engine.stop_all(tuple("abcde"))
    assert sorted(engine.stopped) == list("abcde")
    assert sorted(str(raised.value).splitlines()) == ["b is in use", "d is in use"]
    assert Engine().stop_all("xy") == {"x": True, "y": True}


def test_at_most_four_commands_run_at_once(tmp_path: Path) -> None:
    """However many threads ask. Defence: `run` waits while `AT_ONCE` others run."""
    log = tmp_path / "log"
    command = Command(("sh", "-c", f"echo 1 >>{log}; sleep 0.1; echo -1 >>{log}"))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(run, [command] * 16))
    running = list(accumulate(map(int, log.read_text().split())))
    assert len(running) == 32
    assert max(running) <= AT_ONCE


@pytest.mark.parametrize("files", [(), ("lock",), ("lock", "metadata.json.new")])
def test_prune_removes_what_was_never_marked(files: tuple[str, ...]) -> None:
    """A launcher that was killed before it had written the marker has left a directory that is no bottle's."""
    directory = state.state_root() / "unmarked"
    directory.mkdir(parents=True)
    for name in files:
        (directory / name).write_text("")
    assert Engine().prune() == ()
    assert not directory.exists()


def test_a_lock_is_in_its_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `prune` takes the empty directory between the opening and the lock, the launcher makes it anew."""
    directory = state.state_root() / "x"
    taken: list[int] = []

    def flock(descriptor: int, _how: int) -> None:
        if not taken:
            taken.append(descriptor)
            (directory / state.LOCK).unlink()
            directory.rmdir()

    monkeypatch.setattr("fcntl.flock", flock)
    with state.held(directory):
        assert (directory / state.LOCK).exists()


def test_a_look_costs_no_launcher_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that begins while `prune` looks at its directory waits for that moment, and is found at work then.

    Defence: whoever works shares the lock, and takes it for certain.
    """
    directory = state.state_root() / "x"
    directory.mkdir(parents=True)
    looking = [os.open(directory / state.LOCK, os.O_RDWR | os.O_CREAT)]
    locked = fcntl.flock
    locked(looking[0], fcntl.LOCK_EX)

    def flock(descriptor: int, how: int) -> None:
        try:
            locked(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            while looking:
                os.close(looking.pop())
            if how & fcntl.LOCK_NB:
                raise
            locked(descriptor, how)

    monkeypatch.setattr("fcntl.flock", flock)
    with state.held(directory):
        assert not looking
        assert state.is_held(directory)
        with state.held(directory):
            pass
        assert state.is_held(directory), "the inner one was not alone"
    assert not directory.exists()


@pytest.mark.parametrize("home", ["", "relative/to/somewhere"])
def test_a_home_is_no_matter_of_the_current_directory(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    """Bottles would be read from ./.claude-bottle, which may be a repository's."""
    monkeypatch.setenv("HOME", home)
    with pytest.raises(LauncherError, match="absolute"):
        state.own_root()


def test_a_user_may_have_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A uid without an entry in the table of users, where HOME is not set either."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)
    with pytest.raises(LauncherError, match="no home directory"):
        state.own_root()


def test_a_file_is_replaced_whole(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full costs nobody the manifest; its mode stays, and the link by which it is reached."""
    manifest, link = home / "kept.toml", home / "link.toml"
    state.replace(manifest, "old")
    manifest.chmod(0o640)
    link.symlink_to(manifest)
    state.replace(link, "new")
    assert link.is_symlink()
    assert (manifest.read_text(), stat.S_IMODE(manifest.stat().st_mode)) == ("new", 0o640)

    def full(*_file: object, **_mode: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state, "write", full)
    with pytest.raises(OSError, match="No space"):
        state.replace(manifest, "newer")
    assert manifest.read_text() == "new"
    assert sorted(home.glob("*.toml*")) == [manifest, link]


def test_what_cannot_be_written_has_a_name(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """The kernel's answer to a write tells of no file. Here it is told of a device that is always full."""
    opened = os.open
    monkeypatch.setattr("os.open", lambda _path, *how: opened("/dev/full", os.O_WRONLY, *how[1:]))
    monkeypatch.setattr("os.fchmod", lambda *_mode: None)
    with pytest.raises(OSError, match="No space left on device") as told:
        state.write(home / "made", "text", mode=0o600)
    assert told.value.filename == str(home / "made")


# What `status` says.


SAID = """\
{verdict}
egress     healthy  running for 3m12s, check passed 4.0s ago, passing for 3m02s
supervise  healthy  running for 3m11s, check passed 1.2s ago, passing for 11s{text}
"""


@pytest.mark.parametrize(
    ("text", "waiting"),
    [
        ("", 0),
        (": 1 request waits for the operator (bottle-requests)", 1),
        (": 12 requests wait for the operator (bottle-requests)", 12),
    ],
)
@pytest.mark.parametrize("verdict", ["healthy", "degraded", "starting", "unhealthy", "stopping"])
def test_a_bundle_says_how_it_is(verdict: str, text: str, waiting: int) -> None:
    said = SAID.format(verdict=verdict, text=text)
    assert read(Result(0, said, "")) == Health(verdict, waiting)
    assert read(Result(1, said + "kill switch on\n", "")) == Health(KILL_SWITCH, waiting)


@pytest.mark.parametrize("said", ["", "Error: No such container: x\n", "healthy as can be\n", "kill switch on\n"])
def test_who_is_no_bundle_says_nothing(said: str) -> None:
    assert read(Result(1, said, "")) is None


def test_ones_own_bundles_are_asked() -> None:
    mine = state.operator()
    objects = [
        each
        for slug, operator, how in (
            ("asked", mine, "starting"),
            ("silent", mine, "unhealthy"),
            ("ended", mine, "exited"),
            ("other", "0" * 16, "starting"),
        )
        for each in (container(slug, "sidecars", how, operator), container(slug, "agent", operator=operator))
    ]
    asked = []

    def in_bundle(slug: str, command: str) -> Command:
        asked.append((slug, command))
        return Command(("printf", "%b", SAID.format(verdict="healthy", text="")) if slug == "asked" else ("false",))

    health = health_of(objects, in_bundle)
    assert sorted(asked) == [("asked", "bottle-health"), ("silent", "bottle-health")]
    found = {each.slug: (each.state, each.waiting) for each in statuses(objects, health)}
    assert found == {
        "asked": ("healthy", 0),
        "silent": ("unhealthy", None),
        "ended": ("bundle ended", None),
        "other": ("starting", None),
    }


# What the engine knows.


@pytest.mark.parametrize(
    ("engine", "client", "known"),
    [
        ("20.10.24+dfsg1", {"Version": "28.2.2"}, False),
        ("26.1.5+dfsg1", {"Version": "26.1.5+dfsg1"}, True),
        ("25.0.0", {"Version": "24.0.7"}, False),
        ("25.0.0", {"Debug": False}, False),
        ("dev", {"Version": "dev"}, False),
    ],
)
def test_a_start_interval_needs_both_to_know_it(engine: str, client: dict[str, object], *, known: bool) -> None:
    told: tuple[object, ...] = ({"runc": {}}, engine, client, "ID:1")
    answer = "\n".join(map(json.dumps, told))
    facts = facts_in({}, Result(0, answer + "\n", ""))
    assert (facts.runtimes, facts.start_interval, facts.engine_id) == (("runc",), known, "ID:1")
    settings = BundleSettings(checked_from_the_start=facts.start_interval)
    argv = create(bundle(PipelockProxyPlan(Path("policy.toml"), "x", settings=settings)))
    assert ("--health-start-interval" in argv) is known


def test_an_engine_without_these_fields_has_none() -> None:
    assert facts_in({}, Result(125, "", "can't evaluate field Runtimes")).start_interval is False


# Who ended first.


ENGINE = """\
#!/bin/sh
case "$1 $2 $3" in
"wait bottle-x-agent "*) until [ -e agent-ended ]; do sleep 0.01; done ;;
"container inspect --format") case "$4" in *FinishedAt*) cat states ;; *) echo 3 ;; esac ;;
esac
"""
RUNS = "true 0 0001-01-01T00:00:00Z"


def waits(home: Path, monkeypatch: pytest.MonkeyPatch, *states: str) -> int:
    """What `wait` returns where the bundle has ended and the engine tells these states, one after the other; then the
    agent has ended too.
    """
    (home / "docker").write_text(ENGINE)
    (home / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(home), prepend=":")
    monkeypatch.chdir(home)
    left = list(states)
    (home / "states").write_text(left.pop(0))

    def sleep(_seconds: float) -> None:
        if left:
            (home / "states").write_text(left.pop(0))
        else:
            (home / "agent-ended").touch()
        time.sleep(0.05)

    return DockerBottleBackend().wait("bottle-x-agent", sleep)


@pytest.mark.parametrize(
    "states",
    [
        ["false 3 2026-11-30T13:00:00.5Z\nfalse 0 2026-11-30T13:00:00.51Z\n"],
        [f"{RUNS}\nfalse 0 2026-11-30T13:00:01Z\n"] * 3
        + ["false 3 2026-11-30T13:00:00.9Z\nfalse 0 2026-11-30T13:00:01Z\n"],
    ],
    ids=["told at once", "told later"],
)
def test_an_agents_end_is_no_fault_of_its_bundle(
    home: Path, monkeypatch: pytest.MonkeyPatch, states: list[str]
) -> None:
    """The bundle follows its agent within moments, and the engine may tell of the two ends in any order."""
    assert waits(home, monkeypatch, *states) == 3


@pytest.mark.parametrize(
    "states",
    [
        "false 143 2026-11-30T13:00:01Z\nfalse 137 2026-11-30T13:00:00.9Z\n",
        f"{RUNS}\nfalse 137 2026-11-30T13:00:01Z\n",
    ],
)
def test_a_bundles_end_is(home: Path, monkeypatch: pytest.MonkeyPatch, states: str) -> None:
    with pytest.raises(LauncherError, match="no way out any more"):
        waits(home, monkeypatch, states)


# What a builder gets.


def test_a_build_context_is_an_archive_to_every_client(tmp_path: Path) -> None:
    """The client looks at the first 512 bytes alone: a header that announces another one is no archive to it.

    Times in fractions of a second give every file such a header.
    """
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "authority.crt").write_text("PEM\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOTTLE_EXTRA_CA", str(tmp_path / "authority.crt"))
        sent = context(tmp_path / "Dockerfile")
    assert sent[156:157] == tarfile.DIRTYPE
    with tarfile.open(fileobj=io.BytesIO(sent)) as archive:
        assert archive.getnames() == ["extra-ca", "extra-ca/00-authority.crt", "Dockerfile", "authority.crt"]


# What a person is told.


@pytest.mark.parametrize(
    "command", [["status"], ["down"], ["prune"], ["logs", "x"], ["requests"], ["up", "-d", "x.toml"]]
)
def test_without_an_engine_one_is_told_what_to_do(home: Path, command: list[str]) -> None:
    """In two lines at most, and never by a traceback."""
    (home / "x.toml").write_text('[bottles.x]\n[agents.x]\nbottle = "x"\n')
    env = {**os.environ, "HOME": str(home), "DOCKER_HOST": f"unix://{home}/nothing.sock"}
    line = [sys.executable, "-m", "launcher", *command]
    done = subprocess.run(line, cwd=home, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    assert "DOCKER_HOST" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
