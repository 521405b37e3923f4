"""The Docker backend: it plans, and its hands carry out what `render` makes of the plan."""

import ipaddress
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from launcher import state
from launcher.backend.base import BottleBackend, Running, Tell
from launcher.backend.docker.agent import Agent
from launcher.backend.docker.bottle_plan import DockerBottlePlan
from launcher.backend.docker.compose import compose_yaml
from launcher.backend.docker.facts import engine_facts, fitted
from launcher.backend.docker.listing import KINDS, listed
from launcher.backend.docker.look import look
from launcher.backend.docker.pipelock import PipelockProxy
from launcher.backend.docker.removal import attempt, exit_code, remove
from launcher.backend.docker.render import early_steps, render, render_networks, without
from launcher.backend.docker.sweep import sweep
from launcher.docker import Command, CommandError, beside, docker, docker_json, foreground, run
from launcher.errors import LauncherError
from launcher.finding import Finding
from launcher.interrupts import HeldSignals, hold_signals
from launcher.plan import (
    BUNDLE_IMAGE,
    LABEL_OPERATOR,
    LABEL_ROLE,
    LABEL_SLUG,
    BottlePlan,
    PipelockProxyPlan,
    Subnets,
    new_slug,
    object_name,
    pipelock_container_name,
    slug_of,
)
from launcher.planning import agent_plan, labelled, proxy_plan
from launcher.spec import BottleSpec
from launcher.staging import prepare_proxy, staged
from launcher.steps import LOOK_S, Hands, Step, in_order

DRAWS = 32
TAKEN = ("overlaps with other one on this address space", "is already used on the host or by another config")
"""What Docker and Podman say of addresses that another network has."""
LAST_LINES = 25
TOLD_WITHIN_S = 5.0
"""Within which the engine tells of an agent's end after that of its bundle, which ends because of it."""


Plan = TypeVar("Plan", bound=DockerBottlePlan)


class DockerBottleBackend(BottleBackend):
    """A bottle on the Docker engine that the `docker` command reaches."""

    name = "docker"
    LEASES = True
    """Whether the engine closes a container's standard input once the first client attached to it is gone."""

    def __init__(self) -> None:
        self._proxy, self._agent = PipelockProxy(), Agent()

    def plan(self, spec: BottleSpec, stage_dir: Path) -> DockerBottlePlan:
        stage_dir = stage_dir.absolute()
        slug = spec.slug or new_slug(spec.name)
        proxy = proxy_plan(spec, slug, stage_dir)
        if not self.LEASES:
            proxy = replace(proxy, settings=replace(proxy.settings, lease=False))
        return DockerBottlePlan(
            slug=slug,
            stage_dir=stage_dir,
            proxy=proxy,
            agent=agent_plan(spec, slug, stage_dir),
            compose_path=stage_dir / "compose.yaml",
            address_pool=spec.address_pool,
        )

    def prepare_proxy(self, spec: BottleSpec, stage_dir: Path) -> PipelockProxyPlan:
        """Write the proxy's policy into `stage_dir`, and plan the proxy: its networks stay empty.

        Raises `LauncherError` where the authority of its origins can't be read.
        """
        return prepare_proxy(spec, stage_dir)

    def prepare(self, spec: BottleSpec, stage_dir: Path) -> DockerBottlePlan:
        spec = replace(spec, slug=spec.slug or new_slug(spec.name))
        plan = labelled(self.plan(spec, stage_dir), spec)
        with staged(spec, plan, self.name):
            state.write(plan.compose_path, compose_yaml(plan), mode=0o600)
        return plan

    def launch(self, plan: BottlePlan, tell: Tell = lambda _line: None, *, start: bool = True) -> str:
        assert isinstance(plan, DockerBottlePlan)
        with hold_signals() as held:
            try:
                name = self._launch(plan, held, tell, start=start)
                held.check()
            except BaseException as error:
                words = _words_of_bundle(plan.proxy.name) if isinstance(error, CommandError) else None
                remove(plan.slug, {plan.stage_dir}, tell, keep_history=False)
                if words is not None:
                    raise words from None
                raise
        return name

    def _launch(self, plan: DockerBottlePlan, held: HeldSignals, tell: Tell, *, start: bool) -> str:
        began = time.monotonic()
        with state.held(plan.stage_dir), ThreadPoolExecutor(1) as pool, Hands(held) as hands:
            asked = pool.submit(engine_facts, plan)
            hands.begin(self.carried_out(early_steps(plan)))
            plan = self.with_free_networks(plan, held)
            facts = asked.result()
            state.note(plan.stage_dir, engine_id=facts.engine_id)
            plan = fitted(plan, facts)
            steps = self.carried_out(without(render(plan), "internal.create", "egress.create"))
            hands.begin(steps if start else steps[:-1])
            bundle = self._proxy.start(plan.proxy, hands)
            with beside(Command(("docker", "wait", bundle))) as bundle_has_ended:
                hands.finish(*(step.name for step in steps[:-1]), look=_gate_guard(plan, bundle_has_ended))
                tell(f"{bundle} is healthy after {time.monotonic() - began:.1f} s, and the walls stand")
                state.discard_secrets(plan.stage_dir)
                return self._agent.start(plan.agent, hands) if start else plan.agent.name

    def attach(self, target: str, tty: bool, sleep: Callable[[float], None], *, started: bool = True) -> int:
        with _while_bundle_runs(target, sleep) as look:
            shows: tuple[str, ...] = ("attach",) if started else ("start", "--attach", "--interactive")
            if tty:
                return foreground(Command(("docker", *shows, target)), look)
            shows = ("logs", "--follow") if started else ("start", "--attach")
            foreground(Command(("docker", *shows, target)), look)
            # The logs may end before the agent: the reader has gone, or the engine keeps none.
            return _wait_ended(target, look)

    def wait(self, target: str, sleep: Callable[[float], None]) -> int:
        with _while_bundle_runs(target, sleep) as look:
            return _wait_ended(target, look)

    def leased(self, target: str) -> AbstractContextManager[object]:
        if not self.LEASES:
            return nullcontext()
        bundle = pipelock_container_name(slug_of(target))
        return beside(Command(("docker", "attach", "--sig-proxy=false", bundle)), stdin=True)

    def stop(self, target: str, tell: Tell = lambda _line: None) -> bool:
        slug = slug_of(target)
        with hold_signals():
            return remove(slug, {state.state_root() / slug}, tell)

    def steps(self, plan: BottlePlan) -> tuple[Step, ...]:
        assert isinstance(plan, DockerBottlePlan)
        filled = plan if plan.proxy.subnets else plan.with_networks(Subnets.drawn(plan.address_pool))
        return in_order(self.carried_out(render(filled)))

    def networks(self, plan: DockerBottlePlan) -> tuple[Step, ...]:
        """The steps that make the networks of a plan that is filled in; each ends with the network's name."""
        return self.carried_out(render_networks(plan))

    def with_free_networks(self, plan: Plan, held: HeldSignals) -> Plan:
        """Make the networks, at addresses that are free, and fill them in."""
        for _ in range(DRAWS):
            held.check()
            filled = plan.with_networks(Subnets.drawn(plan.address_pool))
            steps = self.networks(filled)
            with ThreadPoolExecutor(2) as pool:
                results = list(pool.map(lambda step: run(step.command, check=False), steps))
            if all(result.code == 0 for result in results):
                return filled
            for step, result in zip(steps, results, strict=True):
                if result.code and not any(words in result.stderr for words in TAKEN):
                    raise CommandError(step.command.argv, result)
                if result.code == 0:
                    attempt("network", "rm", step.command.argv[-1])
        raise LauncherError(
            f"no free network of 32 addresses was found in {plan.address_pool}",
            hint="`bottle prune` removes what killed launchers left; address_pool in the manifest names another range",
        )

    def carried_out(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """The steps in the words of the engine at hand; Docker's are as they were rendered."""
        return steps

    def running(self, slug: str = "", *, operator: str = "", containers_alone: bool = False) -> tuple[Running, ...]:
        conditions = [f"{LABEL_SLUG}={slug}" if slug else LABEL_SLUG]
        conditions += [f"{LABEL_OPERATOR}={operator}"] if operator else []
        return listed(*conditions, kinds=("container",) if containers_alone else KINDS)

    def in_bundle(self, slug: str, *command: str, stdin: bool = False, tty: bool = False, user: str = "") -> Command:
        options = (*(("--interactive",) if stdin or tty else ()), *(("--tty",) if tty else ()))
        options = (*options, *(("--user", user) if user else ()))
        return Command(("docker", "exec", *options, pipelock_container_name(slug), *command))

    def in_agent(self, slug: str, *command: str, tty: bool = False) -> Command:
        options = ("--interactive", "--tty") if tty else ("--interactive",)
        return Command(("docker", "exec", *options, object_name(slug, "agent"), *command))

    def archive(self, slug: str, place: str) -> Command:
        return Command(("docker", "cp", f"{object_name(slug, 'agent')}:{place}", "-"))

    def volumes(self, slug: str) -> frozenset[str]:
        prefix = object_name(slug, "")
        names = docker("volume", "ls", "--quiet", "--filter", f"name={prefix}").stdout.split()
        return frozenset(name.removeprefix(prefix) for name in names if name.startswith(prefix))

    @contextmanager
    def looking(
        self, slug: str, facts: Mapping[str, Any], volumes: Mapping[str, str], *command: str
    ) -> Iterator[Command]:
        """A container without a network. It is gone after the block, even if the client that started it was killed."""
        name = object_name(slug, f"look-{secrets.token_hex(3)}")
        labels = ((LABEL_SLUG, slug), (LABEL_ROLE, "look"))
        mounts = [
            word
            for role, target in volumes.items()
            for word in ("--mount", f"type=volume,source={object_name(slug, role)},target={target},readonly")
        ]
        try:
            yield Command((
                *("docker", "run", "--rm", "--pull", "never", "--network", "none", "--read-only", "--cap-drop", "ALL"),
                *("--cap-add", "DAC_OVERRIDE", "--security-opt", "no-new-privileges", "--user", "0:0", "--name", name),
                *(word for key, value in labels for word in ("--label", f"{key}={value}")),
                *("--mount", "type=volume,target=/scratch", "--env", "SCRATCH=/scratch", *mounts, "--no-healthcheck"),
                *("--entrypoint", command[0], str(facts.get("bundle_image") or BUNDLE_IMAGE), *command[1:]),
            ))  # fmt: skip
        except BaseException:
            docker("container", "rm", "--force", "--volumes", name, check=False)
            raise

    def on_host(self, slug: str, *command: str) -> Command:
        labels = ("--label", f"{LABEL_SLUG}={slug}", "--label", f"{LABEL_ROLE}=neighbour")
        confined = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only", "--no-healthcheck")
        options = ("--rm", "--pull", "never", "--network", "host", "--user", "65534:65534", *labels, *confined)
        return Command(("docker", "run", *options, "--entrypoint", command[0], BUNDLE_IMAGE, *command[1:]))

    def host_addresses(self, slug: str) -> tuple[str, ...]:
        names = (object_name(slug, "internal"), object_name(slug, "egress"), "bridge")
        found = docker_json("network", "inspect", *names)
        subnets = [ipaddress.ip_network(config["Subnet"]) for each in found for config in each["IPAM"]["Config"]]
        return tuple(str(subnet[1]) for subnet in subnets)

    def bundle_address_outside(self, slug: str) -> str:
        (found,) = docker_json("container", "inspect", pipelock_container_name(slug))
        return str(found["NetworkSettings"]["Networks"][object_name(slug, "egress")]["IPAddress"])

    def look(self, tell: Tell) -> Generator[Finding, None, bool]:
        return look(tell)

    def logs(self, slug: str, role: str, *, follow: bool = False) -> Command:
        options = ("--timestamps", *(("--follow",) if follow else ()))
        return Command(("docker", "logs", *options, object_name(slug, role)))

    def prune(
        self, tell: Tell = lambda _line: None, keep_work: Callable[[str], bool] = lambda _slug: True
    ) -> tuple[str, ...]:
        return (*super().prune(tell, keep_work), *sweep())

    def noted(self) -> tuple[str, ...]:
        """Those of other engines (`DOCKER_HOST`, `docker context`) are left out, as far as their notes tell."""
        ids = {slug: state.noted_of(slug, "engine_id") for slug in super().noted()}
        if not any(ids.values()):
            return tuple(ids)
        present = docker("info", "--format", "{{.ID}}").stdout.strip()
        return tuple(slug for slug, engine_id in ids.items() if engine_id in ("", present))


def _gate_guard(plan: DockerBottlePlan, bundle_has_ended: Callable[[], bool]) -> Callable[[], None]:
    """Ends the gate's waiting as soon as there is nothing left to wait for."""
    ended = False

    def look() -> None:
        nonlocal ended
        if not ended and bundle_has_ended():
            ended = True
            docker("container", "rm", "--force", object_name(plan.slug, "gate"), check=False)

    return look


def _words_of_bundle(bundle: str) -> LauncherError | None:
    """Why a bundle is not up, in its own words, where it has ended by itself; `None` while it runs or is not there."""
    inspected = docker("container", "inspect", "--format", "{{.State.Status}}", bundle, check=False)
    if inspected.stdout.strip() != "exited":
        return None
    return _no_health(bundle, f"ended with {exit_code(bundle)}")


def _no_health(container: str, what: str) -> LauncherError:
    """The error for a bundle that is not there for its agent, with its last lines: they are the reason."""
    logs = docker("logs", "--tail", str(LAST_LINES), container, check=False)
    lines = (logs.stdout + logs.stderr).strip()
    return LauncherError(f"{container} {what}", hint=f"its last lines:\n{lines}" if lines else "it said nothing")


@contextmanager
def _while_bundle_runs(target: str, sleep: Callable[[float], None]) -> Iterator[Callable[[float], None]]:
    """A `sleep` that raises `LauncherError` as soon as the bundle of an agent's container has ended before the agent.

    The bundle ends by itself once its agent has gone, and the engine may tell of both ends in any order.
    """
    bundle = pipelock_container_name(slug_of(target))
    agent_was_first: bool | None = None
    since_s = 0.0
    with beside(Command(("docker", "wait", bundle))) as bundle_has_ended:

        def look(seconds: float) -> None:
            nonlocal agent_was_first, since_s
            sleep(seconds)
            if agent_was_first or not bundle_has_ended():
                return
            since_s = since_s or time.monotonic()
            agent_was_first = _ended_first(target, bundle)
            if agent_was_first is None and time.monotonic() - since_s < TOLD_WITHIN_S:
                return
            if not agent_was_first:
                raise _no_health(bundle, f"ended with {exit_code(bundle)}, so the agent has no way out any more")

        yield look


def _ended_first(container: str, other: str) -> bool | None:
    """Whether a container ended before another one, which has ended; `None` where it runs and may be about to end, as
    the other one ended with success.
    """
    template = "{{.State.Running}} {{.State.ExitCode}} {{.State.FinishedAt}}"
    found = docker("container", "inspect", "--format", template, container, other, check=False)
    if found.code:
        return False
    (runs, _, ended_at), (_, code, other_ended_at) = (line.split() for line in found.stdout.splitlines())
    if runs == "true":
        return None if code == "0" else False
    # RFC 3339 in UTC, with as many digits as are needed.
    return ended_at.removesuffix("Z") <= other_ended_at.removesuffix("Z")


def _wait_ended(container: str, look: Callable[[float], None]) -> int:
    """A container's exit code, once it has ended. Raises `CommandError` where it is gone."""
    with beside(Command(("docker", "wait", container))) as has_ended:
        while not has_ended():
            look(LOOK_S)
    return int(docker("container", "inspect", "--format", "{{.State.ExitCode}}", container).stdout)
