"""The text of a bundle file, and all that may be wrong with it (contract 9)."""

from __future__ import annotations

from bottle_init.bundle import reading
from bottle_init.core.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bottle_init.core.spec import Spec

    Faults = list[tuple[str, str]]
    """`(path in the file, what is wrong there)`."""

STANDARD_INPUT = "standard input"
"""What messages call it."""


class Wrong(Exception):
    """A value is not what it should be. Each fault is `(path below the value, message)`."""

    def __init__(self, message: str, below: Faults | None = None) -> None:
        super().__init__(message)
        self.faults: Faults = below or [("", message)]


class Fault(Value):
    """One thing that is wrong. `path` is a key of the file, a line of it, or empty for the file as a whole."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class BundleInvalid(Exception):
    """A bundle file cannot be run; `faults` are all that is wrong with it, `source` names the file."""

    def __init__(self, source: str, faults: Iterable[tuple[str, str]]) -> None:
        self.source = source
        self.faults = tuple(Fault(path, message) for path, message in faults)
        super().__init__(source, self.faults)

    def __str__(self) -> str:
        """One header line, and one line for each fault."""
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        return "\n  ".join((f"{self.source}: not a valid bundle ({count})", *map(str, self.faults)))


def path_of(spec: Spec) -> str:
    """The path of a child's table in the file, such as `daemons.web`."""
    return f"{spec.kind}s.{spec.name}"


def read_text(path: str) -> bytes:
    """The bytes of a bundle file. Raises BundleInvalid where they cannot be had."""
    return _had(path, "the file", lambda: reading.read(path))


def read_standard_input() -> bytes:
    """The bytes of standard input. Raises BundleInvalid where they cannot be had."""
    return _had(STANDARD_INPUT, "it", lambda: reading.whole(0))


def _had(source: str, what: str, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise BundleInvalid(source, [("", f"{what} cannot be read: {reason}")]) from None
