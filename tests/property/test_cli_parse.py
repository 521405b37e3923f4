"""The command line: what each word of it comes to, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.cli import usage
from bottle_init.cli.options import COMMANDS, CONVERT, CTL, MEANT, ONE, OPTIONS, RUN, VERBS, Options, UsageError, parse
from bottle_init.core.policies import POLICIES
from bottle_init.core.spec import Lease
from tools import cli_page

VALUES = {
    "--policy": "restart",
    "--config": "/b.toml",
    "--only": "a,b",
    "--report": "/r.json",
    "--control": "@c",
    "--rewrite": "USR1:TERM",
    "--map-exit": "143",
    "--parent-death-signal": "KILL",
    "--lease": "tcp:127.0.0.1:80",
    "--stop-timeout": "3s",
    "--wait": "5s",
    "--output": "/b.toml",
    "--kind": "compose",
}


def parsed(*argv: str, **environ: str) -> dict[str, Any]:
    """All options by name."""
    options = parse(argv, environ)
    return {name: getattr(options, name) for name in ("command", *Options.__annotations__)}


def refusal(*argv: str) -> str:
    """The message and the hint of a usage error."""
    with pytest.raises(UsageError) as caught:
        parse(argv, {})
    return f"{caught.value} | {caught.value.hint}"


def words_of(command: str) -> tuple[str, ...]:
    """A command line of each command, without options."""
    return {RUN: (), ONE: ("--", "true"), CTL: ("ctl", "events"), CONVERT: ("convert", "x")}.get(command, (command,))


def test_no_words_run_the_default_bundle() -> None:
    """No words at all run the bundle of the default file."""
    options = parsed()
    assert options["command"] == "run"
    assert options["config"] == "/etc/bottle/bundle.toml"
    assert (options["policy"], options["only"], options["report"], options["control"]) == (None, None, None, None)


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (("--policy=restart",), {"command": "run", "policy": "restart"}),
        (("--lease=fd:0",), {"command": "run", "lease": Lease(fd=0)}),
        (("--only", " a, b ,"), {"command": "run", "only": ("a", "b"), "only_source": "--only"}),
        (("--report", "x", "--control", ""), {"report": "x", "control": ""}),
        (("--", "ls", "-l", "--help"), {"command": "one", "argv": ("ls", "-l", "--help")}),
        (("--", "--", "x"), {"command": "one", "argv": ("--", "x")}),
        (("--policy=exit-on-child-death", "--", "ls"), {"command": "one", "argv": ("ls",)}),
        (("--single-child", "--", "ls"), {"single_child": True}),
        (
            ("--rewrite", "TERM:QUIT", "--rewrite=USR1:0", "--", "x"),
            {"rewrite": ((15, 3), (10, 0)), "command": "one"},
        ),
        (("--map-exit=143", "--map-exit", "1", "--", "x"), {"map_exit": (143, 1)}),
        (("--parent-death-signal", "SIGRTMIN+1", "--", "x"), {"parent_death_signal": 35}),
        (("--lease=tcp:[::1]:80", "--", "x"), {"lease": Lease(connect="tcp:[::1]:80"), "stop_timeout": None}),
        (("--lease", "tcp:localhost:1", "--", "x"), {"lease": Lease(connect="tcp:localhost:1")}),
        (("--lease=unix:run/x", "--", "x"), {"lease": Lease(connect="unix:run/x")}),
        (("--lease=fd:3", "--stop-timeout=1m30s", "--", "x"), {"lease": Lease(fd=3), "stop_timeout": 90_000}),
        (("--stop-timeout", "0.5", "--", "x"), {"stop_timeout": 500}),
        (("check",), {"command": "check", "config": "/etc/bottle/bundle.toml"}),
        (("check", "x.toml", "--only=a"), {"command": "check", "config": "x.toml", "only": ("a",)}),
        (("check", "-"), {"config": "-"}),
        (("check", "--compile", "x"), {"compile": True, "config": "x"}),
        (("check", "--schema"), {"schema": True}),
        (("health",), {"command": "health", "control": None, "strict": False}),
        (("health", "--strict", "--json"), {"strict": True, "json": True}),
        (("--control=/c", "status", "--watch"), {"command": "status", "control": "/c", "watch": True}),
        (("ctl", "stop"), {"command": "ctl", "verb": "stop", "names": (), "all": False, "wait": None}),
        (("ctl", "stop", "web"), {"verb": "stop", "names": ("web",)}),
        (("ctl", "stop", "--all"), {"verb": "stop", "names": (), "all": True}),
        (("ctl", "restart", "web"), {"verb": "restart", "names": ("web",)}),
        (("ctl", "restart", "a", "--wait", "b", "a"), {"names": ("a", "b"), "wait": 30_000}),
        (("ctl", "start", "--wait=1m", "--all"), {"names": (), "all": True, "wait": 60_000}),
        (("ctl", "start", "--wait=0", "a"), {"wait": 0}),
        (("ctl", "signal", "web", "usr1"), {"verb": "signal", "names": ("web",), "signal": 10}),
        (("ctl", "events", "--follow"), {"verb": "events", "follow": True}),
        (("ctl", "renew"), {"verb": "renew"}),
        (("explain",), {"command": "explain", "file": "-"}),
        (("explain", "r.json"), {"file": "r.json"}),
        (("--policy=exit-on-child-death", "--help"), {"command": "help"}),
        (("status", "-h"), {"command": "help"}),
        (("--version",), {"command": "version"}),
    ],
)
def test_what_is_understood(argv: tuple[str, ...], found: dict[str, Any]) -> None:
    options = parsed(*argv)
    assert {key: options[key] for key in found} == found


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--polcy=x",), "unknown option --polcy; did you mean --policy?"),
        (("-x",), "unknown option -x"),
        (("--policy=rerun",), "unknown policy rerun | There are exit-on-child-death, exit-on-child-failure, restart,"),
        (("--policy",), "--policy needs a value: --policy=VALUE"),
        (("--config", "--", "x"), "--config needs a value"),
        (("--config=",), "--config needs a path"),
        (("--only=,",), "--only needs names"),
        (
            ("chek",),
            "unknown command chek; did you mean check? | To run one program under the init: bottle-init -- chek",
        ),
        (("sleep", "5"), "unknown command sleep | To run one program under the init: bottle-init -- sleep 5"),
        (("stop",), "unknown command stop | You may want: bottle-init ctl stop"),
        (("restart", "web"), "unknown command restart | You may want: bottle-init ctl restart web"),
        (("signal", "web", "HUP"), "unknown command signal | You may want: bottle-init ctl signal web HUP"),
        (("my.toml",), "unknown command my.toml | You may want: bottle-init --config my.toml"),
        (("help",), "unknown command help | You may want: bottle-init --help"),
        (("down",), "unknown command down | You may want: bottle-init ctl stop"),
        (("--",), "a command must come after --"),
        (("check", "--", "x"), "check takes no -- COMMAND"),
        (("check", "a", "b"), "check does not know what to do with b"),
        (("health", "x"), "health does not know what to do with x"),
        (("--strict",), "--strict belongs to `health`, not to a bundle"),
        (
            ("--lease=tcp:example.org:80", "--", "x"),
            "--lease tcp:example.org:80: must be tcp:IP:PORT, unix:PATH or fd:N",
        ),
        (("--lease=tcp:1.2.3.4:0", "--", "x"), "--lease tcp:1.2.3.4:0: must be"),
        (("--lease=tcp:::1:80", "--", "x"), "--lease tcp:::1:80: must be"),
        (("--lease=unix:", "--", "x"), "--lease unix:: must be"),
        (("--lease=fd:x", "--", "x"), "--lease fd:x: must be"),
        (("--stop-timeout=soon", "--", "x"), "--stop-timeout soon: must be a duration such as 500ms, 8s or 1m30s"),
        (("health", "--lease=fd:3"), "--lease belongs to one command (-- COMMAND) or a bundle, not to `health`"),
        (("--single-child",), "--single-child belongs to one command (-- COMMAND), not to a bundle"),
        (("--only=a", "--", "x"), "--only belongs to a bundle or `check`, not to one command (-- COMMAND)"),
        (("--policy=restart", "--", "x"), "--policy belongs to a bundle or `check`, not to one command"),
        (("--json", "check"), "--json belongs to `health` or `status`, not to `check`"),
        (("--json=yes", "status"), "--json takes no value"),
        (("--rewrite=TERM", "--", "x"), "--rewrite TERM: must be FROM:TO"),
        (("--rewrite=TREM:0", "--", "x"), "--rewrite: there is no signal 'TREM'"),
        (("--rewrite=KILL:TERM", "--", "x"), "--rewrite KILL:TERM: no process can catch KILL"),
        (("--rewrite", "sigstop:0", "--", "x"), "--rewrite sigstop:0: no process can catch sigstop"),
        (("--rewrite=TERM:9", "--rewrite=9:15", "--", "x"), "--rewrite 9:15: no process can catch 9"),
        (("--rewrite=CLD:USR1", "--", "x"), "--rewrite CLD:USR1: CLD is the init's own"),
        (("--map-exit=256", "--", "x"), "--map-exit 256: must be an exit code from 0 to 255"),
        (("--map-exit=²", "--", "x"), "must be an exit code from 0 to 255"),
        (("--parent-death-signal=0", "--", "x"), "there is no signal 0"),
        (("ctl",), "ctl needs a verb | There are restart [NAME...]"),
        (("ctl", "kick", "web"), "ctl cannot kick | There are restart [NAME...]"),
        (("ctl", "kill", "web"), "ctl cannot kill | You may want: bottle-init ctl signal NAME KILL"),
        (("ctl", "status"), "ctl cannot status | You may want: bottle-init status"),
        (("ctl", "restart"), "ctl restart has too few words after it"),
        (("ctl", "renew", "x"), "ctl renew has too many words after it"),
        (("ctl", "signal", "web", "x"), "there is no signal 'x'"),
        (("ctl", "stop", "--follow"), "--follow belongs to `ctl events`"),
    ],
)
def test_what_is_refused_and_why(argv: tuple[str, ...], message: str) -> None:
    assert message in refusal(*argv)


@pytest.mark.parametrize("option", VALUES)
def test_a_value_may_follow_or_be_joined(option: str) -> None:
    command = ("ctl", "stop") if OPTIONS[option].verbs else words_of(OPTIONS[option].commands[-1])
    joined = parsed(f"{option}={VALUES[option]}", *command)
    if OPTIONS[option].needs_value():
        assert parsed(option, VALUES[option], *command) == joined
    assert joined != parsed(*command)


@pytest.mark.parametrize("command", [RUN, ONE, *COMMANDS])
@pytest.mark.parametrize("option", [*OPTIONS, "--help", "--version"])
def test_each_command_takes_its_own_options(option: str, command: str) -> None:
    """An option is accepted by the commands that it belongs to and by no others."""
    ordering = command == CTL and option in ("--all", "--wait")
    argv = [f"{option}={VALUES[option]}" if option in VALUES else option]
    argv += ["ctl", "stop"] if ordering else words_of(command)
    if option not in OPTIONS or command in OPTIONS[option].commands:
        parse(argv, {})
    else:
        assert f"{option} belongs to" in refusal(*argv)


@given(st.lists(st.sampled_from(["--", "-", "", "check", "ctl", "stop", *OPTIONS]) | st.text(max_size=8)))
def test_no_words_at_all_give_a_traceback(argv: list[str]) -> None:
    try:
        parse(argv, {})
    except UsageError as refused:
        assert str(refused)
        assert refused.hint


@given(st.lists(st.text(), min_size=1))
def test_what_follows_the_dashes_is_the_commands_own(words: list[str]) -> None:
    assert parsed("--single-child", "--", *words)["argv"] == tuple(words)


def test_the_last_one_counts() -> None:
    options = parsed("--policy=restart", "--policy=wait-for-all", "--config=a", "--config", "b")
    assert (options["policy"], options["config"]) == ("wait-for-all", "b")


def test_options_override_variables() -> None:
    """Options override variables, and an empty variable counts as unset."""
    environ = {
        "BOTTLE_INIT_CONFIG": "/env.toml",
        "BOTTLE_INIT_CONTROL": "@env",
        "BOTTLE_INIT_ONLY": "x, y",
        "BOTTLE_INIT_STOP_TIMEOUT": "9",
    }
    options = parsed(**environ)
    assert (options["config"], options["control"], options["only"]) == ("/env.toml", "@env", ("x", "y"))
    assert (options["only_source"], options["stop_timeout"]) == ("$BOTTLE_INIT_ONLY", 9_000)
    over = parsed("--config=c", "--control=@o", "--only=z", "--stop-timeout=1m", **environ)
    assert (over["config"], over["control"], over["only"], over["only_source"]) == ("c", "@o", ("z",), "--only")
    assert over["stop_timeout"] == 60_000
    empty = parsed(BOTTLE_INIT_CONFIG="", BOTTLE_INIT_ONLY=" ,", BOTTLE_INIT_STOP_TIMEOUT=" ")
    assert (empty["config"], empty["only"], empty["stop_timeout"]) == ("/etc/bottle/bundle.toml", None, None)


def test_a_wrong_variable_is_named() -> None:
    """A value that cannot be read is refused with the name of the variable that it came from."""
    with pytest.raises(UsageError, match=r"\$BOTTLE_INIT_STOP_TIMEOUT soon: must be a duration"):
        parse((), {"BOTTLE_INIT_STOP_TIMEOUT": "soon"})
    with pytest.raises(UsageError, match=r"\$BOTTLE_INIT_STOP_TIMEOUT -1: must be a duration"):
        parse(("--", "x"), {"BOTTLE_INIT_STOP_TIMEOUT": "-1"})


def test_an_empty_control_address_is_none_at_all() -> None:
    assert parsed(BOTTLE_INIT_CONTROL="")["control"] == ""
    assert parsed("status", BOTTLE_INIT_CONTROL="")["control"] == ""
    assert parsed("status", BOTTLE_INIT_CONTROL="@env")["control"] == "@env"


def test_one_command_has_no_socket_by_default() -> None:
    """A single command has no control socket unless it is asked for."""
    assert parsed("--", "x", BOTTLE_INIT_CONTROL="@env")["control"] is None
    assert parsed("--control=@c", "--", "x")["control"] == "@c"


def test_every_option_has_its_field_and_default() -> None:
    """Every option of a row has its field and its default."""
    for name in OPTIONS:
        assert name[2:].replace("-", "_") in Options.__annotations__, name
    assert {name for name, option in OPTIONS.items() if option.value} == set(VALUES)


def test_help_is_complete_and_fits_a_terminal() -> None:
    """The help names every option, command and policy, and fits a terminal."""
    told = usage.text()
    variables = [f"${option.variable[0]}" for option in OPTIONS.values() if option.variable[0]]
    for word in (*OPTIONS, *COMMANDS, *VERBS, *POLICIES, *variables):
        assert word in told, word
    assert set(re.findall(r"--[a-z-]+", told)) - {"--option"} == {*OPTIONS, "--help", "--version"}
    assert max(map(len, told.splitlines())) <= 120


def test_the_reference_is_complete() -> None:
    """The reference names every option, command and verb."""
    reference = (Path(usage.__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert set(re.findall(r"(?<!-)--[a-z-]+", reference)) - {"--option"} >= set(OPTIONS)
    for command in (*(name for name in COMMANDS if name != CTL), *(f"ctl {verb}" for verb in VERBS)):
        assert f"`{command}" in reference, command


def test_the_reference_is_drawn_from_the_rows() -> None:
    assert cli_page.PAGE.read_text(encoding="utf-8") == cli_page.page(), "python -m tools.cli_page"


def test_what_is_hinted_at_is_understood() -> None:
    for words in MEANT.values():
        parse(words.split(), {})
