"""Contract 2 on the real kernel: what the bundle's exit code is."""

from __future__ import annotations

import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.support.init import Init, eventually, running, sh

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.real

FATAL = [
    number
    for number in sorted(signal.valid_signals())
    if number
    not in (
        signal.SIGCHLD,
        signal.SIGCONT,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGURG,
        signal.SIGWINCH,
    )
]


def code_of(tmp_path: Path, bundle: str, *options: str, pid_1: bool = False) -> int:
    """The exit code of a bundle that ends by itself."""
    tmp_path.mkdir(exist_ok=True)
    with running(tmp_path, bundle, *options, pid_1=pid_1) as init:
        return init.wait()


def has_state(pid: int, state: str) -> bool:
    """Whether a process sleeps (S), or has ended and waits for its reaper (Z)."""
    return f") {state} " in Path(f"/proc/{pid}/stat").read_text()


def test_a_job_hands_on_each_of_its_256_codes(tmp_path: Path) -> None:
    def one(code: int) -> int:
        return code_of(tmp_path / str(code), sh("job", "j", f"exit {code}"))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(256))) == list(range(256))


def test_any_fatal_signal_is_a_crash(tmp_path: Path) -> None:
    """A daemon killed by any fatal signal is a crash."""

    def one(number: int) -> int:
        return code_of(tmp_path / str(number), sh("daemon", "d", f"ulimit -c 0; kill -{number} $$; sleep 60"))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, FATAL)) == [128 + number for number in FATAL]


def test_a_daemon_that_ends_well_unasked_is_69(tmp_path: Path, pid_1: bool) -> None:
    assert code_of(tmp_path, sh("daemon", "d", "exit 0"), pid_1=pid_1) == 69


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_requested_stop_of_clean_children_is_0(tmp_path: Path, pid_1: bool, number: signal.Signals) -> None:
    bundle = (
        sh("daemon", "a", "exec sleep 600") + sh("daemon", "b", "exec sleep 600") + sh("job", "c", "exec sleep 600")
    )
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        init.event("child_ready", "b")
        assert init.stop(number) == 0


def test_an_own_143_nobody_asked_for_is_a_failure(tmp_path: Path) -> None:
    assert code_of(tmp_path, sh("daemon", "d", "exit 143")) == 143


def test_an_own_143_after_a_term_of_the_inits_is_clean(tmp_path: Path) -> None:
    bundle = sh("daemon", "d", "trap 'exit 143' TERM; echo up; while :; do sleep 0.05; done")
    with running(tmp_path, bundle) as init:
        init.line("[d] up")
        assert init.stop() == 0


def test_a_child_that_ignores_term_is_forced(tmp_path: Path, pid_1: bool) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    with running(tmp_path, sh("daemon", "d", script, 'stop_timeout = "300ms"'), pid_1=pid_1) as init:
        init.line("[d] up")
        assert init.stop() == 137
        assert init.report()["deaths"][0]["forced"] is True


def test_a_crash_during_the_stop_is_the_worst(tmp_path: Path) -> None:
    """A crash during the stop beats all other deaths."""
    bundle = (
        sh("daemon", "clean", "exec sleep 600")
        + sh("daemon", "fails", "trap 'exit 9' TERM; echo up1; while :; do sleep 0.05; done")
        + sh("daemon", "crashes", "ulimit -c 0; trap 'kill -SEGV $$' TERM; echo up2; while :; do sleep 0.05; done")
    )
    with running(tmp_path, bundle) as init:
        init.line("[fails] up1")
        init.line("[crashes] up2")
        assert init.stop() == 128 + signal.SIGSEGV


def test_the_cascade_never_changes_the_first_cause(tmp_path: Path, pid_1: bool) -> None:
    bundle = sh("daemon", "victim", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done") + sh(
        "daemon", "crasher", "while ! [ -e go ]; do sleep 0.02; done; exit 42", f"cwd = '{tmp_path}'"
    )
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        init.line("[victim] up")
        (tmp_path / "go").touch()
        assert init.wait() == 42
        assert init.report()["culprit"] == "crasher"


def test_simultaneous_deaths_are_judged_by_severity(tmp_path: Path) -> None:
    """Simultaneous deaths are judged by severity, not by the order in which they are reaped."""
    bundle = sh("daemon", "failure", "exec sleep 600") + sh("daemon", "crash", "exec sleep 600")
    with running(tmp_path, bundle) as init:
        init.event("child_ready", "failure")
        init.event("child_ready", "crash")
        pids = {e["child"]: e["pid"] for e in init.events if e["event"] == "child_started"}
        init.send(signal.SIGSTOP)
        os.kill(pids["crash"], signal.SIGUSR1)
        os.kill(pids["failure"], signal.SIGTERM)
        eventually(lambda: all(has_state(pid, "Z") for pid in pids.values()), "both deaths")
        init.send(signal.SIGCONT)
        # Both are crashes and so equal: the one declared first decides.
        assert init.wait() == 143


def by_signal(init: Init) -> None:
    init.send(signal.SIGTERM)


def by_the_control_socket(init: Init) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + init.control[1:])
        client.sendall(b"ctl stop\n")


@pytest.mark.parametrize("ask", [by_signal, by_the_control_socket])
def test_a_request_beside_a_death_came_first(tmp_path: Path, ask: Callable[[Init], None]) -> None:
    """A request in the same wake-up as a death is judged as if it had come first.

    It exits with 0 before it is asked; in a requested stop that is clean, and not 69.
    """
    with running(tmp_path, sh("daemon", "d", "trap 'exit 0' USR1; echo up; while :; do sleep 0.05; done")) as init:
        init.line("[d] up")
        pid = init.event("child_started", "d")["pid"]
        init.send(signal.SIGSTOP)
        os.kill(pid, signal.SIGUSR1)
        eventually(lambda: has_state(pid, "Z"), "its death")
        ask(init)
        init.send(signal.SIGCONT)
        assert init.wait() == 0
        assert init.report()["kind"] == "requested"


@pytest.mark.parametrize("ask", [None, by_signal])
def test_a_deadline_slept_through_comes_last(tmp_path: Path, ask: Callable[[Init], None] | None) -> None:
    """A deadline that passed while the init was stopped comes after everything else that happened.

    The wait that it was stopped in is over by then, and comes back with nothing (EINTR): it has to look again.
    """
    script = "trap 'exit 0' USR1; echo up; while :; do sleep 0.05; done"
    with running(tmp_path, sh("job", "j", script, "timeout = '1h'"), leaps=True) as init:
        init.line("[j] up")
        pid = init.event("child_started", "j")["pid"]
        eventually(lambda: has_state(init.pid, "S"), "its sleep")
        init.send(signal.SIGSTOP)
        if not ask:
            os.kill(pid, signal.SIGUSR1)
            eventually(lambda: has_state(pid, "Z"), "its death")
        if ask:
            ask(init)
        init.leap(3_600)
        assert init.wait() == 0


CRASHES_WHEN_ASKED = """
import os, resource, signal, socket, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[1:] * 2)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
init = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
init.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1))
question = listener.accept()[0]
for _ in range(15_000):
    try:
        os.open("/dev/null", os.O_RDONLY)
    except OSError:
        break
os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_a_crash_is_to_blame_for_a_broken_check(tmp_path: Path) -> None:
    """A crash is to blame, and not the check that it broke off.

    The kernel resets a crashed daemon's connections some time before it can be reaped: two wake-ups.
    """
    program = tmp_path / "crashes.py"
    program.write_text(CRASHES_WHEN_ASKED)

    def one(number: int) -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        bundle = (
            f"[daemons.d]\ncommand = ['{sys.executable}', '{program}', '{port}']\n"
            "ready = { notify = true }\non_unhealthy = 'stop'\n"
            f"health = {{ http = 'http://127.0.0.1:{port}/', interval = '1s', retries = 1 }}"
        )
        return code_of(tmp_path / str(number), bundle)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(4))) == [128 + signal.SIGSEGV] * 4


def test_a_job_that_succeeds_ends_the_bundle_with_0(tmp_path: Path, pid_1: bool) -> None:
    bundle = sh("daemon", "d", "exec sleep 600") + sh("job", "j", "exit 0", "after = ['d']")
    assert code_of(tmp_path, bundle, pid_1=pid_1) == 0


def test_success_codes(tmp_path: Path) -> None:
    assert code_of(tmp_path, sh("job", "j", "exit 5", "success_codes = [5]")) == 0
    assert code_of(tmp_path, sh("job", "j", "kill -TERM $$", "success_codes = [143]")) == 0


@pytest.mark.parametrize(
    ("command", "more", "code"),
    [
        ("['/does/not/exist']", "", 127),
        ("['no-such-command-anywhere']", "", 127),
        ("['/etc/passwd']", "", 126),
        ("['/']", "", 126),
        ("['true']", "cwd = '/does/not/exist'", 126),
        ("['true']", "env_files = ['/does/not/exist']", 126),
    ],
)
@pytest.mark.parametrize("kind", ["daemon", "job", "oneshot"])
def test_what_cannot_be_executed(tmp_path: Path, kind: str, command: str, more: str, code: int) -> None:
    bundle = f"[{kind}s.x]\ncommand = {command}\n{more}\n" + sh("daemon", "d", "exec sleep 600")
    with running(tmp_path, bundle) as init:
        assert init.wait() == code
        assert init.report()["culprit"] == "x"


def test_a_corrupt_and_a_busy_program_are_126(tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt"
    corrupt.write_bytes(b"\x7fELF" + bytes(200))
    corrupt.chmod(0o755)
    assert code_of(tmp_path, f"[daemons.x]\ncommand = ['{corrupt}']") == 126
    busy = tmp_path / "busy"
    busy.write_bytes(Path("/bin/true").read_bytes())
    busy.chmod(0o755)
    with busy.open("ab"):
        assert code_of(tmp_path, f"[daemons.x]\ncommand = ['{busy}']") == 126


def test_a_failed_oneshot_stops_everything(tmp_path: Path) -> None:
    """A oneshot that fails stops everything with its code."""
    bundle = (
        sh("oneshot", "o", "exit 7")
        + sh("daemon", "after", "echo never", "after = ['o']")
        + sh("daemon", "beside", "exec sleep 600")
    )
    with running(tmp_path, bundle) as init:
        assert init.wait() == 7
        assert ("child_started", "after") not in init.names()


def test_a_job_past_its_timeout_counts_as_forced(tmp_path: Path) -> None:
    assert code_of(tmp_path, sh("job", "j", "trap 'exit 0' TERM; sleep 60 & wait", "timeout = '200ms'")) == 137


def test_exit_code_from_overrides_all_other_rules(tmp_path: Path) -> None:
    head = "[bundle]\nexit_code_from = 'told'\n"
    told = sh("daemon", "told", "exec sleep 600")
    bundle = head + told + sh("daemon", "other", "sleep 0.2; exit 9")
    assert code_of(tmp_path, bundle) == 0
    head = "[bundle]\nexit_code_from = 'never'\n"
    bundle = head + sh("daemon", "never", "true", "after = ['o']") + sh("oneshot", "o", "exit 3")
    assert code_of(tmp_path, bundle) == 69


def test_wait_for_all_is_the_worst_of_all_deaths(tmp_path: Path, pid_1: bool) -> None:
    bundle = sh("daemon", "a", "exit 0") + sh("daemon", "b", "exit 4") + sh("daemon", "c", "sleep 0.2; exit 0")
    assert code_of(tmp_path, bundle, "--policy=wait-for-all", pid_1=pid_1) == 4


def test_wait_for_all_deaths_count_in_a_requested_stop(tmp_path: Path) -> None:
    bundle = sh("daemon", "a", "exit 4") + sh("daemon", "b", "exec sleep 600")
    with running(tmp_path, bundle, "--policy=wait-for-all") as init:
        init.event("child_exited", "a")
        init.event("child_ready", "b")
        assert init.stop() == 4


def test_exit_on_child_failure_lets_successes_go(tmp_path: Path) -> None:
    policy = "--policy=exit-on-child-failure"
    assert code_of(tmp_path, sh("daemon", "a", "exit 0") + sh("daemon", "b", "exit 0"), policy) == 0
    assert code_of(tmp_path, sh("daemon", "a", "exit 0") + sh("daemon", "b", "sleep 0.2; exit 4"), policy) == 4


def test_a_budget_used_up_is_the_last_deaths_code(tmp_path: Path) -> None:
    script = "echo x >> runs; exit $(wc -l < runs)"
    more = (
        f"cwd = '{tmp_path}'\nbackoff = {{ initial = '10ms', factor = 1.0, limit = '10ms' }}\nrestarts = {{ max = 3 }}"
    )
    assert code_of(tmp_path, sh("daemon", "d", script, more), "--policy=restart") == 4
    assert (tmp_path / "runs").read_text() == "x\n" * 4


def test_a_budget_used_up_by_successes_is_69(tmp_path: Path) -> None:
    more = "backoff = { initial = '1ms', factor = 1.0, limit = '1ms' }\nrestarts = { max = 2, window = '60s' }"
    assert code_of(tmp_path, sh("daemon", "d", "exit 0", more), "--policy=restart") == 69


def test_restart_on_failure_ends_well_after_a_success(tmp_path: Path) -> None:
    script = "echo x >> runs; [ $(wc -l < runs) -ge 3 ]"
    more = f"cwd = '{tmp_path}'\nbackoff = {{ initial = '10ms' }}"
    assert code_of(tmp_path, sh("daemon", "d", script, more), "--policy=restart-on-failure") == 0
    assert (tmp_path / "runs").read_text() == "x\n" * 3


def test_an_awaited_daemon_ends_before_ready(tmp_path: Path) -> None:
    """A daemon that others wait for and that ends before it is ready is a policy stop."""
    waiter = sh("daemon", "waiter", "exec sleep 600", "after = ['d']")
    d = sh("daemon", "d", "exit 0", "ready = { tcp = 9 }\npolicy = 'exit-on-child-failure'")
    assert code_of(tmp_path, d + waiter) == 69
    d = sh("daemon", "d", "exit 5", "ready = { tcp = 9 }\npolicy = 'wait-for-all'")
    assert code_of(tmp_path, d + waiter) == 5


def test_a_missed_readiness_deadline_is_69(tmp_path: Path) -> None:
    bundle = sh("daemon", "d", "exec sleep 600", "ready = { tcp = 9, timeout = '300ms' }")
    assert code_of(tmp_path, bundle) == 69
