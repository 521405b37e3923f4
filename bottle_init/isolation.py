"""From here on nothing is imported from the working directory, nor from a `PYTHONPATH` (contract 5).

What brought the package itself stays, as the last place to look. Nothing but the package's own modules is found there,
so a file that has the name of a module of the standard library means nothing to PID 1, to a child before its own
program, or to a command. (That is why this module does without `__future__`.) What the interpreter has imported before
the package's first line is kept out by `-I` alone.
"""

import sys


def begin() -> None:
    """Take out of `sys.path` what the interpreter put there for the sake of the user."""
    import os  # A frozen module: no file can take its place.

    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    own = os.path.dirname(os.path.abspath(os.__file__))
    places = {os.path.abspath(place) for place in _given(os.environ.get("PYTHONPATH"))}
    kept = [
        place
        for place in sys.path
        if os.path.isabs(place) and (os.path.abspath(place) not in places or _is_within(place, own))
    ]
    sys.path[:] = [place for place in kept if place != home]
    sys.path.append(home)


def _given(pythonpath: str | None) -> list[str]:
    """The places that the interpreter was told of: the script's or the working directory, and those of `PYTHONPATH`."""
    places = [] if sys.flags.safe_path else sys.path[:1]
    if pythonpath and not sys.flags.ignore_environment:
        places += pythonpath.split(":")
    return places


def _is_within(place: str, directory: str) -> bool:
    """Whether a place is the standard library's, which somebody may have named once more."""
    return (place + "/").startswith(directory + "/") and not place.endswith("-packages")
