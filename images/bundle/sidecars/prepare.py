"""The oneshot `setup`: raises the walls, and puts in place what the daemons' own users can't make.

It runs once, as root with the init's capabilities (SETUID, SETGID; NET_ADMIN for the kernel rules), writes to
/run/bottle and the state volume alone, and leaves each daemon a directory that no other user can read.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from sidecars import handed_in, layout, privileges, staging, walls
from sidecars.identity import acting_as, user_ids
from sidecars.pipelock import engine
from sidecars.policy import EX_CONFIG, as_json, default_path, or_exit
from sidecars.policy.model import KERNEL_RULES
from sidecars.processes import run
from sidecars.staging import StagingError, write_private, write_public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from sidecars.policy import Policy

EX_UNAVAILABLE: Final = 69
EX_CANTCREAT: Final = 73
_PROXY: Final = "/usr/local/bin/bottle-proxy"
_NEEDS: Final = (
    "The bundle has to start as root with SETUID and SETGID, and to write to /run (--tmpfs /run): docs/image.md"
)


def _started(pid: int) -> str:
    """What tells a process from any other: its pid, and when it started, in clock ticks since boot (proc_pid_stat(5)).

    "" where there is no such process.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return f"{pid} {file.read().rpartition(')')[2].split()[19]}"
    except OSError:
        return ""


def _has_run() -> bool:
    """Whether the init that /run/bottle was prepared for is alive. The directory may outlive it (an emptyDir)."""
    try:
        prepared_for = layout.PREPARED.read_text("ascii").strip()
    except OSError:
        return False
    pid = prepared_for.partition(" ")[0]
    return pid.isdigit() and _started(int(pid)) == prepared_for


def _directories() -> None:
    """/run/bottle, root's and readable by all, with a private directory for each daemon."""
    _own(layout.RUN.parent)
    layout.RUN.mkdir(exist_ok=True)
    if layout.RUN.is_symlink() or layout.RUN.stat().st_uid != os.geteuid():
        raise StagingError(f"{layout.RUN}: is there already, and another user's")
    # Open for as long as the daemons' users make their directories, and no daemon is running yet.
    layout.RUN.chmod(0o1777)
    for user, directory in layout.PRIVATE.items():
        with acting_as(*user_ids(user)):
            if directory.exists():
                shutil.rmtree(directory)
            directory.mkdir(mode=0o700)
    with acting_as(*user_ids("supervise")):
        layout.ASK.mkdir(mode=0o755, exist_ok=True)
        layout.ASK.chmod(0o755)
    layout.RUN.chmod(0o755)
    _state()
    layout.PUBLIC.mkdir(mode=0o755, exist_ok=True)
    for path in (layout.KILL_SWITCH, layout.APPROVALS):
        path.unlink(missing_ok=True)


def _own(directory: Path) -> None:
    """A directory that everybody may write to (an emptyDir of Kubernetes') is made root's alone, where it is root's."""
    if directory.stat().st_uid == os.geteuid() and directory.stat().st_mode & 0o022:
        directory.chmod(0o755)


def _state() -> None:
    """`layout.STATE`: a link to the volume where that can be written to, else a directory that ends with the container.

    A volume that began as a copy of the image's directory has all of it already. Elsewhere each user makes its own.
    """
    if layout.STATE.is_symlink():
        layout.STATE.unlink()
    if os.access(layout.STATE_VOLUME, os.W_OK):
        layout.STATE.symlink_to(layout.STATE_VOLUME)
        _own(layout.STATE_VOLUME)
    else:
        layout.STATE.mkdir(mode=0o755, exist_ok=True)
        print(f"state: {layout.STATE_VOLUME} can't be written to, so what is kept there ends with this container")
    layout.AUDIT.mkdir(mode=0o755, exist_ok=True)
    layout.OPERATOR.mkdir(mode=0o700, exist_ok=True)
    for parent, owners in layout.OWNED_STATE.items():
        missing = {user: parent / name for user, name in owners.items() if not (parent / name).exists()}
        if not missing:
            continue
        # Open for that moment, and no daemon is running yet.
        parent.chmod(0o1777)
        for user, directory in missing.items():
            with acting_as(*user_ids(user)):
                directory.mkdir(mode=0o700)
        parent.chmod(0o755)


def _raise_walls(policy: Policy, engine_name: str) -> None:
    """The kernel rules, unless the policy does without. Raises `StagingError`."""
    if policy.walls != KERNEL_RULES:
        write_public(layout.WALLS, f"{policy.walls}\n")
        print(f"walls: {policy.walls}, as the policy accepts: every user in the bundle reaches everything", flush=True)
        return
    try:
        internal = walls.internal_networks(os.environ.get(walls.INTERNAL, ""))
        nameservers = walls.nameservers(Path("/etc/resolv.conf").read_text("utf-8", "replace"))
        walls.raise_walls(walls.Reach(internal, nameservers, policy.transparent, engine_name))
    except walls.WallsError as error:
        hint = 'grant NET_ADMIN (--cap-add NET_ADMIN), or accept it by the policy: walls = "without-kernel-rules"'
        raise StagingError(f"the kernel rules do not stand: {error}; {hint}", EX_UNAVAILABLE) from error
    write_public(layout.WALLS, f"{policy.walls}\n")
    listening = (
        f"the agent's ports answer {', '.join(internal)}" if internal else "the agent's ports answer loopback alone"
    )
    print(f"walls: {policy.walls}; {listening}", flush=True)


def _made_ca(common_name: str) -> tuple[str, str]:
    """The key and the certificate of a certificate authority for this container's life, both in PEM."""
    made = run((_PROXY, "ca", "--name", common_name))
    if made.code:
        raise StagingError(f"the {common_name}: {made.errors.decode('utf-8', 'replace').strip()}", EX_CANTCREAT)
    key, begin, rest = made.output.decode("ascii").partition("-----BEGIN CERTIFICATE-----")
    return key, begin + rest


def _place_ca(user: str, directory: Path, key: str, certificate: str, public: Path) -> None:
    """The key is its daemon's alone, and on the tmpfs only."""
    write_private(user, directory / layout.CA_KEY, key)
    write_private(user, directory / layout.CA_CERTIFICATE, certificate)
    write_private(user, directory / layout.CA_WITH_KEY, key + certificate)
    write_public(public, certificate)


def _authorities(engine_name: str) -> None:
    """egress's authority and pipelock's. That one may be handed in: where nothing can be copied out of the bundle.

    The real pipelock passes TLS on unopened, so that the agent's programs meet egress: both then have the one that the
    agent trusts.
    """
    key, certificate = (
        staging.place(name, layout.MOUNTED_SECRETS / name)
        for name in (layout.HANDED_IN_KEY, layout.HANDED_IN_CERTIFICATE)
    )
    if not key.exists() and not certificate.exists():
        agents = _made_ca("bottle pipelock CA")
    else:
        read = [staging.read_as_owner(path, "the certificate authority") for path in (key, certificate)]
        agents = (read[0], read[1])
        if "PRIVATE KEY-----" not in agents[0] or "-----BEGIN CERTIFICATE-----" not in agents[1]:
            raise StagingError(f"{key}, {certificate}: must be a private key and its certificate, in PEM")
    _place_ca("pipelock", layout.PIPELOCK, *agents, layout.PIPELOCK_CA)
    own = agents if engine_name == "pipelock" else _made_ca("bottle egress CA")
    _place_ca("egress", layout.EGRESS, *own, layout.EGRESS_CA)


def _check_mode(path: Path) -> None:
    if not path.stat().st_mode & 0o004:
        raise StagingError(f"{path}: the daemons' users can't read it; chmod 644 it (it holds no secrets)")


def _prepare(policy: Policy) -> None:
    _check_mode(default_path())
    try:
        choice = engine.choose(policy)
    except engine.EngineUnavailableError as error:
        raise StagingError(str(error), EX_UNAVAILABLE) from error
    # Before anything else, and before anybody else runs.
    _directories()
    _raise_walls(policy, choice.name)
    privileges.drop()
    if handed_in.expected():
        handed_in.wait_for(lambda: staging.missing_secrets(policy))
    staging.write(staging.read(policy))
    _authorities(choice.name)
    write_public(layout.COMPILED_POLICY, as_json(policy))
    write_public(layout.ENGINE, f"{choice.name}\n")
    print(f"pipelock engine: {choice.name} ({choice.reason})", flush=True)


def main() -> None:
    """Exits 0 when everything is in place, 78 for what the operator has to change, 69 for what can't be had here."""
    if _has_run():
        print("setup: it has run already, and a second run would replace keys under running daemons", file=sys.stderr)
        raise SystemExit(EX_UNAVAILABLE)
    policy = or_exit()
    try:
        _prepare(policy)
        write_public(layout.PREPARED, f"{_started(os.getppid())}\n")
    except StagingError as error:
        print(f"setup: {error}", file=sys.stderr)
        raise SystemExit(error.code) from None
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        print(f"setup: {what}. {_NEEDS}", file=sys.stderr)
        raise SystemExit(EX_CONFIG) from None


if __name__ == "__main__":
    main()
