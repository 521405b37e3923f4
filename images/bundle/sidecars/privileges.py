"""What a process may do, by capabilities(7), and how it gives it up.

Everything that the engine starts in the container by itself (the HEALTHCHECK, the operator's commands) starts with the
container's capabilities, and NET_ADMIN among them could undo the kernel rules. So all of them begin with `drop`.
"""

from __future__ import annotations

from bottle_init.linux.sys import libc

NET_ADMIN = libc.CAPABILITIES.index("net_admin")
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def held() -> dict[str, int]:
    """The capability sets of this process, as bit masks by their names in /proc/PID/status."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {name: int(lines[name], 16) for name in SETS}


def drop(capability: int = NET_ADMIN) -> None:
    """Takes a capability out of every set of this process, for good. Raises `OSError` where that fails.

    Without SETPCAP the bounding set cannot be changed; no-new-privileges then keeps an execve(2) from granting what
    is in it.
    """
    bit = 1 << capability
    before = held()
    if not any(mask & bit for mask in before.values()):
        return
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    if before["CapEff"] & 1 << libc.CAPABILITIES.index("setpcap"):
        libc.prctl(libc.PR_CAPBSET_DROP, capability)
    # One mask for three sets: what is inheritable besides would be new, and is of no use to anybody here.
    keep = before["CapPrm"] & before["CapEff"] & ~bit
    libc.set_capabilities(tuple(number for number in range(64) if keep & 1 << number))
