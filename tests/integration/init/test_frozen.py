"""Contract 4.3 on the real kernel: an hour passes while the whole bundle is frozen, as under `docker pause`.

The hour is that of the init's own clock. Each test also shows what comes of it where an init never takes itself for
frozen.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.support.cgroups import cgroup, freeze, inside, thaw
from tests.integration.support.init import MAIN, Init, eventually, running, sh

pytestmark = pytest.mark.real

HOUR_S = 3_600
UNPROTECTED = "from bottle_init.core import frozen; frozen.FROZEN_MS = 10**9; import sys; " + MAIN
"""An init that never takes itself for frozen."""


@contextmanager
def frozen_for_an_hour(
    tmp_path: Path, bundle: str, is_up: Callable[[Init], object], *, protected: bool = True
) -> Iterator[Init]:
    """A bundle that was frozen once it was up, until its clock was an hour ahead."""
    code = () if protected else (UNPROTECTED,)
    with (
        cgroup("freezer") as group,
        running(tmp_path, bundle, prefix=inside(group), leaps=True, executable_code=code) as init,
    ):
        is_up(init)
        try:
            freeze(group)
            init.leap(HOUR_S)
        finally:
            thaw(group)
        yield init


def was_frozen_for_an_hour(init: Init) -> None:
    event = init.event("was_frozen")
    assert event["level"] == "warning"
    assert (HOUR_S - 900) * 1_000 < event["for_ms"] < (HOUR_S + 900) * 1_000


def is_ready(init: Init) -> None:
    init.event("child_ready", "d")


def watched(tmp_path: Path) -> str:
    """A daemon that has promised to feed its watchdog within ten minutes, and does so once."""
    path = tmp_path / "watched.py"
    path.write_text(
        "import os, socket, time\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.connect(os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1))\n"
        "s.send(b'READY=1\\nWATCHDOG_USEC=600000000\\nWATCHDOG=1')\n"
        "time.sleep(100000)\n"
    )
    return f"""
    [daemons.d]
    command = ["{sys.executable}", "{path}"]
    ready = {{ notify = true, timeout = "2h" }}
    on_unhealthy = "stop"
    """


@pytest.mark.parametrize("protected", [True, False])
def test_a_watchdog(tmp_path: Path, *, protected: bool) -> None:
    with frozen_for_an_hour(tmp_path, watched(tmp_path), is_ready, protected=protected) as init:
        if protected:
            was_frozen_for_an_hour(init)
            assert init.stop() == 0
            assert ("child_unhealthy", "d") not in init.names()
        else:
            assert init.wait() == 69
            assert "no WATCHDOG=1" in init.report()["cause"]


@pytest.mark.parametrize("protected", [True, False])
def test_a_readiness_probe(tmp_path: Path, *, protected: bool) -> None:
    """The probe that was out has its time once more, and so has the daemon."""
    probe = f"touch {tmp_path}/asked; until test -e {tmp_path}/go; do sleep 0.05; done"
    bundle = sh("daemon", "d", "exec sleep 100000", f"ready = {{ exec = ['sh', '-c', '{probe}'], timeout = '10m' }}")
    asked = (tmp_path / "asked").exists
    with frozen_for_an_hour(tmp_path, bundle, lambda _: eventually(asked, "the probe"), protected=protected) as init:
        if protected:
            was_frozen_for_an_hour(init)
            (tmp_path / "go").touch()
            init.event("child_ready", "d")
            assert init.stop() == 0
        else:
            assert init.wait() == 69
            assert ("not_ready", "d") in init.names()


@pytest.mark.parametrize("protected", [True, False])
def test_the_timeout_of_a_job_and_a_lease(tmp_path: Path, *, protected: bool) -> None:
    script = f"touch {tmp_path}/up; until test -e {tmp_path}/go; do sleep 0.05; done"
    bundle = "[bundle]\nlease = { renew = '20m' }\n" + sh("job", "j", script, "timeout = '10m'")
    up = (tmp_path / "up").exists
    with frozen_for_an_hour(tmp_path, bundle, lambda _: eventually(up, "the job"), protected=protected) as init:
        if protected:
            was_frozen_for_an_hour(init)
            (tmp_path / "go").touch()
        code = init.wait()
        assert (code == 0) == protected
        assert ("timed_out", "j") not in init.names() or not protected
        assert (init.report()["cause"] == "j exited with 0") == protected


def test_a_stop_has_no_more_time(tmp_path: Path) -> None:
    """Its deadline passed while the bundle was frozen: what is left is killed."""
    script = "trap '' TERM; echo up; while :; do sleep 0.05; done"

    def is_stopping(init: Init) -> None:
        init.line("[d] up")
        init.send(signal.SIGTERM)
        init.event("stopping")

    bundle = "[bundle]\nstop_timeout = '30m'\n" + sh("daemon", "d", script, "stop_timeout = '20m'")
    with frozen_for_an_hour(tmp_path, bundle, is_stopping) as init:
        assert init.wait() == 137
        assert ("was_frozen", "") in init.names()
