"""What the launcher says of a cluster before it makes a bottle there, held against a kubectl that only answers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.backend.kubernetes import Cluster, KubernetesBottleBackend
from launcher.finding import Finding
from tests.integration.support.launching import DEADLINE_S

REFUSED = "The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?"
SILENT = f"""\
echo 'E1130 12:00:00.000001    4711 memcache.go:265] "Unhandled Error" err="couldn'"'"'t get the API group list"' >&2
echo '{REFUSED}' >&2
exit 1
"""
VERSIONS = {"serverVersion": {"gitVersion": "v1.34.1"}, "clientVersion": {"gitVersion": "v1.34.0"}}
INFO = {"kubeletVersion": "v1.34.1", "containerRuntimeVersion": "containerd://2.1.4", "osImage": "Debian"}


def node(ready: str, **spec: object) -> dict[str, Any]:
    """A node as `kubectl get nodes --output json` shows it."""
    return {"spec": spec, "status": {"nodeInfo": INFO, "conditions": [{"type": "Ready", "status": ready}]}}


def answering(tmp_path: Path, *nodes: dict[str, Any], can: str = "yes", classes: str = "") -> Path:
    """A directory with a kubectl of this cluster."""
    return written(
        tmp_path,
        f"""\
case "$1 $2" in
version*) echo '{json.dumps(VERSIONS)}' ;;
"get nodes") echo '{json.dumps({"items": nodes})}' ;;
"get runtimeclass") case " {classes} " in *" $3 "*) echo "runtimeclass.node.k8s.io/$3" ;; esac ;;
"auth can-i") echo {can}; test {can} = yes ;;
esac
""",
    )


def written(tmp_path: Path, script: str) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "kubectl").write_text("#!/bin/sh\n" + script)
    (programs / "kubectl").chmod(0o755)
    return programs


def looked(monkeypatch: pytest.MonkeyPatch, path: str, runtime_class: str = "") -> tuple[list[Finding], bool]:
    """All that `doctor` finds with this PATH before it tries a bottle, and whether it would try one."""
    monkeypatch.setenv("PATH", path)
    found, looks = [], KubernetesBottleBackend(Cluster(runtime_class=runtime_class)).look(lambda _line: None)
    while True:
        try:
            found.append(next(looks))
        except StopIteration as end:
            return found, end.value


@pytest.mark.parametrize("command", ["doctor", "ps", "down work-1", "prune", "logs work-1"])
def test_a_silent_cluster_is_told_plainly(tmp_path: Path, command: str) -> None:
    """kubectl's log lines are left out, and the hint says how another cluster is chosen. No Docker engine is asked."""
    programs = written(tmp_path, SILENT)
    (programs / "docker").write_text(f"#!/bin/sh\necho asked >{tmp_path}/docker\nexit 1\n")
    (programs / "docker").chmod(0o755)
    environ = {
        **os.environ,
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "COLUMNS": "200",
        "CLAUDE_BOTTLE_BACKEND": "kubernetes",
    }
    argv = [sys.executable, "-m", "launcher", *command.split()]
    done = subprocess.run(argv, env=environ, check=False, capture_output=True, text=True, timeout=DEADLINE_S)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert REFUSED in said
    assert "kubectl config use-context" in said
    assert "memcache.go" not in said
    assert "Traceback" not in said
    assert not (tmp_path / "docker").exists()


def test_kubectl_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, able = looked(monkeypatch, str(tmp_path))
    assert not able
    assert [(each.about, each.good) for each in found] == [("cluster", False)]
    assert "kubectl is not installed" in found[0].words
    assert "kubernetes-client" in found[0].to_do


def test_a_cluster_that_answers_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = answering(tmp_path, node("True"), node("False"), node("True", unschedulable=True))
    found, able = looked(monkeypatch, f"{programs}:/usr/bin:/bin")
    assert able
    assert all(each.good for each in found)
    words = {each.about: each.words for each in found}
    assert "v1.34.1" in words["cluster"]
    assert words["nodes"].startswith("1 of 3 can take a bottle: kubelet v1.34.1, containerd://2.1.4")


def test_what_a_cluster_lacks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = answering(tmp_path, node("False"), can="no", classes="kata")
    found, able = looked(monkeypatch, f"{programs}:/usr/bin:/bin", "gvisor")
    assert not able
    bad = {each.about: each for each in found if not each.good}
    assert set(bad) == {"nodes", "rights", "runtime"}
    assert bad["runtime"].words == "the cluster has no RuntimeClass gvisor"
    assert all(each.to_do for each in bad.values())
    answering(tmp_path, node("True"), classes="kata")
    found, _ = looked(monkeypatch, f"{programs}:/usr/bin:/bin", "kata")
    assert all(each.good for each in found)
