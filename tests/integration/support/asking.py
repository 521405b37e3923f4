"""An agent that asks the operator: supervise's tools, used from beside it with nothing but the standard library."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.plan import object_name
from tests.integration.support.launching import DEADLINE_S, cli, finish

# Streamable HTTP, as of 2025-06-18.
MCP = """
import json, sys, urllib.request
def call(body, session=None):
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    if session: headers["mcp-session-id"] = session
    request = urllib.request.Request("http://sidecars:9100/mcp", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        text = answer.read().decode()
        lines = [line[5:] for line in text.splitlines() if line.startswith("data:")] or [text]
        found = [json.loads(line) for line in lines if line.strip()]
        return answer.headers.get("mcp-session-id"), [each for each in found if each.get("id") == body.get("id")]
start = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
session, _ = call({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": start})
call({"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
def use(name, arguments):
    body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    return call(body, session)[1][0]["result"]["content"][0]["text"]
answer = use(sys.argv[1], json.loads(sys.argv[2]))
while answer.startswith("pending:"):
    answer = use("get_answer", {"question_id": answer})
print(answer)
"""


@dataclass
class Asking:
    """A call that waits, and what the operator sees of it."""

    process: "subprocess.Popen[str]"
    request: dict[str, Any]

    @property
    def id(self) -> str:
        """By which the operator answers."""
        return str(self.request["id"])

    def answer(self) -> str:
        """What the agent is told in the end."""
        return self.process.communicate(timeout=DEADLINE_S)[0].strip()


def asks(home: Path, slug: str, tool: str, **arguments: object) -> Asking:
    """Let the agent of a bottle use a tool; returns once the operator whose home this is sees it."""
    argv = ("docker", "exec", object_name(slug, "agent"), "python3", "-c", MCP, tool, json.dumps(arguments))
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        code, said = finish(cli(home, "requests", "--json"))
        assert code == 0, said
        if waiting := json.loads(said):
            return Asking(process, waiting[-1])
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
