"""`python -m bottle_init`, and the console script `bottle-init`."""

import sys

from bottle_init import cli


def main() -> int:
    """Run the command line; returns the exit code."""
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
