"""What each process of the bundle may do, and what none of them may see."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support.image import DAEMONS, SECRET, Bundle, bundle, check, run

pytestmark = pytest.mark.docker

BUNDLE = tomllib.loads((Path(__file__).parents[3] / "images/bundle/bundle.toml").read_text(encoding="utf-8"))

# capability.h: CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP.
_KEPT = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8
_NET_ADMIN = 1 << 12


@pytest.fixture(scope="module")
def running(bundle_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    """One healthy bundle for all tests of this module: they only look."""
    with bundle(bundle_image, tmp_path_factory.mktemp("stage")) as started:
        started.wait_healthy()
        yield started


def test_pid_1_is_root_with_four_capabilities(running: Bundle) -> None:
    """PID 1 is the init; it is root and has the capabilities that the container was given, but for NET_ADMIN."""
    (init,) = (process for process in running.processes() if process.pid == 1)
    assert "bottle_init --policy=exit-on-child-death" in init.command
    assert init.uid == 0
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(init.status[name], 16) == _KEPT


def test_nothing_that_the_init_started_has_net_admin(running: Bundle) -> None:
    """W2: with it the kernel rules could be undone. `keeps` in the bundle file takes it from all, the init included."""
    started = [process for process in running.processes() if process.pid == 1 or process.parent == 1]
    assert len(started) >= 1 + len(DAEMONS)
    for process in started:
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert not int(process.status[name], 16) & _NET_ADMIN, (process.command, name)


def test_every_daemon_has_its_own_user(running: Bundle) -> None:
    """Every daemon runs as a separate user, without privileges."""
    daemons = running.daemons()
    assert sorted(daemons) == sorted(DAEMONS)
    assert len({process.uid for process in daemons.values()} | {0}) == 1 + len(DAEMONS)
    for name, process in daemons.items():
        assert len(set(process.status["Uid"].split()) | set(process.status["Gid"].split())) == 1, name
        assert process.status["Groups"].split() in ([], [str(process.uid)]), name
        assert process.status["NoNewPrivs"] == "1", name
        assert int(process.status["CapEff"], 16) == 0, name
        assert int(process.status["CapPrm"], 16) == 0, name


def test_what_hup_is_forwarded_to_is_what_catches_it(running: Bundle) -> None:
    """The init asks the bundle file, which must not name a daemon that would die of it."""
    catches = {name for name, p in running.daemons().items() if int(p.status["SigCgt"], 16) & 1}
    named = {name for name, daemon in BUNDLE["daemons"].items() if "HUP" in daemon.get("signals", {})}
    assert named == catches == {"egress", "pipelock", "git-gate"}


def test_the_root_file_system_is_read_only(running: Bundle) -> None:
    assert running.docker.attrs["HostConfig"]["ReadonlyRootfs"]
    code, said = run(running.container, "sh", "-c", "echo x > /etc/bottle/policy.toml; echo x > /usr/x; echo x > /x")
    assert code != 0
    assert said.count("Read-only file system") == 3


@pytest.mark.parametrize("reader", [daemon for daemon in DAEMONS if daemon != "egress"])
def test_no_other_daemon_reads_egresss_secret(running: Bundle, reader: str) -> None:
    egress = running.daemons()["egress"]
    for path in ("/run/bottle/egress/credentials.json", "/run/secrets/token", f"/proc/{egress.pid}/environ"):
        code, said = run(running.container, "cat", path, user=reader)
        assert code != 0, path
        assert "Permission denied" in said
    for owner in DAEMONS:
        for directory in (owner, f"state/audit/{owner}"):
            code, _ = run(running.container, "ls", f"/run/bottle/{directory}", user=reader)
            assert (code == 0) == (owner == reader), directory
    for directory in ("state/operator", "secrets"):
        assert run(running.container, "ls", f"/run/bottle/{directory}", user=reader)[0] != 0, directory


def test_egress_reads_it(running: Bundle) -> None:
    """So that the test above is one of permissions, and not of a wrong path."""
    assert SECRET in check(running.container, "cat", "/run/bottle/egress/credentials.json", user="egress")


def test_no_secret_is_in_a_log_or_a_command_line(running: Bundle) -> None:
    assert SECRET not in running.logs
    assert all(SECRET not in process.command for process in running.processes())


def test_the_authorities_keys_are_their_daemons_alone(running: Bundle) -> None:
    for owner in ("egress", "pipelock"):
        key = f"/run/bottle/{owner}/ca-key.pem"
        assert "PRIVATE KEY" in check(running.container, "cat", key, user=owner)
        assert check(running.container, "stat", "-c", "%a %U", key, user=owner).split() == ["600", owner]
    public = check(running.container, "cat", "/run/bottle/ca/pipelock-ca.pem", user="nobody")
    assert public.startswith("-----BEGIN CERTIFICATE-----")
    assert "PRIVATE" not in public


def test_only_the_agents_ports_are_open(running: Bundle) -> None:
    """Only what the agent needs listens on all addresses.

    /proc/net/tcp: local address in hexadecimal, state 0A is LISTEN.
    """
    table = check(running.container, "sh", "-c", "cat /proc/net/tcp /proc/net/tcp6")
    rows = [line.split() for line in table.splitlines() if line.split()[3] == "0A"]
    open_to_all = {int(row[1].split(":")[1], 16) for row in rows if set(row[1].split(":")[0]) == {"0"}}
    all_ports = {int(row[1].split(":")[1], 16) for row in rows if not row[1].startswith("0B00007F")}
    assert open_to_all == {8888, 9100, 9418}
    real = check(running.container, "cat", "/run/bottle/engine") == "pipelock\n"
    assert all_ports == {8888, 9098, 9099, 9100, 9418} | ({18053, 18082, 18888, 18889} if real else set())


def test_the_image_says_which_engine_it_has(running: Bundle) -> None:
    label = running.docker.image.labels["bottle.pipelock.engine"]
    has_binary = run(running.container, "test", "-x", "/usr/local/bin/pipelock")[0] == 0
    assert label == ("pipelock" if has_binary else "portable")
    assert check(running.container, "cat", "/run/bottle/engine") == f"{label}\n"
    assert f"pipelock engine: {label} (" in running.logs


def test_the_builders_authorities_are_not_trusted(running: Bundle) -> None:
    """Authorities that only the build trusts are not trusted in the image.

    The store holds what Debian's package brings, and nothing else.
    """
    script = (
        "cat $(sed -n 's|^[^#!]|/usr/share/ca-certificates/&|p' /etc/ca-certificates.conf) | grep -c BEGIN;"
        "grep -c BEGIN /etc/ssl/certs/ca-certificates.crt; ls /usr/local/share/ca-certificates | wc -l"
    )
    packaged, trusted, added = check(running.container, "sh", "-c", script).split()
    assert int(packaged) == int(trusted) > 0
    assert int(added) == 0
