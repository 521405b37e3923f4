"""The init's own events on a terminal: structlog's rendering, without its import delaying anything."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottle_init.words import pretty
from bottle_init.words.jsonlines import encode, timestamp
from tests.integration.support.init import ROOT
from tests.integration.support.logs_bench import bench

pytestmark = pytest.mark.real

STARTED = encode("daemon_started", "info", [("child", "egress"), ("pid", 7)], timestamp(0))


class Terminal:
    """A pty; what was shown on it is in `shown`."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.shown = ""

    def look(self) -> str:
        try:
            while piece := os.read(self.master, 65_536):
                self.shown += piece.decode()
        except BlockingIOError:
            pass
        return self.shown


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    os.close(made.master)
    os.close(made.slave)


def test_events_are_rendered_for_people_in_their_order(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with bench(stderr=terminal.slave) as (logs, _, _):
        logs.logs.event(STARTED)
        logs.logs.event(encode("all_healthy", "info", [], timestamp(0)))
        assert terminal.look() == ""
        assert logs.logs.deadline_ms() == 0
        logs.settle()
        shown = terminal.look().splitlines()
        assert len(shown) == 2
        assert "[info" in shown[0]
        assert "daemon_started" in shown[0]
        assert "child=egress" in shown[0]
        assert "pid=7" in shown[0]
        assert "all_healthy" in shown[1]
        assert "{" not in terminal.shown
        logs.logs.event(STARTED)
        assert len(terminal.look().splitlines()) == 3
        assert logs.logs.deadline_ms() is None


def test_each_turn_of_the_loop_imports_one_slice() -> None:
    """So a signal that comes in between is answered before the next one."""
    code = (
        "import sys\n"
        "from bottle_init.words import pretty\n"
        "renderer = pretty.Renderer(); turns = 1\n"
        "assert 'structlog' not in sys.modules\n"
        "while renderer.load(): turns += 1\n"
        "print(turns, renderer.ready())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(pretty.SLICES)), "True"]


def test_a_stop_before_structlog_is_loaded(terminal: Terminal) -> None:
    """A stop before structlog is loaded waits for nothing."""
    with bench(stderr=terminal.slave) as (logs, _, _):
        logs.logs.event(STARTED)
        logs.turn()
        logs.logs.stop()
        logs.logs.event(b'{"event": "report"}')
        assert terminal.look() == STARTED.decode() + '\n{"event": "report"}\n'
        assert logs.logs.deadline_ms() is None


def test_without_structlog_events_stay_json(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [])
    with bench(stderr=terminal.slave) as (logs, _, _):
        logs.logs.event(STARTED)
        logs.settle()
        assert terminal.look() == STARTED.decode() + "\n"


def test_a_structlog_that_cannot_be_imported(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A structlog that fails to import costs nothing but looks."""

    def broken(name: str) -> None:
        raise ValueError(name)

    monkeypatch.setattr(pretty, "import_module", broken)
    with bench(stderr=terminal.slave) as (logs, _, _):
        logs.logs.event(STARTED)
        logs.settle()
        assert terminal.look() == STARTED.decode() + "\n"


def test_what_a_child_has_said_moves_no_cursor(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with bench(stderr=terminal.slave) as (logs, _, _):
        facts = [("status", "\x1b[2Jgone\r"), ("tail", ["\x07"]), ("of", {"egress": "\x9b31m"})]
        logs.logs.event(encode("died \x1b[2J", "error", facts, timestamp(0)))
        logs.settle()
        assert "gone" in terminal.look()
        assert all(character.isprintable() or character == "\n" for character in terminal.shown)


def test_events_that_wait_for_structlog_are_bounded(terminal: Terminal) -> None:
    with bench(stderr=terminal.slave) as (logs, _, _):
        for _ in range(1_000):
            logs.logs.event(b"{}")
        assert len(logs.logs._held) <= 256


def test_no_terminal_no_structlog() -> None:
    code = (
        "import json, sys\n"
        "from bottle_init.linux.logs import Logs\n"
        "from bottle_init.linux.sys.poller import Poller\n"
        "logs = Logs('tag', ['egress'], Poller())\n"
        "logs.event(b'{}'); logs.tick(0); logs.finish()\n"
        "print(json.dumps([name for name in sys.modules if name in ('structlog', 'bottle_init.words.pretty')]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert json.loads(done.stdout) == []
    assert done.stderr == b"{}\n"


# What a whole bundle shows.


def shown_by(bundle: str, tmp_path: Path, **env: str) -> list[str]:
    """The lines that a bundle shows on a terminal that is its stdout and its stderr."""
    path = tmp_path / "bundle.toml"
    path.write_text(bundle)
    made = Terminal()
    command = [sys.executable, "-m", "bottle_init", f"--config={path}", "--control="]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    init = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=made.slave, stderr=made.slave)
    while init.poll() is None:
        made.look()
        time.sleep(0.01)
    shown = made.look()
    os.close(made.master)
    os.close(made.slave)
    return shown.splitlines()


TWO = """
[daemons.egress]
command = ["sh", "-c", "echo listening; exec sleep 1000"]
ready = { exec = ["true"] }
[jobs.it]
command = ["sh", "-c", "echo it fails; exit 3"]
after = ["egress"]
"""


def test_the_last_event_is_the_story(tmp_path: Path) -> None:
    """On a terminal the bundle ends with what `explain` says, with the last words of those to blame alone."""
    lines = shown_by(TWO, tmp_path, NO_COLOR="1")
    story = next(
        number for number, line in enumerate(lines) if line.startswith("It ended with code 3: it exited with 3.")
    )
    assert "egress ended cleanly." in lines[story]
    assert lines[story + 1 :] == ["", "Last lines of it:", "  it fails"]
    assert not any("exit_report" in line or "last_lines" in line for line in lines)


def test_tags_are_aligned_and_coloured(tmp_path: Path) -> None:
    plain = shown_by(TWO, tmp_path, NO_COLOR="1")
    assert {"[egress] listening", "[it]     it fails"} <= set(plain)
    coloured = shown_by(TWO, tmp_path, NO_COLOR="", TERM="xterm")
    assert {"\x1b[36m[egress]\x1b[0m listening", "\x1b[33m[it]\x1b[0m     it fails"} <= set(coloured)
    assert "[it]     it fails" in shown_by(TWO, tmp_path, NO_COLOR="", TERM="dumb")
