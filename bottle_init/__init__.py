"""An init supervisor for containers that run several daemons."""

import sys

__version__ = "0.1.0"


def _is_program() -> bool:
    """Whether this interpreter was started to run the package: by `-m`, or by the console script.

    While `-m` looks for its module, `sys.argv` begins with that word.
    """
    if not sys.argv:
        return False
    if sys.argv[0] != "-m":
        return sys.argv[0].rpartition("/")[2] == "bottle-init"
    word = sys.orig_argv[-len(sys.argv)]  # The module, or the flags that it is written together with: -Im.
    module = word.partition("m")[2] if word.startswith("-") else word
    return module.partition(".")[0] == __name__


if not sys.flags.isolated and _is_program():
    from bottle_init import isolation

    isolation.begin()
