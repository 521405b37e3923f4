"""egress: mitmproxy's addon that lets requests to allowed hosts out, with the credentials that the agent never sees."""

from __future__ import annotations

import asyncio
import socket

from mitmproxy import http
from mitmproxy.proxy import mode_specs, server_hooks

from sidecars import layout
from sidecars.hosts import Address, Allowlist, as_address, normalize, same_host
from sidecars.policy import Policy
from sidecars.proxy import REFUSED_BY, answer_json, asks_the_proxy, fail_closed, host_of, log, on_hangup, refuse

# A proxy keeps them to itself (RFC 9110, 7.6.1 and 11.7.2).
_FOR_THIS_HOP = ("proxy-connection", "proxy-authorization")


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of `host`, in the order in which getaddrinfo(3) would have them tried. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    entries = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    addresses = (as_address(str(entry[4][0]).partition("%")[0]) for entry in entries)
    return list(dict.fromkeys(address for address in addresses if address is not None))


def admissible(allowlist: Allowlist, host: str, port: int, addresses: list[Address]) -> tuple[Address | None, str]:
    """The first of `addresses` that may be connected to, or `None` and the reason."""
    reason = f"{host} does not resolve"
    for address in addresses:
        refusal = allowlist.refusal(host, port, address)
        if refusal is None:
            return address, ""
        reason = refusal
    return None, reason


class Egress:
    """The addon. mitmproxy calls its methods by their names."""

    def __init__(self, policy: Policy, values: dict[str, str]) -> None:
        """`values` are the credentials' by the paths of their files."""
        self._values = values
        self.apply(policy)
        self._names: dict[str, tuple[str, int]] = {}

    def apply(self, policy: Policy) -> None:
        """Makes `policy` the one that is obeyed. Raises `ValueError` where a credential's value has not been read."""
        missing = [str(c.value_file) for c in policy.credentials if str(c.value_file) not in self._values]
        if missing:
            raise ValueError(f"not read when the bundle started, start a new one: {', '.join(missing)}")
        self.policy = policy

    def running(self) -> None:
        """mitmproxy listens: from now on a HUP reads the policy again."""
        on_hangup("egress", self.apply)

    @fail_closed
    def http_connect(self, flow: http.HTTPFlow) -> None:
        """A tunnel to a host that is not allowed is not even opened."""
        if not self.policy.allowlist.allows(flow.request.host, flow.request.port):
            refuse(flow, 403, "egress", f"{flow.request.host}:{flow.request.port} is not allowed by egress.allow")

    @fail_closed
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Every request: judged by the connection's target, the server name of its TLS, and its Host header."""
        if asks_the_proxy(flow, "/health", layout.EGRESS_PORT):
            answer_json(flow, 200, {"status": "healthy"})
            return
        if reason := self._objection(flow):
            refuse(flow, 403, "egress", reason)
            return
        for name in _FOR_THIS_HOP:
            flow.request.headers.pop(name, None)
        self._inject(flow)
        flow.request.stream = True
        log("egress.allowed", host=flow.request.host, port=flow.request.port, method=flow.request.method)

    @fail_closed
    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Answers pass as they come: an agent's model answers token by token."""
        if flow.response is not None and REFUSED_BY not in flow.response.headers:
            flow.response.stream = True

    def _objection(self, flow: http.HTTPFlow) -> str | None:
        """Why the request must not leave, or `None`. Afterwards a redirected request's host is a name."""
        request, sni = flow.request, flow.client_conn.sni
        named = host_of(flow)
        if isinstance(flow.client_conn.proxy_mode, mode_specs.TransparentMode):
            # Only an address is known of where it was going. The name decides, and is resolved anew.
            request.data.host = sni or named
        if request.method == "TRACE":
            return "TRACE would show the agent what has been injected"
        if not self.policy.allowlist.allows(request.host, request.port):
            return f"{request.host}:{request.port} is not allowed by egress.allow"
        if not same_host(named, request.host):
            return f"the Host header names {named or 'nothing'}, and the connection {request.host}"
        if sni is not None and not same_host(sni, request.host):
            return f"the TLS server name is {sni}, and the connection's {request.host}"
        return None

    def _inject(self, flow: http.HTTPFlow) -> None:
        request = flow.request
        host = normalize(request.host)
        for credential in self.policy.credentials:
            if not credential.applies_to(host, request.port):
                continue
            request.headers.pop(credential.header, None)
            if request.scheme == "https" or credential.plaintext:
                request.headers[credential.header] = self._values[str(credential.value_file)]

    @fail_closed
    async def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Resolves the name itself, judges the address, and pins the connection to it.

        If mitmproxy resolved it once more, the answer could be another one (DNS rebinding).
        """
        if data.server.address is None:
            return
        host, port = data.server.address[:2]
        try:
            addresses = await resolve(host, port)
        except OSError as error:
            data.server.error = f"egress: {host}: {error.strerror or error}"
            return
        address, reason = admissible(self.policy.allowlist, host, port, addresses)
        if address is None:
            log("egress.refused", host=host, port=port, reason=reason)
            data.server.error = f"egress: {reason}"
            return
        self._names[data.server.id] = (host, port)
        data.server.address = (str(address), port)

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        """The connection gets its name back, by which mitmproxy finds it again for the next request."""
        if name := self._names.pop(data.server.id, None):
            # The attribute's own setter refuses a change once the connection is open.
            object.__setattr__(data.server, "address", name)

    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        """So it does after a failure, for the message."""
        if name := self._names.pop(data.server.id, None):
            object.__setattr__(data.server, "address", name)
