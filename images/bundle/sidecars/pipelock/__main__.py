"""`python3 -m sidecars.pipelock`: the portable engine, or the real one."""

from __future__ import annotations

from sidecars import layout
from sidecars.policy import Policy, or_exit

PORTABLE_MODE = f"upstream:http://127.0.0.1:{layout.EGRESS_PORT}@{layout.PIPELOCK_PORT}"


def _portable(policy: Policy) -> None:
    from sidecars import proxy  # noqa: PLC0415 - half a second that the real engine need not wait for.
    from sidecars.pipelock.addon import Pipelock  # noqa: PLC0415

    proxy.run([PORTABLE_MODE], layout.PIPELOCK, layout.EGRESS_CA, Pipelock(policy))


def main() -> None:
    """The oneshot `setup` has chosen the engine."""
    policy = or_exit()
    if layout.ENGINE.read_text("ascii").strip() == "portable":
        _portable(policy)
        return
    from sidecars.pipelock import real  # noqa: PLC0415

    raise SystemExit(real.run(policy))


if __name__ == "__main__":
    main()
