"""The files of a bottle on the operator's machine: ~/.claude-bottle/state/SLUG/, readable by the operator alone."""

import fcntl
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError

MARKER = "metadata.json"
LOCK = "lock"


def own_root() -> Path:
    """Where everything of this operator's is.

    Raises `LauncherError` where there is no home directory, or $HOME depends on the current one, which may be
    anybody's.
    """
    hint = "set HOME to a directory of yours"
    if not (named := os.environ.get("HOME", "/")).startswith("/"):
        raise LauncherError(f"HOME is {named!r}: an absolute path is needed", hint=hint)
    try:
        return Path.home() / ".claude-bottle"
    except RuntimeError:
        raise LauncherError("this user has no home directory", hint=hint) from None


def state_root() -> Path:
    """Where the bottles of this operator keep their files."""
    return own_root() / "state"


def default_manifest() -> Path:
    """The manifest of `up` without an argument. None is looked for in the current directory, which may be anybody's."""
    return own_root() / "bottle.toml"


def operator() -> str:
    """What tells this operator's bottles from those of others on the same engine: 16 hexadecimal digits, kept."""
    path = own_root() / "operator"
    with suppress(OSError):
        if re.fullmatch(r"[0-9a-f]{16}", kept := path.read_text().strip()):
            return kept
    own_root().mkdir(mode=0o700, parents=True, exist_ok=True)
    mine = secrets.token_hex(8)
    fresh = path.with_name(f"operator.{mine}")
    try:
        write(fresh, mine + "\n", mode=0o600)
        # Of two that find none at the same time, the first one's stays.
        os.link(fresh, path)
    except FileExistsError:
        mine = path.read_text().strip()
    finally:
        fresh.unlink(missing_ok=True)
    return mine


def create(stage_dir: Path, slug: str, **facts: Any) -> None:
    """Make a stage directory (0700), marked as this bottle's, with the facts that later commands need."""
    stage_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    stage_dir.chmod(0o700)
    _mark(stage_dir, {"slug": slug, **facts})


def _mark(stage_dir: Path, facts: dict[str, Any]) -> None:
    """Write the marker, whole or not at all: what has none is nobody's, and is removed as such."""
    replace(stage_dir / MARKER, json.dumps(facts) + "\n", mode=0o600)


def note(stage_dir: Path, **facts: Any) -> None:
    """Add to what is known of a bottle that has a stage directory."""
    known = facts_of(stage_dir)
    if known is not None:
        _mark(stage_dir, known | facts)


def facts_of(stage_dir: Path) -> dict[str, Any] | None:
    """What is known of the bottle of a stage directory; `None` where it is none."""
    try:
        known = json.loads((stage_dir / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and isinstance(known.get("slug"), str) else None


def write(path: Path, content: str | bytes, *, mode: int) -> None:
    """Write a file with exactly this mode, from its first byte on and whatever the umask; text in UTF-8."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def replace(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write a file whole or not at all, in place of the one that is there. That one's mode stays, and a link to it."""
    path = path.resolve()
    with suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode)
    fresh = path.with_name(f"{path.name}.new")
    try:
        write(fresh, content, mode=mode)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def held(stage_dir: Path) -> Iterator[None]:
    """Say that a launcher is at work on this bottle, until the block ends or the launcher does. May be nested.

    What stays of a directory in which nothing has been made is removed.
    """
    while (descriptor := _locked(stage_dir, fcntl.LOCK_SH)) is None:
        stage_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            # Alone, or it is left to the last one.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not (stage_dir / MARKER).exists():
                (stage_dir / LOCK).unlink()
                stage_dir.rmdir()
        os.close(descriptor)


def is_held(stage_dir: Path) -> bool:
    """Whether a launcher is at work on the bottle of this directory."""
    if (descriptor := _locked(stage_dir, fcntl.LOCK_EX | fcntl.LOCK_NB)) is None:
        return stage_dir.exists()
    os.close(descriptor)
    return False


def _locked(stage_dir: Path, how: int) -> int | None:
    """A descriptor of the directory's lock, which is taken and in its place: `discard_unmarked` may remove both.

    Who works on a bottle shares the lock with others that do; who would remove something takes it alone, and for
    moments. `None` where the directory is gone or, with LOCK_NB, the lock cannot be had.
    """
    while True:
        try:
            descriptor = os.open(stage_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def discard(stage_dir: Path, slug: str) -> None:
    """Remove a stage directory, if it is there and is this bottle's: the engine's word alone removes no directory."""
    known = facts_of(stage_dir)
    if known is not None and known["slug"] == slug:
        shutil.rmtree(stage_dir, ignore_errors=True)


def discard_unmarked() -> None:
    """Remove the directories of launchers that were killed before they had marked them: no bottle is theirs."""
    for stage_dir in state_root().glob("*/"):
        if (stage_dir / MARKER).exists():
            continue
        if (descriptor := _locked(stage_dir, fcntl.LOCK_EX | fcntl.LOCK_NB)) is None:
            continue
        if not (stage_dir / MARKER).exists():
            shutil.rmtree(stage_dir, ignore_errors=True)
        os.close(descriptor)


def discard_secrets(stage_dir: Path) -> None:
    """Remove the secrets, which have been handed over."""
    shutil.rmtree(stage_dir / "secrets", ignore_errors=True)


def slugs(engine: str = "") -> tuple[str, ...]:
    """The bottles that have a stage directory; with `engine`, but for those whose notes name another one."""
    found = sorted(marker.parent.name for marker in state_root().glob(f"*/{MARKER}"))
    return tuple(slug for slug in found if not engine or engine_of(slug) in ("", engine))


def engine_of(slug: str) -> str:
    """The backend that a bottle was started by; empty where nothing is noted."""
    return noted_of(slug, "engine")


def noted_of(slug: str, fact: str) -> str:
    """One thing that is noted of a bottle; empty where it is not."""
    return str((facts_of(state_root() / slug) or {}).get(fact, ""))
