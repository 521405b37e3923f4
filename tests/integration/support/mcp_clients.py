"""An agent's container with the MCP clients that agents use, and what they were told."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from testcontainers.core.container import DockerContainer

from tests.integration.support.image import check, eventually
from tools.engines import images_build

ROOT = Path(__file__).resolve().parents[3]
IMAGE = "bottle-test-mcp-clients"
DOCKERFILE = "tests/integration/support/mcp/Dockerfile"

STATEFUL = ("python-session", "typescript-1", "typescript-2")
STATELESS = ("python-stateless", "typescript-2-stateless")
"""Clients of the protocols with sessions, and of the one without."""

_COMMANDS = {
    "python-session": ("python3", "client.py", "session"),
    "python-stateless": ("python3", "client.py", "stateless"),
    "typescript-1": ("node", "client.mjs", "sdk1"),
    "typescript-2": ("node", "client.mjs", "sdk2"),
    "typescript-2-stateless": ("node", "client.mjs", "sdk2-stateless"),
}
URL = "http://sidecars:9100/mcp"


def build_image() -> str:
    """The clients' image, up to date."""
    builder = images_build()
    context = builder.context(("tests/integration/support/mcp",), builder.extra_cas())
    builder.build(IMAGE, DOCKERFILE, context, {"BASE": builder.choose_base()}, verbose=False)
    return IMAGE


@dataclass(frozen=True)
class Told:
    """What a client learned from one call."""

    protocol: str
    tools: list[str]
    error: bool
    text: str
    progress: bool


@dataclass
class Clients:
    """The container that they run in."""

    container: DockerContainer
    url: str = URL

    def call(self, client: str, tool: str, **arguments: str) -> Told:
        """What the tool answered, and what the client saw of the server."""
        said = check(self.container, *self.command(client, tool, **arguments))
        return Told(**json.loads(said.splitlines()[-1]))

    def command(self, client: str, tool: str, **arguments: str) -> tuple[str, ...]:
        return (*_COMMANDS[client], self.url, tool, json.dumps(arguments))

    def begin(self, client: str, tool: str, *words: str, **arguments: str) -> str:
        """A call in the background. Returns the file that gets what the client prints, and then `ended`."""
        file = check(self.container, "mktemp").strip()
        command = shlex.join((*self.command(client, tool, **arguments), *words))
        script = f"{command} > {file} 2>&1 & echo $! > {file}.pid; wait; echo ended >> {file}"
        check(self.container, "sh", "-c", f"({script}) > /dev/null 2>&1 &")
        return file

    def ended(self, file: str) -> str:
        """What a call in the background printed, once it has ended."""
        return str(eventually(lambda: (said := self.said(file)).endswith("ended\n") and said, "the end of the call"))

    def kill(self, file: str) -> None:
        """Ends a call in the background as a machine that loses its power does: without a word to the server."""
        check(self.container, "sh", "-c", f"kill -KILL $(cat {file}.pid)")

    def said(self, file: str) -> str:
        return check(self.container, "cat", file)
