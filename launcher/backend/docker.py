"""The Docker backend: one pure function from a plan to command lines, and the hands that carry them out."""

import csv
import io
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher import state
from launcher.backend.base import BottleBackend, Running, Tell
from launcher.compose import compose_yaml
from launcher.docker import Command, CommandError, beside, docker, docker_json, find_image, foreground, run
from launcher.errors import LauncherError
from launcher.interrupts import HeldSignals, hold_signals
from launcher.manifest import BottleSpec, Credential
from launcher.plan import (
    DAEMONS,
    GIT_URL,
    LABEL_ROLE,
    LABEL_SLUG,
    LABEL_STAGE,
    PIPELOCK_CA_SOURCE,
    PIPELOCK_CA_TARGET,
    POLICY_TARGET,
    PROXY_URL,
    SIDECARS,
    SUPERVISE_URL,
    UPSTREAM_CA_TARGET,
    AgentPlan,
    BottlePlan,
    BundlePlan,
    Mount,
    new_slug,
    object_name,
    slug_of,
)
from launcher.policy import policy_toml, secret_path, secret_target, secret_value
from launcher.sandbox import (
    AGENT_DNS,
    AGENT_DNS_OPTIONS,
    INTERNAL_OPTIONS,
    PIDS_LIMIT,
    SECURITY_OPTIONS,
    TMPFS,
    capabilities,
)

HEALTHY_WITHIN_S = 120.0
REMOVED_WITHIN_S = 5.0
POLL_S = 0.2
LAST_LINES = 25
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
# The image says so where it has the real pipelock; only then is the capability for its redirect of any use.
LABEL_ENGINE = "bottle.pipelock.engine"


@dataclass(frozen=True, slots=True)
class WaitHealthy:
    """Wait until the engine says that a container is healthy."""

    container: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class CopyOut:
    """Read a file inside a container that runs, and write it here."""

    container: str
    source: str
    target: Path


Step = Command | WaitHealthy | CopyOut


def render_networks(plan: BottlePlan) -> tuple[Command, ...]:
    """The two networks: one for agent and bundle, with no way out, and one for the bundle alone."""
    internal = [option for key, value in INTERNAL_OPTIONS for option in ("--opt", f"{key}={value}")]
    return (
        Command(
            (
                *("docker", "network", "create", "--internal", *internal),
                *(*_labels(plan, "internal"), object_name(plan.slug, "internal")),
            )
        ),
        Command(("docker", "network", "create", *_labels(plan, "egress"), object_name(plan.slug, "egress"))),
    )


def render(plan: BottlePlan) -> tuple[Step, ...]:
    """All that `start` does, in order. The agent's container is not even made before the bundle is healthy."""
    bundle, agent = plan.bundle, plan.agent
    return (
        Command(("docker", "create", *_bundle_options(plan), bundle.image)),
        Command(("docker", "network", "connect", "--alias", SIDECARS, plan.internal_network, bundle.name)),
        Command(("docker", "start", bundle.name)),
        WaitHealthy(bundle.name, HEALTHY_WITHIN_S),
        *(CopyOut(bundle.name, PIPELOCK_CA_SOURCE, mount.source) for mount in agent.mounts),
        Command(("docker", "create", *_agent_options(plan), agent.image, *agent.command)),
        Command(("docker", "start", agent.name)),
    )


def _bundle_options(plan: BottlePlan) -> tuple[str, ...]:
    bundle = plan.bundle
    return (
        *("--name", bundle.name, *_labels(plan, "sidecars"), "--pull", "never"),
        *("--network", plan.egress_network),
        *("--read-only", *_each("--tmpfs", TMPFS)),
        *("--cap-drop", "ALL", *_each("--cap-add", capabilities(redirect=bundle.redirect))),
        *_each("--security-opt", SECURITY_OPTIONS),
        *("--pids-limit", str(PIDS_LIMIT)),
        *_each("--env", (f"{name}={value}" for name, value in bundle.env)),
        *_each("--mount", map(_mount, bundle.mounts)),
    )


def _agent_options(plan: BottlePlan) -> tuple[str, ...]:
    agent = plan.agent
    return (
        *("--name", agent.name, *_labels(plan, "agent"), "--pull", "never"),
        *("--network", plan.internal_network),
        *("--dns", AGENT_DNS, "--dns-search", ".", *_each("--dns-option", AGENT_DNS_OPTIONS)),
        *("--user", agent.user, "--cap-drop", "ALL"),
        *_each("--security-opt", SECURITY_OPTIONS),
        *("--pids-limit", str(PIDS_LIMIT)),
        *_each("--env", (f"{name}={value}" for name, value in agent.env)),
        *_each("--mount", map(_mount, agent.mounts)),
        *(("--interactive", "--tty") if agent.tty else ()),
    )


def _labels(plan: BottlePlan, role: str) -> tuple[str, ...]:
    return _each("--label", (f"{key}={value}" for key, value in plan.labels(role)))


def _each(option: str, values: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in (option, value))


def _mount(mount: Mount) -> str:
    """The value of --mount, which is one line of CSV: a path may hold a comma."""
    line = io.StringIO()
    fields = ("type=bind", f"source={mount.source}", f"target={mount.target}", "readonly")
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def plan_bottle(spec: BottleSpec, slug: str, stage_dir: Path) -> BottlePlan:
    """The plan of a spec, as a value; nothing is written."""
    mounts = [Mount(stage_dir / "policy.toml", POLICY_TARGET)]
    if spec.upstream_ca is not None:
        mounts.append(Mount(stage_dir / "upstream-ca.pem", UPSTREAM_CA_TARGET))
    mounts += [Mount(secret_path(stage_dir, each), secret_target(each)) for each in spec.credentials]
    proxied = "pipelock" in spec.daemons
    return BottlePlan(
        slug=slug,
        stage_dir=stage_dir,
        yaml_path=stage_dir / "compose.yaml",
        bundle=BundlePlan(
            name=object_name(slug, "sidecars"),
            image=spec.image,
            env=(("CLAUDE_BOTTLE_SIDECAR_DAEMONS", ",".join(spec.daemons)),) if spec.daemons != DAEMONS else (),
            mounts=tuple(mounts),
            engine=spec.engine,
            redirect=spec.engine == "pipelock",
        ),
        agent=AgentPlan(
            name=object_name(slug, "agent"),
            image=spec.agent.image,
            user=spec.agent.user,
            command=spec.agent.command,
            env=agent_env(spec),
            mounts=(Mount(stage_dir / "pipelock-ca.pem", PIPELOCK_CA_TARGET),) if proxied else (),
            tty=spec.agent.tty,
        ),
    )


def agent_env(spec: BottleSpec) -> tuple[tuple[str, str], ...]:
    """The agent's variables: the way out for everything that knows proxies, and then the manifest's own.

    Those that make the way out cannot be overridden: an agent without them has no way out at all, only riddles.
    """
    env = dict(spec.agent.env)
    if "pipelock" in spec.daemons:
        env |= {each: PROXY_URL for name in PROXY_VARIABLES for each in (name, name.lower())}
        env |= dict.fromkeys(("NO_PROXY", "no_proxy"), f"{SIDECARS},localhost,127.0.0.1")
        env |= dict.fromkeys(CA_VARIABLES, PIPELOCK_CA_TARGET)
        env["NODE_USE_ENV_PROXY"] = "1"
    if "supervise" in spec.daemons:
        env["CLAUDE_BOTTLE_SUPERVISE_URL"] = SUPERVISE_URL
    # `git clone` of an upstream goes to git-gate, and its remote in the clone keeps the upstream's own name.
    upstreams = [(name, url) for name, url in spec.git_repos if url is not None]
    if upstreams:
        env["GIT_CONFIG_COUNT"] = str(len(upstreams))
    for index, (name, url) in enumerate(upstreams):
        env[f"GIT_CONFIG_KEY_{index}"] = f"url.{GIT_URL}/{name}.insteadOf"
        env[f"GIT_CONFIG_VALUE_{index}"] = url
    return tuple(env.items())


class DockerBackend(BottleBackend):
    """A bottle on the Docker engine that the `docker` command reaches."""

    def prepare(self, spec: BottleSpec, stage_dir: Path) -> BottlePlan:
        stage_dir = stage_dir.absolute()
        plan = plan_bottle(spec, spec.slug or new_slug(spec.name), stage_dir)
        values = _secret_values(spec)
        upstream_ca = _read_upstream_ca(spec)
        try:
            state.create(stage_dir, plan.slug)
            state.write(stage_dir / "policy.toml", policy_toml(spec), mode=0o644)
            if upstream_ca is not None:
                state.write(stage_dir / "upstream-ca.pem", upstream_ca, mode=0o644)
            for credential, value in values:
                state.write(secret_path(stage_dir, credential), value, mode=0o600)
            state.write(plan.yaml_path, compose_yaml(plan), mode=0o600)
        except BaseException:
            state.discard(stage_dir, plan.slug)
            raise
        return plan

    def launch(self, plan: BottlePlan, tell: Tell = lambda _line: None) -> str:
        with hold_signals() as held:
            try:
                plan = replace(plan, bundle=replace(plan.bundle, redirect=_redirect(plan.bundle)))
                find_image(plan.agent.image)
                for command in render_networks(plan):
                    held.check()
                    run(command)
                name = self.start(_with_networks(plan), tell)
                held.check()
            except BaseException:
                _remove(plan.slug, {plan.stage_dir}, tell)
                raise
        return name

    def start(self, plan: BottlePlan, tell: Tell = lambda _line: None) -> str:
        if not (plan.internal_network and plan.egress_network):
            raise ValueError("a plan is started by `launch`, which makes its networks first")
        with hold_signals() as held:
            for step in render(plan):
                held.check()
                match step:
                    case Command():
                        run(step)
                    case WaitHealthy():
                        tell(f"{step.container} is healthy after {_wait_healthy(step, held):.1f} s")
                    case CopyOut():
                        certificate = docker("exec", step.container, "cat", step.source).stdout
                        state.write(step.target, certificate, mode=0o644)
        return plan.agent.name

    def attach(self, target: str, tty: bool, sleep: Callable[[float], None]) -> int:
        bundle = object_name(slug_of(target), "sidecars")
        with beside(Command(("docker", "wait", bundle))) as bundle_has_ended:

            def look(seconds: float) -> None:
                sleep(seconds)
                if bundle_has_ended():
                    raise _no_health(bundle, f"ended with {_exit_code(bundle)}, so the agent has no way out any more")

            if tty:
                return foreground(Command(("docker", "attach", target)), look)
            foreground(Command(("docker", "logs", "--follow", target)), look)
            # The showing may end before the agent: nobody reads it any more, or the engine keeps no logs.
            return _wait_ended(target, look)

    def stop(self, target: str, tell: Tell = lambda _line: None) -> None:
        slug = slug_of(target)
        with hold_signals():
            _remove(slug, {state.state_root() / slug}, tell)

    def preview(self, spec: BottleSpec, stage_dir: Path) -> tuple[str, ...]:
        plan = plan_bottle(spec, spec.slug or new_slug(spec.name), stage_dir.absolute())
        return tuple(map(_in_words, (*render_networks(plan), *render(_with_networks(plan)))))

    def running(self) -> tuple[Running, ...]:
        return tuple(_running(each) for kind in ("container", "network") for each in _labelled(kind, LABEL_SLUG))


def _with_networks(plan: BottlePlan) -> BottlePlan:
    internal, egress = (object_name(plan.slug, role) for role in ("internal", "egress"))
    return replace(plan, internal_network=internal, egress_network=egress)


def _in_words(step: Step) -> str:
    match step:
        case Command():
            return shlex.join(step.argv)
        case WaitHealthy():
            return f"# wait until {step.container} is healthy, for {step.timeout_s:.0f} s at most"
        case CopyOut():
            return f"docker exec {step.container} cat {step.source} > {shlex.quote(str(step.target))}"


def _secret_values(spec: BottleSpec) -> list[tuple[Credential, str]]:
    """Every credential's value; raises one `LauncherError` that names all that can't be read."""
    values, faults = [], []
    for credential in spec.credentials:
        try:
            values.append((credential, secret_value(credential)))
        except LauncherError as error:
            faults.append(str(error))
    if faults:
        raise LauncherError("\n".join(faults), hint="nothing was started")
    return values


def _read_upstream_ca(spec: BottleSpec) -> str | None:
    if spec.upstream_ca is None:
        return None
    try:
        return spec.upstream_ca.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LauncherError(f"egress.upstream_ca: {spec.upstream_ca}: {error}") from None


def _redirect(bundle: BundlePlan) -> bool:
    """Whether the bundle gets the capability for pipelock's redirect: if asked for, or if its image has use for it."""
    labels = find_image(bundle.image)["Config"]["Labels"] or {}
    return bundle.redirect or (bundle.engine == "auto" and labels.get(LABEL_ENGINE) == "pipelock")


def _wait_healthy(step: WaitHealthy, held: HeldSignals) -> float:
    """Wait until the container is healthy; returns how long it took, in seconds.

    The engine's word counts, and the word of the image's own HEALTHCHECK, asked directly: the engine asks it for the
    first time a whole interval after the start. Raises `LauncherError`, with the container's last words, where it
    ends, is unhealthy or takes too long.
    """
    begin = time.monotonic()
    while True:
        container = docker_json("container", "inspect", step.container)[0]
        now, check = container["State"], container["Config"].get("Healthcheck")
        health = (now.get("Health") or {}).get("Status")
        waited = time.monotonic() - begin
        if now["Status"] != "running":
            raise _no_health(step.container, f"ended with {now['ExitCode']}")
        if not check:
            raise _no_health(step.container, "comes from an image without HEALTHCHECK")
        if health == "unhealthy":
            raise _no_health(step.container, "is unhealthy")
        if health == "healthy" or _says_healthy(step.container, check["Test"]):
            return waited
        if waited > step.timeout_s:
            raise _no_health(step.container, f"was not healthy within {step.timeout_s:.0f} s")
        held.sleep(POLL_S)


def _says_healthy(container: str, test: Sequence[str]) -> bool:
    """Run a HEALTHCHECK as the engine would (`["CMD", …]`; the other form, for a shell, is left to the engine)."""
    return test[0] == "CMD" and docker("exec", container, *test[1:], check=False).code == 0


def _no_health(container: str, what: str) -> LauncherError:
    logs = docker("logs", "--tail", str(LAST_LINES), container, check=False)
    lines = (logs.stdout + logs.stderr).strip() or "(it wrote nothing)"
    return LauncherError(f"{container} {what}", hint=f"its last lines:\n{lines}")


def _labelled(kind: str, label: str) -> Sequence[dict[str, Any]]:
    """All objects of a kind with a label, as the engine describes them."""
    every = ("--all",) if kind == "container" else ()
    names = docker(kind, "ls", *every, "--quiet", "--no-trunc", "--filter", f"label={label}").stdout.split()
    if not names:
        return ()
    found: list[dict[str, Any]] = []
    # One that went away since is left out of the answer, which is then also called a failure.
    for name in names:
        with suppress(CommandError):
            found += docker_json(kind, "inspect", name)
    return found


def _running(described: dict[str, Any]) -> Running:
    labels = described["Config"]["Labels"] if "Config" in described else described["Labels"]
    now = described.get("State", {})
    status = now.get("Status", "network")
    health = (now.get("Health") or {}).get("Status")
    return Running(
        slug=labels[LABEL_SLUG],
        role=labels.get(LABEL_ROLE, ""),
        name=described["Name"].lstrip("/"),
        state=health if health and status == "running" else status,
        stage_dir=Path(labels.get(LABEL_STAGE, "")),
    )


def _remove(slug: str, stage_dirs: set[Path], tell: Tell) -> None:
    """Remove all that bears this slug: the agent first, so that it never runs without its walls."""
    faults: list[str] = []
    containers = [_running(each) for each in _labelled("container", f"{LABEL_SLUG}={slug}")]
    order = ("agent", "sidecars")
    for container in sorted(containers, key=lambda each: order.index(each.role) if each.role in order else len(order)):
        if container.role == "sidecars" and container.state not in ("created", "exited"):
            faults += _attempt("container", "stop", container.name)
            tell(f"{container.name} ended with {_exit_code(container.name)}")
        faults += _attempt("container", "rm", "--force", "--volumes", container.name)
    networks = [_running(each) for each in _labelled("network", f"{LABEL_SLUG}={slug}")]
    for network in networks:
        faults += _attempt("network", "rm", network.name)
    if faults:
        raise LauncherError("\n".join(faults), hint=f"`python -m launcher down {slug}` tries again")
    for stage_dir in stage_dirs | {each.stage_dir for each in (*containers, *networks)}:
        state.discard(stage_dir, slug)


def _attempt(*args: str) -> list[str]:
    """Run a command of the clean-up and return its fault, if any: what is gone already is as good as removed.

    It is tried again for a while, as somebody else may be removing the same at the same time.
    """
    deadline = time.monotonic() + REMOVED_WITHIN_S
    while True:
        result = docker(*args, check=False)
        if result.code == 0 or "no such" in result.stderr.lower() or "not found" in result.stderr.lower():
            return []
        if time.monotonic() > deadline:
            return [f"docker {' '.join(args)}: {result.stderr.strip()}"]
        time.sleep(POLL_S)


def _exit_code(container: str) -> str:
    return (
        docker("container", "inspect", "--format", "{{.State.ExitCode}}", container, check=False).stdout.strip() or "?"
    )


def _wait_ended(container: str, sleep: Callable[[float], None]) -> int:
    """A container's exit code, once it has ended. Raises `CommandError` where it is gone."""
    while (now := docker_json("container", "inspect", container)[0]["State"])["Running"]:
        sleep(POLL_S)
    return int(now["ExitCode"])
