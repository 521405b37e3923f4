"""Requests as they come, and the notice of a new one: on the desktop, or by a command of the operator's choice."""

import json
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from launcher.backend import BottleBackend
from launcher.docker import Command, installed, lines_of, run
from launcher.errors import LauncherError
from launcher.interrupts import HeldSignals

LOOK_S = 0.2
TEXT_MAX = 400


def followed(backend: BottleBackend, slugs: Sequence[str], held: HeldSignals) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each request of the bottles, those that wait already first, and each change of one; until all bottles have ended,
    or a signal comes.
    """
    told: queue.Queue[tuple[str, dict[str, Any] | None]] = queue.Queue()
    for slug in slugs:
        threading.Thread(target=_read, args=(backend, slug, told), daemon=True).start()
    left = set(slugs)
    while left and not held.came:
        try:
            slug, request = told.get(timeout=LOOK_S)
        except queue.Empty:
            continue
        if request is None:
            left.discard(slug)
        else:
            yield slug, request


def _read(backend: BottleBackend, slug: str, told: "queue.Queue[tuple[str, dict[str, Any] | None]]") -> None:
    with lines_of(backend.in_bundle(slug, "bottle-requests", "--follow")) as lines:
        for line in lines:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and "id" in found:
                told.put((slug, found))
    told.put((slug, None))


def tell_person(slug: str, request: dict[str, Any], command: Sequence[str]) -> bool:
    """Tell a person of a request; returns whether that worked. What the agent wrote is never a command.

    A command of the operator's gets the request as JSON on its standard input, and as `BOTTLE`, `REQUEST` and `TEXT`
    in its environment.
    """
    text = "".join(character if character.isprintable() else " " for character in str(request.get("text", "")))[
        :TEXT_MAX
    ]
    title = f"{slug} asks"
    if command:
        variables = {"BOTTLE": slug, "REQUEST": str(request["id"]), "TEXT": text}
        content = json.dumps({"bottle": slug, **request}).encode()
        return _works(Command(tuple(command)), variables, content)
    if installed("notify-send") and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return _works(Command(("notify-send", "--app-name=bottle", "--", title, text)), {}, None)
    return False


def _works(command: Command, variables: dict[str, str], content: bytes | None) -> bool:
    try:
        return run(command, check=False, extra_env=variables, stdin=content).code == 0
    except LauncherError:
        return False
