"""Restarts, dependents, readiness, health and orders, end to end on the real kernel (contract 3, 4, 6)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support.init import PYTHON, ROOT, Init, eventually, running, sh

pytestmark = pytest.mark.real

LOOP = "while :; do sleep 0.05; done"


def client(init: Init, *words: str) -> subprocess.CompletedProcess[str]:
    """`health`, `status` or `ctl` as the operator types it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "BOTTLE_INIT_CONTROL": init.control}
    return subprocess.run([*PYTHON, *words], env=env, capture_output=True, text=True, timeout=60, check=False)


def health(init: Init) -> str:
    """The bundle's health in one word."""
    return client(init, "health").stdout.split("\n")[0].split()[0]


def pid_of(init: Init, child: str, count: int = 1) -> int:
    """The pid of a child's nth start."""
    return int(init.event("child_started", child, count)["pid"])


def test_a_restart_leaves_other_daemons_alone(tmp_path: Path) -> None:
    """A daemon that is restarted comes back, and the others stay."""
    bundle = sh("daemon", "a", "exec sleep 600", "policy = 'restart'\nbackoff = { initial = '10ms' }") + sh(
        "daemon", "b", "exec sleep 600", "after = ['a']"
    )
    with running(tmp_path, bundle) as init:
        init.event("child_ready", "b")
        os.kill(pid_of(init, "a"), signal.SIGKILL)
        init.event("child_ready", "a", count=2)
        assert init.names().count(("child_started", "b")) == 1
        assert init.stop() == 0


def test_rest_for_one_in_order_with_readiness_between(tmp_path: Path) -> None:
    ready = "ready = { exec = ['test', '-e', 'ready'] }"
    more = (
        f"policy = 'restart'\nbackoff = {{ initial = '10ms' }}\nrestart_dependents = true\ncwd = '{tmp_path}'\n{ready}"
    )
    bundle = (
        sh("daemon", "c", "exec sleep 600", "after = ['b']")
        + sh("daemon", "b", f"trap 'sleep 0.2; exit 0' TERM; echo up; {LOOP}", "after = ['a']")
        + sh("daemon", "a", "sleep 0.2; touch ready; exec sleep 600", more)
        + sh("daemon", "apart", "exec sleep 600")
    )
    with running(tmp_path, bundle) as init:
        init.line("[b] up")
        init.event("child_ready", "c")
        (tmp_path / "ready").unlink()
        os.kill(pid_of(init, "a"), signal.SIGKILL)
        init.event("child_ready", "c", count=2)
        steps = ("child_started", "child_exited", "child_ready")
        life = [f"{event[6:]} {child}" for event, child in init.names() if event in steps and child != "apart"]
        up = ["started a", "ready a", "started b", "ready b", "started c", "ready c"]
        assert life == [*up, "exited a", "exited c", "exited b", *up]
        assert init.stop() == 0


def test_orders_of_the_operator(tmp_path: Path) -> None:
    bundle = sh("daemon", "a", "exec sleep 600") + sh("daemon", "b", "exec sleep 600")
    with running(tmp_path, bundle) as init:
        init.event("child_ready", "b")
        assert health(init) == "healthy"
        assert client(init, "ctl", "stop", "a").returncode == 0
        init.event("child_exited", "a")
        eventually(lambda: health(init) == "degraded", "degraded health")
        assert init.process.poll() is None, "what the operator stops is put to no policy"
        assert client(init, "ctl", "start", "a").returncode == 0
        init.event("child_ready", "a", count=2)
        assert health(init) == "healthy"
        assert client(init, "ctl", "restart", "b").returncode == 0
        init.event("child_ready", "b", count=2)
        assert client(init, "ctl", "stop", "nobody").returncode != 0
        assert client(init, "ctl", "signal", "a", "KILL").returncode == 0
        assert init.wait() == 137, "the operator's signal is not the init's"


def test_ctl_stop_is_a_requested_stop(tmp_path: Path) -> None:
    with running(tmp_path, sh("daemon", "a", "exec sleep 600")) as init:
        init.event("child_ready", "a")
        assert client(init, "ctl", "stop").returncode == 0
        assert init.wait() == 0
        assert init.report()["kind"] == "requested"
        assert client(init, "health").returncode == 1


def test_status_and_followers(tmp_path: Path) -> None:
    more = "policy = 'restart'\nbackoff = { initial = '10ms' }"
    with running(tmp_path, sh("daemon", "a", "exec sleep 600", more)) as init:
        init.event("child_ready", "a")
        env = {**os.environ, "PYTHONPATH": str(ROOT), "BOTTLE_INIT_CONTROL": init.control}
        follower = subprocess.Popen([*PYTHON, "ctl", "events", "--follow"], env=env, stdout=subprocess.PIPE, text=True)
        assert follower.stdout is not None
        first = follower.stdout.readline()
        assert first.startswith("{")
        os.kill(pid_of(init, "a"), signal.SIGKILL)
        seen = [json.loads(follower.stdout.readline())["event"] for _ in range(3)]
        assert "child_exited" in seen
        init.event("child_ready", "a", count=2)
        status = json.loads(client(init, "status", "--json").stdout)
        assert "a" in json.dumps(status)
        assert client(init, "status").returncode == 0
        assert init.stop() == 0
        follower.stdout.read()
        assert follower.wait(60) in (0, 1)
        follower.stdout.close()


def server(port: int, behaviour: str) -> str:
    """A daemon that answers HTTP with 200 until the file `sick` appears."""
    return f"""
[daemons.web]
command = ['python3', '-c', '''
import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists("sick") else 200); self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", {port}), H).serve_forever()
''']
{behaviour}
"""


def read(path: Path) -> bytes:
    """A file of /proc, empty if its process is gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def free_port() -> int:
    """A port that is not listened on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def watched(port: int, tmp_path: Path, then: str) -> str:
    check = f"{{ http = 'http://127.0.0.1:{port}/h', interval = '100ms', timeout = '5s', retries = 2 }}"
    return server(
        port,
        f"cwd = '{tmp_path}'\nready = {{ tcp = {port} }}\nhealth = {check}\non_unhealthy = '{then}'\n"
        "backoff = { initial = '10ms' }\n",
    )


def test_unhealthy_is_seen_and_forgotten(tmp_path: Path) -> None:
    with running(tmp_path, watched(free_port(), tmp_path, "ignore")) as init:
        init.event("child_ready", "web")
        assert health(init) == "healthy"
        (tmp_path / "sick").touch()
        init.event("child_unhealthy", "web")
        assert health(init) == "unhealthy"
        assert client(init, "health").returncode == 1
        (tmp_path / "sick").unlink()
        init.event("child_healthy", "web")
        assert health(init) == "healthy"
        assert init.stop() == 0


def test_unhealthy_restarts(tmp_path: Path) -> None:
    with running(tmp_path, watched(free_port(), tmp_path, "restart")) as init:
        init.event("child_ready", "web")
        (tmp_path / "sick").touch()
        init.event("child_exited", "web")
        (tmp_path / "sick").unlink()
        init.event("child_ready", "web", count=2)
        assert init.stop() == 0


def test_unhealthy_stops_with_69(tmp_path: Path) -> None:
    with running(tmp_path, watched(free_port(), tmp_path, "stop")) as init:
        init.event("child_ready", "web")
        (tmp_path / "sick").touch()
        assert init.wait() == 69


def test_notify(tmp_path: Path) -> None:
    say = "import os,socket,sys,time\ns=socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
    say += "s.connect(os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1))\n"
    a = (
        say
        + "time.sleep(0.3); s.send(b'STATUS=warm'+bytes([10])+b'READY=1'); print('ready', flush=True); time.sleep(600)"
    )
    (tmp_path / "a.py").write_text(a)
    bundle = f"[daemons.a]\ncommand = ['python3', '{tmp_path}/a.py']\nready = {{ notify = true }}\n" + sh(
        "daemon", "b", 'echo "b up [$NOTIFY_SOCKET]"; exec sleep 600', "after = ['a']"
    )
    with running(tmp_path, bundle) as init:
        init.line("[b] b up []")
        init.line("[a] ready")
        assert init.stop() == 0


def test_a_watchdog_that_is_missed_is_unhealthy(tmp_path: Path) -> None:
    say = "import os,socket,time\ns=socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
    say += "s.connect(os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1))\n"
    say += "s.send(b'READY=1'+bytes([10])+b'WATCHDOG_USEC=300000')\n"
    say += "for _ in range(5): time.sleep(0.1); s.send(b'WATCHDOG=1')\ntime.sleep(600)"
    (tmp_path / "a.py").write_text(say)
    bundle = (
        f"[daemons.a]\ncommand = ['python3', '{tmp_path}/a.py']\nready = {{ notify = true }}\non_unhealthy = 'stop'\n"
    )
    with running(tmp_path, bundle) as init:
        init.event("child_unhealthy", "a")
        assert init.wait() == 69


@pytest.mark.parametrize("kind", ["fd", "unix", "renew"])
def test_lease(tmp_path: Path, kind: str) -> None:
    daemon = sh("daemon", "a", "exec sleep 600")
    read, write = os.pipe()
    peer = socket.socket(socket.AF_UNIX)
    options: dict[str, Any] = {}
    if kind == "fd":
        lease, options = f"{{ fd = {read} }}", {"pass_fds": (read,)}
    elif kind == "unix":
        peer.bind(str(tmp_path / "peer"))
        peer.listen()
        lease = f"{{ connect = 'unix:{tmp_path}/peer' }}"
    else:
        lease = "{ renew = '1s' }"
    try:
        with running(tmp_path, f"[bundle]\nlease = {lease}\n" + daemon, **options) as init:
            init.event("child_ready", "a")
            if kind == "fd":
                os.close(write)
            elif kind == "unix":
                peer.accept()[0].close()
            assert init.wait() == 0
            assert init.report()["kind"] == "requested"
            assert "lease" in init.report()["cause"]
    finally:
        os.close(read)
        peer.close()
        if kind != "fd":
            os.close(write)


def test_a_hanging_exec_probe_is_killed(tmp_path: Path) -> None:
    """An exec probe that hangs is killed together with its tree."""
    check = "{ exec = ['sh', '-c', 'sleep 4343 & sleep 4343'], interval = '50ms', timeout = '200ms', retries = 2 }"
    with running(tmp_path, sh("daemon", "a", "exec sleep 600", f"health = {check}")) as init:
        init.event("child_unhealthy", "a")
        assert init.stop() == 0
        assert not [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if b"sleep\x004343" in read(entry)]


def test_a_stop_while_a_restart_is_due(tmp_path: Path) -> None:
    more = "policy = 'restart'\nbackoff = { initial = '300s', limit = '300s' }"
    with running(
        tmp_path, sh("daemon", "a", "exit 9", more) + sh("daemon", "b", "exec sleep 600", "after = ['a']")
    ) as init:
        init.event("child_restarting", "a")
        init.event("child_ready", "b")
        time.sleep(0.1)
        assert init.stop() == 0, "a death that a restart answered does not count"


def test_a_deadline_of_years(tmp_path: Path) -> None:
    check = "{ exec = ['true'], interval = '87600h' }"
    with running(tmp_path, sh("daemon", "a", "exec sleep 600", f"health = {check}")) as init:
        init.event("child_ready", "a")
        assert health(init) == "healthy"
        assert init.stop() == 0
