"""What YAML gives, bounded and of the types that are wanted."""

from __future__ import annotations

import math
import re
import warnings
from typing import TYPE_CHECKING, Any, Final

from bottle_init.convert.draft import ExtraMissing, Unconvertible
from bottle_init.words import durations

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_VALUES: Final = 100_000
_DEEPEST: Final = 40
_DEEPEST_TEXT: Final = 500
_GO_DURATION: Final = re.compile(r"(?:([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|\u00b5s|ns))")
_UNIT_MS: Final = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1, "us": 1e-3, "\u00b5s": 1e-3, "ns": 1e-6}


def yaml(text: str) -> Any:
    """What YAML makes of the text. Raises Unconvertible, ExtraMissing."""
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError
    except ImportError:
        raise ExtraMissing("ruamel.yaml") from None
    if _nesting(text) > _DEEPEST_TEXT:
        raise Unconvertible("", "not YAML that anybody wrote: it is nested too deep")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f"line {mark.line + 1}" if mark is not None else ""
        raise Unconvertible(where, f"not YAML: {str(problem.problem or problem.context)[:200]}") from None
    except RecursionError:
        raise Unconvertible("", "not YAML that anybody wrote: it is nested too deep") from None
    except Exception as problem:  # noqa: BLE001 - The library has no common class for what odd scalars make it raise.
        raise Unconvertible("", f"not YAML: {str(problem)[:200]}") from None


def _nesting(text: str) -> int:
    """How deep brackets and dashes of one line may nest, strings not told from the rest; YAML reads that in no time."""
    deepest = depth = 0
    for char in text:
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth = max(depth - 1, 0)
    return max(deepest, *(line.count("- ") for line in text.splitlines()), 0)


def bounded(value: Any, change: Callable[[str], str] = str) -> Any:
    """A copy of what YAML gave, with text for keys and each string changed. Raises Unconvertible where it is too large.

    Aliases let a few lines stand for billions of values, or for one that contains itself.
    """
    count = 0

    def copy(value: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if count > _MOST_VALUES or depth > _DEEPEST:
            raise Unconvertible("", f"more than {_MOST_VALUES:,} values, or nested deeper than {_DEEPEST} levels")
        if isinstance(value, dict):
            return {str(key): copy(below, depth + 1) for key, below in value.items()}
        if isinstance(value, list | tuple | set):
            return [copy(below, depth + 1) for below in value]
        return change(value) if isinstance(value, str) else value

    return copy(value, 0)


def text_of(value: Any) -> str | None:
    """A scalar as text, None for what is no scalar."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list) or value is None:
        return None
    try:
        return str(value)
    except ValueError:  # A number of thousands of digits (sys.int_max_str_digits).
        return None


def texts(value: Any) -> list[str]:
    """A scalar, or the scalars of a list."""
    values = value if isinstance(value, list) else [value]
    return [text for each in values if (text := text_of(each)) is not None]


def table(value: Any) -> dict[str, Any]:
    """A mapping; an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def go_duration(value: Any) -> str | None:
    """A duration as Go writes it (`1m30s`, `1.5s`), as a bundle file has it; None for what is none."""
    text = text_of(value)
    if text is None:
        return None
    if text in ("0", "0.0"):
        return "0s"
    if not re.fullmatch(f"(?:{_GO_DURATION.pattern})+", text):
        return None
    exact = sum(float(number) * _UNIT_MS[unit] for number, unit in _GO_DURATION.findall(text))
    return spelled(exact)


def spelled(exact_ms: float) -> str | None:
    """Milliseconds as a duration of a bundle file; None for what is negative or takes more than ten years."""
    if not math.isfinite(exact_ms) or not 0 <= exact_ms <= durations.LONGEST_MS:
        return None
    return durations.spell(max(round(exact_ms), 1) if exact_ms else 0)


def whole(value: Any) -> int | None:
    """A whole number, or a text that is one; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,12}", value.strip()):
        return int(value)
    return None
