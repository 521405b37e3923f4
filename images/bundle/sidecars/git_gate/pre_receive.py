"""The pre-receive hook: scans, then forwards. What either refuses is not accepted here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from sidecars.dlp import Scanner
from sidecars.git_gate.audit import record
from sidecars.git_gate.scan import ScanError, scan
from sidecars.git_gate.upstream import Update, UpstreamError, forward, repository_of
from sidecars.policy import Policy, PolicyError, load

_NAMESPACES = ("refs/heads/", "refs/tags/")


def parse(lines: Iterable[str]) -> list[Update]:
    """What git writes to the hook's stdin."""
    return [Update(*line.rstrip("\n").split(" ", 2)) for line in lines]


def _ref_faults(updates: list[Update], policy: Policy) -> list[str]:
    """Faults of the refs' names. Others than branches and tags could change what a scan sees (refs/replace)."""
    scanner = Scanner(policy.patterns)
    faults = []
    for update in updates:
        if not update.ref.startswith(_NAMESPACES):
            faults.append(f"{update.ref}: only branches and tags are accepted")
        elif name := scanner.find(update.ref):
            faults.append(f"the name of a ref holds what looks like a secret ({name})")
    return faults


def judge(updates: list[Update], policy: Policy) -> list[str]:
    """Why the push is refused, in lines for the agent; none if it is accepted. Raises `ScanError`."""
    if faults := _ref_faults(updates, policy):
        return faults
    names = [update.new for update in updates if not update.deletes]
    if not names:
        return []
    findings = scan(names, policy.patterns)
    return [f"what looks like a secret: {finding}" for finding in findings]


class _RefusedError(Exception):
    """Carries the lines for the agent."""

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = lines


def _decide(updates: list[Update]) -> None:
    """Returns if the push is accepted. Raises `_RefusedError`."""
    try:
        policy = load()
        repository = repository_of(policy, Path.cwd())
        if repository is None:
            raise _RefusedError("refused: the repository is not in the policy")
        if refusals := judge(updates, policy):
            raise _RefusedError("refused; nothing of this push was stored or forwarded", *refusals)
        if repository.upstream is not None:
            forward(repository.upstream, updates)
    except PolicyError as error:
        raise _RefusedError("refused: the policy can't be read", *error.faults) from error
    except (ScanError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise _RefusedError(f"refused, as it can't be scanned: {error}") from error
    except UpstreamError as error:
        raise _RefusedError(f"refused by the upstream: {error}") from error


def main() -> None:
    """Exits 0 to accept the push, 1 to refuse it. Whatever goes wrong refuses it."""
    # A replacement object would show git another history than the one that is stored.
    os.environ["GIT_NO_REPLACE_OBJECTS"] = "1"
    updates = parse(sys.stdin)
    what = {"repository": Path.cwd().name.removesuffix(".git"), "refs": len(updates)}
    try:
        _decide(updates)
    except _RefusedError as refused:
        record("git_gate.refused", **what, reason=list(refused.lines))
        for line in refused.lines:
            print(f"git-gate: {line}", file=sys.stderr)
        raise SystemExit(1) from None
    record("git_gate.accepted", **what)


if __name__ == "__main__":
    main()
