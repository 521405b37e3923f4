"""Readers of single values: durations, signals, addresses, limits (contract 9).

A `Reader` takes what TOML gave and returns what the core wants, or raises `Wrong`. It also knows the way back, and what
the documentation and the JSON Schema call the value; so a key of the file takes one row of `keys.py` and no more.
"""

from __future__ import annotations

from bottle_init.bundle import patterns
from bottle_init.bundle.source import Wrong
from bottle_init.bundle.table import Table, kind, listed, nearest, quoted, shown, table
from bottle_init.bundle.variables import taken
from bottle_init.core import policies, signals
from bottle_init.core.spec import Probe
from bottle_init.words import durations, signames
from bottle_init.words.durations import LONGEST_MS, UNITS_MS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final, Generic, TypeVar

    from bottle_init.bundle.source import Faults

    Schema = dict[str, Any]
    T = TypeVar("T")

if not TYPE_CHECKING:
    T = None

    class Generic:
        """What `typing` has for a type checker alone: that takes 9 ms to import."""

        def __class_getitem__(cls, _):
            return cls


UNLIMITED: Final = ("unlimited", "infinity")
RLIMITS: Final = (
    *("as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc"),
    *("rss", "rtprio", "rttime", "sigpending", "stack"),
)
CAPABILITIES: Final = (
    *("audit_control", "audit_read", "audit_write", "block_suspend", "bpf", "checkpoint_restore", "chown"),
    *("dac_override", "dac_read_search", "fowner", "fsetid", "ipc_lock", "ipc_owner", "kill", "lease"),
    *("linux_immutable", "mac_admin", "mac_override", "mknod", "net_admin", "net_bind_service", "net_broadcast"),
    *("net_raw", "perfmon", "setfcap", "setgid", "setpcap", "setuid", "sys_admin", "sys_boot", "sys_chroot"),
    *("sys_module", "sys_nice", "sys_pacct", "sys_ptrace", "sys_rawio", "sys_resource", "sys_time"),
    *("sys_tty_config", "syslog", "wake_alarm"),
)
"""capabilities(7), in alphabetical order."""

_UNIX = "unix:"
_OWN_HEADERS: Final = ("connection", "content-length", "transfer-encoding", "expect", "upgrade")
_SUN_PATH_MAX = 107
_HUGE = 2**63 - 1

DEFINITIONS: Final[dict[str, Schema]] = {}
"""What several keys share in the JSON Schema, by name."""


class Reader(Generic[T]):
    """Reads one value: called with what TOML gave, it returns what the core wants, or raises `Wrong`.

    `says` is its type in the documentation, `schema` in the JSON Schema; `write` turns what the core has back into what
    TOML gives.
    """

    __slots__ = ("_read", "says", "schema", "write")

    def __init__(
        self, read: Callable[[object], T], says: str, schema: Schema, write: Callable[[Any], object] | None = None
    ) -> None:
        self._read = read
        self.says = says
        self.schema = schema
        self.write = write or _as_it_is

    def __call__(self, value: object) -> T:
        """Read a value. Raises `Wrong`."""
        return self._read(value)

    def then(self, change: Callable[[Any], Any]) -> Reader[Any]:
        """The same, with what was read changed at last."""
        return Reader(lambda value: change(self(value)), self.says, self.schema, self.write)

    def called(self, says: str) -> Reader[T]:
        """The same under another name in the documentation."""
        return Reader(self._read, says, self.schema, self.write)


def _as_it_is(value: Any) -> object:
    return value


def reads(
    says: str, schema: Schema, write: Callable[[Any], object] | None = None, *, shared: str = ""
) -> Callable[[Callable[[object], T]], Reader[T]]:
    """Make a reader of a function; `shared` names it in the schema, where others refer to it."""
    if shared:
        DEFINITIONS[shared] = schema
        schema = {"$ref": f"#/definitions/{shared}"}

    def decorate(read: Callable[[object], T]) -> Reader[T]:
        return Reader(read, says, schema, write)

    return decorate


# Text.


def without_nul(value: str) -> str:
    """The string itself, if no NUL byte would cut it short."""
    if "\0" in value:
        raise Wrong("must not contain a NUL byte")
    return value


@reads("string", {"type": "string", "minLength": 1, "pattern": "^[^\\u0000]+$"}, shared="text")
def text(value: object) -> str:
    """A string that the kernel can take: without a NUL byte, not empty."""
    if not isinstance(value, str):
        raise Wrong(f"must be a string, is {shown(value)}")
    if not value:
        raise Wrong("must not be empty")
    return without_nul(value)


path: Final = text.called("path")


@reads("string", {"type": "string", "pattern": "^[^\\u0000]*$"}, shared="word")
def word(value: object) -> str:
    """An argument of a command: a string, empty or not."""
    return "" if value == "" and isinstance(value, str) else text(value)


@reads("name", {"type": "string", "pattern": f"^{patterns.NAME}$"}, shared="name")
def name(value: object) -> str:
    """The name of a child."""
    if not isinstance(value, str) or not patterns.is_name(value):
        raise Wrong(f"must be a name of letters, digits, _ and -, not beginning with -, is {shown(value)}")
    return value


@reads("name of a variable", {"type": "string", "pattern": f"^{patterns.VARIABLE}$"})
def variable(value: object) -> str:
    """The name of a variable of the environment."""
    if not isinstance(value, str) or not patterns.is_variable(value):
        raise Wrong(f"must be the name of a variable, of letters, digits and _, is {shown(value)}")
    return value


def choice(words: Iterable[str]) -> Reader[str]:
    """One of a few words."""
    known = tuple(words)

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in known:
            hint = nearest(value, known) if isinstance(value, str) else ""
            raise Wrong(f"must be one of {listed(map(quoted, known), 'or')}, is {shown(value)}{hint}")
        return value

    return Reader(read, ", ".join(f'`"{each}"`' for each in known), {"enum": list(known)})


DEFINITIONS["policy"] = {"enum": list(policies.POLICIES)}
_POLICIES_ELSEWHERE: Final = {
    "always": "restart",
    "unless-stopped": "restart",
    "true": "restart",
    "on-failure": "restart-on-failure",
    "unexpected": "restart-on-failure",
    "on-abnormal": "restart-on-crash",
    "on-abort": "restart-on-crash",
    "no": "wait-for-all",
    "never": "wait-for-all",
    "false": "wait-for-all",
}
"""What Docker, systemd and supervisord call a policy, and the nearest one here."""


def _policy(value: object) -> str:
    """A policy, with a hint for the words of other tools."""
    try:
        return _POLICY(value)
    except Wrong as wrong:
        meant = _POLICIES_ELSEWHERE.get(str(value).lower()) if isinstance(value, str | bool) else None
        if meant is None:
            raise
        raise Wrong(f"{str(wrong).partition('; did you mean')[0]} (which is nearest to {quoted(meant)} here)") from None


_POLICY: Final = choice(policies.POLICIES)
policy: Final = Reader(_policy, "[policy](#policies)", {"$ref": "#/definitions/policy"})


# Numbers.


@reads("boolean", {"type": "boolean"})
def boolean(value: object) -> bool:
    """`true` or `false`."""
    if not isinstance(value, bool):
        raise Wrong(f"must be true or false, is {shown(value)}")
    return value


def integer(low: int, high: int | None = None) -> Reader[int]:
    """A whole number, within bounds that belong to it."""
    bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
    most = _HUGE if high is None else high

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= most:
            raise Wrong(f"must be a whole number {bounds}, is {shown(value)}")
        return value

    says = "integer" if high is None or high >= 2**31 - 1 else f"integer, {low} to {high}"
    return Reader(read, says, {"type": "integer", "minimum": low, "maximum": most})


@reads("number", {"type": "number", "minimum": 1, "maximum": 1_000_000})
def factor(value: object) -> float:
    """A number of at least 1; infinity is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 1_000_000:
        raise Wrong(f"must be a number from 1 to 1000000, is {shown(value)}")
    return float(value)


_SPELLED = "".join(rf"(?:[0-9]+(?:\.[0-9]+)?{unit})?" for unit in UNITS_MS)


@reads(
    "[duration](#values)",
    {
        "anyOf": [
            {"type": "string", "minLength": 2, "pattern": f"^{_SPELLED}$"},
            {"type": "number", "minimum": 0, "maximum": LONGEST_MS // 1_000},
        ]
    },
    durations.spell,
    shared="duration",
)
def duration_ms(value: object) -> int:
    """`"500ms"`, `"1m30s"`, or a number of seconds, in whole milliseconds; anything above 0 is at least one."""
    if isinstance(value, str):
        exact = _exact_ms(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and value == value:  # noqa: PLR0124 - No NaN.
        if value < 0:
            raise Wrong(f"must not be negative, is {shown(value)}")
        exact = value * 1_000.0 if value <= LONGEST_MS else float("inf")
    else:
        raise Wrong(f'must be a duration such as "8s", or a number of seconds, is {shown(value)}')
    if exact > LONGEST_MS:
        raise Wrong(f"must not be longer than ten years, is {shown(value)}")
    return max(round(exact), 1) if exact else 0


def _exact_ms(value: str) -> float:
    try:
        return durations.parse_ms(value)
    except ValueError:
        unit = ' (it has no unit: seconds are "s")' if value.isascii() and value.isdigit() else ""
        raise Wrong(f'must be a duration such as "500ms", "8s" or "1m30s", is {shown(value)}{unit}') from None


@reads(
    "[duration](#values)",
    {
        "anyOf": [
            {"type": "string", "minLength": 2, "pattern": f"^(?=.*[1-9]){_SPELLED}$"},
            {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_MS // 1_000},
        ]
    },
    durations.spell,
    shared="positive_duration",
)
def positive_ms(value: object) -> int:
    """A duration that is not nothing."""
    found = duration_ms(value)
    if found == 0:
        raise Wrong("must be longer than 0")
    return found


# Lists.


def list_of(item: Callable[[object], T], what: str) -> Reader[tuple[T, ...]]:
    """A list; each item that is wrong is a fault of its own. Its items may also have a plain function for a reader."""
    one = item if isinstance(item, Reader) else Reader(item, what, {})

    def read(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise Wrong(f"must be a list of {what}, is {shown(value)}")
        found: list[T] = []
        faults: Faults = []
        for position, each in enumerate(value):
            try:
                found.append(taken(each, one))
            except Wrong as wrong:
                faults.extend((f"[{position}]{below}", message) for below, message in wrong.faults)
        if faults:
            raise Wrong("", faults)
        return tuple(found)

    def write(values: tuple[T, ...]) -> list[object]:
        return [one.write(value) for value in values]

    return Reader(read, f"list of {what}", {"type": "array", "items": one.schema}, write)


def unique(values: Iterable[T]) -> tuple[T, ...]:
    """Each once, in the order of their first appearance."""
    return tuple(dict.fromkeys(values))


names: Final = list_of(name, "names").then(unique)
paths: Final = list_of(path, "paths")


@reads(
    "list of strings",
    {
        "type": "array",
        "minItems": 1,
        "items": [{"$ref": "#/definitions/text"}],
        "additionalItems": {"$ref": "#/definitions/word"},
    },
    list,
    shared="command",
)
def command(value: object) -> tuple[str, ...]:
    """A program and its arguments."""
    if isinstance(value, str):
        raise Wrong(
            'must be a list of strings, such as ["nginx", "-g", "daemon off;"]; a shell line is ["sh", "-c", ...]'
        )
    words = list_of(word, "strings")(value)
    if not words:
        raise Wrong("must not be empty: its first word is the program")
    if not words[0]:
        raise Wrong("", [("[0]", "must not be empty: it is the program")])
    return words


def _with_0(codes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted({0, *codes}))


success_codes: Final = list_of(integer(0, 255), "exit codes").then(_with_0)
"""0 is always one of them (contract 1)."""


# What a process is set up with.


@reads(
    "name or id",
    {"anyOf": [{"$ref": "#/definitions/text"}, {"type": "integer", "minimum": 0, "maximum": 2**32 - 2}]},
    shared="account",
)
def account(value: object) -> str | int:
    """The name or id of a user or group; the id -1 is the kernel's word for none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return integer(0, 2**32 - 2)(value)
    if not isinstance(value, str):
        raise Wrong(f"must be a name or an id, is {shown(value)}")
    if "${" in value:
        raise Wrong(f"must be a name or an id, is {shown(value)}: [variables] does not declare that")
    return text(value)


accounts: Final = list_of(account, "names or ids")


@reads(
    "string",
    {"type": "string", "pattern": f"^({patterns.UMASK})$"},
    lambda mask: f"{mask:04o}",
)
def umask(value: object) -> int:
    """An octal string."""
    if not isinstance(value, str) or not patterns.is_umask(value):
        raise Wrong(f'must be an octal string from "0000" to "0777", is {shown(value)}')
    return int(value, 8)


@reads(
    "table of strings",
    {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": {"$ref": "#/definitions/word"},
    },
    dict,
)
def env(value: object) -> tuple[tuple[str, str], ...]:
    """A table of strings. Values may be secrets, so no message shows one."""
    faults: Faults = []
    variables = Table("", table(value), faults)
    for key in table(value):
        if not patterns.is_variable(key):
            variables.fault(key, "the name of a variable must be of letters, digits and _, not beginning with a digit")
    found = tuple((key, variables.read(key, _env_value, "")) for key in table(value))
    if faults:
        raise Wrong("", [("." + below, message) for below, message in faults])
    return found


def _env_value(value: object) -> str:
    if not isinstance(value, str):
        raise Wrong(f"must be a string, is {kind(value)}: put it in quotes")
    return without_nul(value)


_DEFAULT: Final = ("default", "required")


@reads(
    "table of [variables](#variables)",
    {
        "type": "object",
        "propertyNames": {"pattern": f"^{patterns.VARIABLE}$"},
        "additionalProperties": {
            "anyOf": [
                {"$ref": "#/definitions/word"},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "default": {"$ref": "#/definitions/word"},
                        "required": {"const": True, "type": "boolean"},
                        "override": {"type": "boolean"},
                    },
                    "oneOf": [{"required": [key]} for key in _DEFAULT],
                },
            ]
        },
    },
)
def variables(value: object) -> tuple[tuple[str, str | None], ...]:
    """`{ PORT = "8080", TOKEN = { required = true } }` as `(name, default)`, None for a required one."""
    faults: Faults = []
    declared = Table("", table(value), faults)
    for key in table(value):
        if not patterns.is_variable(key):
            declared.fault(key, "the name of a variable must be of letters, digits and _, not beginning with a digit")
    found = tuple((key, declared.read(key, _declaration, None)) for key in table(value))
    if faults:
        raise Wrong("", [("." + below, message) for below, message in faults])
    return found


def _declaration(value: object) -> str | None:
    """The default of a variable, None for a required one."""
    if isinstance(value, str):
        return without_nul(value)
    if not isinstance(value, dict):
        raise Wrong(f"must be a string in quotes, or {{ required = true }}, is {shown(value)}")
    faults: Faults = []
    own = Table("", value, faults)
    own.allow((*_DEFAULT, "override"))
    own.one_of(_DEFAULT)
    own.read("required", _true, None)
    own.read("override", boolean, False)
    default = own.read("default", word, None)
    if faults:
        raise Wrong("", [("." + below if below else "", message) for below, message in faults])
    return default


def _true(value: object) -> bool:
    if value is not True:
        raise Wrong(f"must be true, or left out, is {shown(value)}")
    return True


def _one_limit(value: object) -> int:
    """A number, or unlimited."""
    if isinstance(value, str) and value in UNLIMITED:
        return -1
    if isinstance(value, int) and not isinstance(value, bool) and -1 <= value <= _HUGE:
        return value
    raise Wrong(f'must be a whole number, or "unlimited" (or -1), is {shown(value)}')


def _limit_word(limit: int) -> object:
    return UNLIMITED[0] if limit == -1 else limit


_limit = reads(
    "limit",
    {"anyOf": [{"type": "integer", "minimum": -1, "maximum": _HUGE}, {"enum": list(UNLIMITED)}]},
    _limit_word,
    shared="limit",
)(_one_limit)


@reads(
    "limit or `[soft, hard]`",
    {
        "anyOf": [
            {"$ref": "#/definitions/limit"},
            {"type": "array", "minItems": 2, "maxItems": 2, "items": {"$ref": "#/definitions/limit"}},
        ]
    },
    shared="rlimit",
)
def rlimit(value: object) -> tuple[int, int]:
    """One limit: a number for both, or `[soft, hard]`."""
    if not isinstance(value, list):
        both = _limit(value)
        return both, both
    if len(value) != 2:
        raise Wrong("must be one limit, or a list of the soft and the hard one")
    soft, hard = list_of(_limit, "limits")(value)
    if hard != -1 and (soft == -1 or soft > hard):
        raise Wrong("the soft limit, which comes first, must not be above the hard one")
    return soft, hard


def _written_limits(limits: tuple[tuple[str, int, int], ...]) -> dict[str, object]:
    return {
        key: _limit_word(soft) if soft == hard else [_limit_word(soft), _limit_word(hard)] for key, soft, hard in limits
    }


@reads(
    "table",
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {limit: {"$ref": "#/definitions/rlimit"} for limit in RLIMITS},
    },
    _written_limits,
)
def rlimits(value: object) -> tuple[tuple[str, int, int], ...]:
    """`{ nofile = 1024, core = [0, "unlimited"] }` as `(name, soft, hard)`, with -1 for unlimited."""
    faults: Faults = []
    limits = Table("", table(value), faults)
    limits.allow(RLIMITS)
    found = tuple((key, *limits.read(key, rlimit, (0, 0))) for key in table(value) if key in RLIMITS)
    if faults:
        raise Wrong("", [("." + below, message) for below, message in faults])
    return found


@reads(
    "[capability](#values)",
    {"anyOf": [{"enum": list(CAPABILITIES)}, {"type": "string", "pattern": "^[A-Za-z_]+$"}]},
)
def capability(value: object) -> str:
    """`CAP_NET_ADMIN`, `net_admin` -> `net_admin`."""
    if not isinstance(value, str):
        raise Wrong(f"must be the name of a capability, is {shown(value)}")
    found = value.lower().removeprefix("cap_")
    if found not in CAPABILITIES:
        raise Wrong(f"there is no capability {quoted(value)}{nearest(found, CAPABILITIES)}")
    return found


capabilities: Final = list_of(capability, "capabilities").then(unique).called("list of [capabilities](#values)")


# Signals.


def signal(value: object) -> int:
    """A signal by name or number."""
    try:
        if isinstance(value, str):
            return signames.number(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return signames.checked(value)
    except ValueError:
        if not isinstance(value, str):
            raise Wrong(f"there is no signal {shown(value)}") from None
        hint = nearest(value.upper().removeprefix("SIG"), signames.names())
        raise Wrong(f"there is no signal {quoted(value)}{hint}") from None
    raise Wrong(f"must be the name or the number of a signal, is {shown(value)}")


DEFINITIONS["signal_number"] = {
    "type": "integer",
    "anyOf": [{"minimum": 1, "maximum": 31}, {"minimum": signames.RTMIN, "maximum": signames.RTMAX}],
}
_SPELLED_SIGNALS: Final[list[Schema]] = [
    {"enum": [known for known in signames.names() if known not in ("KILL", "STOP")]},
    {"type": "string", "pattern": "^[A-Za-z0-9+-]+$"},
    {"$ref": "#/definitions/signal_number"},
]
_UNCATCHABLE: Final[Schema] = {"enum": ["KILL", "SIGKILL", "STOP", "SIGSTOP", signals.KILL, signals.STOP]}


@reads(
    "[signal](#values)",
    {"not": _UNCATCHABLE, "anyOf": _SPELLED_SIGNALS},
    signames.name,
    shared="stop_signal",
)
def stop_signal(value: object) -> int:
    """A signal that a child can answer by ending."""
    found = signal(value)
    if found == signals.KILL:
        raise Wrong("must not be KILL: that comes by itself, after stop_timeout")
    if found == signals.STOP:
        raise Wrong("must not be STOP: it suspends a process, and no process ends by it")
    return found


def _written_rules(rules: tuple[tuple[int, int], ...]) -> dict[str, object]:
    return {signames.name(source): _written_target(target) for source, target in rules}


def _written_target(target: int) -> object:
    return signames.name(target) if target else 0


@reads(
    "[signal](#values) or 0",
    {"not": _UNCATCHABLE, "anyOf": [{"const": 0, "type": "integer"}, *_SPELLED_SIGNALS]},
    _written_target,
    shared="rewritten",
)
def rewritten(value: object) -> int:
    """What a signal is rewritten to; 0 drops it."""
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return 0
    found = signal(value)
    if found in (signals.KILL, signals.STOP):
        raise Wrong("must not be KILL or STOP: no process can catch them")
    return found


@reads(
    "table of [signals](#values)",
    {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z0-9+-]+$"},
        "properties": {known: {"$ref": "#/definitions/rewritten"} for known in ("HUP", "USR1", "USR2", "WINCH")},
        "additionalProperties": {"$ref": "#/definitions/rewritten"},
    },
    _written_rules,
    shared="signals",
)
def signal_rules(value: object) -> tuple[tuple[int, int], ...]:
    """`{ USR1 = "HUP", USR2 = 0 }` as `(from, to)` pairs."""
    faults: Faults = []
    rules = Table("", table(value), faults)
    found: dict[int, int] = {}
    for key in table(value):
        try:
            source = forwardable(key)
        except Wrong as wrong:
            rules.fault(key, str(wrong))
            continue
        if source in found:
            rules.fault(key, f"{signames.name(source)} is there twice")
        found[source] = rules.read(key, rewritten, 0)
    if faults:
        raise Wrong("", [("." + below, message) for below, message in faults])
    return tuple(found.items())


def forwardable(key: str) -> int:
    """A signal that the init forwards to a child that names it."""
    source = signal(key)
    if source not in signals.BY_NAME:
        raise Wrong(
            "is not forwarded: HUP, USR1, USR2, WINCH and the real-time signals can be"
            " (what the child gets in a stop is its stop_signal)"
        )
    return source


_NO_REQUEST: Final = {
    signals.KILL: "no process can catch it",
    signals.STOP: "no process can catch it",
    signals.CHLD: "the kernel sends it for every child that ends",
    signals.CONT: "it wakes what was suspended",
}


@reads(
    "[signal](#values)",
    {
        "not": {"enum": [name for number in _NO_REQUEST for name in (signames.name(number), number)]},
        "anyOf": _SPELLED_SIGNALS,
    },
    signames.name,
    shared="request",
)
def requests_stop(value: object) -> int:
    """A signal that can reach the init and has no other meaning."""
    found = signal(value)
    if found in _NO_REQUEST:
        raise Wrong(f"{signames.name(found)} cannot ask for a stop: {_NO_REQUEST[found]}")
    return found


def _some(found: tuple[int, ...]) -> tuple[int, ...]:
    if not found:
        raise Wrong("must not be empty: no signal could stop the bundle")
    return unique(found)


_REQUESTS: Final = list_of(requests_stop, "signals").then(_some)
stop_signals: Final = Reader(
    _REQUESTS, "list of [signals](#values)", {**_REQUESTS.schema, "minItems": 1}, _REQUESTS.write
)


# Probes.

_HOST: Final = r"(localhost|[0-9.]+|\[[0-9A-Fa-f:.]+\])"


def _written_host(probe: Probe) -> str:
    return f"[{probe.host}]" if ":" in probe.host else probe.host


def _written_tcp(probe: Probe) -> object:
    if probe.socket:
        return f"unix:{probe.socket}"
    return probe.port if probe.host == "localhost" else f"{_written_host(probe)}:{probe.port}"


def _written_http(probe: Probe) -> object:
    if probe.socket:
        return f"unix:{probe.socket}:{probe.path}"
    return f"http://{_written_host(probe)}:{probe.port}{probe.path}"


@reads(
    'port, `"HOST:PORT"` or `"unix:PATH"`',
    {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 65_535},
            {"type": "string", "pattern": f"^({_HOST}:[0-9]{{1,5}}|unix:(/[^\\u0000]*|@[^\\u0000]+))$"},
        ]
    },
    _written_tcp,
    shared="tcp",
)
def tcp(value: object) -> Probe:
    """A port of localhost, `"HOST:PORT"`, or `"unix:PATH"`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return Probe("tcp", "localhost", integer(1, 65_535)(value))
    if not isinstance(value, str):
        raise Wrong(f'must be a port, "HOST:PORT" or "unix:PATH", is {shown(value)}')
    if value.startswith(_UNIX):
        return Probe("tcp", socket=probed_socket(value.removeprefix(_UNIX)))
    host, port = host_and_port(value)
    return Probe("tcp", host, port)


def probed_socket(address: str) -> str:
    """An absolute path, or `@name`: the init itself works in `/`."""
    if not address.startswith(("/", "@")):
        raise Wrong(f'must be "unix:" and a path that begins with /, or @name, is {shown(_UNIX + address)}')
    return socket_address(address)


def host_and_port(value: str) -> tuple[str, int]:
    """`127.0.0.1:80`, `localhost:80`, `[::1]:80`."""
    found = patterns.split_host(value)
    if found is None:
        bare = " (a port alone is written without quotes)" if value.isascii() and value.isdigit() else ""
        raise Wrong(f'must be "HOST:PORT" (IPv6 as "[::1]:80"), is {shown(value)}{bare}')
    host, port, is_six = found
    return ip_or_localhost(host, is_six=is_six), port_of(port)


def port_of(digits: str) -> int:
    """A port's number."""
    port = int(digits)
    if not 1 <= port <= 65_535:
        raise Wrong(f"the port must be from 1 to 65535, is {digits}")
    return port


def ip_or_localhost(host: str, *, is_six: bool) -> str:
    """A host that needs no resolver: the init cannot wait for one."""
    import _socket

    if host == "localhost" and not is_six:
        return host
    try:
        _socket.inet_pton(_socket.AF_INET6 if is_six else _socket.AF_INET, host)
    except (OSError, ValueError):
        raise Wrong(f"the host must be an IP address or localhost (nothing is resolved), is {quoted(host)}") from None
    return host


@reads(
    "URL",
    {
        "type": "string",
        "pattern": f'^(http://{_HOST}(:[0-9]{{1,5}})?([/?][!"$-~]*)?|'
        r'unix:(/|@(?!:/)[^\u0000])((?!:/)[^\u0000])*(:/[!"$-~]*)?)$',
    },
    _written_http,
    shared="http",
)
def http(value: object) -> Probe:
    """`http://HOST:PORT/path?query`, or `unix:PATH:/path?query`."""
    if not isinstance(value, str):
        raise Wrong(f'must be a URL such as "http://127.0.0.1:8080/health", is {shown(value)}')
    if value.startswith(_UNIX):
        return _http_by_socket(value.removeprefix(_UNIX))
    if value.lower().startswith("https:"):
        raise Wrong("must be an http:// URL: the init speaks no TLS (an exec probe can run a program that does)")
    found = patterns.split_url(value)
    if found is None:
        raise Wrong(f'must be a URL such as "http://127.0.0.1:8080/health", in ASCII, is {shown(value)}')
    authority, target = found
    if "@" in authority or "#" in target:
        raise Wrong("must have neither a user nor a #fragment")
    if ":" not in authority.rpartition("]")[2]:
        authority += ":80"
    host, port = host_and_port(authority)
    target = target or "/"
    return Probe("http", host, port, target if target.startswith("/") else "/" + target)


def _http_by_socket(value: str) -> Probe:
    address, colon, rest = value.partition(":/")
    target = f"/{rest}"
    if not patterns.is_target(target):
        raise Wrong(f'must be "unix:PATH:/TARGET", its target in ASCII and without a #fragment, is {shown(value)}')
    return Probe("http", socket=probed_socket(address), path=target if colon else "/")


def _written_headers(headers: tuple[tuple[str, str], ...]) -> dict[str, object]:
    return dict(headers)


@reads(
    "table of strings",
    {
        "type": "object",
        "propertyNames": {"pattern": f"^{patterns.FIELD}$"},
        "additionalProperties": {"type": "string", "pattern": f"^{patterns.FIELD_VALUE}$"},
    },
    _written_headers,
    shared="headers",
)
def headers(value: object) -> tuple[tuple[str, str], ...]:
    """`{ Host = "app" }` as pairs. Values may be secrets, so no message shows one."""
    faults: Faults = []
    lines = Table("", table(value), faults)
    seen: dict[str, str] = {}
    for key in table(value):
        name = key.lower()
        if not patterns.is_field(key):
            lines.fault(key, "is not the name of a header (RFC 9110, 5.1)")
        elif name in _OWN_HEADERS:
            lines.fault(key, "is for the init to say: it asks once, without a body, and then closes")
        elif name in seen:
            lines.fault(key, f"is there already, as {seen[name]}")
        seen[name] = key
    found = tuple((key, lines.read(key, _header_value, "")) for key in table(value))
    if faults:
        raise Wrong("", [("." + below, message) for below, message in faults])
    return found


def _header_value(value: object) -> str:
    if not isinstance(value, str):
        raise Wrong(f"must be a string, is {kind(value)}: put it in quotes")
    if not patterns.is_field_value(value):
        raise Wrong("must be in ASCII, without control characters, and without a blank at either end")
    return value


@reads(
    "[duration](#values)",
    {"$ref": "#/definitions/positive_duration"},
    lambda probe: durations.spell(probe.after_ms),
)
def after(value: object) -> Probe:
    """How long a daemon has to run."""
    return Probe("after", after_ms=positive_ms(value))


@reads("list of strings", command.schema, lambda probe: list(probe.command))
def exec_probe(value: object) -> Probe:
    """A command whose exit code 0 is yes."""
    return Probe("exec", command=command(value))


@reads("`true`", {"const": True, "type": "boolean"}, lambda _probe: True)
def notify(value: object) -> Probe:
    """`true`: the daemon says so itself, by NOTIFY_SOCKET."""
    if value is not True:
        raise Wrong(f"must be true, or left out, is {shown(value)}")
    return Probe("notify")


# Addresses of sockets.


def socket_address(value: object) -> str:
    """A path or `@name` of a Unix socket."""
    address = text(value)
    if address == "@":
        raise Wrong("a name must come after the @")
    if len(address.encode("utf-8", "surrogateescape")) > _SUN_PATH_MAX:
        raise Wrong(f"must not be longer than {_SUN_PATH_MAX} bytes (unix(7))")
    return address


_SOCKET: Final = r"([^\u0000@][^\u0000]*|@[^\u0000]+)"


@reads(
    'path, `"@name"` or `""`',
    {"type": "string", "maxLength": _SUN_PATH_MAX, "pattern": f"^{_SOCKET}?$"},
)
def control(value: object) -> str:
    """The address of the control socket; empty for none."""
    return "" if value == "" and isinstance(value, str) else socket_address(value)


@reads(
    '`"tcp:HOST:PORT"` or `"unix:PATH"`',
    {"type": "string", "pattern": f"^(tcp:{_HOST}:[0-9]{{1,5}}|unix:{_SOCKET})$"},
)
def connect(value: object) -> str:
    """`tcp:HOST:PORT` or `unix:PATH`."""
    address = text(value)
    scheme, _, rest = address.partition(":")
    if scheme == "tcp":
        host_and_port(rest)
    elif scheme == "unix":
        socket_address(rest)
    else:
        raise Wrong(f'must be "tcp:HOST:PORT" or "unix:PATH", is {shown(value)}')
    return address


@reads('`"HOST:PORT"` or `"unix:PATH"`', {"type": "string", "pattern": f"^({_HOST}:[0-9]{{1,5}}|unix:{_SOCKET})$"})
def listen(value: object) -> str:
    """An address to listen at: `HOST:PORT` or `unix:PATH`."""
    address = text(value)
    scheme, _, path = address.partition(":")
    if scheme == "unix":
        socket_address(path)
    else:
        host_and_port(address)
    return address
