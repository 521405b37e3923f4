"""What launchers that were killed have left behind, and its removal."""

from launcher import state
from launcher.backend.base import Tell
from launcher.backend.docker.listing import listed
from launcher.backend.docker.removal import remove
from launcher.backend.shared import left_behind
from launcher.docker import docker
from launcher.host_rules import SWEEP
from launcher.plan import BUNDLE_IMAGE, LABEL_OPERATOR


def prune(tell: Tell) -> tuple[str, ...]:
    """Take down every bottle of this operator that no launcher works at and that does not run whole; then remove rules
    of the host's that belong to no bridge any more. Returns what was removed.
    """
    slugs = left_behind(listed(f"{LABEL_OPERATOR}={state.operator()}"), state.slugs())
    for slug in slugs:
        remove(slug, {state.state_root() / slug}, tell)
    return (*slugs, *_sweep())


def _sweep() -> tuple[str, ...]:
    """Remove the rules of bottles whose bridges are gone: those of a launcher that was killed at the worst time."""
    options = ("--rm", "--pull", "never", "--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN")
    result = docker("run", *options, "--read-only", "--entrypoint", "sh", BUNDLE_IMAGE, "-c", SWEEP, check=False)
    return tuple(f"rules {line}" for line in result.stdout.splitlines())
