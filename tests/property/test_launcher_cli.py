"""The command line under odd circumstances: no traceback, no lie in the exit code, nothing done that was not asked."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from launcher.bottles import holder
from launcher.cli import answers
from launcher.cli.console import Screen, note, show_error
from launcher.errors import LauncherError
from launcher.spec import AgentSpec, BottleSpec, Credential
from launcher.words import in_words

MANIFEST = '[bottles.made]\n[agents.made]\nbottle = "made"\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An operator's home with one agent, and an engine without a bottle on it."""
    (tmp_path / ".claude-bottle").mkdir()
    (tmp_path / ".claude-bottle" / "made.toml").write_text(MANIFEST)
    engine(tmp_path, "exit 0")
    return tmp_path


def engine(home: Path, script: str) -> None:
    """A `docker` that does this."""
    (home / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (home / "docker").chmod(0o755)


def bottle(home: Path, *args: str | bytes, stdout: int = subprocess.PIPE, **env: str) -> tuple[int, str]:
    """The exit code of `bottle ARGS…`, and all that it said."""
    process = subprocess.run(
        [sys.executable, "-m", "launcher", *args],
        env={**os.environ, "HOME": str(home), "PATH": f"{home}:{os.environ['PATH']}", **env},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )
    said = ((process.stdout or b"") + process.stderr).decode()
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    return process.returncode, said


# Who cannot be told.


@pytest.mark.parametrize("args", [("status",), ("status", "--all"), ("plan", "made"), ("render", "made")])
def test_words_that_are_lost_are_no_success(home: Path, args: tuple[str, ...]) -> None:
    """`bottle plan made > plan.txt` on a disk that is full."""
    full = os.open("/dev/full", os.O_WRONLY)
    code, said = bottle(home, *args, stdout=full)
    os.close(full)
    assert (code, said.strip()) == (1, os.strerror(errno.ENOSPC))


def test_a_reader_may_have_gone(home: Path) -> None:
    """`bottle status | head -0` ends as a shell says of a PIPE, without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    assert bottle(home, "status", stdout=writer) == (141, "")
    os.close(writer)


@pytest.mark.parametrize("args", [("status",), ("down", "made")])
def test_ctrl_c_ends_with_130(home: Path, args: tuple[str, ...]) -> None:
    """Wherever it comes, and how often; here while the engine is asked, by several commands at once."""
    engine(home, 'kill -INT "$PPID"; sleep 3')
    assert bottle(home, *args)[0] == 130


@pytest.mark.parametrize("args", [("status",), ("down", "made"), ("init", "shell")])
def test_a_home_where_nothing_can_be_made(home: Path, args: tuple[str, ...]) -> None:
    """The path is told, and what is wrong with it."""
    code, said = bottle(home, *args, HOME="/proc")
    assert code == 1
    assert said.startswith("/proc/.claude-bottle")


@pytest.mark.parametrize(("args", "words"), [(("up", "typed"), "--headless"), (("ui",), "--json")])
def test_what_needs_a_terminal_says_so(home: Path, args: tuple[str, ...], words: str) -> None:
    """In a script or a pipe, before anything is started."""
    typed = '[agents.typed]\nbottle = "made"\ntty = true\n'
    (home / ".claude-bottle" / "typed.toml").write_text(typed)
    engine(home, f'echo "$*" >> {home}/asked')
    code, said = bottle(home, *args)
    assert (code, words in said) == (1, True), said
    assert not (home / "asked").exists()


# What is named.


@pytest.mark.parametrize("args", [("down", ""), ("logs", ""), ("why", ""), ("exec", "", "true"), ("approve", "")])
def test_an_empty_name_means_nothing(home: Path, args: tuple[str, ...]) -> None:
    """`bottle down "$BOTTLE"` in a script, where the variable is not set: every name begins so."""
    code, said = bottle(home, *args)
    assert (code, "an empty name was given" in said) == (1, True)


def test_an_empty_id_is_no_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bottle approve ""` does not approve the only one that waits."""
    monkeypatch.setattr("launcher.bottles.requests_of", lambda *_bottle: [{"id": "3f9a"}])
    with pytest.raises(LauncherError, match="empty"):
        holder(None, "", ["made-1234"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [b"\xff\xfe", "b\u00f6ttle \u2603", "..", "../../etc", "a" * 300, "-", "a\nb"])
def test_a_name_may_be_anything(home: Path, name: str | bytes) -> None:
    """It names no bottle and no agent, and is shown as far as the terminal can."""
    for args in (("up", name), ("why", name)):
        code, said = bottle(home, *args, LC_ALL="C", PYTHONIOENCODING="ascii")
        assert (code, bool(said)) == (1, True)
    assert bottle(home, "down", name)[0] == 0, "what is not there is down"


def test_another_operators_bottle_is_not_taken_down(home: Path) -> None:
    """What it has done is noted elsewhere, and would be lost. Defence: the label of its operator."""
    fields = ["theirs-1234", "agent", "/elsewhere", "0123456789abcdef", "made", "bottle-theirs-1234-agent"]
    theirs = json.dumps([*fields, "running", "Up 2 minutes"])
    is_listed = f"""case "$*" in "container ls "*claude-bottle.slug=theirs-1234*) echo '{theirs}';; esac"""
    engine(home, f'echo "$*" >> {home}/asked\n{is_listed}')
    code, said = bottle(home, "down", "theirs-1234")
    assert (code, "another operator's" in said) == (1, True), said
    assert {line.split()[1] for line in (home / "asked").read_text().splitlines()} == {"ls"}


def test_an_editors_files_are_no_manifests(home: Path) -> None:
    """Emacs links `.#made.toml` to nowhere while made.toml is open and changed."""
    (home / ".claude-bottle" / ".#made.toml").symlink_to("operator@machine.1234:5678")
    code, said = bottle(home, "plan", "made")
    assert code == 0, said


# What is shown.


def test_no_text_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """What a project's own file, an agent or an engine has said hides nothing of what stands beside it."""
    evil = "made\x1b[2J\r\u202eup"
    agent = AgentSpec("made", command=("sh", "-c", evil), prompt=evil)
    console = Console(file=io.StringIO(), width=200)
    console.print(in_words(BottleSpec("made", agent=agent)))
    show_error(LauncherError(evil, hint=evil))
    note(evil)
    assert isinstance(console.file, io.StringIO)
    for said in (console.file.getvalue(), capsys.readouterr().err):
        assert "up" in said
        assert not {"\x1b", "\r", "\u202e"} & set(said)


def test_the_plan_says_what_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words as they are, the prompt in its place or left out, and a variable that `up` will miss."""
    monkeypatch.delenv("MADE_KEY", raising=False)
    credential = Credential("api", "api.example.com", "x-api-key", from_env="MADE_KEY")
    for prompt, runs, key in (("", "agent 'two words'", ""), ("do it", "agent 'two words' 'do it'", "set")):
        monkeypatch.setenv("MADE_KEY", key)
        agent = AgentSpec("made", command=("agent", "two words", "{prompt}"), prompt=prompt)
        console = Console(file=io.StringIO(), width=200)
        console.print(in_words(BottleSpec("made", agent=agent, credentials=(credential,))))
        assert isinstance(console.file, io.StringIO)
        said = console.file.getvalue()
        assert f"runs          {runs} " in said
        assert ("not set here" in said) is (not key)


def test_a_value_is_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bottle rotate api - < key` hands on what stands there, whatever the locale."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe key\n"), encoding="ascii"))
    assert answers._typed_or_piped("api") == b"\xff\xfe key"


def test_a_value_that_is_typed_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda words: f"{words}typed")
    assert answers._typed_or_piped("api") == b"new value of api: typed"


def test_a_screen_says_why_words_are_lost() -> None:
    with open("/dev/full", "w") as full:
        screen = Screen(file=full)
        screen.print("made")
        assert screen.fault is not None
        assert screen.fault.errno == errno.ENOSPC
        screen.print("goes on")
