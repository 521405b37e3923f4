"""All faults of an invalid bundle file are reported, each with its path (contract 9)."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.bundle import keys, load
from bottle_init.bundle.source import BundleInvalid
from tests.property.bundle_documents import EVERY_KEY, PATHS, mutated, spelled, text_of
from tests.property.bundle_schema import accepted_types, at_path, type_of

LATE = """
[oneshots.o]
command = ["x"]
[daemons.a]
command = ["x"]
after = ["o"]
user = "n0body"
[daemons.b]
command = ["x"]
after = ["a"]
group = "n0body"
[daemons.c]
command = ["x"]
user = "n0body"
"""
"""Three children of users that do not exist; a oneshot before two of them may make them."""

WRONG: tuple[Any, ...] = (True, 3, 3.5, "~", [], [["x"]], {"~": 1}, dt.date(2026, 1, 1))
"""A value of each type that TOML knows, none of which is right where another type is wanted."""


def faults_of(text: str | bytes) -> list[str]:
    """The paths of all faults, in the order in which they are told."""
    with pytest.raises(BundleInvalid) as caught:
        load.from_text(text, "bundle.toml")
    assert caught.value.faults
    return [fault.path for fault in caught.value.faults]


def the_fault(text: str) -> str:
    """The message of the only fault."""
    with pytest.raises(BundleInvalid) as caught:
        load.from_text(text, "bundle.toml")
    assert len(caught.value.faults) == 1, str(caught.value)
    return str(caught.value.faults[0])


WRONG_AT = {
    path: wrong
    for path in PATHS
    if (wrong := [value for value in WRONG if type_of(value) not in accepted_types(at_path(path))])
}


def test_the_document_of_every_key() -> None:
    """The document of every key is valid and has every key."""
    load.from_text(text_of(EVERY_KEY), "bundle.toml")
    daemons = EVERY_KEY["daemons"].values()
    children = [child for kind in keys.KINDS for child in EVERY_KEY[kind].values()]
    assert set(EVERY_KEY["bundle"]) == {key.name for key in keys.BUNDLE.keys}
    assert set().union(*daemons) == {key.name for key in keys.of_kind("daemon")}
    assert set().union(*children) == {key.name for key in keys.CHILD}
    for shape in (keys.READY, keys.HEALTH):
        written = set().union(*(daemon.get(shape.name, ()) for daemon in daemons))
        assert written == {key.name for key in shape.keys}


@pytest.mark.parametrize("path", WRONG_AT, ids=spelled)
def test_a_wrong_type_is_one_fault_at_its_path(path: tuple[str | int, ...]) -> None:
    for value in WRONG_AT[path]:
        assert faults_of(mutated({path: value})) == [spelled(path)], value


@given(st.data())
def test_all_faults_are_told_at_once(data: st.DataObject) -> None:
    chosen: dict[tuple[str | int, ...], Any] = {}
    for path in data.draw(st.lists(st.sampled_from(list(WRONG_AT)), min_size=2, max_size=8, unique=True)):
        if not any(path[: len(other)] == other or other[: len(path)] == path for other in chosen):
            chosen[path] = data.draw(st.sampled_from(WRONG_AT[path]))
    if any(len(path) == 1 for path in chosen):
        return  # Without a whole kind of children, what names one of them is left alone.
    assert sorted(faults_of(mutated(chosen))) == sorted(map(spelled, chosen))


TABLES = [path for path in PATHS if isinstance(at_path(path).get("additionalProperties"), bool)]


@pytest.mark.parametrize("path", [(), *TABLES], ids=spelled)
def test_an_unknown_key_is_a_fault_wherever_it_is(path: tuple[str | int, ...]) -> None:
    assert faults_of(mutated({(*path, "zzz"): "x"})) == [spelled((*path, "zzz"))]


@given(st.binary() | st.text(st.characters()))
def test_no_text_gives_a_traceback(text: bytes | str) -> None:
    try:
        load.from_text(text, "bundle.toml")
    except BundleInvalid as invalid:
        assert str(invalid)


@given(
    st.lists(
        st.tuples(st.integers(0, 3_000), st.integers(0, 9), st.text("[]{}\"'=.,#\\\n\t -0x1eus", max_size=4)),
        max_size=5,
    )
)
def test_no_slip_of_the_pen_gives_a_traceback(slips: list[tuple[int, int, str]]) -> None:
    text = text_of(EVERY_KEY)
    for at, gone, typed in slips:
        text = text[:at] + typed + text[at + gone :]
    try:
        load.from_text(text, "bundle.toml")
    except BundleInvalid as invalid:
        assert str(invalid)


TOML_VALUES = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.sampled_from(["HUP", "8s", "restart", "localhost:1", "http://[::1", "RTMIN+99", "@", "0777"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_no_document_gives_a_traceback(data: st.DataObject) -> None:
    """Whatever TOML can say at any place: the faults are at that place, or come of the names in it."""
    path = data.draw(st.sampled_from(PATHS))
    text = mutated({path: data.draw(TOML_VALUES)})
    try:
        load.from_text(text, "bundle.toml")
    except BundleInvalid as invalid:
        assert str(invalid)
        if len(path) > 2:
            assert all(fault.path.startswith(spelled(path[:3])) for fault in invalid.faults)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"[bundle\n", "line 1, column 8"),
        (b"[bundle]\nlogs = \n", "line 2, column 8"),
        (b'[bundle]\nlogs = "tag', "line 2"),
        (b"\n\n\xff", "line 3"),
        ('\nx = "\ud800"', "line 2"),
        (b"a = 1\na = 2\n", "line 2, column 6"),
        (b"x = " + b"[" * 100_000, ""),
        (b"x = " + b"9" * 10_000, ""),
    ],
)
def test_a_syntax_error_is_told_alone_with_its_line(text: bytes | str, where: str) -> None:
    assert faults_of(text) == [where]


CHILD = '[daemons.web]\ncommand = ["web"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither a daemon nor a job"),
        ("\ufeff" + CHILD, "line 1: begins with a byte order mark"),
        ("x = " + "9" * 10_000, "a number has thousands of digits"),
        ('[oneshots.a]\ncommand = ["a"]', "neither a daemon nor a job"),
        ("[daemons.web]", "daemons.web.command: is required"),
        (CHILD + '[jobs.web]\ncommand = ["x"]', "jobs.web: the name is taken by daemons.web"),
        (CHILD + 'after = ["wed"]', "daemons.web.after: there is no child wed; did you mean web?"),
        (CHILD + 'after = ["web"]', "daemons.web.after: goes round in a circle: web -> web"),
        (
            '[bundle]\nexit_code_from = "wed"\n' + CHILD,
            "bundle.exit_code_from: there is no child wed; did you mean web?",
        ),
        ('[daemons."a b"]\ncommand = ["x"]', 'daemons."a b": a name must be made of letters'),
        (CHILD + 'comand = "x"', "daemons.web.comand: unknown key; did you mean command?"),
        ('policy = "restart"\n' + CHILD, "policy: belongs in [bundle]"),
        ("[daemon.web]\n" + CHILD, "daemon: unknown key; did you mean daemons?"),
        (CHILD + "timeout = 3", "daemons.web.timeout: only oneshots and jobs have a timeout"),
        ('[jobs.a]\ncommand = ["x"]\npolicy = "restart"', "jobs.a.policy: only a daemon has a policy"),
        (CHILD + '[oneshots.a]\ncommand = ["x"]\nsignals = {}', "oneshots.a.signals: only daemons and jobs"),
        (CHILD + 'user = "no-such-user"', 'daemons.web.user: there is no user "no-such-user" here'),
        (CHILD + 'group = "no-such-group"', 'daemons.web.group: there is no group "no-such-group" here'),
        (CHILD + 'groups = [0, "no-such-group"]', 'daemons.web.groups[1]: there is no group "no-such-group" here'),
        (CHILD + 'user = "1000000"', "an id is written without quotes: 1000000"),
        (CHILD + "user = 4294967295", "daemons.web.user: must be a whole number from 0 to 4294967294"),
        (CHILD + 'stop_timeout = "8"', 'daemons.web.stop_timeout: must be a duration such as "500ms"'),
        (CHILD + 'stop_timeout = "8 s"', "daemons.web.stop_timeout: must be a duration"),
        (CHILD + 'stop_timeout = "1s1m"', "daemons.web.stop_timeout: must be a duration"),
        (CHILD + "stop_timeout = -1", "daemons.web.stop_timeout: must not be negative, is -1"),
        (CHILD + "stop_timeout = nan", "daemons.web.stop_timeout: must be a duration such as"),
        (CHILD + "stop_timeout = inf", "daemons.web.stop_timeout: must not be longer than ten years"),
        (CHILD + 'stop_timeout = "999999999h"', "daemons.web.stop_timeout: must not be longer than ten years"),
        (CHILD + "ready = { tcp = 1, timeout = 0 }", "daemons.web.ready.timeout: must be longer than 0"),
        (
            CHILD + "ready = { tcp = 1, notify = true }",
            "daemons.web.ready: needs exactly one of tcp, http, exec, notify and after",
        ),
        (CHILD + "ready = { timeout = 1 }", "daemons.web.ready: needs exactly one of tcp, http, exec, notify or after"),
        (CHILD + "ready = { notify = false }", "daemons.web.ready.notify: must be true, or left out"),
        (CHILD + "ready = { tcp = 0 }", "daemons.web.ready.tcp: must be a whole number from 1 to 65535"),
        (CHILD + 'ready = { tcp = "80" }', "a port alone is written without quotes"),
        (CHILD + 'ready = { tcp = "example.com:80" }', "the host must be an IP address or localhost"),
        (CHILD + 'ready = { tcp = "localhost:65536" }', "the port must be from 1 to 65535"),
        (CHILD + 'ready = { http = "https://localhost/" }', "the init speaks no TLS"),
        (CHILD + 'ready = { http = "http://u@localhost/" }', "must have neither a user nor a #fragment"),
        (CHILD + 'ready = { http = "http://localhost/a b" }', "must be a URL"),
        (CHILD + "health = { notify = true, tcp = 1 }", "daemons.web.health.notify: a health check asks"),
        (
            CHILD + "health = { tcp = 1, retries = 0 }",
            "daemons.web.health.retries: must be a whole number of at least 1",
        ),
        (CHILD + "health = { tcp = 1, interval = 0 }", "daemons.web.health.interval: must be longer than 0"),
        (CHILD + 'env = { "" = "x" }', 'daemons.web.env."": the name of a variable'),
        (CHILD + '"" = 1', 'daemons.web."": unknown key'),
        ('[daemons.""]\ncommand = ["x"]', 'daemons."": a name must be made of letters'),
        (CHILD + "backoff = { factor = 0.5 }", "daemons.web.backoff.factor: must be a number from 1"),
        (CHILD + "restarts = { window = 0 }", "daemons.web.restarts.window: must be longer than 0"),
        (CHILD + 'stop_signal = "KILL"', "daemons.web.stop_signal: must not be KILL: that comes by itself"),
        (CHILD + 'stop_signal = "sigstop"', "daemons.web.stop_signal: must not be STOP"),
        (CHILD + 'stop_signal = "TREM"', 'daemons.web.stop_signal: there is no signal "TREM"; did you mean TERM?'),
        (CHILD + "stop_signal = 32", "daemons.web.stop_signal: there is no signal 32"),
        (CHILD + 'signals = { TERM = "HUP" }', "daemons.web.signals.TERM: is not forwarded"),
        (CHILD + 'signals = { SEGV = "HUP" }', "daemons.web.signals.SEGV: is not forwarded"),
        (
            '[bundle]\nstop_signals = ["WINCH"]\n' + CHILD + 'signals = { SIGWINCH = "HUP" }',
            "daemons.web.signals.WINCH: is one of the bundle's stop_signals",
        ),
        (
            '[bundle]\nstop_signals = ["WINCH"]\n' + CHILD + 'signals = { TERM = "HUP" }',
            "daemons.web.signals.TERM: is not forwarded",
        ),
        ("[bundle]\nstop_signals = []\n" + CHILD, "bundle.stop_signals: must not be empty"),
        (
            '[bundle]\nstop_signals = ["TERM", "chld"]\n' + CHILD,
            "bundle.stop_signals[1]: CHLD cannot ask for a stop",
        ),
        (
            '[oneshots.a]\ncommand = ["a"]\nkeeps = ["CAP_NET_ADMIN"]\n' + CHILD + 'capabilities = ["net_admin"]',
            "daemons.web.capabilities: NET_ADMIN is kept by the oneshot a from all that start after it",
        ),
        (CHILD + 'keeps = ["NET_ADMIN"]', "daemons.web.keeps: only a oneshot can keep a capability"),
        (CHILD + "signals = { CHLD = 0 }", "daemons.web.signals.CHLD: is not forwarded"),
        (CHILD + 'signals = { USR1 = "KILL" }', "daemons.web.signals.USR1: must not be KILL or STOP"),
        (CHILD + "signals = { USR1 = 0, SIGUSR1 = 0 }", "daemons.web.signals.SIGUSR1: USR1 is there twice"),
        (CHILD + "success_codes = [256]", "daemons.web.success_codes[0]: must be a whole number from 0 to 255"),
        (CHILD + 'capabilities = ["NET_ADMN"]', "did you mean net_admin?"),
        (CHILD + "rlimits = { nofile = [2, 1] }", "daemons.web.rlimits.nofile: the soft limit, which comes first"),
        (CHILD + 'rlimits = { nofile = ["unlimited", 1] }', "daemons.web.rlimits.nofile: the soft limit"),
        (CHILD + "rlimits = { files = 1 }", "daemons.web.rlimits.files: unknown key"),
        (CHILD + "umask = 27", 'daemons.web.umask: must be an octal string from "0000" to "0777", is 27'),
        (CHILD + 'umask = "0888"', "daemons.web.umask: must be an octal string"),
        (CHILD + "nice = 20", "daemons.web.nice: must be a whole number from -20 to 19, is 20"),
        (CHILD + "oom_score_adj = 1001", "daemons.web.oom_score_adj: must be a whole number from -1000 to 1000"),
        (
            CHILD + "stdin = 'inherit'\n[jobs.j]\ncommand = ['x']\nstdin = 'inherit'",
            "jobs.j.stdin: daemons.web has the init's standard input already",
        ),
        (
            LATE,
            'daemons.c.user: there is no user "n0body" here',
        ),
        (CHILD + 'env = { "A=B" = "x" }', 'daemons.web.env."A=B": the name of a variable'),
        (CHILD + 'env = { "export A" = "x" }', 'daemons.web.env."export A": the name of a variable'),
        (
            "[daemons.-web]\ncommand = ['x']",
            "daemons.-web: a name must be made of letters, digits, _ and -, and not begin with -",
        ),
        (CHILD + 'cwd = "a\\u0000b"', "daemons.web.cwd: must not contain a NUL byte"),
        (CHILD + 'cwd = ""', "daemons.web.cwd: must not be empty"),
        ('[daemons.web]\ncommand = "nginx -g"', "daemons.web.command: must be a list of strings"),
        ("[daemons.web]\ncommand = []", "daemons.web.command: must not be empty"),
        ('[daemons.web]\ncommand = ["", "x"]', "daemons.web.command[0]: must not be empty"),
        (
            "[bundle]\nlease = { fd = 3, renew = 1 }\n" + CHILD,
            "bundle.lease: needs exactly one of fd, connect and renew",
        ),
        ('[bundle]\nlease = { connect = "udp:x" }\n' + CHILD, 'bundle.lease.connect: must be "tcp:HOST:PORT" or'),
        ('[bundle]\ncontrol = "@"\n' + CHILD, "bundle.control: a name must come after the @"),
        (f'[bundle]\ncontrol = "{"é" * 54}"\n' + CHILD, "bundle.control: must not be longer than 107 bytes"),
        ('[bundle]\npolicy = "restrat"\n' + CHILD, "did you mean restart?"),
    ],
)
def test_each_rule_has_a_message_that_says_what_to_do(text: str, message: str) -> None:
    assert message in the_fault(text)


def test_a_cycle_is_shown_and_each_is_told() -> None:
    ring = "".join(
        f'[daemons.{name}]\ncommand = ["x"]\nafter = ["{other}"]\n'
        for name, other in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("e", "f"), ("f", "e"))
    )
    with pytest.raises(BundleInvalid) as caught:
        load.from_text(ring, "bundle.toml")
    assert [str(fault) for fault in caught.value.faults] == [
        "daemons.a.after: goes round in a circle: a -> b -> c -> a (each is after the next)",
        "daemons.e.after: goes round in a circle: e -> f -> e (each is after the next)",
    ]


def test_cycles_that_share_children_are_all_told() -> None:
    hub = "".join(
        f'[daemons.{name}]\ncommand = ["x"]\nafter = {list(after)}\n'
        for name, after in (("a", "bc"), ("b", "a"), ("c", "ac"))
    )
    with pytest.raises(BundleInvalid) as caught:
        load.from_text(hub, "bundle.toml")
    assert [fault.message.partition(" (")[0] for fault in caught.value.faults] == [
        "goes round in a circle: a -> b -> a",
        "goes round in a circle: a -> c -> a",
        "goes round in a circle: c -> c",
    ]


@given(st.lists(st.lists(st.integers(0, 4), unique=True, max_size=4), min_size=5, max_size=5))
def test_every_cycle_is_told(graph: list[list[int]]) -> None:
    """No cycle is left once each reported one has been cut."""

    def text() -> str:
        return "".join(
            f'[jobs.{n}]\ncommand = ["x"]\nafter = {list(map(str, after))}\n' for n, after in enumerate(graph)
        )

    try:
        load.from_text(text(), "bundle.toml")
    except BundleInvalid as invalid:
        for fault in invalid.faults:
            chain = fault.message.removeprefix("goes round in a circle: ").partition(" (")[0]
            *_, last, first = map(int, chain.split(" -> "))
            graph[last].remove(first)
        load.from_text(text(), "bundle.toml")


def test_a_long_chain_is_no_cycle() -> None:
    """A thousand children in a row are no cycle, and need no recursion."""
    chain = "".join(f'[daemons.d{n}]\ncommand = ["x"]\nafter = ["d{n + 1}"]\n' for n in range(1_500))
    assert len(load.from_text(chain + '[daemons.d1500]\ncommand = ["x"]\n', "bundle.toml").children) == 1_501
    assert faults_of(chain + '[daemons.d1500]\ncommand = ["x"]\nafter = ["d0"]\n') == ["daemons.d0.after"]


@given(st.sampled_from(PATHS), st.text("x\n\r\x1b\u2028", min_size=1, max_size=3), st.integers(0, 3))
def test_each_fault_is_one_plain_line(path: tuple[str | int, ...], word: str, form: int) -> None:
    """Each fault is one line without control sequences."""
    changes: dict[tuple[str | int, ...], Any] = {path: (word, [word], {word: word}, {"x": {word: word}})[form]}
    try:
        load.from_text(mutated(changes), "bundle.toml")
    except BundleInvalid as invalid:
        assert not [fault for fault in invalid.faults if set(str(fault)) & set("\n\r\x1b")]


@pytest.mark.parametrize("value", ["31337", "31337.0", '["31337"]', '"31337\\u0000"', '{ x = "31337" }'])
def test_no_message_shows_the_value_of_a_variable(value: str) -> None:
    assert "31337" not in the_fault(f"{CHILD}env = {{ TOKEN = {value} }}")


def test_an_inherited_fault_is_told_once() -> None:
    """A fault in an inherited value is reported once."""
    inherits = CHILD + 'backoff = { initial = "1m" }\n'
    assert faults_of("[bundle]\nbackoff = { limit = true }\n" + inherits) == ["bundle.backoff.limit"]


def test_the_message_has_a_line_for_each_fault() -> None:
    """The message has a header and a line for each fault."""
    with pytest.raises(BundleInvalid) as caught:
        load.from_text(CHILD + 'nice = "x"\nzzz = 1\n', "/etc/bottle/bundle.toml")
    header, *lines = str(caught.value).splitlines()
    assert header == "/etc/bottle/bundle.toml: not a valid bundle (2 faults)"
    assert [line.split(":")[0] for line in lines] == ["  daemons.web.zzz", "  daemons.web.nice"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('depends_on = ["b"]', "daemons.a.depends_on: is `after` here"),
        ('Requires = "b"', "daemons.a.Requires: is `after` here"),
        ('restart = "always"', "daemons.a.restart: is `policy` here"),
        ("autorestart = true", "daemons.a.autorestart: is `policy` here"),
        ('environment = { A = "b" }', "daemons.a.environment: is `env` here"),
        ('env_file = ".env"', "daemons.a.env_file: is `env_files` here"),
        ("autostart = false", "daemons.a.autostart: is `enabled` here"),
        ("numprocs = 3", "daemons.a.numprocs: there is one process for each table"),
        ('directory = "/x"', "daemons.a.directory: is `cwd` here"),
        ('ExecStart = "/x"', "daemons.a.ExecStart: is `command` here"),
        ("startsecs = 1", "daemons.a.startsecs: is `ready` here"),
        ('healthcheck = { test = ["x"] }', "daemons.a.healthcheck: is `health` here"),
        ("exitcodes = [0]", "daemons.a.exitcodes: is `success_codes` here"),
        ('stopsignal = "QUIT"', "daemons.a.stopsignal: is `stop_signal` here"),
        ('stop_grace_period = "9s"', "daemons.a.stop_grace_period: is `stop_timeout` here"),
        ('kill-delay = "9s"', "daemons.a.kill-delay: is `stop_timeout` here"),
        ("stopasgroup = true", "daemons.a.stopasgroup: is not needed"),
        ('stdout_logfile = "/x"', "daemons.a.stdout_logfile: is `logs` here"),
        ('cap_drop = ["ALL"]', "daemons.a.cap_drop: is `capabilities` here"),
        ('image = "x"', "daemons.a.image: is for a container engine"),
        ('health = { test = ["x"], tcp = 1 }', "daemons.a.health.test: is `exec` here"),
        ('policy = "always"', "daemons.a.policy: must be one of"),
        ('[program.x]\ncommand = "x"', "program: is [daemons.NAME] here"),
        ('[services.x]\ncommand = "x"', "services: is [daemons.NAME] here"),
        ("[supervisord]", "supervisord: is [bundle] here"),
    ],
)
def test_the_words_of_other_tools(text: str, fault: str) -> None:
    """Each is a fault that says which key says the same here."""
    assert the_fault(f'[daemons.a]\ncommand = ["x"]\n{text}\n').startswith(fault)


def test_the_policies_of_other_tools() -> None:
    for word, meant in (("always", "restart"), ("on-failure", "restart-on-failure"), ("no", "wait-for-all")):
        told = the_fault(f'[daemons.a]\ncommand = ["x"]\npolicy = "{word}"\n')
        assert told.endswith(f'is the string "{word}" (which is nearest to "{meant}" here)')
