"""From a policy file's content to a `Policy`, or to every fault of it with its path (docs/policy.md)."""

from __future__ import annotations

import re
from functools import partial

from bottle_init.bundle.readers import boolean, choice, duration_ms, integer, list_of, positive_ms, text
from bottle_init.bundle.source import Wrong
from bottle_init.bundle.table import Table, join, listed, quoted, shown, table
from sidecars.dlp import BUILT_IN, Pattern, check_regex
from sidecars.hosts import Rule, normalize, split_port
from sidecars.policy import model
from sidecars.policy.model import GIT, KIB, METHODS, MIB, Credential, Host, Limits, Policy, Push, Repository
from sidecars.policy.upstreams import upstream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Final, TypeVar

    from bottle_init.bundle.source import Faults

    T = TypeVar("T")

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PATTERN_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_REPOSITORY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SIZE: Final = re.compile(r"([0-9]+)(B|KiB|MiB|GiB|TiB)")
_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_LARGEST: Final = 1 << 50
# Segments that a server may read as something else than what is compared here.
_AMBIGUOUS: Final = re.compile(r"//|/\.{1,2}(?:/|$)|%2[ef]|%5c|[\\?#]", re.IGNORECASE)
# Connection-specific headers belong to one hop (RFC 9110, 7.6.1), and Host says where the request goes.
_NOT_INJECTABLE: Final = frozenset(
    {
        *("connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    }
)
_PLACEHOLDER_MIN: Final = 8
EGRESS_KEYS: Final = ("allow", "hosts", "upstream_ca", "scan_limit", "credentials")
LIMIT_KEYS: Final = tuple(name.removesuffix("_ms") for name in Limits.__match_args__)
HOST_KEYS: Final = ("host", "for", "methods", "paths", "private", "on_secret", "idle")
CREDENTIAL_KEYS: Final = ("name", "host", "header", "value_file", "for", "methods", "paths", "plaintext", "placeholder")
REPOSITORY_KEYS: Final = ("upstream", "private", "ssh_key", "known_hosts", "push")
PUSH_KEYS: Final = ("branches", "tags", "force", "delete")


# Readers of single values.


def size(value: object) -> int:
    """`"64KiB"`, or a number of bytes."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None:
            raise Wrong(f'must be a size such as "64KiB", "8MiB" or "1GiB", is {shown(value)}')
        value = int(match[1][:20]) * _UNITS[match[2]]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST:
        raise Wrong(f'must be a size such as "64KiB", or a number of bytes above 0, is {shown(value)}')
    return value


def size_between(low: int, high: int) -> Callable[[object], int]:
    """A size within bounds that belong to it."""

    def read(value: object) -> int:
        found = size(value)
        if not low <= found <= high:
            raise Wrong(f"must be from {spelled(low)} to {spelled(high)}, is {shown(value)}")
        return found

    return read


def spelled(count: int) -> str:
    """A size as the file would write it: 65536 as `64KiB`."""
    unit = next(unit for unit in reversed(_UNITS) if count % _UNITS[unit] == 0)
    return f"{count // _UNITS[unit]}{unit}"


def absolute_path(value: object) -> str:
    """A path that means the same from any working directory."""
    path = text(value)
    if not path.startswith("/"):
        raise Wrong(f"must be an absolute path, is {shown(value)}")
    return path


def host_and_port(value: object) -> tuple[str, int | None]:
    """`HOST[:PORT]`, normalized. No wildcard."""
    try:
        host, port = split_port(text(value))
        return normalize(host), port
    except ValueError as error:
        raise Wrong(str(error)) from None


def pattern_of_hosts(value: object) -> Rule:
    """`HOST[:PORT]` or `*.DOMAIN[:PORT]`."""
    try:
        return Rule.parse(text(value))
    except ValueError as error:
        raise Wrong(f"{quoted(str(value))}: {error}") from None


def consumers(value: object) -> tuple[str, ...]:
    """Who may use it: some of `"agent"`, `"git"`."""
    return _some(value, choice(model.CONSUMERS), "consumers")


def methods(value: object) -> tuple[str, ...]:
    """HTTP methods, as they are sent: upper and lower case are different ones (RFC 9110, 9.1)."""
    return _some(value, _method, "methods")


def _method(value: object) -> str:
    method = text(value)
    if not _TOKEN.fullmatch(method):
        raise Wrong(f"must be a method such as GET, is {shown(value)}")
    if method.upper() == "TRACE":
        raise Wrong("must not be TRACE: it would show the agent what egress injects")
    if method.upper() == "CONNECT":
        raise Wrong("must not be CONNECT: what a tunnel carries is judged request by request")
    if method not in METHODS and method.upper() in METHODS:
        raise Wrong(f"there is no method {quoted(method)}; did you mean {method.upper()}?")
    return method


def paths(value: object) -> tuple[str, ...]:
    """Prefixes of paths, compared segment by segment."""
    return _some(value, _path, "paths")


def _path(value: object) -> str:
    path = text(value)
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise Wrong(f"must be a path that begins with / and is written as it is sent, is {shown(value)}")
    if _AMBIGUOUS.search(path):
        raise Wrong(f"must have no empty or dot segment, no \\, ?, #, %2E, %2F or %5C in it, is {shown(value)}")
    return path


def _some(value: object, item: Callable[[object], str], what: str) -> tuple[str, ...]:
    found = list_of(item, what)(value)
    if not found:
        raise Wrong(f"must not be empty: without the key, the default holds; without the table, no {what} at all")
    return tuple(dict.fromkeys(found))


def _header(value: object) -> str:
    header = text(value)
    if not _TOKEN.fullmatch(header):
        raise Wrong(f"{quoted(header)} is not a header's name")
    if header.lower() in _NOT_INJECTABLE or header.lower().startswith("proxy-"):
        raise Wrong(f"{quoted(header)} belongs to the connection and cannot be injected")
    return header


def _word(pattern: re.Pattern[str], example: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        word = text(value)
        if not pattern.fullmatch(word):
            raise Wrong(f"{quoted(word)} is not a name ({example})")
        return word

    return read


def _placeholder(value: object) -> str:
    placeholder = text(value)
    if len(placeholder) < _PLACEHOLDER_MIN or not placeholder.isascii() or not placeholder.isprintable():
        raise Wrong(f"must be at least {_PLACEHOLDER_MIN} printable ASCII characters: it is searched for in headers")
    if placeholder != placeholder.strip():
        raise Wrong("must not begin or end with a blank")
    return placeholder


def _regex(value: object) -> str:
    regex = text(value)
    if wrong := check_regex(regex):
        raise Wrong(wrong)
    return regex


def _reference(value: object) -> str:
    """A pattern of branches or tags."""
    name = text(value)
    if re.search(r"[\x00-\x20\x7f~^:?\[\\]|\.\.|@\{|^/|/$|//|\.lock$", name) or name.startswith("refs/"):
        raise Wrong(f"must be the name of a branch or tag, with * for any characters, is {shown(value)}")
    return name


def _known_hosts(value: object) -> str:
    lines = text(value)
    if not lines.startswith("/") and not any(len(line.split()) >= 3 for line in lines.splitlines()):
        raise Wrong("must be the text of a known_hosts file (HOST TYPE KEY), or the absolute path of one")
    return lines


def _allowed_host(value: object) -> str:
    host, port = host_and_port(value)
    return f"{host}:{port}" if port else host


# Tables.


def required(reader: Table, key: str, read: Callable[[object], T]) -> T | None:
    """The key's value; `None`, with a fault noted, where it is missing or wrong."""
    if key not in reader:
        reader.fault(key, "is missing")
        return None
    return reader.read(key, read, None)


def _tables(reader: Table, key: str, faults: Faults) -> list[Table]:
    """The array of tables at `key`."""
    items = reader.read(key, list_of(table, "tables"), ())
    return [Table(f"{join(reader.path, key)}[{index}]", item, faults) for index, item in enumerate(items)]


def _anything(value: object) -> object:
    return value


def _hosts(egress: Table, faults: Faults) -> list[Host]:
    found = []
    for index, value in enumerate(egress.read("allow", list_of(_anything, "hosts"), ())):
        rule = f"egress.allow[{index}]"
        try:
            found.append(Host(pattern_of_hosts(value), rule=rule))
        except Wrong as wrong:
            # One at a time: a credential for a host that is listed rightly is no fault.
            faults.append((rule, str(wrong)))
    for item in _tables(egress, "hosts", faults):
        item.allow(HOST_KEYS)
        pattern = required(item, "host", pattern_of_hosts)
        if pattern is not None:
            found.append(host(item, pattern, rule=item.path))
    return found


def host(item: Table, pattern: Rule, rule: str) -> Host:
    """The rule that a table's keys make of a pattern."""
    default = Host(pattern)
    return Host(
        pattern,
        consumers=item.read("for", consumers, default.consumers),
        methods=item.read("methods", methods, default.methods),
        paths=item.read("paths", paths, default.paths),
        private=item.read("private", boolean, default.private),
        on_secret=item.read("on_secret", choice(model.ON_SECRET), default.on_secret),
        idle_ms=item.read("idle", positive_ms, default.idle_ms),
        rule=rule,
    )


def _credentials(egress: Table, hosts: tuple[Host, ...], faults: Faults) -> tuple[Credential, ...]:
    found: list[Credential] = []
    for item in _tables(egress, "credentials", faults):
        item.allow(CREDENTIAL_KEYS)
        credential = _credential(item)
        if credential.host:
            _check_consumers(item, credential, hosts)
        if credential.host and credential.header and credential.value_file:
            _check_against(item, credential, found)
            found.append(credential)
    return tuple(found)


def _credential(item: Table) -> Credential:
    """A credential. What a fault has been noted for is empty."""
    host, port = required(item, "host", host_and_port) or ("", None)
    header = required(item, "header", _header) or ""
    value_file = required(item, "value_file", absolute_path) or ""
    default = Credential("", "", None, "", "")
    last = value_file.rstrip("/").rpartition("/")[2]
    name = item.read("name", _word(_NAME, "letters, digits, _, . and -"), last)
    if value_file and not _NAME.fullmatch(name):
        item.fault("name", f"is missing, and the last component of value_file, {quoted(name)}, is no name")
    return Credential(
        name,
        host,
        port,
        header,
        value_file,
        consumers=item.read("for", consumers, default.consumers),
        methods=item.read("methods", methods, default.methods),
        paths=item.read("paths", paths, default.paths),
        plaintext=item.read("plaintext", boolean, default.plaintext),
        placeholder=item.read("placeholder", _placeholder, default.placeholder),
        rule=item.path,
    )


def _rules_for(credential: Credential, hosts: tuple[Host, ...]) -> list[Host]:
    ports = (credential.port,) if credential.port else (443, 80)
    return [rule for rule in hosts if any(rule.pattern.matches(credential.host, port) for port in ports)]


def _check_consumers(item: Table, credential: Credential, hosts: tuple[Host, ...]) -> None:
    """That it says whose it is, and that those reach its host."""
    rules = _rules_for(credential, hosts)
    if "for" not in item and any(GIT in rule.consumers for rule in rules):
        item.fault("for", f"is missing: git-gate reaches {credential.host} too, so it has to say whose this is")
        return
    for consumer in credential.consumers:
        if any(consumer in rule.consumers for rule in rules):
            continue
        shown_host = f"{credential.host}:{credential.port}" if credential.port else credential.host
        others = sorted({other for rule in rules for other in rule.consumers})
        if others:
            hint = f'; it is to {listed(map(quoted, others))}: set for = ["{others[0]}"]'
            item.fault("for", f"{quoted(shown_host)} is not allowed to {quoted(consumer)}{hint}")
        else:
            item.fault("host", f"{quoted(shown_host)} is not allowed by egress.allow or egress.hosts")
            return


def _check_against(item: Table, credential: Credential, others: list[Credential]) -> None:
    """That two credentials are not in each other's way."""
    for other in others:
        same_place = (other.host, other.port, other.header.lower()) == (
            credential.host,
            credential.port,
            credential.header.lower(),
        )
        apart = not set(other.consumers) & set(credential.consumers) or not set(other.methods) & set(credential.methods)
        if same_place and not apart and other.paths == credential.paths:
            item.fault("header", f"{quoted(credential.header)} is set twice for {credential.host} ({other.rule})")
        if other.name == credential.name and other.value_file != credential.value_file:
            item.fault("name", f"{quoted(credential.name)} is taken by {other.rule}, which has another value_file")
        if credential.placeholder and other.placeholder and other.name != credential.name:
            one, two = credential.placeholder, other.placeholder
            if one in two or two in one:
                item.fault("placeholder", f"cannot be told from that of {other.rule}")


def _patterns(pipelock: Table, faults: Faults) -> tuple[Pattern, ...]:
    found = list(BUILT_IN)
    for item in _tables(pipelock, "patterns", faults):
        item.allow(("name", "regex"))
        name = required(item, "name", _word(_PATTERN_NAME, "[A-Za-z0-9_-]+"))
        regex = required(item, "regex", _regex)
        if name is not None and any(name == pattern.name for pattern in found):
            item.fault("name", f"{quoted(name)} is taken by another pattern")
        elif name is not None and regex is not None:
            found.append(Pattern(name, regex))
    return tuple(found)


def repositories(below: str, content: Mapping[str, object], faults: Faults) -> tuple[Repository, ...]:
    """The repositories that the tables at the path `below` describe."""
    found: list[Repository] = []
    for name, value in content.items():
        path = join(below, name)
        if not _REPOSITORY_NAME.fullmatch(name) or name.endswith((".git", ".lock")) or ".." in name:
            faults.append((path, f"is not a repository's name ({_REPOSITORY_NAME.pattern}, without .git)"))
        elif not isinstance(value, dict):
            faults.append((path, f"must be a table, is {shown(value)}"))
        else:
            found.append(_repository(name, Table(path, value, faults)))
    return tuple(found)


def _repository(name: str, item: Table) -> Repository:
    item.allow(REPOSITORY_KEYS)
    found = Repository(
        name,
        source=item.read("upstream", upstream, None),
        private=item.read("private", boolean, False),
        ssh_key=item.read("ssh_key", absolute_path, ""),
        known_hosts=item.read("known_hosts", _known_hosts, ""),
        push=item.within("push", _push, Push()),
    )
    if found.source is not None and found.source.scheme == "ssh":
        for key in ("ssh_key", "known_hosts"):
            if key not in item:
                item.fault(key, "is missing: an ssh upstream needs a deploy key, and its host's keys")
    else:
        for key in ("ssh_key", "known_hosts"):
            if key in item:
                item.fault(key, "is for an ssh upstream only")
    return found


def _push(item: Table) -> Push:
    item.allow(PUSH_KEYS)
    names = list_of(_reference, "patterns of branches")
    default = Push()
    return Push(
        branches=item.read("branches", names, default.branches),
        tags=item.read("tags", names, default.tags),
        force=item.read("force", names, default.force),
        delete=item.read("delete", boolean, default.delete),
    )


def implied_hosts(served: Iterable[Repository]) -> list[Host]:
    """What git-gate has to reach for the repositories with an http(s) upstream: their hosts, below their paths."""
    found = []
    for each in served:
        source = each.source
        if source is not None and source.scheme in ("https", "http"):
            pattern = Rule(source.host, port=source.port)
            rule = f"{join('git.repos', each.name)}.upstream"
            # Git LFS adds the .git that may be left out.
            paths = (source.path,) if source.path.endswith(".git") else (source.path, f"{source.path}.git")
            found.append(Host(pattern, (GIT,), model.GIT_METHODS, paths, each.private, "pass", rule=rule))
    return found


def _limits(item: Table) -> Limits:
    default = Limits()
    item.allow(LIMIT_KEYS)
    return Limits(
        header=item.read("header", size_between(KIB, MIB), default.header),
        connections=item.read("connections", integer(1, 65_536), default.connections),
        websocket_message=item.read("websocket_message", size_between(KIB, 1 << 30), default.websocket_message),
        push=item.read("push", size_between(KIB, 1 << 40), default.push),
        git_connections=item.read("git_connections", integer(1, 1_024), default.git_connections),
        git_idle_ms=item.read("git_idle", positive_ms, default.git_idle_ms),
        audit=item.read("audit", size_between(64 * KIB, 1 << 40), default.audit),
    )


def parse(content: Mapping[str, Any]) -> tuple[Policy, Faults]:
    """The policy that a TOML file's content states, and its faults, each `(path, message)`. With faults it is void."""
    faults: Faults = []
    root = Table("", dict(content), faults)
    root.allow(("walls", "transparent", "egress", "pipelock", "git", "supervise", "limits"))
    default = Policy()
    inside = partial(_inside, root, faults)
    egress, pipelock, git, supervise = (inside(key) for key in ("egress", "pipelock", "git", "supervise"))
    egress.allow(EGRESS_KEYS)
    pipelock.allow(("engine", "inspect", "patterns"))
    git.allow(("directory", "quota", "repos"))
    supervise.allow(("answer_timeout", "allowed_hosts", "max_questions"))
    served = repositories("git.repos", git.read("repos", table, {}), faults)
    hosts = (*_hosts(egress, faults), *implied_hosts(served))
    policy = Policy(
        walls=root.read("walls", choice(model.WALLS), default.walls),
        transparent=root.read("transparent", boolean, default.transparent),
        hosts=hosts,
        upstream_ca=egress.read("upstream_ca", absolute_path, default.upstream_ca),
        scan_limit=egress.read("scan_limit", size_between(64 * KIB, 1 << 30), default.scan_limit),
        credentials=_credentials(egress, hosts, faults),
        engine=pipelock.read("engine", choice(model.ENGINES), default.engine),
        inspect=pipelock.read("inspect", boolean, default.inspect),
        patterns=_patterns(pipelock, faults),
        directory=git.read("directory", absolute_path, default.directory),
        quota=git.read("quota", size_between(MIB, _LARGEST), default.quota),
        repositories=served,
        answer_timeout_ms=supervise.read("answer_timeout", duration_ms, default.answer_timeout_ms),
        allowed_hosts=supervise.read("allowed_hosts", list_of(_allowed_host, "hosts"), default.allowed_hosts),
        max_questions=supervise.read("max_questions", integer(1, 1_024), default.max_questions),
        limits=root.within("limits", _limits, default.limits),
    )
    return policy, faults


def _inside(root: Table, faults: Faults, key: str) -> Table:
    """The table at `key`, or an empty one."""
    return Table(key, root.read(key, table, {}), faults)
