"""What every backend can do."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.manifest import BottleSpec
from launcher.plan import BottlePlan

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Running:
    """What is there of a bottle: a container's name or another object, its role and how it is."""

    slug: str
    role: str
    name: str
    state: str
    stage_dir: Path


class BottleBackend(ABC):
    """Makes a bottle and takes it down.

    The order is `prepare`, `launch` (which calls `start`), `stop`. Whatever happens between the first and the last, an
    interrupt included, nothing is left behind once `launch` has raised or `stop` has returned.
    """

    @abstractmethod
    def prepare(self, spec: BottleSpec, stage_dir: Path) -> BottlePlan:
        """Plan a bottle and write its files into `stage_dir`; its networks stay empty. Touches nothing else.

        Raises `LauncherError` where a credential can't be read.
        """

    @abstractmethod
    def launch(self, plan: BottlePlan, tell: Tell = lambda _line: None) -> str:
        """Make the networks, fill them in, and start the plan; returns what `start` returns.

        On any failure everything is taken down before the exception goes on.
        """

    @abstractmethod
    def start(self, plan: BottlePlan, tell: Tell = lambda _line: None) -> str:
        """Start a plan whose networks exist, and return the name of the agent's container once it runs.

        The agent is started only once the bundle is healthy. Raises `LauncherError` where it does not get there.
        """

    @abstractmethod
    def attach(self, target: str, tty: bool, sleep: Callable[[float], None]) -> int:
        """Show what the agent of that container says until it ends, and return its exit code.

        With `tty` the operator's terminal is the agent's own. `sleep` is called while waiting; what it raises ends
        the showing, not the agent. Raises `LauncherError` where the bundle ends first.
        """

    @abstractmethod
    def stop(self, target: str, tell: Tell = lambda _line: None) -> None:
        """Take down the bottle of that container (or slug), with all that it left behind. Idempotent."""

    @abstractmethod
    def preview(self, spec: BottleSpec, stage_dir: Path) -> tuple[str, ...]:
        """What `launch` would do, line by line, for people. Reads and writes nothing."""

    @abstractmethod
    def running(self) -> tuple[Running, ...]:
        """All that is there of all bottles, leftovers of a launcher that was killed included."""
