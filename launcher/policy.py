"""A manifest as the bundle's policy file (docs/policy.md), and the secrets that it points to."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from launcher.errors import LauncherError
from launcher.manifest import BottleSpec, Credential
from launcher.plan import SECRETS_DIR, UPSTREAM_CA_TARGET


def policy_toml(spec: BottleSpec) -> str:
    """The policy file. It holds no secret, only the paths under which the bundle finds them."""
    egress: dict[str, Any] = {"allow": [host for host in spec.allow if host not in spec.private]}
    if spec.private:
        egress["hosts"] = [{"host": host, "private": True} for host in spec.private]
    if spec.upstream_ca is not None:
        egress["upstream_ca"] = UPSTREAM_CA_TARGET
    if spec.credentials:
        egress["credentials"] = [_credential(credential) for credential in spec.credentials]
    # The launcher neither grants NET_ADMIN to every bundle nor fixes its internal network yet.
    walls = "kernel-rules" if spec.engine == "pipelock" else "without-kernel-rules"
    policy: dict[str, Any] = {"walls": walls, "egress": egress, "pipelock": {"engine": spec.engine}}
    if spec.patterns:
        policy["pipelock"]["patterns"] = [{"name": name, "regex": regex} for name, regex in spec.patterns]
    if spec.git_repos:
        policy["git"] = {"repos": {name: {"upstream": url} if url else {} for name, url in spec.git_repos}}
    if spec.answer_timeout is not None:
        policy["supervise"] = {"answer_timeout": spec.answer_timeout}
    return tomli_w.dumps(policy)


def secret_value(credential: Credential, environ: Mapping[str, str] = os.environ) -> str:
    """The header's whole value, read from where the operator keeps it.

    Raises `LauncherError` where it is absent, empty or more than one line; the message never holds the value.
    """
    where = f"credentials.{credential.name}"
    if credential.from_file is not None:
        try:
            secret = credential.from_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            raise LauncherError(f"{where}.from_file: {credential.from_file}: {reason}") from None
        source = str(credential.from_file)
    else:
        secret = environ.get(credential.from_env or "", "").strip()
        source = f"${credential.from_env}"
    if not secret:
        raise LauncherError(f"{where}: {source} is not set or empty", hint="set it, or take the credential out")
    value = credential.prefix + secret
    if not value.isprintable():
        raise LauncherError(
            f"{where}: {source} and its prefix are not one line of plain text: no header can carry them"
        )
    return value


def secret_path(stage_dir: Path, credential: Credential) -> Path:
    """Where a secret lies on the operator's machine while its bottle lives (mode 0600)."""
    return stage_dir / "secrets" / credential.name


def secret_target(credential: Credential) -> str:
    """Where the bundle finds it."""
    return f"{SECRETS_DIR}/{credential.name}"


def _credential(credential: Credential) -> dict[str, Any]:
    table: dict[str, Any] = {
        "host": credential.host,
        "header": credential.header,
        "value_file": secret_target(credential),
    }
    if credential.plaintext:
        table["plaintext"] = True
    return table
