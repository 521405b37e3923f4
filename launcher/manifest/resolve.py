"""From manifest files to one `BottleSpec`: the agent that was asked for, in its bottle."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher import state
from launcher.errors import LauncherError, ManifestError
from launcher.manifest import schema
from launcher.manifest.lines import Path as KeyPath
from launcher.manifest.merge import Bottles
from launcher.manifest.place import PROJECT_FILE, faults_of_place, faults_of_project_file, is_own, project_file
from launcher.manifest.source import Fault, Source, parse, read
from launcher.plan import ADDRESS_POOL, AGENT_IMAGE, AGENT_LIMITS, BUNDLE_IMAGE, BUNDLE_LIMITS, Bind, Limits, Subnets
from launcher.spec import (
    DEFAULT_HOME,
    DEFAULT_USER,
    AgentSpec,
    BottleSpec,
    Credential,
    Host,
    Project,
    Push,
    Repository,
    Secret,
)

PROXIED = ("https://", "http://", "ssh://", "git://")
POLICY_LIMITS = ("header", "connections", "websocket_message", "push", "git_connections", "audit")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says over the manifest."""

    command: tuple[str, ...] = ()
    prompt: str = ""
    headless: bool = False
    project: Path | None = None
    project_mode: str = ""
    tty: bool | None = None
    to_build: bool = False
    """Whether nothing runs: the current directory is then nobody's project."""


def own_sources() -> list[Source]:
    """The operator's manifests: ~/.claude-bottle/*.toml, bottle.toml first. What begins with a dot is an editor's."""
    visible = (path for path in state.own_root().glob("*.toml") if not path.name.startswith("."))
    paths = sorted(visible, key=lambda path: (path.name != "bottle.toml", path.name))
    return [_placed(read(path)) for path in paths]


def load(path: Path, agent: str | None = None, wishes: Wishes = Wishes()) -> BottleSpec:
    """The bottle of a manifest file that the operator names: of `agent`, or of the only agent in it.

    Raises `ManifestError` with every fault, `LauncherError` where the file can't be read.
    """
    named = _placed(read(path))
    if not (named.manifest.agents or named.manifest.bottles):
        raise LauncherError(f"{path} defines no agent and no bottle", hint="docs/launcher.md shows what a manifest is")
    others = [source for source in own_sources() if source.path.resolve() != named.path.resolve()]
    return _resolve(agent, [named], Bottles(_without_doubles(named, others)), wishes)


def find(name: str | None = None, wishes: Wishes = Wishes(), cwd: Path | None = None) -> BottleSpec:
    """The bottle of an agent by its name, from the operator's manifests or, after them, from the project's own file.

    Raises as `load` does.
    """
    own = own_sources()
    path = project_file(cwd or Path.cwd())
    sources = list(own)
    if path is not None and not is_own(path):
        project = read(path)
        if faults := list(faults_of_project_file(project)):
            raise project.error(faults)
        sources.append(project)
    if not sources:
        raise LauncherError(
            f"there is no manifest in {state.own_root()}",
            hint="`bottle init` writes one; `bottle up FILE` takes another",
        )
    return _resolve(name, sources, Bottles(own), wishes)


def again(facts: Mapping[str, Any], wishes: Wishes = Wishes(to_build=True)) -> BottleSpec:
    """The bottle of which these facts were noted, as its manifest describes it now; raises as `load` does.

    A project's own file is still no more than that, and the current directory need not be the bottle's.
    """
    first = Path(str((facts.get("sources") or [""])[0]))
    agent = str(facts.get("agent", ""))
    if first == Path() or first.parent == state.own_root():
        return find(agent, wishes)
    return find(agent, wishes, first.parent) if first.name == PROJECT_FILE else load(first, agent, wishes)


def from_document(document: dict[str, object], path: Path) -> BottleSpec:
    """The bottle of the only agent in a document that was read from `path`."""
    source = parse(document, path)
    return _resolve(None, [source], Bottles([source]), Wishes())


def _placed(source: Source) -> Source:
    """A file that says to be the operator's and lies elsewhere is not: a link into a repository that was cloned."""
    in_own_directory = source.path.parent.absolute() == state.own_root().absolute()
    if in_own_directory and not is_own(source.path) and source.manifest.bottles:
        first = next(iter(source.manifest.bottles))
        words = f"bottles are not read through a link that leads out of {state.own_root()} ({source.path.resolve()})"
        raise source.error([Fault(("bottles", first), words)])
    return source


def _without_doubles(named: Source, others: Sequence[Source]) -> list[Source]:
    """The named file's bottles are over those of the operator's directory."""
    taken = named.manifest.bottles.keys()
    left = [
        replace(other, manifest=other.manifest.model_copy(update={
            "bottles": {name: bottle for name, bottle in other.manifest.bottles.items() if name not in taken}
        }))
        for other in others
    ]  # fmt: skip
    return [named, *left]


def _resolve(name: str | None, sources: Sequence[Source], bottles: Bottles, wishes: Wishes) -> BottleSpec:
    source, name, agent = _chosen(name, sources, bottles)
    asked = (source, ("agents", name, "bottle"))
    names = [agent.bottle] if isinstance(agent.bottle, str) else agent.bottle
    spec = _spec(name, bottles.merged(names, asked), agent, source, wishes)
    settings = [each.manifest for each in sources if each.manifest.address_pool or each.manifest.notify]
    if settings:
        pool = next((each.address_pool for each in settings if each.address_pool), ADDRESS_POOL)
        spec = replace(
            spec, address_pool=pool, notify=next((tuple(each.notify) for each in settings if each.notify), ())
        )
    lineage = bottles.in_order(names, asked)[::-1]
    whole = [bottles.sources[each] for each in lineage]
    spec = replace(
        spec,
        sources=tuple(dict.fromkeys(each.path for each in (source, *whole))),
        bottles=tuple(dict.fromkeys((names[-1], *lineage))),
    )
    faults = [
        (_where(path, names, bottles, source), Fault(path, words))
        for path, words in _faults_between_keys(spec, names[-1])
    ]
    faults += [(found or source, fault) for found, fault in faults_of_place(spec, list(dict.fromkeys(whole)))]
    for culprit in dict.fromkeys(found for found, _ in faults):
        raise culprit.error([fault for found, fault in faults if found is culprit])
    return spec


def _where(path: KeyPath, names: Sequence[str], bottles: Bottles, source: Source) -> Source:
    return bottles.sources.get(names[-1], source) if path[:1] == ("bottles",) else source


def _chosen(name: str | None, sources: Sequence[Source], bottles: Bottles) -> tuple[Source, str, schema.Agent]:
    """The agent, and the file that it is from: the operator's own come before a project's."""
    agents: dict[str, tuple[Source, schema.Agent]] = {}
    for source in sources:
        for each, agent in source.manifest.agents.items():
            agents.setdefault(each, (source, agent))
    meant = list(agents) or [each for source in sources for each in source.manifest.bottles]
    if name is None and len(meant) == 1:
        (name,) = meant
    if name is None:
        known = ", ".join(sorted({*agents, *bottles.sources})) or "none"
        raise LauncherError("which agent is not said", hint=f"name one (of a FILE by --agent NAME): {known}")
    if name in agents:
        source, agent = agents[name]
        return source, name, agent
    if name in bottles:
        return bottles.sources[name], name, schema.Agent(bottle=name)
    known = ", ".join(sorted({*agents, *bottles.sources})) or "none"
    raise LauncherError(f"there is no agent {name!r}", hint=f"known: {known}")


def _spec(name: str, bottle: schema.Bottle, agent: schema.Agent, source: Source, wishes: Wishes) -> BottleSpec:
    project = _project(agent, source, wishes)
    limits = bottle.limits
    return BottleSpec(
        name=name,
        image=bottle.sidecars or BUNDLE_IMAGE,
        daemons=tuple(
            each for each in ("egress", "pipelock", "git-gate", "supervise") if each in (bottle.daemons or ())
        ),
        agent=_agent(name, bottle, agent, project, source, wishes),
        allow=tuple(bottle.egress.allow),
        hosts=tuple(map(_host, bottle.egress.hosts)),
        upstream_ca=_own_path(bottle.egress.upstream_ca),
        scan_limit=bottle.egress.scan_limit,
        credentials=tuple(_credential(each, table) for each, table in bottle.credentials.items()),
        engine=bottle.pipelock.engine,
        inspect=bottle.pipelock.inspect,
        patterns=tuple((each.name, each.regex) for each in bottle.pipelock.patterns),
        repositories=tuple(_repository(each, table) for each, table in bottle.git.repos.items()),
        git_quota=bottle.git.quota,
        answer_timeout=bottle.supervise.answer_timeout,
        max_questions=bottle.supervise.max_questions,
        policy_limits=tuple((key, value) for key in POLICY_LIMITS if (value := getattr(limits, key)) is not None),
        walls=bottle.walls or "kernel-rules",
        accept_missing=tuple(bottle.accept_missing),
        transparent=bottle.transparent is not False,
        lease=bottle.lease,
        limits=_limits(limits.sidecars, BUNDLE_LIMITS),
    )


def _agent(
    name: str, bottle: schema.Bottle, agent: schema.Agent, project: Project | None, source: Source, wishes: Wishes
) -> AgentSpec:
    prompt = wishes.prompt or agent.prompt or ""
    if wishes.headless:
        _refuse_headless(name, agent, prompt)
    command = wishes.command or tuple((agent.headless if wishes.headless else agent.command) or ())
    return AgentSpec(
        name=name,
        image=bottle.image or (f"bottle-agent-{name.lower()}" if bottle.dockerfile else AGENT_IMAGE),
        dockerfile=_own_path(bottle.dockerfile),
        user=_user(bottle.user, project),
        command=command,
        headless=tuple(agent.headless or ()),
        prompt=prompt,
        env=tuple({**bottle.env, **agent.env}.items()),
        tty=(agent.tty and not wishes.headless) if wishes.tty is None else wishes.tty,
        home=bottle.home or DEFAULT_HOME,
        workdir=agent.workdir or "",
        skills=tuple((source.path.parent / Path(each).expanduser()).resolve() for each in agent.skills),
        skills_dir=agent.skills_dir,
        git_name=agent.git.name or "",
        git_email=agent.git.email or "",
        project=project,
        mounts=tuple(Bind(Path(each.source).expanduser(), each.target, each.read_only) for each in agent.mounts),
        writable=tuple(bottle.writable),
        init=bottle.init or "bottle",
        runtime=bottle.runtime or "auto",
        limits=_limits(bottle.limits.agent, AGENT_LIMITS),
    )


def _refuse_headless(name: str, agent: schema.Agent, prompt: str) -> None:
    """Raises `LauncherError` where the manifest does not say how an agent works on its own, or nobody says at what."""
    if not agent.headless:
        raise LauncherError(
            f"the agent {name} has no command for --headless",
            hint='say how it takes a prompt and ends by itself: headless = ["claude", "-p", "{prompt}"]',
        )
    if not prompt:
        raise LauncherError("a headless agent needs a prompt", hint='--prompt "TEXT", or prompt in the manifest')


def _project(agent: schema.Agent, source: Source, wishes: Wishes) -> Project | None:
    """The project, with a path where it has one. A root operator's is copied: the agent never runs as root."""
    table = agent.project
    if isinstance(table, str):
        table = schema.Project(mode=table)
    if table is None and (wishes.project or wishes.project_mode):
        table = schema.Project(mode="bind")
    if table is None:
        return None
    mode = wishes.project_mode or table.mode
    if mode == "clone" or table.mode == "clone":
        return Project("clone", repository=table.repo or "", target=table.target)
    written = source.path.parent if not is_own(source.path) else Path.cwd()
    path = wishes.project or (written / Path(table.path).expanduser() if table.path else Path.cwd())
    if mode == "bind" and os.geteuid() == 0:
        mode = "copy"
    is_none = wishes.to_build and not (wishes.project or table.path)
    return Project(mode, path=None if is_none else path.resolve(), target=table.target)


def _user(user: str | None, project: Project | None) -> str:
    """Where a directory of the operator's is mounted, the agent is the operator's own user."""
    own = f"{os.getuid()}:{os.getgid()}"
    bound = project is not None and project.mode == "bind"
    if os.getuid() != 0 and (user == "operator" or (bound and user is None)):
        return own
    return DEFAULT_USER if user in (None, "operator") else str(user)


def _own_path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text is not None else None


def _host(table: schema.Host) -> Host:
    return Host(
        table.host,
        tuple(table.for_),
        tuple(table.methods),
        tuple(table.paths),
        table.private,
        table.on_secret,
        table.idle,
    )


def _credential(name: str, table: schema.Credential) -> Credential:
    return Credential(
        name=name,
        host=table.host,
        header=table.header,
        prefix=table.prefix,
        plaintext=table.plaintext,
        from_env=table.env,
        from_file=_own_path(table.file),
        from_command=tuple(table.command or ()),
        consumers=tuple(table.for_),
        methods=tuple(table.methods),
        paths=tuple(table.paths),
        placeholder=table.placeholder,
        variable=table.variable or "",
    )


def _repository(name: str, table: schema.Repository) -> Repository:
    key = table.ssh_key
    branches, tags, force = (
        None if names is None else tuple(names) for names in (table.push.branches, table.push.tags, table.push.force)
    )
    return Repository(
        name=name,
        upstream=table.upstream,
        private=table.private,
        ssh_key=Secret(key.env, _own_path(key.file), tuple(key.command or ())) if key is not None else None,
        known_hosts=table.known_hosts,
        push=Push(branches, tags, force, table.push.delete),
    )


def _limits(table: schema.ContainerLimits, default: Limits) -> Limits:
    return Limits(
        memory=table.memory or default.memory,
        cpus=float(table.cpus or default.cpus),
        pids=table.pids or default.pids,
        log_size=table.logs or default.log_size,
    )


def _faults_between_keys(spec: BottleSpec, bottle: str) -> Iterator[tuple[KeyPath, str]]:
    """What is right by itself and wrong together."""
    at = ("bottles", bottle)
    allowed = {*spec.allow, *(host.host for host in spec.hosts)}
    for each in spec.credentials:
        if each.host not in allowed and "git" not in each.consumers:
            yield (
                (*at, "credentials", each.name, "host"),
                f"{each.host!r} is not listed in egress.allow or egress.hosts",
            )
        if each.variable and not each.placeholder:
            yield (*at, "credentials", each.name, "variable"), "there is no placeholder that it could hold"
    daemons = spec.used_daemons
    if "egress" not in daemons:
        yield from _faults_without_egress(spec, at)
    if spec.repositories and "git-gate" not in daemons:
        yield (*at, "git", "repos"), "repositories need git-gate, which `daemons` leaves out"
    if (spec.answer_timeout, spec.max_questions) != (None, None) and "supervise" not in daemons:
        yield (*at, "supervise"), "`daemons` leaves supervise out"
    try:
        Subnets.drawn(spec.address_pool)
    except ValueError as error:
        yield ("address_pool",), f"no IPv4 network that has room: {error}"
    yield from _faults_of_project(spec)


def _faults_without_egress(spec: BottleSpec, at: tuple[str, str]) -> Iterator[tuple[KeyPath, str]]:
    if "pipelock" in spec.used_daemons:
        yield (*at, "daemons"), "pipelock needs egress behind it"
    if spec.credentials:
        yield (*at, "credentials"), "egress adds them, which `daemons` leaves out"
    for each in spec.repositories:
        if each.upstream is not None and each.upstream.startswith(PROXIED):
            yield (*at, "git", "repos", each.name, "upstream"), "is reached through egress, which `daemons` leaves out"


def _faults_of_project(spec: BottleSpec) -> Iterator[tuple[KeyPath, str]]:
    project, at = spec.agent.project, ("agents", spec.agent.name)
    for index, mount in enumerate(spec.agent.mounts):
        if not mount.source.exists():
            yield (*at, "mounts", index, "source"), f"{mount.source} is not there"
    for index, skill in enumerate(spec.agent.skills):
        if not skill.is_dir():
            yield (*at, "skills", index), f"{skill} is no directory"
    if project is None:
        return
    if project.mode == "clone" and project.repository not in {each.name for each in spec.repositories}:
        known = ", ".join(each.name for each in spec.repositories) or "none"
        yield (*at, "project", "repo"), f"{project.repository!r} is none of the bottle's repositories ({known})"
    if project.path is not None and not project.path.is_dir():
        yield (*at, "project", "path"), f"{project.path} is no directory"


__all__ = ["ManifestError", "Wishes", "again", "find", "from_document", "load", "own_sources"]
