"""From a fork to the child's own program: what is set up in between, and in which order.

A plain fork, because only that leaves the init running whatever the child meets (vfork and
posix_spawn hold the parent until the exec), and because most of what has to be set up has no
place in posix_spawn. The child reports through a close-on-exec pipe: end of file means that it has
become its program, anything else is the reason why it could not, and its code 126 or 127 follows.
"""

from __future__ import annotations

import errno
import posix
from _signal import SIG_DFL, SIG_SETMASK, getsignal, pthread_sigmask, signal
from resource import RLIMIT_NOFILE, setrlimit

from bottle_init.linux.sys import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bottle_init.core.spec import ExecSettings
    from bottle_init.linux.sys.environ import Given

CANNOT_EXECUTE = 126
NOT_FOUND = 127
DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SHELL = b"/bin/sh"

_OWN = (
    *(b"NOTIFY_SOCKET", b"WATCHDOG_PID", b"WATCHDOG_USEC"),
    *(b"LISTEN_PID", b"LISTEN_PIDFDID", b"LISTEN_FDS", b"LISTEN_FDNAMES"),
)
"""What a service manager has said to the init (sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3))."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FORMAT = 0o170000
_REGULAR = 0o100000
_CHARACTER = 0o020000
_NULL = posix.makedev(1, 3)
"""The device number of /dev/null (null(4))."""

_UNSETTABLE = (9, 19, 32, 33)
_NOT_DEFAULT = tuple(
    number for number in range(1, 65) if number not in _UNSETTABLE and getsignal(number) is not SIG_DFL
)
"""Looked up once, before any fork: in a child each page that is touched is copied first."""


class Identity:
    """Who a child runs as; looked up at its start. `uid` None means as the init itself. Raises CannotStart."""

    __slots__ = ("gid", "groups", "home", "name", "uid")

    def __init__(self, settings: ExecSettings) -> None:
        self.uid: int | None = None
        self.gid: int | None = None
        self.groups: tuple[int, ...] | None = None
        self.name = self.home = ""
        if settings.user is not None:
            self._take_user(settings.user)
        if settings.group is not None:
            self.gid = group_id("group", settings.group)
        if settings.groups is not None:
            self.groups = tuple(group_id("groups", group) for group in settings.groups)

    def _take_user(self, user: str | int) -> None:
        """The user's entry; an id without one is its own group, has no others, and `/` for a home."""
        import pwd

        try:
            entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
        except (KeyError, UnicodeEncodeError):
            if not isinstance(user, int):
                raise CannotStart(f"user {user}: there is no such user") from None
            self.uid = self.gid = user
            self.groups, self.name, self.home = (), str(user), "/"
            return
        self.uid, self.gid = entry.pw_uid, entry.pw_gid
        self.groups = tuple(posix.getgrouplist(entry.pw_name, entry.pw_gid))
        self.name, self.home = entry.pw_name, entry.pw_dir


def group_id(key: str, group: str | int) -> int:
    """A group's id. Raises CannotStart for a name that is unknown."""
    if isinstance(group, int):
        return group
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, UnicodeEncodeError):
        raise CannotStart(f"{key}: there is no group {group}") from None


class Plan:
    """All that a child needs to know before the fork. Made once for each child, used at every start."""

    __slots__ = ("command", "given", "keep", "settings")

    def __init__(self, command: tuple[str, ...], settings: ExecSettings, given: Given) -> None:
        self.command = [encode(word) for word in command]
        self.settings = settings
        self.given = given
        names = settings.capabilities
        self.keep = None if names is None else tuple(sorted(libc.CAPABILITIES.index(name) for name in names))


def encode(text: str) -> bytes:
    """A word as the kernel gets it: UTF-8, with what came in undecodable as it was."""
    return text.encode("utf-8", "surrogateescape")


def environ_for(identity: Identity, inherited: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The init's environment, less what is the init's alone, with HOME, USER and LOGNAME of the user."""
    environ = {name: value for name, value in inherited.items() if name not in _OWN}
    if identity.uid is not None:
        environ[b"HOME"] = encode(identity.home)
        environ[b"USER"] = environ[b"LOGNAME"] = encode(identity.name)
    return environ


def start(plan: Plan, stdio: tuple[int, int, int], extra: dict[bytes, bytes]) -> tuple[int, int]:
    """Set a child on its way; returns its pid and the descriptor to read its report from.

    `stdio` are the descriptors that become 0, 1 and 2; `extra` is added to the environment last.
    Raises OSError where no pipe or process can be had.
    """
    report, error_fd = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
    try:
        pid = fork(plan, plan.command, stdio, extra, error_fd)
    except BaseException:
        posix.close(report)
        raise
    finally:
        posix.close(error_fd)
    return pid, report


def fork(
    plan: Plan, command: list[bytes], stdio: tuple[int, int, int], extra: dict[bytes, bytes], error_fd: int
) -> int:
    """Fork a child that runs `command` as the plan says, and writes to `error_fd` why it cannot. Raises OSError."""
    pid = posix.fork()
    if pid == 0:
        _become(plan, command, stdio, extra, error_fd)
    return pid


class CannotStart(Exception):
    """The reason why a child could not become its program, and its exit code."""

    def __init__(self, reason: str, code: int = CANNOT_EXECUTE) -> None:
        super().__init__(reason)
        self.code = code


def _become(
    plan: Plan, command: list[bytes], stdio: tuple[int, int, int], extra: dict[bytes, bytes], error_fd: int
) -> None:
    """In the child: set everything up and execute. Never returns."""
    code = CANNOT_EXECUTE
    try:
        posix.setsid()
        _attach(stdio)
        # As the init itself: to inherit a directory takes no right to enter it.
        _do("cwd: where the init was started", posix.fchdir, plan.given.cwd_fd)
        posix.close(plan.given.cwd_fd)  # If the init had no other left, there is now one to open /etc/passwd with.
        identity = Identity(plan.settings)
        _open_to_others(identity.uid is not None)
        environ = environ_for(identity, plan.given.environ)
        for path in plan.settings.env_files:
            environ.update(read_env_file(path))
        environ.update((encode(name), encode(value)) for name, value in plan.settings.env)
        environ.update(extra)
        _set_limits(plan)  # From here on no file can be opened where the init has more open than the child may.
        _set_identity(plan, identity)
        if plan.settings.cwd is not None:
            _do(f"cwd: {plan.settings.cwd}", posix.chdir, plan.settings.cwd)
        reset_signals()
        pthread_sigmask(SIG_SETMASK, ())
        execute(command, environ)
    except CannotStart as problem:
        code = problem.code
        _report(error_fd, str(problem))
    except BaseException as problem:  # noqa: BLE001 - whatever it is, the child must not run on as a second init.
        _report(error_fd, f"{type(problem).__name__}: {problem}")
    posix._exit(code)  # noqa: SLF001 - that is its name.


def _report(error_fd: int, reason: str) -> None:
    try:
        posix.write(error_fd, encode(reason)[:4_000])
    except OSError:
        pass  # The init is gone; nobody is left to tell.


def _attach(stdio: tuple[int, int, int]) -> None:
    """Make `stdio` the child's 0, 1 and 2. None of them is below 3, so none is overwritten before its turn."""
    for target, source in enumerate(stdio):
        if source == target:
            posix.set_inheritable(target, True)
        else:
            posix.dup2(source, target, True)


def _open_to_others(has_user: bool) -> None:
    """Let the child open its /dev/stdout and /dev/stderr as another user too, where that harms nobody.

    An anonymous pipe can be reached by the /proc/PID/fd of those who have it alone, which is closed to other users
    (proc(5)). A terminal has a path of its own, so it is only opened for a child that the init runs as another user.
    """
    for fd in (1, 2):
        try:
            is_pipe = posix.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
            if is_pipe or (has_user and posix.isatty(fd)):
                posix.fchmod(fd, posix.fstat(fd).st_mode & 0o7777 | 0o022)
        except OSError:
            pass  # It is another user's, as a pipe of root's is to an init that is not root: opening it stays refused.


def _set_limits(plan: Plan) -> None:
    """What needs the init's own privileges: before the user changes."""
    settings = plan.settings
    if settings.umask is not None:
        posix.umask(settings.umask)
    if settings.oom_score_adj is not None:
        _do("oom_score_adj", _write, "/proc/self/oom_score_adj", str(settings.oom_score_adj))
    if settings.nice is not None:
        _do("nice", posix.setpriority, posix.PRIO_PROCESS, 0, settings.nice)
    _do("rlimits.nofile", setrlimit, RLIMIT_NOFILE, plan.given.nofile)
    if settings.rlimits:
        import resource

        for name, soft, hard in settings.rlimits:
            _do(f"rlimits.{name}", setrlimit, getattr(resource, f"RLIMIT_{name.upper()}"), (soft, hard))


def _do(key: str, call: Callable[..., object], *arguments: Any) -> None:
    """One call of the set-up; its failure names the key of the bundle file."""
    try:
        call(*arguments)
    except (OSError, ValueError, OverflowError) as problem:
        raise CannotStart(f"{key}: {getattr(problem, 'strerror', None) or problem}") from None


def _write(path: str, text: str) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    posix.write(fd, text.encode())
    posix.close(fd)


def _set_identity(plan: Plan, identity: Identity) -> None:
    """Groups, user, capabilities, no_new_privs: each while the one before still allows it."""
    if plan.keep is not None:
        _bound(plan.keep, plan.settings)
        if identity.uid:
            _do("capabilities", libc.prctl, libc.PR_SET_KEEPCAPS, 1)
    if identity.groups is not None:
        _change(plan.settings, "groups", "setgid", _set_groups, identity)
    if identity.gid is not None:
        _change(plan.settings, "group", "setgid", posix.setresgid, identity.gid, identity.gid, identity.gid)
    if identity.uid is not None:
        _change(plan.settings, "user", "setuid", posix.setresuid, identity.uid, identity.uid, identity.uid)
    if plan.keep is not None:
        _do("capabilities", libc.set_capabilities, plan.keep)
        _do("capabilities", libc.prctl, libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
        for number in plan.keep:
            _do("capabilities", libc.prctl, libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_RAISE, number)
    if plan.settings.no_new_privs:
        _do("no_new_privs", libc.prctl, libc.PR_SET_NO_NEW_PRIVS, 1)


def _change(settings: ExecSettings, key: str, capability: str, call: Callable[..., object], *arguments: Any) -> None:
    """One step of a change of user. Its failure names the key that asks for it, and the capability that is missing."""
    given = getattr(settings, key)
    about = f"{key} {given}" if isinstance(given, str | int) else key
    if given is None:
        about = f"user {settings.user}: its {'groups' if key == 'groups' else 'group'}"
    try:
        call(*arguments)
    except PermissionError as problem:
        lacks = not libc.has_capability(capability)
        why = f"the init lacks CAP_{capability.upper()}" if lacks else problem.strerror
        raise CannotStart(f"{about}: {why}") from None
    except (OSError, ValueError, OverflowError) as problem:
        raise CannotStart(f"{about}: {getattr(problem, 'strerror', None) or problem}") from None


def _bound(keep: tuple[int, ...], settings: ExecSettings) -> None:
    """Nothing that the child executes gains more; where `no_new_privs` sees to that, the init needs no CAP_SETPCAP."""
    for number in libc.bounded_capabilities():
        if number not in keep:
            try:
                libc.prctl(libc.PR_CAPBSET_DROP, number)
            except OSError:
                if not settings.no_new_privs:
                    raise CannotStart("capabilities: the init lacks setpcap, which takes them away") from None
                return


def _set_groups(identity: Identity) -> None:
    """setgroups(2); who may not call it may still have these very groups already, its own group in the list or not."""
    groups = identity.groups or ()
    try:
        posix.setgroups(list(groups))
    except PermissionError:
        own = posix.getegid()
        if identity.gid not in (None, own) or {own, *groups} != {own, *posix.getgroups()}:
            raise


def reset_signals() -> None:
    """Default dispositions for all signals: the interpreter ignores some, and others were inherited ignored."""
    for number in _NOT_DEFAULT:
        signal(number, SIG_DFL)
    libc.set_threading_signals(ignored=False)


def read_env_file(path: str) -> dict[bytes, bytes]:
    """The `NAME=VALUE` lines of a file; blank lines and lines that begin with `#` do not count.

    Raises CannotStart for a file that cannot be read, and for any other line. No message shows a line: it may be a
    secret.
    """
    found = {}
    for number, line in enumerate(_read_env_file(path).removeprefix(_BYTE_ORDER_MARK).split(b"\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(b"#"):
            continue
        name, equals, value = line.lstrip().rstrip(b"\r").partition(b"=")
        problem = _fault_of(name, value) if equals else "is not of the form NAME=VALUE"
        if problem:
            raise CannotStart(f"env_files: {path}: line {number} {problem}")
        found[name] = value
    return found


def _fault_of(name: bytes, value: bytes) -> str:
    """What is wrong with a line of an env file, "" for nothing."""
    if name.startswith((b"export ", b"export\t")):
        return "begins with export, which is a shell's: write NAME=VALUE"
    if not name.replace(b"_", b"a").isalnum() or name[:1].isdigit():
        return "has a name that is not of letters, digits and _, not beginning with a digit"
    return "has a NUL byte in its value" if b"\0" in value else ""


def _read_env_file(path: str) -> bytes:
    """All of an env file. Raises CannotStart.

    What is no file could keep the child waiting (a pipe), or give it a controlling terminal.
    """
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
        status = posix.fstat(fd)
        is_null = status.st_mode & _FORMAT == _CHARACTER and status.st_rdev == _NULL
        if status.st_mode & _FORMAT != _REGULAR and not is_null:
            raise CannotStart(f"env_files: {path}: is no regular file")
        parts = []
        while part := posix.read(fd, 65_536):
            parts.append(part)
        posix.close(fd)
    except OSError as problem:
        raise CannotStart(f"env_files: {path}: {problem.strerror}") from None
    return b"".join(parts)


def execute(command: list[bytes], environ: dict[bytes, bytes], *, scripts: bool = False) -> None:
    """execve(2) along the child's own PATH, with a shell's codes (contract 2). Raises CannotStart, or never returns.

    `scripts`: text without a `#!` is /bin/sh's to run, as it is for execvp(3) and for every shell.
    """
    name = command[0]
    absent = [errno.ENOENT, errno.ENOTDIR]
    candidates: list[bytes] = []
    if b"/" in name:
        candidates = [name]
    elif name:
        path = environ.get(b"PATH", DEFAULT_PATH)
        candidates = [directory + b"/" + name if directory else name for directory in path.split(b":")]
        absent.append(errno.ENAMETOOLONG)  # Nothing on the PATH can have this name.
    denied: OSError | None = None
    for candidate in candidates:
        try:
            posix.execve(candidate, command, environ)
        except OSError as problem:
            if scripts and problem.errno == errno.ENOEXEC:
                _execute_script(candidate, command, environ)
            if problem.errno not in absent:
                denied = denied or problem
                if problem.errno != errno.EACCES:
                    break
    shown = name.decode("utf-8", "replace")
    if denied is not None:
        raise CannotStart(f"{shown}: {denied.strerror}")
    if any(posix.access(candidate, posix.X_OK) for candidate in candidates):
        raise CannotStart(f"{shown}: its interpreter (its #! line, or a program's loader) is not there", NOT_FOUND)
    raise CannotStart(f"{shown}: command not found", NOT_FOUND)


def _execute_script(path: bytes, command: list[bytes], environ: dict[bytes, bytes]) -> None:
    """Have /bin/sh run a file, unless its first line has a NUL: that is no text. Returns where that cannot be."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        if b"\0" not in posix.read(fd, 128).partition(b"\n")[0]:
            posix.execve(_SHELL, [_SHELL, path, *command[1:]], environ)
    except OSError:
        pass  # What the first try was told is the reason.
