"""Attempts to get past the walls from the places of a bottle: for `bottle doctor` and the tests of every backend."""

import json
import secrets
from collections.abc import Callable
from typing import Any

from launcher.backend import BottleBackend
from launcher.containers import PYTHON, source_of
from launcher.docker import lines_of, run
from launcher.errors import LauncherError

LISTEN_S = 60


class Trial:
    """Attempts from the places of one bottle."""

    def __init__(self, backend: BottleBackend, slug: str) -> None:
        self.backend, self.slug = backend, slug
        self._source = source_of("probes.py")

    def agent(self, word: str, *arguments: str) -> Any:
        """An attempt from beside the agent, as its user."""
        command = self.backend.in_agent(self.slug, *PYTHON, "-c", self._source, word, *arguments)
        return self._answer(run(command, check=False).stdout)

    def bundle(self, user: str, word: str, *arguments: str) -> Any:
        """An attempt from inside the bundle, as one of its users."""
        command = self.backend.in_bundle(self.slug, "python3", "-I", "-c", self._source, word, *arguments, user=user)
        return self._answer(run(command, check=False).stdout)

    def host(self, word: str, *arguments: str) -> Any:
        """An attempt from the engine's host."""
        return self._answer(
            run(self.backend.on_host(self.slug, "python3", "-I", "-c", self._source, word, *arguments)).stdout
        )

    @staticmethod
    def _answer(output: str) -> Any:
        lines = output.splitlines()
        return json.loads(lines[-1]) if lines else "nothing was said"

    def while_listening(self, attempt: Callable[[int, str], None]) -> list[dict[str, str]]:
        """What arrives at a listener on all addresses of the engine's host while something is attempted, ended by a
        connection of the host's own: what was sent before it has arrived by then, or never does.
        """
        text = secrets.token_hex(6)
        command = self.backend.on_host(self.slug, "python3", "-I", "-c", self._source, "listen", str(LISTEN_S), text)
        arrived: list[dict[str, str]] = []
        with lines_of(command) as lines:
            first = next(lines, "")
            if not first:
                raise LauncherError("the listener on the engine's host said nothing", hint="run `bottle doctor` again")
            port = int(json.loads(first)["port"])
            attempt(port, text)
            self.host("connect", "127.0.0.1", str(port))
            for line in lines:
                found = json.loads(line)
                if found.get("tcp") == "127.0.0.1":
                    break
                arrived.append(found)
        return arrived
