"""The keys of a bundle file (contract 9): one row for each, and everything else comes from the rows.

That is the parser (`document.py`) and what it says of a key that is another kind's, the way back to a file
(`written.py`), the JSON Schema, and the tables of docs/bundle-file.md. A default stands once, in the core's value.
"""

from __future__ import annotations

from bottle_init.bundle import readers
from bottle_init.core import words
from bottle_init.core.spec import Backoff, Budget, Bundle, Check, Lease, Probe, Ready, Spec
from bottle_init.core.values import Value
from bottle_init.core.words import DAEMON, JOB, ONESHOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

INHERITED: Final = ""
"""The policy of a daemon that has none of its own, until the bundle's is known."""

KINDS: Final = {"oneshots": ONESHOT, "daemons": DAEMON, "jobs": JOB}
"""The tables of children, in the order of "declared first"."""


class Key(Value):
    """One key.

    `field` is where the core has it, `settings.user` for a field of a child's process; empty for what only others
    inherit. `reader` is a `Reader`, or the `Shape` of the table below the key. `kinds` are the children that have it,
    `elsewhere` says to the others why they don't. A key with `required` has to be there; that is what to say if not.
    Where a key that `inherits` is left out, the bundle's holds.
    """

    name: str
    reader: Any
    field: str
    sentence: str
    kinds: tuple[str, ...] = (ONESHOT, DAEMON, JOB)
    elsewhere: str = ""
    required: str = ""
    inherits: bool = False


class Shape(Value):
    """A table below a key: `keys`, and the core's `plain` value with every default.

    Exactly one of the keys in `one_of` has to be there. `elsewhere` says of some others where they belong.
    """

    name: str
    sentence: str
    keys: tuple[Key, ...]
    plain: Value
    one_of: tuple[str, ...] = ()
    elsewhere: tuple[tuple[str, str], ...] = ()


BACKOFF: Final = Shape(
    "backoff",
    "The pause before the nth restart in a row is initial x factor^n, at most limit; it begins anew once the daemon "
    "has run for limit.",
    (
        Key("initial", readers.duration_ms, "initial_ms", "The first pause."),
        Key("factor", readers.factor, "factor", "What each pause is multiplied by for the next, at least 1."),
        Key("limit", readers.duration_ms, "limit_ms", "The longest pause."),
    ),
    Backoff(),
)

RESTARTS: Final = Shape(
    "restarts",
    "More than max restarts within window are a policy stop.",
    (
        Key("max", readers.integer(0), "max", "So many restarts are forgiven."),
        Key("window", readers.positive_ms, "window_ms", "The time that they are counted in."),
    ),
    Budget(),
)

LEASE: Final = Shape(
    "lease",
    "What the bundle's life hangs on, exactly one of the three; when it is gone, that is a requested stop. Default: "
    "none.",
    (
        Key(
            "fd",
            readers.integer(0, 2**31 - 1),
            "fd",
            "A file descriptor that the init was started with: its end of file.",
        ),
        Key(
            "connect",
            readers.connect,
            "connect",
            'A connection that the init makes, "tcp:HOST:PORT" or "unix:PATH": its end.',
        ),
        Key("renew", readers.positive_ms, "renew_ms", "So long without `ctl renew`."),
    ),
    Lease(),
    one_of=("fd", "connect", "renew"),
)

_TCP: Final = Key("tcp", readers.tcp, "probe", 'A port of localhost, "HOST:PORT", or "unix:PATH" takes a connection.')
_HTTP: Final = Key(
    "http",
    readers.http,
    "probe",
    'A GET of this URL is answered with a status from 200 to 399; of a Unix socket by "unix:PATH:/TARGET".',
)
_HEADERS: Final = Key(
    "headers",
    readers.headers,
    "probe.headers",
    "Headers of the request of http, in place of those that it has by itself, such as Host.",
)
_EXEC: Final = Key(
    "exec",
    readers.exec_probe,
    "probe",
    "This command, run as the daemon itself is (user, environment, directory), exits with 0.",
)

READY: Final = Shape(
    "ready",
    "When the daemon counts as ready, and those that are after it may start: exactly one of tcp, http, exec, "
    "notify and after. Without it: once it has been executed.",
    (
        *(_TCP, _HTTP, _HEADERS, _EXEC),
        Key("notify", readers.notify, "probe", "The daemon says so: READY=1 on NOTIFY_SOCKET (sd_notify(3))."),
        Key("after", readers.after, "probe", "It has run that long."),
        Key("timeout", readers.positive_ms, "timeout_ms", "Past this the start has failed."),
    ),
    Ready(Probe("")),
    one_of=("tcp", "http", "exec", "notify", "after"),
)

HEALTH: Final = Shape(
    "health",
    "A periodic check, in Docker's own words: exactly one of tcp, http and exec.",
    (
        *(_TCP, _HTTP, _HEADERS, _EXEC),
        Key("interval", readers.positive_ms, "interval_ms", "Between two checks, and before the first one."),
        Key("timeout", readers.positive_ms, "timeout_ms", "A check without an answer by then has failed."),
        Key("retries", readers.integer(1), "retries", "So many failures in a row make the daemon unhealthy."),
        Key(
            "start_period",
            readers.duration_ms,
            "start_period_ms",
            "Failures so soon after the start do not count, until a check has passed.",
        ),
    ),
    Check(Probe("")),
    one_of=("tcp", "http", "exec"),
    elsewhere=(
        ("notify", "a health check asks; what a daemon says by itself is for ready"),
        ("after", "a health check asks; that a daemon has run for a time is for ready"),
    ),
)

BUNDLE: Final = Shape(
    "bundle",
    "The bundle as a whole.",
    (
        Key(
            "policy",
            readers.policy,
            "policy",
            "What a daemon's death outside a stop does, where the daemon has no policy of its own.",
        ),
        Key(
            "stop_timeout",
            readers.duration_ms,
            "stop_timeout_ms",
            "One hard deadline for the whole stop: what is left is killed.",
        ),
        Key(
            "stop_signals",
            readers.stop_signals,
            "stop_signals",
            "The signals that request a stop of the bundle; not KILL, STOP, CHLD, nor CONT.",
        ),
        Key(
            "exit_code_from",
            readers.name,
            "exit_code_from",
            "The child whose last death alone gives the exit code. Default: none.",
        ),
        Key(
            "only_from",
            readers.variable,
            "only_from",
            "A variable of the environment that names the daemons and jobs to run, as BOTTLE_INIT_ONLY does, which "
            "overrides it. Default: none.",
        ),
        Key("backoff", BACKOFF, "", "The pause before a restart."),
        Key("restarts", RESTARTS, "", "How many restarts are too many."),
        Key(
            "logs",
            readers.choice(words.LOGS),
            "logs",
            '"inherit": children write to the init\'s own output; "tag": each line begins with [name]; "json": each '
            "line is a JSON object, one that is an object already stays that one.",
        ),
        Key(
            "control",
            readers.control,
            "control",
            'The control socket: a path, "@name" for an abstract one, "" for none.',
        ),
        Key(
            "http",
            readers.listen,
            "http",
            'Where /health, /live and /metrics are served: "HOST:PORT", or "unix:PATH". Whoever reaches it may read '
            "them. Default: nowhere.",
        ),
        Key("lease", LEASE, "lease", LEASE.sentence),
    ),
    Bundle(()),
)

TOP: Final = (
    Key(
        "include",
        readers.paths,
        "",
        "Files with more children and variables, relative to this file; * and ? stand for a part of a name.",
    ),
    Key("variables", readers.variables, "", "What ${NAME} stands for in the strings of the file."),
)
"""The keys at the top of the file, beside the tables."""

_ONLY_RESTARTED: Final = "only a daemon is restarted"
_ONLY_CHECKED: Final = "only a daemon is checked"

CHILD: Final = (
    Key(
        "command",
        readers.command,
        "command",
        "The program and its arguments, as execve(2) gets them: no shell.",
        required='is required: a list of strings, such as ["nginx", "-g", "daemon off;"]',
    ),
    Key(
        "after",
        readers.names,
        "after",
        "Children that must be ready before this one starts, and that stop after it.",
    ),
    Key(
        "enabled",
        readers.boolean,
        "enabled",
        "With false only `ctl start` starts it, and not the bundle; what is after it does not wait for it.",
    ),
    Key(
        "override",
        readers.boolean,
        "",
        "With true it replaces the child of this name that stands before it, in this file or another one.",
    ),
    Key("user", readers.account, "settings.user", "Whom it runs as. HOME, USER and LOGNAME follow."),
    Key("group", readers.account, "settings.group", "Its group. Default: the user's."),
    Key("groups", readers.accounts, "settings.groups", "Its supplementary groups. Default: the user's."),
    Key(
        "cwd",
        readers.path,
        "settings.cwd",
        "The directory that it starts in. Default: the one that the init was started in.",
    ),
    Key(
        "stdin",
        readers.choice(words.STDIN),
        "settings.stdin",
        '"inherit": the init\'s own standard input, for one child at most; "null": /dev/null.',
    ),
    Key(
        "logs",
        readers.choice(words.CHILD_LOGS),
        "logs",
        'What becomes of its lines, as in [bundle]; "none" drops them. Default: the bundle\'s.',
        inherits=True,
    ),
    Key("umask", readers.umask, "settings.umask", 'Octal, such as "0027". Default: inherited.'),
    Key(
        "env",
        readers.env,
        "settings.env",
        "Variables over those of env_files and of the init's own environment.",
    ),
    Key(
        "env_files",
        readers.paths,
        "settings.env_files",
        "Files of NAME=VALUE lines, read at every start; later ones win. Relative paths are from where the init was "
        "started.",
    ),
    Key(
        "rlimits",
        readers.rlimits,
        "settings.rlimits",
        'Resource limits (setrlimit(2)): a number for both, or [soft, hard]; "unlimited" or -1 for none.',
    ),
    Key(
        "nice",
        readers.integer(-20, 19),
        "settings.nice",
        "Scheduling priority, 19 is the most polite. Default: inherited.",
    ),
    Key(
        "oom_score_adj",
        readers.integer(-1_000, 1_000),
        "settings.oom_score_adj",
        "How gladly the kernel kills it when memory runs out, from -1000 (never) to 1000. Default: inherited.",
    ),
    Key(
        "no_new_privs",
        readers.boolean,
        "settings.no_new_privs",
        "Nothing that it executes can gain privileges (setuid programs, file capabilities).",
    ),
    Key(
        "capabilities",
        readers.capabilities,
        "settings.capabilities",
        "The capabilities that it keeps, and no others. Default: as the kernel leaves them (none, with a user that is "
        "not root).",
    ),
    Key(
        "success_codes",
        readers.success_codes,
        "success_codes",
        "Exit codes that are a success; 128+s stands for a kill by signal s. 0 always is one.",
    ),
    Key("stop_signal", readers.stop_signal, "stop_signal", "What asks it to end; not KILL, nor STOP."),
    Key(
        "stop_timeout",
        readers.duration_ms,
        "stop_timeout_ms",
        "From its stop signal to SIGKILL for it and its session.",
    ),
    Key(
        "stop_delay",
        readers.duration_ms,
        "stop_delay_ms",
        "From the decision to stop it to its stop signal, inside the same deadline.",
    ),
    Key(
        "timeout",
        readers.positive_ms,
        "timeout_ms",
        "Past this it is stopped, and counts as forced. Default: none.",
        (ONESHOT, JOB),
        "only oneshots and jobs have a timeout: a daemon runs for as long as the bundle does",
    ),
    Key(
        "policy",
        readers.policy,
        "policy",
        "What its death outside a stop does. Default: the bundle's.",
        (DAEMON,),
        "only a daemon has a policy: a oneshot has to succeed, and a job's end is the bundle's",
        inherits=True,
    ),
    Key(
        "backoff",
        BACKOFF,
        "backoff",
        "As in [bundle]; what is left out is the bundle's.",
        (DAEMON,),
        _ONLY_RESTARTED,
        inherits=True,
    ),
    Key(
        "restarts",
        RESTARTS,
        "restarts",
        "As in [bundle]; what is left out is the bundle's.",
        (DAEMON,),
        _ONLY_RESTARTED,
        inherits=True,
    ),
    Key(
        "restart_dependents",
        readers.boolean,
        "restart_dependents",
        "At each of its restarts, those that run after it are stopped first, and started again.",
        (DAEMON,),
        _ONLY_RESTARTED,
    ),
    Key(
        "ready",
        READY,
        "ready",
        "When it counts as ready. Default: once it has been executed.",
        (DAEMON,),
        "only a daemon has a probe: a oneshot is ready once it has succeeded, a job once it runs",
    ),
    Key("health", HEALTH, "health", "A periodic check. Default: none.", (DAEMON,), _ONLY_CHECKED),
    Key(
        "on_unhealthy",
        readers.choice(words.ON_UNHEALTHY),
        "on_unhealthy",
        "What follows when it has become unhealthy.",
        (DAEMON,),
        _ONLY_CHECKED,
    ),
    Key(
        "signals",
        readers.signal_rules,
        "signals",
        "Which of HUP, USR1, USR2, WINCH and the real-time signals it gets, and as which; it gets no other, and 0 says "
        "the same as silence.",
        (DAEMON, JOB),
        "only daemons and jobs get signals that reach the init",
    ),
    Key(
        "keeps",
        readers.capabilities,
        "keeps",
        "Capabilities that it keeps from all that start after it: once all such oneshots have succeeded, the init "
        "gives them up, and what starts later never has them.",
        (ONESHOT,),
        "only a oneshot can keep a capability from those after it: others run on, and need what they have",
    ),
)
"""The keys of all children, in the order of the documentation."""


PLAIN_CHILD: Final = Spec("", "", ())
"""A child with every default."""


def of_kind(kind: str) -> tuple[Key, ...]:
    """The keys that a child of this kind has."""
    return tuple(key for key in CHILD if kind in key.kinds)


def at(value: Any, field: str) -> Any:
    """A field of a value, `settings.user` for one of the value in another."""
    for part in field.split("."):
        value = getattr(value, part)
    return value
