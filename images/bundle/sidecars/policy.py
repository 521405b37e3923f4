"""The policy file: its schema, its faults. docs/policy.md is what users read of it.

`load` returns a `Policy` that is valid as a whole, or raises `PolicyError` with every fault of the file.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from sidecars.dlp import BUILT_IN, Pattern, check_regex
from sidecars.hosts import Allowlist, Rule, normalize, split_port

DEFAULT_PATH = Path("/etc/bottle/policy.toml")
ENGINES = ("auto", "pipelock", "portable")
EX_CONFIG = 78

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PATTERN_NAME = re.compile(r"[A-Za-z0-9_-]+")
_REPOSITORY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", re.ASCII)
# Connection-specific headers belong to one hop (RFC 9110, 7.6.1), and Host says where the request goes.
_NOT_INJECTABLE = frozenset(
    {"connection", "content-length", "host", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)


class PolicyError(Exception):
    """A policy file that can't be used. `faults` are lines for people, each with the fault's path in the file."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        self.faults = [f"{path}: {fault}" for fault in faults]
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True, slots=True)
class Credential:
    """A header that egress sets and the agent never sees."""

    host: str
    port: int | None
    header: str
    value_file: Path
    plaintext: bool = False

    def applies_to(self, host: str, port: int) -> bool:
        """Whether requests to `host` (normalized) at `port` are this credential's."""
        return host == self.host and (port == self.port if self.port is not None else port in (80, 443))


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository that git-gate serves."""

    name: str
    upstream: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a bottle may do. The default allows nothing."""

    allowlist: Allowlist = field(default_factory=Allowlist)
    upstream_ca: Path | None = None
    credentials: tuple[Credential, ...] = ()
    engine: str = "auto"
    patterns: tuple[Pattern, ...] = BUILT_IN
    git_directory: Path = Path("/run/bottle/git")
    repositories: tuple[Repository, ...] = ()
    answer_timeout_s: float = 60.0
    allowed_hosts: tuple[str, ...] = ("sidecars",)


class _Reader:
    """Takes keys out of a table, and remembers every fault instead of raising at the first."""

    def __init__(self, table: Mapping[str, Any], path: str, faults: list[str]) -> None:
        self.table, self.path, self.faults = table, path, faults
        self._known: set[str] = set()

    def where(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def fault(self, key: str, message: str) -> None:
        self.faults.append(f"{self.where(key)}: {message}")

    def get(self, key: str, kind: type | tuple[type, ...], name: str, *, required: bool = False) -> Any:
        """The key's value where it has the type; `None`, and a fault if it had another, where it hasn't."""
        self._known.add(key)
        if key not in self.table:
            if required:
                self.fault(key, "is missing")
            return None
        value = self.table[key]
        # A boolean is an int to Python, and to nobody else.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.fault(key, f"{value!r} is not {name}")
            return None
        return value

    def sub(self, key: str) -> _Reader:
        """The table `key`, or an empty one."""
        return _Reader(self.get(key, dict, "a table") or {}, self.where(key), self.faults)

    def tables(self, key: str) -> list[_Reader]:
        """The array of tables `key`, or none."""
        readers = []
        for index, item in enumerate(self.get(key, list, "an array of tables") or []):
            where = f"{self.where(key)}[{index}]"
            if isinstance(item, dict):
                readers.append(_Reader(item, where, self.faults))
            else:
                self.faults.append(f"{where}: {item!r} is not a table")
        return readers

    def strings(self, key: str) -> list[tuple[int, str]]:
        """The list of strings `key` as (index, string), without what is no string."""
        items = self.get(key, list, "a list of strings") or []
        for index, item in enumerate(items):
            if not isinstance(item, str):
                self.fault(f"{key}[{index}]", f"{item!r} is not a string")
        return [(index, item) for index, item in enumerate(items) if isinstance(item, str)]

    def absolute_path(self, key: str, *, required: bool = False) -> Path | None:
        value = self.get(key, str, "a path", required=required)
        if value is None:
            return None
        if not value.startswith("/"):
            self.fault(key, f"{value!r} is not an absolute path")
            return None
        return Path(value)

    def finish(self) -> None:
        """Reports the keys that nobody asked for."""
        for key in self.table:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                self.fault(key, "unknown key" + (f"; did you mean {near[0]!r}?" if near else ""))


def parse_duration_s(value: str | float) -> float:
    """Seconds of `"1m30s"`, `"500ms"` or a number of seconds. Raises `ValueError`."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None or not value:
            raise ValueError(f'{value!r} is not a duration such as "500ms", "8s" or "1m30s"')
        hours, minutes, seconds, milliseconds = (float(group or 0) for group in match.groups())
        return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    if not 0 <= value < float("inf"):
        raise ValueError(f"{value!r} is not a duration: it must be finite and not negative")
    return float(value)


def _allowlist(reader: _Reader) -> Allowlist:
    rules = []
    for index, text in reader.strings("allow"):
        try:
            rules.append(Rule.parse(text))
        except ValueError as error:
            reader.fault(f"allow[{index}]", f"{text!r}: {error}")
    return Allowlist(tuple(rules))


def _credential(reader: _Reader, allowlist: Allowlist) -> Credential | None:
    host_text = reader.get("host", str, "a string", required=True)
    header = reader.get("header", str, "a string", required=True)
    value_file = reader.absolute_path("value_file", required=True)
    plaintext = reader.get("plaintext", bool, "a boolean") or False
    reader.finish()
    if header is not None and not _HEADER_NAME.fullmatch(header):
        reader.fault("header", f"{header!r} is not a header's name")
    elif header is not None and header.lower() in _NOT_INJECTABLE:
        reader.fault("header", f"{header!r} belongs to the connection and cannot be injected")
    if host_text is None:
        return None
    try:
        host, port = split_port(host_text)
        host = normalize(host)
    except ValueError as error:
        reader.fault("host", str(error))
        return None
    if not any(allowlist.allows(host, p) for p in ((port,) if port else (443, 80))):
        reader.fault("host", f"{host_text!r} is not allowed by egress.allow")
    if header is None or value_file is None:
        return None
    return Credential(host, port, header, value_file, plaintext)


def _credentials(reader: _Reader, allowlist: Allowlist) -> tuple[Credential, ...]:
    credentials: list[Credential] = []
    for item in reader.tables("credentials"):
        credential = _credential(item, allowlist)
        if credential is None:
            continue
        key = (credential.host, credential.port, credential.header.lower())
        if any(key == (other.host, other.port, other.header.lower()) for other in credentials):
            item.fault("header", f"{credential.header!r} is set twice for {credential.host}")
        credentials.append(credential)
    return tuple(credentials)


def _patterns(reader: _Reader) -> tuple[Pattern, ...]:
    patterns = list(BUILT_IN)
    for item in reader.tables("patterns"):
        name = item.get("name", str, "a string", required=True)
        regex = item.get("regex", str, "a string", required=True)
        item.finish()
        if name is not None and not _PATTERN_NAME.fullmatch(name):
            item.fault("name", f"{name!r} is not a name ([A-Za-z0-9_-]+)")
        elif name is not None and any(name == pattern.name for pattern in patterns):
            item.fault("name", f"{name!r} is taken by another pattern")
        if regex is not None and (wrong := check_regex(regex)):
            item.fault("regex", wrong)
        elif name is not None and regex is not None:
            patterns.append(Pattern(name, regex))
    return tuple(patterns)


def check_upstream(url: str, allowlist: Allowlist) -> str | None:
    """What is wrong with a repository's upstream, in words for the operator; `None` where nothing is."""
    if url.startswith("/"):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return f"{url!r} is not a URL: {error}"
    if parts.scheme == "file":
        return None if url.startswith("file:///") else f"{url!r}: a file URL has the form file:///PATH"
    if parts.scheme not in ("https", "http", "git"):
        return f"{url!r}: an upstream is an https, http, git or file URL, or an absolute path"
    if "@" in parts.netloc:
        return "a URL with credentials in it; let egress inject them: egress.credentials"
    try:
        normalize(host or "")
    except ValueError:
        return f"{url!r} names no host"
    port = port or {"https": 443, "http": 80}.get(parts.scheme, 9418)
    if parts.scheme != "git" and not allowlist.allows(host or "", port):
        return f"{host}:{port} is not allowed by egress.allow, through which git-gate reaches it"
    return None


def _repositories(reader: _Reader, allowlist: Allowlist) -> tuple[Repository, ...]:
    repositories: list[Repository] = []
    for name in reader.table:
        item = reader.sub(name)
        upstream = item.get("upstream", str, "a string")
        item.finish()
        if not _REPOSITORY_NAME.fullmatch(name) or name.endswith((".git", ".lock")) or ".." in name:
            reader.fault(name, "is not a repository's name ([A-Za-z0-9][A-Za-z0-9._-]*, without .git)")
        elif upstream is not None and (wrong := check_upstream(upstream, allowlist)):
            item.fault("upstream", wrong)
        else:
            repositories.append(Repository(name, upstream))
    return tuple(repositories)


def _answer_timeout_s(reader: _Reader) -> float:
    value = reader.get("answer_timeout", (str, int, float), "a duration")
    if value is None:
        return Policy().answer_timeout_s
    try:
        return parse_duration_s(value)
    except ValueError as error:
        reader.fault("answer_timeout", str(error))
        return 0.0


def _allowed_hosts(reader: _Reader) -> tuple[str, ...]:
    if "allowed_hosts" not in reader.table:
        reader.get("allowed_hosts", list, "a list of strings")
        return Policy().allowed_hosts
    hosts = []
    for index, text in reader.strings("allowed_hosts"):
        try:
            host, port = split_port(text)
            hosts.append(normalize(host) + (f":{port}" if port else ""))
        except ValueError as error:
            reader.fault(f"allowed_hosts[{index}]", str(error))
    return tuple(hosts)


def parse(document: Mapping[str, Any], path: Path = DEFAULT_PATH) -> Policy:
    """The policy that `document` (a TOML file's content) states. Raises `PolicyError` with all of its faults."""
    faults: list[str] = []
    root = _Reader(document, "", faults)
    egress, pipelock, git, supervise = (root.sub(key) for key in ("egress", "pipelock", "git", "supervise"))
    allowlist = _allowlist(egress)
    engine = pipelock.get("engine", str, "a string") or "auto"
    if engine not in ENGINES:
        pipelock.fault("engine", f"{engine!r} is none of {', '.join(map(repr, ENGINES))}")
    policy = Policy(
        allowlist=allowlist,
        upstream_ca=egress.absolute_path("upstream_ca"),
        credentials=_credentials(egress, allowlist),
        engine=engine,
        patterns=_patterns(pipelock),
        git_directory=git.absolute_path("directory") or Policy().git_directory,
        repositories=_repositories(git.sub("repos"), allowlist),
        answer_timeout_s=_answer_timeout_s(supervise),
        allowed_hosts=_allowed_hosts(supervise),
    )
    for reader in (root, egress, pipelock, git, supervise):
        reader.finish()
    if faults:
        raise PolicyError(path, faults)
    return policy


def default_path() -> Path:
    """`$BOTTLE_POLICY`, else /etc/bottle/policy.toml."""
    return Path(os.environ.get("BOTTLE_POLICY") or DEFAULT_PATH)


def load(path: Path | None = None) -> Policy:
    """Reads the policy file: `path`, else the default one.

    Raises `PolicyError`, also for a file that is missing, unreadable or not TOML.
    """
    path = path or default_path()
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise PolicyError(path, [error.strerror or str(error)]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(path, [f"not TOML: {error}"]) from error
    except (RecursionError, ValueError) as error:  # Python's own limits, for lists in lists and for digits.
        raise PolicyError(path, ["nested too deep, or a number of thousands of digits"]) from error
    return parse(document, path)


def describe(policy: Policy) -> Mapping[str, int | str]:
    """The policy's size, for a log line: never a name of a secret, never a value."""
    return MappingProxyType(
        {
            "allow": len(policy.allowlist.rules),
            "credentials": len(policy.credentials),
            "patterns": len(policy.patterns),
            "repositories": len(policy.repositories),
            "engine": policy.engine,
        }
    )


def or_exit(load_policy: Callable[[], Policy] = load) -> Policy:
    """`load`, for a program's first line: faults go to stderr, and the program ends with 78 (EX_CONFIG)."""
    try:
        return load_policy()
    except PolicyError as error:
        print(error, file=sys.stderr)
        raise SystemExit(EX_CONFIG) from None


def main() -> None:
    """`bottle-policy [FILE]`: checks a policy file."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    policy = or_exit(lambda: load(path))
    print("valid:", ", ".join(f"{key} {value}" for key, value in describe(policy).items()))


if __name__ == "__main__":
    main()
