"""The policy as every daemon takes it: JSON with the file's own names and all defaults filled in (docs/policy.md)."""

from __future__ import annotations

from sidecars.policy.model import METHODS, Credential, Host, Policy, Repository

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def compiled(policy: Policy) -> dict[str, Any]:
    """The policy as a JSON object. Durations are in milliseconds, sizes in bytes."""
    return {
        "generation": policy.generation,
        "source": policy.source,
        "walls": policy.walls,
        "transparent": policy.transparent,
        "egress": {
            "methods": list(METHODS),
            "hosts": [host(rule) for rule in sorted(policy.hosts, key=_rank)],
            "tunnels": [tunnel(each) for each in policy.repositories if each.tunnelled],
            "upstream_ca": policy.upstream_ca,
            "scan_limit": policy.scan_limit,
            "credentials": [_credential(each) for each in policy.credentials],
        },
        "pipelock": {
            "engine": policy.engine,
            "inspect": policy.inspect,
            "patterns": [{"name": pattern.name, "regex": pattern.regex} for pattern in policy.patterns],
        },
        "git": {
            "directory": policy.directory,
            "quota": policy.quota,
            "repos": {each.name: repository(each) for each in policy.repositories},
        },
        "supervise": {
            "answer_timeout_ms": policy.answer_timeout_ms,
            "allowed_hosts": list(policy.allowed_hosts),
            "max_questions": policy.max_questions,
        },
        "limits": dict(policy.limits.fields()),
        "approvals": list(policy.approvals),
    }


def _rank(rule: Host) -> tuple[bool, int]:
    """Exact names first, then the longer of two domains: the order in which rules decide."""
    return rule.pattern.wildcard, -rule.pattern.host.count(".") if rule.pattern.wildcard else 0


def _methods(methods: tuple[str, ...]) -> list[str] | None:
    """Null stands for the default, which `egress.methods` holds once: every rule would repeat it."""
    return None if methods == METHODS else list(methods)


def host(rule: Host) -> dict[str, Any]:
    """One rule. Without a `port`, 80 and 443 are meant."""
    return {
        "host": rule.pattern.host,
        "wildcard": rule.pattern.wildcard,
        "port": rule.pattern.port,
        "for": list(rule.consumers),
        "methods": _methods(rule.methods),
        "paths": list(rule.paths),
        "private": rule.private,
        "on_secret": rule.on_secret,
        "idle_ms": rule.idle_ms,
        "rule": rule.rule,
    }


def _credential(credential: Credential) -> dict[str, Any]:
    return {
        "name": credential.name,
        "host": credential.host,
        "port": credential.port,
        "header": credential.header,
        "value_file": credential.value_file,
        "for": list(credential.consumers),
        "methods": _methods(credential.methods),
        "paths": list(credential.paths),
        "plaintext": credential.plaintext,
        "placeholder": credential.placeholder,
        "rule": credential.rule,
    }


def tunnel(each: Repository) -> dict[str, Any]:
    """Where git-gate may have a tunnel to: an upstream that does not speak HTTP."""
    source = each.source
    assert source is not None  # What is tunnelled has an upstream.
    return {"host": source.host, "port": source.port, "private": each.private, "repository": each.name}


def repository(each: Repository) -> dict[str, Any]:
    """One repository; `upstream` is null where it lives in the bundle alone."""
    source = each.source
    push = each.push
    return {
        "upstream": source and source.url,
        "scheme": source and source.scheme,
        "host": source and source.host,
        "port": source and source.port,
        "path": source and source.path,
        "private": each.private,
        "ssh_key": each.ssh_key,
        "known_hosts": each.known_hosts,
        "push": {
            "branches": list(push.branches),
            "tags": list(push.tags),
            "force": None if push.force is None else list(push.force),
            "delete": push.delete,
        },
    }
