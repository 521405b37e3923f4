"""The real pipelock: its configuration, rendered from the policy, and the process around it.

That process renders the configuration anew at a HUP, and passes every other signal on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from types import FrameType
from typing import Any

from sidecars import layout
from sidecars.policy import Policy, PolicyError, load

_DAY_S = 86_400
_UNLIMITED_PER_MINUTE = 1_000_000
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
_Handler = Callable[[int, FrameType | None], None]


def render(policy: Policy) -> str:
    """pipelock's configuration file. JSON is YAML."""
    hosts = [f"*.{rule.host}" if rule.wildcard else rule.host for rule in policy.allowlist.rules]
    config: dict[str, Any] = {
        "version": 1,
        # The allowlist is enforced in strict mode only.
        "mode": "strict",
        "api_allowlist": list(dict.fromkeys(hosts)),
        # Its user reaches egress alone, which resolves the name anew and judges the address by the policy. A list of
        # names here (`trusted_domains`) would do as well, but in strict mode a reload that adds one is refused.
        "ssrf": {"ip_allowlist": list(_PRIVATE)},
        "fetch_proxy": {
            "listen": f"0.0.0.0:{layout.PIPELOCK_PORT}",
            # Its defaults (60 requests a minute to a host) are for browsing agents, not for API clients.
            "monitoring": {"max_requests_per_minute": _UNLIMITED_PER_MINUTE, "max_data_per_minute": 0},
        },
        "forward_proxy": {"enabled": True, "max_tunnel_seconds": _DAY_S, "idle_timeout_seconds": 3600},
        "tls_interception": {
            "enabled": True,
            "ca_cert": str(layout.PIPELOCK / layout.CA_CERTIFICATE),
            "ca_key": str(layout.PIPELOCK / layout.CA_KEY),
        },
        "request_body_scanning": {"enabled": True, "action": "block", "scan_headers": True, "header_mode": "all"},
        "dlp": {
            # The environment of this process holds no secret, and its values are no patterns.
            "scan_env": False,
            "patterns": [
                {"name": pattern.name, "regex": pattern.regex, "severity": "critical"} for pattern in policy.patterns
            ],
        },
        # Its figures are the operator's, not the agent's.
        "metrics_listen": f"127.0.0.1:{layout.METRICS_PORT}",
        "kill_switch": {"sentinel_file": str(layout.KILL_SWITCH)},
        "logging": {"format": "json", "output": "stdout", "include_allowed": True, "include_blocked": True},
        "sentry": {"enabled": False},
    }
    return json.dumps(config, indent=2) + "\n"


def _write(policy: Policy) -> None:
    """Replaces the file in one step: pipelock watches it."""
    new = layout.PIPELOCK_CONFIG.with_suffix(".new")
    new.write_text(render(policy), "utf-8")
    new.replace(layout.PIPELOCK_CONFIG)


def _environment() -> dict[str, str]:
    """Go's TLS trusts the authorities of SSL_CERT_FILE alone: egress's."""
    environment = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")}
    return {**environment, "SSL_CERT_FILE": str(layout.EGRESS_CA), "SSL_CERT_DIR": "/nonexistent"}


def _install(child: subprocess.Popen[bytes]) -> None:
    def forward(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    def reload(number: int, _frame: FrameType | None) -> None:
        try:
            _write(load())
        except PolicyError as error:
            print(json.dumps({"event": "pipelock.reload_refused", "faults": error.faults}), flush=True)
        else:
            child.send_signal(number)

    handlers: dict[signal.Signals, _Handler] = {
        signal.SIGTERM: forward,
        signal.SIGINT: forward,
        signal.SIGUSR1: forward,
        signal.SIGHUP: reload,
    }
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(policy: Policy) -> int:
    """Runs pipelock until it ends. Returns its exit code, 128 + s where a signal s killed it."""
    _write(policy)
    child = subprocess.Popen(
        [str(layout.PIPELOCK_BINARY), "run", "--config", str(layout.PIPELOCK_CONFIG)],
        env=_environment(),
    )
    _install(child)
    code = child.wait()
    return code if code >= 0 else 128 - code
