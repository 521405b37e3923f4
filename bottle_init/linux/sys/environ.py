"""What the init was given: environment, directory, cgroup, descriptors, and a few of those held in reserve."""

from __future__ import annotations

import posix
from resource import RLIMIT_NOFILE, getrlimit, setrlimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_COERCED = b"LC_CTYPE"

_RESERVE = 2
"""A process is looked up while its pidfd is open."""


def inherited() -> dict[bytes, bytes]:
    """What execve(2) handed to the init: what its children inherit.

    In the C locale the interpreter sets LC_CTYPE in its own environment (PEP 538, and no flag of
    it prevents that); nobody asked for that to reach a child. Without a /proc it cannot be told
    from one that was given. A variable without a name is left out: the interpreter can pass on none.
    """
    environ = dict(posix.environ)
    environ.pop(b"", None)
    if _COERCED in environ:
        _undo_coercion(environ)
    return environ


def _undo_coercion(environ: dict[bytes, bytes]) -> None:
    try:
        fd = posix.open("/proc/self/environ", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return
    try:
        given = b""
        while part := posix.read(fd, 65_536):
            given += part
    except OSError:
        return
    finally:
        posix.close(fd)
    _, found, rest = (b"\0" + given).partition(b"\0" + _COERCED + b"=")
    if found:
        environ[_COERCED] = rest.partition(b"\0")[0]
    else:
        del environ[_COERCED]


def address_to(pid: int, init_pid: int, environ: dict[bytes, bytes]) -> None:
    """Let what a service manager has set for the init be for the process `pid`, which takes the init's place.

    sd_listen_fds(3) and sd_watchdog_enabled(3) obey variables that name the caller's own pid. The number of a pidfd in
    LISTEN_PIDFDID is that of the old pid, and would contradict the new one.
    """
    before, now = str(init_pid).encode(), str(pid).encode()
    if environ.get(b"LISTEN_PID") == before:
        environ[b"LISTEN_PID"] = now
        environ.pop(b"LISTEN_PIDFDID", None)
    if environ.get(b"WATCHDOG_PID") == before:
        environ[b"WATCHDOG_PID"] = now


def socket_address(address: str) -> str:
    """The address of a Unix socket; `@name` (an abstract one) and `""` (none) are no paths."""
    return address if not address or address.startswith("@") else absolute(address)


def address_as_given(address: str | None) -> str | None:
    """An address with its path, if it has one, from the directory where the init was started."""
    scheme, _, path = (address or "").partition(":")
    return f"unix:{socket_address(path)}" if scheme == "unix" else address


def is_open(fd: int) -> bool:
    """Whether a descriptor is there."""
    try:
        posix.fstat(fd)
    except OSError:
        return False
    return True


def absolute(path: str) -> str:
    """`path` from the directory where the init was started, as it is itself in `/`."""
    if path.startswith("/"):
        return path
    try:
        return posix.getcwd().rstrip("/") + "/" + path
    except OSError:
        return "/" + path  # That directory is gone.


def raise_nofile(problems: list[str]) -> tuple[int, int]:
    """Let the init have as many open files as its hard limit allows; returns the pair that it was started with.

    Each daemon takes two for its output, and the usual soft limit of 1024 is for programs that call select(2).
    """
    soft, hard = getrlimit(RLIMIT_NOFILE)
    try:
        setrlimit(RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as problem:  # Above /proc/sys/fs/nr_open, which was lowered since (setrlimit(2)).
        problems.append(f"the soft limit of open files stays at {soft}, below the hard one of {hard}: {problem}")
    return soft, hard


class Given:
    """What children inherit of what the init was started with; taking it, the init goes its own way.

    `environ` is its environment, `cwd_fd` the directory, `nofile` the soft and the hard limit of open files, `kills` is
    `kills_so_far`. `problems` says in words what could not be had, and what is instead.
    """

    __slots__ = ("cwd_fd", "environ", "kills", "nofile", "problems")

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.kills = kills_so_far()
        self.environ = inherited()
        self.cwd_fd = open_cwd(self.problems)
        self.nofile = raise_nofile(self.problems)


def kills_so_far(proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> dict[bytes, bytes]:
    """What is in the files that count the kernel's OOM kills in the init's cgroup, by their paths.

    It is read before the first start: what is killed at once is then one more. The paths are where containers and
    systemd have them; `oom.py` finds them elsewhere too, and takes longer than a daemon should have to wait.
    """
    places = []
    for controller, path in groups(read(f"{proc}/self/cgroup".encode())):
        if controller in (b"", b"memory"):
            top = cgroups.encode() + (b"/memory" if controller else b"")
            name = b"/memory.oom_control" if controller else b"/memory.events"
            places += [top + path.rstrip(b"/") + name, top + name]
    return {place: text for place in dict.fromkeys(places) if (text := read(place))}


def groups(cgroup: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`(controller, path)` for each line `ID:controllers:path` of /proc/self/cgroup; v2 has no name (cgroups(7))."""
    for line in cgroup.split(b"\n"):
        _, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        for controller in controllers.split(b","):
            if path:
                yield controller, path


def read(path: bytes) -> bytes:
    """All of a file that the kernel makes up, empty where it cannot be had."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return b""
    whole = b""
    try:
        while part := posix.read(fd, 65_536):
            whole += part
    except OSError:
        return b""
    else:
        return whole
    finally:
        posix.close(fd)


class Room:
    """Descriptors held in reserve, let go while somebody has to open a file even though none is left."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self.__exit__()

    def __enter__(self) -> None:
        while self._held:
            posix.close(self._held.pop())

    def __exit__(self, *_: object) -> None:
        try:
            while len(self._held) < _RESERVE:
                self._held.append(posix.open("/", posix.O_PATH | posix.O_CLOEXEC))
        except OSError:
            pass  # Somebody else has taken it; what is looked up then may be missed, and is at the next look.

    @staticmethod
    def is_free(count: int) -> bool:
        """Whether so many descriptors are free beside those in reserve."""
        found: list[int] = []
        try:
            while len(found) < count:
                found.append(posix.open("/", posix.O_PATH | posix.O_CLOEXEC))
        except OSError:
            return False
        finally:
            for fd in found:
                posix.close(fd)
        return True


def hold_stdio() -> None:
    """Open /dev/null for whatever of 0, 1 and 2 was closed at the start, before another file takes its place."""
    while (fd := posix.open("/dev/null", posix.O_RDWR)) < 3:
        posix.set_inheritable(fd, True)
    posix.close(fd)


def open_cwd(problems: list[str]) -> int:
    """The directory that children start in; the init's own is `/`, so that it holds no mount busy."""
    try:
        fd = posix.open(".", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError as problem:
        problems.append(
            f"the directory that the init was started in cannot be entered, so children start in /: {problem.strerror}"
        )
        fd = posix.open("/", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    posix.chdir("/")
    return fd
