"""Whether it was the kernel's OOM killer: what a wait status does not tell (contract 7).

The kernel counts its kills in each cgroup (`oom_kill` in memory.events of cgroup v2, or in
memory.oom_control of v1), and names each victim in its log. The log's pids are those of the host,
so it is asked only where the init is not in a PID namespace of its own; everywhere else the
count has to do: one more kill explains one SIGKILL that the init did not send.
"""

from __future__ import annotations

import posix

from bottle_init.linux.sys.environ import groups, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of the kernel: the one namespace whose pids are those of its log."""

_LOG = "/dev/kmsg"
_LOG_RECORDS = 2_000
"""So many records of the kernel's log are read at one death."""


class OomCounter:
    """The kills from now on, or since `before` was read (`environ.kills_so_far`). Needs no file and no right to it."""

    def __init__(self, before: Mapping[bytes, bytes] | None = None, proc: str = "/proc", log: str = _LOG) -> None:
        self._path, self._fd = _open_counter(proc)
        self._log_fd = _open_log(proc, log)
        known = (before or {}).get(self._path)
        self._count = self._read_count() if known is None else count_of(known)
        self._unexplained = 0
        self._named: dict[int, None] = {}

    def killed(self, pid: int) -> bool | None:
        """Whether the OOM killer ended a child that died of a SIGKILL not the init's. Each kill explains one death.

        None: neither a count nor the kernel's log can be read.
        """
        count = self._read_count()
        if count is not None:
            self._unexplained += count - (self._count or 0)
            self._count = count
        if self._log_fd >= 0:
            self._named.update(dict.fromkeys(self._read_log()))
        elif count is None:
            return None
        # The kernel sends the signal first and writes its log then: one counted and not yet named is this one.
        is_named = pid in self._named
        if not is_named and self._unexplained <= len(self._named):
            return False
        self._named.pop(pid, None)
        self._unexplained = max(0, self._unexplained - 1)
        return True

    def _read_count(self) -> int | None:
        if self._fd < 0:
            return None
        try:
            return count_of(posix.pread(self._fd, 4_096, 0))
        except OSError:
            return None

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


def count_of(events: bytes) -> int | None:
    """The `oom_kill` line of memory.events or memory.oom_control; None where the kernel has none (before 4.13)."""
    for line in events.split(b"\n"):
        key, _, number = line.partition(b" ")
        if key == b"oom_kill" and number.isdigit():
            return int(number)
    return None


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


def _open_counter(proc: str) -> tuple[bytes, int]:
    """The file that counts this cgroup's kills: its path, and a descriptor, -1 where there is none."""
    for path in counters(read(f"{proc}/self/cgroup".encode()), read(f"{proc}/self/mountinfo".encode())):
        try:
            return path, posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            continue
    return b"", -1


def counters(cgroup: bytes, mountinfo: bytes) -> list[bytes]:
    """The paths where the count may be, from /proc/self/cgroup and /proc/self/mountinfo (cgroups(7), proc(5)).

    A hybrid set-up has both versions; the memory controller is in one of them, so both are tried.
    """
    cgroups = dict(groups(cgroup))
    found = []
    for root, mount, kind, options in _mounts(mountinfo):
        if kind == b"cgroup2" and b"" in cgroups:
            found.append(_below(root, mount, cgroups[b""]) + b"/memory.events")
        elif kind == b"cgroup" and b"memory" in options.split(b",") and b"memory" in cgroups:
            found.append(_below(root, mount, cgroups[b"memory"]) + b"/memory.oom_control")
    return found


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
