"""The lease of one command on the real kernel (contract 4.1, 5.2)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.support.init import PATIENCE_S, eventually
from tests.integration.support.one_command import run, running

pytestmark = pytest.mark.real

WAITS = "echo up; exec sleep 600"


@contextmanager
def peer(kind: str, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """An address for `--lease`, and who listens there."""
    if kind == "unix":
        server, address = socket.socket(socket.AF_UNIX), f"unix:{tmp_path}/peer"
        server.bind(f"{tmp_path}/peer")
        server.listen()
    else:
        family, host = (socket.AF_INET6, "::1") if kind == "tcp6" else (socket.AF_INET, "127.0.0.1")
        server = socket.create_server((host, 0), family=family)
        shown = "[::1]" if kind == "tcp6" else host
        address = f"tcp:{shown}:{server.getsockname()[1]}"
    server.settimeout(PATIENCE_S)
    with server:
        yield address, server


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix"])
def test_the_command_ends_with_its_peer(tmp_path: Path, kind: str, pid_1: bool) -> None:
    report = tmp_path / "report.json"
    with peer(kind, tmp_path) as (address, server):
        options = [f"--lease={address}", f"--report={report}"]
        with running("sh", "-c", WAITS, options=options, pid_1=pid_1) as it:
            theirs, _ = server.accept()
            assert it.line() == "up"
            theirs.close()
            assert it.wait() == 143
    told = json.loads(report.read_text())
    assert (told["kind"], told["cause"]) == ("requested", f"the lease: {address} was closed by the other side")
    assert (told["deaths"][0]["severity"], told["deaths"][0]["sent_by_init"]) == ("clean", True)


def test_the_command_ends_with_its_descriptor() -> None:
    """Which is the init's: the command does not get it, and gets all others."""
    lease, ours = os.pipe()
    other, kept = os.pipe()
    script = "ls /proc/self/fd | tr '\\n' ' '; echo; exec sleep 600"
    with running("sh", "-c", script, options=[f"--lease=fd:{lease}"], pass_fds=(lease, kept)) as it:
        os.close(lease)
        os.close(kept)
        seen = {int(fd) for fd in it.line().split()}
        assert kept in seen
        assert lease not in seen
        os.close(ours)
        assert it.wait() == 143
    assert os.read(other, 1) == b"", "nobody holds what was the command's alone"
    os.close(other)


def test_the_command_may_end_first(tmp_path: Path) -> None:
    with (
        peer("tcp", tmp_path) as (address, server),
        running("sh", "-c", "exit 7", options=[f"--lease={address}"]) as it,
    ):
        theirs, _ = server.accept()
        with theirs:
            assert it.wait() == 7
            assert theirs.recv(1) == b""


def test_signals_go_through_beside_a_lease(tmp_path: Path) -> None:
    script = 'trap "echo hup" HUP; echo up; while :; do sleep 0.05; done'
    with (
        peer("tcp", tmp_path) as (address, server),
        running("sh", "-c", script, options=[f"--lease={address}"]) as it,
    ):
        theirs, _ = server.accept()
        assert it.line() == "up"
        it.send(1)
        assert it.line() == "hup"
        theirs.close()
        assert it.wait() == 143


def test_the_end_of_the_lease_is_a_term_like_any(tmp_path: Path) -> None:
    """It is rewritten as one that reaches the init, and mapped as its code."""
    script = 'trap "echo int; exit 3" INT; echo up; while :; do sleep 0.05; done'
    with peer("tcp", tmp_path) as (address, server):
        options = [f"--lease={address}", "--rewrite=TERM:INT", "--map-exit=3"]
        with running("sh", "-c", script, options=options) as it:
            theirs, _ = server.accept()
            assert it.line() == "up"
            theirs.close()
            assert it.line() == "int"
            assert it.wait() == 0


def test_the_whole_tree_goes_in_time(tmp_path: Path, pid_1: bool) -> None:
    """After `--stop-timeout` everything is killed, whatever session it has fled to."""
    deaf = 'trap "" TERM; echo $$; while :; do sleep 0.05; done'
    script = f"setsid sh -c '{deaf}' & {deaf}"
    report = tmp_path / "report.json"
    with peer("tcp", tmp_path) as (address, server):
        options = [f"--lease={address}", "--stop-timeout=500ms", f"--report={report}"]
        with running("sh", "-c", script, options=options, pid_1=pid_1) as it:
            theirs, _ = server.accept()
            pids = [int(it.line()), int(it.line())]
            theirs.close()
            assert it.wait() == 137
            if not pid_1:
                eventually(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()], "the end of all")
    death = json.loads(report.read_text())["deaths"][0]
    assert (death["severity"], death["forced"]) == ("forced", True)


@pytest.mark.parametrize("kind", ["tcp", "unix", "fd"])
def test_a_lease_that_cannot_be_had(tmp_path: Path, kind: str) -> None:
    """Nothing is started then, and the code is 69."""
    report = tmp_path / "report.json"
    if kind == "fd":
        address, why = "fd:987", "descriptor 987 was not open when the init started"
    else:
        with peer(kind, tmp_path) as (address, _):
            pass
        why = f"no connection to {address}: connection refused"
    done = run("touch", f"{tmp_path}/ran", options=[f"--lease={address}", f"--report={report}"])
    assert done.returncode == 69
    assert done.stderr == f"bottle-init: the lease cannot be had: {why}\n"
    assert not (tmp_path / "ran").exists()
    told = json.loads(report.read_text())
    assert (told["code"], told["kind"], told["deaths"]) == (69, "policy", [])


def waits_for_signals(pid: int) -> bool:
    """Whether it has a signalfd(2). What it closes meanwhile is none."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if "signalfd" in os.readlink(fd):
                return True
    return False


def test_a_stop_while_the_lease_is_awaited(tmp_path: Path) -> None:
    """Nothing is started then either."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        address = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        with running("touch", f"{tmp_path}/ran", options=[f"--lease={address}"]) as it:
            eventually(lambda: waits_for_signals(it.process.pid), "the wait")
            it.send(15)
            assert it.wait() == 143
        for one in waiting:
            one.close()
    assert not (tmp_path / "ran").exists()


def test_control_and_lease_together(tmp_path: Path) -> None:
    control = f"{tmp_path}/control"
    with peer("tcp", tmp_path) as (address, server):
        options = [f"--lease={address}", f"--control={control}"]
        with running("sh", "-c", WAITS, options=options) as it:
            theirs, _ = server.accept()
            assert it.line() == "up"
            eventually(Path(control).exists, "the control socket")
            asked = socket.socket(socket.AF_UNIX)
            asked.connect(control)
            asked.sendall(b"ctl stop\n")
            assert asked.recv(100) == b"ok stopping\n"
            assert it.wait() == 143
            theirs.close()
            asked.close()
