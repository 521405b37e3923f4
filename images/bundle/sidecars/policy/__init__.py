"""The policy file: read, checked and compiled. docs/policy.md is what users read of it.

This package is its only reader. `load` returns a `Policy` that is valid as a whole, or raises `PolicyError` with every
fault of the file. `python3 -I -m sidecars.policy --json` prints the compiled form, which the daemons take.
"""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path

from bottle_init.bundle import toml
from sidecars import layout
from sidecars.policy import approvals, compiled, grammar
from sidecars.policy.model import ENGINES, Policy, Repository

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from bottle_init.bundle.source import Faults

__all__ = ["ENGINES", "Policy", "PolicyError", "Repository", "as_json", "default_path", "describe"]
__all__ += ["EX_CONFIG", "from_text", "load", "or_exit", "parse"]

EX_CONFIG = 78


class PolicyError(Exception):
    """A policy file that can't be used. `faults` are lines for people, each with the fault's path in the file."""

    def __init__(self, path: Path | str, faults: list[str]) -> None:
        self.faults = [f"{path}: {fault}" for fault in faults]
        super().__init__("\n".join(self.faults))


def default_path() -> Path:
    """`$BOTTLE_POLICY`, else the first of `layout.POLICIES` that is there, else the last of them."""
    if named := os.environ.get("BOTTLE_POLICY"):
        return Path(named)
    return next((path for path in layout.POLICIES if path.exists()), layout.POLICIES[-1])


def load(path: Path | None = None) -> Policy:
    """Reads the policy file, `path` or the default one, and the operator's approvals.

    Raises `PolicyError`, also for a file that is missing, unreadable or not TOML.
    """
    path = path or default_path()
    return from_text(_read(path), path)


def from_text(text: bytes, path: Path | str) -> Policy:
    """What `load` makes of a file with this text."""
    overlay = _overlay()
    policy = parse(_document(text, path), path)
    approved, faults = approvals.parse(overlay)
    if faults:
        raise PolicyError(layout.APPROVALS, _lines(faults))
    return policy.replace(approvals=approved, generation=generation(text, overlay), source=str(path))


def parse(document: Mapping[str, Any], path: Path | str = layout.POLICIES[-1]) -> Policy:
    """The policy that `document` (a TOML file's content) states. Raises `PolicyError` with all of its faults."""
    policy, faults = grammar.parse(document)
    if faults:
        raise PolicyError(path, _lines(faults))
    return policy


def _lines(faults: Faults) -> list[str]:
    return [f"{where}: {message}" if where else message for where, message in faults]


def generation(text: bytes, overlay: bytes) -> str:
    """What names this policy and these approvals: daemons say by it which of them they obey."""
    from hashlib import sha256  # noqa: PLC0415 - OpenSSL's module costs a quarter of this package's import.

    return sha256(text + overlay).hexdigest()[:16]


def _document(text: bytes, path: Path | str) -> dict[str, Any]:
    document, faults = toml.read(text.removeprefix(codecs.BOM_UTF8))
    if document is None:
        raise PolicyError(path, _lines(faults))
    return document


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(path, [error.strerror or str(error)]) from error


def _overlay() -> bytes:
    try:
        return layout.APPROVALS.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise PolicyError(layout.APPROVALS, [error.strerror or str(error)]) from error


def describe(policy: Policy) -> dict[str, int | str]:
    """The policy's size, for a log line: never a name of a secret, never a value."""
    return {
        "hosts": len(policy.hosts),
        "credentials": len(policy.credentials),
        "patterns": len(policy.patterns),
        "repositories": len(policy.repositories),
        "approvals": len(policy.approvals),
        "engine": policy.engine,
        "walls": policy.walls,
        "generation": policy.generation,
    }


def as_json(policy: Policy) -> str:
    """The compiled policy, one line of JSON."""
    import json  # noqa: PLC0415

    return json.dumps(compiled.compiled(policy), separators=(",", ":"))


def or_exit(load_policy: Callable[[], Policy] = load) -> Policy:
    """`load`, for a program's first line: faults go to stderr, and the program ends with 78 (EX_CONFIG)."""
    try:
        return load_policy()
    except PolicyError as error:
        print(error, file=sys.stderr)
        raise SystemExit(EX_CONFIG) from None
