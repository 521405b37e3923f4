"""A plan as a compose file: for people, for diffs, and for tools that know compose.

The launcher itself does not run it, because compose has no step between a service that is healthy and the next one:
the agent's container mounts a certificate that exists only once the bundle is up. For the same reason
`docker compose up` on it takes two calls, as its first lines say.
"""

from typing import Any

import yaml

from launcher.plan import PIPELOCK_CA_SOURCE, SIDECARS, BottlePlan, Mount, object_name
from launcher.sandbox import (
    AGENT_DNS,
    AGENT_DNS_OPTIONS,
    INTERNAL_OPTIONS,
    PIDS_LIMIT,
    SECURITY_OPTIONS,
    TMPFS,
    capabilities,
)

HEADER = """\
# Bottle {slug}, as the launcher starts it. Credentials are mounted from files beside this one and are not in it.
# By hand: docker compose up --wait sidecars
#          docker compose cp sidecars:{source} {target}
#          docker compose up agent
"""


def compose_yaml(plan: BottlePlan) -> str:
    """The compose file of a plan, whether its networks exist yet or not."""
    document = {
        "name": object_name(plan.slug, "compose"),
        "services": {SIDECARS: _bundle(plan), "agent": _agent(plan)},
        "networks": {
            "internal": {
                "name": object_name(plan.slug, "internal"),
                "internal": True,
                "driver_opts": dict(INTERNAL_OPTIONS),
                "labels": dict(plan.labels("internal")),
            },
            "egress": {"name": object_name(plan.slug, "egress"), "labels": dict(plan.labels("egress"))},
        },
    }
    target = next((mount.source for mount in plan.agent.mounts), "")
    header = HEADER.format(slug=plan.slug, source=PIPELOCK_CA_SOURCE, target=target)
    return header + yaml.safe_dump(_escaped(document), sort_keys=False, width=120)


def _escaped(value: Any) -> Any:
    """Compose replaces `$NAME` in every string of the file; `$$` is a dollar sign."""
    match value:
        case str():
            return value.replace("$", "$$")
        case dict():
            return {key: _escaped(each) for key, each in value.items()}
        case list():
            return [_escaped(each) for each in value]
    return value


def _bundle(plan: BottlePlan) -> dict[str, Any]:
    bundle = plan.bundle
    return {
        "container_name": bundle.name,
        "image": bundle.image,
        "labels": dict(plan.labels("sidecars")),
        "environment": dict(bundle.env),
        "read_only": True,
        "tmpfs": list(TMPFS),
        "cap_drop": ["ALL"],
        "cap_add": list(capabilities(redirect=bundle.redirect)),
        "security_opt": list(SECURITY_OPTIONS),
        "pids_limit": PIDS_LIMIT,
        "volumes": [_volume(mount) for mount in bundle.mounts],
        "networks": {"internal": {"aliases": [SIDECARS]}, "egress": {}},
    }


def _agent(plan: BottlePlan) -> dict[str, Any]:
    agent = plan.agent
    service: dict[str, Any] = {
        "container_name": agent.name,
        "image": agent.image,
        "labels": dict(plan.labels("agent")),
        "depends_on": {SIDECARS: {"condition": "service_healthy"}},
        "user": agent.user,
        "environment": dict(agent.env),
        "cap_drop": ["ALL"],
        "security_opt": list(SECURITY_OPTIONS),
        "pids_limit": PIDS_LIMIT,
        "dns": [AGENT_DNS],
        "dns_search": ["."],
        "dns_opt": list(AGENT_DNS_OPTIONS),
        "volumes": [_volume(mount) for mount in agent.mounts],
        "networks": ["internal"],
    }
    if agent.command:
        service["command"] = list(agent.command)
    if agent.tty:
        service |= {"tty": True, "stdin_open": True}
    return service


def _volume(mount: Mount) -> dict[str, Any]:
    return {"type": "bind", "source": str(mount.source), "target": mount.target, "read_only": True}
