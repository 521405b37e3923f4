"""`python3 -m sidecars.pipelock`: becomes the portable engine, or runs the real one."""

from __future__ import annotations

import os

from sidecars import layout
from sidecars.egress.__main__ import COMMON_OPTIONS, MITMDUMP
from sidecars.policy import or_exit


def portable_command() -> list[str]:
    """mitmdump's command line for the portable engine."""
    options = (
        *COMMON_OPTIONS,
        f"confdir={layout.PIPELOCK}",
        f"ssl_verify_upstream_trusted_ca={layout.EGRESS_CA}",
    )
    return [
        MITMDUMP,
        *("--mode", f"upstream:http://127.0.0.1:{layout.EGRESS_PORT}@{layout.PIPELOCK_PORT}"),
        *(argument for option in options for argument in ("--set", option)),
        *("-s", os.path.join(os.path.dirname(__file__), "addon.py")),
    ]


def main() -> None:
    """The oneshot `setup` has chosen the engine."""
    policy = or_exit()
    if layout.ENGINE.read_text("ascii").strip() == "pipelock":
        from sidecars.pipelock import real

        raise SystemExit(real.run(policy))
    arguments = portable_command()
    os.execv(arguments[0], arguments)


if __name__ == "__main__":
    main()
