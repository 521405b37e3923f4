"""`python3 -m sidecars.git_gate`: makes the repositories that are missing, and becomes git-daemon.

git-daemon itself, not its wrapper `git daemon`: the wrapper leaves it running, port and all, when it is killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sidecars import layout
from sidecars.git_gate import audit
from sidecars.policy import Policy, or_exit

_MAX_CONNECTIONS = 16
# These reach every git below git-daemon, but not the one that serves a local upstream: git clears them there.
_CONFIG = {
    # Not in the repository: what an agent pushes can't change it, and the tmpfs need not be executable.
    "core.hooksPath": str(layout.HOOKS),
    "core.attributesFile": "/dev/null",
    "gc.auto": "0",
    "receive.advertisePushOptions": "false",
    "receive.autogc": "false",
    "receive.fsckObjects": "true",
    "receive.maxInputSize": "256m",
    "uploadpack.allowFilter": "true",
}


def environment() -> dict[str, str]:
    """git's environment: no configuration but ours."""
    config = {"GIT_CONFIG_COUNT": str(len(_CONFIG))}
    for index, (key, value) in enumerate(_CONFIG.items()):
        config[f"GIT_CONFIG_KEY_{index}"] = key
        config[f"GIT_CONFIG_VALUE_{index}"] = value
    ours = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0", audit.VARIABLE: str(audit.DESCRIPTOR)}
    return {**os.environ, **config, **ours}


def prepare(policy: Policy) -> None:
    """Makes each repository of the policy, and exports those and no others. Raises `OSError`, `CalledProcessError`."""
    policy.git_directory.mkdir(mode=0o700, exist_ok=True)
    for marker in policy.git_directory.glob("*.git/git-daemon-export-ok"):
        marker.unlink()
    for name in (layout.GIT_HEALTH, *(f"{repository.name}.git" for repository in policy.repositories)):
        directory = policy.git_directory / name
        if not directory.exists():
            command = ["git", "init", "--quiet", "--bare", "--initial-branch=main", "--template=", str(directory)]
            subprocess.run(command, check=True, env=environment())
        (directory / "git-daemon-export-ok").touch()


def command(directory: Path) -> list[str]:
    """git-daemon's command line."""
    exec_path = subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True).stdout.strip()
    return [
        f"{exec_path}/git-daemon",
        "--enable=receive-pack",
        f"--base-path={directory}",
        f"--access-hook={layout.HOOKS}/access",
        f"--port={layout.GIT_GATE_PORT}",
        "--reuseaddr",
        "--informative-errors",
        f"--max-connections={_MAX_CONNECTIONS}",
        "--init-timeout=10",
        "--timeout=300",
        str(directory),
    ]


def main() -> None:
    """Exits 78 where the repositories' directory can't be used."""
    policy = or_exit()
    try:
        prepare(policy)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"git.directory: {policy.git_directory}: {error}", file=sys.stderr)
        raise SystemExit(78) from None
    audit.hand_down()
    arguments = command(policy.git_directory)
    os.execve(arguments[0], arguments, environment())  # noqa: S606 - that is how one becomes it.


if __name__ == "__main__":
    main()
