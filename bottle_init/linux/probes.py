"""Probes: one question to a daemon, answered once, later, without ever waiting (contract 4 and 6).

The core has at most one probe of a child's out, knows how long it may take, and cancels it when
that is over; nothing here has a clock. Every reason for a no is a sentence for people.
"""

from __future__ import annotations

import _socket
import errno
import posix
from select import EPOLLIN, EPOLLOUT

from bottle_init.core.events import ProbeFailed, ProbeSucceeded
from bottle_init.words.text import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bottle_init.core.events import Event
    from bottle_init.core.spec import Probe
    from bottle_init.linux.sys.poller import Poller

    Key = tuple[int, int, int]
    Answer = Callable[["str | None"], None]

LOCALHOST = ("127.0.0.1", "::1")
"""What `localhost` is tried as; no resolver is ever asked, because that could block."""

_STATUS_LINE = 1_024
"""Bytes within which an HTTP status line has to end."""

_INTERIM = 8_192
"""Bytes of an interim answer (1xx), which may have headers, before the one that counts."""

_LEFTOVER_READS = 64
_READ = 1_024
_OUTPUT_READ = 65_536
_OUTPUT_KEPT = 2_048
_REASON = 200
_IN_PROGRESS = (errno.EINPROGRESS, errno.EINTR)


class Probes:
    """All probes that are out.

    `run(child, command, output)` starts a command as that child would be started, in a session of
    its own, writing to the descriptor `output`; it returns the pid or raises OSError.
    `end(pid)` ends one that has not been reaped, with its session and all below it, and returns "" or why the kernel
    refuses that; `kill_leftovers(pid)` ends what is left of a session whose leader has been.
    """

    def __init__(
        self,
        poller: Poller,
        emit: Callable[[Event], None],
        run: Callable[[int, tuple[str, ...], int], int],
        end: Callable[[int], str],
        kill_leftovers: Callable[[int], object],
    ) -> None:
        self._poller = poller
        self._emit = emit
        self._run = run
        self._end = end
        self._kill_leftovers = kill_leftovers
        self._out: dict[Key, _Connection | _Command] = {}
        self._commands: dict[int, _Command] = {}
        self._closing: dict[int, _Connection] = {}
        self._deathless: dict[int, tuple[int, str]] = {}
        """Of each child the probe that could not be ended, and why; it gets no other until that one has ended."""

    def start(self, child: int, generation: int, probe: int, how: Probe) -> None:
        """Ask; `ProbeSucceeded` or `ProbeFailed` is emitted once, unless the probe is cancelled before."""
        key = (child, generation, probe)
        if child in self._closing:
            self._closing.pop(child).drop()
        if how.kind == "exec":
            if child in self._deathless:
                pid, why = self._deathless[child]
                self._emit(ProbeFailed(*key, f"the last probe, process {pid}, may not be ended: {why}"))
            else:
                self._start_command(key, how.command)
            return

        def answer(reason: str | None) -> None:
            self._closing[child] = connection
            self._answer(key, reason)

        connection = _Connection(self._poller, how, answer)
        self._out[key] = connection
        connection.connect()

    def cancel(self, child: int, generation: int, probe: int) -> None:
        """Forget a probe, and end everything that it has started."""
        question = self._out.pop((child, generation, probe), None)
        if question is not None:
            question.drop()
            if isinstance(question, _Command) and (refusal := self._end(question.pid)):
                self._deathless[child] = question.pid, refusal

    def knows(self, pid: int) -> bool:
        """Whether this process is a probe's that has not been reaped."""
        return pid in self._commands

    def reaped(self, pid: int, status: int) -> bool:
        """Take note of a process that has been reaped, with its wait status; False if it was no probe's."""
        command = self._commands.pop(pid, None)
        if command is None:
            return False
        self._deathless = {child: one for child, one in self._deathless.items() if one[0] != pid}
        if self._out.get(command.key) is command:
            self._answer(command.key, command.verdict(posix.waitstatus_to_exitcode(status)))
            command.drop()
        self._kill_leftovers(pid)
        return True

    def _answer(self, key: Key, reason: str | None) -> None:
        if self._out.pop(key, None) is not None:
            self._emit(ProbeSucceeded(*key) if reason is None else ProbeFailed(*key, reason))

    def _start_command(self, key: Key, command: tuple[str, ...]) -> None:
        output = -1
        try:
            reading, output = posix.pipe2(posix.O_CLOEXEC)
            posix.set_blocking(reading, False)
            try:
                pid = self._run(key[0], command, output)
            except OSError:
                posix.close(reading)
                raise
        except OSError as problem:
            self._emit(ProbeFailed(*key, f"{command[0]} could not be started: {problem.strerror or problem}"))
            return
        finally:
            if output >= 0:
                posix.close(output)
        self._out[key] = self._commands[pid] = _Command(self._poller, key, pid, reading)


class _Command:
    """An exec probe that runs: its exit code is the answer, its last line the reason."""

    def __init__(self, poller: Poller, key: Key, pid: int, output: int) -> None:
        self.key = key
        self.pid = pid
        self._poller = poller
        self._output = output
        self._tail = b""
        poller.watch(output, EPOLLIN, self._read)

    def verdict(self, code: int) -> str | None:
        """None for a yes, else the reason; `code` is the exit code, or the negative of a signal."""
        if code == 0:
            return None
        self._read(0)
        how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
        last = plain(self._tail.rstrip().rpartition(b"\n")[2], _REASON)
        return f"{how}: {last}" if last else how

    def drop(self) -> None:
        """Listen to it no more."""
        if self._output >= 0:
            self._poller.forget(self._output)
            posix.close(self._output)
            self._output = -1

    def _read(self, _mask: int) -> None:
        """Take one bounded piece, and keep no more of all of it than a last line."""
        if self._output < 0:
            return
        try:
            piece = posix.read(self._output, _OUTPUT_READ)
        except BlockingIOError:
            return
        self._tail = (self._tail + piece)[-_OUTPUT_KEPT:]
        if not piece:
            self.drop()


class _Connection:
    """A tcp or http probe: connect to the addresses in turn; the first that accepts is the one that is asked."""

    def __init__(self, poller: Poller, how: Probe, answer: Answer) -> None:
        self._poller = poller
        self._answer = answer
        self._how = how
        self._addresses = [how.socket] if how.socket else list(LOCALHOST) if how.host == "localhost" else [how.host]
        self._host = ""
        self._faults: list[str] = []
        self._socket: _socket.socket | None = None
        self._to_send = b""
        self._received = b""
        self._leftover_reads = _LEFTOVER_READS

    def connect(self) -> None:
        """Try the next address; where none is left, the answer is no, for all that was met."""
        while self._addresses:
            self._host = self._addresses.pop(0)
            try:
                family, address = self._resolved()
                self._socket = _socket.socket(
                    family, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
                )
                error = self._socket.connect_ex(address)
                if error == 0 or error in _IN_PROGRESS:
                    self._poller.watch(self._socket.fileno(), EPOLLOUT, self._connected)
                    return
                self._note(error)
            except OSError as problem:
                self._note(problem.errno or errno.EINVAL)
        self._answer("; ".join(self._faults))

    def _resolved(self) -> tuple[int, Any]:
        """The family and the address of what is tried now. Raises OSError for a host that is no address."""
        if self._how.socket:
            name = self._host.encode("utf-8", "surrogateescape")
            return _socket.AF_UNIX, b"\0" + name[1:] if name.startswith(b"@") else name
        family = _socket.AF_INET6 if ":" in self._host else _socket.AF_INET
        _socket.inet_pton(family, self._host)
        return family, (self._host, self._how.port)

    def drop(self) -> None:
        """Close."""
        if self._socket is not None:
            self._poller.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _note(self, error: int) -> None:
        """Remember why this address will not do."""
        self.drop()
        where = f"{f'[{self._host}]' if ':' in self._host else self._host}:{self._how.port}"
        if self._how.socket:
            where = f"unix:{self._host}"
        what = posix.strerror(error).lower()
        by = "by" if error in (errno.ECONNREFUSED, errno.ECONNRESET) else "at"
        self._faults.append(f"{what} {by} {where}")

    def _connected(self, _mask: int) -> None:
        """The attempt is over, unless the poller meant an earlier owner of the same descriptor."""
        connection = self._socket
        if connection is None:
            return
        error = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        try:
            # Where nobody listens, a connection to a port that the kernel also hands out to clients can meet itself.
            if not error and connection.getpeername() == connection.getsockname():
                error = errno.ECONNREFUSED
        except OSError:
            return
        if error:
            self._note(error)
            self.connect()
        elif self._how.kind == "tcp":
            self.drop()
            self._answer(None)
        else:
            self._to_send = _request(self._how)
            self._poller.forget(connection.fileno())
            self._poller.watch(connection.fileno(), EPOLLOUT, self._send)
            self._send(_mask)

    def _send(self, _mask: int) -> None:
        if self._socket is None:
            return
        try:
            sent = self._socket.send(self._to_send, _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError as problem:
            self._fail(problem.errno or errno.EPIPE)
            return
        self._to_send = self._to_send[sent:]
        if not self._to_send:
            self._poller.forget(self._socket.fileno())
            self._poller.watch(self._socket.fileno(), EPOLLIN, self._receive)

    def _receive(self, _mask: int) -> None:
        """Take a piece of the status line; nothing after it matters."""
        if self._socket is None:
            return
        try:
            piece = self._socket.recv(_STATUS_LINE)
        except BlockingIOError:
            return
        except OSError as problem:
            self._fail(problem.errno or errno.EIO)
            return
        self._received += piece
        while _is_interim(self._received) and b"\r\n\r\n" in self._received:
            self._received = self._received.partition(b"\r\n\r\n")[2]
        if _is_interim(self._received) and len(self._received) < _INTERIM and piece:
            return
        line, ended, _ = self._received.partition(b"\n")
        if ended or len(line) >= _STATUS_LINE or not piece:
            self._judge(line)

    def _judge(self, line: bytes) -> None:
        if not line:
            self.drop()
            self._answer("the connection was closed without an answer")
            return
        words = line.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or len(words[1]) != 3 or not words[1].isdigit():
            self.drop()
            self._answer(f"not an HTTP answer: {plain(line, 60)}")
            return
        self._leave()
        status = int(words[1])
        self._answer(None if 200 <= status < 400 else f"HTTP {status}")

    def _leave(self) -> None:
        """Let the server finish its answer, within bounds: a connection that is reset fills its log."""
        if self._socket is not None:
            self._poller.forget(self._socket.fileno())
            self._poller.watch(self._socket.fileno(), EPOLLIN, self._discard)

    def _discard(self, _mask: int) -> None:
        if self._socket is None:
            return
        self._leftover_reads -= 1
        try:
            more = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        if not more or self._leftover_reads == 0:
            self.drop()

    def _fail(self, error: int) -> None:
        self._note(error)
        self._answer(self._faults[-1])


def _is_interim(answer: bytes) -> bool:
    """Whether another answer follows this one (RFC 9110, 15.2); 101 is the last that is in HTTP."""
    return answer.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")) and answer[9:12] != b"101"


def _request(how: Probe) -> bytes:
    """RFC 9112: the shortest request that every server of HTTP/1.1 has to answer."""
    host = f"{f'[{how.host}]' if ':' in how.host else how.host}:{how.port}"
    headers = {"host": ("Host", "localhost" if how.socket else host)}
    headers |= {"user-agent": ("User-Agent", "bottle_init"), "accept": ("Accept", "*/*")}
    headers |= {name.lower(): (name, value) for name, value in how.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.values())
    return f"GET {how.path or '/'} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode()
