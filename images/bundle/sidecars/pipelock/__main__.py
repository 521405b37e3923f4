"""`python3 -m sidecars.pipelock`: the real pipelock. `bottle-proxy pipelock` becomes this where setup has chosen it."""

from __future__ import annotations

from sidecars.pipelock import real
from sidecars.policy import or_exit


def main() -> None:
    """Ends with the engine's exit code."""
    raise SystemExit(real.run(or_exit()))


if __name__ == "__main__":
    main()
