"""A plan as a compose file: for people, for diffs, and for tools that know compose.

The launcher itself does not run it: compose has no step between a bundle that is up and an agent that starts in which
the gate could ask whether the walls stand, none that sets rules on the host, and none that puts files into volumes.
"""

from typing import Any

import yaml

from launcher.backend.docker.bottle_plan import DockerBottlePlan
from launcher.containers import Container, agent, bundle
from launcher.plan import SIDECARS, bridge_name, object_name
from launcher.sandbox import BRIDGE_OPTION, INTERNAL_OPTIONS, SECURITY_OPTIONS, seccomp_profile

HEADER = """\
# Bottle {slug}, as the launcher starts it. To read and to compare: the files in its volumes, the rules on the engine's
# host and the gate before the agent are the launcher's own.
"""


def compose_yaml(plan: DockerBottlePlan) -> str:
    """The compose file of a plan, whether its networks exist yet or not."""
    containers = {SIDECARS: bundle(plan.proxy), "agent": agent(plan.agent)}
    services = {role: _service(container) for role, container in containers.items()}
    services[SIDECARS]["networks"] = {"internal": {"aliases": [SIDECARS]}, "egress": {}}
    services["agent"] |= {"networks": ["internal"], "depends_on": {SIDECARS: {"condition": "service_healthy"}}}
    roles = {volume.role: name for each in containers.values() for name, volume in each.volumes}
    document = {
        "name": object_name(plan.slug, "compose"),
        "services": services,
        "networks": {
            "internal": {
                "internal": True,
                "driver_opts": {**dict(INTERNAL_OPTIONS), BRIDGE_OPTION: bridge_name(plan.slug, "internal")},
                **_named(plan, "internal"),
            },
            "egress": {
                "driver_opts": {BRIDGE_OPTION: bridge_name(plan.slug, "egress")},
                **_named(plan, "egress"),
            },
        },
        "volumes": {role: {"name": name, "labels": dict(plan.labels(role))} for role, name in roles.items()},
    }
    return HEADER.format(slug=plan.slug) + yaml.safe_dump(_escaped(document), sort_keys=False, width=120)


def _named(plan: DockerBottlePlan, role: str) -> dict[str, Any]:
    return {"name": object_name(plan.slug, role), "labels": dict(plan.labels(role))}


def _service(container: Container) -> dict[str, Any]:
    """A container in compose's words; what is not said is left out."""
    each = container
    words: dict[str, Any] = {
        "container_name": each.name,
        "image": each.image,
        "labels": dict(each.labels),
        "user": each.user,
        "entrypoint": [each.entrypoint] if each.entrypoint else [],
        "command": list(each.command),
        "environment": dict(each.env),
        "working_dir": each.workdir,
        "read_only": each.read_only,
        "tmpfs": list(each.tmpfs),
        "cap_drop": ["ALL"],
        "cap_add": list(each.capabilities),
        "security_opt": [*SECURITY_OPTIONS, f"seccomp={seccomp_profile()}"],
        "sysctls": dict(each.sysctls),
        "extra_hosts": [f"{name}:{address}" for name, address in each.hosts],
        "dns": list(each.dns),
        "dns_search": ["."] if each.dns else [],
        "dns_opt": list(each.dns_options),
        "runtime": each.runtime,
        "volumes": [
            *(
                {"type": "volume", "source": volume.role, "target": volume.target, "read_only": volume.read_only}
                for _, volume in each.volumes
            ),
            *(
                {"type": "bind", "source": str(bind.source), "target": bind.target, "read_only": bind.read_only}
                for bind in each.binds
            ),
        ],
        "stdin_open": each.interactive,
        "tty": each.tty,
        "init": each.engine_init,
    }
    if each.limits is not None:
        words |= {
            "mem_limit": each.limits.memory,
            "memswap_limit": each.limits.memory,
            "cpus": each.limits.cpus,
            "pids_limit": each.limits.pids,
            "logging": {
                "driver": "json-file",
                "options": {"max-size": str(each.limits.log_size // 2), "max-file": "2"},
            },
        }
    return {key: value for key, value in words.items() if value not in ("", [], {}, False)}


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
