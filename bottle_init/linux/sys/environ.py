"""What the init was given: its environment, and the directory that relative paths are from."""

from __future__ import annotations

import posix

_COERCED = b"LC_CTYPE"


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


def socket_address(address: str) -> str:
    """The address of a Unix socket; `@name` (an abstract one) and `""` (none) are no paths."""
    return address if not address or address.startswith("@") else absolute(address)


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
