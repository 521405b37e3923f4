"""A small HTTP server for a few pages that whoever reaches it may read (contract 6, RFC 9112).

One request a connection, GET alone, and no client is ever waited for: their number, the length of a request, and the
time that each of them takes are bounded.
"""

from __future__ import annotations

from bottle_init.linux.sys.listener import Connection, Listener, TcpListener

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Mapping
    from typing import Final

    from bottle_init.linux.sys.listener import Watcher

    Reply = Callable[[int, str, str], None]
    """`(status, content type, body)`; to be called once, at once or later."""

    Page = Callable[[str, Reply], None]
    """Called with the query of the request (without its `?`) and what takes the answer."""

MAX_CLIENTS: Final = 32
MAX_HEAD: Final = 8_192
"""Bytes of a request line with its headers."""
PATIENCE_MS: Final = 5_000
"""A client has so long to send its request, and so long again to take its answer."""
MAX_AFTER: Final = 65_536
"""Bytes that a client may send after its request: they are dropped, so that it gets its answer and no reset."""

TEXT: Final = "text/plain; charset=utf-8"

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class Refused(Exception):
    """A request that gets no page: the status, and a sentence that says what was wrong."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class _Client(Connection):
    """One connection: asking (`heard`), waiting for its page, taking its answer, or saying what nobody hears."""

    __slots__ = ("after", "is_answered", "until_ms", "wants_body")

    def __init__(
        self, connection: _socket.socket, poller: Watcher, serve: Callable[[_Client], None], until_ms: int
    ) -> None:
        super().__init__(connection, poller, lambda: serve(self))
        self.until_ms = until_ms
        self.is_answered = False
        self.wants_body = True
        self.after = 0


class Httpd:
    """The server. `address` is `HOST:PORT` or `unix:PATH`; `pages` has the page of each path."""

    def __init__(
        self,
        address: str,
        poller: Watcher,
        clock: Callable[[], int],
        pages: Mapping[str, Page],
        note: Callable[[str], None],
    ) -> None:
        scheme, _, path = address.partition(":")
        self._listener = (
            Listener(path, poller, clock, self._welcome, note, mode=0o666)
            if scheme == "unix"
            else TcpListener(address, poller, clock, self._welcome, note)
        )
        self._poller = poller
        self._clock = clock
        self._pages = pages
        self._clients: dict[_Client, None] = {}

    def open(self) -> str:
        """Listen; returns "" or, in words, why that cannot be. It is not fatal to anything."""
        return self._listener.open()

    def close(self) -> None:
        """Hand over what each client still takes at once, and close everything."""
        for client in list(self._clients):
            client.flush()
            self._drop(client)
        self._listener.close()

    def deadline_ms(self) -> int | None:
        """When `tick` has to be called even if nothing happens."""
        times = [client.until_ms for client in self._clients]
        resume_ms = self._listener.deadline_ms()
        return min(times if resume_ms is None else [*times, resume_ms], default=None)

    def tick(self, now_ms: int) -> None:
        """Close clients that have had their time, and let new ones in again after a pause."""
        for client in [client for client in self._clients if client.until_ms <= now_ms]:
            self._drop(client)
        self._listener.tick(now_ms)

    def _welcome(self, connection: _socket.socket) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            self._drop(self._oldest())
        client = _Client(connection, self._poller, self._serve, self._clock() + PATIENCE_MS)
        self._clients[client] = None
        self._hear(client)

    def _oldest(self) -> _Client:
        """Who makes room for another: who has been there longest, and of those first who has not asked yet."""
        return next((client for client in self._clients if client.heard), next(iter(self._clients)))

    def _serve(self, client: _Client) -> None:
        if not client.is_open:
            return
        if client.is_answered and not client.to_send:
            self._drop_rest(client)
        elif client.heard:
            self._hear(client)
        else:
            self._flush(client)

    def _hear(self, client: _Client) -> None:
        goes_on = client.hear(MAX_HEAD)
        head, ended, _ = client.received.replace(b"\r\n", b"\n").partition(b"\n\n")
        if ended and len(head) <= MAX_HEAD:
            self._respond(client, head)
        elif len(client.received) > MAX_HEAD:
            self._answer(client, 431, TEXT, f"A request has at most {MAX_HEAD} bytes.\n")
        elif not goes_on:
            self._drop(client)

    def _respond(self, client: _Client, head: bytes) -> None:
        client.heard = False
        client.until_ms = self._clock() + PATIENCE_MS
        client.watch()

        def reply(status: int, kind: str, body: str) -> None:
            if client.is_open and not client.is_answered:
                self._answer(client, status, kind, body)

        try:
            method, path, query = read_head(head)
        except Refused as refusal:
            reply(refusal.status, TEXT, f"{refusal}\n")
            return
        client.wants_body = method != "HEAD"
        if path not in self._pages:
            reply(404, TEXT, f"There is {', '.join(self._pages)}.\n")
        elif method != "GET":
            reply(405, TEXT, "GET is the only method.\n")
        else:
            self._pages[path](query, reply)

    def _answer(self, client: _Client, status: int, kind: str, body: str) -> None:
        client.heard = False
        client.is_answered = True
        content = body.encode("utf-8", "backslashreplace")
        allow = "Allow: GET\r\n" if status == 405 else ""
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
            f"{allow}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        client.to_send += head.encode("ascii") + (content if client.wants_body else b"")
        self._flush(client)

    def _flush(self, client: _Client) -> None:
        """Send what the client takes now. After the last of it, its own end is waited for, within its time."""
        if not client.flush():
            self._drop(client)
            return
        if client.is_answered and not client.to_send:
            client.end_output()
            client.heard = True
            client.until_ms = min(client.until_ms, self._clock() + 1_000)
        client.watch()

    def _drop_rest(self, client: _Client) -> None:
        client.received = b""
        goes_on = client.hear(MAX_HEAD)
        client.after += len(client.received)
        if not goes_on or client.after > MAX_AFTER:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        if client.is_open:
            client.close()
            del self._clients[client]


def read_head(head: bytes) -> tuple[str, str, str]:
    """`(method, path, query)` of a request, from its line and its headers. Raises Refused."""
    line, *headers = head.lstrip(b"\n").decode("latin-1").split("\n")
    words = line.split(" ")
    if len(words) != 3 or not all(words) or not words[2].startswith("HTTP/"):
        raise Refused(400, "A request begins with a line such as GET /health HTTP/1.1.")
    method, target, version = words
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise Refused(505, "HTTP/1.1 is spoken here.")
    if version == "HTTP/1.1" and not any(header.lower().startswith("host:") for header in headers):
        raise Refused(400, "A request in HTTP/1.1 has a Host header.")
    if target.lower().startswith("http://"):  # A server has to take the form that is meant for proxies, too.
        _, slash, rest = target[7:].partition("/")
        target = slash + rest or "/"
    path, _, query = target.partition("?")
    return method, path, query
