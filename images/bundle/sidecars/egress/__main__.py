"""`python3 -m sidecars.egress`: mitmproxy with our addon, on loopback."""

from __future__ import annotations

import json

from sidecars import layout
from sidecars.policy import or_exit


def modes(engine: str) -> list[str]:
    """mitmproxy's modes: a proxy for those who ask, and what the kernel redirects to where the real pipelock runs."""
    regular = f"regular@127.0.0.1:{layout.EGRESS_PORT}"
    return [regular, f"transparent@127.0.0.1:{layout.TRANSPARENT_PORT}"] if engine == "pipelock" else [regular]


def main() -> None:
    """The policy comes first: a fault in it is said without waiting for mitmproxy."""
    policy = or_exit()
    from sidecars import proxy  # noqa: PLC0415
    from sidecars.egress.addon import Egress  # noqa: PLC0415

    addon = Egress(policy, json.loads(layout.CREDENTIALS.read_text("utf-8")))
    engine = layout.ENGINE.read_text("ascii").strip()
    proxy.run(modes(engine), layout.EGRESS, layout.ORIGIN_CAS, addon)


if __name__ == "__main__":
    main()
