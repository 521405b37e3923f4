"""A plan as manifests: pure functions, whose documents tests validate and `render --kubernetes` prints.

Two namespaces a bottle, since what a namespace may run is one rule for all of it: the bundle's init is root and sets
rules in its own network namespace, the agent meets the `restricted` standard. Two pods, since a NetworkPolicy speaks of
pods: in one pod the agent would have the reach of egress.
"""

from collections.abc import Iterable, Sequence
from json import dumps
from typing import Any

import yaml

from launcher.backend.kubernetes.bottle_plan import KubernetesBottlePlan
from launcher.backend.shared import refuse
from launcher.containers import (
    GATE_CERTIFICATES,
    GATE_ROUNDS,
    GATE_WITHIN_S,
    METADATA_SERVICE,
    OUTSIDE,
    PYTHON,
    source_of,
)
from launcher.errors import LauncherError
from launcher.plan import (
    AGENT_PORTS,
    BASE_DIR,
    CERTIFICATES_DIR,
    CERTIFICATES_ELSEWHERE,
    CONFIG_DIR,
    DAEMONS,
    GIT_URL,
    LABEL_ROLE,
    LABEL_SLUG,
    POLICY_DIR,
    RUNTIME_DIR,
    SIDECARS,
    STATE_DIR,
    SUPERVISE_PORT,
    Limits,
    inside,
)
from launcher.sandbox import AGENT_DNS, AGENT_SYSCTLS, BUNDLE_SYSCTLS, capabilities

Document = dict[str, Any]
Mount = tuple[str, str, Document, bool]
"""A volume's name, its place, what it is, and whether it is read-only there."""

BUNDLE, AGENT, GATE, CLONE, RUNTIME, KEEPER = SIDECARS, "agent", "gate", "clone", "runtime", "keeper"
BUNDLE_ADDRESS = "BUNDLE_ADDRESS"
"""Stands for the address of the bundle's pod, which there is only once it runs; no API server takes it for one."""
PUBLISHED = "published"
PUBLISHED_DIR = "/etc/bottle-published"
HEALTH = ("python3", "-I", "-m", "bottle_init", "health")
# What a policy's ipBlock of the whole world leaves out: RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291.
NOT_THE_WORLD = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
NOT_THE_WORLD_6 = ("fc00::/7", "fe80::/10")
METADATA = ("169.254.0.0/16", "100.100.100.200/32")
FORBIDDEN = ((METADATA_SERVICE, 80), (OUTSIDE, 443), (OUTSIDE, 53))
"""What the gate tries on every cluster, besides the API server."""
NOWHERE = ("203.0.113.1", 9)
"""An address that no host has (RFC 5737), at the port that discards (RFC 863)."""
GATE_WINDOW_S = 0.3
"""What an answer may take: three rounds in which an enforcer drops what is asked cost under a second."""
API_SERVER = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
CONFIG_MAP_LIMIT = 1_000_000
SCRATCH_DIR = "/scratch"
KEEPER_LIMITS = Limits(memory=512 * 2**20, cpus=1.0, pids=512)

LOST = (
    ("W17", "the number of processes has no limit in a pod: it is the kubelet's (`podPidsLimit`)"),
    ("W1", "the rules on the host are the cluster's own: its enforcer of NetworkPolicy stands for them"),
    ("W3", "no policy keeps a node from its pods, and what its users send comes from the pods' network"),
    ("W5", "IPv6: a pod keeps the link-local address of its interface; a filter of its own keeps the agent from it"),
    ("W20", "the launcher's lease: a pod has no standard input that lasts; `bottle down` takes a bottle down"),
)
"""The walls of docs/walls.md that cannot stand here as they do on Docker, and why."""


def render(plan: KubernetesBottlePlan, *, secret: bool = True) -> dict[str, tuple[Document, ...]]:
    """The documents in the order in which they are applied: `walls`, `bundle`, `agent`.

    With `secret` the bundle finds its credentials in the Secret `credentials` of its namespace, which is made by other
    hands; else it waits for them on `bottle-secrets`. No document holds a secret's value.

    Raises `LauncherError` for what a cluster cannot be given.
    """
    return {"walls": walls(plan), "bundle": bundle(plan, secret=secret), "agent": agent(plan)}


def filtered(*command: str, python: Sequence[str] = PYTHON) -> tuple[str, ...]:
    """A command that can make few kinds of sockets: beside the address that its policies are about, a pod has a
    link-local one, by which its node answers.
    """
    return (*python, "-c", source_of("socket_filter.py"), *command)


def walls(plan: KubernetesBottlePlan) -> tuple[Document, ...]:
    """The namespaces and their policies, which are there before any pod is."""
    baseline = "privileged" if plan.proxy.settings.net_admin else "baseline"
    return (
        _namespace(plan, plan.bundle_namespace, baseline),
        _namespace(plan, plan.agent_namespace, "restricted"),
        _policy(plan, plan.bundle_namespace, "default-deny", {}, [], []),
        _policy(plan, plan.agent_namespace, "default-deny", {}, [], []),
        _policy(plan, plan.bundle_namespace, BUNDLE, _role(plan, BUNDLE), _from_agent(plan), _to_world(plan)),
        _policy(plan, plan.agent_namespace, AGENT, _role(plan, AGENT), [], _to_bundle(plan)),
    )


def _namespace(plan: KubernetesBottlePlan, name: str, standard: str) -> Document:
    labels = _labels(plan, "namespace") | {
        "pod-security.kubernetes.io/enforce": standard,
        "pod-security.kubernetes.io/warn": standard,
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _policy(
    plan: KubernetesBottlePlan,
    namespace: str,
    name: str,
    selector: Document,
    ingress: list[Document],
    egress: list[Document],
) -> Document:
    spec = {"podSelector": selector, "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(plan, namespace, name, "walls"),
        "spec": spec,
    }


def _role(plan: KubernetesBottlePlan, role: str) -> Document:
    return {"matchLabels": {LABEL_SLUG: plan.slug, LABEL_ROLE: role}}


def _peer(plan: KubernetesBottlePlan, namespace: str, role: str) -> Document:
    """A pod of the other namespace: both selectors in one peer, which are then one condition."""
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": _role(plan, role),
    }


def _agent_ports(plan: KubernetesBottlePlan) -> list[Document]:
    daemons = plan.proxy.settings.daemons
    ports = [("TCP", port) for daemon, port in AGENT_PORTS.items() if daemon in daemons]
    if plan.agent.transparent and "pipelock" in daemons:
        ports += [("TCP", 80), ("TCP", 443), ("TCP", 53), ("UDP", 53)]
    return [{"protocol": protocol, "port": port} for protocol, port in ports]


def _from_agent(plan: KubernetesBottlePlan) -> list[Document]:
    return [{"from": [_peer(plan, plan.agent_namespace, AGENT)], "ports": _agent_ports(plan)}]


def _to_bundle(plan: KubernetesBottlePlan) -> list[Document]:
    return [{"to": [_peer(plan, plan.bundle_namespace, BUNDLE)], "ports": _agent_ports(plan)}]


def _to_world(plan: KubernetesBottlePlan) -> list[Document]:
    """What the bundle's pod may reach; which of its users may, the rules inside it say."""
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    rules: list[Document] = [
        {"to": [dns], "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]},
        {
            "to": [
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(NOT_THE_WORLD)}},
                {"ipBlock": {"cidr": "::/0", "except": list(NOT_THE_WORLD_6)}},
            ],
            "ports": [{"protocol": "TCP", "port": 1, "endPort": 65535}],
        },
    ]
    for address, port in plan.proxy.settings.private:
        block = {"cidr": f"{address}/32"} if address else {"cidr": "0.0.0.0/0", "except": list(METADATA)}
        rules.append({"to": [{"ipBlock": block}], "ports": [{"protocol": "TCP", "port": port}]})
    return rules


def bundle(plan: KubernetesBottlePlan, *, secret: bool) -> tuple[Document, ...]:
    """The bundle's pod, with its policy."""
    proxy, settings = plan.proxy, plan.proxy.settings
    namespace = plan.bundle_namespace
    policy = {"policy.toml": proxy.yaml_path}
    if (upstream_ca := proxy.yaml_path.with_name("upstream-ca.pem")).exists():
        policy["upstream-ca.pem"] = upstream_ca
    env = {"BOTTLE_INTERNAL": plan.cluster.pod_addresses}
    if settings.secrets and not secret:
        env["BOTTLE_SECRETS"] = "stdin"
    if settings.daemons != DAEMONS:
        env["CLAUDE_BOTTLE_SIDECAR_DAEMONS"] = ",".join(settings.daemons)
    volumes: list[Mount] = [
        ("run", "/run", _memory("256Mi"), False),
        ("tmp", "/tmp", _memory("256Mi"), False),  # noqa: S108 -- the container's own
        ("state", STATE_DIR, {"emptyDir": {"sizeLimit": "4Gi"}}, False),
        ("policy", POLICY_DIR, {"configMap": {"name": "policy", "defaultMode": 0o444}}, True),
    ]
    if settings.secrets and secret:
        volumes.append(
            ("credentials", "/run/secrets", {"secret": {"secretName": "credentials", "defaultMode": 0o400}}, True)
        )
    probe = {"exec": {"command": list(HEALTH)}, "timeoutSeconds": 5}
    container = {
        "name": BUNDLE,
        "image": settings.image,
        "imagePullPolicy": plan.cluster.pull_policy,
        "env": _env(env.items()),
        "ports": [{"containerPort": each["port"], "protocol": each["protocol"]} for each in _agent_ports(plan)],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": list(capabilities(net_admin=settings.net_admin))},
        },
        "resources": _resources(settings.limits),
        "startupProbe": probe | {"periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": probe | {"periodSeconds": 15},
        "terminationMessagePolicy": "File",
        "volumeMounts": _mounts(volumes),
    }
    spec = _pod_spec([container], volumes) | {
        "terminationGracePeriodSeconds": 15,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "sysctls": _sysctls(BUNDLE_SYSCTLS)},
    }
    return (
        _config_map(plan, namespace, "policy", {name: path.read_text() for name, path in policy.items()}),
        _pod(plan, namespace, BUNDLE, spec),
    )


def agent(plan: KubernetesBottlePlan) -> tuple[Document, ...]:
    """The agent's pod; its first init containers bring the interpreter, ask whether the walls stand, and clone. Beside
    the agent is what keeps its volumes within reach once it has ended.
    """
    _refuse_what_cannot_be(plan)
    wanted, namespace = plan.agent, plan.agent_namespace
    address = plan.bundle_address or BUNDLE_ADDRESS
    uid, gid = wanted.ids
    volumes: list[Mount] = [
        ("run", "/run", _memory("64Mi"), False),
        ("tmp", "/tmp", _memory("1Gi"), False),  # noqa: S108 -- the container's own
        ("var-tmp", "/var/tmp", _memory("256Mi"), False),  # noqa: S108 -- the container's own
        ("home", wanted.home, {"emptyDir": {"sizeLimit": "8Gi"}}, False),
        ("runtime", RUNTIME_DIR, {"emptyDir": {"sizeLimit": "256Mi"}}, True),
    ]
    volumes += [(f"tmpfs-{number}", target, _memory("256Mi"), False) for number, target in enumerate(_targets(plan))]
    volumes += [(volume.role, volume.target, {"emptyDir": {}}, volume.read_only) for volume in wanted.volumes]
    if "pipelock" in wanted.daemons:
        certificates = {"emptyDir": {"sizeLimit": "16Mi"}}
        volumes += [("certificates", CERTIFICATES_DIR, certificates, True)]
        volumes += [("certificates", CERTIFICATES_ELSEWHERE, certificates, True)]
    config = {file.target.rpartition("/")[2]: file.source for file in wanted.files}
    if config:
        volumes.append(("config", CONFIG_DIR, {"configMap": {"name": "config", "defaultMode": 0o444}}, True))
    lease = ("--lease", f"tcp:{address}:{SUPERVISE_PORT}") if wanted.lease else ()
    container = {
        "name": AGENT,
        "image": wanted.image,
        "imagePullPolicy": plan.cluster.pull_policy,
        "command": [*filtered(*PYTHON, "-m", "bottle_init", *lease, "--", *wanted.command)],
        "env": _env(wanted.env),
        **({"workingDir": wanted.workdir} if wanted.workdir else {}),
        **({"stdin": True, "tty": True} if wanted.tty else {}),
        "securityContext": _restricted(),
        "resources": _resources(wanted.limits),
        "volumeMounts": _mounts(volumes),
    }
    published = ("published", PUBLISHED_DIR, {"configMap": {"name": PUBLISHED, "defaultMode": 0o444}}, True)
    clone = _clone(plan)
    base: list[Mount] = [("base", BASE_DIR, {"emptyDir": {}}, False)] if clone else []
    works_in: list[Mount] = [("home", wanted.home, {}, True)]
    works_in += [(volume.role, volume.target, {}, True) for volume in wanted.volumes]
    works_in += [(name, target, source, True) for name, target, source, _ in base]
    scratch: Mount = ("scratch", SCRATCH_DIR, {"emptyDir": {"sizeLimit": "8Gi"}}, False)
    containers = [container, _keeper(plan, (*works_in, scratch))]
    spec = _pod_spec(containers, [*volumes, published, *base, scratch]) | {
        "initContainers": [_runtime(plan), _gate(plan, address, published), *clone],
        "hostAliases": [{"ip": address, "hostnames": [SIDECARS]}],
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": [address if wanted.transparent else AGENT_DNS],
            "options": [{"name": "timeout", "value": "1"}, {"name": "attempts", "value": "1"}],
        },
        "terminationGracePeriodSeconds": 15,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": uid,
            "runAsGroup": gid,
            "fsGroup": gid,
            "seccompProfile": {"type": "RuntimeDefault"},
            "sysctls": _sysctls(AGENT_SYSCTLS),
        },
    }
    if plan.cluster.runtime_class:
        spec["runtimeClassName"] = plan.cluster.runtime_class
    maps = [_config_map(plan, namespace, "config", {name: path.read_text() for name, path in config.items()})]
    pod = _sandbox if plan.cluster.agent_sandbox else _pod
    return (*(maps if config else []), pod(plan, namespace, AGENT, spec))


def _refuse_what_cannot_be(plan: KubernetesBottlePlan) -> None:
    wanted = plan.agent
    elsewhere = [file.target for file in wanted.files if not inside(file.target, CONFIG_DIR)]
    faults = {
        "a directory of this machine cannot be mounted into a cluster": bool(wanted.binds),
        "a copy of this machine's directory cannot be brought into a cluster": wanted.copied is not None,
        f"files cannot be brought to {', '.join(elsewhere)}": bool(elsewhere),
        "a home that was kept cannot be brought into a cluster": wanted.home_archive is not None,
        "an agent of a cluster runs under our own init": wanted.init != "bottle",
        "the command of the agent's image is not known here: say agents.NAME.command": not wanted.command,
        "the agent of a cluster runs as another user than root": wanted.ids[0] == 0,
        "both images have to be there: image and Dockerfile are not built by a cluster": not wanted.image,
    }
    refuse(faults, 'a project comes by git-gate there: mode = "clone"')


def _targets(plan: KubernetesBottlePlan) -> list[str]:
    """The places of the tmpfs that the manifest asks for, without Docker's options."""
    return [place.partition(":")[0] for place in plan.agent.tmpfs]


def _runtime(plan: KubernetesBottlePlan) -> Document:
    """Brings the interpreter that the gate and the agent's init run on."""
    return {
        "name": RUNTIME,
        "image": plan.proxy.settings.image,
        "imagePullPolicy": plan.cluster.pull_policy,
        "command": ["cp", "-R", f"{RUNTIME_DIR}/.", "/opt/bottle-runtime/"],
        "securityContext": _restricted(),
        "volumeMounts": [{"name": "runtime", "mountPath": "/opt/bottle-runtime"}],
    }


def _gate(plan: KubernetesBottlePlan, address: str, published: Mount) -> Document:
    """Asks from the agent's own network, under the agent's own policies, before the agent starts."""
    with_store = "pipelock" in plan.agent.daemons
    order = {
        "bundle": address,
        "ports": [port for daemon, port in AGENT_PORTS.items() if daemon in plan.agent.daemons],
        "forbidden": [*FORBIDDEN, (address, 9099), (address, 22), *map(_address, plan.cluster.forbidden)],
        "forbidden_by_variables": [API_SERVER],
        # An enforcer may refuse in the place of a pod that it guards, and some refuse in the place of every host.
        "may_refuse": [address],
        "nowhere": [NOWHERE],
        "rounds": GATE_ROUNDS,
        "window_s": GATE_WINDOW_S,
        "within_s": GATE_WITHIN_S,
        "certificates": GATE_CERTIFICATES if with_store else "",
        "published": f"{PUBLISHED_DIR}/{PUBLISHED}",
        "owner": plan.agent.ids,
        "give": [],
        "same": [],
    }
    mounts = [{"name": "runtime", "mountPath": RUNTIME_DIR, "readOnly": True}]
    if with_store:
        mounts.append({"name": "certificates", "mountPath": GATE_CERTIFICATES})
    return {
        "name": GATE,
        "image": plan.agent.image,
        "imagePullPolicy": plan.cluster.pull_policy,
        "command": [*filtered(*PYTHON, "-c", source_of("gate.py"), dumps(order))],
        "securityContext": _restricted(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mounts, *_mounts([published])],
    }


def _keeper(plan: KubernetesBottlePlan, volumes: Iterable[Mount]) -> Document:
    """Sees where the agent works, and may not write there: a container that has ended cannot be asked any more.

    It has git, the agent's user and the agent's network, so that nothing that the agent prepared gets further there.
    """
    return {
        "name": KEEPER,
        "image": plan.proxy.settings.image,
        "imagePullPolicy": plan.cluster.pull_policy,
        "command": ["python3", "-I", "-m", "bottle_init", "--", "sleep", "infinity"],
        "securityContext": _restricted(),
        "resources": _resources(KEEPER_LIMITS),
        "volumeMounts": _mounts(volumes),
    }


def _address(text: str) -> tuple[str, int]:
    """`IP:PORT` as two; raises `LauncherError` for what is neither."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise LauncherError(f"{text!r} is no address", hint="IP:PORT, as in 10.0.0.10:6443")
    return host.strip("[]"), int(port)


def _clone(plan: KubernetesBottlePlan) -> list[Document]:
    wanted = plan.agent.clone
    if wanted is None:
        return []
    url = f"{GIT_URL}/{wanted.repository}"
    instead = ["-c", f"url.{url}.insteadOf={wanted.upstream}"] if wanted.upstream != url else []
    (project,) = (volume for volume in plan.agent.volumes if volume.target == wanted.target)
    script = 'git "$@" && cd "$0" && find . -mindepth 1 -maxdepth 1 ! -name .git -exec cp -R {} "$BASE" \\;'
    return [
        {
            "name": CLONE,
            "image": plan.agent.bundle_image,
            "imagePullPolicy": plan.cluster.pull_policy,
            "command": [
                *("sh", "-c", script, wanted.target),
                *(*instead, "clone", "--quiet", "--", wanted.upstream, wanted.target),
            ],
            "env": _env({"HOME": "/tmp", "BASE": BASE_DIR}.items()),  # noqa: S108 -- the container's own
            "securityContext": _restricted(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 -- the container's own
                {"name": project.role, "mountPath": project.target},
                {"name": "base", "mountPath": BASE_DIR},
            ],
        }
    ]


def _pod_spec(containers: list[Document], volumes: list[Mount]) -> Document:
    sources = {name: source for name, _, source, _ in volumes}
    return {
        # A bundle that came back by itself would have a new authority, and the agent the old one.
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": containers,
        "volumes": [{"name": name, **source} for name, source in sources.items()],
    }


def _pod(plan: KubernetesBottlePlan, namespace: str, role: str, spec: Document) -> Document:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(plan, namespace, role, role), "spec": spec}


def _sandbox(plan: KubernetesBottlePlan, namespace: str, role: str, spec: Document) -> Document:
    """The pod as a `Sandbox` of agent-sandbox. It gets no policy by that, and needs none: ours stand."""
    return {
        "apiVersion": "agents.x-k8s.io/v1alpha1",
        "kind": "Sandbox",
        "metadata": _metadata(plan, namespace, role, role),
        "spec": {"podTemplate": {"metadata": {"labels": _labels(plan, role)}, "spec": spec}},
    }


def _config_map(plan: KubernetesBottlePlan, namespace: str, name: str, data: dict[str, str]) -> Document:
    size = sum(len(text.encode()) for text in data.values())
    if size > CONFIG_MAP_LIMIT:
        raise LauncherError(f"{name}: {size} bytes, and a ConfigMap takes 1 MiB")
    metadata = _metadata(plan, namespace, name, "files")
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _metadata(plan: KubernetesBottlePlan, namespace: str, name: str, role: str) -> Document:
    return {"name": name, "namespace": namespace, "labels": _labels(plan, role)}


def _labels(plan: KubernetesBottlePlan, role: str) -> dict[str, str]:
    """A label's value has 63 characters of a small alphabet: the path of the stage directory is none."""
    own = {key: value for key, value in plan.agent.labels if key.endswith((".operator", ".agent"))}
    return {LABEL_SLUG: plan.slug, LABEL_ROLE: role} | own


def _restricted() -> Document:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _resources(limits: Limits) -> Document:
    """The limits; a scheduler reserves a tenth of them, as a bottle idles most of its life."""
    cpu, memory = round(limits.cpus * 1000), limits.memory // 2**20
    return {
        "limits": {"cpu": f"{cpu}m", "memory": f"{memory}Mi"},
        "requests": {"cpu": f"{max(cpu // 10, 10)}m", "memory": f"{max(memory // 10, 16)}Mi"},
    }


def _memory(size: str) -> Document:
    return {"emptyDir": {"medium": "Memory", "sizeLimit": size}}


def _mounts(volumes: Iterable[Mount]) -> list[Document]:
    return [
        {"name": name, "mountPath": target, **({"readOnly": True} if read_only else {})}
        for name, target, _, read_only in volumes
    ]


def _env(pairs: Iterable[tuple[str, str]]) -> list[Document]:
    """`$(NAME)` in a value would be replaced; `$$` is a dollar sign (Kubernetes API, EnvVar)."""
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in pairs]


def _sysctls(pairs: Iterable[tuple[str, str]]) -> list[Document]:
    return [{"name": name, "value": value} for name, value in pairs]


HEADER = """\
# Bottle {slug} for a cluster. Three parts, in this order; the agent's pod needs two things that there are only once the
# bundle runs:
#   1. the namespaces and their policies, and the bundle:
#      kubectl apply -l {label}!={agent} -f FILE
{secrets}\
#      kubectl -n {bundle} wait --for=condition=Ready --timeout=120s pod/sidecars
#   2. what the bundle publishes:
#      kubectl -n {bundle} exec sidecars -- bottle-publish |
#        kubectl -n {agent_namespace} create configmap published --from-file=published=/dev/stdin
#   3. the agent, with the bundle's address:
#      kubectl -n {bundle} get pod sidecars -o jsonpath={{.status.podIP}}
#      sed s/BUNDLE_ADDRESS/THAT/ FILE | kubectl apply -f -
# CLAUDE_BOTTLE_BACKEND=kubernetes does all of this by itself.
"""


def manifests_yaml(plan: KubernetesBottlePlan) -> str:
    """All documents of a plan as one file, with the commands that apply them."""
    secrets = ""
    if plan.proxy.settings.secrets:
        names = " ".join(f"--from-file={name}=FILE" for name in plan.proxy.settings.secrets)
        secrets = f"#      kubectl -n {plan.bundle_namespace} create secret generic credentials {names}\n"
    header = HEADER.format(
        slug=plan.slug,
        label=LABEL_ROLE,
        agent=AGENT,
        bundle=plan.bundle_namespace,
        agent_namespace=plan.agent_namespace,
        secrets=secrets,
    )
    documents = [document for part in render(plan).values() for document in part]
    return header + as_yaml(documents)


def as_yaml(documents: Iterable[Document]) -> str:
    """Documents as one YAML stream, texts of several lines as blocks."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120, explicit_start=True)


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as a block that people can read, and repeats no anchors."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
