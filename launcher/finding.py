"""What `bottle doctor` finds."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.text import Text


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is and, where that is not good, what to do."""

    about: str
    good: bool
    words: str
    to_do: str = ""

    def as_json(self) -> dict[str, Any]:
        """The keys of `doctor --json`."""
        return asdict(self)


def shown(finding: Finding) -> Text:
    """A finding for a screen."""
    mark, style = ("ok  ", "green") if finding.good else ("FAIL", "bold red")
    text = Text.assemble((f"{mark} ", style), (f"{finding.about:8} ", "bold"), finding.words)
    return text if finding.good or not finding.to_do else text.append(f"\n     {'':8} {finding.to_do}", "yellow")
