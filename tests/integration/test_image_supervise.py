"""supervise: the agent asks by MCP, the operator answers by a command, and the agent can't answer itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.integration.image_harness import POLICY, Bundle, bundle, check, eventually, run

pytestmark = pytest.mark.docker

_CLIENT = """
import asyncio, json, sys
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

async def main(tool, arguments):
    async with streamable_http_client("http://sidecars:9100/mcp") as streams:
        async with ClientSession(streams[0], streams[1]) as session:
            await session.initialize()
            tools = [tool.name for tool in (await session.list_tools()).tools]
            result = await session.call_tool(tool, arguments)
            print(json.dumps({"tools": tools, "error": result.is_error, "text": result.content[0].text}))

asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
"""


@dataclass
class Conversation:
    """A bundle, and a container in which an agent with an MCP client runs."""

    bundle: Bundle
    agent: DockerContainer

    def call(self, tool: str, **arguments: str) -> str:
        """What the tool answered."""
        said = check(self.agent, "python3", "-c", _CLIENT, tool, json.dumps(arguments))
        answer = json.loads(said.splitlines()[-1])
        assert answer["tools"] == ["ask_operator", "get_answer"]
        return str(answer["text"])

    def operator(self, *arguments: str) -> tuple[int, str]:
        """What the operator's command ended with and wrote."""
        return run(self.bundle.container, "supervise-operator", *arguments)


@pytest.fixture(scope="module")
def conversation(bundle_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conversation]:
    """One bundle for this module; each test asks its own questions."""
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        stage = tmp_path_factory.mktemp("stage")
        running = stack.enter_context(bundle(bundle_image, stage, POLICY, network=network))
        # The bundle's own image, because it has an MCP client.
        agent = DockerContainer(bundle_image).with_network(network)
        agent = agent.with_kwargs(entrypoint=["sleep", "infinity"], init=True, user="1000")
        stack.callback(agent.stop)
        agent.start()
        running.wait_healthy()
        yield Conversation(running, agent)


def test_a_question_without_an_answer_is_pending_and_can_be_answered_later(conversation: Conversation) -> None:
    answer = conversation.call("ask_operator", question="May I delete the old branch?")
    assert answer.startswith("pending:")
    question_id = answer.removeprefix("pending:")
    assert conversation.operator("list") == (0, f"{question_id}  May I delete the old branch?\n")
    assert conversation.operator("answer", question_id, "yes,", "but", "keep", "the", "tags")[0] == 0
    assert conversation.call("get_answer", question_id=question_id) == "yes, but keep the tags"
    assert conversation.operator("list") == (0, "")


def test_an_answer_in_time_is_the_tools_answer(bundle_image: str, tmp_path: Path) -> None:
    """With time enough, the operator answers while the agent waits."""
    patient = POLICY.replace('answer_timeout = "2s"', 'answer_timeout = "10m"')
    with bundle(bundle_image, tmp_path, patient) as running:
        running.wait_healthy()
        client = _CLIENT.replace("sidecars:9100", "127.0.0.1:9100")
        asking = ("python3", "-c", client, "ask_operator", '{"question": "now?"}')
        quoted = " ".join("'" + part.replace("'", "'\\''") + "'" for part in asking)
        check(running.container, "sh", "-c", f"({quoted} > /tmp/said 2>&1; echo done >> /tmp/said) &")
        listed = eventually(lambda: run(running.container, "supervise-operator", "list")[1], "the question")
        check(running.container, "supervise-operator", "answer", listed.split()[0], "now")
        eventually(lambda: "done" in run(running.container, "cat", "/tmp/said")[1], "the answer")
        assert '"text": "now"' in check(running.container, "cat", "/tmp/said")


def test_what_the_agent_writes_does_not_control_the_operators_terminal(conversation: Conversation) -> None:
    answer = conversation.call("ask_operator", question="fine?\x1b[2J\r\nforged-id  forged question")
    _, listed = conversation.operator("list")
    assert "\x1b" not in listed
    assert len(listed.splitlines()) == 1
    assert conversation.operator("answer", answer.removeprefix("pending:"), "no")[0] == 0


def test_an_answer_is_given_once_and_to_a_question_that_was_asked(conversation: Conversation) -> None:
    code, said = conversation.operator("answer", "12345678", "yes")
    assert (code, said) == (1, "there is no question '12345678'\n")
    question_id = conversation.call("ask_operator", question="once?").removeprefix("pending:")
    assert conversation.operator("answer", question_id, "yes")[0] == 0
    assert conversation.operator("answer", question_id, "no") == (
        1,
        f"question {question_id} has been answered already\n",
    )
    assert conversation.call("get_answer", question_id=question_id) == "yes"


def test_the_agent_has_no_way_to_answer_itself(conversation: Conversation) -> None:
    """No operator's route is on the network, and no other daemon's user may use the socket."""
    probe = (
        "import sys, urllib.request, urllib.error\n"
        "try: print(urllib.request.urlopen(sys.argv[1], timeout=30).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)"
    )
    for path in ("operator", "answer", "list", "questions"):
        status = check(conversation.agent, "python3", "-c", probe, f"http://sidecars:9100/{path}")
        assert status.strip() == "404"
    code, said = run(conversation.bundle.container, "supervise-operator", "list", user="git-gate")
    assert code == 1
    assert "Permission denied" in said


@pytest.mark.parametrize(("host", "served"), [("sidecars:9100", True), ("sidecars", True), ("evil.example", False)])
def test_only_the_hosts_of_the_policy_are_answered(conversation: Conversation, host: str, served: bool) -> None:
    """Otherwise a web page could have its own name point here (DNS rebinding)."""
    request = (
        "import http.client, json, sys\n"
        "connection = http.client.HTTPConnection('sidecars', 9100, timeout=60)\n"
        "body = json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': 'ping'})\n"
        "headers = {'Host': sys.argv[1], 'content-type': 'application/json',\n"
        "    'accept': 'application/json, text/event-stream'}\n"
        "connection.request('POST', '/mcp', body, headers)\n"
        "print(connection.getresponse().status)"
    )
    status = check(conversation.agent, "python3", "-c", request, host).strip()
    assert (status == "421") == (not served)
