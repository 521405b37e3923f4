"""Whether the users and groups that a bundle names exist on this machine (contract 9).

The one part of a bundle file's check that a compiled form cannot answer for: it is made where the
bundle runs, at every start. A child looks its own up once more when it starts.
"""

from __future__ import annotations

from bottle_init.bundle.source import path_of
from bottle_init.core.words import ONESHOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bottle_init.core.spec import ExecSettings, Spec


def faults(children: Iterable[Spec]) -> Iterator[tuple[str, str]]:
    """`(path in the file, message)` for each user and group that is unknown, and that no oneshot can make in time."""
    specs = tuple(children)
    for spec in specs:
        missing = [(f"{path_of(spec)}.{key}", message) for key, message in unknown(spec.settings)]
        if missing and not runs_after_a_oneshot(spec, specs):
            yield from missing


def runs_after_a_oneshot(spec: Spec, children: Iterable[Spec]) -> bool:
    """Whether a child waits for a oneshot, directly or not. Names may dangle here, and go round in circles."""
    by_name = {each.name: each for each in children}
    todo, seen = list(spec.after), set[str]()
    while todo:
        name = todo.pop()
        if name in by_name and name not in seen:
            seen.add(name)
            if by_name[name].kind == ONESHOT:
                return True
            todo.extend(by_name[name].after)
    return False


def unknown(settings: ExecSettings) -> Iterator[tuple[str, str]]:
    """`(path in the child's table, message)` for each user and group that nobody knows. An id needs no entry."""
    if isinstance(settings.user, str) and not _is_user(settings.user):
        yield "user", _missing("user", settings.user)
    if isinstance(settings.group, str) and not _is_group(settings.group):
        yield "group", _missing("group", settings.group)
    for position, group in enumerate(settings.groups or ()):
        if isinstance(group, str) and not _is_group(group):
            yield f"groups[{position}]", _missing("group", group)


def _is_user(name: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(name)
    except (KeyError, UnicodeEncodeError):
        return False
    return True


def _is_group(name: str) -> bool:
    import grp

    try:
        grp.getgrnam(name)
    except (KeyError, UnicodeEncodeError):
        return False
    return True


def _missing(what: str, name: str) -> str:
    from bottle_init.bundle.table import quoted

    as_id = f" (an id is written without quotes: {name})" if name.isascii() and name.isdigit() else ""
    return f"there is no {what} {quoted(name)} here{as_id}"
