"""git-gate and a repository's upstream: what it fetches before it serves, what it forwards before it accepts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sidecars import layout
from sidecars.policy import Policy, Repository

_TIMEOUT_S = 120
# Through egress, which injects the credential.
_THROUGH_EGRESS = (
    *("-c", f"http.proxy=http://127.0.0.1:{layout.EGRESS_GIT_PORT}"),
    *("-c", f"http.sslCAInfo={layout.EGRESS_CA}"),
    *("-c", "http.followRedirects=false"),
    *("-c", f"core.gitProxy={layout.HOOKS}/connect"),
)


class UpstreamError(Exception):
    """What the upstream or the way to it said, for the agent."""


@dataclass(frozen=True, slots=True)
class Update:
    """One line that git gives a pre-receive hook."""

    old: str
    new: str
    ref: str

    @property
    def deletes(self) -> bool:
        """Whether the ref is to be deleted."""
        return not self.new.strip("0")

    @property
    def creates(self) -> bool:
        """Whether the ref does not exist yet."""
        return not self.old.strip("0")


def repository_of(policy: Policy, git_directory: Path) -> Repository | None:
    """The policy's repository whose directory this is."""
    name = git_directory.name.removesuffix(".git")
    return next((repository for repository in policy.repositories if repository.name == name), None)


def _git(*arguments: str, git_directory: Path | None = None) -> str:
    """stdout of a git command. Raises `UpstreamError` with the end of what it said."""
    environment = dict(os.environ)
    if git_directory is not None:
        environment["GIT_DIR"] = str(git_directory)
    try:
        done = subprocess.run(
            ["git", *_THROUGH_EGRESS, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UpstreamError(f"no answer within {_TIMEOUT_S} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UpstreamError("; ".join(lines[-5:]) or f"git ended with {done.returncode}")
    return done.stdout


def fetch(url: str, git_directory: Path) -> None:
    """Makes the repository's branches and tags those of the upstream. Raises `UpstreamError`."""
    head = _git("ls-remote", "--symref", "--", url, "HEAD", git_directory=git_directory)
    _git(
        *("fetch", "--quiet", "--prune", "--no-write-fetch-head", "--no-auto-maintenance", "--"),
        *(url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"),
        git_directory=git_directory,
    )
    for line in head.splitlines():
        if line.startswith("ref: refs/heads/"):
            _git("symbolic-ref", "HEAD", line.split()[1], git_directory=git_directory)


def forward(url: str, updates: Iterable[Update]) -> None:
    """Pushes what was scanned, all of it or nothing. Raises `UpstreamError` with the upstream's words.

    The lease makes the upstream refuse where its ref is not what the gate, and so the agent, has seen.
    """
    updates = list(updates)
    leases = [f"--force-with-lease={u.ref}:{'' if u.creates else u.old}" for u in updates]
    refspecs = [f":{u.ref}" if u.deletes else f"{u.new}:{u.ref}" for u in updates]
    atomic = ["--atomic"] if len(updates) > 1 else []
    _git("push", "--porcelain", "--no-verify", *atomic, *leases, "--", url, *refspecs)
