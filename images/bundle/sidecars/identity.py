"""Acting as another user with CAP_SETUID and CAP_SETGID alone.

Root without CAP_DAC_OVERRIDE and CAP_CHOWN can neither read another user's private file nor give a file away. It can
become that user for a moment, which needs no more than an init that starts daemons under their own users has anyway.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """The effective uid and gid are `uid` and `gid` inside the block. For single-threaded programs."""
    before = os.geteuid(), os.getegid()
    # The group first and last: without uid 0 it can't be changed.
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])


def user_ids(name: str) -> tuple[int, int]:
    """The uid and gid of the user `name`. Raises `KeyError`."""
    entry = pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid


def become(name: str) -> None:
    """For good, and only where the caller is root: the operator's commands run as the daemon that they talk to."""
    if os.geteuid() != 0:
        return
    uid, gid = user_ids(name)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
