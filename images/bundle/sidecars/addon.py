"""What the two mitmproxy addons share: saying no, saying so in the log, reloading, health."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable

from mitmproxy import http

from sidecars.hosts import as_address, split_port
from sidecars.policy import Policy, PolicyError, describe, load

# A refused request's body is read before the refusal is sent; one that is larger than this is cut off instead.
_REFUSED_BODY_MAX_BYTES = 1 << 20


def log(event: str, **fields: object) -> None:
    """One JSON object on one line of stdout. Never pass it a header's value or a query."""
    print(json.dumps({"event": event, **fields}), flush=True)


def refuse(flow: http.HTTPFlow, status: int, daemon: str, reason: str) -> None:
    """Answers the request itself, in words for the agent, and logs the refusal."""
    log(f"{daemon}.refused", host=flow.request.pretty_host, port=flow.request.port, status=status, reason=reason)
    try:
        length = int(flow.request.headers.get("content-length", "0"))
    except ValueError:
        length = _REFUSED_BODY_MAX_BYTES + 1
    if length > _REFUSED_BODY_MAX_BYTES or "transfer-encoding" in flow.request.headers:
        flow.kill()
        return
    flow.response = http.Response.make(
        status,
        f"{daemon}: {reason}\n",
        {"content-type": "text/plain; charset=utf-8", "x-bottle-refused-by": daemon},
    )


def answer_json(flow: http.HTTPFlow, status: int, body: dict[str, object]) -> None:
    """Answers the request with a JSON object."""
    flow.response = http.Response.make(status, json.dumps(body) + "\n", {"content-type": "application/json"})


def is_loopback(host: str) -> bool:
    """Whether `host` is a loopback address."""
    address = as_address(host)
    return address is not None and address.is_loopback


def asks_the_proxy(flow: http.HTTPFlow, path: str, port: int) -> bool:
    """Whether this is a plain `GET path` to the proxy's own `port`, and not one to be passed on to a host."""
    request = flow.request
    if flow.client_conn.tls_established or request.method not in ("GET", "HEAD") or request.path != path:
        return False
    # A name without a dot is one of the container's network (`sidecars`), or localhost.
    return request.port == port and ("." not in request.host or is_loopback(request.host))


def host_of(flow: http.HTTPFlow) -> str:
    """The host that the request's Host header (in HTTP/2 its authority) names, as it is written; "" for none."""
    return split_port(flow.request.host_header or "")[0]


def load_or_stop() -> Policy:
    """The policy at an addon's start. An addon without one must not run: the process ends with 78."""
    try:
        return load()
    except PolicyError as error:
        print(error, file=sys.stderr, flush=True)
        # mitmproxy would log an exception raised here, and go on.
        os._exit(78)


def on_hangup(daemon: str, apply: Callable[[Policy], None]) -> None:
    """Installs the handler that reads the policy again at a HUP. Call it from the `running` hook.

    A file with faults, and a policy that `apply` refuses with a `ValueError`, change nothing and are logged.
    """

    def reload() -> None:
        try:
            policy = load()
            apply(policy)
        except (PolicyError, ValueError) as error:
            log(f"{daemon}.reload_refused", faults=str(error).splitlines())
        else:
            log(f"{daemon}.reloaded", **describe(policy))

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
