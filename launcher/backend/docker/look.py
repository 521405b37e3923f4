"""What `bottle doctor` asks an engine that speaks Docker's words before it tries a bottle."""

import json
from collections.abc import Generator, Iterator

from launcher.backend.base import Tell
from launcher.docker import docker
from launcher.engine import ensure_engine
from launcher.errors import LauncherError
from launcher.finding import Finding
from launcher.plan import AGENT_IMAGE, BUNDLE_IMAGE


def look(tell: Tell) -> Generator[Finding, None, bool]:
    """The engine and its images; whether a bottle can be tried there."""
    try:
        version = ensure_engine(tell)
    except LauncherError as error:
        yield Finding("engine", False, str(error), error.hint)
        return False
    yield from _engine(version)
    missing = [name for name in (BUNDLE_IMAGE, AGENT_IMAGE) if docker("image", "inspect", name, check=False).code]
    for name in missing:
        yield Finding("images", False, f"{name} is not on this engine", "`make image` in the repository builds both")
    return not missing


def _engine(version: str) -> Iterator[Finding]:
    info = json.loads(docker("info", "--format", "{{json .}}").stdout)
    words = (
        f"{version}, {info.get('OperatingSystem')}, cgroup {info.get('CgroupVersion', '1')}, {info.get('NCPU')} CPUs"
    )
    yield Finding("engine", True, words)
    options = " ".join(info.get("SecurityOptions") or ())
    yield Finding("seccomp", "seccomp" in options, options or "none", "an engine without seccomp cannot keep W5")
    gvisor = "runsc" in (info.get("Runtimes") or {})
    yield Finding(
        "gVisor", True, "is there, and used" if gvisor else "is not installed: agents run on the host's kernel"
    )
    for warning in info.get("Warnings") or ():
        yield Finding(
            "limits",
            "limit" not in warning.lower() or "swap" in warning.lower(),
            warning,
            "some limit of W17 does not hold",
        )
