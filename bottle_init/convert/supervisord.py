"""From a supervisord.conf, read by supervisord's own parser (supervisord.org/configuration.html)."""

from __future__ import annotations

import configparser
import glob
import re
from typing import TYPE_CHECKING, Any, Final

from bottle_init.convert.comments import MARK
from bottle_init.convert.draft import Child, Draft, ExtraMissing, Unconvertible
from bottle_init.convert.files import Unreadable, read_file
from bottle_init.convert.scalars import spelled
from bottle_init.core.words import DAEMON
from bottle_init.words import signames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOOL: Final = "supervisord.conf"

_PROGRAM: Final = "program:"
_PRIORITY: Final = 999
_MOST_COPIES: Final = 1_000
_TO_INIT: Final = re.compile(r"/dev/(?:std(?:out|err)|fd/[12]|tty)|/proc/(?:self|1)/fd/[12]|auto", re.IGNORECASE)
_TO_NOWHERE: Final = ("none", "off", "/dev/null")
_POLICIES: Final = {"true": "restart", "false": "wait-for-all", "unexpected": "restart-on-failure"}
_ENVIRONMENT: Final = re.compile("qzENV([0-9a-f]+)zq")

_KNOWN: Final = (
    *("command", "process_name", "numprocs", "numprocs_start", "priority", "autostart", "autorestart", "startsecs"),
    *("startretries", "exitcodes", "stopsignal", "stopwaitsecs", "stopasgroup", "killasgroup", "user", "directory"),
    *("umask", "environment", "redirect_stderr"),
    *(f"{stream}_logfile{rest}" for stream in ("stdout", "stderr") for rest in ("", "_maxbytes", "_backups")),
)
_OWN: Final = (
    *("logfile", "logfile_maxbytes", "logfile_backups", "loglevel", "pidfile", "nodaemon", "silent", "identifier"),
    *("directory", "user", "umask", "environment", "childlogdir", "nocleanup", "strip_ansi", "minprocs", "minfds"),
)
_SERVERS: Final = ("unix_http_server", "supervisorctl", "rpcinterface:")
_OF_LISTENERS: Final = (
    "it is not here: `bottle-init ctl events --follow` prints what happens, and one that ends the container when a"
    " program fails is not needed, because policy says that"
)


class _Names(dict[str, Any]):
    """What `%(...)s` may name; a variable of the environment becomes a word that no shlex splits."""

    def __missing__(self, name: str) -> str:
        if not re.fullmatch(r"ENV_[A-Za-z_][A-Za-z0-9_]*", name):
            raise KeyError(name)
        return f"qzENV{name[4:].encode().hex()}zq"


class _File:
    """A parsed file, and its draft."""

    def __init__(self, parser: Any, draft: Draft, here: str) -> None:
        self.parser = parser
        self.draft = draft
        self.names = _Names(here=here)

    def expanded(self, section: str, key: str, text: str, **names: Any) -> str:
        """Text with `%(...)s` replaced, as supervisord does."""
        try:
            return str(text % _Names(self.names | names))
        except KeyError as problem:
            raise Unconvertible(f"[{section}] {key}", f"there is no %({problem.args[0]})s") from None
        except (ValueError, TypeError, OverflowError, MemoryError) as problem:
            raise Unconvertible(f"[{section}] {key}", f"{text!r}: {problem}") from None

    def settled(self, text: str) -> str:
        """Text with each variable of the environment as a draft has them."""
        return _ENVIRONMENT.sub(lambda match: self.draft.variables.mark(bytes.fromhex(match[1]).decode(), "?"), text)

    def get(self, section: str, key: str, default: str = "") -> str:
        """An option, not expanded yet."""
        found = self.parser.get(section, key, fallback=default)
        return default if found is None else str(found)


def convert(text: str, source: str, directory: Path | None) -> Draft:
    """The draft of a supervisord.conf. `directory` is `%(here)s`. Raises Unconvertible, ExtraMissing."""
    try:
        from supervisor.options import UnhosedConfigParser
    except ImportError:
        raise ExtraMissing("supervisor") from None
    draft = Draft(source, TOOL)
    here = str(directory) if directory is not None else "."
    file = _File(UnhosedConfigParser(), draft, here)
    _parse(file, text, source)
    file.parser.expand_here(here)
    _include(file, here)
    sections = list(file.parser.sections())
    for section in sections:
        _look_at(file, section)
    levels: dict[tuple[int, int], list[Child]] = {}
    grouped = dict(_groups(file))
    for section in sections:
        if section.startswith(_PROGRAM):
            priority = _number(file, section, "priority", _PRIORITY)
            first, group = grouped.get(section.removeprefix(_PROGRAM).strip(), (priority, ""))
            for child in _program(file, section, group):
                levels.setdefault((first, priority if group else 0), []).append(child)
    before: list[str] = []
    for level in sorted(levels):
        for child in levels[level]:
            child.after(before)
        before = [child.name for child in levels[level]]
    draft.note(
        "supervisord runs on when a program has failed for good; here a spent budget of restarts ends the bundle"
    )
    return draft


def _parse(file: _File, text: str, source: str) -> None:
    try:
        file.parser.read_string(text, source)
    except configparser.Error as problem:
        raise Unconvertible("", " ".join(str(problem).split())) from None
    except (ValueError, AttributeError, TypeError) as problem:
        raise Unconvertible("", f"not a file that supervisord reads: {problem}") from None


def _include(file: _File, here: str) -> None:
    """The files of `[include]`, relative to the first one; those have no such section themselves."""
    if not file.parser.has_section("include"):
        return
    for pattern in file.expanded("include", "files", file.get("include", "files")).split():
        found = sorted(glob.glob(pattern if pattern.startswith("/") else f"{here}/{pattern}"))
        if not found and pattern.startswith("/"):
            found = sorted(glob.glob(glob.escape(_image_root(here)) + pattern))
        if not found:
            file.draft.lose(f"[include] {pattern}: there is no such file here")
        for path in found:
            try:
                _parse(file, read_file(path), path)
                file.parser.expand_here(path.rpartition("/")[0])
            except Unreadable as problem:
                file.draft.lose(f"[include] {path}: it cannot be read: {problem}")


def _image_root(here: str) -> str:
    """The directory that becomes the root of an image, for a file that is somewhere in the `etc` of one."""
    parts = here.split("/")
    return "/".join(parts[: -parts[::-1].index("etc") - 1]) or "." if "etc" in parts else here


def _look_at(file: _File, section: str) -> None:
    """Say what is not converted of a section that is no program."""
    draft = file.draft
    if section.startswith("eventlistener:"):
        draft.lose(f"[{section}]: {_OF_LISTENERS}")
    elif section.startswith("fcgi-program:"):
        draft.lose(f"[{section}]: nothing here opens a socket for a program; let the server open it")
    elif section.startswith("group:"):
        draft.note(f"[{section}]: `bottle-init ctl` takes the names of children, not groups")
    elif section == "supervisord":
        _look_at_own(file)
    elif section == "inet_http_server":
        draft.note("[inet_http_server]: orders come by `bottle-init ctl` alone, not over TCP")
    elif not section.startswith((*_SERVERS, _PROGRAM)) and section != "include":
        draft.note(f"[{section}]: supervisord does not know it either")


def _look_at_own(file: _File) -> None:
    for key in file.parser.options("supervisord"):
        if key in ("minfds", "minprocs"):
            file.draft.note(f"[supervisord] {key}: `rlimits` of a child sets limits; here they are inherited")
        elif key not in _OWN:
            file.draft.note(f"[supervisord] {key}: supervisord does not know it either")


def _groups(file: _File) -> Iterator[tuple[str, tuple[int, str]]]:
    for section in file.parser.sections():
        if section.startswith("group:"):
            priority = _number(file, section, "priority", _PRIORITY)
            for name in file.get(section, "programs").split(","):
                yield name.strip(), (priority, section.partition(":")[2].strip())


def _number(file: _File, section: str, key: str, default: int) -> int:
    text = file.expanded(section, key, file.get(section, key, str(default)), program_name="")
    try:
        return int(text)
    except ValueError:
        if not _ENVIRONMENT.search(text):
            raise Unconvertible(f"[{section}] {key}", f"must be a whole number, is {text!r}") from None
        file.draft.lose(f"[{section}] {key}: it is a variable of the environment, taken for {default}")
        return default


def _program(file: _File, section: str, group: str) -> Iterator[Child]:
    """Its children, one for each copy."""
    name = section.removeprefix(_PROGRAM).strip()
    copies, first = _number(file, section, "numprocs", 1), _number(file, section, "numprocs_start", 0)
    if copies > _MOST_COPIES:
        raise Unconvertible(f"[{section}] numprocs", f"more than {_MOST_COPIES:,} copies")
    pattern = file.get(section, "process_name", "%(program_name)s")
    for number in range(first, first + copies):
        names: dict[str, Any] = {
            "program_name": name,
            "group_name": group or name,
            "host_node_name": _host(file),
            "process_num": number,
            "numprocs": copies,
        }
        wanted = file.expanded(section, "process_name", pattern, **names).strip()
        child = file.draft.child(_ENVIRONMENT.sub("", wanted), DAEMON, f"[{section}]")
        _fill(file, section, child, names)
        yield child


def _host(file: _File) -> str:
    return f"{file.names['ENV_HOSTNAME']}"


def _fill(file: _File, section: str, child: Child, names: dict[str, Any]) -> None:
    environment = dict(_environment(file, "supervisord", names))
    environment |= dict(_environment(file, section, names))
    names = names | {f"ENV_{key}": value for key, value in environment.items()}

    def option(key: str, default: str = "") -> str:
        return file.settled(file.expanded(section, key, file.get(section, key, default), **names))

    child.command(_words(file, section, option("command"), child))
    child.env((key, file.settled(value)) for key, value in environment.items())
    _who_and_where(file, child, option)
    _restarts(child, option)
    _stop(child, option)
    _logs(child, option)
    for key in file.parser.options(section):
        if key.endswith(("_events_enabled", "_syslog")) and option(key).lower() in ("true", "1", "yes", "on"):
            child.lose(f"{key}: the lines are in the container's log")
        elif key not in _KNOWN and not re.match("std(out|err)_(capture|events|syslog)|serverurl", key):
            child.note(f"{key}: supervisord does not know it either")


def _words(file: _File, section: str, command: str, child: Child) -> list[str]:
    try:
        words = file.draft.variables.split(command, child, "command")
    except ValueError as problem:
        raise Unconvertible(f"[{section}] command", f"{problem}") from None
    if not words:
        raise Unconvertible(f"[{section}]", "it has no command")
    return words


def _who_and_where(file: _File, child: Child, option: Callable[..., str]) -> None:
    """Its user, directory and umask; user and umask may be those of supervisord itself."""
    for key, target in (("directory", "cwd"), ("user", "user"), ("umask", "umask")):
        whole = file.get("supervisord", key) if file.parser.has_section("supervisord") else ""
        own = option(key) or (option(key, whole) if key != "directory" else "")
        if own and (key, own) != ("user", "root"):
            child.table[target] = own.zfill(4) if key == "umask" else own
    if child.table.get("user", "").isdigit():
        child.table["user"] = int(child.table["user"])


def _environment(file: _File, section: str, names: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from supervisor.datatypes import dict_of_key_value_pairs

    text = file.get(section, "environment") if file.parser.has_section(section) else ""
    try:
        pairs = dict_of_key_value_pairs(file.expanded(section, "environment", text, **names))
    except ValueError as problem:
        raise Unconvertible(f"[{section}] environment", f"{problem}") from None
    yield from pairs.items()


def _restarts(child: Child, option: Callable[..., str]) -> None:
    starts = option("autostart", "true")
    if MARK.fullmatch(starts):
        child.table["enabled"] = starts
        child.lose("autostart: of the words of the variable, only true and false are read here")
    elif _is_off(starts):
        child.table["enabled"] = False
    restart = option("autorestart", "unexpected").lower()
    restart = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}.get(
        restart, restart
    )
    child.table["policy"] = _POLICIES.get(restart, "restart-on-failure")
    if restart not in _POLICIES:
        child.lose(f"autorestart = {restart}: it is taken for unexpected")
    retries = option("startretries")
    if restart != "false" and retries.isascii() and retries.isdigit() and int(retries[:9]) > 0:
        child.table["restarts"] = {"max": int(retries[:9])}
        child.note("startretries counts starts that fail; restarts counts every restart within its window")
    elif retries and restart != "false":
        child.lose(f"startretries = {retries}: restarts counts every restart, not starts that fail")
    codes = [part.strip() for part in option("exitcodes", "0").split(",")]
    numbers = [int(code) for code in codes if code.isascii() and code.isdigit() and len(code) < 4]
    if len(numbers) < len(codes):
        child.lose(f"exitcodes = {', '.join(codes)}: not all of these are numbers")
    if restart == "unexpected" and numbers and 0 not in numbers:
        child.lose(f"exitcodes = {', '.join(codes)}: 0 is always a success here")
    if sorted({0, *numbers}) != [0]:
        child.table["success_codes"] = sorted({0, *numbers})
    if (seconds := option("startsecs")) not in ("", "0", "1"):
        child.note(f"startsecs = {seconds}: `ready` is a probe, or a time with ready = {{ after = ... }}")


def _is_off(text: str) -> bool:
    return text.lower() in ("false", "no", "off", "0")


def _stop(child: Child, option: Callable[..., str]) -> None:
    if option("stopasgroup", "false") and not _is_off(option("stopasgroup", "false")):
        child.note("stopasgroup: the child gets the signal first; what it leaves in its session, as soon as it is gone")
    signal = option("stopsignal", "TERM").strip()
    try:
        number = signames.number(signal)
    except ValueError:
        number = 0
    if number == 9:
        child.table["stop_timeout"] = "0s"
        child.note("stopsignal = KILL: TERM comes first, and KILL at once after it")
        return
    if number == 0:
        child.lose(f"stopsignal = {signal}: there is no such signal")
    elif number != 15:
        child.table["stop_signal"] = signames.name(number)
    seconds = option("stopwaitsecs", "10").strip()
    if MARK.fullmatch(seconds):
        child.table["stop_timeout"] = seconds
        return
    waits = spelled(float(seconds) * 1_000) if re.fullmatch("[0-9]{1,9}", seconds) else None
    if waits is None:
        child.lose(f"stopwaitsecs = {seconds}: it is no time")
    else:
        child.table["stop_timeout"] = waits


def _logs(child: Child, option: Callable[..., str]) -> None:
    places = {stream: option(f"{stream}_logfile", "auto").strip() for stream in ("stdout", "stderr")}
    joined = not _is_off(option("redirect_stderr", "false"))
    if joined:
        places["stderr"] = places["stdout"]
        child.note("redirect_stderr: the two streams stay apart; both are in the container's log")
    if all(place.lower() in _TO_NOWHERE for place in places.values()):
        child.table["logs"] = "none"
        return
    for stream, place in places.items():
        if joined and stream == "stderr":
            continue
        if place.lower() in _TO_NOWHERE:
            child.lose(f"{stream}_logfile = {place}: one stream alone cannot be dropped; it is in the container's log")
        elif place and not _TO_INIT.fullmatch(place):
            child.lose(f"{stream}_logfile = {place}: the lines are in the container's log, and the engine rotates that")
