"""What a bundle file says, as values with every default filled in: the bundle, its children, their probes (contract 9).

All of it is frozen. Times are whole milliseconds.
"""

from __future__ import annotations

from bottle_init.core import policies, words
from bottle_init.core.signals import STOP_SIGNALS
from bottle_init.core.values import Value
from bottle_init.core.words import IGNORE_UNHEALTHY


class Probe(Value):
    """One way to ask a daemon whether it works.

    `kind` is `tcp`, `http`, `exec`, `notify` or `after`; `host` is an IP literal or `localhost`; `socket` takes the
    place of host and port: the path of a Unix socket, or `@name` for an abstract one. `path` is the http request target
    with its leading slash, `headers` are `(name, value)` pairs. `after_ms` is how long it has to run.
    """

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""
    command: tuple[str, ...] = ()
    socket: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    after_ms: int = 0


class Ready(Value):
    """When a daemon counts as ready (contract 4)."""

    probe: Probe
    timeout_ms: int = 30_000


class Check(Value):
    """A periodic health check in Docker's own words (contract 6)."""

    probe: Probe
    interval_ms: int = 30_000
    timeout_ms: int = 5_000
    retries: int = 3
    start_period_ms: int = 0


class Backoff(Value):
    """The pause before the nth restart is `initial` x `factor`^n, at most `limit` (contract 3)."""

    initial_ms: int = 500
    factor: float = 2.0
    limit_ms: int = 30_000


class Budget(Value):
    """More than `max` restarts within `window_ms` are too many (contract 3)."""

    max: int = 5
    window_ms: int = 60_000


class ExecSettings(Value):
    """How a child is executed: what the kernel is told, nothing that the core decides on.

    `env` holds `(name, value)` pairs, `rlimits` `(name, soft, hard)` with -1 for unlimited.
    `None` always means "as inherited"; `capabilities=None` means "as the kernel leaves them".
    """

    user: str | int | None = None
    group: str | int | None = None
    groups: tuple[str | int, ...] | None = None
    cwd: str | None = None
    stdin: str = words.NULL
    umask: int | None = None
    env: tuple[tuple[str, str], ...] = ()
    env_files: tuple[str, ...] = ()
    rlimits: tuple[tuple[str, int, int], ...] = ()
    nice: int | None = None
    oom_score_adj: int | None = None
    no_new_privs: bool = True
    capabilities: tuple[str, ...] | None = None


class Spec(Value):
    """One child as its table in the bundle file declares it, with every default filled in (contract 9)."""

    name: str
    kind: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    policy: str = policies.DEFAULT
    success_codes: tuple[int, ...] = (0,)
    stop_signal: int = 15
    stop_timeout_ms: int = 5_000
    stop_delay_ms: int = 0
    timeout_ms: int | None = None
    backoff: Backoff = Backoff()
    restarts: Budget = Budget()
    restart_dependents: bool = False
    ready: Ready | None = None
    health: Check | None = None
    on_unhealthy: str = IGNORE_UNHEALTHY
    signals: tuple[tuple[int, int], ...] = ()
    keeps: tuple[str, ...] = ()
    enabled: bool = True
    logs: str = "tag"
    settings: ExecSettings = ExecSettings()


class Lease(Value):
    """What the bundle's life hangs on; exactly one of the three is set (contract 9)."""

    fd: int | None = None
    connect: str | None = None
    renew_ms: int | None = None


class Bundle(Value):
    """The whole bundle file. `children` stand in the order of "declared first": oneshots, daemons, jobs."""

    children: tuple[Spec, ...]
    policy: str = policies.DEFAULT
    stop_timeout_ms: int = 8_000
    stop_signals: tuple[int, ...] = STOP_SIGNALS
    exit_code_from: str | None = None
    logs: str = "tag"
    only_from: str | None = None
    control: str = "@bottle_init"
    http: str | None = None
    lease: Lease | None = None
