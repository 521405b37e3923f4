"""`python3 -I -m bottle_init`, and the console script `bottle-init`."""

from __future__ import annotations

import posix
import sys

from bottle_init.cli import main as cli

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line, and leave without taking the interpreter apart first: that is milliseconds of a stop."""
    code = cli.main(sys.argv[1:])
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        code = code or 1
    posix._exit(code)  # noqa: SLF001 - that is its name.


if __name__ == "__main__":
    main()
