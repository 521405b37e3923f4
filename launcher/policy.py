"""A bottle as the bundle's policy file (docs/policy.md), and the secrets that it points to."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from launcher.docker import Command, run
from launcher.errors import LauncherError
from launcher.plan import SECRETS_DIR, UPSTREAM_CA_TARGET
from launcher.spec import BottleSpec, Credential, Host, Push, Repository, Secret


def policy_toml(spec: BottleSpec) -> str:
    """The policy file. It holds no secret, only the paths under which the bundle finds them."""
    egress: dict[str, Any] = {"allow": list(spec.allow)}
    egress |= _given(scan_limit=spec.scan_limit, hosts=[_host(host) for host in spec.hosts])
    if spec.upstream_ca is not None:
        egress["upstream_ca"] = UPSTREAM_CA_TARGET
    egress |= _given(credentials=[_credential(credential) for credential in spec.credentials])
    patterns = [{"name": name, "regex": regex} for name, regex in spec.patterns]
    policy: dict[str, Any] = {
        "walls": spec.walls,
        "transparent": spec.transparent,
        "egress": egress,
        "pipelock": {"engine": spec.engine} | _given(inspect=spec.inspect, patterns=patterns),
    }
    git = _given(quota=spec.git_quota, repos={each.name: _repository(each) for each in spec.repositories})
    supervise = _given(answer_timeout=spec.answer_timeout, max_questions=spec.max_questions)
    return tomli_w.dumps(policy | _given(git=git, supervise=supervise, limits=dict(spec.policy_limits)))


def _given(**keys: Any) -> dict[str, Any]:
    """The keys that say something: what is absent or empty is the policy's default."""
    empty: tuple[Any, ...] = ("", [], {})
    return {
        key: value for key, value in keys.items() if value is not None and value is not False and value not in empty
    }


def _host(host: Host) -> dict[str, Any]:
    table: dict[str, Any] = {"host": host.host}
    if host.consumers != ("agent",):
        table["for"] = list(host.consumers)
    if host.on_secret != "block":
        table["on_secret"] = host.on_secret
    return table | _given(
        methods=list(host.methods), paths=list(host.paths), private=host.private, idle=host.idle
    )  # fmt: skip


def _credential(credential: Credential) -> dict[str, Any]:
    table = {
        "host": credential.host,
        "header": credential.header,
        "value_file": secret_target(credential.name),
    }
    return table | _given(
        **{"for": list(credential.consumers)},
        methods=list(credential.methods),
        paths=list(credential.paths),
        plaintext=credential.plaintext,
        placeholder=credential.placeholder,
    )


def _repository(repository: Repository) -> dict[str, Any]:
    table = _given(upstream=repository.upstream, private=repository.private, known_hosts=repository.known_hosts)
    if repository.ssh_key is not None:
        table["ssh_key"] = secret_target(ssh_key_name(repository))
    return table | _given(push=_push(repository.push))


def _push(push: Push) -> dict[str, Any]:
    lists = {"branches": push.branches, "tags": push.tags, "force": push.force}
    table: dict[str, Any] = {key: list(names) for key, names in lists.items() if names is not None}
    return table | ({} if push.delete is None else {"delete": push.delete})


def ssh_key_name(repository: Repository) -> str:
    """The name of a repository's deploy key among the bundle's secrets."""
    return f"ssh-{repository.name}"


def secret_target(name: str) -> str:
    """Where the bundle finds a secret."""
    return f"{SECRETS_DIR}/{name}"


def secret_path(stage_dir: Path, name: str) -> Path:
    """Where a secret lies on the operator's machine until it has been handed over (mode 0600)."""
    return stage_dir / "secrets" / name


def secret_value(credential: Credential, environ: Mapping[str, str] = os.environ) -> str:
    """The header's whole value, read from where the operator keeps it.

    Raises `LauncherError` where it is absent, empty or more than one line; the message never holds the value.
    """
    where = f"credentials.{credential.name}"
    value = credential.prefix + read_secret(credential.secret, where, environ).strip()
    if not value.isprintable():
        raise LauncherError(
            f"{where}: {credential.secret} and its prefix are not one line of plain text: no header can carry them"
        )
    return value


def secret_values(spec: BottleSpec) -> dict[str, str]:
    """Every secret of a bottle by its name; raises one `LauncherError` that names all that cannot be read."""
    values, faults = {}, []
    for credential in spec.credentials:
        try:
            values[credential.name] = secret_value(credential)
        except LauncherError as error:
            faults.append(str(error))
    for repository in spec.repositories:
        try:
            if repository.ssh_key is not None:
                where = f"git.repos.{repository.name}.ssh_key"
                values[ssh_key_name(repository)] = read_secret(repository.ssh_key, where).rstrip("\n") + "\n"
        except LauncherError as error:
            faults.append(str(error))
    if faults:
        raise LauncherError("\n".join(faults), hint="nothing was started")
    return values


def read_secret(secret: Secret, where: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text of a secret; `where` is its place in the manifest, for what goes wrong.

    Raises `LauncherError` where it cannot be read or is empty.
    """
    if secret.file is not None:
        try:
            text = secret.file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            raise LauncherError(f"{where}.file: {secret.file}: {reason}") from None
    elif secret.command:
        text = _output(secret, where)
    else:
        text = environ.get(secret.env or "", "")
    if not text.strip():
        raise LauncherError(f"{where}: {secret} is not set or empty", hint="set it, or take the credential out")
    return text


def _output(secret: Secret, where: str) -> str:
    """What a command prints, run in the operator's home: what lies in the current directory has no say in it."""
    result = run(Command(secret.command), check=False, cwd=Path.home())
    if result.code:
        words = result.stderr.strip().splitlines()
        raise LauncherError(f"{where}.command: {secret}: {words[-1] if words else f'ended with {result.code}'}")
    return result.stdout
