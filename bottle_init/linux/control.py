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

import posix

from bottle_init.core import status
from bottle_init.core.events import (
    ChildRestartOrdered,
    ChildSignalOrdered,
    ChildStartOrdered,
    ChildStopOrdered,
    LeaseRenewed,
    StopOrdered,
)
from bottle_init.linux.sys import peer, proc
from bottle_init.linux.sys.clock import wall_s
from bottle_init.linux.sys.listener import Connection, Listener
from bottle_init.words import jsonlines
from bottle_init.words.text import plain, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from bottle_init.core.events import Event
    from bottle_init.core.state import Child, State
    from bottle_init.core.status import DaemonHealth
    from bottle_init.linux.sys.poller import Poller

MAX_CLIENTS = 32
MAX_FOLLOWERS = 16
MAX_LINE = 4_096
"""Bytes of a request."""

MAX_BEHIND = 65_536
"""Bytes that a follower may be behind, beyond what the kernel's own buffer holds."""

_SHOWN = 60
_REASON = 250
_USAGE = "usage requests are: health, health json, status, events, ctl stop, ctl renew, "
_USAGE += "ctl start|stop|restart NAME, ctl signal NAME NUMBER\n"

_ORDERS = ("start", "stop", "restart")


def _ordered(verb: str, child: Child, request: int) -> Event:
    """The order of a verb. To end a child, the init must be let signal it, which signal 0 asks (kill(2))."""
    if verb == "start":
        return ChildStartOrdered(child.index, request)
    barred = proc.send_to_pid(child.pid, 0) if child.pid else ""
    return (ChildStopOrdered if verb == "stop" else ChildRestartOrdered)(child.index, request, barred)


class _Client(Connection):
    """One connection: asking (`heard`), waiting for an `Answer`, following, or leaving with its last words."""

    __slots__ = ("following", "leaving", "pid", "uid")

    def __init__(
        self, connection: _socket.socket, poller: Poller, serve: Callable[[_Client], None], pid: int, uid: int
    ) -> None:
        super().__init__(connection, poller, lambda: serve(self))
        self.pid = pid
        self.uid = uid
        self.following = False
        self.leaving = False


class Control:
    """The server. `view()` gives the core's present state and the time, in monotonic milliseconds.

    `note` is told why clients have to wait.
    """

    def __init__(
        self,
        address: str,
        poller: Poller,
        emit: Callable[[Event], None],
        view: Callable[[], tuple[State, int]],
        note: Callable[[str], None],
    ) -> None:
        self._poller = poller
        self._emit = emit
        self._view = view
        self._listener = Listener(address, poller, self._clock, self._welcome, note)
        self._clients: dict[_Client, None] = {}
        self._requests: dict[int, _Client] = {}
        self._last_request = 0

    def open(self) -> str:
        """Listen; returns "" or, in words, why that cannot be. It is not fatal to anything (contract 6)."""
        return self._listener.open()

    def close(self) -> None:
        """Hand over what each client still takes at once, and close everything."""
        for client in list(self._clients):
            self._flush(client)
            self._drop(client)
        self._listener.close()

    def deadline_ms(self) -> int | None:
        """When `tick` has to be called even if nothing happens."""
        return self._listener.deadline_ms()

    def tick(self, now_ms: int) -> None:
        """Let clients in again after a pause."""
        self._listener.tick(now_ms)

    def _clock(self) -> int:
        return self._view()[1]

    def answer(self, request: int, done: bool, text: str) -> None:
        """Carry out the core's `Answer`. A client that has left in the meantime gets none."""
        client = self._requests.pop(request, None)
        if client is not None:
            self._send(client, f"{'ok' if done else 'error'} {plain(text, MAX_LINE)}\n")

    def publish(self, line: bytes) -> None:
        """Pass one event (a line without its end) on to all that follow; who is too far behind is told and closed."""
        for client in [client for client in self._clients if client.following]:
            if len(client.to_send) + len(line) > MAX_BEHIND:
                client.following = False
                client.leaving = True
                client.to_send += _own_event("follower_too_slow", "warning", ("advice", "follow again"))
            else:
                client.to_send += line + b"\n"
            self._flush(client)

    # A client.

    def _welcome(self, connection: _socket.socket) -> None:
        pid, uid = peer.credentials(connection)
        refusal = peer.objection(pid, uid)
        if not refusal and len(self._clients) >= MAX_CLIENTS and not self._make_room():
            refusal = "too many clients"
        client = _Client(connection, self._poller, self._serve, pid, uid)
        self._clients[client] = None
        if refusal:
            self._send(client, f"error refused: {refusal}\n")
            self._drop(client)
        else:
            self._hear(client)  # What it has said already is of this wake-up, and so comes before its deaths.

    def _make_room(self) -> bool:
        """Close the oldest client that keeps nobody busy: it has not asked yet, or does not take its answer."""
        for client in self._clients:
            if client.heard or client.leaving:
                self._drop(client)
                return True
        return False

    def _serve(self, client: _Client) -> None:
        if client.is_open and client.heard:
            self._hear(client)
        else:
            self._flush(client)

    def _hear(self, client: _Client) -> None:
        goes_on = client.hear(MAX_LINE)
        line, ended, _ = client.received.partition(b"\n")
        if len(line) > MAX_LINE:
            self._send(client, f"usage a request is at most {MAX_LINE} bytes long\n")
        elif ended:
            self._respond(client, line)
        elif not goes_on:
            self._drop(client)

    def _respond(self, client: _Client, line: bytes) -> None:
        """Carry out one request."""
        client.heard = False
        words = line.decode("utf-8", "replace").split()
        state, now_ms = self._view()
        if words == ["health"]:
            self._send(client, health_text(state, now_ms))
        elif words == ["health", "json"]:
            self._send(client, jsonlines.dumps(status.health_facts(state, now_ms)) + "\n")
        elif words == ["status"]:
            self._send(client, jsonlines.dumps(status.facts(state, now_ms, posix.getpid())) + "\n")
        elif words == ["events"]:
            self._follow(client, state, now_ms)
        elif len(words) > 1 and words[0] == "ctl":
            self._order(client, words[1:], state)
        else:
            self._send(client, _USAGE)

    def _follow(self, client: _Client, state: State, now_ms: int) -> None:
        if sum(other.following for other in self._clients) >= MAX_FOLLOWERS:
            self._send(client, "error too many followers\n")
            return
        client.following = True
        client.to_send += _own_event("following", "info", ("status", status.facts(state, now_ms, posix.getpid())))
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
            event = _ordered(words[0], child, request)
        elif len(words) == 3 and words[0] == "signal" and _is_signal(words[2]):
            child = self._find(client, words[1], state)
            if child is None:
                return
            event = ChildSignalOrdered(child.index, int(words[2]), request)
        if event is None:
            self._send(client, _USAGE)
            return
        self._last_request = request
        self._requests[request] = client
        client.watch()
        self._emit(event)

    def _find(self, client: _Client, name: str, state: State) -> Child | None:
        for child in state.children:
            if child.spec.name == name:
                return child
        names = ", ".join(child.spec.name for child in state.children)
        self._send(client, f"usage nothing here is called {plain(name, _SHOWN)!r}; there are: {names}\n")
        return None

    def _send(self, client: _Client, text: str) -> None:
        """The last words to a client."""
        client.heard = client.following = False
        client.leaving = True
        client.to_send += text.encode("utf-8", "backslashreplace")
        self._flush(client)

    def _flush(self, client: _Client) -> None:
        """Send what the client takes now; the rest waits until it takes more, and nobody else with it."""
        if not client.is_open:
            return
        if not client.flush() or (client.leaving and not client.to_send):
            self._drop(client)
        else:
            client.watch()

    def _drop(self, client: _Client) -> None:
        if not client.is_open:
            return
        client.close()
        del self._clients[client]
        for request in [number for number, waiting in self._requests.items() if waiting is client]:
            del self._requests[request]


def _own_event(event: str, level: str, fact: tuple[str, object]) -> bytes:
    """A line to followers that is about the following itself."""
    return jsonlines.encode(event, level, (fact,), jsonlines.timestamp(wall_s())) + b"\n"


def _is_signal(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 2 and 1 <= int(word) <= 64


def health_text(state: State, now_ms: int) -> str:
    """The verdict alone on the first line, for clients that cannot afford a JSON parser; then the daemons."""
    answer = status.health(state)
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
