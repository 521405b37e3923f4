"""The files of a bottle on the operator's machine: ~/.claude-bottle/state/SLUG/, readable by nobody else."""

import json
import os
import shutil
from pathlib import Path

MARKER = "metadata.json"


def state_root() -> Path:
    """Where the bottles of this operator keep their files."""
    return Path.home() / ".claude-bottle" / "state"


def default_manifest() -> Path:
    """The manifest of `up` without an argument. None is looked for in the current directory, which may be anybody's."""
    return Path.home() / ".claude-bottle" / "bottle.toml"


def create(stage_dir: Path, slug: str) -> None:
    """Make a stage directory (0700), marked as this bottle's."""
    stage_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    stage_dir.chmod(0o700)
    write(stage_dir / MARKER, json.dumps({"slug": slug}) + "\n", mode=0o600)


def write(path: Path, text: str, *, mode: int) -> None:
    """Write a file with exactly this mode, from its first byte on and whatever the umask."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, mode)
        file.write(text)


def discard(stage_dir: Path, slug: str) -> None:
    """Remove a stage directory, if it is there and is this bottle's: the engine's word alone removes no directory."""
    try:
        marker = json.loads((stage_dir / MARKER).read_text())
    except (OSError, ValueError):
        return
    if marker == {"slug": slug}:
        shutil.rmtree(stage_dir, ignore_errors=True)


def slugs() -> tuple[str, ...]:
    """The bottles that have a stage directory."""
    return tuple(sorted(marker.parent.name for marker in state_root().glob(f"*/{MARKER}")))
