"""What a bottle may do, as values. docs/policy.md defines each field."""

from __future__ import annotations

from pathlib import Path

from bottle_init.core.values import Value
from sidecars.dlp import BUILT_IN, Pattern
from sidecars.hosts import Allowlist, Rule
from sidecars.layout import STATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

AGENT: Final = "agent"
GIT: Final = "git"
CONSUMERS: Final = (AGENT, GIT)
"""Who may be named by `for`: the agent, by pipelock; git-gate, by egress's own listener for it."""

ON_SECRET: Final = ("block", "redact", "ask", "pass")
ENGINES: Final = ("auto", "pipelock", "portable")
KERNEL_RULES: Final = "kernel-rules"
WALLS: Final = (KERNEL_RULES, "without-kernel-rules")

METHODS: Final = (
    *("ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "DELETE", "GET", "HEAD", "LABEL", "LINK"),
    *("LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "OPTIONS"),
    *("ORDERPATCH", "PATCH", "POST", "PROPFIND", "PROPPATCH", "PUT", "QUERY", "REBIND", "REPORT", "SEARCH", "UNBIND"),
    *("UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL"),
)
"""IANA's HTTP Method Registry without TRACE, CONNECT, PRI and `*`."""

GIT_METHODS: Final = ("GET", "HEAD", "POST", "PUT")
"""What git's smart HTTP needs (gitprotocol-http(5)), and PUT, by which Git LFS uploads."""


class Host(Value):
    """One rule of the allowlist: `[[egress.hosts]]`, an entry of `egress.allow`, or what a repository implies."""

    pattern: Rule
    consumers: tuple[str, ...] = (AGENT,)
    methods: tuple[str, ...] = METHODS
    paths: tuple[str, ...] = ("/",)
    private: bool = False
    on_secret: str = ON_SECRET[0]
    idle_ms: int = 600_000
    rule: str = ""
    """Where it stands in the file, for logs: `egress.hosts[0]`."""


class Credential(Value):
    """A header that egress sets and the agent never sees."""

    name: str
    host: str
    port: int | None
    header: str
    value_file: str
    consumers: tuple[str, ...] = (AGENT,)
    methods: tuple[str, ...] = METHODS
    paths: tuple[str, ...] = ("/",)
    plaintext: bool = False
    placeholder: str = ""
    rule: str = ""

    def applies_to(self, host: str, port: int) -> bool:
        """Whether requests to `host` (normalized) at `port` are this credential's."""
        return host == self.host and (port == self.port if self.port is not None else port in (80, 443))


class Upstream(Value):
    """Where git-gate fetches from and pushes to."""

    url: str
    scheme: str
    """`https`, `http`, `git`, `ssh` or `file`."""
    host: str = ""
    port: int = 0
    path: str = ""


class Push(Value):
    """What the agent may push. A `*` in a pattern stands for any characters, slashes included."""

    branches: tuple[str, ...] = ("*",)
    tags: tuple[str, ...] = ("*",)
    force: tuple[str, ...] | None = None
    """Branches that may be rewritten; `None`: every one but the upstream's default branch."""
    delete: bool = False


class Repository(Value):
    """A repository that git-gate serves."""

    name: str
    source: Upstream | None = None
    private: bool = False
    ssh_key: str = ""
    known_hosts: str = ""
    """The text of an ssh known_hosts file, or the absolute path of one."""
    push: Push = Push()

    @property
    def upstream(self) -> str | None:
        """The upstream's URL."""
        return self.source.url if self.source is not None else None

    @property
    def tunnelled(self) -> bool:
        """Whether it is reached by a bare CONNECT through egress's listener for git."""
        return self.source is not None and self.source.scheme in ("git", "ssh")


class Limits(Value):
    """`[limits]`: what one bottle may take of its bundle."""

    header: int = 64 * KIB
    connections: int = 512
    websocket_message: int = 16 * MIB
    push: int = 256 * MIB
    git_connections: int = 32
    git_idle_ms: int = 300_000
    audit: int = 64 * MIB


class Policy(Value):
    """What a bottle may do. The default allows nothing."""

    walls: str = KERNEL_RULES
    transparent: bool = True
    hosts: tuple[Host, ...] = ()
    upstream_ca: str = ""
    scan_limit: int = 8 * MIB
    credentials: tuple[Credential, ...] = ()
    engine: str = "auto"
    inspect: bool = False
    """Whether the real pipelock opens TLS, besides egress."""
    patterns: tuple[Pattern, ...] = BUILT_IN
    directory: str = str(STATE / "git")
    quota: int = GIB
    repositories: tuple[Repository, ...] = ()
    answer_timeout_ms: int = 45_000
    allowed_hosts: tuple[str, ...] = ("sidecars",)
    max_questions: int = 64
    limits: Limits = Limits()
    approvals: tuple[dict[str, Any], ...] = ()
    generation: str = ""
    """First 16 hexadecimal digits of the SHA-256 of the policy's and the approvals' text."""
    source: str = ""

    @property
    def git_directory(self) -> Path:
        """Where git-gate keeps its repositories."""
        return Path(self.directory)

    @property
    def allowlist(self) -> Allowlist:
        """Every host that anything in the bundle may be sent to."""
        return Allowlist(tuple(host.pattern for host in self.hosts))
