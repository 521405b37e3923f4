"""What goes wrong for people: said in one line, with what to do in the next."""

from collections.abc import Sequence


class LauncherError(Exception):
    """A failure to show without a traceback.

    `hint` says what to do about it and may be empty; `exit_code` is what the command line ends with.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ManifestError(LauncherError):
    """A manifest with faults: all of them, each with its line and its path in the file.

    `faults` are as people read them (`bottles.work.egress.allow[1]: …`), `lines` their lines, `None` where a fault
    belongs to none.
    """

    exit_code = 78  # EX_CONFIG of sysexits.h, as the init's own for an invalid bundle file

    def __init__(self, source: str, faults: Sequence[str], lines: Sequence[int | None] = (), *, hint: str = "") -> None:
        self.faults, self.lines = tuple(faults), tuple(lines) or (None,) * len(faults)
        where = [source if line is None else f"{source}:{line}" for line in self.lines]
        super().__init__("\n".join(f"{at}: {fault}" for at, fault in zip(where, faults, strict=True)), hint=hint)


class Interrupted(LauncherError):
    """A signal asked the launcher to end before it was done. Raised between two commands, never inside one."""

    def __init__(self, signal_number: int, signal_name: str) -> None:
        super().__init__(f"interrupted by {signal_name}")
        self.exit_code = 128 + signal_number
