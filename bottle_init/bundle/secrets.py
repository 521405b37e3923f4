"""What no message may show: the values of required variables, and what is made of them (contract 9.4)."""

from __future__ import annotations

from bottle_init.bundle.table import join, quoted
from bottle_init.bundle.variables import Replaced, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from bottle_init.bundle.variables import Values

    Secret = tuple[str, str]
    """A value, and the text that it is made of: `("hunter2", "${TOKEN}")`."""

    Secrets = dict[str, list[Secret]]
    """By the paths of the strings in the file; those in a list are at the path of the list, too."""


def of(content: Any, values: Values) -> Secrets:
    """All that strings of the file may contain, before anything is replaced in them."""
    found: Secrets = {}
    for path, secret in _in(content, values, "") if values.secret else ():
        found.setdefault(path, []).append(secret)
    return found


def _in(content: Any, values: Values, path: str) -> Iterator[tuple[str, Secret]]:
    if isinstance(content, str):
        value = replace(content, values)
        if type(value) is Replaced and value.is_secret:
            yield path, (str(value), content)
    elif isinstance(content, list):
        for position, each in enumerate(content):
            for below, secret in _in(each, values, f"{path}[{position}]"):
                yield below, secret
                yield path, secret
    elif isinstance(content, dict):
        for key, each in content.items():
            yield from _in(each, values, join(path, key))


def unsaid(message: str, secrets: Iterable[Secret]) -> str:
    """A message with texts as the file has them in place of their values."""
    for value, text in secrets:
        if value:
            message = message.replace(quoted(value), quoted(text)).replace(value, text)
    return message
