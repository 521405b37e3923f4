"""Steps of the wall clock while a bundle is up: no timer is triggered by one, and none is delayed (contract 8).

The init's clock is stepped, by days, and not the machine's: `steppable.py` says how. That it bites is shown by an init
whose deadlines are on the wall clock: the same step triggers them.
"""

from __future__ import annotations

import platform
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support.init import Init, eventually, running, sh

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="what steps the clock is machine code for x86-64"),
]

STEPS = "STEPS"
DAY_S = 86_400
FORWARD, BACK = 10 * DAY_S, -10 * DAY_S

STEPPABLE = (
    "import tests.integration.support.steppable, sys; "
    "from bottle_init.cli.main import main; sys.exit(main(sys.argv[1:]))"
)
ON_THE_WALL_CLOCK = (
    "from bottle_init.linux.sys import clock; clock.monotonic_ms = lambda: int(clock.wall_s() * 1_000); " + STEPPABLE
)


class Clock:
    """The wall clock of one init."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_bytes(bytes(8))
        self.offsets = [0]

    def step(self, seconds: int) -> None:
        """Move it."""
        self.offsets.append(self.offsets[-1] + seconds)
        with self.path.open("r+b") as file:
            file.write(struct.pack("<q", self.offsets[-1]))


@contextmanager
def stepped(tmp_path: Path, bundle: str, code: str = STEPPABLE) -> Iterator[tuple[Init, Clock]]:
    """An init, and its clock."""
    clock = Clock(tmp_path / "steps")
    with running(tmp_path, bundle, executable_code=(code,), env={STEPS: str(clock.path)}) as init:
        yield init, clock


def beat(init: Init) -> None:
    """Wait until the metronome has been restarted some more times: so often the init has looked at all its timers."""
    now = init.names().count(("child_started", "metronome"))
    init.event("child_started", "metronome", now + 5)


def more(path: Path) -> None:
    """Wait until a probe has been tried again twice."""
    now = path.stat().st_size if path.exists() else 0
    eventually(lambda: path.exists() and path.stat().st_size > now + 2, f"a probe that writes {path.name}")


def hup(init: Init, count: int) -> None:
    """Let the init pass a HUP on: it wakes up, and looks at all its timers."""
    init.send(signal.SIGHUP)
    eventually(lambda: init.out.count("[deaf] hup") >= count, "a signal that is passed on")


def check_times(init: Init, clock: Clock, began_s: float) -> None:
    """Each timestamp is the time of that clock, by one of the steps; each span is what has really passed."""
    passed_s = time.time() - began_s + 1
    for event in init.events:
        at_s = datetime.fromisoformat(event["timestamp"]).timestamp()
        assert any(-1 <= at_s - offset - began_s <= passed_s for offset in clock.offsets), event
        spans: list[Any] = [value for key, value in event.items() if key.endswith("_ms") and key != "delay_ms"]
        spans += [death[key] for death in event.get("deaths", ()) for key in ("ran_ms", "stop_ms")]
        assert all(0 <= span <= passed_s * 1_000 for span in spans if span is not None), event


METRONOME = (
    "[daemons.metronome]\ncommand = ['true']\npolicy = 'restart'\n"
    "backoff = { initial = '20ms', factor = 1.0, limit = '20ms' }\nrestarts = { max = 100000, window = '1h' }\n"
)


def probe(path: Path, code: int) -> str:
    """An exec probe that leaves a byte at each try."""
    return f"exec = ['sh', '-c', 'printf x >> {path}; exit {code}']"


def far(tmp_path: Path) -> str:
    """Everything that has a timer, each an hour off, and the metronome."""
    return (
        "[bundle]\nstop_timeout = '1h'\nlease = { renew = '1h' }\n"
        + METRONOME
        + sh("daemon", "broken", "exit 1", "policy = 'restart'\nbackoff = { initial = '1h', limit = '2h' }")
        + sh("daemon", "unready", "exec sleep 1000", f"ready = {{ {probe(tmp_path / 'ready', 1)}, timeout = '1h' }}")
        + sh("daemon", "healthy", "exec sleep 1000", f"health = {{ {probe(tmp_path / 'health', 0)}, interval = '1h' }}")
        + sh("oneshot", "setup", "exec sleep 1000", "timeout = '1h'")
        + sh(
            "daemon",
            "deaf",
            "trap '' TERM; trap 'echo hup; [ -e end ] && exit 0' HUP; echo up; while :; do sleep 0.05; done",
            "stop_timeout = '1h'\nstop_signal = 'TERM'\nsignals = { HUP = 'HUP' }",
        )
    )


def test_a_step_forward_triggers_nothing(tmp_path: Path) -> None:
    began_s = time.time()
    with stepped(tmp_path, far(tmp_path).replace("[ -e end ]", f"[ -e {tmp_path}/end ]")) as (init, clock):
        init.line("[deaf] up")
        for child in ("unready", "healthy", "setup"):
            init.event("child_started", child)
        init.event("child_restarting", "broken")
        clock.step(FORWARD)
        beat(init)
        more(tmp_path / "ready")
        assert init.names().count(("child_started", "broken")) == 1
        assert not (tmp_path / "health").exists()
        init.send(signal.SIGTERM)
        init.event("stopping")
        clock.step(FORWARD)
        for count in range(1, 4):
            hup(init, count)
        (tmp_path / "end").touch()
        init.send(signal.SIGHUP)
        assert init.wait() == 0
        assert init.report()["cause"] == "signal 15"
        told = {event["event"] for event in init.events}
        assert not told & {"child_killed", "deadline_passed", "not_ready", "timed_out", "gave_up"}, told
        check_times(init, clock, began_s)


def test_a_step_back_delays_nothing(tmp_path: Path) -> None:
    began_s = time.time()
    bundle = (
        METRONOME
        + sh("daemon", "unready", "exec sleep 1000", f"ready = {{ {probe(tmp_path / 'ready', 1)}, timeout = '1h' }}")
        + sh(
            "daemon",
            "checked",
            "exec sleep 1000",
            f"health = {{ {probe(tmp_path / 'health', 0)}, interval = '50ms', timeout = '1h' }}",
        )
        + sh("daemon", "deaf", "trap '' TERM; echo up; while :; do sleep 0.05; done", "stop_timeout = '2s'")
    )
    with stepped(tmp_path, bundle) as (init, clock):
        init.line("[deaf] up")
        clock.step(BACK)
        beat(init)
        more(tmp_path / "ready")
        more(tmp_path / "health")
        init.send(signal.SIGTERM)
        init.event("stopping")
        clock.step(BACK)
        assert init.wait() == 137
        assert init.event("child_killed", "deaf")["after_ms"] >= 2_000
        check_times(init, clock, began_s)


@pytest.mark.parametrize(
    ("bundle", "code", "told"),
    [
        ("[bundle]\nlease = { renew = '2s' }\n" + sh("daemon", "d", "exec sleep 1000"), 0, "the lease was not renewed"),
        (sh("daemon", "d", "exec sleep 1000", "ready = { exec = ['false'], timeout = '2s' }"), 69, "not ready"),
        (
            sh("oneshot", "d", "exec sleep 1000", "timeout = '2s'") + sh("daemon", "e", "exec sleep 1000"),
            137,
            "d ran longer than its timeout of 2 s",
        ),
    ],
    ids=["lease", "readiness", "timeout"],
)
def test_a_deadline_comes_in_spite_of_a_step_back(tmp_path: Path, bundle: str, code: int, told: str) -> None:
    with stepped(tmp_path, bundle) as (init, clock):
        init.event("child_started", "d")
        clock.step(BACK)
        assert init.wait() == code
        assert told in init.report()["cause"]


def test_an_init_on_the_wall_clock_would_be_misled(tmp_path: Path) -> None:
    """What these tests would say of an init that waits by the wall clock."""
    bundle = sh("daemon", "broken", "exit 1", "policy = 'restart'\nbackoff = { initial = '1h', limit = '2h' }")
    keeper = METRONOME.replace("'20ms'", "'1s'")
    with stepped(tmp_path, bundle + keeper, ON_THE_WALL_CLOCK) as (init, clock):
        init.event("child_restarting", "broken")
        clock.step(FORWARD)
        init.event("child_started", "broken", 2)
