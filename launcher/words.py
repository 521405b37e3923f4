"""A bottle in words: what it will be allowed, given and run, before anything is started."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from launcher.agent_side import agent_command
from launcher.cli.console import printable
from launcher.plan import BottlePlan
from launcher.spec import HOST_RULES, KERNEL_RULES, BottleSpec, Credential, Host, Repository

MISSING = {
    HOST_RULES: "rules on the engine's host: without them datagrams of the agent may reach the host's services",
    KERNEL_RULES: "rules in the bundle: without them every daemon of it reaches what every other one does",
}
"""What a wall is against, in words for whoever does without it."""


def in_words(spec: BottleSpec, lost: tuple[tuple[str, str], ...] = ()) -> Group:
    """The plan for a person's eye; `lost` are the walls that the engine cannot have, and why."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    for title, lines in (*_sections(spec), *((f"NO {wall}", [why]) for wall, why in lost)):
        for index, line in enumerate(lines):
            # A project's own file may have said it: it must not move the cursor over what else stands here.
            table.add_row(title if index == 0 else "", Text(printable(line)))
    return Group(Text(f"{spec.agent.name or spec.name}", style="bold underline"), table)


def _sections(spec: BottleSpec) -> Iterator[tuple[str, list[str]]]:
    agent = spec.agent
    yield "runs", [shlex.join(agent_command(agent)) or "the image's own command"]
    yield "in", [f"{agent.image}, as {agent.user}, home {agent.home}" + (", with your terminal" if agent.tty else "")]
    yield "reaches", [*spec.allow, *map(_host, spec.hosts)] or ["nothing"]
    yield "credentials", [_credential(each) for each in spec.credentials] or ["none"]
    yield "repositories", [_repository(each) for each in spec.repositories] or ["none"]
    yield "project", [_project(spec)]
    if agent.mounts:
        yield (
            "mounts",
            [f"{each.source} at {each.target}" + ("" if each.read_only else ", writable") for each in agent.mounts],
        )
    if agent.skills:
        yield "skills", [str(each) for each in agent.skills]
    if agent.prompt:
        yield "prompt", agent.prompt.splitlines()[:3]
    yield "daemons", [", ".join(spec.used_daemons)]
    yield "limits", [f"agent {_limits(agent.limits)}; bundle {_limits(spec.limits)}"]
    for wall in spec.missing_walls:
        yield "MAY LACK", [MISSING[wall]]
    yield "read from", [str(each) for each in spec.sources] or ["nothing"]


def _host(host: Host) -> str:
    words = [host.host]
    words += [" ".join(host.methods)] if host.methods else []
    words += [" ".join(host.paths)] if host.paths else []
    words += ["for git alone"] if host.consumers == ("git",) else ["for git too"] if "git" in host.consumers else []
    words += ["may be a private address"] if host.private else []
    words += [f"a secret in a request: {host.on_secret}"] if host.on_secret != "block" else []
    return ", ".join(words)


def _credential(each: Credential) -> str:
    bound = f", {' '.join((*each.methods, *each.paths))} alone" if each.methods or each.paths else ""
    instead = f"; the agent holds {each.placeholder!r}" if each.placeholder else ""
    unset = each.secret.env is not None and not os.environ.get(each.secret.env)
    source = f"{each.secret} (not set here: `up` needs it)" if unset else str(each.secret)
    return f"{each.name}: {each.header} for {each.host}{bound}, from {source}{instead}"


def _repository(each: Repository) -> str:
    push = f", may push {', '.join(each.push.branches)}" if each.push.branches is not None else ""
    return f"{each.name}: {each.upstream or 'lives in the bundle alone'}{push}"


def _project(spec: BottleSpec) -> str:
    project = spec.agent.project
    if project is None:
        return "none: what is not pushed when the bottle goes is kept as an archive"
    if project.mode == "clone":
        return f"a clone of {project.repository} at {project.target}"
    linked = project.path is not None and (project.path / ".git").is_file()
    no_git = "; git does not work there, as this work tree's repository is elsewhere" if linked else ""
    if project.mode == "copy":
        return f"a copy of {project.path} at {project.target}; `bottle diff` and `bottle apply` bring it home{no_git}"
    return f"{project.path} itself at {project.target}, writable{no_git}"


def _limits(limits: Any) -> str:
    memory, log = f"{limits.memory / 2**30:g} GiB", f"{limits.log_size / 2**20:g} MiB of log"
    return f"{memory}, {limits.cpus:g} CPUs, {limits.pids} processes, {log}"


def as_data(spec: BottleSpec, plan: BottlePlan, lost: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """The plan for programs: the spec with where its secrets come from, and never a value; and what is made."""
    data: dict[str, Any] = _plain(asdict(spec))
    data["used_daemons"] = list(spec.used_daemons)
    data["missing_walls"] = list(spec.missing_walls)
    data["lost_walls"] = dict(lost)
    data["containers"] = {"sidecars": plan.proxy.name, "agent": plan.agent.name}
    data["agent"]["variables"] = dict(plan.agent.env)
    return data


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case Path():
            return str(value)
    return value
