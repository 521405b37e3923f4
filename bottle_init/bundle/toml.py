"""TOML, or what is wrong with it and in which line."""

from __future__ import annotations

import re
import tomllib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.bundle.source import Faults


def read(text: bytes | str) -> tuple[dict[str, object] | None, Faults]:
    """What TOML makes of the text; a fault of syntax is the only one, at its line."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if data.startswith(b"\xef\xbb\xbf"):
        return None, [("line 1", "begins with a byte order mark, which nobody sees and TOML does not have")]
    try:
        return tomllib.loads(data.decode()), []
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        return None, [(f"line {line}", "is not UTF-8, which TOML has to be")]
    except RecursionError:
        return None, [("", "is not TOML that anybody wrote: tables or lists are nested too deep")]
    except ValueError as problem:
        return None, [_syntax_fault(str(problem), data)]


def _syntax_fault(message: str, data: bytes) -> tuple[str, str]:
    """`tomllib` ends its messages with `(at line 3, column 5)` or `(at end of document)`."""
    words, _, where = message.rpartition(" (at ")
    found = re.fullmatch(r"line ([0-9]+), column ([0-9]+)\)", where)
    if found:
        return f"line {found[1]}, column {found[2]}", f"not TOML: {words}"
    if where == "end of document)":
        line = data.count(b"\n") + 1
        return f"line {line}", f"not TOML: {words} at the end of the file"
    return "", "is not TOML that anybody wrote: a number has thousands of digits"  # Python's own limit, without a line.
