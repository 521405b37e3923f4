"""Where a bundle comes from: its file, compiled or not, and the choice of a part of it (contract 9).

This is all that a start with a compiled file imports. What reads TOML is in `document.py`.
"""

from __future__ import annotations

import os

from bottle_init.bundle.source import BundleInvalid, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bottle_init.core.spec import Bundle, Spec

_INHERITED = ""


def from_text(text: bytes | str, source: str, policy: str | None = None, *, here: bool = True) -> Bundle:
    """The bundle that a file's text describes; `policy` takes the place of the bundle's own.

    What it includes is looked for beside `source`. Its users and groups need not exist on this machine where it is not
    to be run `here`. Raises BundleInvalid with all faults at once.
    """
    from bottle_init.bundle import document

    reading = document.parse(text, source, os.environ, here=here)
    if reading.bundle is None:
        raise BundleInvalid(source, reading.faults)
    return settle(reading.bundle, policy)


def from_file(path: str, policy: str | None = None) -> Bundle:
    """The bundle of a file, from its compiled form where that is of this very text. Raises BundleInvalid."""
    from bottle_init.bundle import compiled

    text = read_text(path)
    bundle = compiled.find(path, text, os.environ)
    if bundle is None or _has_unknown_accounts(bundle):
        return from_text(text, path, policy)  # Which tells what is wrong, if anything is.
    return settle(bundle, policy)


def control_of(path: str, text: bytes) -> str | None:
    """The control address in a bundle file, None where the file is not valid."""
    from bottle_init.bundle import compiled

    bundle = compiled.find(path, text, os.environ)
    if bundle is not None:
        return bundle.control
    from bottle_init.bundle import document

    reading = document.parse(text, path, os.environ, here=False, starts=False)
    return None if reading.bundle is None else reading.bundle.control


def settle(bundle: Bundle, policy: str | None) -> Bundle:
    """The bundle with one policy for all daemons that have none of their own."""
    chosen = policy or bundle.policy
    return bundle.replace(
        policy=chosen,
        children=tuple(spec.replace(policy=chosen) if spec.policy == _INHERITED else spec for spec in bundle.children),
    )


def _has_unknown_accounts(bundle: Bundle) -> bool:
    from bottle_init.bundle import accounts

    return any(True for _ in accounts.faults(bundle.children))


def select(bundle: Bundle, names: Sequence[str], source: str = "--only") -> Bundle:
    """The bundle with these daemons and jobs alone; oneshots always run.

    What any of them is after must be among them, and so must the child that `exit_code_from` names.
    Raises BundleInvalid with every name that is unknown or missing.
    """
    choosable = [spec.name for spec in bundle.children if spec.kind != "oneshot"]
    faults = [(name, _not_choosable(name, choosable, bundle.children)) for name in names if name not in choosable]
    part = bundle.replace(
        children=tuple(spec for spec in bundle.children if spec.kind == "oneshot" or spec.name in names)
    )
    faults.extend(_not_chosen(part))
    if not faults and not any(spec.enabled for spec in part.children if spec.kind != "oneshot"):
        faults.append(("", "every one of these has enabled = false, so nothing would run"))
    if faults:
        raise BundleInvalid(source, faults)
    return part


def _not_choosable(name: str, choosable: Sequence[str], children: Iterable[Spec]) -> str:
    if any(spec.name == name for spec in children):
        return "is a oneshot: those always run"
    return f"there is no such daemon or job (there are {', '.join(choosable)})"


def _not_chosen(part: Bundle) -> Iterator[tuple[str, str]]:
    """What the children of a part are after, or take their exit code from, and is not among them."""
    names = [spec.name for spec in part.children]
    for spec in part.children:
        missing = [name for name in spec.after if name not in names]
        if missing:
            yield spec.name, f"runs after {' and '.join(missing)}, which must then be chosen too"
    if part.exit_code_from is not None and part.exit_code_from not in names:
        yield "bundle.exit_code_from", f"{part.exit_code_from} must then be chosen too"
