"""The signals that reach the init: all blocked, and read from one descriptor with who sent them.

A signalfd needs no handler, so nothing of the init is ever interrupted, and it is the one way to
learn the sender (siginfo) without a thread.
"""

from __future__ import annotations

from _signal import SIG_BLOCK, SIG_DFL, SIG_IGN, getsignal, pthread_sigmask, signal, valid_signals
from posix import read

from bottle_init.linux.sys import libc

SIGCHLD = 17

OF_ITS_OWN_WRITES = (13, 25)
"""PIPE and XFSZ: with itself as the sender, a process gets them for a write that fails. The write says so as well."""

_RECORD = 128
_BATCH = 32 * _RECORD
_SI_KERNEL_OR_TIMER = 0


class Signals:
    """Blocks every signal, for the init's whole life, and reads them in the order of the kernel."""

    def __init__(self) -> None:
        every = valid_signals()
        pthread_sigmask(SIG_BLOCK, every)
        if getsignal(SIGCHLD) is SIG_IGN:
            signal(SIGCHLD, SIG_DFL)  # Inherited ignored, it would take every child's wait status away (wait(2)).
        libc.set_threading_signals(ignored=True)  # No mask has them.
        self.fd = libc.signalfd(every)

    def take(self) -> list[tuple[int, int, int | None]]:
        """All pending signals as `(number, sender's pid, sender's uid)`; pid 0 where no process sent it."""
        taken: list[tuple[int, int, int | None]] = []
        while True:
            try:
                records = read(self.fd, _BATCH)
            except BlockingIOError:
                return taken
            taken.extend(_decode(records, start) for start in range(0, len(records), _RECORD))
            if len(records) < _BATCH:
                return taken


def _decode(records: bytes, start: int) -> tuple[int, int, int | None]:
    """The fields of one signalfd_siginfo: ssi_signo, ssi_code at 8, ssi_pid at 12, ssi_uid at 16."""
    number = int.from_bytes(records[start : start + 4], "little")
    code = int.from_bytes(records[start + 8 : start + 12], "little", signed=True)
    if code > _SI_KERNEL_OR_TIMER:
        return number, 0, None
    pid = int.from_bytes(records[start + 12 : start + 16], "little")
    uid = int.from_bytes(records[start + 16 : start + 20], "little")
    return number, pid, uid
