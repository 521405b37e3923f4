"""The rule by place: who may say what a bottle may do is decided by where a file lies, and by nothing else.

Bottles are read from ~/.claude-bottle/ and from a file that the operator names. What lies in a directory that an agent
is given may be written by an agent, so nothing that opens a wall, and nothing that the operator's machine runs or reads
a secret from, is taken from there.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from launcher import state
from launcher.manifest.lines import Path as KeyPath
from launcher.manifest.schema import Project
from launcher.manifest.source import Fault, Source
from launcher.spec import BottleSpec

PROJECT_FILE = ".claude-bottle.toml"
WALLS = ("bottles", "address_pool", "notify")


def is_own(path: Path) -> bool:
    """Whether a file lies in ~/.claude-bottle/, wherever links lead."""
    return path.resolve().is_relative_to(state.own_root().resolve())


def project_file(start: Path) -> Path | None:
    """The project's own manifest: in the directory, or above it up to the root of its git work tree."""
    for directory in (start, *start.parents):
        if (directory / PROJECT_FILE).is_file():
            return directory / PROJECT_FILE
        if (directory / ".git").exists() or directory == Path.home():
            break
    return None


def faults_of_project_file(source: Source) -> Iterator[Fault]:
    """What a project's own file says and may not: whoever writes the repository would say it."""
    for key in WALLS:
        if key in source.tables:
            path: KeyPath = (key, *list(source.tables[key])[:1]) if isinstance(source.tables[key], dict) else (key,)
            yield Fault(path, f"not in a project's own file; it belongs into {state.own_root()}/")
    root = source.path.parent.resolve()
    for name, agent in source.manifest.agents.items():
        for index, mount in enumerate(agent.mounts):
            if not Path(mount.source).expanduser().resolve().is_relative_to(root):
                yield Fault(
                    ("agents", name, "mounts", index, "source"),
                    "a project's own file mounts nothing but of the project",
                )
        for index, skill in enumerate(agent.skills):
            if not _below(root, skill).is_relative_to(root):
                yield Fault(("agents", name, "skills", index), "lies outside of the project")
        place = agent.project.path if isinstance(agent.project, Project) else None
        if place is not None and not _below(root, place).is_relative_to(root):
            yield Fault(("agents", name, "project", "path"), "lies outside of the project")


def _below(root: Path, text: str) -> Path:
    return (root / Path(text).expanduser()).resolve()


def given(spec: BottleSpec) -> list[Path]:
    """The directories of the operator's machine that the agent is given, or gets a copy of, links resolved."""
    mounts = [mount.source for mount in spec.agent.mounts]
    project = spec.agent.project
    return [path.resolve() for path in (*mounts, *((project.path,) if project and project.path else ()))]


def faults_of_place(spec: BottleSpec, bottles: Sequence[Source]) -> Iterator[tuple[Source | None, Fault]]:
    """Whatever decides about the walls, or is run or read on the operator's machine, and lies where an agent writes.

    `bottles` are the files that say what the bottle is; the fault of no file is the project's own.
    """
    roots = given(spec)
    for root in roots:
        if state.own_root().resolve().is_relative_to(root):
            yield (
                None,
                Fault((), f"{root} holds {state.own_root()}, where bottles are described: an agent may not have it"),
            )
    for source in bottles:
        if _in_any(roots, source.path):
            first = next(iter(source.manifest.bottles), "")
            fault = f"this file lies in what the agent is given, so it may not say what a bottle is ({source.path})"
            yield source, Fault(("bottles", first), fault)
    for where, path in _files(spec):
        if _in_any(roots, path):
            yield None, Fault((), f"{where}: {path} lies in what the agent is given: the agent could change it")


def _in_any(roots: Sequence[Path], path: Path) -> bool:
    return any(path.resolve().is_relative_to(root) for root in roots)


def _files(spec: BottleSpec) -> Iterator[tuple[str, Path]]:
    if spec.agent.dockerfile is not None:
        yield "dockerfile", spec.agent.dockerfile
    if spec.upstream_ca is not None:
        yield "egress.upstream_ca", spec.upstream_ca
    secrets = [(f"credentials.{each.name}", each.secret) for each in spec.credentials]
    secrets += [(f"git.repos.{each.name}.ssh_key", each.ssh_key) for each in spec.repositories if each.ssh_key]
    for where, secret in secrets:
        if secret.file is not None:
            yield where, secret.file
        for word in secret.command:
            path = Path(word).expanduser()
            if "/" in word and path.exists():
                yield where, path
