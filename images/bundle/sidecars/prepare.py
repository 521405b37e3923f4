"""The oneshot `setup`: from a policy file and an empty tmpfs to what the daemons need to start.

It runs as root with the capabilities SETUID and SETGID (and NET_ADMIN for the real pipelock), writes below /run/bottle
alone, and leaves each daemon a directory of its own that no other user can read. It can be run again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from sidecars import layout
from sidecars.identity import acting_as, user_ids
from sidecars.pipelock import engine
from sidecars.policy import EX_CONFIG, Policy, as_json, default_path, or_exit

EX_UNAVAILABLE = 69
_CA_DAYS = "365"
_NEEDS = "The bundle has to start as root with SETUID and SETGID, and to write to /run (--tmpfs /run): docs/image.md"


class SetupError(Exception):
    """What stands in the way, in words for the operator. `code` is the exit code."""

    def __init__(self, message: str, code: int = EX_CONFIG) -> None:
        super().__init__(message)
        self.code = code


def _directories() -> None:
    """/run/bottle, root's and readable by all, with a private directory for each daemon."""
    layout.RUN.mkdir(exist_ok=True)
    # Open for as long as the daemons' users make their directories, and no daemon is running yet.
    layout.RUN.chmod(0o1777)
    for user, directory in layout.PRIVATE.items():
        with acting_as(*user_ids(user)):
            if directory.exists():
                shutil.rmtree(directory)
            directory.mkdir(mode=0o700)
    layout.RUN.chmod(0o755)
    _state()
    layout.PUBLIC.mkdir(mode=0o755, exist_ok=True)
    layout.KILL_SWITCH.unlink(missing_ok=True)


def _state() -> None:
    """`layout.STATE`: a link to the volume where that can be written to, else a directory that ends with the container.

    A volume that began as a copy of the image's directory has all of it already. Elsewhere each user makes its own.
    """
    if layout.STATE.is_symlink():
        layout.STATE.unlink()
    if os.access(layout.STATE_VOLUME, os.W_OK):
        layout.STATE.symlink_to(layout.STATE_VOLUME)
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


def _write_public(path: Path, content: str) -> None:
    path.write_text(content, "utf-8")
    path.chmod(0o644)


def _write_private(user: str, path: Path, content: str) -> None:
    with acting_as(*user_ids(user)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(content)


def _make_ca(user: str, directory: Path, common_name: str, public: Path) -> None:
    """A certificate authority for this container's life: the key is its daemon's alone and is on the tmpfs only."""
    uid, gid = user_ids(user)
    key, certificate = directory / layout.CA_KEY, directory / layout.CA_CERTIFICATE

    def openssl(*arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], check=True, user=uid, group=gid, extra_groups=[], umask=0o077, capture_output=True
        )

    # In SEC 1 form, which the real pipelock insists on.
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
    extensions = ("basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign")
    openssl(
        *("req", "-x509", "-new", "-key", str(key), "-out", str(certificate), "-days", _CA_DAYS),
        *("-subj", f"/O=bottle/CN={common_name}"),
        *(argument for extension in extensions for argument in ("-addext", extension)),
    )
    with acting_as(uid, gid):
        certificate_text = certificate.read_text("ascii")
        key_text = key.read_text("ascii")
    _write_private(user, directory / layout.CA_WITH_KEY, key_text + certificate_text)
    _write_public(public, certificate_text)


def _read_as_owner(path: Path, key: str) -> str:
    """The text of an operator's file, whoever owns it."""
    try:
        status = path.stat()
        with acting_as(status.st_uid, status.st_gid):
            return path.read_text("utf-8")
    except OSError as error:
        raise SetupError(f"{key}: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SetupError(f"{key}: {path}: is not UTF-8 text") from error


def header_value(content: str) -> str | None:
    """A secret file's content as a header's value, without its last line end; `None` where it can be none."""
    value = content.removesuffix("\n").removesuffix("\r")
    if not value or value != value.strip() or not value.isprintable() or not value.isascii():
        return None
    return value


def _credentials(policy: Policy) -> dict[str, str]:
    """The credentials' values by the paths of their files."""
    values: dict[str, str] = {}
    for index, credential in enumerate(policy.credentials):
        key = f"egress.credentials[{index}].value_file"
        value = header_value(_read_as_owner(Path(credential.value_file), key))
        if value is None:
            raise SetupError(
                f"{key}: {credential.value_file}: must be one line of printable ASCII, no blanks around it"
            )
        values[credential.value_file] = value
    return values


def _origin_cas(policy: Policy) -> str:
    """The certificate authorities that egress trusts for origins, as PEM."""
    public = layout.SYSTEM_CA.read_text("utf-8")
    if not policy.upstream_ca:
        return public
    extra = _read_as_owner(Path(policy.upstream_ca), "egress.upstream_ca")
    if "-----BEGIN CERTIFICATE-----" not in extra:
        raise SetupError(f"egress.upstream_ca: {policy.upstream_ca}: holds no PEM certificate")
    return f"{public}\n{extra}"


def _check_mode(path: Path) -> None:
    if not path.stat().st_mode & 0o004:
        raise SetupError(f"{path}: the daemons' users can't read it; chmod 644 it (it holds no secrets)")


def _prepare(policy: Policy) -> None:
    _check_mode(default_path())
    _directories()
    _write_public(layout.COMPILED_POLICY, as_json(policy))
    _write_private("egress", layout.CREDENTIALS, json.dumps(_credentials(policy)))
    _write_private("egress", layout.ORIGIN_CAS, _origin_cas(policy))
    _make_ca("egress", layout.EGRESS, "bottle egress CA", layout.EGRESS_CA)
    _make_ca("pipelock", layout.PIPELOCK, "bottle pipelock CA", layout.PIPELOCK_CA)
    try:
        choice = engine.choose(policy)
    except engine.EngineUnavailableError as error:
        raise SetupError(str(error), EX_UNAVAILABLE) from error
    _write_public(layout.ENGINE, f"{choice.name}\n")
    print(f"pipelock engine: {choice.name} ({choice.reason})", flush=True)


def main() -> None:
    """Exits 0 when everything is in place, 78 for what the operator has to change, 69 where an engine can't be had."""
    policy = or_exit()
    try:
        _prepare(policy)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        raise SystemExit(error.code) from None
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        print(f"setup: {what}. {_NEEDS}", file=sys.stderr)
        raise SystemExit(EX_CONFIG) from None


if __name__ == "__main__":
    main()
