"""Whether it was the kernel's OOM killer: what a wait status does not tell (contract 7).

The kernel counts its kills in each cgroup (`oom_kill` in memory.events of cgroup v2, or in
memory.oom_control of v1), and names each victim in its log. The log's pids are those of the host,
so it is asked only where the init is not in a PID namespace of its own; everywhere else the
count has to do: one more kill explains one SIGKILL that the init did not send.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of the kernel: the one namespace whose pids are those of its log."""

_LOG = "/dev/kmsg"
_LOG_RECORDS = 2_000
"""So many records of the kernel's log are read at one death."""


class OomCounter:
    """The kills since it was made. Needs neither a file nor a right to be there: it then never says yes."""

    def __init__(self, proc: str = "/proc", log: str = _LOG) -> None:
        self._fd = _open_counter(proc)
        self._log_fd = _open_log(proc, log)
        self._count = 0
        self._count = self._read_count()
        self._unexplained = 0
        self._named: dict[int, None] = {}

    def killed(self, pid: int) -> bool:
        """Whether the OOM killer ended a child that died of a SIGKILL not the init's. Each kill explains one death."""
        count = self._read_count()
        self._unexplained += count - self._count
        self._count = count
        if self._log_fd >= 0:
            self._named.update(dict.fromkeys(self._read_log()))
        # The kernel sends the signal first and writes its log then: one counted and not yet named is this one.
        is_named = pid in self._named
        if not is_named and self._unexplained <= len(self._named):
            return False
        self._named.pop(pid, None)
        self._unexplained = max(0, self._unexplained - 1)
        return True

    def _read_count(self) -> int:
        if self._fd < 0:
            return 0
        try:
            return count_of(posix.pread(self._fd, 4_096, 0))
        except OSError:
            return self._count

    def _read_log(self) -> Iterator[int]:
        """The pids that the kernel's log has named since the last look."""
        for _ in range(_LOG_RECORDS):
            try:
                record = posix.read(self._log_fd, 8_192)
            except BrokenPipeError:
                continue  # It was overwritten before it was read; the next one is there.
            except OSError:
                return
            pid = victim_of(record)
            if pid:
                yield pid


def count_of(events: bytes) -> int:
    """The `oom_kill` line of memory.events or memory.oom_control; 0 where the kernel has none (before 4.13)."""
    for line in events.split(b"\n"):
        key, _, number = line.partition(b" ")
        if key == b"oom_kill" and number.isdigit():
            return int(number)
    return 0


def victim_of(record: bytes) -> int:
    """The pid in a record of the kernel's log that tells of an OOM kill; 0 in any other."""
    _, found, rest = record.partition(b"Killed process ")
    number = rest.partition(b" ")[0]
    return int(number) if found and number.isdigit() else 0


def _open_log(proc: str, log: str) -> int:
    """The kernel's log from here on, -1 where it cannot be read or counts other pids."""
    try:
        if posix.readlink(f"{proc}/self/ns/pid") != FIRST_PID_NAMESPACE:
            return -1
        fd = posix.open(log, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except OSError:
        return -1
    try:
        posix.lseek(fd, 0, 2)
    except OSError:
        posix.close(fd)
        return -1
    return fd


def _open_counter(proc: str) -> int:
    """The file that counts this cgroup's kills, -1 where there is none."""
    for path in counters(_read(f"{proc}/self/cgroup"), _read(f"{proc}/self/mountinfo")):
        try:
            return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            continue
    return -1


def counters(cgroup: bytes, mountinfo: bytes) -> list[bytes]:
    """The paths where the count may be, from /proc/self/cgroup and /proc/self/mountinfo (cgroups(7), proc(5)).

    A hybrid set-up has both versions; the memory controller is in one of them, so both are tried.
    """
    groups = dict(_groups(cgroup))
    found = []
    for root, mount, kind, options in _mounts(mountinfo):
        if kind == b"cgroup2" and b"" in groups:
            found.append(_below(root, mount, groups[b""]) + b"/memory.events")
        elif kind == b"cgroup" and b"memory" in options.split(b",") and b"memory" in groups:
            found.append(_below(root, mount, groups[b"memory"]) + b"/memory.oom_control")
    return found


def _groups(cgroup: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`(controller, path)` of each line `ID:controllers:path`; the controller of v2 is empty."""
    for line in cgroup.split(b"\n"):
        _, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        for controller in controllers.split(b","):
            if path:
                yield controller, path


def _mounts(mountinfo: bytes) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """`(root, mount point, file system, its options)` of each line of mountinfo."""
    for line in mountinfo.split(b"\n"):
        ours, dash, theirs = line.partition(b" - ")
        fields, system = ours.split(b" "), theirs.split(b" ")
        if dash and len(fields) > 4 and len(system) > 2:
            yield fields[3], fields[4], system[0], system[2]


def _below(root: bytes, mount: bytes, path: bytes) -> bytes:
    """Where a cgroup is below a mount that shows the hierarchy from `root` on."""
    inside = path if root == b"/" else path[len(root) :] if (path + b"/").startswith(root + b"/") else b""
    return mount + inside.rstrip(b"/")


def _read(path: str) -> bytes:
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
