"""`bottle-rotate NAME`: another value for a credential, from stdin, without a new bundle."""

from __future__ import annotations

import sys

from sidecars import handed_in, layout, policy, privileges, staging
from sidecars.operator import reload
from sidecars.operator.channel import fail
from sidecars.operator.reload import ReloadError
from sidecars.policy import PolicyError
from sidecars.staging import StagingError

_USAGE = "usage: bottle-rotate NAME < VALUE"
_MAX_BYTES = 1 << 20
EX_USAGE = 2


def _rotate(name: str, value: str) -> None:
    """Raises `StagingError`, `PolicyError` and `ReloadError`; the old value is back where the new one can't be used."""
    with reload.locked():
        present = policy.load()
        if name not in staging.secret_names(present):
            known = ", ".join(sorted(staging.secret_names(present))) or "none"
            raise StagingError(f"the policy has no secret {name!r} (it has: {known})", 1)
        place = layout.SECRETS / name
        before = place.read_text("utf-8") if place.exists() else None
        handed_in.store({name: value})
        try:
            staged = staging.read(present)
        except StagingError:
            if before is None:
                place.unlink()
            else:
                handed_in.store({name: before})
            raise
        staging.write(staged)
        reload.announce(present.generation)


def main() -> None:
    """Exits 78 for a value that can't be used, 1 for an unknown name or a daemon that does not obey, 2 for a usage."""
    privileges.drop()
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(_USAGE, file=sys.stderr)
        raise SystemExit(EX_USAGE)
    name = sys.argv[1]
    try:
        _rotate(name, sys.stdin.buffer.read(_MAX_BYTES).decode("utf-8"))
    except UnicodeDecodeError:
        raise fail("bottle-rotate", "the value is not UTF-8 text", policy.EX_CONFIG) from None
    except PolicyError as error:
        print(error, file=sys.stderr)
        raise SystemExit(policy.EX_CONFIG) from None
    except StagingError as error:
        raise fail("bottle-rotate", str(error), error.code) from None
    except ReloadError as error:
        raise fail("bottle-rotate", str(error)) from None
    print(f"{name} has been replaced")
