"""`health`, `status` and `ctl` as people and HEALTHCHECKs run them, against a real init (contract 6)."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.support.init import NAMESPACE, PATIENCE_S, PYTHON, ROOT, Init, eventually, running

pytestmark = pytest.mark.real

SLEEPER = '[daemons.{name}]\ncommand = ["sleep", "600"]\n'
TWO = SLEEPER.format(name="one") + "policy = 'restart'\n" + SLEEPER.format(name="two")


class Operator:
    """The operator who runs the commands, next to an init."""

    def __init__(self, address: str) -> None:
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT), "BOTTLE_INIT_CONTROL": address}

    def run(self, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """One command, and all that came of it."""
        command = [*prefix, *PYTHON, *words]
        return subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    def says(self, *words: str) -> str:
        """What a command that works prints."""
        done = self.run(*words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def verdict(self, *more: str) -> tuple[int, str]:
        """What a HEALTHCHECK learns: the exit code, and the word."""
        done = self.run("health", *more)
        assert done.stderr == ""
        return done.returncode, done.stdout.partition("\n")[0]

    @contextmanager
    def following(self) -> Iterator[subprocess.Popen[str]]:
        """`ctl events --follow`, once it follows."""
        command = [*PYTHON, "ctl", "events", "--follow"]
        with subprocess.Popen(command, env=self.environ, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                assert json.loads(process.stdout.readline())["event"] == "following"
                yield process
            finally:
                process.kill()


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """Someone who knows the address of this test's init."""
    return Operator(f"@bottle-test-{os.getpid()}-{tmp_path.name}")


def listening(init: Init, operator: Operator) -> None:
    """Wait until an init can be asked."""
    assert init.process.poll() is None
    eventually(lambda: operator.run("status").returncode == 0, "an answer")


# health


def test_health_of_a_bundle_that_is_well(tmp_path: Path, operator: Operator) -> None:
    with running(tmp_path, TWO) as init:
        init.event("child_ready", "two")
        listening(init, operator)
        done = operator.run("health")
        assert done.returncode == 0
        verdict, *daemons = done.stdout.splitlines()
        assert verdict == "healthy"
        assert [line.split()[:3] for line in daemons] == [[n, "healthy", "running"] for n in ("one", "two")]
        assert operator.verdict("--strict") == (0, "healthy")
        told = json.loads(operator.says("health", "--json"))
        assert [daemon["name"] for daemon in told["daemons"]] == ["one", "two"]
        assert init.stop() == 0


def test_health_degrades_after_a_requested_stop(tmp_path: Path, operator: Operator) -> None:
    """A daemon that was stopped by request leaves the bundle degraded, which only --strict counts as a failure."""
    with running(tmp_path, TWO) as init:
        listening(init, operator)
        assert operator.says("ctl", "stop", "one") == "one: stopping\n"
        init.event("child_exited", "one")
        eventually(lambda: operator.verdict() == (0, "degraded"), "degraded")
        assert operator.verdict("--strict") == (1, "degraded")
        assert operator.run("health", "--json", "--strict").returncode == 1
        assert operator.run("health", "--json").returncode == 0
        assert operator.says("ctl", "start", "one") == "one: starting\n"
        init.event("child_ready", "one", count=2)
        assert operator.verdict() == (0, "healthy")
        assert init.stop() == 0


def test_health_is_starting_until_all_have_been_ready(tmp_path: Path, operator: Operator) -> None:
    bundle = SLEEPER.format(name="slow") + "ready = { exec = ['false'], timeout = '300s' }\n"
    with running(tmp_path, bundle) as init:
        listening(init, operator)
        assert operator.verdict() == (1, "starting")
        assert "exit code 1" in operator.run("health").stdout
        assert init.stop() == 0


def test_health_follows_the_checks(tmp_path: Path, operator: Operator) -> None:
    """One check of a daemon that is switched to ill and back; `health` prints what the check itself printed."""
    ill = tmp_path / "ill"
    bundle = SLEEPER.format(name="d") + (
        f"health = {{ exec = ['/bin/sh', '-c', 'test ! -e {ill} || {{ echo it hurts; exit 3; }}'], interval = '50ms',"
        " retries = 2 }\n"
    )
    with running(tmp_path, bundle) as init:
        listening(init, operator)
        eventually(lambda: "check passed" in operator.run("health").stdout, "a check")
        ill.touch()
        init.event("child_unhealthy", "d")
        assert operator.verdict() == (1, "unhealthy")
        assert "exit code 3: it hurts" in operator.run("health").stdout
        assert json.loads(operator.run("health", "--json").stdout)["daemons"][0]["check"]["passed"] is False
        ill.unlink()
        init.event("child_healthy", "d")
        assert operator.verdict() == (0, "healthy")
        assert init.stop() == 0


def test_health_during_a_stop(tmp_path: Path, operator: Operator) -> None:
    stubborn = "[bundle]\nstop_timeout = '300s'\n" + SLEEPER.format(name="d") + "stop_delay = '200s'\n"
    with running(tmp_path, stubborn) as init:
        listening(init, operator)
        init.send(signal.SIGTERM)
        init.event("stopping")
        eventually(lambda: operator.verdict() == (1, "stopping"), "stopping")
        init.send(signal.SIGTERM)
        assert init.wait() == 137


@pytest.mark.parametrize("words", [["health"], ["health", "--json"], ["status"], ["ctl", "renew"]])
def test_without_an_init_there_is_one_plain_line(operator: Operator, words: list[str]) -> None:
    done = operator.run(*words)
    assert (done.returncode, done.stdout) == (1, "")
    reason = f"no running init answers at {operator.environ['BOTTLE_INIT_CONTROL']}: connection refused"
    assert done.stderr == f"bottle-init {words[0]}: {reason}\n"


def test_with_the_socket_switched_off(operator: Operator) -> None:
    done = operator.run("health", "--control=")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "bottle-init health: no control socket is set (--control, $BOTTLE_INIT_CONTROL)\n"


def test_at_a_path(tmp_path: Path, operator: Operator) -> None:
    path = str(tmp_path / "control")
    with running(tmp_path, TWO, f"--control={path}") as init:
        eventually(lambda: operator.run("health", f"--control={path}").returncode == 0, "healthy")
        assert init.stop() == 0
    done = operator.run("health", f"--control={path}")
    assert done.stderr == f"bottle-init health: no running init answers at {path}: no such file or directory\n"


@pytest.mark.parametrize("said", [b"{}\n", b"{not json}\n", b'{"a": ' * 50_000 + b"\n"])
def test_what_is_no_init_gets_one_plain_line(tmp_path: Path, operator: Operator, said: bytes) -> None:
    """Whatever answers at the address but is no init gets one line on stderr and no traceback."""
    path = str(tmp_path / "control")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        command = [*PYTHON, "status", f"--control={path}"]
        with subprocess.Popen(command, env=operator.environ, stderr=subprocess.PIPE, text=True) as process:
            with other.accept()[0] as client:
                client.recv(100)
                client.sendall(said)
            _, told = process.communicate(timeout=PATIENCE_S)
            assert told == f"bottle-init status: what listens at {path} does not answer as an init does\n"
            assert process.returncode == 1


def test_a_stopped_init_is_not_waited_for(tmp_path: Path, operator: Operator) -> None:
    """An init that is stopped does not hold up its clients: after five seconds they give up."""
    with running(tmp_path, TWO) as init:
        listening(init, operator)
        init.send(signal.SIGSTOP)
        done = operator.run("health")
        init.send(signal.SIGCONT)
        assert done.returncode == 1
        assert done.stderr.endswith("does not answer within 5 s\n")
        assert init.stop() == 0


def test_health_in_the_containers_namespace(tmp_path: Path, operator: Operator) -> None:
    """As `docker exec` and a HEALTHCHECK run it: beside PID 1, and nowhere else."""
    with running(tmp_path, TWO, pid_1=True) as init:
        init.event("child_ready", "two")
        inside = ("nsenter", "--target", str(init.pid), "--pid", "--mount")
        eventually(lambda: operator.run("health", prefix=inside).returncode == 0, "healthy")
        outside = operator.run("health")
        assert outside.returncode == 1
        assert "is not this container's init: it is in another PID namespace" in outside.stderr
        beside = operator.run("health", prefix=tuple(NAMESPACE))
        assert beside.returncode == 1
        assert "it is in another PID namespace" in beside.stderr
        assert init.stop() == 0


def test_health_imports_next_to_nothing(tmp_path: Path, operator: Operator) -> None:
    """It runs every few seconds for as long as a container lives."""
    heavy = ("json", "socket", "re", "enum", "typing", "argparse", "tomllib", "subprocess", "signal", "logging")
    with running(tmp_path, TWO) as init:
        listening(init, operator)
        script = (
            "import sys; sys.argv[1:] = ['health']; from bottle_init.cli.main import main; code = main(sys.argv[1:]);"
        )
        script += f"print(code, sorted({set(heavy)!r} & set(sys.modules)), 'bottle_init.core' in sys.modules)"
        bare = [sys.executable, "-S", "-E", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {script}"]
        command = [*bare[:-1], bare[-1].replace("['health']", f"['health', '--control={_address(operator)}']")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "0 [] False"
        assert init.stop() == 0


def _address(operator: Operator) -> str:
    return operator.environ["BOTTLE_INIT_CONTROL"]


# status


def test_status_is_a_table_for_people(tmp_path: Path, operator: Operator) -> None:
    bundle = TWO + '[oneshots.first]\ncommand = ["true"]\n'
    with running(tmp_path, bundle) as init:
        init.event("oneshot_done", "first")
        init.event("child_ready", "two")
        listening(init, operator)
        bundle_line, head, *rows = operator.says("status").splitlines()
        assert bundle_line.startswith("bundle: healthy, policy exit-on-child-death, init ")
        assert " ".join(head.split()) == "NAME KIND STATE HEALTH PID UPTIME RESTARTS RSS CPU FILES NOTE"
        assert [row.split()[0] for row in rows] == ["first", "one", "two"]
        name, kind, state, health, pid, _, restarts, rss, cpu, files = rows[1].split()
        assert (name, kind, state, health, restarts, files) == ("one", "daemon", "running", "healthy", "0", "3")
        assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
        assert rss[-1] in "KM"
        assert cpu.endswith("%")
        assert rows[0].split()[:5] == ["first", "oneshot", "ended", "-", "-"]
        assert "exited with 0" in rows[0]
        assert init.stop() == 0


def test_figures_cover_a_daemons_whole_tree(tmp_path: Path, operator: Operator) -> None:
    """Memory, CPU and open files are those of the daemon and everything below it."""
    bundle = '[daemons.d]\ncommand = ["/bin/sh", "-c", "sleep 600 & sleep 600 & sleep 600; true"]\n'
    with running(tmp_path, bundle) as init:
        listening(init, operator)
        eventually(lambda: json.loads(operator.says("status", "--json"))["children"][0]["open_files"] == 12, "4 x 3")
        assert init.stop() == 0


def test_status_says_how_to_get_the_figures(tmp_path: Path, operator: Operator) -> None:
    """Without the packages of `site` there is no psutil."""
    command = [sys.executable, "-S", "-m", "bottle_init", "status"]
    with running(tmp_path, TWO) as init:
        listening(init, operator)
        done = subprocess.run(command, env=operator.environ, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[2].split()[-3:] == ["-", "-", "-"]
        assert done.stderr.startswith("memory, CPU and open files are shown where psutil is installed")
        command.append("--json")
        found = subprocess.run(command, env=operator.environ, capture_output=True, text=True, check=True).stdout
        assert json.loads(found)["children"][0]["rss_bytes"] is None
        assert init.stop() == 0


def test_status_watches_until_interrupted(tmp_path: Path, operator: Operator) -> None:
    with running(tmp_path, TWO) as init:
        listening(init, operator)
        master, slave = pty.openpty()
        command = [*PYTHON, "status", "--watch"]
        with subprocess.Popen(command, env=operator.environ, stdout=slave, stderr=subprocess.PIPE) as process:
            os.close(slave)
            screen = bytearray()

            def drawn_twice() -> bool:
                screen.extend(os.read(master, 65_536))
                return screen.count(b"\x1b[H\x1b[2J") == 2

            eventually(drawn_twice, "a second table")
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0
            assert process.stderr is not None
            assert process.stderr.read() == b""
        os.close(master)
        assert init.stop() == 0


def test_status_watch_ends_with_the_init(tmp_path: Path, operator: Operator) -> None:
    with running(tmp_path, TWO) as init:
        listening(init, operator)
        command = [*PYTHON, "status", "--watch", "--json"]
        with subprocess.Popen(
            command, env=operator.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["health"] == "healthy"
            assert init.stop() == 0
            _, err = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 1
            assert "no running init answers" in err


# ctl


def test_ctl_restart_gives_a_daemon_a_new_process(tmp_path: Path, operator: Operator) -> None:
    with running(tmp_path, TWO) as init:
        first = init.event("child_started", "two")["pid"]
        listening(init, operator)
        assert operator.says("ctl", "restart", "two") == "two: restarting\n"
        assert init.event("child_started", "two", count=2)["pid"] != first
        assert init.stop() == 0


def test_ctl_signal_is_the_operators_not_the_inits(tmp_path: Path, operator: Operator) -> None:
    """Contract 2: what `ctl signal` sends is not the init's, so a death by it is a crash."""
    with running(tmp_path, SLEEPER.format(name="d")) as init:
        listening(init, operator)
        assert operator.says("ctl", "signal", "d", "TERM") == "d: sent signal 15\n"
        assert init.wait() == 143


def test_ctl_stop_ends_the_bundle(tmp_path: Path, operator: Operator) -> None:
    with running(tmp_path, TWO) as init:
        listening(init, operator)
        assert operator.says("ctl", "stop") == "stopping\n"
        assert init.wait() == 0
        assert init.event("stopping")["cause"] == "the control socket"
        assert init.event("stopping")["sender_uid"] == os.geteuid()


def test_ctl_renew_renews_the_lease(tmp_path: Path, operator: Operator) -> None:
    bundle = f"[bundle]\nlease = {{ renew = '2h' }}\n{TWO}"
    with running(tmp_path, bundle, leaps=True) as init:
        listening(init, operator)
        init.leap(3_600)
        assert lease_ms(operator) <= 3_600_000
        assert operator.says("ctl", "renew") == "renewed\n"
        assert 3_600_000 < lease_ms(operator) <= 7_200_000
        assert init.stop() == 0


def lease_ms(operator: Operator) -> int:
    """How long the lease still lasts."""
    left = json.loads(operator.says("status", "--json"))["lease_ms"]
    assert isinstance(left, int)
    return left


def test_ctl_without_a_lease_to_renew(tmp_path: Path, operator: Operator) -> None:
    with running(tmp_path, TWO) as init:
        listening(init, operator)
        done = operator.run("ctl", "renew")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "bottle-init ctl: this bundle has no lease to renew\n"
        assert init.stop() == 0


def test_ctl_of_an_unknown_name(tmp_path: Path, operator: Operator) -> None:
    with running(tmp_path, TWO) as init:
        listening(init, operator)
        done = operator.run("ctl", "restart", "three")
        assert done.returncode == 2
        assert done.stderr == "bottle-init ctl: nothing here is called 'three'; there are: one, two\n"
        assert init.stop() == 0


def test_ctl_events_follows_from_now_to_the_end(tmp_path: Path, operator: Operator) -> None:
    with running(tmp_path, TWO) as init:
        listening(init, operator)
        with operator.following() as follower:
            os.kill(init.event("child_started", "one")["pid"], signal.SIGKILL)
            assert follower.stdout is not None
            seen = []
            for line in follower.stdout:
                seen.append(json.loads(line))
                if seen[-1]["event"] == "child_started":
                    break
            death = next(event for event in seen if event["event"] == "child_exited")
            assert (death["child"], death["code"]) == ("one", 137)
            assert {"event", "level", "timestamp"} <= death.keys()
            assert init.stop() == 0
            rest = [json.loads(line)["event"] for line in follower.stdout]
            assert rest[-1] == "exit_report"
            assert follower.wait(PATIENCE_S) == 0


def test_ctl_events_needs_to_follow(operator: Operator) -> None:
    done = operator.run("ctl", "events")
    assert done.returncode == 2
    assert "ctl events --follow" in done.stderr


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("health >/dev/full", 1),
        ("health >&-", 0),
        ("health >&- 2>&-", 0),
        ("health --control=@nobody 2>&-", 1),
        ("health --control=@nobody 2>/dev/full", 1),
        ("status >/dev/full", 1),
        ("status >&- 2>&-", 0),
        ("ctl start one >/dev/full", 1),
        ("ctl start one >&-", 0),
        ("ctl start nobody >&- 2>&-", 2),
        ("ctl events --follow >/dev/full", 1),
        ("ctl events --follow | head -n 1; exit ${PIPESTATUS[0]}", 141),
        ("explain /dev/null 2>/dev/full", 1),
    ],
)
def test_an_output_that_is_gone_gives_no_traceback(tmp_path: Path, operator: Operator, line: str, code: int) -> None:
    """Nor does anything wait for an event to learn of it: in this bundle none comes."""
    with running(tmp_path, TWO) as init:
        listening(init, operator)
        command = ["bash", "-c", f"{' '.join(PYTHON)} {line}"]
        done = subprocess.run(
            command, env=operator.environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done
        assert init.stop() == 0


# Clients that do not mean well, and the init.


def test_hostile_clients_do_not_stall_the_init(tmp_path: Path, operator: Operator) -> None:
    """Half lines, floods, clients that never read: a death is still answered, and so is TERM."""
    name = "\0" + _address(operator)[1:]
    crowd: list[socket.socket] = []
    with running(tmp_path, TWO) as init:
        listening(init, operator)
        for said in (b"hea", b"x" * 100_000, b"events\n", b"status\n" * 1_000, b"\0\xff\n", b"ctl restart two\n"):
            for _ in range(10):
                rude = socket.socket(socket.AF_UNIX)
                rude.setblocking(False)
                crowd.append(rude)
                try:
                    rude.connect(name)
                    rude.send(said)
                except OSError:
                    continue  # It has been closed already, or the backlog is full: fine.
        os.kill(init.event("child_started", "one")["pid"], signal.SIGKILL)
        init.event("child_started", "one", count=2)
        init.event("child_started", "two", count=2)
        assert operator.run("health").returncode in (0, 1)
        assert init.stop() == 0
    for rude in crowd:
        rude.close()


def test_a_taken_address_is_said_and_harms_nothing(tmp_path: Path, operator: Operator) -> None:
    with socket.socket(socket.AF_UNIX) as first:
        first.bind("\0" + _address(operator)[1:])
        with running(tmp_path, TWO) as init:
            said = init.event("control_unavailable")
            assert said["reason"] == f"{_address(operator)}: another process listens there"
            assert init.stop() == 0


def test_clients_are_let_in_after_a_shortage(tmp_path: Path) -> None:
    """An init without a descriptor for another client takes a pause; that it ends is the loop's work."""
    with running(tmp_path, SLEEPER.format(name="one"), prefix=("prlimit", "--nofile=32:32")) as init:
        operator = Operator(init.control)
        init.event("child_started", "one")
        eventually(lambda: operator.run("health").returncode == 0, "the control socket")
        idle = []
        for _ in range(30):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect("\0" + init.control[1:])
            idle.append(connection)
        eventually(lambda: len(os.listdir(f"/proc/{init.pid}/fd")) == 32, "the shortage")
        for connection in idle:
            connection.close()
        eventually(lambda: operator.run("health").returncode == 0, "an answer after the shortage")
        assert init.stop() == 0
