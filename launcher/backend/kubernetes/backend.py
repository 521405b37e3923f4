"""The Kubernetes backend: `kubectl` carries out what `render` makes of the plan.

Secrets go by standard input into the bundle that runs, and rest in no object of the cluster's.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from launcher import history, state
from launcher.backend.base import BottleBackend, Running, Tell
from launcher.backend.docker.render import PUBLISH
from launcher.backend.kubernetes.bottle_plan import Cluster, KubernetesBottlePlan
from launcher.backend.kubernetes.kubectl import kubectl
from launcher.backend.kubernetes.look import look
from launcher.backend.kubernetes.render import (
    AGENT,
    BUNDLE,
    KEEPER,
    LOST,
    PUBLISHED,
    SCRATCH_DIR,
    Document,
    agent,
    as_yaml,
    bundle,
    filtered,
    walls,
)
from launcher.backend.shared import each_second
from launcher.docker import Command, CommandError, foreground
from launcher.errors import LauncherError
from launcher.finding import Finding
from launcher.interrupts import hold_signals
from launcher.plan import (
    LABEL_AGENT,
    LABEL_OPERATOR,
    LABEL_ROLE,
    LABEL_SLUG,
    BottlePlan,
    new_slug,
    object_name,
    slug_of,
)
from launcher.planning import agent_plan, labelled, proxy_plan
from launcher.policy import secret_path
from launcher.spec import BottleSpec
from launcher.staging import drafted, staged
from launcher.steps import LOOK_S, Secrets, Step, Text, in_turn

RUNS_WITHIN_S, READY_WITHIN_S, AGENT_WITHIN_S = 120, 120, 180
LAST_LINES = 25
RUN_AND_SHOW = """\
kubectl --namespace "$0" "$@" > /dev/null || exit
while :; do
    phase=$(kubectl --namespace "$0" get pod "$2" --output 'jsonpath={.status.phase}') || exit
    case $phase in '' | Pending) sleep 0.1 ;; *) break ;; esac
done
exec kubectl --namespace "$0" logs --follow "$2"
"""
"""`kubectl run --attach` loses what a container has said before it is attached to. The pod goes with its namespace."""
LOOK = """\
SCRATCH=$(mktemp -d "$0/XXXXXX") && export SCRATCH || exit
trap 'rm -rf "$SCRATCH"' EXIT
"$@"
"""
"""Runs a command that wants a directory of its own."""
PHASES = {"Pending": "starting", "Running": "running", "Succeeded": "exited", "Failed": "exited", "Unknown": "dead"}


class KubernetesBottleBackend(BottleBackend):
    """A bottle in the cluster that the `kubectl` command reaches."""

    name = "kubernetes"
    lost = LOST

    def __init__(self, cluster: Cluster | None = None) -> None:
        self._cluster = cluster

    def plan(self, spec: BottleSpec, stage_dir: Path) -> KubernetesBottlePlan:
        stage_dir, slug = stage_dir.absolute(), spec.slug or new_slug(spec.name)
        proxy = proxy_plan(spec, slug, stage_dir)
        # The launcher's own lease is a standard input, which no pod has.
        proxy = replace(proxy, settings=replace(proxy.settings, lease=False))
        cluster = self._cluster or Cluster.of_environment()
        return KubernetesBottlePlan(slug, stage_dir, proxy, agent_plan(spec, slug, stage_dir), cluster)

    def prepare(self, spec: BottleSpec, stage_dir: Path) -> KubernetesBottlePlan:
        spec = replace(spec, slug=spec.slug or new_slug(spec.name))
        plan = labelled(self.plan(spec, stage_dir), spec)
        with staged(spec, plan, self.name):
            agent(plan)
        return plan

    def steps(self, plan: BottlePlan) -> tuple[Step, ...]:
        assert isinstance(plan, KubernetesBottlePlan)
        return (*_bundle_steps(plan), *_agent_steps(plan))

    def preview(self, spec: BottleSpec, stage_dir: Path) -> tuple[str, ...]:
        del stage_dir
        with drafted(spec) as draft:
            return super().preview(spec, draft)

    def launch(self, plan: BottlePlan, tell: Tell = lambda _line: None, *, start: bool = True) -> str:
        """As every backend's. A pod starts by itself: `start` changes nothing, and what the agent showed first is read
        from its log.
        """
        del start
        assert isinstance(plan, KubernetesBottlePlan)
        with hold_signals() as held:
            try:
                with state.held(plan.stage_dir):
                    self._launch(plan, tell, held.check)
            except BaseException as error:
                words = _words_of_bundle(plan) if isinstance(error, CommandError) else None
                _remove(plan.slug)
                state.discard(plan.stage_dir, plan.slug)
                if words is not None:
                    raise words from None
                raise
        return object_name(plan.slug, "agent")

    def _launch(self, plan: KubernetesBottlePlan, tell: Tell, check: Callable[[], None]) -> None:
        began = time.monotonic()
        in_turn(_bundle_steps(plan), check)
        tell(f"the bundle is ready after {time.monotonic() - began:.1f} s")
        state.discard_secrets(plan.stage_dir)
        address = kubectl(
            plan.bundle_namespace, "get", "pod", BUNDLE, "--output", "jsonpath={.status.podIP}"
        ).stdout.strip()
        in_turn(_agent_steps(replace(plan, bundle_address=address)), check)
        _wait_for_agent(plan, check)
        tell(f"the walls stand, and the agent runs after {time.monotonic() - began:.1f} s")

    def attach(self, target: str, tty: bool, sleep: Callable[[float], None], *, started: bool = True) -> int:
        """As every backend's; a pod has always `started`."""
        del started
        slug = slug_of(target)
        shows = ("attach", "--stdin", "--tty") if tty else ("logs", "--follow")
        own = ("--namespace", object_name(slug, "agent"))
        command = Command(("kubectl", *own, *shows, "--container", AGENT, AGENT))
        foreground(command, each_second(sleep, partial(_look_for_bundle, slug)))
        return self.wait(target, sleep)

    def wait(self, target: str, sleep: Callable[[float], None]) -> int:
        slug = slug_of(target)
        return _wait_ended(object_name(slug, "agent"), each_second(sleep, partial(_look_for_bundle, slug)))

    def stop(self, target: str, tell: Tell = lambda _line: None) -> bool:
        slug = slug_of(target)
        with hold_signals():
            found = self.running(slug)
            if any(each.kind == "container" for each in found):
                _remember(slug, found)
            there = _remove(slug)
            state.discard(state.state_root() / slug, slug)
            if there:
                tell(f"{slug} is gone from the cluster")
            return there

    def running(self, slug: str = "", *, operator: str = "", containers_alone: bool = False) -> tuple[Running, ...]:
        selector = f"{LABEL_SLUG}={slug}" if slug else LABEL_SLUG
        selector += f",{LABEL_OPERATOR}={operator}" if operator else ""
        kinds = "pods" if containers_alone else "pods,namespaces"
        result = kubectl("", "get", kinds, "--all-namespaces", "--selector", selector, "--output", "json")
        return tuple(_object(each) for each in json.loads(result.stdout)["items"])

    def in_bundle(self, slug: str, *command: str, stdin: bool = False, tty: bool = False, user: str = "") -> Command:
        options = (*(("--stdin",) if stdin or tty else ()), *(("--tty",) if tty else ()))
        # `kubectl exec` knows no user.
        as_user = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--") if user else ()
        return Command(
            ("kubectl", "--namespace", object_name(slug, "bundle"), "exec", *options, BUNDLE, "--", *as_user, *command)
        )

    def in_agent(self, slug: str, *command: str, tty: bool = False) -> Command:
        options = ("--stdin", "--tty") if tty else ("--stdin",)
        own = ("--namespace", object_name(slug, "agent"))
        return Command(("kubectl", *own, "exec", *options, "--container", AGENT, AGENT, "--", *filtered(*command)))

    def archive(self, slug: str, place: str) -> Command:
        parent, _, name = place.rstrip("/").rpartition("/")
        return _in_keeper(slug, "tar", "-C", parent or "/", "-cf", "-", "--", name)

    def volumes(self, slug: str) -> frozenset[str]:
        is_there = any(each.role == AGENT for each in self.running(slug, containers_alone=True))
        return frozenset(("home", "project", "base") if is_there else ())

    @contextmanager
    def looking(
        self, slug: str, facts: Mapping[str, Any], volumes: Mapping[str, str], *command: str
    ) -> Iterator[Command]:
        """An exec in the container beside the agent's, where they are already."""
        del facts, volumes
        yield _in_keeper(slug, "sh", "-c", LOOK, SCRATCH_DIR, *command)

    def on_host(self, slug: str, *command: str) -> Command:
        """A pod with the network of the bundle's node, in a namespace that nothing fences."""
        node = kubectl(object_name(slug, "bundle"), "get", "pod", BUNDLE, "--output", "json").stdout
        described = json.loads(node)["spec"]
        container = {
            "name": "neighbour",
            "image": described["containers"][0]["image"],
            "imagePullPolicy": described["containers"][0]["imagePullPolicy"],
            "command": list(command),
            "securityContext": {"runAsUser": 65534, "capabilities": {"drop": ["ALL"]}},
        }
        overrides = {"spec": {"hostNetwork": True, "nodeName": described["nodeName"], "containers": [container]}}
        words = (
            "run",
            f"neighbour-{time.monotonic_ns()}",
            f"--image={container['image']}",
            "--restart=Never",
            "--quiet",
        )
        labels = ("--labels", f"{LABEL_SLUG}={slug},{LABEL_ROLE}=neighbour")
        arguments = (object_name(slug, "bundle"), *words, *labels, "--overrides", json.dumps(overrides))
        return Command(("sh", "-c", RUN_AND_SHOW, *arguments))

    def host_addresses(self, slug: str) -> tuple[str, ...]:
        pod = json.loads(kubectl(object_name(slug, "agent"), "get", "pod", AGENT, "--output", "json").stdout)
        address = pod["status"]["podIP"]
        # A pod's gateway is, with the usual plugins, the first address of its node's part.
        gateway = ".".join([*address.split(".")[:3], "1"])
        return tuple(dict.fromkeys((pod["status"]["hostIP"], gateway)))

    def bundle_address_outside(self, slug: str) -> str:
        pod = json.loads(kubectl(object_name(slug, "bundle"), "get", "pod", BUNDLE, "--output", "json").stdout)
        return str(pod["status"]["podIP"])

    def look(self, tell: Tell) -> Generator[Finding, None, bool]:
        del tell
        return look(self._cluster or Cluster.of_environment())

    def logs(self, slug: str, role: str, *, follow: bool = False) -> Command:
        part = "bundle" if role == BUNDLE else "agent"
        options = ("--timestamps", *(("--follow",) if follow else ()))
        own = ("--namespace", object_name(slug, part))
        return Command(("kubectl", *own, "logs", *options, "--container", role, role))


def _in_keeper(slug: str, *command: str) -> Command:
    """The command line that runs a command beside the agent's volumes, whether the agent has ended or not."""
    own = ("--namespace", object_name(slug, "agent"))
    words = filtered(*command, python=("python3", "-I", "-S"))
    return Command(("kubectl", *own, "exec", "--stdin", "--container", KEEPER, AGENT, "--", *words))


def _apply(name: str, documents: tuple[Document, ...], *after: str) -> Step:
    return Step(name, Command(("kubectl", "apply", "--filename", "-")), after=after, stdin=Text(as_yaml(documents)))


def _bundle_steps(plan: KubernetesBottlePlan) -> tuple[Step, ...]:
    within = ("kubectl", "--namespace", plan.bundle_namespace)
    steps = [
        _apply("walls.apply", walls(plan)),
        _apply("bundle.apply", bundle(plan, secret=False), "walls.apply"),
    ]
    if plan.proxy.settings.secrets:
        phase = ("wait", "--for=jsonpath={.status.phase}=Running", f"--timeout={RUNS_WITHIN_S}s", f"pod/{BUNDLE}")
        sources = tuple((name, secret_path(plan.proxy.yaml_path.parent, name)) for name in plan.proxy.settings.secrets)
        hand_over = Command((*within, "exec", "--stdin", BUNDLE, "--", "bottle-secrets"))
        steps += [
            Step("bundle.runs", Command((*within, *phase)), ("bundle.apply",)),
            Step("secrets.hand_over", hand_over, ("bundle.runs",), stdin=Secrets(sources)),
        ]
    ready = ("wait", "--for=condition=Ready", f"--timeout={READY_WITHIN_S}s", f"pod/{BUNDLE}")
    return (*steps, Step("bundle.ready", Command((*within, *ready)), (steps[-1].name,)))


def _agent_steps(plan: KubernetesBottlePlan) -> tuple[Step, ...]:
    publish = Command(("kubectl", "--namespace", plan.bundle_namespace, "exec", BUNDLE, "--", PUBLISH))
    create = ("create", "configmap", PUBLISHED, f"--from-file={PUBLISHED}=/dev/stdin")
    return (
        Step(
            "agent.published",
            Command(("kubectl", "--namespace", plan.agent_namespace, *create)),
            ("bundle.ready",),
            source=publish,
        ),
        _apply("agent.apply", agent(plan), "agent.published"),
    )


def _pod(namespace: str, name: str) -> dict[str, Any]:
    """A pod as the cluster has it; empty where there is none."""
    result = kubectl(namespace, "get", "pod", name, "--ignore-not-found", "--output", "json")
    return json.loads(result.stdout) if result.stdout.strip() else {}


def _container_state(status: dict[str, Any], name: str) -> dict[str, Any]:
    """How one of a pod's containers is: `running`, `waiting` or `terminated`, with what is told of it; or empty."""
    for each in status.get("containerStatuses", ()):
        if each["name"] == name:
            found: dict[str, Any] = each["state"]
            return found
    return {}


def _wait_for_agent(plan: KubernetesBottlePlan, check: Callable[[], None]) -> None:
    """Until the agent's container has started: the gate has passed by then. Raises `LauncherError` with its words."""
    deadline = time.monotonic() + AGENT_WITHIN_S
    while True:
        check()
        status = _pod(plan.agent_namespace, AGENT).get("status", {})
        for each in status.get("initContainerStatuses", ()):
            ended = each["state"].get("terminated") or {}
            if ended.get("exitCode"):
                words = (ended.get("message") or f"exit code {ended['exitCode']}").strip()
                raise LauncherError(f"{each['name']}: {words}", hint="docs/engines.md says what a cluster needs")
        if _container_state(status, AGENT).keys() & {"running", "terminated"}:
            return
        if time.monotonic() > deadline:
            raise LauncherError(f"the agent's pod did not start within {AGENT_WITHIN_S} s: {_waits_for(status)}")
        time.sleep(LOOK_S)


def _waits_for(status: dict[str, Any]) -> str:
    containers = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    waiting = [each["state"]["waiting"] for each in containers if "waiting" in each["state"]]
    words = [f"{each.get('reason', '')} {each.get('message', '')}".strip() for each in waiting]
    conditions = [each.get("message", "") for each in status.get("conditions", ()) if each.get("status") == "False"]
    return "; ".join(dict.fromkeys(filter(None, (*words, *conditions)))) or "nothing says why"


def _words_of_bundle(plan: KubernetesBottlePlan) -> LauncherError | None:
    """What a bundle that ended says of it: the init's own termination message, else its last lines."""
    with suppress(LauncherError):
        status = _pod(plan.bundle_namespace, BUNDLE).get("status", {})
        if status.get("phase") == "Pending":
            return LauncherError(f"the bundle's pod does not start: {_waits_for(status)}")
        for each in status.get("containerStatuses", ()):
            ended = each["state"].get("terminated")
            if ended:
                words = (ended.get("message") or "").strip()
                words = words or kubectl(plan.bundle_namespace, "logs", f"--tail={LAST_LINES}", BUNDLE).stdout.strip()
                return LauncherError(f"the bundle ended with {ended['exitCode']}", hint=words)
    return None


def _look_for_bundle(slug: str) -> None:
    """Raises `LauncherError` once the bundle has ended while the agent has not."""
    phase = _pod(object_name(slug, "bundle"), BUNDLE).get("status", {}).get("phase")
    agent = _container_state(_pod(object_name(slug, "agent"), AGENT).get("status", {}), AGENT)
    if phase in (None, "Succeeded", "Failed") and "running" in agent:
        raise LauncherError(f"the bundle of {slug} has ended", hint=f"`bottle why {slug}` tells why")


def _wait_ended(namespace: str, sleep: Callable[[float], None]) -> int:
    while True:
        status = _pod(namespace, AGENT).get("status", {})
        if ended := _container_state(status, AGENT).get("terminated"):
            return int(ended["exitCode"])
        if not status or status.get("phase") == "Failed":
            raise LauncherError(f"the agent's pod is gone from {namespace}: {status.get('message', '')}".rstrip(": "))
        sleep(LOOK_S)


def _object(document: dict[str, Any]) -> Running:
    metadata, status = document["metadata"], document.get("status", {})
    labels = metadata.get("labels", {})
    slug, role = labels.get(LABEL_SLUG, ""), labels.get(LABEL_ROLE, "")
    words, detail = PHASES.get(status.get("phase", ""), ""), status.get("phase", "")
    # The container that a pod is for bears its role's name.
    if ended := _container_state(status, role).get("terminated"):
        words, detail = "exited", f"Exited ({ended['exitCode']}) {ended.get('finishedAt', '')}".rstrip()
    elif words == "running" and role == BUNDLE:
        words = "healthy" if all(each.get("ready") for each in status["containerStatuses"]) else "unhealthy"
    if document["kind"] == "Namespace":
        words = "terminating" if detail == "Terminating" else "active"
    return Running(
        slug=slug,
        role=role,
        name=metadata["name"],
        state=words,
        stage_dir=state.state_root() / slug,
        kind="namespace" if document["kind"] == "Namespace" else "container",
        detail=detail,
        operator=labels.get(LABEL_OPERATOR, ""),
        agent=labels.get(LABEL_AGENT, ""),
    )


def _remember(slug: str, found: tuple[Running, ...]) -> None:
    """Keep what agent and bundle have said, and how they ended: what cannot be had is left out."""
    parts = {AGENT: ("agent", history.AGENT_LOG), BUNDLE: ("bundle", history.BUNDLE_LOG)}
    logs, states = {}, {}
    for each in found:
        if each.kind == "container" and each.role in parts:
            part, log = parts[each.role]
            of = ("--container", each.role, each.role)
            logs[log] = kubectl(object_name(slug, part), "logs", "--timestamps", *of, check=False).stdout
            states[f"{part}_state"] = {"Status": each.state, "Error": ""}
    history.remember(slug, logs, **states)


def _remove(slug: str) -> bool:
    """The agent's namespace first, so that it never runs without its bundle; whether there was any."""
    there = False
    for part in ("agent", "bundle"):
        result = kubectl("", "delete", "namespace", object_name(slug, part), "--ignore-not-found", "--wait=true")
        there = there or bool(result.stdout.strip())
    return there
