"""What only the engine knows of a plan: its images, its runtimes, its version."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from launcher.backend.docker.bottle_plan import DockerBottlePlan
from launcher.docker import Result, docker
from launcher.errors import LauncherError

# The image says so where it has the real pipelock, which needs the redirect that NET_ADMIN alone can set.
LABEL_ENGINE = "bottle.pipelock.engine"
GVISOR = "runsc"
START_INTERVAL_SINCE = 25
"""The first version of engine and client that knows `--health-start-interval`."""
_INFO = "{{json .Runtimes}}\n{{json .ServerVersion}}\n{{json .ClientInfo}}\n{{json .ID}}"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What was asked once, before anything is made."""

    images: Mapping[str, Mapping[str, Any]]
    runtimes: tuple[str, ...] = ()
    start_interval: bool = False
    """Whether engine and client are both new enough for one."""
    engine_id: str = ""


def engine_facts(plan: DockerBottlePlan) -> EngineFacts:
    """Ask for the images and for the engine itself, side by side.

    Raises `LauncherError` for an image that is not there: the launcher never pulls; what runs was built
    or pulled on purpose.
    """
    names = tuple(dict.fromkeys((plan.proxy.settings.image, plan.agent.image)))
    with ThreadPoolExecutor(2) as pool:
        told = pool.submit(docker, "info", "--format", _INFO, check=False)
        images = dict(zip(names, find_images(*names), strict=True))
        return facts_in(images, told.result())


def facts_in(images: Mapping[str, Mapping[str, Any]], told: Result) -> EngineFacts:
    """What is in the answer of `docker info`. Podman has no such fields: its runtimes are in its own configuration."""
    if told.code:
        return EngineFacts(images)
    runtimes, engine, client, engine_id = (json.loads(line) for line in told.stdout.splitlines())
    versions = (engine or "", (client or {}).get("Version") or "")
    knows = all(_major(each) >= START_INTERVAL_SINCE for each in versions)
    return EngineFacts(images, tuple(runtimes), knows, engine_id or "")


def _major(version: str) -> int:
    """The first number of a version; 0 where none is told, as by clients before 23."""
    number = version.partition(".")[0]
    return int(number) if number.isdigit() else 0


def find_images(*names: str) -> list[dict[str, Any]]:
    """What the engine knows of these images, in one call; raises `LauncherError` for one that is not there."""
    result = docker("image", "inspect", "--", *names, check=False)
    found: list[dict[str, Any]] = json.loads(result.stdout) if result.stdout.strip() else []
    if result.code == 0:
        return found
    missing = [
        line.rpartition(": ")[2].strip() for line in result.stderr.splitlines() if "no such image" in line.lower()
    ]
    if not missing:
        raise LauncherError(f"docker image inspect: {result.stderr.strip()}")
    raise LauncherError(
        "\n".join(f"the image {name} is not on this engine" for name in missing),
        hint="`bottle build` builds the image of an agent, `make image` the bundle's; nothing is pulled by itself",
    )


def fitted(plan: DockerBottlePlan, facts: EngineFacts) -> DockerBottlePlan:
    """The plan with what the engine's facts decide.

    Raises `LauncherError` where an image does not fit.
    """
    bundle, image = facts.images[plan.proxy.settings.image], facts.images[plan.agent.image]
    # Podman tells of it outside of the configuration.
    if not ((bundle["Config"] or {}).get("Healthcheck") or bundle.get("HealthCheck") or bundle.get("Healthcheck")):
        raise LauncherError(
            f"the image {plan.proxy.settings.image} has no HEALTHCHECK: it is no bundle's",
            hint="`make image` builds the bundle's image",
        )
    config = image["Config"] or {}
    command = plan.agent.command
    if not command:
        command = (*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ()))
        if not command:
            raise LauncherError(
                f"the image {plan.agent.image} has no command of its own", hint="set agents.NAME.command"
            )
    if plan.agent.init == "bottle" and image["Architecture"] != bundle["Architecture"]:
        raise LauncherError(
            f"the agent's image is for {image['Architecture']}, and its first process would be for "
            f"{bundle['Architecture']}",
            hint='init = "engine" takes the engine\'s own init: the agent then does not end with its bundle',
        )
    labels = (bundle["Config"] or {}).get("Labels") or {}
    real = plan.proxy.settings.engine == "auto" and labels.get(LABEL_ENGINE) == "pipelock"
    settings = plan.proxy.settings
    runtime = plan.agent.runtime
    if runtime == "auto":
        runtime = GVISOR if GVISOR in facts.runtimes else ""
    return replace(
        plan,
        proxy=replace(
            plan.proxy,
            settings=replace(
                settings,
                net_admin=settings.net_admin or real,
                checked_from_the_start=facts.start_interval,
            ),
        ),
        agent=replace(plan.agent, command=tuple(command), runtime="" if runtime == "runc" else runtime),
    )
