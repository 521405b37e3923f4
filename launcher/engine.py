"""A Docker engine: find one, or as root on Debian install and start one. One that answers is never touched."""

import os
import time
from pathlib import Path

from launcher.backend.base import Tell
from launcher.docker import Command, docker, installed, run, start_daemon
from launcher.errors import LauncherError

LOG = Path("/var/log/dockerd.log")
STARTED_WITHIN_S = 60.0


def ensure_engine(tell: Tell) -> str:
    """Return the version of an engine that answers, having installed and started one where that is ours to do.

    Raises `LauncherError`, in plain words, where it isn't or did not work.
    """
    if not installed("docker"):
        _install(tell)
    version, complaint = _version()
    if version:
        return version
    _refuse_where_not_ours(complaint)
    if not installed("dockerd"):
        _install(tell)
    _start(tell)
    return _wait_for_answer()


def _version() -> tuple[str, str]:
    """The engine's version, or else what the client complained about."""
    answer = docker("version", "--format", "{{.Server.Version}}", check=False)
    return (answer.stdout.strip(), "") if answer.code == 0 else ("", answer.stderr.strip())


def _refuse_where_not_ours(complaint: str) -> None:
    """An engine elsewhere, or one that only its owner may use, is nothing to replace by one of our own."""
    if elsewhere := os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT"):
        raise LauncherError(
            f"the Docker engine at {elsewhere} does not answer: {complaint}",
            hint="start it, or unset DOCKER_HOST and DOCKER_CONTEXT to use the one on this machine",
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


def _install(tell: Tell) -> None:
    """Install Debian's own engine. Its client is a package apart since trixie."""
    if os.geteuid() != 0 or not installed("apt-get"):
        raise LauncherError(
            "Docker is not installed",
            hint="install it (Debian: sudo apt install docker.io; others: https://docs.docker.com/engine/install/)",
        )
    tell("installing the Docker engine (docker.io) with apt-get")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(Command(("apt-get", "-qq", "update")), extra_env=quiet)
    known = run(Command(("apt-cache", "--names-only", "search", "^docker-cli$"))).stdout
    packages = ("docker.io", *(("docker-cli",) if known else ()))
    run(Command(("apt-get", "-qq", "install", "--yes", "--no-install-recommends", *packages)), extra_env=quiet)


def _start(tell: Tell) -> None:
    if Path("/run/systemd/system").is_dir():
        tell("starting the Docker engine (systemctl start docker)")
        run(Command(("systemctl", "start", "docker")))
        return
    tell(f"starting the Docker engine (dockerd, which logs to {LOG})")
    start_daemon(Command(("dockerd",)), LOG)


def _wait_for_answer() -> str:
    deadline = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < deadline:
        version, _ = _version()
        if version:
            return version
        time.sleep(0.5)
    words = (
        LOG.read_text(errors="replace").splitlines()[-10:] if LOG.exists() else ["`journalctl -u docker` knows more"]
    )
    raise LauncherError(
        f"the Docker engine was started, but did not answer within {STARTED_WITHIN_S:.0f} s",
        hint="\n".join(("its last lines:", *words)),
    )
