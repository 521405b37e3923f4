"""A process whose wall clock a test can step, without a step of the machine's.

Importing this replaces the C library's clock_gettime(2) in the memory of the process: code that asks it for
CLOCK_REALTIME, in C or in Python, gets the kernel's time and as many seconds more as the file `$STEPS` says. All other
clocks are the kernel's. What the process executes later has the kernel's own clocks again.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

STEPS = "STEPS"
"""The environment variable that names the file: one signed 64-bit number, which may change at any time."""

_STUB = (
    b"\xb8\xe4\x00\x00\x00"  # mov eax, 228: clock_gettime(edi, rsi), by a system call that leaves both as they are
    b"\x0f\x05"  # syscall
    b"\x85\xff"  # test edi, edi: CLOCK_REALTIME is 0
    b"\x75\x10"  # jnz to the end
    b"\x48\xb9%b"  # mov rcx, the address of the seconds
    b"\x48\x8b\x09"  # mov rcx, [rcx]
    b"\x48\x01\x0e"  # add [rsi], rcx: timespec.tv_sec
    b"\xc3"  # ret
)
_JUMP = b"\x48\xb8%b\xff\xe0"  # mov rax, the address of the stub; jmp rax


def _map(library: ctypes.CDLL, protection: int, flags: int, fd: int) -> int:
    """A page that stays to the very end of the process, which asks for the time even then. Raises OSError."""
    library.mmap.restype = ctypes.c_void_p
    address: int | None = library.mmap(None, ctypes.c_size_t(mmap.PAGESIZE), protection, flags, fd, ctypes.c_long(0))
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap")
    return address or 0


def _install(path: str) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    with open(path, "rb") as file:
        seconds = _map(library, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno())
    stub = _map(library, everything, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
    code = _STUB % struct.pack("<q", seconds)
    ctypes.memmove(stub, code, len(code))
    target = ctypes.cast(library.clock_gettime, ctypes.c_void_p).value or 0
    page = target - target % mmap.PAGESIZE
    if library.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(2 * mmap.PAGESIZE), everything):
        raise OSError(ctypes.get_errno(), "mprotect")
    jump = _JUMP % struct.pack("<q", stub)
    ctypes.memmove(target, jump, len(jump))


_install(os.environ[STEPS])
