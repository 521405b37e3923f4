"""`bottle-kill-switch on|off|status`: the operator's command.

Both engines look for the file at every request; it outlives a restart of pipelock.
"""

from __future__ import annotations

import sys

from sidecars import layout


def main() -> None:
    """Run by root, as `docker exec` does. Exits 2 for a wrong argument."""
    match sys.argv[1:]:
        case ["on"]:
            layout.KILL_SWITCH.touch(mode=0o644)
        case ["off"]:
            layout.KILL_SWITCH.unlink(missing_ok=True)
        case ["status"]:
            pass
        case _:
            print("usage: bottle-kill-switch on|off|status", file=sys.stderr)
            raise SystemExit(2)
    print("on" if layout.KILL_SWITCH.exists() else "off")


if __name__ == "__main__":
    main()
