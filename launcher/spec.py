"""A bottle and its agent as the operator wants them: what a manifest comes to once it has been read and merged."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.plan import ADDRESS_POOL, AGENT_IMAGE, AGENT_LIMITS, BUNDLE_IMAGE, BUNDLE_LIMITS, Bind, Limits

DEFAULT_USER = "1000:1000"
DEFAULT_HOME = "/home/agent"
DEFAULT_HEADER = "Authorization"
CONSUMERS = ("agent", "git")
HOST_RULES = "host-rules"
KERNEL_RULES = "kernel-rules"
ACCEPTABLE = (HOST_RULES, KERNEL_RULES)
"""Walls that a manifest may name in `accept_missing`: the bottle then starts where they cannot stand."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a value is read from when a bottle starts: exactly one of the three is set."""

    env: str | None = None
    file: Path | None = None
    command: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In words, without the value."""
        if self.file is not None:
            return str(self.file)
        return f"`{' '.join(self.command)}`" if self.command else f"${self.env}"


@dataclass(frozen=True, slots=True)
class Host:
    """A host that a bottle may reach, with what the policy says of it (docs/policy.md)."""

    host: str
    consumers: tuple[str, ...] = ("agent",)
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    private: bool = False
    on_secret: str = "block"
    idle: str | float | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """A header that egress adds to requests to one host."""

    name: str
    host: str
    header: str = DEFAULT_HEADER
    prefix: str = ""
    plaintext: bool = False
    from_env: str | None = None
    from_file: Path | None = None
    from_command: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    placeholder: str | None = None
    variable: str = ""
    """The variable in which the agent finds the placeholder."""

    @property
    def secret(self) -> Secret:
        """Where its value comes from."""
        return Secret(self.from_env, self.from_file, self.from_command)


@dataclass(frozen=True, slots=True)
class Push:
    """What the agent may push; `None` is the policy's own default."""

    branches: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    force: tuple[str, ...] | None = None
    delete: bool | None = None


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository behind git-gate. Without an upstream it lives in the bundle alone."""

    name: str
    upstream: str | None = None
    private: bool = False
    ssh_key: Secret | None = None
    known_hosts: str | None = None
    push: Push = Push()


@dataclass(frozen=True, slots=True)
class Project:
    """The operator's directory, or a repository, that the agent works in."""

    mode: str
    """`bind`, `copy` or `clone`."""
    path: Path | None = None
    repository: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """The agent's container, as the operator asks for it."""

    image: str = AGENT_IMAGE
    user: str = DEFAULT_USER
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    tty: bool = False
    name: str = ""
    """What the manifest calls it."""
    dockerfile: Path | None = None
    home: str = DEFAULT_HOME
    workdir: str = ""
    headless: tuple[str, ...] = ()
    """The command of `--headless`. In both, a word `{prompt}` is replaced by the prompt, and left out without one."""
    prompt: str = ""
    skills: tuple[Path, ...] = ()
    skills_dir: str = ".claude/skills"
    """Where the skills go, below the home."""
    git_name: str = ""
    git_email: str = ""
    project: Project | None = None
    mounts: tuple[Bind, ...] = ()
    writable: tuple[str, ...] = ()
    """Places besides the home that are writable, each a tmpfs."""
    init: str = "bottle"
    runtime: str = "auto"
    limits: Limits = AGENT_LIMITS
    home_archive: Path | None = None
    """A home that was kept by `bottle commit`, for the new one's."""


@dataclass(frozen=True, slots=True)
class BottleSpec:
    """One bottle with its agent."""

    name: str
    agent: AgentSpec = AgentSpec()
    image: str = BUNDLE_IMAGE
    daemons: tuple[str, ...] = ()
    """Those that run; empty for those that it uses."""
    allow: tuple[str, ...] = ()
    hosts: tuple[Host, ...] = ()
    upstream_ca: Path | None = None
    scan_limit: str | None = None
    credentials: tuple[Credential, ...] = ()
    engine: str = "auto"
    inspect: bool = False
    patterns: tuple[tuple[str, str], ...] = ()
    repositories: tuple[Repository, ...] = ()
    git_quota: str | None = None
    answer_timeout: str | float | None = None
    max_questions: int | None = None
    policy_limits: tuple[tuple[str, str | int], ...] = ()
    walls: str = KERNEL_RULES
    accept_missing: tuple[str, ...] = ()
    transparent: bool = True
    lease: bool | None = None
    """Whether the bottle ends with its launcher; `None`: where that stays attached."""
    limits: Limits = BUNDLE_LIMITS
    address_pool: str = ADDRESS_POOL
    notify: tuple[str, ...] = ()
    slug: str | None = None
    sources: tuple[Path, ...] = field(default=(), compare=False)
    """The files that it was read from."""
    bottles: tuple[str, ...] = field(default=(), compare=False)
    """The manifest's bottles of which it is made, with their parents; the one whose keys come last is the first."""

    @property
    def used_daemons(self) -> tuple[str, ...]:
        """The daemons that run: without repositories there is nothing for git-gate to do."""
        if self.daemons:
            return self.daemons
        return ("egress", "pipelock", *(("git-gate",) if self.repositories else ()), "supervise")

    @property
    def missing_walls(self) -> tuple[str, ...]:
        """The walls without which this bottle starts all the same, because its manifest says so."""
        without = () if self.walls == KERNEL_RULES else (KERNEL_RULES,)
        return tuple(dict.fromkeys((*self.accept_missing, *without)))

    def facts(self) -> dict[str, Any]:
        """What later commands want to know of the bottle, as JSON can say it."""
        project = self.agent.project
        return {
            "sources": [str(path) for path in self.sources],
            "bottles": list(self.bottles),
            "agent": self.agent.name or self.name,
            "missing_walls": list(self.missing_walls),
            "project": "" if project is None else project.mode,
            "project_path": "" if project is None or project.path is None else str(project.path),
            "project_target": "" if project is None else project.target,
            "image": self.agent.image,
            "bundle_image": self.image,
            "home": self.agent.home,
            "user": self.agent.user,
            "tty": self.agent.tty,
            "daemons": list(self.used_daemons),
            "credentials": [each.name for each in self.credentials],
        }
