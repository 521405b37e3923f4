"""The words of the contract: kinds, statuses, reasons, exit codes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Kinds of children (contract 1).
ONESHOT: Final = "oneshot"
DAEMON: Final = "daemon"
JOB: Final = "job"

# What `on_unhealthy` may say (contract 6).
IGNORE_UNHEALTHY: Final = "ignore"
RESTART_UNHEALTHY: Final = "restart"
STOP_UNHEALTHY: Final = "stop"
ON_UNHEALTHY: Final = (IGNORE_UNHEALTHY, RESTART_UNHEALTHY, STOP_UNHEALTHY)

# Where the children's lines go (contract 9).
LOGS: Final = ("inherit", "tag", "json")
CHILD_LOGS: Final = (*LOGS, "none")

# What a child reads from (contract 9).
NULL: Final = "null"
INHERIT: Final = "inherit"
STDIN: Final = (NULL, INHERIT)

# The init's own exit codes, after sysexits.h (contract 2).
EX_UNAVAILABLE: Final = 69

GIVE_UP_MS: Final = 1_000
"""How long the init waits for what it has killed before it gives up on it (contract 4)."""

# Statuses of a child; `transitions.py` holds every move between them.
WAITING: Final = "waiting"
SPAWNING: Final = "spawning"
STARTING: Final = "starting"
RUNNING: Final = "running"
DRAINING: Final = "draining"
STOPPING: Final = "stopping"
KILLING: Final = "killing"
DEAD: Final = "dead"
CLEARING: Final = "clearing"
BACKOFF: Final = "backoff"
STOPPED: Final = "stopped"
ENDED: Final = "ended"
STATUSES: Final = (
    WAITING,
    SPAWNING,
    STARTING,
    RUNNING,
    DRAINING,
    STOPPING,
    KILLING,
    DEAD,
    CLEARING,
    BACKOFF,
    STOPPED,
    ENDED,
)

ALIVE: Final = (SPAWNING, STARTING, RUNNING, DRAINING, STOPPING, KILLING)
"""Its process exists, as far as the core has been told."""

DOWN: Final = (WAITING, BACKOFF, STOPPED, ENDED)
"""Neither a process nor anything to wait for before others may be stopped."""

# Why the init takes a child down; "" while nobody has decided that.
NO_HALT: Final = ""
HALT_BUNDLE: Final = "bundle"
HALT_REQUEST: Final = "request"
HALT_RESTART: Final = "restart"
HALT_DEPENDENCY: Final = "dependency"
HALT_HEALTH: Final = "health"
HALT_READINESS: Final = "readiness"
HALT_TIMEOUT: Final = "timeout"

# What becomes of a child once it and its session are gone.
NEXT_END: Final = "end"
NEXT_HOLD: Final = "hold"
NEXT_START: Final = "start"
NEXT_BACKOFF: Final = "backoff"

# Phases of the bundle.
UP: Final = "up"
GOING_DOWN: Final = "stopping"
KILLING_ALL: Final = "killing"
DONE: Final = "done"

# Kinds of stop (contract 1); a natural end is "no child is left and none is to be started again".
REQUESTED: Final = "requested"
POLICY: Final = "policy"
NATURAL: Final = "natural"

OOM_UNKNOWN: Final = "whether for lack of memory cannot be seen here"
"""Of a death by a SIGKILL that was not the init's, where the kernel's count of such kills cannot be read."""
