"""Leases on real descriptors and connections (contract 9)."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottle_init.core.events import LeaseEnded, LeaseTaken
from bottle_init.core.spec import Lease
from bottle_init.linux.lease import Watch, as_given
from tests.integration.support.init import PATIENCE_S, eventually, running
from tests.integration.support.turning import Bench, open_descriptors

pytestmark = pytest.mark.real


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench, and a check that nothing is left open."""
    before = open_descriptors()
    bench = Bench()
    yield bench
    bench.poller._epoll.close()
    assert open_descriptors() <= before


def watch(bench: Bench, *, fd: int | None = None, connect: str | None = None, taken: bool = True) -> Watch:
    """Begin to watch a peer, and wait until it is there if it is to be."""
    lease, has_fd = as_given(Lease(fd=fd, connect=connect))
    found = Watch(lease, has_fd, bench.poller, bench.emit)
    if taken:
        assert bench.event() == LeaseTaken()
    return found


def flags(fd: int) -> int:
    """The status flags of an open file, which all who share it see."""
    return fcntl.fcntl(fd, fcntl.F_GETFL)


def test_a_pipe_that_closes(bench: Bench) -> None:
    reading, writing = os.pipe()
    watch(bench, fd=reading)
    assert bench.quiet() == []
    os.close(writing)
    assert bench.event() == LeaseEnded(f"descriptor {reading} was closed by the other side")
    assert bench.quiet() == []
    os.close(reading)  # It is still open: the init inherited it, and does not own it.


def test_a_pipe_whose_reader_goes(bench: Bench) -> None:
    reading, writing = os.pipe()
    watch(bench, fd=writing)
    os.close(reading)
    assert bench.event() == LeaseEnded(f"descriptor {writing} was closed by the other side")
    os.close(writing)


def test_what_a_pipe_brings_wakes_nobody(bench: Bench) -> None:
    """Unread data does not hide the end of a pipe, so it is left where it is."""
    reading, writing = os.pipe()
    watch(bench, fd=reading)
    os.write(writing, b"x" * 1_000)
    assert bench.poller._epoll.poll(0.2) == []
    os.close(writing)
    assert isinstance(bench.event(), LeaseEnded)
    os.close(reading)


@pytest.mark.parametrize("how", ["close", "shutdown"])
def test_a_socket_that_closes(bench: Bench, how: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watch(bench, fd=ours.fileno())
        theirs.sendall(b"hello")
        assert bench.quiet() == []
        if how == "close":
            theirs.close()
        else:
            theirs.shutdown(socket.SHUT_WR)
        assert bench.event() == LeaseEnded(f"descriptor {ours.fileno()} was closed by the other side")


def test_a_connection_that_is_full_of_data_still_ends(bench: Bench) -> None:
    """TCP holds the end back behind what has not been read, so what comes is thrown away."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        with theirs:
            watch(bench, fd=ours.fileno())
            theirs.setblocking(False)
            sent = 0
            while sent < 20_000_000:
                try:
                    sent += theirs.send(b"x" * 65_536)
                except BlockingIOError:
                    bench.turn()
        assert isinstance(bench.event(), LeaseEnded)


def test_a_reset_is_an_end(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        watch(bench, fd=ours.fileno())
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        assert bench.event() == LeaseEnded(f"descriptor {ours.fileno()}: connection reset by peer")


def test_a_terminal_that_hangs_up(bench: Bench) -> None:
    master, slave = pty.openpty()
    watch(bench, fd=slave)
    assert bench.quiet() == []
    os.close(master)
    assert isinstance(bench.event(), LeaseEnded)
    os.close(slave)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_o_nonblock_is_never_set_on_what_others_share(bench: Bench, kind: str) -> None:
    if kind == "pipe":
        reading, writing = os.pipe()
    else:
        reading, writing = (end.detach() for end in socket.socketpair())
    before = flags(reading)
    watch(bench, fd=reading)
    os.write(writing, b"data")
    bench.quiet()
    assert flags(reading) == before
    assert not before & os.O_NONBLOCK
    os.close(writing)
    bench.event()
    assert flags(reading) == before
    os.close(reading)


def test_what_can_never_close_is_no_lease(bench: Bench, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        watch(bench, fd=file.fileno(), taken=False)
        reason = f"descriptor {file.fileno()} is a file, and no file tells when its other side is gone"
        assert bench.event() == LeaseEnded(reason)


def test_a_descriptor_that_is_not_open(bench: Bench) -> None:
    watch(bench, fd=987, taken=False)
    assert bench.event() == LeaseEnded("descriptor 987 was not open when the init started")


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_has_gone_before_is_no_lease(bench: Bench, kind: str) -> None:
    if kind == "pipe":
        ours, theirs = os.pipe()
    else:
        ours, theirs = (end.detach() for end in socket.socketpair())
    os.close(theirs)
    watch(bench, fd=ours, taken=False)
    reason = f"descriptor {ours} had been closed by the other side before the init started"
    assert bench.event() == LeaseEnded(reason)
    assert bench.quiet() == []
    os.close(ours)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_a_tcp_peer_that_goes(bench: Bench, host: str) -> None:
    family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
    with socket.create_server((host.strip("[]"), 0), family=family) as server:
        peer = f"tcp:{host}:{server.getsockname()[1]}"
        watch(bench, connect=peer)
        theirs, _ = server.accept()
        with theirs:
            theirs.sendall(b"whatever it says")
            assert bench.quiet() == []
        assert bench.event() == LeaseEnded(f"{peer} was closed by the other side")


def test_localhost_is_both_loopback_addresses(bench: Bench) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        watch(bench, connect=f"tcp:localhost:{server.getsockname()[1]}")
        bench.quiet()
        theirs, _ = server.accept()
        theirs.close()
        assert isinstance(bench.event(), LeaseEnded)


@pytest.mark.parametrize("peer", ["{path}/peer", "@{path}/peer"])
def test_a_unix_peer_that_goes(bench: Bench, tmp_path: Path, peer: str) -> None:
    peer = peer.format(path=tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(peer.replace("@", "\0"))
        server.listen()
        watch(bench, connect=f"unix:{peer}")
        theirs, _ = server.accept()
        with theirs:
            assert bench.quiet() == []
        assert bench.event() == LeaseEnded(f"unix:{peer} was closed by the other side")


def test_nobody_there(bench: Bench, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    watch(bench, connect=f"tcp:localhost:{port}", taken=False)
    assert bench.event() == LeaseEnded(f"no connection to tcp:localhost:{port}: connection refused")
    watch(bench, connect=f"unix:{tmp_path}/none", taken=False)
    assert bench.event() == LeaseEnded(f"no connection to unix:{tmp_path}/none: no such file or directory")
    assert bench.quiet() == []


def test_a_peer_whose_machine_is_gone_is_given_up() -> None:
    """The kernel asks in our place (SO_KEEPALIVE); that it does within half a minute is set here."""
    bench = Bench()
    with socket.create_server(("127.0.0.1", 0)) as server:
        lease = watch(bench, connect=f"tcp:127.0.0.1:{server.getsockname()[1]}")
        connection = lease._socket
        assert connection is not None
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        interval = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        count = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        assert idle + interval * count == 30
        lease.close()
    bench.poller._epoll.close()


# Under the init: the end of a lease is a requested stop; one that cannot be had is none.

SLEEPER = '[daemons.d]\ncommand = ["sleep", "600"]\n'


@pytest.mark.parametrize("pid_1", [False, True], ids=["subreaper", "pid1"])
def test_the_bundle_ends_with_its_descriptor(tmp_path: Path, pid_1: bool) -> None:
    reading, writing = os.pipe()
    bundle = f"[bundle]\nlease = {{ fd = {reading} }}\n{SLEEPER}"
    with running(tmp_path, bundle, pid_1=pid_1, pass_fds=[reading]) as init:
        os.close(reading)
        init.event("child_ready", "d")
        os.close(writing)
        assert init.wait() == 0
        assert f"descriptor {reading} was closed by the other side" in init.event("stopping")["cause"]


@pytest.mark.parametrize("fd", range(3, 14))
def test_a_descriptor_of_the_inits_own_is_no_lease(tmp_path: Path, fd: int) -> None:
    """None was handed down, and the init opens its own at the same numbers."""
    with running(tmp_path, f"[bundle]\nlease = {{ fd = {fd} }}\n{SLEEPER}") as init:
        assert init.wait() == 69
        cause = f"the lease cannot be had: descriptor {fd} was not open when the init started"
        assert init.report()["cause"] == cause
        assert ("child_started", "d") not in init.names()


@pytest.mark.parametrize("pid_1", [False, True], ids=["subreaper", "pid1"])
def test_a_refused_connection_is_no_request(tmp_path: Path, pid_1: bool) -> None:
    """Nothing is started: a job that was would be ended half-way, and the code would be 0."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = f"tcp:127.0.0.1:{server.getsockname()[1]}"
    bundle = f"[bundle]\nlease = {{ connect = '{peer}' }}\n[jobs.j]\ncommand = ['touch', '{tmp_path}/ran']\n"
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        assert init.wait() == 69
        report = init.report()
        assert (report["kind"], report["deaths"]) == ("policy", [])
        assert report["cause"] == f"the lease cannot be had: no connection to {peer}: connection refused"
    assert not (tmp_path / "ran").exists()


def test_a_peer_that_does_not_answer_is_none(tmp_path: Path) -> None:
    """A full queue of connections drops what comes; after five seconds that is enough."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        bundle = f"[bundle]\nlease = {{ connect = 'tcp:127.0.0.1:{address[1]}' }}\n{SLEEPER}"
        with running(tmp_path, bundle) as init:
            assert init.wait() == 69
            assert "nobody has taken the connection for 5 seconds" in init.report()["cause"]
            assert ("child_started", "d") not in init.names()
        for one in waiting:
            one.close()


def test_a_stop_while_the_lease_is_awaited(tmp_path: Path) -> None:
    """It is a request like any other, and there is nothing to stop."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        control = f"@bottle-lease-{tmp_path.name}"
        bundle = f"[bundle]\nlease = {{ connect = 'tcp:127.0.0.1:{address[1]}' }}\n{SLEEPER}"
        with running(tmp_path, bundle, env={"BOTTLE_INIT_CONTROL": control}) as init:
            eventually(lambda: control in Path("/proc/net/unix").read_text(), "the control socket")
            assert init.stop() == 0
        for one in waiting:
            one.close()


def test_children_do_not_get_the_descriptor(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    bundle = (
        f'[bundle]\nlease = {{ fd = {reading} }}\n[jobs.j]\ncommand = ["/bin/sh", "-c", "ls /proc/self/fd | wc -l"]\n'
    )
    with running(tmp_path, bundle, pass_fds=[reading]) as init:
        assert init.wait() == 0
        assert init.out == ["[j] 4"]  # 0, 1, 2 and the listing's own.
    os.close(reading)
    os.close(writing)


def test_the_bundle_ends_with_its_connection(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        bundle = f'[bundle]\nlease = {{ connect = "tcp:127.0.0.1:{server.getsockname()[1]}" }}\n{SLEEPER}'
        with running(tmp_path, bundle) as init:
            theirs, _ = server.accept()
            init.event("child_ready", "d")
            theirs.close()
            assert init.wait() == 0


def test_a_peers_path_is_relative_to_the_start(tmp_path: Path) -> None:
    """A peer's relative path is resolved from the directory where the init was started."""
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(PATIENCE_S)
        server.bind(str(tmp_path / "peer"))
        server.listen()
        with running(tmp_path, f"[bundle]\nlease = {{ connect = 'unix:peer' }}\n{SLEEPER}", cwd=tmp_path) as init:
            theirs, _ = server.accept()
            init.event("child_ready", "d")
            theirs.close()
            assert init.wait() == 0
            assert init.report()["cause"] == f"the lease: unix:{tmp_path}/peer was closed by the other side"
