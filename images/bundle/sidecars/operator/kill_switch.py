"""`bottle-kill-switch on|off|status`: nothing leaves the bottle any more.

pipelock, egress and git-gate all look for the file, and it outlives their restarts. The command returns when each of
them says that it obeys.
"""

from __future__ import annotations

import os
import sys
import time

from sidecars import layout, privileges
from sidecars.operator import journal
from sidecars.operator.channel import fail
from sidecars.operator.health import DAEMONS, SilentError, health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PATIENCE_S: Final = 5.0
_PAUSE_S: Final = 0.02
EX_USAGE: Final = 2


def disobedient(wanted: bool) -> list[str]:
    """The daemons that do not say yet that the switch is as wanted. Those that know no switch are not asked."""
    found = []
    for name, port in DAEMONS.items():
        try:
            said = health(port)
        except SilentError:
            found.append(name)
            continue
        if said is not None and said.get("kill_switch_active", wanted) is not wanted:
            found.append(name)
    return found


def _turn(on: bool) -> None:
    journal.record("kill_switch", verdict="refused" if on else "allowed")
    if on:
        descriptor = os.open(layout.KILL_SWITCH, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        os.fchmod(descriptor, 0o644)
        os.close(descriptor)
    else:
        layout.KILL_SWITCH.unlink(missing_ok=True)
    deadline_s = time.monotonic() + PATIENCE_S
    while left := disobedient(on):
        if time.monotonic() > deadline_s:
            raise fail("bottle-kill-switch", f"{', '.join(left)}: not said within {PATIENCE_S:g} s to obey")
        time.sleep(_PAUSE_S)


def main() -> None:
    """Run by root, as `docker exec` does. Exits 1 where a daemon does not say that it obeys, 2 for a wrong argument."""
    privileges.drop()
    match sys.argv[1:]:
        case ["on" | "off" as word]:
            try:
                _turn(word == "on")
            except OSError as error:
                raise fail("bottle-kill-switch", str(error)) from None
        case ["status"]:
            pass
        case _:
            print("usage: bottle-kill-switch on|off|status", file=sys.stderr)
            raise SystemExit(EX_USAGE)
    print("on" if layout.KILL_SWITCH.exists() else "off")
