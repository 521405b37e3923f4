"""What a child finds when its program begins (contract 5 and 9), read by the child itself."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bottle_init.linux.sys import environ
from tests.integration.support.init import MAIN, eventually, running, sh

pytestmark = pytest.mark.real

TELL = """
import json, os, resource
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps({
    "status": {key: value.strip() for key, value in status.items()},
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
    "stdin": os.readlink("/proc/self/fd/0"),
    "cwd": os.getcwd(), "sid": os.getsid(0), "pid": os.getpid(), "pgid": os.getpgid(0),
    "env": dict(os.environ), "nice": os.nice(0), "groups": os.getgroups(), "uid": os.getuid(), "gid": os.getgid(),
    "oom": open("/proc/self/oom_score_adj").read().strip(),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
}))
"""


def told(tmp_path: Path, more: str = "", **options: Any) -> dict[str, Any]:
    """What the one child of a bundle says of itself."""
    bundle = f"[jobs.j]\ncommand = ['/usr/bin/python3', '-S', '-E', '-c', '''{TELL}''']\n{more}\n"
    with running(tmp_path, bundle, **options) as init:
        code = init.wait()
        assert code == 0, (init.out, init.err)
        return dict(json.loads(init.out[0].removeprefix("[j] ")))


def test_default_dispositions_and_an_empty_mask(tmp_path: Path) -> None:
    """A child starts with default dispositions and an empty mask, whatever the init inherited."""

    def taint() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        # 32 and 33 are the C library's own; make, for one, starts its recipes with both ignored.
        ignore = (1).to_bytes(8, "little") + bytes(24)
        for number in (32, 33):
            ctypes.CDLL(None).syscall({"x86_64": 13, "aarch64": 134}[os.uname().machine], number, ignore, None, 8)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})

    status = told(tmp_path, preexec_fn=taint)["status"]
    assert int(status["SigBlk"], 16) == 0
    # The interpreter of the child ignores PIPE and XFSZ and catches INT itself.
    assert int(status["SigIgn"], 16) & ~(1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)) == 0


def test_own_session_and_own_descriptors(tmp_path: Path) -> None:
    """A child has a new session, and no descriptors but its own."""
    leak = os.open("/etc/passwd", os.O_RDONLY)
    try:
        child = told(tmp_path, pass_fds=(leak,))
    finally:
        os.close(leak)
    assert child["sid"] == child["pid"] == child["pgid"]
    assert child["fds"] == [0, 1, 2]
    assert child["stdin"] == "/dev/null"


def test_children_inherit_the_directory_of_the_start(tmp_path: Path) -> None:
    """A child starts where the init was started; the init itself is in the root directory."""
    assert told(tmp_path, cwd=tmp_path)["cwd"] == str(tmp_path)
    with running(tmp_path, "[daemons.d]\ncommand = ['sleep', '600']\n", cwd=tmp_path) as init:
        init.event("child_ready")
        assert Path(f"/proc/{init.pid}/cwd").readlink() == Path("/")
        assert init.stop() == 0


def test_a_forbidden_directory_is_inherited(tmp_path: Path) -> None:
    """The directory is inherited even by a user who may not enter it."""
    start = tmp_path / "start"
    start.mkdir(mode=0o700)
    assert told(tmp_path, "user = 'nobody'", cwd=start)["cwd"] == str(start)


def test_relative_paths_start_where_the_init_did(tmp_path: Path) -> None:
    """Relative paths are resolved from the directory where the init was started."""
    (tmp_path / "below").mkdir()
    (tmp_path / "child.env").write_text("A=relative\n")
    child = told(tmp_path, "cwd = 'below'\nenv_files = ['child.env']", cwd=tmp_path)
    assert child["cwd"] == str(tmp_path / "below")
    assert child["env"]["A"] == "relative"


@pytest.mark.parametrize("key", ["cwd", "env_files"])
def test_a_missing_path_is_a_death_with_126(tmp_path: Path, key: str) -> None:
    """What is missing when the child starts makes it a death with 126, whose detail names it."""
    missing = tmp_path / "missing"
    bundle = f"[jobs.j]\ncommand = ['true']\n{key} = {[str(missing)] if key == 'env_files' else repr(str(missing))}\n"
    with running(tmp_path, bundle) as init:
        assert init.wait() == 126
        assert init.report()["deaths"][0]["code"] == 126
        assert init.event("child_exited")["detail"] == f"{key}: {missing}: No such file or directory"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"A=1\nexport TOKEN=s3cret\n", "line 2 begins with export"),
        (b"TOKEN =s3cret\n", "line 1 has a name that is not of letters"),
        (b"#\n\n1K=s3cret\n", "line 3 has a name that is not of letters"),
        (b"=s3cret\n", "line 1 has a name that is not of letters"),
        ("KÜCHE=s3cret\n".encode(), "line 1 has a name that is not of letters"),
        (b"s3cret\n", "line 1 is not of the form NAME=VALUE"),
        (b"A=s3cret\0\n", "line 1 has a NUL byte in its value"),
    ],
)
def test_no_line_of_an_env_file_is_lost(tmp_path: Path, text: bytes, line: str) -> None:
    """A line that sets no variable is a death with 126 that names file and line, and shows nothing of it."""
    path = tmp_path / "child.env"
    path.write_bytes(text)
    with running(tmp_path, f"[jobs.j]\ncommand = ['true']\nenv_files = ['{path}']\n") as init:
        assert init.wait() == 126
        detail = init.event("child_exited")["detail"]
        assert detail.startswith(f"env_files: {path}: {line}")
        assert "s3cret" not in detail


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "child.env"
    path.write_bytes(b"\xef\xbb\xbfFIRST=1\r\nSECOND=2\r\n")
    env = told(tmp_path, f"env_files = ['{path}', '/dev/null']")["env"]
    assert (env["FIRST"], env["SECOND"]) == ("1", "2")


@pytest.mark.parametrize("kind", ["pipe", "directory", "/dev/zero"])
def test_an_env_file_is_a_file(tmp_path: Path, kind: str) -> None:
    """What is neither a regular file nor /dev/null is a death with 126; a pipe without a writer is not waited for."""
    path = tmp_path / "strange"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path = Path(kind)
    with running(tmp_path, f"[jobs.j]\ncommand = ['true']\nenv_files = ['{path}']\n") as init:
        assert init.wait() == 126
        assert init.event("child_exited")["detail"] == f"env_files: {path}: is no regular file"


def test_what_a_manager_told_the_init_is_the_inits(tmp_path: Path) -> None:
    """Variables that a service manager set for the init do not reach children, unless the bundle file sets them."""
    names = [
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_PID",
        "LISTEN_PIDFDID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
    ]
    given = {**dict.fromkeys(names, "1"), "LISTEN_PORT": "80"}
    env = told(tmp_path, "env = { LISTEN_FDS = '3' }", env=given)["env"]
    assert {name: env.get(name) for name in names} == {**dict.fromkeys(names), "LISTEN_FDS": "3"}
    assert env["LISTEN_PORT"] == "80"


def test_one_child_may_have_the_inits_stdin(tmp_path: Path) -> None:
    """With `stdin = "inherit"` a child reads what the init was given; its probes and all others have /dev/null."""
    given = tmp_path / "given"
    given.write_text("data\n")
    bundle = (
        "[jobs.a]\ncommand = ['cat']\nafter = ['d']\nstdin = 'inherit'\n"
        "[daemons.d]\ncommand = ['/bin/sh', '-c', 'readlink /proc/self/fd/0; exec sleep 600']\n"
        "ready = { exec = ['/bin/sh', '-c', 'test $(readlink /proc/self/fd/0) = /dev/null'] }\n"
    )
    with given.open() as stdin, running(tmp_path, bundle, stdin=stdin) as init:
        assert init.wait() == 0
        assert sorted(init.out) == ["[a] data", "[d] /dev/null"]


ADD_LATE = "echo late:x:4321:4322::/home/late:/bin/sh >> /etc/passwd; echo later:x:4323: >> /etc/group"


def with_copies(tmp_path: Path) -> tuple[str, ...]:
    """The words before a command that gives it users and groups of its own to change."""
    for name in ("passwd", "group"):
        (tmp_path / name).write_bytes(Path(f"/etc/{name}").read_bytes())
    binds = " && ".join(f"mount --bind {tmp_path}/{name} /etc/{name}" for name in ("passwd", "group"))
    return "unshare", "--mount", "sh", "-c", f'{binds} && exec "$@"', "sh"


def test_a_oneshot_may_make_a_user(tmp_path: Path) -> None:
    """Users and groups are looked up when a child starts, so a oneshot before it can have made them."""
    prefix = with_copies(tmp_path)
    bundle = (
        f"[oneshots.o]\ncommand = ['/bin/sh', '-c', '{ADD_LATE}']\n"
        "[daemons.d]\ncommand = ['sleep', '600']\nafter = ['o']\n"
        "[jobs.j]\ncommand = ['/bin/sh', '-c', 'id -u; id -g; id -G; echo $HOME']\nafter = ['d']\n"
        "user = 'late'\ngroups = ['later']\n"
    )
    with running(tmp_path, bundle, prefix=prefix) as init:
        assert init.wait() == 0, init.err
        assert init.out == ["[j] 4321", "[j] 4322", "[j] 4322 4323", "[j] /home/late"]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("user = 'nowhere'", "user nowhere: there is no such user"),
        ("group = 'nowhere'", "group: there is no group nowhere"),
        ("groups = ['daemon', 'nowhere']", "groups: there is no group nowhere"),
    ],
)
def test_a_user_that_no_oneshot_made(tmp_path: Path, key: str, reason: str) -> None:
    """A user that is still unknown when its child starts is a death with 126 that names it."""
    bundle = f"[oneshots.o]\ncommand = ['true']\n[jobs.j]\ncommand = ['true']\nafter = ['o']\n{key}\n"
    with running(tmp_path, bundle) as init:
        assert init.wait() == 126
        assert init.event("child_exited", "j")["detail"] == reason


def test_the_order_of_environments(tmp_path: Path) -> None:
    """The environment is the init's, then that of the files, then `env`."""
    one, two = tmp_path / "one.env", tmp_path / "two.env"
    one.write_text("# a comment\n\nA=one\nB=one\nC=one=with=equals\n")
    two.write_text("B=two\nD=two\n")
    more = f"env_files = ['{one}', '{two}']\nenv = {{ D = 'env', E = 'env' }}"
    env = told(tmp_path, more, env={"A": "init", "F": "init"})["env"]
    assert [env[name] for name in "ABCDEF"] == ["one", "two", "one=with=equals", "env", "env", "init"]
    assert "LC_CTYPE" not in env or "LC_CTYPE" in os.environ


def test_user_group_and_what_follows_them(tmp_path: Path) -> None:
    child = told(tmp_path, "user = 'nobody'")
    assert (child["uid"], child["gid"]) == (65534, 65534)
    assert child["groups"] in ([], [65534])
    assert child["env"]["USER"] == child["env"]["LOGNAME"] == "nobody"
    assert child["env"]["HOME"] == "/nonexistent"
    assert int(child["status"]["CapEff"], 16) == 0
    assert int(child["status"]["CapPrm"], 16) == 0
    assert child["status"]["NoNewPrivs"] == "1"
    child = told(tmp_path, "user = 'nobody'\ngroup = 'daemon'\ngroups = ['bin', 7]")
    assert (child["gid"], sorted(child["groups"])) == (1, [2, 7])


def test_capabilities_to_keep_and_no_others(tmp_path: Path) -> None:
    wanted = 1 << 10 | 1 << 12
    for user in ("user = 'nobody'\n", ""):
        status = told(tmp_path, user + "capabilities = ['NET_BIND_SERVICE', 'CAP_NET_ADMIN']")["status"]
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == wanted
    status = told(tmp_path, "capabilities = []")["status"]
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0


UNPRIVILEGED = ("setpriv", "--clear-groups", "--inh-caps=-all", "--bounding-set=-setgid,-setpcap,-net_raw")


def test_an_unprivileged_init_can_ask_for_its_own(tmp_path: Path) -> None:
    """An init without privileges can still ask for what it already has."""
    child = told(tmp_path, "user = 0\ngroup = 0\ngroups = []\ncapabilities = ['kill']", prefix=UNPRIVILEGED)
    assert (child["uid"], child["gid"], child["groups"]) == (0, 0, [])
    assert int(child["status"]["CapEff"], 16) == int(child["status"]["CapPrm"], 16) == 1 << 5


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("groups = [7]", "groups: the init lacks CAP_SETGID"),
        ("group = 7\ngroups = [0]", "groups: the init lacks CAP_SETGID"),
        ("capabilities = ['net_raw']", "capabilities: the init does not have them all itself"),
        ("capabilities = []\nno_new_privs = false", "capabilities: the init lacks setpcap, which takes them away"),
    ],
)
def test_what_the_init_may_not_do_is_a_126(tmp_path: Path, more: str, reason: str) -> None:
    """What the init is not permitted to do is a death with 126 that says why."""
    with running(tmp_path, f"[jobs.j]\ncommand = ['true']\n{more}\n", prefix=UNPRIVILEGED) as init:
        assert init.wait() == 126
        assert init.event("child_exited")["detail"] == reason


def test_limits(tmp_path: Path) -> None:
    more = "umask = '0027'\nnice = 5\noom_score_adj = 300\nrlimits = { nofile = [64, 128] }\nno_new_privs = false"
    child = told(tmp_path, more)
    assert child["status"]["Umask"] == "0027"
    assert child["nice"] == 5
    assert child["oom"] == "300"
    assert tuple(child["nofile"]) == (64, 128)
    assert child["status"]["NoNewPrivs"] == "0"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft <= hard


def start_with(soft: int, hard: int) -> Any:
    """What sets the limits of open files in an init to be."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_children_get_the_limits_that_the_init_got(tmp_path: Path) -> None:
    """The init raises its own soft limit to the hard one; its children have the pair that it inherited."""
    assert told(tmp_path, preexec_fn=start_with(300, 900))["nofile"] == [300, 900]
    with running(tmp_path, "[daemons.d]\ncommand = ['sleep', '600']\n", preexec_fn=start_with(300, 900)) as init:
        init.event("child_ready")
        limits = Path(f"/proc/{init.pid}/limits").read_text()
        assert limits.partition("Max open files")[2].split()[:2] == ["900", "900"]
        assert init.stop() == 0


@pytest.mark.parametrize(("soft", "hard", "count"), [(64, 4_096, 60), (64, 64, 22)], ids=["soft", "hard"])
def test_daemons_start_with_few_descriptors(tmp_path: Path, soft: int, hard: int, count: int) -> None:
    """What bounds the number of daemons is the hard limit, and what lasts: two descriptors for each of them."""
    bundle = "".join(f"[daemons.d{n}]\ncommand = ['sleep', '600']\n" for n in range(count))
    with running(tmp_path, bundle, preexec_fn=start_with(soft, hard)) as init:
        for n in range(count):
            init.event("child_ready", f"d{n}")
        assert init.stop() == 0


def test_what_escaped_uses_up_no_descriptors(tmp_path: Path) -> None:
    """A process that escaped and holds its daemon's output keeps no restart from starting."""
    os.mkfifo(tmp_path / "fled")
    script = f'setsid sh -c "echo > {tmp_path}/fled; exec sleep 600" & read _ < {tmp_path}/fled; exit 1'
    more = "backoff = { initial = 0 }\nrestarts = { max = 60, window = '1h' }\npolicy = 'restart'"
    bundle = sh("daemon", "d", script, more)
    with running(tmp_path, bundle, preexec_fn=start_with(64, 64), pid_1=True) as init:
        assert init.wait() == 1
        assert init.event("leftover_output_closed", "d")["stream"] == "stdout"
        assert ("fork_failed", "d") not in init.names()
        assert len([name for name, _ in init.names() if name == "child_started"]) == 61


def test_environments_are_private(tmp_path: Path) -> None:
    """One daemon cannot read another's environment."""
    secret = tmp_path / "secret.env"
    secret.write_text("TOKEN=swordfish\n")
    secret.chmod(0o600)
    bundle = (
        f"[daemons.holder]\ncommand = ['sleep', '600']\nuser = 'nobody'\nenv_files = ['{secret}']\n"
        "[jobs.thief]\nuser = 'daemon'\nafter = ['holder']\n"
        "command = ['sh', '-c', 'cat /proc/[0-9]*/environ | tr \"\\\\0\" \"\\\\n\" | grep -c swordfish']\n"
    )
    with running(tmp_path, bundle, pid_1=True) as init:
        init.wait()
        assert "[thief] 0" in init.out
        assert "swordfish" not in "\n".join(init.out + init.err)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_descriptors_that_were_closed_at_the_start(tmp_path: Path, closed: tuple[int, ...]) -> None:
    script = (
        "import os,sys\nfor fd in sys.argv[1].split(','): os.close(int(fd))\nos.execvp(sys.argv[2], sys.argv[2:])\n"
    )
    (tmp_path / "close.py").write_text(script)
    prefix = ("python3", str(tmp_path / "close.py"), ",".join(map(str, closed)))
    marker = tmp_path / "ran"
    bundle = f"[jobs.j]\ncommand = ['sh', '-c', 'echo out; echo err >&2; ls -l /proc/self/fd > {marker}; exit 5']\n"
    with running(tmp_path, bundle, prefix=prefix) as init:
        assert init.wait() == 5
    assert marker.exists()


def test_a_term_before_any_handler_is_set(tmp_path: Path) -> None:
    """A TERM before the child has set a handler does what the kernel does by default."""
    with running(tmp_path, "[daemons.d]\ncommand = ['sleep', '600']\n") as init:
        init.event("child_started")
        assert init.stop() == 0


def test_a_hundred_daemons(tmp_path: Path) -> None:
    bundle = "".join(f"[daemons.d{n}]\ncommand = ['sleep', '600']\n" for n in range(100))
    with running(tmp_path, bundle, pid_1=True) as init:
        for n in range(100):
            init.event("child_ready", f"d{n}")
        assert init.stop() == 0
        assert len(init.report()["deaths"]) == 100


def wake_ups(pid: int) -> int:
    """How often a process has gone to sleep so far, which is how often it has been awake."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def sleeps(pid: int) -> bool:
    """Whether a process sleeps for half a second."""
    before = wake_ups(pid)
    time.sleep(0.5)
    return wake_ups(pid) == before


def test_no_wake_up_while_nothing_happens(tmp_path: Path) -> None:
    with running(tmp_path, "[daemons.d]\ncommand = ['sleep', '600']\n") as init:
        init.event("child_ready")
        eventually(lambda: sleeps(init.pid), "the end of the start")
        before = wake_ups(init.pid)
        time.sleep(3)
        assert wake_ups(init.pid) == before
        init.send(signal.SIGALRM)
        eventually(lambda: wake_ups(init.pid) > before, "a wake-up that the test can see")
        assert init.stop() == 0


def test_a_directory_that_cannot_be_entered_is_said(tmp_path: Path) -> None:
    """Children start in `/` then, as those of an init without root's rights do in a WORKDIR of root's alone."""
    code = """
import posix
opened = posix.open
def refusing(path, *rest, **more):
    if path == ".":
        raise PermissionError(13, "Permission denied")
    return opened(path, *rest, **more)
posix.open = refusing
"""
    bundle = "[jobs.j]\ncommand = ['pwd']\n"
    with running(tmp_path, bundle, executable_code=(f"import sys\n{code}\n{MAIN}",)) as init:
        assert init.wait() == 0
        assert "[j] /" in init.out
        assert "so children start in /: " in init.event("setup_incomplete")["reason"]


def test_a_limit_that_stays_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(environ, "setrlimit", refused)
    problems: list[str] = []
    soft, hard = environ.raise_nofile(problems)
    assert len(problems) == 1
    assert problems[0].startswith(f"the soft limit of open files stays at {soft}, below the hard one of {hard}: ")
