"""The few system calls that Python has no name for.

They go through `_ctypes`, the extension below the `ctypes` package: that costs PID 1 half a
millisecond, the package itself six times that. Arguments are C ints or bytes; results are C ints.
"""

from __future__ import annotations

import _ctypes
import errno
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_SFD_NONBLOCK = posix.O_NONBLOCK
_SFD_CLOEXEC = posix.O_CLOEXEC
_SIGSET_BYTES = 128
_CLOSE_RANGE_CLOEXEC = 4
_RT_SIGACTION = {"x86_64": 13, "aarch64": 134}
_KERNEL_SIGACTION = 32
_KERNEL_SIGSET = 8
_CAPABILITY_VERSION_3 = 0x20080522

CAPABILITIES = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner"),
    *("sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice"),
    *("sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap"),
    *("mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf"),
    "checkpoint_restore",
)
"""Names in the order of their numbers, capabilities(7), without the `CAP_`."""

_library = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # None is the program itself, dlopen(3).


def _call(name: str, *arguments: int | bytes | _ctypes.Array) -> int:  # type: ignore[type-arg]
    result: int = _ctypes.call_function(_ctypes.dlsym(_library, name), arguments)
    return result


def signalfd(signals: Iterable[int]) -> int:
    """A descriptor that becomes readable with every one of `signals` (signalfd(2)). Raises OSError."""
    mask = sum(1 << (signal - 1) for signal in signals)
    descriptor = _call("signalfd", -1, mask.to_bytes(_SIGSET_BYTES, "little"), _SFD_NONBLOCK | _SFD_CLOEXEC)
    if descriptor < 0:
        raise OSError(errno.EMFILE, "signalfd failed")
    return descriptor


def prctl(option: int, argument: int, third: int = 0) -> int:
    """prctl(2). Raises OSError, without the kernel's errno, which cannot be had this way."""
    result = _call("prctl", option, argument, third, 0, 0)
    if result < 0:
        raise OSError(errno.EPERM, f"prctl({option}, {argument}) was refused")
    return result


def set_threading_signals(*, ignored: bool) -> None:
    """Ignore 32 and 33, or make them default; the C library keeps them for its threads and lets nobody set them.

    So this asks the kernel itself. A parent that used posix_spawn may have left them ignored.
    """
    number = _RT_SIGACTION.get(posix.uname().machine)
    if number is not None:
        action = int(ignored).to_bytes(_KERNEL_SIGACTION, "little")  # SIG_DFL is 0, SIG_IGN is 1.
        for signal in (32, 33):
            _call("syscall", number, signal, action, 0, _KERNEL_SIGSET)


def keep_descriptors_from_children(first: int = 3) -> None:
    """Mark every open descriptor from `first` on as close-on-exec (close_range(2), or /proc where that is missing)."""
    try:
        if _call("close_range", first, -1, _CLOSE_RANGE_CLOEXEC) == 0:
            return
    except OSError:
        pass  # The C library is older than the call: glibc has it since 2.34.
    for name in posix.listdir("/proc/self/fd"):
        if int(name) >= first:
            try:
                posix.set_inheritable(int(name), False)
            except OSError:
                continue  # The descriptor of the listing itself is gone by now.


def bounded_capabilities() -> tuple[int, ...]:
    """The numbers of the capabilities in the bounding set."""
    found = []
    for number in range(64):
        try:
            if prctl(PR_CAPBSET_READ, number) == 1:
                found.append(number)
        except OSError:
            break  # The kernel knows no capability of this number, and so none above it.
    return tuple(found)


class _Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - there is no other name below `ctypes`.
    _type_ = "c"


class _Sets(_ctypes.Array):  # type: ignore[type-arg]
    """Room for the three capability sets, of 64 bits each, that capget(2) writes."""

    _type_ = _Byte
    _length_ = 24


_CAPABILITY_HEADER = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)


def capabilities() -> tuple[int, int, int]:
    """The effective, permitted and inheritable set, as bits (capget(2)). Raises OSError."""
    sets = _Sets()
    if _call("capget", _CAPABILITY_HEADER, sets) != 0:
        raise OSError(errno.EPERM, "capget(2) was refused")
    words = [int.from_bytes(bytes(sets)[at : at + 4], "little") for at in range(0, 24, 4)]
    low, high = words[:3], words[3:]
    effective, permitted, inheritable = (low[each] | high[each] << 32 for each in range(3))
    return effective, permitted, inheritable


def has_capability(name: str) -> bool:
    """Whether a capability is in the effective set of this process."""
    return bool(capabilities()[0] >> CAPABILITIES.index(name) & 1)


def _set(effective: int, permitted: int, inheritable: int) -> bool:
    """capset(2); whether it was done."""
    sets = (effective, permitted, inheritable)
    low = b"".join((each & 0xFFFFFFFF).to_bytes(4, "little") for each in sets)
    high = b"".join((each >> 32).to_bytes(4, "little") for each in sets)
    return _call("capset", _CAPABILITY_HEADER, low + high) == 0


def drop_capabilities(names: Iterable[str]) -> None:
    """Take these out of the bounding, effective, permitted, inheritable and ambient set. Raises OSError if one stays.

    The bounding set first, because that takes SETPCAP, which may be one of them. The kernel keeps nothing in the
    ambient set that is not both permitted and inheritable (capabilities(7)).
    """
    numbers = [CAPABILITIES.index(name) for name in names]
    mask = sum(1 << number for number in numbers)
    for number in bounded_capabilities():
        if number in numbers:
            try:
                prctl(PR_CAPBSET_DROP, number)
            except OSError:
                name = CAPABILITIES[number].upper()
                raise OSError(errno.EPERM, f"without SETPCAP nothing takes {name} out of the bounding set") from None
    if not _set(*(each & ~mask for each in capabilities())):
        raise OSError(errno.EPERM, "capset(2) was refused")
    if any(each & mask for each in capabilities()) or any(number in numbers for number in bounded_capabilities()):
        raise OSError(errno.EPERM, "the kernel has them still")


def set_capabilities(numbers: tuple[int, ...]) -> None:
    """Make these the effective, permitted and inheritable set (capset(2)). Raises OSError."""
    mask = sum(1 << number for number in numbers)
    if not _set(mask, mask, mask):
        raise OSError(errno.EPERM, "the init does not have them all itself")
