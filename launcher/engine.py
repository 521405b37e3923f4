"""A Docker engine: find one, or as root on Debian install and start one. One that answers is never touched."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from launcher.backend.base import Tell
from launcher.docker import Command, docker, installed, run, start_daemon
from launcher.errors import LauncherError

LOG = Path("/var/log/dockerd.log")
CGROUPS = Path("/sys/fs/cgroup")
STARTED_WITHIN_S = 60.0
OURS = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")
"""Where an engine of this machine listens by itself: an engine elsewhere is never answered by starting one here."""
ENDPOINT = "{{.Endpoints.docker.Host}}"
UNREACHABLE = (
    "docker is not installed",
    "cannot connect to the docker daemon",
    "error during connect",
    "trying to connect to the docker daemon",
    "failed to connect to the docker api",
)
NO_CLUSTER = (
    "was refused - did you specify the right host or port",
    "unable to connect to the server",
    "no configuration has been provided",
    "invalid configuration",
)
"""What kubectl says where no API server answers."""
T = TypeVar("T")


def ensure_engine(tell: Tell) -> str:
    """Return the version of an engine that answers, having installed and started one where that is ours to do.

    Raises `LauncherError`, in plain words, where it isn't or did not work.
    """
    if not installed("docker"):
        _refuse_where_not_ours("the docker command is not installed")
        _install(tell)
    version, complaint = _version()
    if version:
        return version
    _refuse_where_not_ours(complaint)
    if not installed("dockerd"):
        _install(tell)
    return _start_by_systemd(tell) if Path("/run/systemd/system").is_dir() else _start_alone(tell)


def with_engine(work: Callable[[], T], tell: Tell) -> T:
    """Do something that needs an engine; where none answers, get one and do it again.

    Nothing is asked beforehand: an engine that answers costs no call.
    """
    try:
        return work()
    except LauncherError as error:
        if not is_unreachable(error):
            raise
    ensure_engine(tell)
    return work()


def is_unreachable(error: LauncherError) -> bool:
    """Whether an error says that there is no engine, or no way to it."""
    words = str(error).lower()
    return any(each in words for each in UNREACHABLE)


def advice(error: LauncherError) -> str:
    """What to do about an error; empty where nobody knows."""
    if error.hint:
        return error.hint
    if any(each in str(error).lower() for each in NO_CLUSTER):
        return "`kubectl config get-contexts` shows the clusters that are known; `kubectl config use-context` takes one"
    if not is_unreachable(error):
        return ""
    return "`bottle engine` finds or starts an engine; DOCKER_HOST or `docker context` choose another one"


def _version() -> tuple[str, str]:
    """The engine's version, or else what the client complained about."""
    answer = docker("version", "--format", "{{.Server.Version}}", check=False)
    return (answer.stdout.strip(), "") if answer.code == 0 else ("", answer.stderr.strip())


def _refuse_where_not_ours(complaint: str) -> None:
    """An engine elsewhere, or one that only its owner may use, is nothing to replace by one of our own."""
    if elsewhere := _elsewhere():
        raise LauncherError(
            f"the Docker engine {elsewhere} does not answer: {complaint}",
            hint="start it there, or choose the one of this machine: unset DOCKER_HOST DOCKER_CONTEXT; "
            "docker context use default",
        )
    if "permission denied" in complaint.lower():
        raise LauncherError(
            f"there is a Docker engine, but this user may not use it: {complaint}",
            hint="run as root, or as a user of the group docker (sudo usermod -aG docker $USER, then log in again)",
        )
    if os.geteuid() != 0:
        raise LauncherError(
            f"no Docker engine answers: {complaint}",
            hint="start it (sudo systemctl start docker), or run this once as root",
        )


def _elsewhere() -> str:
    """Which engine the operator has chosen in the place of this machine's own, in words; else nothing.

    The client's own order: DOCKER_HOST, DOCKER_CONTEXT, the context of `docker context use`.
    """
    if host := os.environ.get("DOCKER_HOST"):
        return "" if host in OURS else f"at {host}"
    context = os.environ.get("DOCKER_CONTEXT") or _context_in_use()
    if context in ("", "default"):
        return ""
    found = docker("context", "inspect", "--format", ENDPOINT, context, check=False) if installed("docker") else None
    host = found.stdout.strip() if found and found.code == 0 else ""
    # One that cannot be looked at was chosen all the same.
    return "" if host and host in OURS else f"of the context {context!r}" + (f" at {host}" if host else "")


def _context_in_use() -> str:
    """What `docker context use` has written into the client's own settings; empty for the default."""
    directory = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        found = json.loads((directory / "config.json").read_bytes())
        return str(found.get("currentContext") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def _install(tell: Tell) -> None:
    """Install Debian's own engine, and what it needs besides where Debian has that in a package of its own.

    Since trixie the client is one such; before, `cgroupfs-mount` was, for machines without systemd.
    """
    if os.geteuid() != 0 or not installed("apt-get"):
        raise LauncherError(
            "Docker is not installed",
            hint="install it (Debian: sudo apt install docker.io; others: https://docs.docker.com/engine/install/)",
        )
    tell("installing the Docker engine (docker.io) with apt-get")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(Command(("apt-get", "-qq", "update")), extra_env=quiet)
    known = run(Command(("apt-cache", "--names-only", "search", "^(docker-cli|cgroupfs-mount)$"))).stdout.splitlines()
    packages = ("docker.io", *(line.split()[0] for line in known))
    run(Command(("apt-get", "-qq", "install", "--yes", "--no-install-recommends", *packages)), extra_env=quiet)


def _start_by_systemd(tell: Tell) -> str:
    tell("starting the Docker engine (systemctl start docker)")
    run(Command(("systemctl", "start", "docker")))
    return _wait_for_answer(alive=lambda: True, words=lambda: "`journalctl -u docker` knows more")


def _start_alone(tell: Tell) -> str:
    """Start dockerd by itself, on a machine that systemd does not run (a virtual machine with a small init, say)."""
    _mount_cgroups()
    tell(f"starting the Docker engine (dockerd, which logs to {LOG})")
    process = start_daemon(Command(("dockerd",)), LOG)
    return _wait_for_answer(alive=lambda: process.poll() is None, words=_last_words)


def _mount_cgroups() -> None:
    """What systemd would have done; the engine does not start without."""
    if any(os.path.ismount(each) for each in (CGROUPS, *CGROUPS.glob("*"))):
        return
    if installed("cgroupfs-mount"):
        run(Command(("cgroupfs-mount",)))
    else:
        run(Command(("mount", "-t", "cgroup2", "cgroup2", str(CGROUPS))))


def _wait_for_answer(alive: Callable[[], bool], words: Callable[[], str]) -> str:
    deadline = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < deadline:
        version, _ = _version()
        if version:
            return version
        if not alive():
            raise LauncherError("the Docker engine was started, and ended at once", hint=words())
        time.sleep(0.5)
    raise LauncherError(f"the Docker engine did not answer within {STARTED_WITHIN_S:.0f} s", hint=words())


def _last_words() -> str:
    return "\n".join(("its last lines:", *LOG.read_text(errors="replace").splitlines()[-10:]))
