"""What a command line is about: the bundle that it names, and the control socket."""

from __future__ import annotations

import os

from bottle_init.bundle import reading
from bottle_init.cli.options import DEFAULT_CONTROL, names_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.cli.options import Options
    from bottle_init.core.spec import Bundle


def find_bundle(options: Options) -> Bundle:
    """The bundle that a run is about, with all that the command line says of it. Raises BundleInvalid."""
    from bottle_init.bundle import load

    return narrow(load.from_file(options.config, options.policy), options, options.config)


def narrow(bundle: Bundle, options: Options, source: str) -> Bundle:
    """The bundle with what the command line says in place of its file. Raises BundleInvalid."""
    names, named_by = options.only, options.only_source
    if names is None and bundle.only_from is not None:
        names, named_by = names_in(os.environ.get(bundle.only_from, "")) or None, f"${bundle.only_from}"
    if names is not None:
        from bottle_init.bundle import load

        bundle = load.select(bundle, names, f"{source} ({named_by})")
    if options.stop_timeout is not None:
        bundle = bundle.replace(stop_timeout_ms=options.stop_timeout)
    if options.lease is not None:
        bundle = bundle.replace(lease=options.lease)
    return bundle if options.control is None else bundle.replace(control=options.control)


def find_control(options: Options) -> None:
    """Where nothing else was said, clients ask at the address that the bundle file gives to its init (contract 6).

    A health check is to cost as little as it can, so a file that cannot have the key is not parsed for it.
    """
    if options.control is not None:
        return
    options.control = DEFAULT_CONTROL
    try:
        text = reading.read(options.config)
    except (OSError, ValueError):
        return
    if b"control" in text or b"\\" in text:
        from bottle_init.bundle import load

        found = load.control_of(options.config, text)
        options.control = DEFAULT_CONTROL if found is None else found
