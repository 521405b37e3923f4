"""supervise: the agent asks by MCP, the operator answers by a command, and the agent can't answer itself.

Both learn what becomes of the daemons, for which supervise starts as root and stays it for no longer than that takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.integration.support.image import DAEMONS, POLICY, Bundle, bundle, check, eventually, run

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
        assert answer["tools"] == ["ask_operator", "get_answer", "bundle_status"]
        return str(answer["text"])

    def bundle_status(self) -> Any:
        """What the agent learns about the daemons."""
        return json.loads(self.call("bundle_status"))

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


def test_a_pending_question_can_be_answered_later(conversation: Conversation) -> None:
    """A question without an answer in time is pending, and can be answered later."""
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


def test_a_question_cannot_control_the_terminal(conversation: Conversation) -> None:
    """What the agent writes does not control the operator's terminal."""
    answer = conversation.call("ask_operator", question="fine?\x1b[2J\r\nforged-id  forged question")
    _, listed = conversation.operator("list")
    assert "\x1b" not in listed
    assert len(listed.splitlines()) == 1
    assert conversation.operator("answer", answer.removeprefix("pending:"), "no")[0] == 0


def test_a_question_is_answered_once(conversation: Conversation) -> None:
    """An answer is given once, and only to a question that was asked."""
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


_CTL = ("python3", "-I", "-m", "bottle_init", "ctl")


def test_the_agent_and_the_operator_learn_of_a_restart(conversation: Conversation) -> None:
    """The init's own word for it, with the exit that came before; from a daemon's state to a line of text."""

    def restarts() -> int:
        return int(egress(conversation.bundle_status())["restarts"])

    def egress(told: Any) -> Any:
        (daemon,) = (daemon for daemon in told["daemons"] if daemon["name"] == "egress")
        return daemon

    before = restarts()
    check(conversation.bundle.container, *_CTL, "restart", "egress")
    told = eventually(
        lambda: (
            (told := conversation.bundle_status())
            and egress(told)["restarts"] == before + 1
            and egress(told)["state"] == "running"
            and told
        ),
        "egress, restarted",
    )
    assert told["events"] == "following"
    assert sorted(daemon["name"] for daemon in told["daemons"]) == sorted(DAEMONS)
    assert egress(told)["last_exit"]["code"] == 0
    story = [event for event in told["recent"] if event.get("child") == "egress"][-4:]
    assert [event["event"] for event in story] == ["ordered", "child_exited", "child_started", "child_ready"]
    assert story[0]["order"] == "ChildRestartOrdered"
    assert (story[1]["level"], story[1]["code"]) == ("info", 0)

    code, table = conversation.operator("status")
    assert code == 0
    assert table.startswith("events: following since ")
    (line,) = (line for line in table.splitlines() if line.startswith("egress "))
    assert f"running since {egress(told)['since']}, restarts: {before + 1}, exited with 0 at " in line
    assert f"{story[1]['timestamp']}  egress  child_exited  level=info  code=0" in conversation.operator("events")[1]


def test_supervise_gives_up_root_for_good(conversation: Conversation) -> None:
    """supervise keeps nothing of the root that it started as.

    The kernel's account: no user, group or capability of root's, nothing to gain by a set-user-ID file.
    """
    process = conversation.bundle.daemons()["supervise"]
    assert process.status["Uid"].split() == ["974"] * 4
    assert process.status["Gid"].split() == ["974"] * 4
    assert process.status["Groups"].split() == []
    assert process.status["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(process.status[name], 16) == 0, name
    # What it was started with, and what only SETPCAP could take from here: SETGID and SETUID, of no use to it any more.
    assert int(process.status["CapBnd"], 16) == 1 << 6 | 1 << 7


def test_supervise_has_the_subscription_alone(conversation: Conversation) -> None:
    """The subscription is all that supervise has of the init.

    Its user is sent away from the control socket, and the operator's command is no way around that.
    """
    code, said = run(conversation.bundle.container, *_CTL, "restart", "egress", user="supervise")
    assert code == 1
    assert "refused: its user id is 974" in said
    code, said = run(conversation.bundle.container, *_CTL, "events", "--follow", user="supervise")
    assert code == 1
    assert "refused: its user id is 974" in said


def test_what_can_not_be_known_is_said_and_not_fatal(bundle_image: str, tmp_path: Path) -> None:
    """An init without a control socket has no subscribers; questions are asked and answered as ever."""
    with bundle(bundle_image, tmp_path, environment={"BOTTLE_INIT_CONTROL": ""}) as running:
        code_and_table = eventually(
            lambda: (answer := run(running.container, "supervise-operator", "status"))[0] == 0 and answer,
            "supervise",
        )
        assert code_and_table[1].startswith("events: unknown since ")
        assert "no control socket is set" in code_and_table[1]
        client = _CLIENT.replace("sidecars:9100", "127.0.0.1:9100")
        eventually(
            lambda: run(running.container, "python3", "-c", client, "bundle_status", "{}")[0] == 0, "the agent's way in"
        )
        said = check(running.container, "python3", "-c", client, "bundle_status", "{}")
        told = json.loads(json.loads(said.splitlines()[-1])["text"])
        assert told["events"] == "unknown"
        assert told["daemons"] == told["recent"] == []
        assert running.daemons()["supervise"].uid == 974


def test_a_subscription_that_breaks_off_is_said(bundle_image: str, tmp_path: Path) -> None:
    """Suspended for as long as it takes to fall behind, supervise learns that from the init, and reports it."""
    with bundle(bundle_image, tmp_path) as running:
        running.wait_healthy()
        check(running.container, *_CTL, "signal", "supervise", "STOP")
        flood = (
            "import socket\n"
            "for _ in range(4000):\n"
            "    with socket.socket(socket.AF_UNIX) as init:\n"
            "        init.connect('\\0bottle_init')\n"
            "        init.sendall(b'ctl signal git-gate 28\\n')\n"
            "        init.recv(100)"
        )
        check(running.container, "python3", "-I", "-c", flood)
        check(running.container, *_CTL, "signal", "supervise", "CONT")
        running.wait_healthy()
        table = eventually(
            lambda: (
                (said := run(running.container, "supervise-operator", "status")[1]).startswith("events: unknown")
                and said
            ),
            "the end of the subscription",
        )
        assert "supervise was too slow" in table
        assert "supervise.events_unknown" in running.logs
