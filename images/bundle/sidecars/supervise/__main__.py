"""`python3 -m sidecars.supervise`: subscribes to the init's events as root, becomes `supervise` for good, and serves.

The init tells its events to root and to its own user alone, and asks the kernel who has connected: what counts is who
that was at the moment of the connect(2). So this daemon starts as root with no capabilities but SETUID and SETGID,
keeps the connected descriptor and nothing else of that, and imports the server afterwards.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator

from bottle_init import client
from bottle_init.linux.sys import libc
from sidecars.identity import become

EX_SOFTWARE = 70
_USER = "supervise"
_CONTROL = "@bottle_init"
_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapAmb")


class StillPrivilegedError(Exception):
    """What this process could do and must not, in words for the operator."""


def subscribe() -> tuple[Iterator[bytes], str]:
    """The init's events from now on, the present status first, and "" or why there are none."""
    lines = client.stream(os.environ.get("BOTTLE_INIT_CONTROL", _CONTROL), "events")
    try:
        first = next(lines, b"error the init has closed the connection")
    except client.NoAnswer as problem:
        return iter(()), str(problem)
    if first.startswith(b"error "):
        return iter(()), first.decode("utf-8", "replace").strip().removeprefix("error ")
    return _chained(first, lines), ""


def _chained(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others


def drop_privileges() -> None:
    """From root to the user `supervise`, with no way back. Raises `StillPrivilegedError`, `OSError` and `KeyError`."""
    become(_USER)
    # The inheritable set is the one that outlives the change of user. To give up is always allowed.
    libc.set_capabilities(())
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    entry = pwd.getpwnam(_USER)
    os.environ.update(HOME=entry.pw_dir, USER=_USER, LOGNAME=_USER)
    _verify(entry.pw_uid, entry.pw_gid)


def _verify(uid: int, gid: int) -> None:
    """That it has worked: by the kernel's account, and by an attempt to undo it."""
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        raise StillPrivilegedError(f"runs as {os.getresuid()}, {os.getresgid()} and not as {_USER}")
    if not set(os.getgroups()) <= {gid}:
        raise StillPrivilegedError(f"is in the groups {os.getgroups()}")
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    held = [name for name in _CAPABILITY_SETS if int(status[name], 16)]
    if held:
        raise StillPrivilegedError(f"still has capabilities ({', '.join(held)})")
    if status["NoNewPrivs"] != "1":
        raise StillPrivilegedError("can gain new privileges")
    for regain in (os.setuid, os.setgid):
        try:
            regain(0)
        except PermissionError:
            continue
        raise StillPrivilegedError(f"can become root again ({regain.__name__})")


def main() -> None:
    """Exits 70 where the privileges can't be dropped: nothing has been listened on by then."""
    lines, problem = subscribe()
    try:
        drop_privileges()
    except (StillPrivilegedError, OSError, KeyError) as error:
        print(f"supervise: privileges not dropped: {error}", file=sys.stderr)
        raise SystemExit(EX_SOFTWARE) from None
    # Here, and not above: none of it is ever run by root.
    from sidecars.supervise import server  # noqa: PLC0415

    server.main(lines, problem)


if __name__ == "__main__":
    main()
