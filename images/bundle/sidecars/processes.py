"""Running a short command to its end. What `subprocess` offers besides costs setup as long as all of its commands."""

from __future__ import annotations

import os

from bottle_init.core.values import Value


class Finished(Value):
    """What became of a command. `code` is 128 + s for one that a signal s killed, 127 for one that could not start."""

    code: int
    output: bytes
    errors: bytes


def run(command: tuple[str, ...], stdin: bytes = b"") -> Finished:
    """Runs a command, by its absolute path, to its end. Its input and output are memory files: no pipe can fill."""
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    try:
        os.write(files[0], stdin)
        os.lseek(files[0], 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(files)]
        pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output, errors = (_content(descriptor) for descriptor in files[1:])
        return Finished(code if code >= 0 else 128 - code, output, errors)
    except OSError as error:
        return Finished(127, b"", f"{command[0]}: {error.strerror}".encode())
    finally:
        for descriptor in files:
            os.close(descriptor)


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
