"""A spec as the parts of a plan, the same for every backend. Pure functions."""

import ipaddress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from launcher import state
from launcher.agent_side import agent_command, agent_env, agent_files, project_binds
from launcher.plan import (
    GIT_URL,
    LABEL_AGENT,
    LABEL_OPERATOR,
    LABEL_STAGE,
    AgentPlan,
    BottlePlan,
    BundleSettings,
    Clone,
    File,
    PipelockProxyPlan,
    Volume,
)
from launcher.policy import ssh_key_name
from launcher.spec import HOST_RULES, KERNEL_RULES, BottleSpec, Project

DEFAULT_PORTS = (80, 443)
SCHEME_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}
Plan = TypeVar("Plan", bound=BottlePlan)


def proxy_plan(spec: BottleSpec, slug: str, stage_dir: Path) -> PipelockProxyPlan:
    """The bundle of a bottle, without its networks."""
    keys = [ssh_key_name(each) for each in spec.repositories if each.ssh_key is not None]
    return PipelockProxyPlan(
        yaml_path=stage_dir / "policy.toml",
        slug=slug,
        settings=BundleSettings(
            image=spec.image,
            daemons=spec.used_daemons,
            engine=spec.engine,
            net_admin=spec.walls == KERNEL_RULES or spec.engine == "pipelock",
            secrets=(*(each.name for each in spec.credentials), *keys),
            limits=spec.limits,
            lease=bool(spec.lease),
            agent_lease=_agent_lease(spec),
            host_rules_may_lack=HOST_RULES in spec.missing_walls,
            private=_private(spec),
            labels=((LABEL_STAGE, str(stage_dir)),),
        ),
    )


def _agent_lease(spec: BottleSpec) -> bool:
    """Whether agent and bundle end with each other: by the connection that the agent's init holds to supervise."""
    return spec.agent.init == "bottle" and "supervise" in spec.used_daemons


def _private(spec: BottleSpec) -> tuple[tuple[str, int], ...]:
    """What the manifest calls private, as addresses and ports; a name may lead to any address."""
    found: list[tuple[str, int]] = []
    for host in spec.hosts:
        if host.private:
            address, port = _host_and_port(host.host)
            found += [(address, each) for each in ((port,) if port else DEFAULT_PORTS)]
    for repository in spec.repositories:
        if repository.private and repository.upstream:
            parts = urlsplit(repository.upstream)
            found.append((_host_and_port(parts.netloc)[0], parts.port or SCHEME_PORTS.get(parts.scheme, 22)))
    return tuple(dict.fromkeys(found))


def _host_and_port(text: str) -> tuple[str, int]:
    """An IPv4 address, or nothing for a name, and the port, 0 for none."""
    parts = urlsplit(f"//{text}")
    try:
        return str(ipaddress.IPv4Address(parts.hostname or "")), parts.port or 0
    except ValueError:
        return "", parts.port or 0


def agent_plan(spec: BottleSpec, slug: str, stage_dir: Path) -> AgentPlan:
    """The agent of a bottle, without its network."""
    agent, project = spec.agent, spec.agent.project
    binds = tuple(agent.mounts)
    volumes: tuple[Volume, ...] = ()
    copied, clone = None, None
    plan = AgentPlan(slug=slug, user=agent.user)
    if project is not None:
        binds += project_binds(project) if project.mode == "bind" else ()
        volumes = () if project.mode == "bind" else (Volume("project", project.target),)
        if project.mode == "copy" and project.path is not None:
            copied = File(project.path, project.target, None, plan.ids)
        clone = _clone(spec, project) if project.mode == "clone" else None
    return replace(
        plan,
        image=agent.image,
        command=agent_command(agent),
        env=agent_env(spec),
        home=agent.home,
        workdir=agent.workdir or (project.target if project else ""),
        tty=agent.tty,
        init=agent.init,
        runtime=agent.runtime,
        limits=agent.limits,
        daemons=spec.used_daemons,
        transparent=spec.transparent,
        volumes=volumes,
        binds=binds,
        tmpfs=agent.writable,
        files=agent_files(spec, stage_dir, plan.ids),
        copied=copied,
        clone=clone,
        home_archive=agent.home_archive,
        lease=_agent_lease(spec),
        bundle_image=spec.image,
        labels=((LABEL_STAGE, str(stage_dir)),),
    )


def _clone(spec: BottleSpec, project: Project) -> Clone:
    (repository,) = (each for each in spec.repositories if each.name == project.repository)
    return Clone(repository.name, repository.upstream or f"{GIT_URL}/{repository.name}", project.target)


def labelled(plan: Plan, spec: BottleSpec) -> Plan:
    """The plan with the labels of its operator and its agent, which every object of it will bear."""
    labels = {LABEL_OPERATOR: state.operator(), LABEL_AGENT: spec.agent.name or spec.name}
    settings = plan.proxy.settings
    settings = replace(settings, labels=tuple((dict(settings.labels) | labels).items()))
    agent = replace(plan.agent, labels=tuple((dict(plan.agent.labels) | labels).items()))
    return replace(plan, proxy=replace(plan.proxy, settings=settings), agent=agent)
