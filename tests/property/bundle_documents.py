"""Bundles, and the many ways in which a bundle file can spell each of them.

`bundles()` draws a `Bundle` first and its spelling second, so a key that the parser ignores, or
takes for another one, is seen: the bundle that comes back is not the one that was drawn.
`EVERY_KEY` is one document to change, place by place.
"""

from __future__ import annotations

import copy
import grp
import pwd
import tomllib
from typing import TYPE_CHECKING, Any

import tomli_w
from hypothesis import strategies as st

from bottle_init.bundle.readers import CAPABILITIES, RLIMITS
from bottle_init.core import policies, words
from bottle_init.core.spec import Backoff, Budget, Bundle, Check, Lease, Probe, Process, Ready, Spec
from bottle_init.words import signames

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    Draw = Callable[[st.SearchStrategy[Any]], Any]
    Document = dict[str, Any]

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
COMMANDS = st.tuples(TEXTS, st.lists(WORDS, max_size=3)).map(lambda parts: (parts[0], *parts[1]))
DURATIONS_MS = st.one_of(st.integers(0, 5_000), st.integers(0, 3_600_000 * 30))
POSITIVE_MS = DURATIONS_MS.map(lambda ms: ms + 1)
PORTS = st.integers(1, 65_535)
HOSTS = st.sampled_from(["localhost", "127.0.0.1", "10.1.2.3", "::1", "fe80::1"])
STOP_SIGNALS = st.sampled_from([n for n in (*range(1, 32), *range(34, 65)) if n not in (9, 19)])
FORWARDED = st.sampled_from([1, 10, 12, 28, *range(34, 65)])
USERS = st.one_of(st.sampled_from([entry.pw_name for entry in pwd.getpwall()][:5]), st.integers(0, 2**32 - 2))
GROUPS = st.one_of(st.sampled_from([entry.gr_name for entry in grp.getgrall()][:5]), st.integers(0, 2**32 - 2))
LIMITS = st.one_of(st.just(-1), st.integers(0, 2**63 - 1))


BOOLEANS = st.booleans()
KINDS = st.sampled_from(["oneshot", "daemon", "job"])
POLICIES = st.sampled_from(tuple(policies.POLICIES))
FACTORS = st.floats(1, 1_000)
CODES = st.lists(st.integers(0, 255), max_size=3).map(lambda codes: tuple(sorted({0, *codes})))
RULES = st.dictionaries(FORWARDED, st.just(0) | STOP_SIGNALS, max_size=3).map(lambda rules: tuple(rules.items()))
RANDOMS = st.randoms(use_true_random=True)

BACKOFFS = st.builds(Backoff, DURATIONS_MS, FACTORS, DURATIONS_MS)
BUDGETS = st.builds(Budget, st.integers(0, 1_000), POSITIVE_MS)

_HTTP_PATHS = st.from_regex(r"/[a-z0-9./?=&%_-]{0,12}", fullmatch=True)
_TCP = st.builds(lambda host, port: Probe("tcp", host, port), HOSTS, PORTS)
_HTTP = st.builds(lambda host, port, path: Probe("http", host, port, path), HOSTS, PORTS, _HTTP_PATHS)
_EXEC = st.builds(lambda command: Probe("exec", command=command), COMMANDS)
READY = st.builds(Ready, st.one_of(_TCP, _HTTP, _EXEC, st.just(Probe("notify"))), POSITIVE_MS)
CHECKS = st.builds(Check, st.one_of(_TCP, _HTTP, _EXEC), POSITIVE_MS, POSITIVE_MS, st.integers(1, 99), DURATIONS_MS)

_PEERS = st.sampled_from(["tcp:localhost:80", "tcp:[::1]:9", "tcp:127.0.0.1:65535", "unix:/run/x", "unix:@y"])
LEASES = st.one_of(
    st.builds(lambda fd: Lease(fd=fd), st.integers(0, 1_000)),
    st.builds(lambda peer: Lease(connect=peer), _PEERS),
    st.builds(lambda ms: Lease(renew_ms=ms), POSITIVE_MS),
)


def _ordered(one: int, other: int) -> tuple[int, int]:
    """Soft and hard; unlimited is above every number."""
    height = {limit: 2**64 if limit == -1 else limit for limit in (one, other)}
    return (one, other) if height[one] <= height[other] else (other, one)


PROCESSES = st.builds(
    Process,
    user=st.none() | USERS,
    group=st.none() | GROUPS,
    groups=st.none() | st.lists(GROUPS, max_size=3).map(tuple),
    cwd=st.none() | TEXTS,
    umask=st.none() | st.integers(0, 0o777),
    env=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0="), min_size=1, max_size=8), WORDS, max_size=3
    ).map(lambda variables: tuple(variables.items())),
    env_files=st.lists(TEXTS, max_size=2).map(tuple),
    rlimits=st.dictionaries(st.sampled_from(RLIMITS), st.tuples(LIMITS, LIMITS), max_size=3).map(
        lambda limits: tuple((name, *_ordered(*pair)) for name, pair in limits.items())
    ),
    nice=st.none() | st.integers(-20, 19),
    oom_score_adj=st.none() | st.integers(-1_000, 1_000),
    no_new_privs=BOOLEANS,
    capabilities=st.none() | st.lists(st.sampled_from(CAPABILITIES), max_size=3, unique=True).map(tuple),
)


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
    rank = draw(st.permutations(names))
    spelling = Spelling(draw(RANDOMS))
    bundle = draw(settings(names))
    document: Document = {}
    inherited = (draw(BACKOFFS), draw(BUDGETS))
    settled = spelling.settings(bundle, *inherited)
    if settled:
        document["bundle"] = settled
    children = []
    for kind in ("oneshot", "daemon", "job"):
        for name in (name for name, its in zip(names, kinds, strict=True) if its == kind):
            earlier = rank[: rank.index(name)]
            spec = draw(specs(name, kind, earlier, bundle.policy, inherited))
            children.append(spec)
            document.setdefault(f"{kind}s", {})[name] = spelling.child(spec, bundle.policy, inherited)
    return bundle.but(children=tuple(children)), document


@st.composite
def settings(draw: Draw, names: list[str]) -> Bundle:
    """`[bundle]`."""
    return Bundle(
        children=(),
        policy=draw(POLICIES),
        stop_timeout_ms=draw(DURATIONS_MS),
        exit_code_from=draw(st.none() | st.sampled_from(names)),
        logs=draw(st.sampled_from(words.LOGS)),
        control=draw(st.sampled_from(["@bottle_init", "", "@other", "/run/bottle.sock", "relative/path"])),
        lease=draw(st.none() | LEASES),
    )


@st.composite
def specs(draw: Draw, name: str, kind: str, earlier: list[str], policy: str, inherited: tuple[Backoff, Budget]) -> Spec:
    """One child that is after some of the earlier ones."""
    after = draw(st.lists(st.sampled_from(earlier), max_size=3, unique=True)) if earlier else []
    spec = Spec(
        name=name,
        kind=kind,
        command=draw(COMMANDS),
        after=tuple(after),
        success_codes=draw(CODES),
        stop_signal=draw(STOP_SIGNALS),
        stop_timeout_ms=draw(DURATIONS_MS),
        stop_delay_ms=draw(DURATIONS_MS),
        process=draw(PROCESSES),
    )
    if kind != "oneshot":
        spec = spec.but(signals=draw(RULES))
    if kind != "daemon":
        return spec.but(timeout_ms=draw(st.none() | POSITIVE_MS))
    return spec.but(
        policy=draw(POLICIES) if draw(BOOLEANS) else policy,
        backoff=draw(BACKOFFS) if draw(BOOLEANS) else inherited[0],
        restarts=draw(BUDGETS) if draw(BOOLEANS) else inherited[1],
        restart_dependents=draw(BOOLEANS),
        ready=draw(READY) if draw(BOOLEANS) else None,
        health=draw(CHECKS) if draw(BOOLEANS) else None,
        on_unhealthy=draw(st.sampled_from(words.ON_UNHEALTHY)),
    )


class Spelling:
    """Ways to write a value down, one of them drawn each time."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def one_of(self, *ways: object) -> Any:
        return self.random.choice(ways)

    def put(self, table: Document, key: str, value: object, default: object, spelled: object) -> None:
        """Spell a key out, or leave it out where the default says the same."""
        if value is None or (value == default and self.one_of(True, False)):
            return
        table[key] = spelled

    def duration(self, ms: int) -> Any:
        hours, rest = divmod(ms, 3_600_000)
        minutes, rest = divmod(rest, 60_000)
        seconds, rest = divmod(rest, 1_000)
        parts = ((hours, "h"), (minutes, "m"), (seconds, "s"), (rest, "ms"))
        ways: list[str | int | float] = [f"{ms}ms", ms / 1_000, f"{ms / 1_000:.3f}s"]
        ways.append("".join(f"{count}{unit}" for count, unit in parts if count) or "0s")
        if rest == 0:
            ways.append(ms // 1_000)
        return self.one_of(*ways)

    def signal(self, number: int) -> Any:
        name = signames.name(number)
        return self.one_of(name, f"SIG{name}", name.lower(), number, str(number))

    def settings(self, bundle: Bundle, backoff: Backoff, budget: Budget) -> Document:
        table: Document = {}
        self.put(table, "policy", bundle.policy, "exit-on-child-death", bundle.policy)
        self.put(table, "stop_timeout", bundle.stop_timeout_ms, 8_000, self.duration(bundle.stop_timeout_ms))
        self.put(table, "exit_code_from", bundle.exit_code_from, None, bundle.exit_code_from)
        self.put(table, "logs", bundle.logs, "tag", bundle.logs)
        self.put(table, "control", bundle.control, "@bottle_init", bundle.control)
        if bundle.lease:
            table["lease"] = self.lease(bundle.lease)
        self.restarting(table, (backoff, budget), (Backoff(), Budget()))
        return table

    def lease(self, lease: Lease) -> Document:
        if lease.renew_ms is not None:
            return {"renew": self.duration(lease.renew_ms)}
        return {"connect": lease.connect} if lease.connect is not None else {"fd": lease.fd}

    def restarting(self, table: Document, own: tuple[Backoff, Budget], inherited: tuple[Backoff, Budget]) -> None:
        backoff: Document = {}
        self.put(backoff, "initial", own[0].initial_ms, inherited[0].initial_ms, self.duration(own[0].initial_ms))
        self.put(backoff, "factor", own[0].factor, inherited[0].factor, own[0].factor)
        self.put(backoff, "limit", own[0].limit_ms, inherited[0].limit_ms, self.duration(own[0].limit_ms))
        budget: Document = {}
        self.put(budget, "max", own[1].max, inherited[1].max, own[1].max)
        self.put(budget, "window", own[1].window_ms, inherited[1].window_ms, self.duration(own[1].window_ms))
        for key, content in (("backoff", backoff), ("restarts", budget)):
            if content or self.one_of(True, False):
                table[key] = content

    def child(self, spec: Spec, policy: str, inherited: tuple[Backoff, Budget]) -> Document:
        table: Document = {"command": list(spec.command)}
        codes = [code for code in spec.success_codes if code or self.one_of(True, False)]
        self.put(table, "after", spec.after, (), list(spec.after))
        self.put(table, "success_codes", spec.success_codes, (0,), self.random.sample(codes, len(codes)))
        self.put(table, "stop_signal", spec.stop_signal, 15, self.signal(spec.stop_signal))
        self.put(table, "stop_timeout", spec.stop_timeout_ms, 5_000, self.duration(spec.stop_timeout_ms))
        self.put(table, "stop_delay", spec.stop_delay_ms, 0, self.duration(spec.stop_delay_ms))
        self.process(table, spec.process)
        if spec.timeout_ms is not None:
            table["timeout"] = self.duration(spec.timeout_ms)
        if spec.kind != "oneshot":
            rules = {self.one_of(str(source), signames.name(source)): target for source, target in spec.signals}
            spelled = {source: self.signal(target) if target else 0 for source, target in rules.items()}
            self.put(table, "signals", spec.signals, (), spelled)
        if spec.kind == "daemon":
            self.daemon(table, spec, policy, inherited)
        return table

    def daemon(self, table: Document, spec: Spec, policy: str, inherited: tuple[Backoff, Budget]) -> None:
        self.put(table, "policy", spec.policy, policy, spec.policy)
        self.restarting(table, (spec.backoff, spec.restarts), inherited)
        self.put(table, "restart_dependents", spec.restart_dependents, False, spec.restart_dependents)
        self.put(table, "on_unhealthy", spec.on_unhealthy, "ignore", spec.on_unhealthy)
        if spec.ready:
            table["ready"] = ready = self.probe(spec.ready.probe)
            self.put(ready, "timeout", spec.ready.timeout_ms, 30_000, self.duration(spec.ready.timeout_ms))
        if spec.health:
            table["health"] = health = self.probe(spec.health.probe)
            self.put(health, "interval", spec.health.interval_ms, 30_000, self.duration(spec.health.interval_ms))
            self.put(health, "timeout", spec.health.timeout_ms, 5_000, self.duration(spec.health.timeout_ms))
            self.put(health, "retries", spec.health.retries, 3, spec.health.retries)
            self.put(health, "start_period", spec.health.start_period_ms, 0, self.duration(spec.health.start_period_ms))

    def probe(self, probe: Probe) -> Document:
        host = f"[{probe.host}]" if ":" in probe.host else probe.host
        if probe.kind == "tcp":
            full = f"{host}:{probe.port}"
            return {"tcp": self.one_of(full, probe.port) if host == "localhost" else full}
        if probe.kind == "http":
            port = self.one_of("", ":80") if probe.port == 80 else f":{probe.port}"
            path = self.one_of("", "/") if probe.path == "/" else probe.path
            return {"http": f"http://{host}{port}{path}"}
        return {"exec": list(probe.command)} if probe.kind == "exec" else {"notify": True}

    def process(self, table: Document, process: Process) -> None:
        for key in ("user", "group", "cwd", "nice", "oom_score_adj"):
            value = getattr(process, key)
            self.put(table, key, value, None, value)
        if process.umask is not None:
            table["umask"] = self.one_of(f"{process.umask:04o}", f"{process.umask:03o}", f"0o{process.umask:o}")
        for key in ("groups", "env_files", "capabilities"):
            value = getattr(process, key)
            default: object = () if key == "env_files" else None
            self.put(table, key, value, default, list(value or ()))
        if "capabilities" in table:
            table["capabilities"] = [
                self.one_of(name, f"CAP_{name.upper()}", f"cap_{name}", name.upper()) for name in table["capabilities"]
            ]
        self.put(table, "env", process.env, (), dict(process.env))
        limits = {name: self.limit(soft, hard) for name, soft, hard in process.rlimits}
        self.put(table, "rlimits", process.rlimits, (), limits)
        self.put(table, "no_new_privs", process.no_new_privs, True, process.no_new_privs)

    def limit(self, soft: int, hard: int) -> object:
        words = [self.one_of("unlimited", "infinity", -1) if limit == -1 else limit for limit in (soft, hard)]
        return self.one_of(words, words[0]) if soft == hard else words


EVERY_KEY: dict[str, Any] = tomllib.loads("""
[bundle]
policy = "restart"
stop_timeout = "8s"
exit_code_from = "tests"
logs = "json"
control = "/run/bottle.sock"
backoff = { initial = "1s", factor = 2.0, limit = 60 }
restarts = { max = 5, window = "60s" }
lease = { renew = "1m" }

[oneshots.setup]
command = ["setup", "--all"]
timeout = "1m"

[daemons.egress]
command = ["egress"]
after = ["setup"]
user = "root"
group = 0
groups = ["root", 7]
cwd = "/srv"
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
ready = { http = "http://localhost/" }

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
