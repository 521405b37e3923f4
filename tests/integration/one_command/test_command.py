"""One command under the init: its code, its signals, its inheritance (contract 5)."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.support.init import PATIENCE_S, PYTHON, ROOT, eventually
from tests.integration.support.one_command import ENVIRON, one, python, run, running, state, status

pytestmark = pytest.mark.real

NOT_FATAL = {
    *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH),
    *(signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
}
FATAL = sorted(set(signal.valid_signals()) - NOT_FATAL)
JOB_CONTROL = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
PASSED_ON = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD} - JOB_CONTROL)

# Prints the number of each signal that it gets; USR2 is the last.
LISTEN = """
import _signal, sys
every = _signal.valid_signals()
_signal.pthread_sigmask(_signal.SIG_BLOCK, every)
print("ready", flush=True)
while (number := _signal.sigwait(every)) != _signal.SIGUSR2:
    print(number, flush=True)
"""

# The same, with a child in the same group; both print who they are, and the child what it has not received.
FAMILY = """
import _signal, os, sys
_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
child = os.fork()
if child == 0:
    _signal.sigwait([_signal.SIGUSR2])
    print("child", sorted(map(int, _signal.sigpending())), flush=True)
    os._exit(0)
print("ready", flush=True)
print("parent", _signal.sigwait([_signal.SIGUSR1]).real, flush=True)
os.kill(child, _signal.SIGUSR2)
os.waitpid(child, 0)
"""


@pytest.fixture(params=[False, True], ids=["subreaper", "pid1"])
def pid_1(request: pytest.FixtureRequest) -> bool:
    """Both places that an init can have."""
    return bool(request.param)


def test_each_of_the_256_codes_is_handed_on(pid_1: bool) -> None:
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda code: run("sh", "-c", f"exit {code}", pid_1=pid_1), range(256)))
    assert [end.returncode for end in ends] == list(range(256))
    assert {end.stderr for end in ends} == {""}


def test_a_killed_command_gives_128_plus_the_signal(pid_1: bool) -> None:
    """A command killed by a signal gives 128 plus its number."""
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda number: run("sh", "-c", f"kill -{int(number)} $$", pid_1=pid_1), FATAL))
    assert [end.returncode for end in ends] == [128 + number for number in FATAL]


def test_what_cannot_be_run_gives_a_shells_codes(tmp_path: Path, pid_1: bool) -> None:
    """What cannot be run gives a shell's codes and one line that says why."""
    plain = tmp_path / "plain"
    plain.write_text("")
    orphaned, binary = tmp_path / "orphaned", tmp_path / "binary"
    orphaned.write_text("#!/nonexistent/interpreter\n")
    binary.write_bytes(b"\x7fELF\0\0\n")
    for path in (orphaned, binary):
        path.chmod(0o755)
    missing = [("/nonexistent/program", 127), ("no-such-program", 127), ("", 127), ("x" * 300, 127)]
    refused = [(str(plain), 126), ("/", 126), (str(binary), 126), ("/" + "x" * 300, 126), (str(orphaned), 127)]
    for command, code in missing + refused:
        end = run(command, pid_1=pid_1)
        assert end.returncode == code
        assert end.stdout == ""
        assert end.stderr.startswith(f"bottle-init: {command}: ")
        assert end.stderr.count("\n") == 1


def test_a_script_without_a_first_line_is_a_shells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As execvp(3) and every shell have it; what has no line at all is one that succeeds."""
    script, empty = tmp_path / "script", tmp_path / "empty"
    script.write_text('echo "$0 $*"; exit 9')
    empty.write_text("")
    for path in (script, empty):
        path.chmod(0o755)
    monkeypatch.setitem(ENVIRON, "PATH", f"{tmp_path}:{ENVIRON['PATH']}")
    for command in (str(script), "script"):
        end = run(command, "a", "b")
        assert (end.returncode, end.stdout, end.stderr) == (9, f"{script} a b\n", "")
    assert run("empty").returncode == 0


def test_a_code_that_is_mapped_becomes_0() -> None:
    options = ["--map-exit=143", "--map-exit=7"]
    assert run("sh", "-c", "exit 7", options=options).returncode == 0
    assert run("sh", "-c", "kill $$", options=options).returncode == 0
    assert run("sh", "-c", "exit 8", options=options).returncode == 8


def test_every_catchable_signal_is_passed_on(pid_1: bool) -> None:
    """Every signal that can be caught reaches the command."""
    with running(*python(LISTEN), pid_1=pid_1) as it:
        assert it.line() == "ready"
        for number in (number for number in PASSED_ON if number != signal.SIGUSR2):
            it.send(number)
            assert it.line() == str(int(number))
        it.send(signal.SIGUSR2)
        assert it.wait() == 0


def test_nothing_escalates_while_the_command_lives(pid_1: bool) -> None:
    with running(*python(LISTEN), pid_1=pid_1) as it:
        assert it.line() == "ready"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGTERM):
            it.send(number)
            assert it.line() == str(int(number))
        it.send(signal.SIGUSR2)
        assert it.wait() == 0


def test_a_fatal_term_is_the_commands_code(pid_1: bool) -> None:
    """A TERM that the command dies of is the command's own code."""
    with running("sh", "-c", "echo ready; exec sleep 1000", pid_1=pid_1) as it:
        assert it.line() == "ready"
        it.send(signal.SIGTERM)
        assert it.wait() == 143


def test_a_signal_at_the_start_is_not_lost() -> None:
    """A signal that comes with the start is not lost.

    It may come before the interpreter is ready for it, or before the command has its group: 143 in every case.
    """
    for _ in range(50):
        with running("sleep", "1000") as it:
            it.send(signal.SIGTERM)
            assert it.wait() == 143


# An init whose child takes its time before it becomes the leader of a group.
SLOW_CHILD = """
import posix, sys, time
from bottle_init.cli.main import main
from bottle_init.linux.one import Command
become = Command._become
def slowly(self, *arguments, **facts):
    posix.write(1, b"forked\\n")
    time.sleep(1)
    become(self, *arguments, **facts)
Command._become = slowly
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_before_the_group_is_not_lost(number: int) -> None:
    """A signal that comes before the command has its own group is not lost."""
    init = [sys.executable, "-S", "-c", SLOW_CHILD]
    with running("sleep", "1000", init=init, cwd=ROOT) as it:
        assert it.line() == "forked"
        it.send(number)
        assert it.wait() == 128 + number


def test_the_whole_group_gets_a_signal() -> None:
    with running(*python(FAMILY)) as it:
        assert it.line() == "ready"
        it.send(signal.SIGUSR1)
        assert it.line() == f"parent {int(signal.SIGUSR1)}"
        assert it.line() == f"child [{int(signal.SIGUSR1)}]"
        assert it.wait() == 0


def test_a_single_child_gets_it_alone() -> None:
    with running(*python(FAMILY), options=["--single-child"]) as it:
        assert it.line() == "ready"
        it.send(signal.SIGUSR1)
        assert it.line() == f"parent {int(signal.SIGUSR1)}"
        assert it.line() == "child []"
        assert it.wait() == 0


def test_the_command_has_its_own_session() -> None:
    """The command has a new session, unless it is a single child."""
    script = "import os; print(os.getsid(0) == os.getpid() == os.getpgrp(), os.getsid(0) == os.getsid(os.getppid()))"
    assert run(*python(script)).stdout == "True False\n"
    assert run(*python(script), options=["--single-child"]).stdout == "False True\n"


def test_signals_are_rewritten_and_dropped() -> None:
    options = ["--rewrite=TERM:USR1", "--rewrite", "HUP:0", "--rewrite=INT:2"]
    with running(*python(LISTEN), options=options) as it:
        assert it.line() == "ready"
        for sent, got in (
            (signal.SIGTERM, signal.SIGUSR1),
            (signal.SIGHUP, None),
            (signal.SIGINT, signal.SIGINT),
        ):
            it.send(sent)
            if got is not None:
                assert it.line() == str(int(got))
        it.send(signal.SIGUSR2)
        assert it.wait() == 0


def test_a_stop_of_job_control_counts_as_it_came(pid_1: bool) -> None:
    """The init stops itself for it also where the command gets something else, as dumb-init does; PID 1 never does."""
    options = ["--rewrite=TSTP:WINCH", "--rewrite=TTIN:0"]
    with running(*python(LISTEN), options=options, pid_1=pid_1) as it:
        assert it.line() == "ready"
        it.send(signal.SIGTTIN)
        it.send(signal.SIGURG)
        assert it.line() == str(int(signal.SIGURG))
        assert state(it.init) != "T", "what is dropped stops nobody"
        it.send(signal.SIGTSTP)
        assert it.line() == str(int(signal.SIGWINCH))
        if pid_1:
            assert state(it.init) != "T"
        else:
            eventually(lambda: state(it.init) == "T", "a stopped init")
        it.send(signal.SIGCONT)
        assert it.line() == str(int(signal.SIGCONT))
        it.send(signal.SIGUSR2)
        assert it.wait() == 0


SHOW_PIDS = """
import os
print(os.getpid(), *(os.environ.get(name) for name in ("LISTEN_PID", "LISTEN_PIDFDID", "WATCHDOG_PID", "LISTEN_FDS")))
"""


def test_what_names_the_inits_pid_names_the_commands(pid_1: bool) -> None:
    """A command that asks by sd_listen_fds(3) or sd_watchdog_enabled(3) takes only what names its own pid."""
    set_up = 'LISTEN_PID=$$ LISTEN_PIDFDID=7 WATCHDOG_PID=$$ LISTEN_FDS=1 exec "$@"'
    with running(*python(SHOW_PIDS), init=["sh", "-c", set_up, "sh", *PYTHON], pid_1=pid_1) as it:
        pid, *shown = it.line().split()
        assert shown == [pid, "None", pid, "1"]
        assert it.wait() == 0


def test_what_names_another_pid_is_passed_on() -> None:
    given = {"LISTEN_PID": "1000000000", "LISTEN_PIDFDID": "7", "WATCHDOG_PID": "1000000000", "LISTEN_FDS": "1"}
    end = run(*python(SHOW_PIDS), env={**ENVIRON, **given})
    assert end.stdout.split()[1:] == ["1000000000", "7", "1000000000", "1"]


def test_the_parents_death_is_passed_on(tmp_path: Path) -> None:
    """A shell starts the init and is killed; the command prints what it got."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = one(*python(LISTEN), options=["--parent-death-signal=USR1"])
    parent = subprocess.Popen(["sh", "-c", '"$@" >"$0" & wait', str(pipe), *command], env=ENVIRON)
    with pipe.open() as told:
        assert told.readline() == "ready\n"
        init = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text())
        parent.kill()
        parent.wait()
        assert told.readline() == f"{int(signal.SIGUSR1)}\n"
        os.kill(init, signal.SIGUSR2)
        assert told.read() == ""


def test_a_parents_death_by_kill_ends_the_command(tmp_path: Path) -> None:
    """A parent-death signal that cannot be caught ends the command too."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = one("sh", "-c", "echo $$; exec sleep 1000", options=["--parent-death-signal=KILL"])
    parent = subprocess.Popen(["sh", "-c", '"$@" >"$0" & wait', str(pipe), *command], env=ENVIRON)
    with pipe.open() as told:
        pid = int(told.readline())
        parent.kill()
        parent.wait()
        eventually(lambda: state(pid) in ("", "Z"), "the end of the command")


# What is inherited.


def signal_lines(prepare: str, options: list[str]) -> dict[str, str]:
    """The signal state of a command whose init was started after `prepare` had been executed."""
    start = f"import os, signal, sys; {prepare}; os.execv(sys.argv[1], sys.argv[1:])"
    command = [*python(start), *one("cat", "/proc/self/status", options=options)]
    told = subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
    lines = dict(line.split(":\t") for line in told.splitlines() if line.startswith("Sig"))
    return {key: f"{int(lines[key], 16) & ~GLIBCS_OWN:016x}" for key in ("SigBlk", "SigIgn", "SigCgt")}


# 32 and 33 are glibc's own, which sigaction(2) by glibc refuses to touch; whatever its posix_spawn has started, as make
# starts its recipes, inherits them ignored.
GLIBCS_OWN = 1 << 31 | 1 << 32


def bits(*numbers: int) -> str:
    return f"{sum(1 << (number - 1) for number in numbers):016x}"


DEFAULT = "signal.signal(signal.SIGPIPE, 0); signal.signal(signal.SIGXFSZ, 0)"
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGCHLD, signal.SIGTTOU, 40)
BLOCKED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, 50)


@pytest.mark.parametrize("options", [[], ["--single-child"]], ids=["group", "single"])
def test_default_dispositions_and_an_empty_mask(options: list[str]) -> None:
    """The command starts with default dispositions and an empty mask."""
    assert signal_lines(DEFAULT, options) == {"SigBlk": bits(), "SigIgn": bits(), "SigCgt": bits()}


@pytest.mark.parametrize("options", [[], ["--single-child"]], ids=["group", "single"])
def test_the_command_inherits_signal_state(options: list[str]) -> None:
    """The command starts with the dispositions and the mask that the init inherited.

    But for PIPE and XFSZ, which the interpreter has overwritten.
    """
    prepare = (
        f"[signal.signal(number, signal.SIG_IGN) for number in {[int(number) for number in IGNORED]}]; "
        f"signal.pthread_sigmask(signal.SIG_BLOCK, {[int(number) for number in BLOCKED]}); "
        "signal.signal(signal.SIGPIPE, 1); signal.signal(signal.SIGXFSZ, 1)"
    )
    assert signal_lines(prepare, options) == {"SigBlk": bits(*BLOCKED), "SigIgn": bits(*IGNORED), "SigCgt": bits()}


def test_the_code_is_right_even_where_chld_was_ignored() -> None:
    """An ignored CHLD makes the kernel reap by itself: the status would be lost."""
    start = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    end = subprocess.run([*python(start), *one("sh", "-c", "exit 5")], env=ENVIRON, timeout=PATIENCE_S, check=False)
    assert end.returncode == 5


def test_the_command_gets_the_inits_descriptors() -> None:
    """The command gets the descriptors that the init was given, and no others."""
    extra, other = os.pipe()
    listing = ["sh", "-c", "ls /proc/self/fd"]
    try:
        for given in ((), (extra,)):
            bare = subprocess.run(listing, capture_output=True, text=True, pass_fds=given, check=True).stdout
            assert run(*listing, pass_fds=given).stdout == bare
            assert (str(extra) in bare.split()) == bool(given)
    finally:
        os.close(extra)
        os.close(other)


def test_the_init_does_not_hold_what_it_has_passed_on() -> None:
    """A reader sees the end of a pipe when the command closes it, not only when the init ends."""
    reader, writer = os.pipe()
    with running("bash", "-c", f"echo hello >&{writer}; exec {writer}>&-; read line", pass_fds=(writer,)) as it:
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as told:
            assert told.readline() == b"hello\n"
            assert select.select([told], [], [], PATIENCE_S)[0], "no end was seen"
            assert told.read() == b""
        it.tell("end")
        assert it.wait() == 0


def test_descriptors_that_were_closed_stay_closed() -> None:
    closed = ["sh", "-c", '"$@" 0<&- 2>&-', "sh"]
    seen = "import os; print([fd for fd in range(3) if os.path.exists(f'/proc/self/fd/{fd}')])"
    script = f'exec {sys.executable} -I -S -c "{seen}"'
    bare = subprocess.run([*closed, "sh", "-c", script], capture_output=True, text=True, check=True).stdout
    end = subprocess.run([*closed, *one("sh", "-c", script)], capture_output=True, text=True, env=ENVIRON, check=True)
    assert end.stdout == bare


def test_the_command_starts_where_the_init_was(tmp_path: Path) -> None:
    """The command starts where the init was started, and the init keeps no filesystem busy."""
    with running("sh", "-c", "pwd; read line", cwd=tmp_path) as it:
        assert it.line() == str(tmp_path)
        eventually(lambda: os.readlink(f"/proc/{it.init}/cwd") == "/", "the init's change to /")
        it.tell("end")
        assert it.wait() == 0


def test_the_environment_is_the_one_that_was_given() -> None:
    """The interpreter adds LC_CTYPE to its own in the C locale (PEP 538)."""
    environ = {"A": "b", "NOTIFY_SOCKET": "@kept", "PYTHONPATH": ENVIRON["PYTHONPATH"]}
    command = [*PYTHON, "--", "/usr/bin/env"]
    told = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
    assert dict(line.split("=", 1) for line in told.splitlines()) == environ
    for locale in ("C.UTF-8", "C", ""):
        told = run("/usr/bin/env", env={**environ, "LC_CTYPE": locale}).stdout
        assert f"LC_CTYPE={locale}" in told.splitlines()


def test_a_variable_without_a_name() -> None:
    """A variable without a name does not prevent the start. The interpreter can pass on none."""
    end = run("/usr/bin/env", env={"": "value", "A": "b", "PYTHONPATH": ENVIRON["PYTHONPATH"]})
    assert end.returncode == 0, end.stderr
    assert "A=b" in end.stdout.splitlines()


def test_words_that_are_no_utf_8_arrive_as_they_were() -> None:
    command = [word.encode() for word in one("printf", "%s")]
    end = subprocess.run([*command, b"\xff\xfe"], env=ENVIRON, capture_output=True, timeout=PATIENCE_S, check=True)
    assert end.stdout == b"\xff\xfe"


def test_words_in_a_single_byte_locale(tmp_path: Path) -> None:
    """In a locale of single bytes words arrive as they were.

    There the interpreter decodes them by that locale, and not as UTF-8.
    """
    if shutil.which("localedef") is None:
        pytest.skip("no localedef(1) to make a locale with")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / "de_DE.ISO-8859-1")],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("the sources of that locale are not installed")
    environ = {**ENVIRON, "LOCPATH": str(tmp_path), "LC_ALL": "de_DE.ISO-8859-1"}
    command = [word.encode() for word in one("printf", "%s")]
    end = subprocess.run([*command, b"\xe4\xff"], env=environ, capture_output=True, timeout=PATIENCE_S, check=True)
    assert end.stdout == b"\xe4\xff"


def test_nothing_is_needed_of_dev() -> None:
    for redirections in ("", "0<&- 1>&-"):
        script = f'mount -t tmpfs none /dev; exec "$@" {redirections}'
        command = ["unshare", "--mount", "sh", "-c", script, "sh", *one("sh", "-c", "exit 7")]
        end = subprocess.run(command, env=ENVIRON, capture_output=True, timeout=PATIENCE_S, check=False)
        assert (end.returncode, end.stderr) == (7, b"")


def test_the_init_sleeps_until_a_signal_comes() -> None:
    with running("sh", "-c", "echo ready; exec sleep 1000") as it:
        assert it.line() == "ready"
        eventually(lambda: os.readlink(f"/proc/{it.init}/cwd") == "/" and state(it.init) == "S")
        time.sleep(0.2)
        before = status(it.init, "voluntary_ctxt_switches")
        time.sleep(1)
        assert status(it.init, "voluntary_ctxt_switches") == before
        it.send(signal.SIGTERM)
        assert it.wait() == 143


# The control socket, if it is asked for.


def test_control_of_one_command(tmp_path: Path) -> None:
    """With a control socket a single command can be asked about and ordered about."""
    address = f"@one-{os.getpid()}-{tmp_path.name}"

    def client(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*PYTHON, *words, f"--control={address}"]
        return subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    with running(*python(LISTEN), options=[f"--control={address}"]) as it:
        name = Path(sys.executable).name
        assert it.line() == "ready"
        eventually(lambda: client("health").returncode == 0, "an answer")
        assert client("health").stdout == "healthy\n"
        assert str(it.command) in client("status", "--json").stdout
        assert client("ctl", "signal", name, "HUP").returncode == 0
        assert it.line() == str(int(signal.SIGHUP))
        for refused in (("restart", name), ("start", name), ("renew",)):
            assert client("ctl", *refused).returncode == 1
        it.send(signal.SIGWINCH)
        assert it.line() == str(int(signal.SIGWINCH)), "signals are passed on all the same"
        assert client("ctl", "stop").returncode == 0
        assert it.line() == str(int(signal.SIGTERM))
        assert client("health").stdout.startswith("stopping\n")
        it.send(signal.SIGUSR2)
        assert it.wait() == 0


def test_no_control_socket_by_default() -> None:
    """There is no control socket unless it is asked for."""
    with running(*python(LISTEN), env={"BOTTLE_INIT_CONTROL": f"@one-{os.getpid()}"}) as it:
        assert it.line() == "ready"
        assert f"@one-{os.getpid()}" not in Path("/proc/net/unix").read_text()
        it.send(signal.SIGUSR2)
        assert it.wait() == 0


def test_a_relative_control_socket(tmp_path: Path) -> None:
    """A relative control socket is created where the init was started."""
    with running(*python(LISTEN), options=["--control=one.sock"], cwd=tmp_path) as it:
        assert it.line() == "ready"
        eventually((tmp_path / "one.sock").is_socket, "the socket")
        it.send(signal.SIGUSR2)
        assert it.wait() == 0
        assert not (tmp_path / "one.sock").exists()


def test_a_failed_control_socket_is_not_fatal(tmp_path: Path) -> None:
    """A control socket that cannot be had is reported and is not fatal."""
    end = run("sh", "-c", "exit 4", options=[f"--control={tmp_path}/missing/socket"])
    assert end.returncode == 4
    assert end.stderr.startswith("bottle-init: control socket ")


def test_an_internal_error_gives_70() -> None:
    """An error inside the init ends the command and gives 70."""
    broken = (
        "import sys\n"
        "from bottle_init.cli.main import main\n"
        "from bottle_init.linux.one import Command\n"
        "def fail(self): raise RuntimeError('a bug')\n"
        "Command._supervise = fail\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    with running("sleep", "1000", init=[sys.executable, "-S", "-c", broken], cwd=ROOT, stderr=subprocess.PIPE) as it:
        assert it.wait() == 70
        assert it.process.stderr is not None
        assert "a bug" in it.process.stderr.read()


def test_a_stalled_stderr_holds_up_no_end(tmp_path: Path) -> None:
    """A reader of stderr that stalls does not hold up the end.

    The init has something to say there: that it cannot write the report.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4_096)
    os.set_blocking(writer, True)
    with subprocess.Popen(one("true", options=[f"--report={tmp_path}/no/report"]), env=ENVIRON, stderr=writer) as init:
        try:
            assert init.wait(PATIENCE_S) == 0
        finally:
            init.kill()
            os.close(reader)
            os.close(writer)
