"""Running mitmproxy with one addon of ours, so that it fails closed.

mitmproxy itself fails open, twice. `mitmdump -s` loads its script once the file's date is later than 1970, and goes
on without it until then: with a file from a reproducible build it is a proxy that lets everything through. And an
exception inside a hook is logged, and the request goes on its way. So the addon is handed over as an object, before the
first port is opened, and its hooks are wrapped in `fail_closed`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mitmproxy import http
from mitmproxy.options import Options
from mitmproxy.proxy import server_hooks
from mitmproxy.tools.dump import DumpMaster

from sidecars.hosts import as_address, split_port
from sidecars.policy import Policy, PolicyError, describe, load

REFUSED_BY = "x-bottle-refused-by"
# A refused request's body is read before the refusal is sent; one that is larger than this is cut off instead.
_REFUSED_BODY_MAX_BYTES = 1 << 20
_OPTIONS: Mapping[str, Any] = {
    # What is neither TLS nor HTTP would pass the addon by.
    "rawtcp": False,
    # No byte goes to an origin before its request has been judged.
    "connection_strategy": "lazy",
    "upstream_cert": False,
    # A page of mitmproxy's own, at a name that is not in the policy.
    "onboarding": False,
    "termlog_verbosity": "warn",
}


def log(event: str, **fields: object) -> None:
    """One JSON object on one line of stdout. Never pass it a header's value or a query."""
    print(json.dumps({"event": event, **fields}), flush=True)


def _may_be_long(request: http.Request) -> bool:
    """Whether the request's body is too long to be read for nothing, or does not say how long it is."""
    if (length := request.headers.get("content-length")) is not None:
        return not length.isdigit() or int(length) > _REFUSED_BODY_MAX_BYTES
    return "transfer-encoding" in request.headers or (request.is_http2 and request.method in ("PATCH", "POST", "PUT"))


def refuse(flow: http.HTTPFlow, status: int, daemon: str, reason: str) -> None:
    """Answers the request itself, in words for the agent, and logs the refusal."""
    log(f"{daemon}.refused", host=flow.request.host, port=flow.request.port, status=status, reason=reason)
    if _may_be_long(flow.request):
        flow.kill()
        return
    headers = {"content-type": "text/plain; charset=utf-8", REFUSED_BY: daemon}
    flow.response = http.Response.make(status, f"{daemon}: {reason}\n", headers)


def answer_json(flow: http.HTTPFlow, status: int, body: dict[str, object]) -> None:
    """Answers the request with a JSON object."""
    flow.response = http.Response.make(status, json.dumps(body) + "\n", {"content-type": "application/json"})


def asks_the_proxy(flow: http.HTTPFlow, path: str, port: int) -> bool:
    """Whether this is a plain `GET path` to the proxy's own `port`, and not one to be passed on to a host."""
    request = flow.request
    if flow.client_conn.tls_established or request.method not in ("GET", "HEAD") or request.path != path:
        return False
    address = as_address(request.host)
    # A name without a dot is one of the container's network (`sidecars`), or localhost.
    return request.port == port and ("." not in request.host or (address is not None and address.is_loopback))


def host_of(flow: http.HTTPFlow) -> str:
    """The host that the request's Host header (in HTTP/2 its authority) names, as it is written; "" for none."""
    return split_port(flow.request.host_header or "")[0]


def _close(data: Any) -> None:
    """Ends whatever the hook was about."""
    if isinstance(data, server_hooks.ServerConnectionHookData):
        data.server.error = "internal error"
    elif isinstance(data, http.HTTPFlow):
        if data.websocket is not None and data.websocket.messages:
            data.websocket.messages[-1].drop()
        data.response = None
        if data.killable:
            data.kill()


def fail_closed(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook in which an exception ends the request, instead of letting it through unjudged."""

    @functools.wraps(hook)
    def guarded(self: object, data: Any) -> Any:
        try:
            return hook(self, data)
        except Exception:  # noqa: BLE001 - whatever it is, the request must not leave.
            traceback.print_exc(file=sys.stderr)
            _close(data)
            return None

    @functools.wraps(hook)
    async def guarded_async(self: object, data: Any) -> None:
        try:
            await hook(self, data)
        except Exception:  # noqa: BLE001
            traceback.print_exc(file=sys.stderr)
            _close(data)

    return guarded_async if inspect.iscoroutinefunction(hook) else guarded


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


def _quiet_logging() -> None:
    """mitmproxy's handlers choose; these would be heard at their default level."""
    logging.getLogger().setLevel(logging.INFO)
    for name in ("asyncio", "hpack", "quic", "tornado"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def _serve(modes: list[str], confdir: Path, trusted: Path, addon: object) -> None:
    # The options that exist now; the others are their addons', which come with the master.
    master = DumpMaster(Options(confdir=str(confdir), mode=modes), with_dumper=False)
    master.options.update(ssl_verify_upstream_trusted_ca=str(trusted), **_OPTIONS)
    master.addons.add(addon)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, master.shutdown)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    await master.run()


def run(modes: list[str], confdir: Path, trusted: Path, addon: object) -> None:
    """Serves until TERM or INT, and then returns. A port that is taken ends the process with 1.

    `confdir` holds the certificate authority for clients; `trusted` has the authorities of the next hop.
    """
    os.umask(0o077)
    _quiet_logging()
    asyncio.run(_serve(modes, confdir, trusted, addon))
