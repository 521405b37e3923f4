"""What a command line asks for.

Options are parsed by hand, as `argparse` costs more than the rest of a start. Where an option is given twice,
the last one counts, so that what follows an image's ENTRYPOINT overrides it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Final

EX_OK: Final = 0
EX_USAGE: Final = 2
EX_SOFTWARE: Final = 70
EX_CONFIG: Final = 78

RUN: Final = "run"
ONE: Final = "one"
CHECK: Final = "check"
HEALTH: Final = "health"
STATUS: Final = "status"
CTL: Final = "ctl"
EXPLAIN: Final = "explain"
HELP: Final = "help"
VERSION: Final = "version"
SUBCOMMANDS: Final = (CHECK, HEALTH, STATUS, CTL, EXPLAIN)

DEFAULT_CONFIG: Final = "/etc/bottle/bundle.toml"
DEFAULT_CONTROL: Final = "@bottle_init"
ONLY_VARIABLE: Final = "CLAUDE_BOTTLE_SIDECAR_DAEMONS"

# option: (does it take a value, the commands that it belongs to)
OPTIONS: Final[dict[str, tuple[bool, tuple[str, ...]]]] = {
    "--policy": (True, (RUN, CHECK)),
    "--config": (True, (RUN, CHECK)),
    "--only": (True, (RUN, CHECK)),
    "--report": (True, (RUN, ONE)),
    "--control": (True, (RUN, ONE, HEALTH, STATUS, CTL)),
    "--single-child": (False, (ONE,)),
    "--rewrite": (True, (ONE,)),
    "--map-exit": (True, (ONE,)),
    "--parent-death-signal": (True, (ONE,)),
    "--compile": (False, (CHECK,)),
    "--schema": (False, (CHECK,)),
    "--strict": (False, (HEALTH,)),
    "--json": (False, (HEALTH, STATUS)),
    "--watch": (False, (STATUS,)),
    "--follow": (False, (CTL,)),
    "--help": (False, ()),
    "--version": (False, ()),
}

# verb of ctl: the fewest and the most words after it
VERBS: Final = {"restart": (1, 1), "stop": (0, 1), "start": (1, 1), "signal": (2, 2), "events": (0, 0), "renew": (0, 0)}


class UsageError(Exception):
    """The command line cannot be understood; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "`bottle-init --help` shows the command line.") -> None:
        super().__init__(message)
        self.hint = hint


class Options:
    """What was asked for. `command` is one of the constants above; each of the others belongs to some of them.

    `config`: path of the bundle file (run, check). `policy`: the bundle's, None for the file's own.
    `only`: names of daemons and jobs, None for all. `report`: a path or None.
    `control`: an address, `""` for none, None where nothing was said.
    `argv`: the one command. `rewrites`: `(from, to)` signal numbers, 0 drops, the last for a signal holds.
    `mapped_codes`: those that become 0.
    `parent_death_signal`: a number, 0 for none. `verb`, `name`, `signal`: the words of `ctl`.
    `file`: what `explain` reads, `-` for standard input.
    """

    __slots__ = (
        "argv",
        "command",
        "compile",
        "config",
        "control",
        "file",
        "follow",
        "json",
        "mapped_codes",
        "name",
        "only",
        "only_source",
        "parent_death_signal",
        "policy",
        "report",
        "rewrites",
        "schema",
        "signal",
        "single_child",
        "strict",
        "verb",
        "watch",
    )

    def __init__(self, command: str) -> None:
        self.command = command
        self.config = DEFAULT_CONFIG
        self.policy: str | None = None
        self.only: tuple[str, ...] | None = None
        self.only_source = "--only"
        self.report: str | None = None
        self.control: str | None = None
        self.argv: tuple[str, ...] = ()
        self.single_child = False
        self.rewrites: tuple[tuple[int, int], ...] = ()
        self.mapped_codes: tuple[int, ...] = ()
        self.parent_death_signal = 0
        self.compile = self.schema = self.strict = self.json = self.watch = self.follow = False
        self.verb = self.name = ""
        self.signal = 0
        self.file = "-"


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """The options of a command line without its first word. Raises UsageError."""
    given: list[tuple[str, str]] = []
    words: list[str] = []
    command = RUN
    rest = iter(argv)
    for arg in rest:
        if arg == "--":
            command = ONE
            break
        if arg in ("-h", "--help"):
            return Options(HELP)
        if arg in ("-V", "--version"):
            return Options(VERSION)
        if arg.startswith("-") and arg != "-":
            given.append(_option(arg, rest))
        else:
            words.append(arg)
    options = Options(_command(words, command))
    _from_environment(options, environ)
    for option, value in given:
        _belongs(option, value, options.command)
        SETTERS[option](options, value)
    if command == ONE:
        options.argv = _one_command(tuple(rest))
    else:
        _take_words(options, words[1:])
    return options


def _option(arg: str, rest: Iterator[str]) -> tuple[str, str]:
    """`--name=value` or `--name`, whose value is then the next argument, as `(name, value)`."""
    name, equals, value = arg.partition("=")
    if name not in OPTIONS:
        from bottle_init.bundle.table import nearest

        raise UsageError(f"unknown option {name}{nearest(name, OPTIONS)}")
    takes_value = OPTIONS[name][0]
    if not takes_value and equals:
        raise UsageError(f"{name} takes no value")
    if takes_value and not equals:
        value = next(rest, "--")
        if value == "--":
            raise UsageError(f"{name} needs a value: {name}=VALUE")
    return name, value


def _command(words: list[str], command: str) -> str:
    if not words:
        return command
    if words[0] not in SUBCOMMANDS:
        from bottle_init.bundle.table import nearest

        raise UsageError(
            f"unknown command {words[0]}{nearest(words[0], SUBCOMMANDS)}",
            f"To run one program under the init: -- {words[0]} ...",
        )
    if command == ONE:
        raise UsageError(f"{words[0]} takes no -- COMMAND")
    return words[0]


def _belongs(option: str, value: str, command: str) -> None:
    """Whether this option means anything to this command.

    An image's ENTRYPOINT may carry the default policy, which is just what one command's end does.
    """
    if command in OPTIONS[option][1]:
        return
    if (option, command) == ("--policy", ONE):
        from bottle_init.core import policies

        if value == policies.DEFAULT:
            return
    where = {RUN: "a bundle", ONE: "one command (-- COMMAND)"}
    home = " or ".join(where.get(owner, f"`{owner}`") for owner in OPTIONS[option][1])
    raise UsageError(f"{option} belongs to {home}, not to {where.get(command, f'`{command}`')}")


def _from_environment(options: Options, environ: Mapping[str, str]) -> None:
    """What variables say, before options override it (contract 6, 9)."""
    options.config = environ.get("BOTTLE_INIT_CONFIG") or DEFAULT_CONFIG
    if options.command != ONE:
        options.control = environ.get("BOTTLE_INIT_CONTROL")
    if options.command in (RUN, CHECK):
        options.only = _names(environ.get(ONLY_VARIABLE, "")) or None
        options.only_source = f"${ONLY_VARIABLE}"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _set_policy(options: Options, value: str) -> None:
    from bottle_init.core.policies import POLICIES

    if value not in POLICIES:
        raise UsageError(f"unknown policy {value or '(empty)'}", f"There are {', '.join(POLICIES)}.")
    options.policy = value


def _set_config(options: Options, value: str) -> None:
    options.config = _not_empty("--config", value)


def _set_only(options: Options, value: str) -> None:
    options.only = _names(value)
    options.only_source = "--only"
    if not options.only:
        raise UsageError("--only needs names of daemons or jobs: --only egress,pipelock")


def _set_report(options: Options, value: str) -> None:
    options.report = _not_empty("--report", value)


def _set_control(options: Options, value: str) -> None:
    options.control = value


def _set_rewrite(options: Options, value: str) -> None:
    source, colon, target = value.partition(":")
    if not colon:
        raise UsageError(f"--rewrite {value}: must be FROM:TO, such as TERM:QUIT; TO is 0 to drop the signal")
    rule = (_signal("--rewrite", source), 0 if target == "0" else _signal("--rewrite", target))
    options.rewrites = (*options.rewrites, rule)


def _set_map_exit(options: Options, value: str) -> None:
    if not (value.isascii() and value.isdigit() and len(value) < 4 and int(value) < 256):
        raise UsageError(f"--map-exit {value}: must be an exit code from 0 to 255")
    options.mapped_codes = (*options.mapped_codes, int(value))


def _set_parent_death_signal(options: Options, value: str) -> None:
    options.parent_death_signal = _signal("--parent-death-signal", value)


def _flag(attribute: str) -> Callable[[Options, str], None]:
    def turn_on(options: Options, _value: str) -> None:
        setattr(options, attribute, True)

    return turn_on


def _signal(option: str, text: str) -> int:
    from bottle_init.words import signames

    try:
        return signames.number(text)
    except ValueError as problem:
        raise UsageError(f"{option}: {problem}", "Signals are written TERM, SIGTERM, 15 or RTMIN+1.") from None


def _not_empty(option: str, value: str) -> str:
    if not value:
        raise UsageError(f"{option} needs a path")
    return value


SETTERS: Final[dict[str, Callable[[Options, str], None]]] = {
    "--policy": _set_policy,
    "--config": _set_config,
    "--only": _set_only,
    "--report": _set_report,
    "--control": _set_control,
    "--single-child": _flag("single_child"),
    "--rewrite": _set_rewrite,
    "--map-exit": _set_map_exit,
    "--parent-death-signal": _set_parent_death_signal,
    "--compile": _flag("compile"),
    "--schema": _flag("schema"),
    "--strict": _flag("strict"),
    "--json": _flag("json"),
    "--watch": _flag("watch"),
    "--follow": _flag("follow"),
}


def _one_command(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv:
        raise UsageError("a command must come after --")
    return argv


def _take_words(options: Options, words: list[str]) -> None:
    """What follows a subcommand."""
    if options.command == CTL:
        _take_ctl(options, words)
        return
    most = 1 if options.command in (CHECK, EXPLAIN) else 0
    if len(words) > most:
        raise UsageError(f"{options.command} does not know what to do with {words[most]}")
    if words and options.command == CHECK:
        options.config = _not_empty("check", words[0])
    elif words:
        options.file = _not_empty("explain", words[0])


def _take_ctl(options: Options, words: list[str]) -> None:
    verbs = "There are restart NAME, stop [NAME], start NAME, signal NAME SIGNAL, events [--follow] and renew."
    if not words or words[0] not in VERBS:
        raise UsageError(f"ctl cannot {words[0]}" if words else "ctl needs a verb", verbs)
    options.verb, *rest = words
    fewest, most = VERBS[options.verb]
    if not fewest <= len(rest) <= most:
        raise UsageError(f"ctl {options.verb} has too {'few' if len(rest) < fewest else 'many'} words after it", verbs)
    if options.follow and options.verb != "events":
        raise UsageError("--follow belongs to `ctl events`")
    if rest:
        options.name = rest[0]
    if len(rest) > 1:
        options.signal = _signal("ctl signal", rest[1])
