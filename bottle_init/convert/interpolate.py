"""`$NAME` and `${NAME:-default}` in a compose file (docs.docker.com/reference/compose-file/interpolation)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    Resolve = Callable[[str, str, str], str]
    """`(name, operator, what follows it)` -> what stands in its place."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR: Final = re.compile(r":?[-+?]")
_DEEPEST: Final = 10


def interpolated(text: str, resolve: Resolve, depth: int = 0) -> str:
    """The text with every variable replaced. Raises ValueError for what Compose refuses."""
    out, at = [], 0
    while (dollar := text.find("$", at)) >= 0:
        out.append(text[at:dollar])
        rest = text[dollar + 1 :]
        if rest.startswith("$"):
            out.append("$")
            at = dollar + 2
        elif match := _NAME.match(rest):
            out.append(resolve(match[0], "", ""))
            at = dollar + 1 + match.end()
        elif rest.startswith("{"):
            body = rest[1 : _closing(rest)]
            out.append(_braced(body, resolve, depth))
            at = dollar + len(body) + 3
        else:
            raise ValueError("a $ that begins no variable is written $$")
    return "".join(out) + text[at:]


def _closing(rest: str) -> int:
    """Where the brace that opens at 0 is closed."""
    level = 0
    for at, char in enumerate(rest):
        if char == "{" and (at == 0 or rest[at - 1] == "$"):
            level += 1
        elif char == "}":
            level -= 1
            if level == 0:
                return at
    raise ValueError("a ${ is not closed")


def _braced(body: str, resolve: Resolve, depth: int) -> str:
    name = _NAME.match(body)
    operator = _OPERATOR.match(body, name.end()) if name else None
    if name is None or (operator is None and name.end() < len(body)) or depth > _DEEPEST:
        raise ValueError(f"${{{body}}} is no variable")
    if operator is None:
        return resolve(name[0], "", "")
    return resolve(name[0], operator[0], interpolated(body[operator.end() :], resolve, depth + 1))
