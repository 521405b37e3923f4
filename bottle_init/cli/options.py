"""What a command line asks for: one row for each option, each command and each verb of `ctl`.

The parser, `--help` (`usage.py`) and the tables of docs/cli.md come from the rows. Options are parsed by hand, as
`argparse` costs more than the rest of a start. Where an option is given twice, the last one counts, so that what
follows an image's ENTRYPOINT overrides it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Final

    from bottle_init.core.spec import Lease

    Read = Callable[[str, str], Any]
    """`(name of the option, text of its value)` -> the value. Raises UsageError."""

RUN: Final = "run"
ONE: Final = "one"
CHECK: Final = "check"
HEALTH: Final = "health"
STATUS: Final = "status"
CTL: Final = "ctl"
EXPLAIN: Final = "explain"
CONVERT: Final = "convert"
HELP: Final = "help"
VERSION: Final = "version"

ORDERS: Final = ("start", "stop", "restart")
"""The verbs of `ctl` that take several children, and that can be waited for."""

DEFAULT_CONFIG: Final = "/etc/bottle/bundle.toml"
DEFAULT_CONTROL: Final = "@bottle_init"


_SUN_PATH_MAX: Final = 107
"""Bytes of a socket's path (unix(7))."""


class UsageError(Exception):
    """The command line cannot be understood; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "`bottle-init --help` shows the command line.") -> None:
        super().__init__(message)
        self.hint = hint


class Options:
    """What was asked for. `command` is one of the constants above; each of the others belongs to some of them.

    `given`: the options of the command line itself. `policy`: the bundle's, None for the file's own. `only`: names of
    daemons and jobs, None for all; `only_source` is the option or the variable that they come from. `control`: an
    address, `""` for none, None where nothing was said. `rewrite`: `(from, to)` signal numbers, 0 drops, the last for
    a signal holds. `map_exit`: those that become 0.
    `parent_death_signal`: a number, 0 for none. `lease`: what the one command's life hangs on. `stop_timeout`: in
    milliseconds, None where nothing was said. `argv`: the one command. `verb`, `names`, `signal`: the words of `ctl`;
    `wait`: how many milliseconds for its effect, None for not at all. `file`: what `explain` and `convert` read, `-`
    for standard input. `output`: where `convert` writes, None for standard output; `kind`: what it reads, None to look.
    """

    given: tuple[str, ...] = ()
    config: str = DEFAULT_CONFIG
    policy: str | None = None
    only: tuple[str, ...] | None = None
    only_source: str = "--only"
    report: str | None = None
    control: str | None = None
    single_child: bool = False
    rewrite: tuple[tuple[int, int], ...] = ()
    map_exit: tuple[int, ...] = ()
    parent_death_signal: int = 0
    lease: Lease | None = None
    stop_timeout: int | None = None
    compile: bool = False
    schema: bool = False
    strict: bool = False
    json: bool = False
    watch: bool = False
    follow: bool = False
    svg: bool = False
    argv: tuple[str, ...] = ()
    verb: str = ""
    names: tuple[str, ...] = ()
    all: bool = False
    wait: int | None = None
    signal: int = 0
    file: str = "-"
    output: str | None = None
    kind: str | None = None

    def __init__(self, command: str) -> None:
        self.command = command


class Option:
    """One option; `Options` has it under its own name, with underscores.

    `value` is what the help calls its value, empty for a flag; `commands` are those that take it. Each further value of
    one that `repeats` is added to those before. `variable` is the environment's word for it, and the commands that heed
    that; `otherwise` is what holds without either. `bare` is what the option means without its value, empty where it
    needs one. `verbs` are those of `ctl` that it belongs to, empty for all. `sentence` is in markdown.
    """

    __slots__ = ("bare", "commands", "otherwise", "read", "repeats", "sentence", "value", "variable", "verbs")

    def __init__(  # noqa: PLR0913 - One column each.
        self,
        value: str,
        commands: tuple[str, ...],
        read: Read,
        sentence: str,
        *,
        repeats: bool = False,
        variable: tuple[str, tuple[str, ...]] = ("", ()),
        otherwise: str = "",
        bare: str = "",
        verbs: tuple[str, ...] = (),
    ) -> None:
        self.value = value
        self.commands = commands
        self.read = read
        self.sentence = sentence
        self.repeats = repeats
        self.variable = variable
        self.otherwise = otherwise
        self.bare = bare
        self.verbs = verbs

    def needs_value(self) -> bool:
        """Whether the next word is its value where none follows a `=`."""
        return bool(self.value) and not self.bare


class Command:
    """One command, or one verb of `ctl`.

    `words` are what the help calls the words after it, of which there are at least `fewest` and at most `most`. The
    word of a command that takes one is for the `field` of `Options`.
    """

    __slots__ = ("fewest", "field", "most", "sentence", "words")

    def __init__(self, words: str, fewest: int, most: int, sentence: str, field: str = "") -> None:
        self.words = words
        self.fewest = fewest
        self.most = most
        self.sentence = sentence
        self.field = field


# What values are read as.


def _flag(_option: str, _text: str) -> bool:
    return True


def _text(_option: str, text: str) -> str:
    return text


def _path(option: str, text: str) -> str:
    if not text:
        raise UsageError(f"{option} needs a path")
    return text


def _policy(_option: str, text: str) -> str:
    from bottle_init.core.policies import POLICIES

    if text not in POLICIES:
        raise UsageError(f"unknown policy {text or '(empty)'}", f"There are {', '.join(POLICIES)}.")
    return text


def names_in(text: str) -> tuple[str, ...]:
    """`a, b` -> its names; none where it says nothing."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _names(option: str, text: str) -> tuple[str, ...]:
    names = names_in(text)
    if not names:
        raise UsageError(f"{option} needs names of daemons or jobs: {option} web,db")
    return names


def _rewrite(option: str, text: str) -> tuple[int, int]:
    from bottle_init.core import signals

    source, colon, target = text.partition(":")
    if not colon:
        raise UsageError(f"{option} {text}: must be FROM:TO, such as TERM:QUIT; TO is 0 to drop the signal")
    number = _signal(option, source)
    if number in (signals.KILL, signals.STOP):
        raise UsageError(f"{option} {text}: no process can catch {source}, so the init never gets it (signal(7))")
    if number == signals.CHLD:
        raise UsageError(f"{option} {text}: {source} is the init's own: it tells of the ends of its children")
    return number, 0 if target == "0" else _signal(option, target)


def _code(option: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) < 256):
        raise UsageError(f"{option} {text}: must be an exit code from 0 to 255")
    return int(text)


def _signal(option: str, text: str) -> int:
    from bottle_init.words import signames

    try:
        return signames.number(text)
    except ValueError as problem:
        raise UsageError(f"{option}: {problem}", "Signals are written TERM, SIGTERM, 15 or RTMIN+1.") from None


def _lease(option: str, text: str) -> Lease:
    from bottle_init.core.spec import Lease

    scheme, _, where = text.partition(":")
    if scheme == "fd" and where.isascii() and where.isdigit() and len(where) < 8:
        return Lease(fd=int(where))
    if scheme == "unix" and where not in ("", "@") and len(where) <= _SUN_PATH_MAX:
        return Lease(connect=text)
    if scheme == "tcp" and _is_peer(where):
        return Lease(connect=text)
    raise UsageError(f"{option} {text}: must be tcp:IP:PORT, unix:PATH or fd:N", "An IPv6 address is written [::1].")


def _is_peer(where: str) -> bool:
    """Whether this is IP:PORT; the init resolves no names but localhost."""
    import _socket

    host, _, port = where.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 1 << 16):
        return False
    is_six = host.startswith("[") and host.endswith("]")
    try:
        _socket.inet_pton(_socket.AF_INET6 if is_six else _socket.AF_INET, host[1:-1] if is_six else host)
    except OSError:
        return host == "localhost"
    return True


def _duration(option: str, text: str) -> int:
    from bottle_init.words import durations

    try:
        exact = durations.parse_ms(text if not text.replace(".", "", 1).isdigit() else f"{text}s")
    except ValueError:
        exact = durations.LONGEST_MS + 1.0
    if exact > durations.LONGEST_MS:
        raise UsageError(f"{option} {text}: must be a duration such as 500ms, 8s or 1m30s")
    return round(exact)


# The rows.

OPTIONS: Final[dict[str, Option]] = {
    "--config": Option(
        *("FILE", (RUN, CHECK), _path, "the [bundle file](bundle-file.md)"),
        variable=("BOTTLE_INIT_CONFIG", (RUN, CHECK, HEALTH, STATUS, CTL)),
        otherwise=f"`{DEFAULT_CONFIG}`",
    ),
    "--policy": Option(
        *("POLICY", (RUN, CHECK), _policy),
        "what a [daemon's death](contract.md#31-policies) does, where the daemon has no policy of its own",
    ),
    "--only": Option(
        *("A,B", (RUN, CHECK), _names),
        "these daemons and jobs alone; oneshots [always run](bundle-file.md#a-part-of-a-bundle)",
        variable=("BOTTLE_INIT_ONLY", (RUN, CHECK)),
        otherwise="the variable that `only_from` of the bundle file names, else all",
    ),
    "--report": Option(
        *("FILE", (RUN, ONE), _path),
        "the [exit report](report.md) as JSON; a bundle's log has it in any case",
    ),
    "--control": Option(
        *("ADDR", (RUN, ONE, HEALTH, STATUS, CTL), _text),
        'the [control socket](control.md): a path, `@name` for an abstract one, `""` for none',
        variable=("BOTTLE_INIT_CONTROL", (RUN, HEALTH, STATUS, CTL)),
        otherwise=f"what the bundle file says, else `{DEFAULT_CONTROL}`",
    ),
    "--single-child": Option(
        *("", (ONE,), _flag),
        "forward signals to the program alone, not to its process group; it then stays in the init's session",
    ),
    "--rewrite": Option(
        *("FROM:TO", (ONE,), _rewrite),
        "send the program `TO` where `FROM` comes, nothing where `TO` is 0; of several for one signal the last holds",
        repeats=True,
    ),
    "--map-exit": Option(
        *("CODE", (ONE,), _code),
        "exit with 0 where the program exits with `CODE`, such as 143 for one that does not handle TERM",
        repeats=True,
    ),
    "--parent-death-signal": Option(
        *("SIG", (ONE,), _signal), "have the kernel send the init `SIG` when its own parent ends"
    ),
    "--lease": Option(
        *("PEER", (ONE, RUN), _lease),
        "stop the program, or the bundle, when this peer goes: `tcp:IP:PORT`, `unix:PATH` or `fd:N`, as a bundle's "
        "[lease](bundle-file.md#lease)",
    ),
    "--stop-timeout": Option(
        *("DURATION", (RUN, CHECK, ONE), _duration),
        "the deadline of a [stop](contract.md#42-stopping): what is left then is killed. Of one program it is counted "
        "from the end of the lease, or of the program",
        variable=("BOTTLE_INIT_STOP_TIMEOUT", (RUN, CHECK, ONE)),
        otherwise="what the bundle file says, else `8s`",
    ),
    "--compile": Option(
        *("", (CHECK,), _flag), "also write its [compiled form](bundle-file.md#compiled) beside it, for a faster start"
    ),
    "--schema": Option("", (CHECK,), _flag, "print the JSON Schema of bundle files instead"),
    "--strict": Option("", (HEALTH,), _flag, "0 for `healthy` alone"),
    "--json": Option("", (HEALTH, STATUS), _flag, "print JSON"),
    "--watch": Option("", (STATUS,), _flag, "again and again, until Ctrl-C"),
    "--svg": Option("", (EXPLAIN,), _flag, "draw the timeline, as SVG"),
    "--output": Option("FILE", (CONVERT,), _path, "write there and not to standard output; `-o` is the same"),
    "--kind": Option(
        *("KIND", (CONVERT,), _text),
        "what `FILE` is, where that cannot be told: `supervisord`, `procfile`, `compose`, `pebble` or `s6-rc`",
    ),
    "--follow": Option("", (CTL,), _flag, "until the init ends, or Ctrl-C", verbs=("events",)),
    "--all": Option("", (CTL,), _flag, "every daemon and every job; of `stop`, the bundle", verbs=ORDERS),
    "--wait": Option(
        *("DURATION", (CTL,), _duration),
        "return when each is ready, or gone, and with 1 if that is not so in time; 30 s without a value",
        bare="30s",
        verbs=ORDERS,
    ),
}

COMMANDS: Final[dict[str, Command]] = {
    HEALTH: Command(
        *("", 0, 0), "print one word, and how each daemon is; exits with 0 if `healthy` or `degraded`, with 1 otherwise"
    ),
    STATUS: Command("", 0, 0, "print a table of the children: state, restarts, memory, CPU"),
    CTL: Command("VERB ...", 1, 3, "give an order"),
    CHECK: Command(
        *("[FILE]", 0, 1),
        "say all that is wrong with a bundle file, or print its start order; `-` is standard input",
        "config",
    ),
    EXPLAIN: Command(
        *("[FILE]", 0, 1),
        "tell the story of an exit report, or of a log with one in it; standard input by default",
        "file",
    ),
    CONVERT: Command(
        *("FILE", 1, 1),
        "make a bundle file of a supervisord.conf, a Procfile, a compose file, a Pebble layer or an s6-rc source "
        "directory, with a comment at [all that differs](migrate.md#convert); exits with 1 if that changes behaviour",
        "file",
    ),
}

SHORT: Final = {"-o": "--output"}
"""Options of one letter, for what others mean by them."""

_CHILDREN: Final = "[NAME...] [--all] [--wait[=DURATION]]"
_MANY: Final = 1 << 20

VERBS: Final[dict[str, Command]] = {
    "restart": Command(_CHILDREN, 1, _MANY, "restart children"),
    "start": Command(_CHILDREN, 1, _MANY, "start children"),
    "stop": Command(_CHILDREN, 0, _MANY, "stop children; without a name, the bundle"),
    "signal": Command("NAME SIGNAL", 2, 2, "send a child a signal"),
    "events": Command("[--follow]", 0, 0, "print what happens: lines for people on a terminal, else JSON"),
    "renew": Command("", 0, 0, "renew the lease"),
}

MEANT: Final = {
    "help": "--help",
    "version": "--version",
    "run": "--config FILE",
    "up": "--config FILE",
    "down": "ctl stop",
    "shutdown": "ctl stop",
    "kill": "ctl signal NAME KILL",
    "reload": "ctl signal NAME HUP",
    "ps": "status",
    "list": "status",
    "logs": "ctl events --follow",
    "validate": "check",
}
"""What other tools call a command, and how it is typed here."""

WHERE: Final = {RUN: "a bundle", ONE: "one command (-- COMMAND)"}
"""How messages call the commands that have no word."""


# Parsing.


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
    options.given = tuple(dict.fromkeys(name for name, _ in given))
    _from_environment(options, environ)
    for name, text in given:
        if _belongs(name, text, options.command):
            _set(options, name, name, text)
    if command == ONE:
        options.argv = _one_command(tuple(rest))
    else:
        _take_words(options, words[1:])
    return options


def _option(arg: str, rest: Iterator[str]) -> tuple[str, str]:
    """`--name=value` or `--name`, whose value is then the next argument, as `(name, value)`."""
    name, equals, value = arg.partition("=")
    name = SHORT.get(name, name)
    if name not in OPTIONS:
        raise UsageError(f"unknown option {name}{_nearest(name, (*OPTIONS, '--help', '--version'))}")
    option = OPTIONS[name]
    if not option.value and equals:
        raise UsageError(f"{name} takes no value")
    if option.bare and not equals:
        value = option.bare
    elif option.value and not equals:
        value = next(rest, "--")
        if value == "--":
            raise UsageError(f"{name} needs a value: {name}=VALUE")
    return name, value


def _nearest(word: str, known: Iterable[str]) -> str:
    from bottle_init.bundle.table import nearest

    return nearest(word, known)


def _command(words: list[str], command: str) -> str:
    if not words:
        return command
    if words[0] not in COMMANDS:
        raise _unknown(words)
    if command == ONE:
        raise UsageError(f"{words[0]} takes no -- COMMAND")
    return words[0]


def _unknown(words: list[str]) -> UsageError:
    """A first word that is no command: what was most likely meant by it."""
    word = words[0]
    meant = MEANT.get(word, "")
    if word in VERBS:
        meant = " ".join(("ctl", *words))
    elif word.endswith(".toml"):
        meant = f"--config {word}"
    if meant:
        return UsageError(f"unknown command {word}", f"You may want: bottle-init {meant}")
    hint = f"To run one program under the init: bottle-init -- {' '.join(words)}"
    return UsageError(f"unknown command {word}{_nearest(word, COMMANDS)}", hint)


def _belongs(name: str, text: str, command: str) -> bool:
    """Whether this option does anything for this command. Raises UsageError where it means nothing to it.

    An image's ENTRYPOINT may carry the default policy, which is just what one command's end does.
    """
    owners = OPTIONS[name].commands
    if command in owners:
        return True
    if (name, command) == ("--policy", ONE):
        from bottle_init.core import policies

        if text == policies.DEFAULT:
            return False
    home = " or ".join(WHERE.get(owner, f"`{owner}`") for owner in owners)
    raise UsageError(f"{name} belongs to {home}, not to {WHERE.get(command, f'`{command}`')}")


def _from_environment(options: Options, environ: Mapping[str, str]) -> None:
    """What variables say, before options override it (contract 6, 9). One that says nothing is as if it were not there.

    An empty address is an address: there is to be no socket.
    """
    for name, option in OPTIONS.items():
        variable, heeded_by = option.variable
        text = environ.get(variable) if options.command in heeded_by else None
        if text is not None and (text.replace(",", " ").strip() or option.read is _text):
            _set(options, name, f"${variable}", text)


def _field(name: str) -> str:
    return name[2:].replace("-", "_")


def _set(options: Options, name: str, source: str, text: str) -> None:
    option, field = OPTIONS[name], _field(name)
    value = option.read(source, text)
    setattr(options, field, (*getattr(options, field), value) if option.repeats else value)
    if field == "only":
        options.only_source = source


def _one_command(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv:
        raise UsageError("a command must come after --")
    return argv


def _take_words(options: Options, words: list[str]) -> None:
    """What follows a subcommand."""
    if options.command == CTL:
        _take_ctl(options, words)
        return
    row = COMMANDS.get(options.command)
    most = row.most if row is not None else 0
    if len(words) > most:
        raise UsageError(f"{options.command} does not know what to do with {words[most]}")
    if row is not None and len(words) < row.fewest:
        raise UsageError(f"{options.command} needs {row.words}")
    if words and row is not None:
        setattr(options, row.field, _path(options.command, words[0]))


def _take_ctl(options: Options, words: list[str]) -> None:
    *front, last = (f"{verb} {row.words}".rstrip() for verb, row in VERBS.items())
    verbs = f"There are {', '.join(front)} and {last}."
    if not words or words[0] not in VERBS:
        meant = words[0] if words and words[0] in COMMANDS else MEANT.get(words[0], "") if words else ""
        hint = f"You may want: bottle-init {meant}" if meant else verbs
        raise UsageError(f"ctl cannot {words[0]}" if words else "ctl needs a verb", hint)
    options.verb, *rest = words
    row = VERBS[options.verb]
    for name, option in OPTIONS.items():
        given = getattr(options, _field(name)) != getattr(Options, _field(name))
        if option.verbs and given and options.verb not in option.verbs:
            raise UsageError(f"{name} belongs to {' or '.join(f'`ctl {verb}`' for verb in option.verbs)}")
    if options.all and rest:
        raise UsageError(f"ctl {options.verb} takes names or --all, not both")
    if not row.fewest <= len(rest) <= row.most and not options.all:
        few = len(rest) < row.fewest
        raise UsageError(f"ctl {options.verb} has too {'few' if few else 'many'} words after it", verbs)
    if options.verb == "signal":
        options.signal = _signal("ctl signal", rest.pop())
    options.names = tuple(dict.fromkeys(rest))
