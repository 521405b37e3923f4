"""Bundles, and the many ways in which a bundle file can spell each of them.

`bundles()` draws a `Bundle` first and its spelling second, so a key that the parser ignores, or
takes for another one, is seen: the bundle that comes back is not the one that was drawn. Both are made from the rows of
`bundle/keys.py`, so a new key is drawn as soon as it has a row.
`EVERY_KEY` is one document to change, place by place.
"""

from __future__ import annotations

import copy
import grp
import pwd
import tomllib
from string import ascii_lowercase, digits
from typing import TYPE_CHECKING, Any

import tomli_w
from hypothesis import strategies as st

from bottle_init.bundle import keys, patterns, readers
from bottle_init.core import policies
from bottle_init.core.spec import Bundle, ExecSettings, Probe, Spec
from bottle_init.words import durations, signames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from bottle_init.core.values import Value

    Draw = Callable[[st.SearchStrategy[Any]], Any]
    Document = dict[str, Any]

NAMES = st.from_regex(patterns.NAME, fullmatch=True).map(lambda name: name[:12])
VARIABLES = st.from_regex(patterns.VARIABLE, fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
COMMANDS = st.tuples(TEXTS, st.lists(WORDS, max_size=3)).map(lambda parts: (parts[0], *parts[1]))
DURATIONS_MS = st.one_of(st.integers(0, 5_000), st.integers(0, 3_600_000 * 30))
POSITIVE_MS = DURATIONS_MS.map(lambda ms: ms + 1)
PORTS = st.integers(1, 65_535)
HOSTS = st.sampled_from(["localhost", "127.0.0.1", "10.1.2.3", "::1", "fe80::1"])
SOCKETS = st.sampled_from(["/run/app.sock", "@app", "/run/a b:c"])
STOP_SIGNALS = st.sampled_from([n for n in (*range(1, 32), *range(34, 65)) if n not in (9, 19)])
FORWARDED = st.sampled_from([1, 10, 12, 28, *range(34, 65)])
ACCOUNTS = sorted({entry.pw_name for entry in pwd.getpwall()} & {entry.gr_name for entry in grp.getgrall()})
"""Names of which there are a user and a group."""
LIMITS = st.one_of(st.just(-1), st.integers(0, 2**63 - 1))


BOOLEANS = st.booleans()
KINDS = st.sampled_from(["oneshot", "daemon", "job"])
REQUESTS = st.sampled_from([n for n in (*range(1, 32), *range(34, 65)) if n not in (9, 17, 18, 19)])
RULES = st.dictionaries(FORWARDED, st.just(0) | STOP_SIGNALS, max_size=3).map(lambda rules: tuple(rules.items()))
RANDOMS = st.randoms(use_true_random=True)

_HTTP_PATHS = st.text(ascii_lowercase + digits + "./?=&%_-", max_size=12).map("/{}".format)
_PEERS = st.sampled_from(["tcp:localhost:80", "tcp:[::1]:9", "tcp:127.0.0.1:65535", "unix:/run/x", "unix:@y"])


def _ordered(one: int, other: int) -> tuple[int, int]:
    """Soft and hard; unlimited is above every number."""
    height = {limit: 2**64 if limit == -1 else limit for limit in (one, other)}
    return (one, other) if height[one] <= height[other] else (other, one)


STRATEGIES: dict[readers.Reader[Any], st.SearchStrategy[Any]] = {
    readers.duration_ms: DURATIONS_MS,
    readers.positive_ms: POSITIVE_MS,
    readers.factor: st.floats(1, 1_000),
    readers.boolean: BOOLEANS,
    readers.variable: VARIABLES,
    readers.policy: st.sampled_from(tuple(policies.POLICIES)),
    readers.path: TEXTS,
    readers.paths: st.lists(TEXTS, max_size=2).map(tuple),
    readers.command: COMMANDS,
    readers.account: st.one_of(
        st.sampled_from(
            sorted({entry.pw_name for entry in pwd.getpwall()} & {entry.gr_name for entry in grp.getgrall()})
        ),
        st.integers(0, 2**32 - 2),
    ),
    readers.umask: st.integers(0, 0o777),
    readers.env: st.dictionaries(VARIABLES, WORDS, max_size=3).map(lambda variables: tuple(variables.items())),
    readers.rlimits: st.dictionaries(st.sampled_from(readers.RLIMITS), st.tuples(LIMITS, LIMITS), max_size=3).map(
        lambda limits: tuple((name, *_ordered(*pair)) for name, pair in limits.items())
    ),
    readers.capabilities: st.lists(st.sampled_from(readers.CAPABILITIES), max_size=3, unique=True).map(tuple),
    readers.success_codes: st.lists(st.integers(0, 255), max_size=3).map(lambda codes: tuple(sorted({0, *codes}))),
    readers.stop_signal: STOP_SIGNALS,
    readers.stop_signals: st.lists(REQUESTS, min_size=1, max_size=3, unique=True).map(tuple),
    readers.signal_rules: RULES,
    readers.control: st.sampled_from(["@bottle_init", "", "@other", "/run/bottle.sock", "relative/path"]),
    readers.connect: _PEERS,
    readers.listen: _PEERS.map(lambda peer: peer.removeprefix("tcp:")),
    readers.tcp: st.builds(lambda host, port: Probe("tcp", host, port), HOSTS, PORTS)
    | SOCKETS.map(lambda socket: Probe("tcp", socket=socket)),
    readers.http: st.builds(lambda host, port, path: Probe("http", host, port, path), HOSTS, PORTS, _HTTP_PATHS)
    | st.builds(lambda socket, path: Probe("http", socket=socket, path=path), SOCKETS, _HTTP_PATHS),
    readers.after: POSITIVE_MS.map(lambda ms: Probe("after", after_ms=ms)),
    readers.headers: st.dictionaries(
        st.sampled_from(["Host", "user-agent", "X-Probe", "Authorization"]), st.sampled_from(["", "a", "a b\tc", "~!"])
    ).map(lambda headers: tuple(headers.items())),
    readers.exec_probe: st.builds(lambda command: Probe("exec", command=command), COMMANDS),
    readers.notify: st.just(Probe("notify")),
}
STRATEGIES[readers.accounts] = st.lists(STRATEGIES[readers.account], max_size=3).map(tuple)


def values_of(reader: Any) -> st.SearchStrategy[Any]:
    """All that a reader may read, as the core has it."""
    if isinstance(reader, keys.Shape):
        return shapes(reader)
    if reader in STRATEGIES:
        return STRATEGIES[reader]
    if "enum" in reader.schema:
        return st.sampled_from(reader.schema["enum"])
    return st.integers(reader.schema["minimum"], reader.schema["maximum"])


@st.composite
def shapes(draw: Draw, shape: keys.Shape) -> Value:
    """A value of a table below a key: exactly one of those of which there is one, and all others."""
    chosen = draw(st.sampled_from(shape.one_of)) if shape.one_of else ""
    own = [key for key in shape.keys if key.name == chosen or key.name not in shape.one_of]
    found = {key.field: draw(values_of(key.reader)) for key in own}
    headers = found.pop("probe.headers", ())
    if chosen == "http":
        found["probe"] = found["probe"].replace(headers=headers)
    if chosen == "after":
        found["probe"] = found["probe"].replace(after_ms=1 + found["probe"].after_ms % found["timeout_ms"])
        found["timeout_ms"] += 1
    return shape.plain.replace(**found)


def text_of(document: Document) -> str:
    """The document as TOML."""
    return tomli_w.dumps(document)


@st.composite
def bundles(draw: Draw) -> tuple[Bundle, Document]:
    """A valid bundle, and one of the documents that describe it."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    kinds = [draw(KINDS) for _ in names]
    if set(kinds) == {"oneshot"}:
        kinds[-1] = "job"
    always = next(name for name, kind in zip(names, kinds, strict=True) if kind != "oneshot")
    rank = draw(st.permutations(names))
    spelling = Spelling(draw(RANDOMS))
    inherited = {key.name: draw(values_of(key.reader)) for key in keys.BUNDLE.keys if key.name in INHERITABLE}
    bundle = draw(settings(names)).replace(policy=inherited["policy"], logs=inherited["logs"])
    document: Document = {}
    settled = spelling.settings(bundle, inherited)
    if settled:
        document["bundle"] = settled
    children: list[Spec] = []
    for table, kind in keys.KINDS.items():
        for name in (name for name, its in zip(names, kinds, strict=True) if its == kind):
            spec = draw(specs(name, kind, rank[: rank.index(name)], inherited))
            if name == always:
                spec = spec.replace(enabled=True)
            if "inherit" in [earlier.settings.stdin for earlier in children]:
                spec = spec.replace(settings=spec.settings.replace(stdin="null"))
            spec = fitting(spec, bundle, children)
            children.append(spec)
            document.setdefault(table, {})[name] = spelling.table(keys.of_kind(kind), spec, keys.PLAIN_CHILD, inherited)
    return bundle.replace(children=tuple(children)), document


def fitting(spec: Spec, bundle: Bundle, oneshots: list[Spec]) -> Spec:
    """The child without what the bundle or a oneshot before it does not let it have."""
    spec = spec.replace(signals=tuple(rule for rule in spec.signals if rule[0] not in bundle.stop_signals))
    names = spec.settings.capabilities
    if spec.kind == "oneshot" or names is None:
        return spec
    kept = {name for oneshot in oneshots for name in oneshot.keeps}
    return spec.replace(settings=spec.settings.replace(capabilities=tuple(name for name in names if name not in kept)))


INHERITABLE = [key.name for key in keys.CHILD if key.inherits]


@st.composite
def settings(draw: Draw, names: list[str]) -> Bundle:
    """`[bundle]`, but for what daemons inherit."""
    found = {
        key.field: draw(
            st.none() | st.sampled_from(names) if key.reader is readers.name else optional(key, keys.BUNDLE.plain)
        )
        for key in keys.BUNDLE.keys
        if key.field and key.name not in INHERITABLE
    }
    return Bundle(children=(), **found)


@st.composite
def specs(draw: Draw, name: str, kind: str, earlier: list[str], inherited: dict[str, Any]) -> Spec:
    """One child that is after some of the earlier ones."""
    found: dict[str, Any] = {}
    for key in keys.of_kind(kind):
        if not key.field:
            continue
        if key.reader is readers.names:
            found[key.field] = tuple(
                draw(st.lists(st.sampled_from(earlier), max_size=3, unique=True)) if earlier else ()
            )
        elif key.inherits and draw(BOOLEANS):
            found[key.field] = inherited[key.name]
        else:
            found[key.field] = draw(optional(key, keys.PLAIN_CHILD))
    settings = {field.partition(".")[2]: found.pop(field) for field in list(found) if field.startswith("settings.")}
    return Spec(name=name, kind=kind, settings=ExecSettings(**settings), **found)


def optional(key: keys.Key, plain: Value) -> st.SearchStrategy[Any]:
    """All that a key may be, and None where that is its default."""
    values = values_of(key.reader)
    return st.none() | values if keys.at(plain, key.field) is None else values


class Spelling:
    """Ways to write a value down, one of them drawn each time."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.ways: dict[readers.Reader[Any], Callable[[Any], object]] = {
            readers.duration_ms: self.duration,
            readers.positive_ms: self.duration,
            readers.stop_signal: self.signal,
            readers.stop_signals: lambda numbers: [self.signal(number) for number in numbers],
            readers.signal_rules: self.rules,
            readers.success_codes: self.codes,
            readers.umask: lambda mask: self.one_of(f"{mask:04o}", f"{mask:03o}", f"0o{mask:o}"),
            readers.rlimits: lambda limits: {name: self.limit(soft, hard) for name, soft, hard in limits},
            readers.capabilities: lambda names: [self.capability(name) for name in names],
            readers.tcp: self.tcp,
            readers.http: self.http,
        }

    def one_of(self, *ways: object) -> Any:
        return self.random.choice(ways)

    def table(self, own: Iterable[keys.Key], value: Value, plain: Value, inherited: dict[str, Any]) -> Document:
        """The table of a value: each key, or left out where the default says the same."""
        table: Document = {}
        for key in own:
            if not key.field:
                continue
            content = keys.at(value, key.field)
            default = inherited[key.name] if key.inherits else keys.at(plain, key.field)
            if isinstance(key.reader, keys.Shape):
                self.below(table, key, content, default)
            elif key.field == "probe":
                if content.kind == key.name:
                    table[key.name] = self.spell(key.reader, content)
            elif content != default or key.required or (content is not None and self.one_of(True, False)):
                table[key.name] = self.spell(key.reader, content)
        return table

    def below(self, table: Document, key: keys.Key, value: Value | None, default: Value | None) -> None:
        """The table below a key; what daemons inherit they inherit key by key."""
        if value is not None:
            shape: keys.Shape = key.reader
            content = self.table(shape.keys, value, shape.plain if default is None else default, {})
            if content or self.one_of(True, False):
                table[key.name] = content

    def settings(self, bundle: Bundle, inherited: dict[str, Any]) -> Document:
        """`[bundle]`."""
        table = self.table([key for key in keys.BUNDLE.keys if key.field], bundle, keys.BUNDLE.plain, {})
        for key in keys.BUNDLE.keys:
            if not key.field:
                self.below(table, key, inherited[key.name], key.reader.plain)
        return table

    def spell(self, reader: readers.Reader[Any], value: Any) -> Any:
        return self.ways.get(reader, reader.write)(value)

    def duration(self, ms: int) -> Any:
        ways: list[str | int | float] = [f"{ms}ms", ms / 1_000, f"{ms / 1_000:.3f}s", durations.spell(ms)]
        if ms % 1_000 == 0:
            ways.append(ms // 1_000)
        return self.one_of(*ways)

    def signal(self, number: int) -> Any:
        name = signames.name(number)
        return self.one_of(name, f"SIG{name}", name.lower(), number, str(number))

    def rules(self, rules: tuple[tuple[int, int], ...]) -> Document:
        return {
            self.one_of(str(source), signames.name(source)): self.signal(target) if target else 0
            for source, target in rules
        }

    def codes(self, codes: tuple[int, ...]) -> list[int]:
        kept = [code for code in codes if code or self.one_of(True, False)]
        return self.random.sample(kept, len(kept))

    def capability(self, name: str) -> Any:
        return self.one_of(name, f"CAP_{name.upper()}", f"cap_{name}", name.upper())

    def limit(self, soft: int, hard: int) -> object:
        words = [self.one_of("unlimited", "infinity", -1) if limit == -1 else limit for limit in (soft, hard)]
        return self.one_of(words, words[0]) if soft == hard else words

    def tcp(self, probe: Probe) -> Any:
        if probe.socket:
            return f"unix:{probe.socket}"
        full = f"[{probe.host}]:{probe.port}" if ":" in probe.host else f"{probe.host}:{probe.port}"
        return self.one_of(full, probe.port) if probe.host == "localhost" else full

    def http(self, probe: Probe) -> Any:
        if probe.socket:
            return f"unix:{probe.socket}{self.one_of('', ':/') if probe.path == '/' else f':{probe.path}'}"
        host = f"[{probe.host}]" if ":" in probe.host else probe.host
        port = self.one_of("", ":80") if probe.port == 80 else f":{probe.port}"
        return f"http://{host}{port}{self.one_of('', '/') if probe.path == '/' else probe.path}"


EVERY_KEY: dict[str, Any] = tomllib.loads("""
include = ["nothing.d/*.toml"]
[variables]
PORT = "80"
[bundle]
policy = "restart"
stop_timeout = "8s"
stop_signals = ["TERM", "RTMIN+3", 2]
only_from = "MY_DAEMONS"
exit_code_from = "tests"
logs = "json"
control = "/run/bottle.sock"
http = "127.0.0.1:9800"
backoff = { initial = "1s", factor = 2.0, limit = 60 }
restarts = { max = 5, window = "60s" }
lease = { renew = "1m" }

[oneshots.setup]
command = ["setup", "--all"]
timeout = "1m"
keeps = ["sys_time"]

[daemons.egress]
command = ["egress"]
after = ["setup"]
user = "root"
group = 0
groups = ["root", 7]
cwd = "/srv"
logs = "none"
stdin = "inherit"
umask = "0027"
env = { PORT = "80" }
env_files = ["/run/secrets/egress"]
rlimits = { nofile = 1024, core = [0, "unlimited"] }
nice = 5
oom_score_adj = -500
no_new_privs = true
capabilities = ["net_admin"]
success_codes = [0, 143]
stop_signal = "INT"
stop_timeout = "2s"
stop_delay = 0.5
policy = "restart-on-failure"
backoff = { initial = "1s", factor = 2, limit = "9s" }
restarts = { max = 1, window = "10s" }
restart_dependents = true
ready = { tcp = 9099, timeout = "20s" }
health = { http = "http://127.0.0.1:9099/", interval = "9s", timeout = 3, retries = 2, start_period = "5s" }
on_unhealthy = "stop"
signals = { USR1 = "HUP", USR2 = 0 }

[daemons.gate]
command = ["gate"]
ready = { exec = ["true"] }
health = { exec = ["true"] }

[daemons.notifier]
command = ["notifier"]
ready = { notify = true }
health = { tcp = "[::1]:80" }

[daemons.web]
command = ["web"]
ready = { http = "unix:/run/web.sock:/", headers = { Host = "web" } }
health = { http = "http://localhost/", headers = { Host = "web" } }

[daemons.slow]
command = ["slow"]
override = false
enabled = false
ready = { after = "1s" }

[jobs.tests]
command = ["pytest"]
after = ["egress"]
timeout = 90
signals = { HUP = "TERM" }
""")
"""A document with every key, but for two of the three kinds of lease."""


def paths(value: Any, above: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every key and every item of a document."""
    found = [above] if above else []
    if isinstance(value, dict):
        for key, below in value.items():
            found.extend(paths(below, (*above, key)))
    elif isinstance(value, list):
        for position, below in enumerate(value):
            found.extend(paths(below, (*above, position)))
    return found


def spelled(path: tuple[str | int, ...]) -> str:
    """The path as a fault shows it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


PATHS = paths(EVERY_KEY)


def mutated(changes: dict[tuple[str | int, ...], Any]) -> str:
    """The document of every key with other values at some paths, as TOML."""
    document = copy.deepcopy(EVERY_KEY)
    for path, value in changes.items():
        place: Any = document
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value
    return text_of(document)
