"""Leaves a program, and all that it starts, three kinds of sockets, without any privilege, and becomes that program.

It runs by itself inside a container (`python3 -I -S -c SOURCE COMMAND ARGUMENTS…`), on an engine that takes no filter
of system calls of ours, and where a container's interface keeps a link-local address: by IPv6 its node answers past
every rule of IPv4.

A filter (seccomp(2)) refuses socket(2) but for Unix sockets, IPv4 and netlink, with EAFNOSUPPORT, as a kernel without
the others does. It refuses io_uring, which makes sockets by no system call that a filter sees, and the 32-bit
socketcall(2), whose arguments are in memory. A filter is never taken away again.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    Instruction = tuple[int, int, int, int]

# linux/bpf_common.h, linux/seccomp.h, linux/prctl.h
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
ALLOW, ERROR = 0x7FFF0000, 0x00050000
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, MODE_FILTER = 22, 38, 2
AF_UNIX, AF_INET, AF_NETLINK = 1, 2, 16
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
IO_URING_SETUP, X32_BIT = 425, 0x40000000
# linux/audit.h: the architecture, socket(2) there, and what is refused besides.
ARCHITECTURES = {
    "x86_64": ((0xC000003E, 41, (IO_URING_SETUP,)), (0x40000003, 359, (IO_URING_SETUP, 102))),
    "aarch64": ((0xC00000B7, 198, (IO_URING_SETUP,)), (0x40000028, 281, (IO_URING_SETUP, 102))),
}
"""For each machine its own architecture, and the one of its 32-bit programs."""


def instructions(machine: str) -> list[Instruction]:
    """The filter, as code, jumps and operand of each instruction (struct sock_filter). Raises `KeyError`."""
    found: list[Instruction] = []
    for architecture, socket, refused in ARCHITECTURES[machine]:
        block: list[Instruction] = [(LOAD, 0, 0, NUMBER)]
        block += [(AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, ERROR | EPERM)]
        for number in refused:
            block += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ERROR | EPERM)]
        block += [(EQUAL, 1, 0, socket), (RETURN, 0, 0, ALLOW)]
        block += [(LOAD, 0, 0, FIRST_ARGUMENT)]
        for family in (AF_UNIX, AF_INET, AF_NETLINK):
            block += [(EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW)]
        block += [(RETURN, 0, 0, ERROR | EAFNOSUPPORT)]
        found += [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 0, len(block), architecture), *block]
    return [*found, (RETURN, 0, 0, ERROR | ENOSYS)]


def confine() -> None:
    """Set the filter. Raises `OSError` where the kernel refuses it, and `KeyError` on another machine."""
    code = instructions(os.uname().machine)
    program = b"".join(struct.pack("=HBBI", *each) for each in code)
    buffer = ctypes.create_string_buffer(program, len(program))
    order = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(buffer)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    nothing = ctypes.c_ulong(0)
    for option, value, pointer in (
        (PR_SET_NO_NEW_PRIVS, 1, nothing),
        (PR_SET_SECCOMP, MODE_FILTER, ctypes.c_void_p(ctypes.addressof(order))),
    ):
        if prctl(option, ctypes.c_ulong(value), pointer, nothing, nothing):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    """Never returns: it becomes the command, or ends with 1 and the reason, and the command is not run."""
    try:
        confine()
    except KeyError as error:
        sys.exit(f"there is no filter of sockets for a machine of this kind: {error}")
    except OSError as error:
        sys.exit(f"the kernel takes no filter of sockets: {error}")
    try:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 -- no shell is wanted
    except OSError as error:
        print(f"{sys.argv[1]}: {error.strerror}", file=sys.stderr)
        sys.exit(126 if isinstance(error, PermissionError) else 127)


if __name__ == "__main__":
    main()
