"""`bottle-policy [--json] [FILE]`: checks a policy file, or prints it compiled."""

from __future__ import annotations

import sys
from pathlib import Path

from sidecars import privileges
from sidecars.policy import as_json, describe, load, or_exit

_USAGE = "usage: bottle-policy [--json] [FILE]"
EX_USAGE = 2


def main(arguments: list[str] | None = None) -> None:
    """Exits 78 where the file has faults, 2 for a wrong command line."""
    privileges.drop()
    arguments = sys.argv[1:] if arguments is None else arguments
    files = [argument for argument in arguments if argument != "--json"]
    if len(files) > 1 or any(name.startswith("-") for name in files):
        print(_USAGE, file=sys.stderr)
        raise SystemExit(EX_USAGE)
    policy = or_exit(lambda: load(Path(files[0]) if files else None))
    if "--json" in arguments:
        print(as_json(policy))
    else:
        print("valid:", ", ".join(f"{key} {value}" for key, value in describe(policy).items()))


if __name__ == "__main__":
    main()
