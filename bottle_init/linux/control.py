"""The control socket: `health`, `status` and `ctl` ask here (contract 6).

The protocol is made to be typed by hand. A client sends one line and gets its answer, and then the
connection is closed:

    health                          the verdict alone on a line, then a line for each daemon
    health json, status             one JSON object on one line
    ctl stop, ctl renew             `ok TEXT`, `error TEXT` (refused) or `usage TEXT` (not understood)
    ctl start|stop|restart NAME     the same
    ctl signal NAME NUMBER          the same
    events                          one JSON object a line, the first one a status; until either side ends it

No client is ever waited for: input and output are bounded, and whoever exceeds the bounds is told
and closed.
"""

from __future__ import annotations

import _socket
import errno
import posix
from select import EPOLLIN, EPOLLOUT

from bottle_init.core import health
from bottle_init.core.events import (
    ChildRestartOrdered,
    ChildSignalOrdered,
    ChildStartOrdered,
    ChildStopOrdered,
    LeaseRenewed,
    StopOrdered,
)
from bottle_init.core.words import ALIVE, DAEMON
from bottle_init.linux.sys import peer
from bottle_init.linux.sys.clock import wall_s
from bottle_init.words import jsonlines
from bottle_init.words.text import plain, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.core.events import Event
    from bottle_init.core.health import DaemonHealth
    from bottle_init.core.state import Child, State
    from bottle_init.linux.sys.poller import Poller

MAX_CLIENTS = 32
MAX_FOLLOWERS = 16
MAX_LINE = 4_096
"""Bytes of a request."""

MAX_BEHIND = 65_536
"""Bytes that a follower may be behind, beyond what the kernel's own buffer holds."""

_ACCEPTS = 16
_PAUSE_MS = 1_000
_BACKLOG = 128
_SHOWN = 60
_REASON = 250
_S_IFMT = 0o170000
_S_IFSOCK = 0o140000
_STREAM = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC

_USAGE = "usage requests are: health, health json, status, events, ctl stop, ctl renew, "
_USAGE += "ctl start|stop|restart NAME, ctl signal NAME NUMBER\n"

_ORDERS = {"start": ChildStartOrdered, "stop": ChildStopOrdered, "restart": ChildRestartOrdered}


class _Client:
    """One connection, in one of these states: asking, waiting for an `Answer`, following, or being said goodbye."""

    __slots__ = ("asking", "connection", "following", "leaving", "mask", "pid", "received", "to_send", "uid")

    def __init__(self, connection: _socket.socket, pid: int, uid: int) -> None:
        self.connection = connection
        self.pid = pid
        self.uid = uid
        self.asking = True
        self.following = False
        self.leaving = False
        self.mask = EPOLLIN
        self.received = b""
        self.to_send = bytearray()


class Control:
    """The server. `view()` gives the core's present state and the time, in monotonic milliseconds."""

    def __init__(
        self,
        address: str,
        poller: Poller,
        emit: Callable[[Event], None],
        view: Callable[[], tuple[State, int]],
    ) -> None:
        self._address = address
        self._poller = poller
        self._emit = emit
        self._view = view
        self._listener: _socket.socket | None = None
        self._resume_at_ms: int | None = None
        self._owned: tuple[int, int] | None = None
        self._clients: dict[int, _Client] = {}
        self._requests: dict[int, _Client] = {}
        self._last_request = 0

    def open(self) -> str:
        """Listen; returns "" or, in words, why that cannot be. It is not fatal to anything (contract 6)."""
        if not self._address:
            return ""
        try:
            self._listener = self._listen()
        except OSError as problem:
            taken = problem.errno == errno.EADDRINUSE
            reason = "somebody else listens there, or it is no socket" if taken else problem.strerror or str(problem)
            return f"{self._address}: {reason}"
        self._poller.watch(self._listener.fileno(), EPOLLIN, self._accept)
        return ""

    def close(self) -> None:
        """Hand over what each client still takes at once, and close everything."""
        for client in list(self._clients.values()):
            self._flush(client)
            self._drop(client)
        if self._listener is not None:
            self._poller.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
        self._resume_at_ms = None
        self._unlink_own()

    def deadline_ms(self) -> int | None:
        """When `tick` has to be called even if nothing happens."""
        return self._resume_at_ms

    def tick(self, now_ms: int) -> None:
        """Let clients in again after a pause."""
        if self._resume_at_ms is not None and self._resume_at_ms <= now_ms and self._listener is not None:
            self._resume_at_ms = None
            self._poller.watch(self._listener.fileno(), EPOLLIN, self._accept)

    def answer(self, request: int, done: bool, text: str) -> None:
        """Carry out the core's `Answer`. A client that has left in the meantime gets none."""
        client = self._requests.pop(request, None)
        if client is not None:
            self._say(client, f"{'ok' if done else 'error'} {plain(text, MAX_LINE)}\n")

    def publish(self, line: bytes) -> None:
        """Pass one event (a line without its end) on to all that follow; who is too far behind is told and closed."""
        for client in [client for client in self._clients.values() if client.following]:
            if len(client.to_send) + len(line) > MAX_BEHIND:
                client.following = False
                client.leaving = True
                client.to_send += _own_event("follower_too_slow", "warning", ("advice", "follow again"))
            else:
                client.to_send += line + b"\n"
            self._flush(client)

    # The listening socket.

    def _listen(self) -> _socket.socket:
        listener = _socket.socket(_socket.AF_UNIX, _STREAM)
        try:
            if self._address.startswith("@"):
                listener.bind("\0" + self._address[1:])
            else:
                self._bind_path(listener)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    def _bind_path(self, listener: _socket.socket) -> None:
        """Bind for the owner alone; what a dead init has left there makes room, anything else does not."""
        umask = posix.umask(0o177)
        try:
            try:
                listener.bind(self._address)
            except OSError as problem:
                if problem.errno != errno.EADDRINUSE or not _is_stale(self._address):
                    raise
                posix.unlink(self._address)
                listener.bind(self._address)
        finally:
            posix.umask(umask)
        found = posix.lstat(self._address)
        self._owned = (found.st_dev, found.st_ino)

    def _unlink_own(self) -> None:
        if self._owned is None:
            return
        try:
            found = posix.lstat(self._address)
            if (found.st_dev, found.st_ino) == self._owned:
                posix.unlink(self._address)
        except OSError:
            pass  # Somebody has removed it already, or the filesystem has become read-only.
        self._owned = None

    def _accept(self, _mask: int) -> None:
        for _ in range(_ACCEPTS):
            if self._listener is None:
                return
            try:
                fd = _accept(self._listener)
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno != errno.ECONNABORTED:
                    self._pause()
                return
            self._welcome(_socket.socket(_socket.AF_UNIX, _STREAM, 0, fd))

    def _pause(self) -> None:
        """No descriptor or no memory is left: a client that cannot be let in must not wake the init all the time."""
        if self._listener is not None:
            self._poller.forget(self._listener.fileno())
            self._resume_at_ms = self._view()[1] + _PAUSE_MS

    def _welcome(self, connection: _socket.socket) -> None:
        connection.setblocking(False)
        pid, uid = peer.credentials(connection)
        refusal = peer.objection(pid, uid)
        if not refusal and len(self._clients) >= MAX_CLIENTS and not self._make_room():
            refusal = "too many clients"
        client = _Client(connection, pid, uid)
        self._clients[connection.fileno()] = client
        self._poller.watch(connection.fileno(), client.mask, lambda _: self._serve(client))
        if refusal:
            self._say(client, f"error refused: {refusal}\n")
            self._drop(client)
        else:
            self._hear(client)  # What it has said already is of this wake-up, and so comes before its deaths.

    def _make_room(self) -> bool:
        """Close the oldest client that keeps nobody busy: it has not asked yet, or does not take its answer."""
        for client in self._clients.values():
            if client.asking or client.leaving:
                self._drop(client)
                return True
        return False

    # A client.

    def _serve(self, client: _Client) -> None:
        if client.connection.fileno() < 0:
            return
        if client.asking:
            self._hear(client)
        else:
            self._flush(client)

    def _hear(self, client: _Client) -> None:
        try:
            piece = client.connection.recv(MAX_LINE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        client.received += piece
        line, ended, _ = client.received.partition(b"\n")
        if len(line) > MAX_LINE:
            self._say(client, f"usage a request is at most {MAX_LINE} bytes long\n")
        elif ended:
            self._respond(client, line)
        elif not piece:
            self._drop(client)

    def _respond(self, client: _Client, line: bytes) -> None:
        """Carry out one request."""
        client.asking = False
        words = line.decode("utf-8", "replace").split()
        state, now_ms = self._view()
        if words == ["health"]:
            self._say(client, health_text(state, now_ms))
        elif words == ["health", "json"]:
            self._say(client, jsonlines.dumps(health_facts(state, now_ms)) + "\n")
        elif words == ["status"]:
            self._say(client, jsonlines.dumps(status_facts(state, now_ms)) + "\n")
        elif words == ["events"]:
            self._follow(client, state, now_ms)
        elif len(words) > 1 and words[0] == "ctl":
            self._order(client, words[1:], state)
        else:
            self._say(client, _USAGE)

    def _follow(self, client: _Client, state: State, now_ms: int) -> None:
        if sum(other.following for other in self._clients.values()) >= MAX_FOLLOWERS:
            self._say(client, "error too many followers\n")
            return
        client.following = True
        client.to_send += _own_event("following", "info", ("status", status_facts(state, now_ms)))
        self._flush(client)

    def _order(self, client: _Client, words: list[str], state: State) -> None:
        """Hand an order to the core, which answers it."""
        request = self._last_request + 1
        event: Event | None = None
        if words == ["stop"]:
            event = StopOrdered(request, client.pid, client.uid)
        elif words == ["renew"]:
            event = LeaseRenewed(request)
        elif len(words) == 2 and words[0] in _ORDERS:
            child = self._find(client, words[1], state)
            if child is None:
                return
            event = _ORDERS[words[0]](child.index, request)
        elif len(words) == 3 and words[0] == "signal" and _is_signal(words[2]):
            child = self._find(client, words[1], state)
            if child is None:
                return
            event = ChildSignalOrdered(child.index, int(words[2]), request)
        if event is None:
            self._say(client, _USAGE)
            return
        self._last_request = request
        self._requests[request] = client
        self._set_mask(client)
        self._emit(event)

    def _find(self, client: _Client, name: str, state: State) -> Child | None:
        for child in state.children:
            if child.spec.name == name:
                return child
        names = ", ".join(child.spec.name for child in state.children)
        self._say(client, f"usage nothing here is called {plain(name, _SHOWN)!r}; there are: {names}\n")
        return None

    def _say(self, client: _Client, text: str) -> None:
        """The last words to a client."""
        client.asking = client.following = False
        client.leaving = True
        client.to_send += text.encode("utf-8", "backslashreplace")
        self._flush(client)

    def _flush(self, client: _Client) -> None:
        """Send what the client takes now; the rest waits until it takes more, and nobody else with it."""
        if client.connection.fileno() < 0:
            return
        try:
            sent = client.connection.send(client.to_send, _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(client)
            return
        del client.to_send[:sent]
        if client.leaving and not client.to_send:
            self._drop(client)
        else:
            self._set_mask(client)

    def _set_mask(self, client: _Client) -> None:
        """A hang-up is always seen; data that nobody is going to read does not wake the init."""
        mask = (EPOLLIN if client.asking else 0) | (EPOLLOUT if client.to_send else 0)
        if mask != client.mask:
            client.mask = mask
            self._poller.change(client.connection.fileno(), mask)

    def _drop(self, client: _Client) -> None:
        fd = client.connection.fileno()
        if fd < 0:
            return
        self._poller.forget(fd)
        del self._clients[fd]
        client.connection.close()
        for request in [number for number, waiting in self._requests.items() if waiting is client]:
            del self._requests[request]


def _own_event(event: str, level: str, fact: tuple[str, object]) -> bytes:
    """A line to followers that is about the following itself."""
    return jsonlines.encode(event, level, (fact,), jsonlines.timestamp(wall_s())) + b"\n"


def _accept(listener: _socket.socket) -> int:
    """accept4(2), as `_socket` names it; the descriptor is not inheritable. Raises OSError."""
    fd: int = listener._accept()[0]  # type: ignore[attr-defined]  # noqa: SLF001
    return fd


def _is_stale(path: str) -> bool:
    """Whether `path` is a socket at which nobody listens any more."""
    if posix.lstat(path).st_mode & _S_IFMT != _S_IFSOCK:
        return False
    knock = _socket.socket(_socket.AF_UNIX, _STREAM)
    try:
        return knock.connect_ex(path) == errno.ECONNREFUSED
    finally:
        knock.close()


def _is_signal(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 2 and 1 <= int(word) <= 64


# What is told. All times are ages in milliseconds: a monotonic clock says nothing to another process.


def health_text(state: State, now_ms: int) -> str:
    """The verdict alone on the first line, for clients that cannot afford a JSON parser; then the daemons."""
    answer = health.answer(state)
    width = max((len(daemon.name) for daemon in answer.daemons), default=0)
    lines = [f"{daemon.name:{width}}  {daemon.health:9}  {_story(daemon, now_ms)}" for daemon in answer.daemons]
    return "\n".join([answer.health, *lines]) + "\n"


def _story(daemon: DaemonHealth, now_ms: int) -> str:
    text = f"{daemon.status} for {span(now_ms - daemon.since_ms)}"
    if daemon.check_at_ms is not None and daemon.check_since_ms is not None:
        now, always = ("passed", "passing") if daemon.check else ("failed", "failing")
        unchanged = span(now_ms - daemon.check_since_ms)
        text += f", check {now} {span(now_ms - daemon.check_at_ms)} ago, {always} for {unchanged}"
    return f"{text}: {plain(daemon.detail, _REASON)}" if daemon.detail else text


def health_facts(state: State, now_ms: int) -> dict[str, object]:
    """The same answer for programs."""
    answer = health.answer(state)
    return {"health": answer.health, "daemons": [_daemon_facts(daemon, now_ms) for daemon in answer.daemons]}


def _daemon_facts(daemon: DaemonHealth, now_ms: int) -> dict[str, object]:
    check: dict[str, object] | None = None
    if daemon.check is not None:
        check = {
            "passed": daemon.check,
            "ago_ms": _age(daemon.check_at_ms, now_ms),
            "unchanged_ms": _age(daemon.check_since_ms, now_ms),
        }
    return {
        "name": daemon.name,
        "health": daemon.health,
        "state": daemon.status,
        "state_ms": now_ms - daemon.since_ms,
        "start": daemon.generation,
        "check": check,
        "detail": daemon.detail,
    }


def status_facts(state: State, now_ms: int) -> dict[str, object]:
    """All children, the health of those that are daemons with them, and the stop if one is under way."""
    answer = health.answer(state)
    daemons = {daemon.name: daemon for daemon in answer.daemons}
    stop = state.stop
    return {
        "pid": posix.getpid(),
        "health": answer.health,
        "phase": state.phase,
        "policy": state.bundle.policy,
        "stop": None if stop is None else {"kind": stop.kind, "cause": stop.cause, "ago_ms": now_ms - stop.at_ms},
        "lease_ms": None if state.lease_at_ms is None else max(0, state.lease_at_ms - now_ms),
        "children": [_child_facts(child, daemons.get(child.spec.name), now_ms) for child in state.children],
    }


def _child_facts(child: Child, daemon: DaemonHealth | None, now_ms: int) -> dict[str, object]:
    alive = child.status in ALIVE
    death = child.last_death
    facts: dict[str, object] = {
        "name": child.spec.name,
        "kind": child.spec.kind,
        "state": child.status,
        "state_ms": now_ms - child.since_ms,
        "pid": child.pid if alive and child.pid else None,
        "uptime_ms": now_ms - child.started_at_ms if alive and child.pid else None,
        "restarts": max(0, child.generation - 1),
        "says": child.text,
        "last_exit": None,
    }
    if death is not None:
        facts["last_exit"] = {
            "code": death.code,
            "signal": death.signal or None,
            "ago_ms": now_ms - death.at_ms,
            "ran_ms": death.ran_ms,
            "detail": death.detail,
        }
    if daemon is not None and child.spec.kind == DAEMON:
        told = _daemon_facts(daemon, now_ms)
        facts.update({key: told[key] for key in ("health", "start", "check", "detail")})
    return facts


def _age(at_ms: int | None, now_ms: int) -> int | None:
    return None if at_ms is None else now_ms - at_ms
