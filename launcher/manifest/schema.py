"""The manifest's grammar. Its JSON Schema, docs/launcher.md and the faults with their lines come from it."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

ID_MAX = 2**31 - 1  # The engine's own limit for the ids of users and groups.
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def _user(value: str) -> str:
    if value == "operator":
        return value
    if not re.fullmatch(r"[0-9]{1,20}(:[0-9]{1,20})?", value, re.ASCII):
        raise ValueError('"UID" or "UID:GID" in numbers, or "operator", is needed')
    ids = [int(part) for part in value.split(":")]
    if 0 in ids:
        raise ValueError("an agent does not run as root")
    if max(ids) > ID_MAX:
        raise ValueError(f"is beyond the engine's greatest id, {ID_MAX}")
    return value


def _size(value: Any) -> Any:
    """`"4GiB"` as a number of bytes."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]{1,12})(B|KiB|MiB|GiB|TiB)", value, re.ASCII)
    if match is None:
        raise ValueError('a size such as "512MiB" or "4GiB", or a number of bytes, is needed')
    return int(match[1]) * UNITS[match[2]]


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character")
    return value


def _absolute(value: str) -> str:
    """A path of the operator's machine."""
    if not value.startswith(("/", "~/")):
        raise ValueError("an absolute path or one that begins with ~/ is needed")
    return _text(value)


def _inside(value: str) -> str:
    """A path in a container."""
    if not re.fullmatch(r"/[^\0,:]+", value) or ".." in value.split("/") or value.rstrip("/") == "":
        raise ValueError("an absolute path in the container, without commas and colons, is needed")
    return value.rstrip("/")


def _below_home(value: str) -> str:
    """A path below the agent's home."""
    if not value or value.startswith("/") or ".." in value.split("/") or "\0" in value:
        raise ValueError("a path below the agent's home is needed")
    return value.rstrip("/")


Text = Annotated[str, Field(min_length=1), AfterValidator(_text)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
OwnPath = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]
Place = Annotated[str, AfterValidator(_inside)]
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=str | int), Field(gt=0, le=2**50)]
Duration = str | int | float
Consumers = list[Literal["agent", "git"]]
Command = Annotated[list[Annotated[str, AfterValidator(_text)]], Field(min_length=1)]
Environment = dict[Variable, Annotated[str, AfterValidator(_text)]]


class Table(BaseModel):
    """A table of the manifest: every key is known, and of its type. A field's docstring is the key's description."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True, use_attribute_docstrings=True)


class Secret(Table):
    """Where a value is read from when a bottle starts. The value itself never stands in a manifest."""

    env: Variable | None = None
    """A variable of yours that holds the value."""
    file: OwnPath | None = None
    """A file of yours that holds the value: an absolute path, or `~/…`."""
    command: Command | None = None
    """A command that prints the value. It runs in your home directory."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.env, self.file, self.command)) != 1:
            raise ValueError(
                "needs one of env (a variable of yours), file (a file of yours) and command (which prints it)"
            )
        return self


class Credential(Secret):
    """A header that egress adds to requests to one host. The agent never has the value."""

    host: Text
    """The host: one of `egress.allow` or `egress.hosts`, or the host of a repository."""
    header: Text = "Authorization"
    """The name of the header."""
    prefix: Annotated[str, AfterValidator(_text)] = ""
    """What comes before the value, such as `"Bearer "`."""
    for_: Consumers = Field(default=[], alias="for")
    """Whose requests get it. Needed where both the agent and git reach the host."""
    methods: list[Text] = []
    """Requests with these methods alone get it. Default: all."""
    paths: list[Text] = []
    """Requests below these paths alone get it. Default: all."""
    plaintext: bool = False
    """Also over plain `http://`."""
    placeholder: Text | None = None
    """A made-up value in the form that the agent's program demands. egress puts the real one in its place."""
    variable: Variable | None = None
    """The agent's variable that holds the placeholder."""


class Host(Table):
    """A host that the bottle may reach, as in [the policy](policy.md)."""

    host: Text
    """A name, a name with a port, `*.DOMAIN`, or an address."""
    for_: Consumers = Field(default=["agent"], alias="for")
    """Who may reach it."""
    methods: list[Text] = []
    """These methods alone. Default: all but TRACE and CONNECT."""
    paths: list[Text] = []
    """These paths and what is below them alone. Default: all."""
    private: bool = False
    """It may be at an address that is not globally reachable."""
    on_secret: Literal["block", "redact", "ask", "pass"] = "block"
    """What happens to a request that holds a secret."""
    idle: Duration | None = None
    """How long a connection may be silent, such as `"10m"`."""


class Egress(Table):
    """What the bottle may reach."""

    allow: list[Text] = []
    """Hosts in the short form: every method, every path, for the agent."""
    hosts: list[Host] = []
    """Hosts with their conditions."""
    upstream_ca: OwnPath | None = None
    """A file of certificate authorities that are trusted besides the public ones."""
    scan_limit: Text | None = None
    """How much of a body is buffered where a secret in it is redacted or asked about, such as `"8MiB"`."""


class Pattern(Table):
    """What never leaves, besides the patterns that are built in."""

    name: Text
    """What logs call it."""
    regex: Text
    """The pattern, in RE2's syntax."""


class Pipelock(Table):
    """The agent's proxy."""

    engine: Literal["auto", "pipelock", "portable"] = "auto"
    """Which engine: the real pipelock, ours, or the first of these that the image has."""
    inspect: bool = False
    """Whether the real pipelock looks into TLS as well, besides egress: it holds each answer as a whole then."""
    patterns: list[Pattern] = []
    """Patterns of your own."""


class Push(Table):
    """What the agent may push. What is left out is the policy's default."""

    branches: list[Text] | None = None
    """Branches, with `*` for any part of a name. Default: all."""
    tags: list[Text] | None = None
    """Tags. Default: all."""
    force: list[Text] | None = None
    """Branches whose history may be replaced. Default: all but the upstream's default branch."""
    delete: bool | None = None
    """Whether branches and tags may be deleted. Default: no."""


class Repository(Table):
    """A repository behind git-gate."""

    upstream: Text | None = None
    """Its URL: `https://`, `ssh://`, `git://` or `git@HOST:PATH`. Without one it lives in the bundle alone."""
    private: bool = False
    """The upstream may be at an address that is not globally reachable."""
    ssh_key: Secret | None = None
    """The deploy key of an upstream that is reached by ssh."""
    known_hosts: Text | None = None
    """The upstream's host keys, as in sshd(8)'s known_hosts. Needed for ssh."""
    push: Push = Push()
    """What the agent may push."""


class Git(Table):
    """The repositories."""

    quota: Text | None = None
    """How much git-gate stores at most, such as `"1GiB"`."""
    repos: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], Repository] = {}
    """The repositories by their names at git-gate."""


class Supervise(Table):
    """The agent's questions."""

    answer_timeout: Duration | None = None
    """How long a question waits in one call, such as `"45s"`."""
    max_questions: int | None = None
    """How many questions may be open at a time."""


class ContainerLimits(Table):
    """What one container may take."""

    memory: Size | None = None
    """Memory, swap included, such as `"4GiB"`. Default: 4 GiB for the agent, 1 GiB for the bundle."""
    cpus: Annotated[float, Field(gt=0, le=4096)] | None = None
    """CPUs. Default: 4 for the agent, 2 for the bundle."""
    pids: Annotated[int, Field(gt=0, le=2**22)] | None = None
    """Processes and threads. Default: 2048 for the agent, 512 for the bundle."""
    logs: Size | None = None
    """How much of its log is kept. Default: 20 MiB."""


class Limits(Table):
    """Limits of both containers, and limits of the bundle's daemons, which [the policy](policy.md) explains."""

    agent: ContainerLimits = ContainerLimits()
    """The agent's container."""
    sidecars: ContainerLimits = ContainerLimits()
    """The bundle's container."""
    header: str | int | None = None
    """The size of a request's head."""
    connections: int | None = None
    """Connections at a time."""
    websocket_message: str | int | None = None
    """The size of one websocket message."""
    push: str | int | None = None
    """The size of a push."""
    git_connections: int | None = None
    """Connections to git-gate at a time."""
    audit: str | int | None = None
    """The size of each daemon's audit trail."""


class Bottle(Table):
    """What an agent runs in: its image, and what it may reach."""

    extends: Name | list[Name] = []
    """Bottles to start from. Tables are merged key by key, lists joined; of anything else the later one holds. What
    several of them extend counts once, before them all."""
    image: Text | None = None
    """The agent's image. Default: `claude-bottle-agent`, or the image that `bottle build` makes of `dockerfile`."""
    dockerfile: OwnPath | None = None
    """The Dockerfile of the agent's image, for `bottle build`."""
    sidecars: Text | None = None
    """The bundle's image. Default: `claude-bottle-sidecars`."""
    daemons: list[Literal["egress", "pipelock", "git-gate", "supervise"]] | None = Field(default=None, min_length=1)
    """The daemons that run. Default: those that are used; git-gate is not without repositories."""
    user: Annotated[str, AfterValidator(_user)] | None = None
    """The agent's user, never root: `"UID"`, `"UID:GID"`, or `"operator"` for yours. Default: 1000:1000, and yours
    where the project is mounted.
    """
    home: Place | None = None
    """The agent's home, a volume. Default: `/home/agent`."""
    init: Literal["bottle", "engine"] | None = None
    """The agent's first process: bottle_init, or the engine's own init where the image does not fit ours."""
    runtime: Text | None = None
    """The engine's runtime. Default: `auto`, which is gVisor (`runsc`) where the engine has it."""
    writable: list[Place] = []
    """Places besides the home that are writable, each a tmpfs."""
    env: Environment = {}
    """Variables of the agent's. Not for secrets: whoever may ask the engine sees them."""
    walls: Literal["kernel-rules", "without-kernel-rules"] | None = None
    """Whether the bundle sets rules between its daemons. Default: it does, and does not start where it can't."""
    accept_missing: list[Literal["host-rules", "kernel-rules"]] = []
    """Walls that may be missing where the engine cannot have them."""
    transparent: bool | None = None
    """Whether programs that know no proxy are served as well. Default: yes."""
    lease: bool | None = None
    """Whether the bottle ends with its launcher. Default: where that stays attached."""
    egress: Egress = Egress()
    """What it may reach."""
    credentials: dict[Name, Credential] = {}
    """The credentials by their names."""
    pipelock: Pipelock = Pipelock()
    """What the agent's proxy looks for."""
    git: Git = Git()
    """The repositories that it gets by git-gate."""
    supervise: Supervise = Supervise()
    """How it asks you."""
    limits: Limits = Limits()
    """The limits."""


class Project(Table):
    """The directory that the agent works in."""

    mode: Literal["bind", "copy", "clone"]
    """`bind` mounts the directory, `copy` copies it, `clone` clones a repository of git-gate's."""
    path: str | None = None
    """The directory. Default: where `bottle up` runs."""
    repo: str | None = None
    """The repository to clone: one of `git.repos`."""
    target: Place = "/workspace"
    """Where the agent finds it."""


class Mount(Table):
    """A directory or file of yours in the agent's container."""

    source: OwnPath
    """Where it is on your machine: an absolute path, or `~/…`."""
    target: Place
    """Where the agent finds it."""
    read_only: bool = True
    """Whether the agent can't change it."""


class Identity(Table):
    """Who the agent's commits are by."""

    name: Text | None = None
    """`user.name`."""
    email: Text | None = None
    """`user.email`."""


class Agent(Table):
    """What runs in a bottle."""

    bottle: Name | Annotated[list[Name], Field(min_length=1)]
    """Its bottle. Several are merged in the order given, as by `extends`."""
    command: Command | None = None
    """The command. The word `"{prompt}"` becomes the prompt, and is left out without one. Default: the image's own."""
    headless: Command | None = None
    """The command of `--headless`, in which the prompt is replaced as well."""
    prompt: Text | None = None
    """What the agent is told first. It is in `/etc/bottle/prompt` too."""
    skills: list[Text] = []
    """Directories of skills, which are copied into the agent's home. Relative to the manifest."""
    skills_dir: Annotated[str, AfterValidator(_below_home)] = ".claude/skills"
    """Where the skills go, below the home."""
    git: Identity = Identity()
    """Who its commits are by."""
    env: Environment = {}
    """Variables over those of the bottle."""
    tty: bool = False
    """Whether your terminal is the agent's."""
    workdir: Place | None = None
    """Where the command starts. Default: the project, or else the image's own."""
    mounts: list[Mount] = []
    """Directories and files of yours that it gets."""
    project: Project | Literal["bind", "copy"] | None = None
    """The directory that it works in; `"bind"` and `"copy"` stand for the current one."""


class Manifest(Table):
    """A manifest file."""

    bottles: dict[Name, Bottle] = {}
    """Bottles by their names."""
    agents: dict[Name, Agent] = {}
    """Agents by their names."""
    address_pool: Text | None = None
    """The IPv4 range from which the networks of bottles are taken, 32 addresses each. Default: `10.213.0.0/16`."""
    notify: Command | None = None
    """A command of yours that `bottle notify` and `bottle ui` run when something waits for you."""
