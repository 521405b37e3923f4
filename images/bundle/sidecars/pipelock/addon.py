"""The portable engine of pipelock: mitmproxy's addon that stands between the agent and egress.

It answers to the same policy file, the same signals and the same health route as the real one.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable

from mitmproxy import http, websocket

from sidecars import layout
from sidecars.dlp import Scanner
from sidecars.hosts import same_host
from sidecars.policy import Policy
from sidecars.proxy import REFUSED_BY, answer_json, asks_the_proxy, fail_closed, host_of, log, on_hangup, refuse


def outgoing_texts(request: http.Request) -> Iterable[tuple[str, str]]:
    """What of a request's head could carry a secret, each with the words for where it was."""
    yield "the host name", request.host
    yield "the URL", request.path
    for name, value in request.headers.items(multi=True):
        yield f"the header {name[:64]!r}", f"{name}: {value}"


class Pipelock:
    """The addon. mitmproxy calls its methods by their names."""

    def __init__(self, policy: Policy) -> None:
        self._signalled = False
        self.apply(policy)

    def apply(self, policy: Policy) -> None:
        """Makes `policy` the one that is obeyed."""
        self.policy = policy
        self.scanner = Scanner(policy.patterns)

    @property
    def killed(self) -> bool:
        """Whether the kill switch is on: by USR1, or by the operator's file. One that can't be looked for counts."""
        try:
            return self._signalled or layout.KILL_SWITCH.exists()
        except OSError:
            return True

    def running(self) -> None:
        """mitmproxy listens: from now on the signals are ours."""
        on_hangup("pipelock", self.apply)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._toggle)
        # mitmproxy would write stack traces, with what the agent sent in them, to the log.
        loop.add_signal_handler(signal.SIGUSR2, lambda: None)

    def _toggle(self) -> None:
        self._signalled = not self._signalled
        log("pipelock.kill_switch", active=self.killed)

    @fail_closed
    def http_connect(self, flow: http.HTTPFlow) -> None:
        """A tunnel is opened to an allowed host only."""
        if objection := self._destination(flow):
            refuse(flow, objection[0], "pipelock", objection[1])

    @fail_closed
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Every request, the ones inside of tunnels included."""
        if asks_the_proxy(flow, "/health", layout.PIPELOCK_PORT):
            self._health(flow)
            return
        objection = self._destination(flow) or self._content(flow)
        if objection:
            refuse(flow, objection[0], "pipelock", objection[1])
            return
        flow.request.stream = self._while_alive

    @fail_closed
    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Answers pass as they come."""
        if flow.response is not None and REFUSED_BY not in flow.response.headers:
            flow.response.stream = self._while_alive

    @fail_closed
    def websocket_message(self, flow: http.HTTPFlow) -> None:
        """Open websockets obey the kill switch, and nothing secret leaves by them as text."""
        if flow.websocket is None:
            return
        message: websocket.WebSocketMessage = flow.websocket.messages[-1]
        found = self.scanner.find(message.text) if message.is_text and message.from_client else None
        if self.killed or found:
            log("pipelock.refused", host=flow.request.host, reason=f"websocket message: {found or 'kill switch'}")
            message.drop()

    def _while_alive(self, chunk: bytes) -> bytes | list[bytes]:
        """A body's next piece, or none once the kill switch is on."""
        return [] if self.killed else chunk

    def _health(self, flow: http.HTTPFlow) -> None:
        killed = self.killed
        answer_json(
            flow,
            503 if killed else 200,
            {"status": "unhealthy" if killed else "healthy", "engine": "portable", "kill_switch_active": killed},
        )

    def _destination(self, flow: http.HTTPFlow) -> tuple[int, str] | None:
        host, port = flow.request.host, flow.request.port
        if self.killed:
            return 503, "the operator's kill switch is on"
        if not self.policy.allowlist.allows(host, port):
            return 403, f"{host}:{port} is not allowed by egress.allow"
        return None

    def _content(self, flow: http.HTTPFlow) -> tuple[int, str] | None:
        named = host_of(flow)
        if not same_host(named, flow.request.host):
            return 403, f"the Host header names {named or 'nothing'}, and the connection {flow.request.host}"
        for where, text in outgoing_texts(flow.request):
            if name := self.scanner.find(text):
                return 403, f"{where} holds what looks like a secret ({name})"
        return None
