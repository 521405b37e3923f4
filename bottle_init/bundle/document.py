"""From the text of a bundle file to a `Bundle`, or to all that is wrong with it (contract 9).

`tomllib` (14 ms) and the rest of this package are for whoever writes, checks or compiles a bundle
file, and for a container whose file was not compiled.
"""

from __future__ import annotations

import re
from functools import partial

from bottle_init.bundle import accounts, graph, readers
from bottle_init.bundle.table import Table, join
from bottle_init.core import policies
from bottle_init.core.spec import Backoff, Budget, Bundle, Check, Lease, Process, Ready, Spec
from bottle_init.core.values import Value
from bottle_init.core.words import (
    DAEMON,
    IGNORE_UNHEALTHY,
    JOB,
    LOGS,
    ON_UNHEALTHY,
    ONESHOT,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bottle_init.bundle.table import Faults

KINDS: Final = {"oneshots": ONESHOT, "daemons": DAEMON, "jobs": JOB}
"""The tables of children, in the order of "declared first"."""

BUNDLE_KEYS: Final = (*("policy", "stop_timeout", "exit_code_from", "backoff", "restarts", "logs", "control", "lease"),)
CHILD_KEYS: Final = (
    *("command", "after", "user", "group", "groups", "cwd", "umask", "env", "env_files", "rlimits", "nice"),
    *("oom_score_adj", "no_new_privs", "capabilities", "success_codes", "stop_signal", "stop_timeout", "stop_delay"),
)
DAEMON_KEYS: Final = ("policy", "backoff", "restarts", "restart_dependents", "ready", "health", "on_unhealthy")
KEYS: Final = {
    ONESHOT: (*CHILD_KEYS, "timeout"),
    DAEMON: (*CHILD_KEYS, *DAEMON_KEYS, "signals"),
    JOB: (*CHILD_KEYS, "timeout", "signals"),
}
NOT_YOURS: Final = {
    "policy": "only a daemon has a policy: a oneshot has to succeed, and a job's end is the bundle's",
    "backoff": "only a daemon is restarted",
    "restarts": "only a daemon is restarted",
    "restart_dependents": "only a daemon is restarted",
    "ready": "only a daemon has a probe: a oneshot is ready once it has succeeded, a job once it runs",
    "health": "only a daemon is checked",
    "on_unhealthy": "only a daemon is checked",
    "signals": "only daemons and jobs have rules for signals",
    "timeout": "only oneshots and jobs have a timeout: a daemon runs for as long as the bundle does",
}
PROBES: Final = {"tcp": readers.tcp, "http": readers.http, "exec": readers.exec_probe, "notify": readers.notify}
CHECKS: Final = ("tcp", "http", "exec")
LEASES: Final = ("fd", "connect", "renew")

INHERITED: Final = ""
"""The policy of a daemon that has none of its own, until the bundle's is known."""


class Restarting(Value):
    """What a daemon inherits of `[bundle]`, key by key."""

    backoff: Backoff = Backoff()
    restarts: Budget = Budget()


def parse(text: bytes | str, *, here: bool = True) -> tuple[Bundle | None, Faults]:
    """The bundle that the text describes, or all faults, each `(path, message)`.

    Users and groups have to exist where the bundle is to run, which is `here` or elsewhere. A daemon
    without a policy of its own has `INHERITED` for one: `--policy` may still change the bundle's.
    """
    content, faults = _toml(text)
    if content is None:
        return None, faults
    root = Table("", content, faults)
    root.allow(("bundle", *KINDS), dict.fromkeys(BUNDLE_KEYS, "belongs in [bundle]"))
    bundle, restarting = root.within("bundle", _read_bundle, (Bundle(()), Restarting()))
    nodes: list[graph.Node] = []
    children: list[Spec] = []
    for key, kind in KINDS.items():
        for name, spec in root.within(key, partial(_read_children, kind, restarting), []):
            nodes.append(graph.Node(name, kind, join(key, name), spec.after if spec else ()))
            if spec:
                children.append(spec)
                unknown = accounts.unknown(spec.process) if here else ()
                faults.extend((f"{join(key, name)}.{path}", message) for path, message in unknown)
    if all(isinstance(content.get(key, {}), dict) for key in KINDS):
        faults.extend(graph.faults(nodes, bundle.exit_code_from))
    return (None if faults else bundle.but(children=tuple(children))), faults


def _toml(text: bytes | str) -> tuple[dict[str, object] | None, Faults]:
    """What TOML makes of the text; a fault of syntax is the only one, at its line."""
    import tomllib

    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if data.startswith(b"\xef\xbb\xbf"):
        return None, [("line 1", "begins with a byte order mark, which nobody sees and TOML does not have")]
    try:
        return tomllib.loads(data.decode()), []
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        return None, [(f"line {line}", "is not UTF-8, which TOML has to be")]
    except RecursionError:
        return None, [("", "is not TOML that anybody wrote: tables or lists are nested too deep")]
    except ValueError as problem:
        return None, [_syntax_fault(str(problem), data)]


def _syntax_fault(message: str, data: bytes) -> tuple[str, str]:
    """`tomllib` ends its messages with `(at line 3, column 5)` or `(at end of document)`."""
    words, _, where = message.rpartition(" (at ")
    found = re.fullmatch(r"line ([0-9]+), column ([0-9]+)\)", where)
    if found:
        return f"line {found[1]}, column {found[2]}", f"not TOML: {words}"
    if where == "end of document)":
        line = data.count(b"\n") + 1
        return f"line {line}", f"not TOML: {words} at the end of the file"
    return "", "is not TOML that anybody wrote: a number has thousands of digits"  # Python's own limit, without a line.


def _read_bundle(table: Table) -> tuple[Bundle, Restarting]:
    """`[bundle]`, without its children, and what daemons inherit of it."""
    table.allow(BUNDLE_KEYS)
    bundle = Bundle(
        children=(),
        policy=table.read("policy", readers.choice(tuple(policies.POLICIES)), policies.DEFAULT),
        stop_timeout_ms=table.read("stop_timeout", readers.duration_ms, 8_000),
        exit_code_from=table.read("exit_code_from", readers.name, None),
        logs=table.read("logs", readers.choice(LOGS), "tag"),
        control=table.read("control", readers.control, "@bottle_init"),
        lease=table.within("lease", _read_lease, None),
    )
    return bundle, _read_restarting(Restarting(), table)


def _read_lease(table: Table) -> Lease:
    table.allow(LEASES)
    table.one_of(LEASES)
    return Lease(
        fd=table.read("fd", readers.integer(0, 2**31 - 1), None),
        connect=table.read("connect", readers.connect, None),
        renew_ms=table.read("renew", readers.positive_ms, None),
    )


def _read_restarting(inherited: Restarting, table: Table) -> Restarting:
    """When and how often to restart; what the table leaves out is as in `inherited`."""
    return Restarting(
        table.within("backoff", partial(_read_backoff, inherited.backoff), inherited.backoff),
        table.within("restarts", partial(_read_budget, inherited.restarts), inherited.restarts),
    )


def _read_backoff(inherited: Backoff, table: Table) -> Backoff:
    table.allow(("initial", "factor", "limit"))
    return Backoff(
        table.read("initial", readers.duration_ms, inherited.initial_ms),
        table.read("factor", readers.factor, inherited.factor),
        table.read("limit", readers.duration_ms, inherited.limit_ms),
    )


def _read_budget(inherited: Budget, table: Table) -> Budget:
    table.allow(("max", "window"))
    return Budget(
        table.read("max", readers.integer(0), inherited.max),
        table.read("window", readers.positive_ms, inherited.window_ms),
    )


def _read_children(kind: str, restarting: Restarting, owner: Table) -> list[tuple[str, Spec | None]]:
    """All children of one kind by their names, in file order; None for what is not even a table."""
    for name in owner:
        if not readers.NAME.fullmatch(name):
            owner.fault(name, "a name must be made of letters, digits, _ and -")
    return [(name, owner.within(name, partial(_read_child, name, kind, restarting), None)) for name in owner]


def _read_child(name: str, kind: str, restarting: Restarting, table: Table) -> Spec:
    """One child, with every default filled in; on a fault, what comes back only serves to find more of them."""
    table.allow(KEYS[kind], {key: NOT_YOURS[key] for key in NOT_YOURS if key not in KEYS[kind]})
    if "command" not in table:
        table.fault("command", 'is required: a list of strings, such as ["nginx", "-g", "daemon off;"]')
    spec = Spec(
        name=name,
        kind=kind,
        command=table.read("command", readers.command, ()),
        after=readers.unique(table.read("after", readers.list_of(readers.name, "names"), ())),
        success_codes=_success_codes(table),
        stop_signal=table.read("stop_signal", readers.stop_signal, 15),
        stop_timeout_ms=table.read("stop_timeout", readers.duration_ms, 5_000),
        stop_delay_ms=table.read("stop_delay", readers.duration_ms, 0),
        process=_read_process(table),
    )
    if kind != ONESHOT:
        spec = spec.but(signals=table.read("signals", readers.signal_rules, ()))
    if kind != DAEMON:
        return spec.but(timeout_ms=table.read("timeout", readers.positive_ms, None))
    return _read_daemon(spec, restarting, table)


def _success_codes(table: Table) -> tuple[int, ...]:
    """0 is always one of them (contract 1)."""
    codes = table.read("success_codes", readers.list_of(readers.integer(0, 255), "exit codes"), ())
    return tuple(sorted({0, *codes}))


def _read_daemon(spec: Spec, inherited: Restarting, table: Table) -> Spec:
    """What only a daemon has."""
    restarting = _read_restarting(inherited, table)
    return spec.but(
        policy=table.read("policy", readers.choice(tuple(policies.POLICIES)), INHERITED),
        backoff=restarting.backoff,
        restarts=restarting.restarts,
        restart_dependents=table.read("restart_dependents", readers.boolean, False),
        ready=table.within("ready", _read_ready, None),
        health=table.within("health", _read_health, None),
        on_unhealthy=table.read("on_unhealthy", readers.choice(ON_UNHEALTHY), IGNORE_UNHEALTHY),
    )


def _read_ready(table: Table) -> Ready | None:
    table.allow((*PROBES, "timeout"))
    kind = table.one_of(PROBES)
    timeout_ms = table.read("timeout", readers.positive_ms, 30_000)
    probe = table.read(kind, PROBES[kind], None) if kind else None
    return Ready(probe, timeout_ms) if probe else None


def _read_health(table: Table) -> Check | None:
    table.allow(
        (*CHECKS, "interval", "timeout", "retries", "start_period"),
        {"notify": "a health check asks; what a daemon says by itself is for ready"},
    )
    kind = table.one_of(CHECKS)
    interval_ms = table.read("interval", readers.positive_ms, 30_000)
    timeout_ms = table.read("timeout", readers.positive_ms, 5_000)
    retries = table.read("retries", readers.integer(1), 3)
    start_period_ms = table.read("start_period", readers.duration_ms, 0)
    probe = table.read(kind, PROBES[kind], None) if kind else None
    return Check(probe, interval_ms, timeout_ms, retries, start_period_ms) if probe else None


def _read_process(table: Table) -> Process:
    """What the kernel is told."""
    process = Process(
        user=table.read("user", readers.account, None),
        group=table.read("group", readers.account, None),
        groups=table.read("groups", readers.list_of(readers.account, "names or ids"), None),
        cwd=table.read("cwd", readers.text, None),
        umask=table.read("umask", readers.umask, None),
        env=table.read("env", readers.env, ()),
        env_files=table.read("env_files", readers.list_of(readers.text, "paths"), ()),
        rlimits=table.read("rlimits", readers.rlimits, ()),
        nice=table.read("nice", readers.integer(-20, 19), None),
        oom_score_adj=table.read("oom_score_adj", readers.integer(-1_000, 1_000), None),
        no_new_privs=table.read("no_new_privs", readers.boolean, True),
        capabilities=table.read("capabilities", readers.list_of(readers.capability, "capabilities"), None),
    )
    if process.capabilities is not None:
        process = process.but(capabilities=readers.unique(process.capabilities))
    return process
