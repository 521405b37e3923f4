"""From an s6-rc source directory (skarnet.org/software/s6-rc/s6-rc-compile.html), with what s6-overlay adds to it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

from bottle_init.convert import shell
from bottle_init.convert.draft import UNLIMITED_RESTARTS, Child, Draft, Unconvertible
from bottle_init.convert.files import Unreadable, read_file
from bottle_init.convert.scalars import spelled, whole
from bottle_init.core.words import DAEMON, ONESHOT
from bottle_init.words import signames

TOOL: Final = "s6-rc source directory"

_IN_IMAGE: Final = re.compile(r".*?(/etc/(?:s6-overlay/s6-rc\.d|s6-rc(?:/[^/]+)?)(?:/.*)?)")
_OF_OVERLAY: Final = ("base", "fix-attrs", "legacy-cont-init", "legacy-services", "init-preservedconf", "s6-overlay")
_TOP: Final = ("user", "default", "top")
"""The bundles that s6-overlay, or a usual stage 2, brings up."""

_SHELLS: Final = ("sh", "bash", "ash", "dash")
_EXECLINE: Final = (
    *("backtick", "case", "define", "elgetopt", "elglob", "emptyenv", "envfile", "export", "exec", "fdblock"),
    *("fdclose", "fdmove", "fdreserve", "fdswap", "forbacktickx", "foreground", "background", "forx", "forstdin"),
    *("getcwd", "getpid", "heredoc", "homeof", "if", "ifelse", "ifte", "ifthenelse", "importas", "loopwhilex"),
    *("multidefine", "multisubstitute", "pipeline", "piperw", "redirfd", "runblock", "shift", "trap", "tryexec"),
    *("umask", "unexport", "wait", "withstdinas", "posix-cd", "posix-umask", "execline-cd", "execlineb"),
)
_PROGRAM_OF_S6: Final = re.compile(r"(?<![\w./-])(?:/command/)?(s6-[a-z-]+|with-contenv|execlineb)(?![\w./-])")
_HALTS: Final = re.compile(r"/run/s6/basedir/bin/halt|s6-svscanctl\s+-\w*[tq]|\bs6-linux-init-shutdown\b|\bhalt\b")
_LOGGERS: Final = re.compile(r"\bs6-log\b|logutil-service")


class Script:
    """What a `run`, an `up` or a script that it names does, as far as that is a plain command.

    `words` is the command, empty where it is more than that; `user` and `cwd` come from what is around it. `check` is
    the command that it waits for until it is ready, None for none, and `check_ms` how long for.
    """

    def __init__(self) -> None:
        self.words: list[str] = []
        self.user = ""
        self.cwd = ""
        self.env: dict[str, str] = {}
        self.check: list[str] | None = None
        self.check_ms = 0

    def read_words(self, words: list[str]) -> bool:
        """Take the programs that run another one off its front. False where one of them is not known here."""
        while words:
            name = words[0].rpartition("/")[2]
            if name in ("with-contenv", "exec"):
                words = words[1:]
            elif name == "s6-setuidgid" and len(words) > 2:
                self.user, words = words[1], words[2:]
            elif name == "cd" and len(words) > 2:
                self.cwd, words = words[1], words[2:]
            elif name == "fdmove" and words[1:4] == ["-c", "2", "1"]:
                words = words[4:]
            elif name == "s6-notifyoncheck":
                words = self._read_check(words[1:])
            elif name in _EXECLINE or name.startswith("s6-"):
                return False
            else:
                break
        self.words = words
        return bool(words) and not any(word in ("{", "}") for word in words)

    def _read_check(self, words: list[str]) -> list[str]:
        """Take the options of s6-notifyoncheck off; without -c the check is the script data/check."""
        said = {"-s": "10", "-n": "7", "-w": "1000", "-t": "0", "-T": "0", "-c": ""}
        while words and words[0].startswith("-"):
            option, words = words[0], words[1:]
            if option != "-d" and words:
                said[option], words = words[0], words[1:]
        sleep_ms, tries, pause_ms, each_ms, whole_ms = (whole(said[key]) or 0 for key in ("-s", "-n", "-w", "-t", "-T"))
        self.check_ms = whole_ms or sleep_ms + tries * (pause_ms + each_ms)
        self.check = _execline_words(said["-c"])
        return words


def is_source(directory: Path) -> Path | None:
    """The source directory in or below a directory, None where there is none."""
    for below in ("", "etc/s6-overlay/s6-rc.d", "s6-overlay/s6-rc.d", "s6-rc.d", "etc/s6-rc/source"):
        place = directory / below
        try:
            if any((each / "type").is_file() for each in place.iterdir() if each.is_dir()):
                return place
        except OSError:
            continue
    return None


def convert(directory: Path, source: str) -> Draft:
    """The draft of a source directory. Raises Unconvertible."""
    draft = Draft(source, TOOL)
    tree = _Tree(directory, draft)
    kept = {name for name in tree.types if tree.types[name] != "bundle" and not tree.is_consumer(name)}
    children = {}
    for name in sorted(kept):
        kind = {"longrun": DAEMON, "oneshot": ONESHOT}.get(tree.types[name])
        if kind is None:
            raise Unconvertible(f"{name}/type", f"must be longrun, oneshot or bundle, is {tree.types[name]!r}")
        child = children[name] = draft.child(name, kind, name)
        (_fill_longrun if kind == DAEMON else _fill_oneshot)(tree, child, name)
        _note_rest(tree, child, name)
    for name, child in children.items():
        _connect(tree, child, name, children)
    _enable(tree, children)
    _note_pipelines(tree, draft, children)
    draft.bundle["policy"] = "restart"
    draft.bundle["backoff"] = {"initial": "1s", "factor": 1, "limit": "1s"}
    draft.bundle["restarts"] = {"max": UNLIMITED_RESTARTS}
    draft.note(
        "s6 restarts once a second and never gives up; a smaller `max` ends the bundle when a daemon keeps failing"
    )
    return draft


class _Tree:
    """The files of a source directory."""

    def __init__(self, directory: Path, draft: Draft) -> None:
        self.directory = directory
        self.draft = draft
        found = str(directory.resolve())
        match = _IN_IMAGE.fullmatch(found)
        self.in_image = match[1] if match else found
        self.root = Path(found.removesuffix(self.in_image) or "/") if match else None
        try:
            names = sorted(each.name for each in directory.iterdir() if each.is_dir() and not each.name.startswith("."))
        except OSError as problem:
            raise Unconvertible("", f"cannot be read: {problem.strerror}") from None
        self.types = {name: self.word(name, "type") for name in names if (directory / name / "type").is_file()}

    def text(self, *parts: str) -> str | None:
        """The text of a file below the directory, None where there is none."""
        return _text(self.directory.joinpath(*parts), "/".join(parts))

    def word(self, *parts: str) -> str:
        """The first line of a file, "" where there is none."""
        text = self.text(*parts)
        return text.strip().partition("\n")[0].strip() if text else ""

    def listed(self, name: str, what: str) -> list[str]:
        """The names in `what`, a file, and in `what.d`, a directory."""
        lines = (self.text(name, what) or "").splitlines()
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        directory = self.directory / name / f"{what}.d"
        try:
            found += sorted(each.name for each in directory.iterdir())
        except OSError:
            pass
        return found

    def members(self, name: str, seen: frozenset[str] = frozenset()) -> list[str]:
        """A service itself, or all that a bundle contains."""
        if self.types.get(name) != "bundle":
            return [name]
        if name in seen:
            return []
        return [each for below in self.listed(name, "contents") for each in self.members(below, seen | {name})]

    def needs(self, name: str) -> list[str]:
        """What a service depends on, bundles taken apart."""
        return [each for other in self.listed(name, "dependencies") for each in self.members(other)]

    def is_consumer(self, name: str) -> bool:
        """Whether it reads what another one writes."""
        return bool(self.listed(name, "consumer-for"))

    def script(self, path: str) -> str | None:
        """The text of a script by its path in the image, None where it is not in this tree."""
        if self.root is None or not path.startswith("/"):
            return None
        try:
            place = (self.root / path[1:]).resolve()
            return _text(place, path) if place.is_relative_to(self.root) and place.is_file() else None
        except (OSError, ValueError):
            return None


def _text(path: Path, shown: str) -> str | None:
    try:
        return read_file(path)
    except Unreadable as problem:
        if problem.is_missing:
            return None
        raise Unconvertible(shown, f"cannot be read: {problem}") from None


def _read_script(text: str) -> tuple[Script | None, list[str]]:
    """What a script does, None where it is more than one command; and the words that interpret it."""
    first, _, rest = text.partition("\n")
    words = first[2:].split() if first.startswith("#!") else []
    while words and words[0].rpartition("/")[2] in ("env", "with-contenv"):
        words = words[2:] if words[1:2] == ["-S"] else words[1:]
    interpreter = [words[0].rpartition("/")[2], *words[1:]] if words else ["sh"]
    script = Script()
    if interpreter[0] == "execlineb":
        return (script if script.read_words(_execline_words(rest)) else None), ["execlineb", "-P"]
    plain = interpreter[0] in _SHELLS and _read_shell(script, rest)
    return (script if plain else None), interpreter


def _execline_words(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    try:
        return shlex.split("\n".join(lines))
    except ValueError:
        return []


def _read_shell(script: Script, text: str) -> bool:
    """Whether a shell script comes down to one `exec`, after at most a `cd`."""
    joined = text.replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if line.strip() and not line.strip().startswith("#")]
    lines = [line for line in lines if line != "exec 2>&1" and not re.fullmatch(r"set -[a-z]+(?: pipefail)?", line)]
    if len(lines) == 2 and (change := re.fullmatch(r"cd ([^\s$`;&|*?]+)(?: \|\| exit.*)?", lines[0])):
        script.cwd = change[1].strip("'\"")
        del lines[0]
    if len(lines) != 1 or not lines[0].startswith("exec "):
        return False
    line = re.sub(r"\s+2>&1$", "", lines[0])
    words, variables = shell.command_of(line)
    if words[:2] == ["sh", "-c"]:
        return False
    script.env = variables
    return script.read_words(words)


def _apply(tree: _Tree, child: Child, text: str, path: str) -> None:
    """The command of a script at `path` in the image: what it comes down to, or itself with its interpreter."""
    script, interpreter = _read_script(text)
    if script is None:
        child.command([*interpreter, path])
        used = sorted(set(_PROGRAM_OF_S6.findall(text.partition("\n")[2])))
        if interpreter[0] == "execlineb":
            used = ["execlineb", *used]
        if used:
            child.lose(f"{path} needs {', '.join(dict.fromkeys(used))} of s6 and execline in the image")
        else:
            child.note(f"{path} has to be in the image")
        return
    if len(script.words) == 1 and (below := tree.script(script.words[0])) is not None and script.words[0] != path:
        _apply(tree, child, below, script.words[0])
    else:
        child.command(script.words)
    child.env(script.env.items())
    for key, value in (("user", script.user), ("cwd", script.cwd)):
        if value:
            child.table[key] = value
    if script.check is not None:
        _ready_by_check(tree, child, script.check, script.check_ms)


def _ready_by_check(tree: _Tree, child: Child, check: list[str], limit_ms: int) -> None:
    """The check of s6-notifyoncheck is a probe; with none of its own it is data/check."""
    if not check and tree.text(child.place, "data", "check") is None:
        child.lose("s6-notifyoncheck: there is no data/check; write a `ready` probe")
        return
    if not check:
        child.note("data/check has to be in the image; it runs in the directory of its daemon")
    limit = spelled(limit_ms) if limit_ms > 0 else None
    child.table["ready"] = {"exec": check or [f"{tree.in_image}/{child.place}/data/check"]}
    if limit is not None:
        child.table["ready"]["timeout"] = limit


def _fill_longrun(tree: _Tree, child: Child, name: str) -> None:
    text = tree.text(name, "run")
    if text is None:
        raise Unconvertible(f"{name}/run", "a longrun needs one")
    _apply(tree, child, text, f"{tree.in_image}/{name}/run")
    finish = tree.text(name, "finish")
    if finish is not None and _HALTS.search(finish):
        child.table["policy"] = "exit-on-child-death"
        child.note("finish ends the container: so does exit-on-child-death, with the exit code of the daemon")
    elif finish is not None:
        child.lose("finish: no script runs after a death")
    if (signal := tree.word(name, "down-signal")) != "":
        _down_signal(child, signal)
    if (number := tree.word(name, "notification-fd")) and "ready" not in child.table:
        child.lose(
            f"notification-fd {number}: a newline on a descriptor is not seen; ready = {{ notify = true }} takes"
            " READY=1 on NOTIFY_SOCKET (sd_notify), and a probe asks"
        )
    kill = _milliseconds(child, "timeout-kill", tree.word(name, "timeout-kill"))
    if kill is not None:
        child.table["stop_timeout"] = kill
    else:
        child.note("stop_timeout is the default: s6 waits for as long as it takes, s6-overlay for its grace times")
    limit = _milliseconds(child, "timeout-up", tree.word(name, "timeout-up"))
    if limit is not None and "ready" in child.table:
        child.table["ready"]["timeout"] = limit


def _down_signal(child: Child, signal: str) -> None:
    try:
        number = signames.number(signal)
    except ValueError:
        child.lose(f"down-signal {signal}: there is no such signal")
        return
    if number == 9:
        child.table["stop_timeout"] = "0s"
        child.note("down-signal KILL: TERM comes first, and KILL at once after it")
    else:
        child.table["stop_signal"] = signames.name(number)


def _milliseconds(child: Child, key: str, word: str) -> str | None:
    """A time of s6-rc's, None for none and for 0, which means no limit."""
    if not word:
        return None
    number = whole(word)
    found = spelled(number) if number is not None else None
    if found is None:
        child.lose(f"{key} {word}: it is no number of milliseconds")
    return found if number else None


def _fill_oneshot(tree: _Tree, child: Child, name: str) -> None:
    text = tree.text(name, "up")
    if text is None:
        raise Unconvertible(f"{name}/up", "a oneshot needs one")
    path = f"{tree.in_image}/{name}/up"
    if not _execline_words(text):
        child.command(["true"])
        child.note("up does nothing: it is there to be waited for")
    elif text.startswith("#!") and "execlineb" not in text.partition("\n")[0]:
        child.lose(
            "up: s6-rc reads it as a line of execline, whatever its first line says; here its interpreter runs it"
        )
        _apply(tree, child, text, path)
    else:
        _apply(tree, child, text if text.startswith("#!") else f"#!execlineb -P\n{text}", path)
    if tree.text(name, "down") is not None and _execline_words(tree.text(name, "down") or "") not in ([], ["true"]):
        child.lose("down: nothing runs at a stop; a daemon's own handler of its stop signal can do it")
    limit = _milliseconds(child, "timeout-up", tree.word(name, "timeout-up"))
    if limit is not None:
        child.table["timeout"] = limit


def _note_rest(tree: _Tree, child: Child, name: str) -> None:
    directory = tree.directory / name
    if (directory / "flag-essential").exists():
        child.note("flag-essential: `ctl stop` stops every child that it names")
    if (directory / "nosetsid").exists():
        child.lose("nosetsid: each child is in a session of its own")
    if (directory / "env").is_dir():
        child.lose("env: a directory of variables is not read; `env` or `env_files` take them")
    if tree.word(name, "max-death-tally"):
        child.note("max-death-tally: `restarts` says how many are too many")


def _connect(tree: _Tree, child: Child, name: str, children: dict[str, Child]) -> None:
    for other in dict.fromkeys(tree.needs(name)):
        if other in children:
            child.after([children[other].name])
        elif other not in tree.types and other not in _OF_OVERLAY:
            child.lose(f"dependency on {other}: it is not in this directory")


def _enable(tree: _Tree, children: dict[str, Child]) -> None:
    """Where there is a bundle of all that is brought up, the rest is not started."""
    todo = [each for top in _TOP if tree.types.get(top) == "bundle" for each in tree.members(top)]
    if not todo:
        return
    for name in todo:
        if name not in tree.types and name not in _OF_OVERLAY:
            tree.draft.lose(f"{name}: a bundle names it, and it is not in this directory")
    started: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in started:
            started.add(name)
            todo.extend(tree.needs(name))
            todo.extend(tree.listed(name, "producer-for"))
    for name, child in children.items():
        if name not in started:
            child.note("no bundle that is brought up has it")
            if child.kind == ONESHOT:
                child.note("it does not run: others that are after it do not wait")
            child.table["enabled"] = False


def _note_pipelines(tree: _Tree, draft: Draft, children: dict[str, Child]) -> None:
    for name in tree.types:
        producers = [each for each in tree.listed(name, "consumer-for") if each in tree.types]
        if not producers:
            continue
        what = "a logger" if _LOGGERS.search(tree.text(name, "run") or "") else "the reader of a pipeline"
        for producer in producers:
            said = f"{name}: {what} is left out; what {producer} writes is in the container's log"
            if producer in children:
                children[producer].lose(said)
            else:
                draft.lose(said)
