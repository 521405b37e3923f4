"""Rules on the engine's host that have outlived their bottle."""

from launcher.docker import docker
from launcher.host_rules import SWEEP
from launcher.plan import BUNDLE_IMAGE


def sweep() -> tuple[str, ...]:
    """Remove the rules of bottles whose bridges are gone: those of a launcher that was killed at the worst time.

    Returns what was removed.
    """
    options = ("--rm", "--pull", "never", "--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN")
    result = docker("run", *options, "--read-only", "--entrypoint", "sh", BUNDLE_IMAGE, "-c", SWEEP, check=False)
    return tuple(f"rules {line}" for line in result.stdout.splitlines())
