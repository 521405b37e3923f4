"""bottle.toml, the operator's side of a bottle: parsed into a typed `BottleSpec`, with all faults at once.

What it says about hosts, repositories and patterns becomes the bundle's policy file; what a host pattern or a regular
expression may look like is the bundle's to judge (docs/policy.md), so the launcher does not check it a second time.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from launcher.errors import LauncherError, ManifestError
from launcher.plan import AGENT_IMAGE, BUNDLE_IMAGE, DAEMONS

DEFAULT_USER = "1000:1000"
DEFAULT_HEADER = "Authorization"
ENGINES = ("auto", "pipelock", "portable")
ID_MAX = 2**31 - 1  # The engine's own limit for the ids of users and groups.
T = TypeVar("T")
D = TypeVar("D")
EMPTY: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Credential:
    """A header that egress adds to requests to one host. Exactly one of the two sources is set."""

    name: str
    host: str
    header: str = DEFAULT_HEADER
    prefix: str = ""
    plaintext: bool = False
    from_env: str | None = None
    from_file: Path | None = None


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """The agent's container, as the operator asks for it."""

    image: str = AGENT_IMAGE
    user: str = DEFAULT_USER
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    tty: bool = False


@dataclass(frozen=True, slots=True)
class BottleSpec:
    """One manifest. `git_repos` are names with their upstreams; without one, a repository lives in the bundle alone."""

    name: str
    agent: AgentSpec = AgentSpec()
    image: str = BUNDLE_IMAGE
    daemons: tuple[str, ...] = DAEMONS
    allow: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    """Hosts of `allow` that may lead to addresses that are not globally reachable: the demonstration's."""
    upstream_ca: Path | None = None
    credentials: tuple[Credential, ...] = ()
    engine: str = "auto"
    patterns: tuple[tuple[str, str], ...] = ()
    git_repos: tuple[tuple[str, str | None], ...] = ()
    answer_timeout: str | float | None = None
    slug: str | None = None


def load(path: Path) -> BottleSpec:
    """Read a manifest.

    Raises `ManifestError` with every fault in it, `LauncherError` where the file can't be read.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LauncherError(
            f"{path}: {error.strerror if isinstance(error, OSError) else 'not a text file'}",
            hint="`python -m launcher up PATH` names another manifest; docs/launcher.md shows one",
        ) from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(str(path), (str(error),)) from None
    except (RecursionError, ValueError):  # Python's own limits, for lists in lists and for digits.
        raise ManifestError(str(path), ("nested too deep, or a number of thousands of digits",)) from None
    return parse(document, path.absolute())


def parse(document: Mapping[str, Any], path: Path) -> BottleSpec:
    """The typed form of a manifest that was read from `path`; raises `ManifestError` with every fault."""
    faults: list[str] = []
    top = _Table("", document, faults)
    spec = BottleSpec(
        name=top.take("name", _string, path.parent.name or "bottle"),
        image=top.take("image", _string, BUNDLE_IMAGE),
        daemons=top.take("daemons", _daemons, DAEMONS),
        agent=_agent(top.table("agent")),
        credentials=tuple(_credential(name, table) for name, table in top.tables("credentials")),
        **_egress(top.table("egress")),
        **_pipelock(top.table("pipelock")),
        **_git(top.table("git")),
        **_supervise(top.table("supervise")),
    )
    top.finish()
    faults += _faults_between_keys(spec)
    faults += _faults_of_place(spec, path)
    if faults:
        raise ManifestError(str(path), tuple(faults))
    return spec


def _agent(table: "_Table") -> AgentSpec:
    agent = AgentSpec(
        image=table.take("image", _string, AGENT_IMAGE),
        user=table.take("user", _user, DEFAULT_USER),
        command=table.strings("command"),
        env=table.take("env", _env, ()),
        tty=table.take("tty", _boolean, default=False),
    )
    table.finish()
    return agent


def _credential(name: str, table: "_Table") -> Credential:
    credential = Credential(
        name=name,
        host=table.take("host", _string, ""),
        header=table.take("header", _string, DEFAULT_HEADER),
        prefix=table.take("prefix", _string, ""),
        plaintext=table.take("plaintext", _boolean, default=False),
        from_env=table.take("from_env", _string, None),
        from_file=table.take("from_file", _path, None),
    )
    table.finish()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        table.fault("", "a credential's name is made of letters, digits, - and _")
    if "host" not in table.values:
        table.fault("host", "required: the host whose requests get the header")
    if ("from_env" in table.values) == ("from_file" in table.values):
        table.fault("", "needs one of from_env (a variable of yours) and from_file (a file of yours)")
    return credential


def _egress(table: "_Table") -> dict[str, Any]:
    keys = {
        "allow": table.strings("allow"),
        "upstream_ca": table.take("upstream_ca", _path, None),
    }
    table.finish()
    return keys


def _pipelock(table: "_Table") -> dict[str, Any]:
    keys = {
        "engine": table.take("engine", _one_of(ENGINES), "auto"),
        "patterns": tuple(_pattern(item) for item in table.array_of_tables("patterns")),
    }
    table.finish()
    return keys


def _pattern(table: "_Table") -> tuple[str, str]:
    pattern = (table.take("name", _string, ""), table.take("regex", _string, ""))
    for key in ("name", "regex"):
        if key not in table.values:
            table.fault(key, "required")
    table.finish()
    return pattern


def _git(table: "_Table") -> dict[str, Any]:
    repos = []
    for name, repo in table.tables("repos"):
        repos.append((name, repo.take("upstream", _string, None)))
        repo.finish()
    table.finish()
    return {"git_repos": tuple(repos)}


def _supervise(table: "_Table") -> dict[str, Any]:
    keys = {"answer_timeout": table.take("answer_timeout", _duration, None)}
    table.finish()
    return keys


def _faults_between_keys(spec: BottleSpec) -> Iterator[str]:
    """What is right by itself and wrong together."""
    for credential in spec.credentials:
        if credential.host and credential.host not in spec.allow:
            yield f"credentials.{credential.name}.host: {credential.host!r} is not listed in egress.allow"
    if "egress" not in spec.daemons:
        yield from _faults_without_egress(spec)
    if spec.git_repos and "git-gate" not in spec.daemons:
        yield "git.repos: repositories need git-gate, which `daemons` leaves out"
    if spec.answer_timeout is not None and "supervise" not in spec.daemons:
        yield "supervise: `daemons` leaves supervise out"


def _faults_without_egress(spec: BottleSpec) -> Iterator[str]:
    if "pipelock" in spec.daemons:
        yield "daemons: pipelock needs egress behind it"
    if spec.credentials:
        yield "credentials: egress adds them, which `daemons` leaves out"
    for name, upstream in spec.git_repos:
        if upstream is not None and upstream.startswith(("https://", "http://")):
            yield f"git.repos.{name}.upstream: is reached through egress, which `daemons` leaves out"


def _faults_of_place(spec: BottleSpec, path: Path) -> Iterator[str]:
    """A repository that was cloned may say what its agent needs; where the operator's secrets go it may not say."""
    path = path.resolve()
    if path.is_relative_to((Path.home() / ".claude-bottle").resolve()):
        return
    work_tree = next((parent for parent in path.parents if (parent / ".git").exists()), None)
    if work_tree and spec.credentials:
        yield f"credentials: not in a git work tree ({work_tree}); move the manifest to ~/.claude-bottle/"


class _Table:
    """One table of the manifest: hands out typed values, notes faults, and knows which keys nobody asked for."""

    def __init__(self, path: str, values: Mapping[str, Any], faults: list[str]) -> None:
        self.path = path
        self.values = values
        self._faults = faults
        self._asked: set[str] = set()

    def fault(self, key: str, message: str) -> None:
        """Note a fault of a key, or of the table itself (an empty key)."""
        self._faults.append(f"{'.'.join(part for part in (self.path, key) if part)}: {message}")

    def take(self, key: str, convert: Callable[[Any], T], default: D) -> T | D:
        """The converted value; the default where the key is absent or the value wrong (and noted)."""
        self._asked.add(key)
        if key not in self.values:
            return default
        try:
            return convert(self.values[key])
        except ValueError as error:
            self.fault(key, str(error))
            return default

    def table(self, key: str) -> "_Table":
        """A table in this one; an absent one is empty."""
        values = self.take(key, _mapping, EMPTY)
        return _Table(f"{self.path}.{key}" if self.path else key, values, self._faults)

    def tables(self, key: str) -> list[tuple[str, "_Table"]]:
        """The tables of a table: `[key.NAME]`; what is none is noted and left out."""
        outer = self.table(key)
        found = [(name, outer.table(name)) for name in outer.values]
        return [(name, table) for name, table in found if isinstance(outer.values[name], dict)]

    def array_of_tables(self, key: str) -> list["_Table"]:
        """`[[key]]`, each with its index in its path."""
        return [_Table(f"{self.path}.{at}", values, self._faults) for at, values in self._items(key, _mapping)]

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(text for _, text in self._items(key, _string))

    def _items(self, key: str, convert: Callable[[Any], T]) -> Iterator[tuple[str, T]]:
        """The items of a list, each with its key (`allow[1]`); one that is wrong is noted and left out."""
        for index, item in enumerate(self.take(key, _list, ())):
            try:
                yield f"{key}[{index}]", convert(item)
            except ValueError as error:
                self.fault(f"{key}[{index}]", str(error))

    def finish(self) -> None:
        """Note every key that nothing has asked for."""
        for key in self.values:
            if key not in self._asked:
                self.fault(key, f"unknown key; known here: {', '.join(sorted(self._asked))}")


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a table is needed, not {value!r}")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"a list is needed, not {value!r}")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"a string that is not empty is needed, not {value!r}")
    return value


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(_string(item) for item in _list(value))


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false is needed, not {value!r}")
    return value


def _path(value: Any) -> Path:
    path = Path(_string(value)).expanduser()
    if not path.is_absolute():
        raise ValueError(f"an absolute path or one that begins with ~ is needed, not {value!r}")
    return path


def _user(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,20}(:[0-9]{1,20})?", value):
        raise ValueError(f'"UID" or "UID:GID" in numbers is needed, not {value!r}')
    ids = [int(part) for part in value.split(":")]
    if 0 in ids:
        raise ValueError("an agent does not run as root")
    if max(ids) > ID_MAX:
        raise ValueError(f"{value!r} is beyond the engine's greatest id, {ID_MAX}")
    return value


def _env(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = _mapping(value)
    for name, content in pairs.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is no name for a variable")
        if not isinstance(content, str) or "\0" in content:
            raise ValueError(f"{name}: a string is needed, not {content!r}")
    return tuple(pairs.items())


def _daemons(value: Any) -> tuple[str, ...]:
    names = _strings(value)
    unknown = [name for name in names if name not in DAEMONS]
    if unknown or not names:
        raise ValueError(f"a list of {', '.join(DAEMONS)} is needed, not {value!r}")
    return tuple(daemon for daemon in DAEMONS if daemon in names)


def _duration(value: Any) -> str | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f'a duration ("60s") or a number of seconds is needed, not {value!r}')
    return value


def _one_of(names: tuple[str, ...]) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value not in names:
            raise ValueError(f"one of {', '.join(names)} is needed, not {value!r}")
        return str(value)

    return convert
