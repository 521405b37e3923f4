"""The daemons' copies of what they must not read where the operator keeps it: credentials, keys, authorities.

Root reads the operator's files as their owners, and writes each copy as the daemon that it is for. setup does so at the
start, `bottle-reload` and `bottle-rotate` do so again. Everything is read and checked before anything is written.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from bottle_init.core.values import Value
from sidecars import known, layout
from sidecars.identity import acting_as, user_ids
from sidecars.policy import EX_CONFIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecars.policy import Policy


class StagingError(Exception):
    """What stands in the way, in words for the operator. `code` is the exit code."""

    def __init__(self, message: str, code: int = EX_CONFIG) -> None:
        super().__init__(message)
        self.code = code


class Staged(Value):
    """What the daemons get besides the policy."""

    credentials: dict[str, str]
    """The headers' values, by the paths of their files."""
    origins: str
    """The authorities that egress trusts for origins, as PEM."""
    ssh: dict[str, tuple[str, str]]
    """Each ssh upstream's private key and known hosts, by the repository's name."""
    known: str
    """What git-gate recognizes the credentials by (known.py)."""


def secret_names(policy: Policy) -> dict[str, Path]:
    """The secrets that the policy needs: the name by which each can be handed in, and the file that it is in else."""
    credentials = {each.name: Path(each.value_file) for each in policy.credentials}
    keys = {Path(each.ssh_key).name: Path(each.ssh_key) for each in policy.repositories if each.ssh_key}
    return {**keys, **credentials}


def missing_secrets(policy: Policy) -> list[str]:
    """The names of those that are neither handed in nor in their files."""
    return [name for name, path in secret_names(policy).items() if not place(name, path).exists()]


def place(name: str, path: Path) -> Path:
    """Where a secret is: what was handed in is stronger than its file."""
    handed_in = layout.SECRETS / name
    return handed_in if handed_in.exists() else path


def read(policy: Policy) -> Staged:
    """Reads and checks everything. Raises `StagingError`."""
    values = dict(_credentials(policy))
    named = {each.name: values[each.value_file] for each in policy.credentials}
    return Staged(values, _origins(policy), dict(_ssh(policy)), known.needles(named))


def write(staged: Staged) -> None:
    """Replaces the daemons' copies, each file in one step. Raises `OSError`."""
    write_private("egress", layout.CREDENTIALS, json.dumps(staged.credentials))
    names = {path.removeprefix(f"{layout.MOUNTED_SECRETS}/"): value for path, value in staged.credentials.items()}
    write_public(layout.KNOWN_SECRETS, known.needles(names))
    write_private("egress", layout.ORIGIN_CAS, staged.origins)
    write_public(layout.KNOWN_SECRETS, staged.known)
    for name, (key, known_hosts) in staged.ssh.items():
        write_private("git-gate", layout.GIT_GATE / f"{name}.key", key)
        write_private("git-gate", layout.GIT_GATE / f"{name}.known_hosts", known_hosts)


def write_private(user: str, path: Path, content: str) -> None:
    """Replaces a file that its user alone can read."""
    with acting_as(*user_ids(user)):
        replace(path, content, 0o600)


def write_public(path: Path, content: str) -> None:
    """Replaces a file of root's that everybody can read."""
    replace(path, content, 0o644)


def replace(path: Path, content: str, mode: int) -> None:
    """A new file in the place of `path`, whole at every moment."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    # Exclusively: a daemon can write to its own directory, and must not choose what is written to.
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
    new.replace(path)


def header_value(content: str) -> str | None:
    """A secret's content as a header's value, without its last line end; `None` where it can be none."""
    value = content.removesuffix("\n").removesuffix("\r")
    if not value or value != value.strip() or not value.isprintable() or not value.isascii():
        return None
    return value


def _credentials(policy: Policy) -> Iterator[tuple[str, str]]:
    for credential in policy.credentials:
        key = f"{credential.rule}.value_file"
        path = place(credential.name, Path(credential.value_file))
        value = header_value(read_as_owner(path, key))
        if value is None:
            raise StagingError(f"{key}: {path}: must be one line of printable ASCII, no blanks around it")
        yield credential.value_file, value


def _ssh(policy: Policy) -> Iterator[tuple[str, tuple[str, str]]]:
    for each in policy.repositories:
        if not each.ssh_key:
            continue
        where = f"git.repos.{each.name}"
        path = place(Path(each.ssh_key).name, Path(each.ssh_key))
        key = read_as_owner(path, f"{where}.ssh_key")
        if "PRIVATE KEY-----" not in key:
            raise StagingError(f"{where}.ssh_key: {path}: is no private key")
        known_hosts = each.known_hosts
        if known_hosts.startswith("/"):
            known_hosts = read_as_owner(Path(known_hosts), f"{where}.known_hosts")
        yield each.name, (key.rstrip() + "\n", known_hosts.rstrip() + "\n")


def _origins(policy: Policy) -> str:
    public = layout.SYSTEM_CA.read_text("utf-8")
    if not policy.upstream_ca:
        return public
    extra = read_as_owner(Path(policy.upstream_ca), "egress.upstream_ca")
    if "-----BEGIN CERTIFICATE-----" not in extra:
        raise StagingError(f"egress.upstream_ca: {policy.upstream_ca}: holds no PEM certificate")
    return f"{public}\n{extra}"


def read_as_owner(path: Path, key: str) -> str:
    """The text of an operator's file, whoever owns it. Raises `StagingError`."""
    try:
        status = path.stat()
        with acting_as(status.st_uid, status.st_gid):
            return path.read_text("utf-8")
    except OSError as error:
        raise StagingError(f"{key}: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StagingError(f"{key}: {path}: is not UTF-8 text") from error
