"""What launchers that were killed have left behind, and its removal."""

from launcher import state
from launcher.backend.base import Running, Tell
from launcher.backend.docker.listing import listed
from launcher.backend.docker.removal import remove
from launcher.docker import docker
from launcher.host_rules import SWEEP
from launcher.plan import BUNDLE_IMAGE, LABEL_OPERATOR, SIDECARS

ENDED = ("exited", "dead", "created")


def prune(tell: Tell) -> tuple[str, ...]:
    """Take down every bottle of this operator that no launcher works at and that does not run whole; then remove rules
    of the host's that belong to no bridge any more. Returns what was removed.
    """
    by_slug: dict[str, list[Running]] = {}
    for each in listed(f"{LABEL_OPERATOR}={state.operator()}"):
        by_slug.setdefault(each.slug, []).append(each)
    for slug in state.slugs():
        by_slug.setdefault(slug, [])
    removed = []
    for slug, objects in sorted(by_slug.items()):
        stage_dir = state.state_root() / slug
        if not (state.is_held(stage_dir) or _whole(objects)):
            remove(slug, {stage_dir}, tell)
            removed.append(slug)
    return (*removed, *_sweep())


def _whole(objects: list[Running]) -> bool:
    """Whether a bottle's agent and bundle run both."""
    states = {each.role: each.state for each in objects if each.kind == "container"}
    return all(states.get(role, "exited") not in ENDED for role in ("agent", SIDECARS))


def _sweep() -> tuple[str, ...]:
    """Remove the rules of bottles whose bridges are gone: those of a launcher that was killed at the worst time."""
    options = ("--rm", "--pull", "never", "--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN")
    result = docker("run", *options, "--read-only", "--entrypoint", "sh", BUNDLE_IMAGE, "-c", SWEEP, check=False)
    return tuple(f"rules {line}" for line in result.stdout.splitlines())
