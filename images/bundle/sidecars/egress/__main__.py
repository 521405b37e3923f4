"""`python3 -m sidecars.egress`: becomes mitmdump with our addon."""

from __future__ import annotations

import os

from sidecars import layout
from sidecars.policy import or_exit

MITMDUMP = "/usr/local/bin/mitmdump"
# connection_strategy and upstream_cert: no byte goes to an origin before its request has been judged.
# rawtcp: what is neither TLS nor HTTP would pass the addon by.
COMMON_OPTIONS = (
    "rawtcp=false",
    "connection_strategy=lazy",
    "upstream_cert=false",
    "onboarding=false",
    "flow_detail=0",
    "termlog_verbosity=warn",
)


def command(engine: str) -> list[str]:
    """mitmdump's command line for egress under `engine`."""
    modes = [f"regular@127.0.0.1:{layout.EGRESS_PORT}"]
    if engine == "pipelock":
        modes.append(f"transparent@127.0.0.1:{layout.TRANSPARENT_PORT}")
    options = (
        *COMMON_OPTIONS,
        f"confdir={layout.EGRESS}",
        f"ssl_verify_upstream_trusted_ca={layout.ORIGIN_CAS}",
    )
    return [
        MITMDUMP,
        *(argument for mode in modes for argument in ("--mode", mode)),
        *(argument for option in options for argument in ("--set", option)),
        *("-s", os.path.join(os.path.dirname(__file__), "addon.py")),
    ]


def main() -> None:
    """Reads the policy once, so that a fault is said in one line and not by a traceback of mitmproxy's."""
    or_exit()
    arguments = command(layout.ENGINE.read_text("ascii").strip())
    os.execv(arguments[0], arguments)


if __name__ == "__main__":
    main()
