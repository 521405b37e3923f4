"""What `bottle doctor` asks a cluster before it tries a bottle there."""

import json
from collections.abc import Generator
from typing import Any

from launcher.backend.kubernetes.bottle_plan import PREFIX, Cluster
from launcher.backend.kubernetes.kubectl import kubectl
from launcher.docker import CommandError
from launcher.engine import advice
from launcher.errors import LauncherError
from launcher.finding import Finding

NEEDED = (("create", "namespaces"), ("create", "networkpolicies.networking.k8s.io"), ("create", "pods/exec"))
"""What the launcher does in a cluster that not every user of one may do."""


def look(cluster: Cluster) -> Generator[Finding, None, bool]:
    """The API server, its nodes, and what this user may do; whether a bottle can be tried there.

    Its images cannot be looked for: a node tells of one that is missing once a pod asks for it.
    """
    try:
        versions = json.loads(kubectl("", "version", "--output", "json").stdout)
    except LauncherError as error:
        yield Finding("cluster", False, str(error), advice(error))
        return False
    yield Finding(
        "cluster",
        True,
        f"Kubernetes {versions['serverVersion']['gitVersion']}, kubectl {versions['clientVersion']['gitVersion']}",
    )
    yield from _nodes()
    yield from _runtime_class(cluster.runtime_class)
    able = True
    for verb, kind in NEEDED:
        answer = kubectl("", "auth", "can-i", verb, kind, "--all-namespaces", check=False)
        if answer.stdout.strip() != "yes":
            able = False
            to_do = "let the cluster's administrator grant it, or take another context of kubectl's"
            yield Finding("rights", False, f"this user of the cluster may not {verb} {kind}", to_do)
    if able:
        yield Finding("rights", True, "this user may make a bottle's namespaces, policies and pods")
    return able


def _nodes() -> Generator[Finding, None, None]:
    try:
        nodes = json.loads(kubectl("", "get", "nodes", "--output", "json").stdout)["items"]
    except CommandError as error:
        yield Finding("nodes", True, f"this user may not see them: {error}")
        return
    able = [each for each in nodes if _is_ready(each) and not each.get("spec", {}).get("unschedulable")]
    kinds = sorted({_about(each) for each in able})
    words = f"{len(able)} of {len(nodes)} can take a bottle" + (f": {'; '.join(kinds)}" if kinds else "")
    yield Finding("nodes", bool(able), words, "`kubectl describe nodes` says what they wait for")


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _about(node: dict[str, Any]) -> str:
    info = node["status"]["nodeInfo"]
    return f"kubelet {info['kubeletVersion']}, {info['containerRuntimeVersion']}, {info['osImage']}"


def _runtime_class(name: str) -> Generator[Finding, None, None]:
    """gVisor or Kata, where one was chosen."""
    if not name:
        yield Finding(
            "runtime", True, f"the nodes' own; ${PREFIX}RUNTIME_CLASS chooses gVisor or Kata where there is one"
        )
        return
    found = kubectl("", "get", "runtimeclass", name, "--ignore-not-found", "--output", "name", check=False)
    there = bool(found.stdout.strip())
    words = f"RuntimeClass {name}" if there else f"the cluster has no RuntimeClass {name}"
    yield Finding("runtime", there, words, f"${PREFIX}RUNTIME_CLASS names it: `kubectl get runtimeclass` shows all")
