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
from tests.integration.support.mcp_clients import IMAGE, STATEFUL, STATELESS, Clients, build_image

pytestmark = pytest.mark.docker

TOOLS = [
    *("ask_operator", "bundle_status", "get_answer", "held_requests", "release_push", "release_request"),
    *("request_host", "request_repository"),
]
_CTL = ("python3", "-I", "-m", "bottle_init", "ctl")
PATIENT = POLICY.replace('answer_timeout = "2s"', 'answer_timeout = "10m"')


@pytest.fixture(scope="session")
def clients_image() -> str:
    """The image with the MCP clients."""
    return build_image()


@dataclass
class Conversation:
    """A bundle, and an agent with MCP clients."""

    bundle: Bundle
    agent: Clients

    def bundle_status(self) -> Any:
        """What the agent learns about the daemons."""
        return json.loads(self.agent.call("python-stateless", "bundle_status").text)

    def operator(self, *arguments: str) -> tuple[int, str]:
        """What a command of the operator's ended with and wrote."""
        return run(self.bundle.container, *arguments)

    def waiting(self) -> list[dict[str, Any]]:
        """What waits for the operator."""
        found: list[dict[str, Any]] = json.loads(check(self.bundle.container, "bottle-requests", "--json"))["questions"]
        return found

    def question(self, text: str) -> dict[str, Any]:
        """The one that waits and has this text, once it does."""
        return dict(eventually(lambda: next((q for q in self.waiting() if q["text"] == text), None), "the question"))


def agent_in(stack: ExitStack, network: Network) -> Clients:
    """A container with MCP clients in this network."""
    container = DockerContainer(IMAGE).with_network(network).with_kwargs(init=True, user="1000", cap_drop=["ALL"])
    stack.callback(container.stop)
    return Clients(container.start())


@pytest.fixture(scope="module")
def conversation(
    bundle_image: str, clients_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Conversation]:
    """One bundle for this module, in which no wait for an answer takes long; each test asks its own questions."""
    assert clients_image
    with ExitStack() as stack:
        network = stack.enter_context(Network(docker_network_kw={"internal": True}))
        running = stack.enter_context(bundle(bundle_image, tmp_path_factory.mktemp("stage"), POLICY, network=network))
        agent = agent_in(stack, network)
        running.wait_healthy()
        yield Conversation(running, agent)


@pytest.fixture
def patient(bundle_image: str, clients_image: str, tmp_path: Path) -> Iterator[Conversation]:
    """A bundle of the test's own that waits for answers for as long as any test takes."""
    assert clients_image
    with ExitStack() as stack:
        network = stack.enter_context(Network(docker_network_kw={"internal": True}))
        running = stack.enter_context(bundle(bundle_image, tmp_path, PATIENT, network=network))
        agent = agent_in(stack, network)
        running.wait_healthy()
        yield Conversation(running, agent)


@pytest.mark.parametrize("client", [*STATEFUL, *STATELESS])
def test_a_pending_question_can_be_answered_later(conversation: Conversation, client: str) -> None:
    """By every client, in both generations of the protocol; get_answer takes what ask_operator printed."""
    text = f"May I delete the old branch, {client}?"
    asked = conversation.agent.call(client, "ask_operator", question=text)
    assert (asked.protocol >= "2026-07-28") == (client in STATELESS), asked.protocol
    assert sorted(asked.tools) == TOOLS
    assert not asked.error
    assert asked.progress, "no client is to give up for want of news"
    assert asked.text.startswith("pending:")
    question_id = asked.text.removeprefix("pending:")
    assert conversation.operator("supervise-operator", "list") == (0, f"{question_id}  {text}\n")
    assert conversation.operator("supervise-operator", "answer", question_id, "yes,", "but", "keep", "it")[0] == 0
    answer = conversation.agent.call(client, "get_answer", question_id=asked.text)
    assert (answer.text, answer.error) == ("yes, but keep it", False)
    assert conversation.operator("supervise-operator", "list") == (0, "")


@pytest.mark.parametrize("client", [*STATEFUL, *STATELESS])
def test_what_is_wrong_reaches_the_model_in_words(conversation: Conversation, client: str) -> None:
    told = conversation.agent.call(client, "get_answer", question_id="pending:none")
    assert (told.text, told.error) == ('there is no question "pending:none"', True)
    told = conversation.agent.call(client, "request_host", host="no host", reason="none")
    assert (told.text, told.error) == ('"no host" is not a host', True)
    told = conversation.agent.call(client, "request_host", host="a.example.com", reason=" ")
    assert (told.text, told.error) == ("the operator wants a reason", True)


@pytest.mark.parametrize("client", ["python-session", "python-stateless"])
def test_an_answer_in_time_is_the_tools_answer(patient: Conversation, client: str) -> None:
    """With time enough, the operator answers while the agent waits; and may say no."""
    for order, expected in (("answer", "now"), ("deny", "The operator has refused. now")):
        call = patient.agent.begin(client, "ask_operator", question=order)
        question = patient.question(order)
        assert patient.operator("supervise-operator", order, question["id"], "now")[0] == 0
        assert json.loads(patient.agent.ended(call).splitlines()[0])["text"] == expected


@pytest.mark.parametrize("client", ["python-session", "python-stateless"])
def test_a_cancelled_question_is_withdrawn(patient: Conversation, client: str) -> None:
    """By a notification where there are sessions; without them, by the end of the request."""
    call = patient.agent.begin(client, "ask_operator", "cancel", question="never mind")
    assert patient.question("never mind")
    assert '"cancelled": true' in patient.agent.ended(call)
    eventually(lambda: not patient.waiting(), "the end of the question")
    assert '"event":"supervise.withdrawn"' in patient.bundle.logs


def test_a_question_whose_asker_has_died_is_withdrawn(patient: Conversation) -> None:
    call = patient.agent.begin("python-stateless", "ask_operator", question="is anybody there?")
    assert patient.question("is anybody there?")
    patient.agent.kill(call)
    eventually(lambda: not patient.waiting(), "the end of the question")


def test_a_cancelled_get_answer_withdraws_nothing(patient: Conversation) -> None:
    """Whoever comes back for an answer may go away again."""
    first = patient.agent.begin("python-session", "ask_operator", question="later?")
    question = patient.question("later?")
    second = patient.agent.begin("python-stateless", "get_answer", "cancel", question_id=question["id"])
    assert '"cancelled": true' in patient.agent.ended(second)
    assert patient.waiting()
    patient.operator("supervise-operator", "answer", question["id"], "yes")
    assert '"text": "yes"' in patient.agent.ended(first)


@pytest.mark.parametrize("client", [*STATEFUL, *STATELESS])
def test_a_stop_with_a_question_pending_is_clean(patient: Conversation, client: str) -> None:
    """supervise ends by itself, with 0, and not by a KILL; the agent is told that its question is kept."""
    call = patient.agent.begin(client, "ask_operator", question="in the middle of it")
    question = patient.question("in the middle of it")
    assert patient.bundle.stop() == 0
    assert '"event": "child_killed"' not in patient.bundle.logs
    (ended,) = (
        event
        for event in (json.loads(line) for line in patient.bundle.logs.splitlines() if line.startswith("{"))
        if event.get("event") == "child_exited" and event["child"] == "supervise"
    )
    assert (ended["code"], ended.get("signal")) == (0, None)
    assert f"the bundle is stopping; the question is kept: pending:{question['id']}" in patient.agent.ended(call)


def test_questions_outlive_the_bundle_on_its_volume(bundle_image: str, tmp_path: Path) -> None:
    """Those of a stopped bundle wait in the next one, and the answer is there for whoever knows the id."""
    engine: Any = DockerContainer(bundle_image).get_docker_client().client
    volume = engine.volumes.create()
    try:
        with bundle(bundle_image, tmp_path, state=volume.name) as first:
            first.wait_healthy()
            assert check(first.container, "readlink", "/run/bottle/state").strip() == "/var/lib/bottle"
            ask = (
                "import http.client, json\n"
                "c = http.client.HTTPConnection('127.0.0.1', 9100, timeout=60)\n"
                "m = {'jsonrpc': '2.0', 'id': 1, 'method': 'tools/call', 'params': {'name': 'ask_operator',\n"
                "  'arguments': {'question': 'tomorrow?'}, '_meta': {\n"
                "  'io.modelcontextprotocol/protocolVersion': '2026-07-28',\n"
                "  'io.modelcontextprotocol/clientCapabilities': {},\n"
                "  'io.modelcontextprotocol/clientInfo': {'name': 't', 'version': '1'}}}}\n"
                "h = {'content-type': 'application/json', 'accept': 'application/json, text/event-stream',\n"
                "  'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': 'ask_operator'}\n"
                "c.request('POST', '/mcp', json.dumps(m), h)\n"
                "print(c.getresponse().read().decode())"
            )
            assert "pending:" in check(first.container, "python3", "-I", "-c", ask)
            (question,) = json.loads(check(first.container, "bottle-requests", "--json"))["questions"]
            # A request that was held when supervise was killed is held no more.
            held = {**question, "id": "0" * 16, "kind": "request", "what": {"request": "1" * 16}}
            keep = f"printf %s '{json.dumps(held)}' > /run/bottle/state/supervise/questions/{held['id']}.json"
            check(first.container, "sh", "-c", keep, user="supervise")
            assert first.stop() == 0
        with bundle(bundle_image, tmp_path, state=volume.name) as second:
            second.wait_healthy()
            (kept,) = json.loads(check(second.container, "bottle-requests", "--json"))["questions"]
            assert (kept["id"], kept["text"]) == (question["id"], "tomorrow?")
            assert '"event":"supervise.withdrawn"' in second.logs
            check(second.container, "supervise-operator", "answer", kept["id"], "yes")
    finally:
        volume.remove(force=True)


def test_what_waits_is_announced(patient: Conversation) -> None:
    """To the init, which says so in its health, and to whoever follows: one JSON object for each change."""
    check(patient.bundle.container, "sh", "-c", "bottle-requests --follow > /tmp/followed 2>&1 &")
    call = patient.agent.begin("python-session", "ask_operator", question="who is there?")
    question = patient.question("who is there?")
    eventually(
        lambda: (
            "1 request waits for the operator (bottle-requests)" in check(patient.bundle.container, "bottle-health")
        ),
        "the init's word for it",
    )
    patient.operator("supervise-operator", "answer", question["id"], "me")
    patient.agent.ended(call)

    def followed() -> list[dict[str, Any]]:
        return [json.loads(line) for line in check(patient.bundle.container, "cat", "/tmp/followed").splitlines()]

    first, last = eventually(lambda: (lines := followed())[1:] and lines, "both lines")
    assert (first["id"], first["state"], first["text"]) == (question["id"], "open", "who is there?")
    assert (last["id"], last["state"]) == (question["id"], "answered")


def test_a_question_cannot_control_the_terminal(conversation: Conversation) -> None:
    """What the agent writes does not control the operator's terminal."""
    asked = conversation.agent.call(
        "python-session", "ask_operator", question="fine?\x1b[2J\r\nforged-id  forged question"
    )
    for command in (("supervise-operator", "list"), ("bottle-requests",)):
        _, listed = conversation.operator(*command)
        assert "\x1b" not in listed
        assert len(listed.splitlines()) == 1
    assert conversation.operator("supervise-operator", "answer", asked.text.removeprefix("pending:"), "no")[0] == 0


def test_a_question_is_answered_once(conversation: Conversation) -> None:
    """An answer is given once, and only to a question that was asked."""
    code, said = conversation.operator("supervise-operator", "answer", "12345678", "yes")
    assert (code, said) == (1, 'there is no question "12345678"\n')
    question_id = conversation.agent.call("python-session", "ask_operator", question="once?").text[8:]
    assert conversation.operator("supervise-operator", "answer", question_id, "yes")[0] == 0
    assert conversation.operator("supervise-operator", "answer", question_id, "no") == (
        1,
        f"{question_id} has been answered already\n",
    )
    assert conversation.agent.call("python-session", "get_answer", question_id=question_id).text == "yes"


def test_the_agent_has_no_way_to_answer_itself(conversation: Conversation) -> None:
    """W21: no operator's route is on the network, and no other daemon's user may use either socket."""
    probe = "curl -s -o /dev/null -w '%{http_code}' http://sidecars:9100/"
    for path in ("operator", "answer", "list", "questions", "../operator.sock"):
        assert check(conversation.agent.container, "sh", "-c", probe + path) == "404"
    for command in (("supervise-operator", "list"), ("bottle-requests",), ("bottle-approve", "host", "a.example.com")):
        code, said = run(conversation.bundle.container, *command, user="git-gate")
        assert (code, "Permission denied" in said) == (1, True), said
    connect = (
        "import contextlib, socket\n"
        "s = socket.socket(socket.AF_UNIX); s.connect('/run/bottle/ask/ask.sock')\n"
        "with contextlib.suppress(BrokenPipeError):\n"  # It may be refused before it has asked.
        '    s.sendall(b\'{"request": "0123456789abcdef"}\\n\')\n'
        "print(s.recv(200).decode())"
    )
    said = check(conversation.bundle.container, "python3", "-I", "-c", connect, user="nobody")
    assert "the user 65534 holds no requests" in said
    assert conversation.waiting() == []


def test_supervise_cannot_approve(conversation: Conversation) -> None:
    """W21: as its user, neither the overlay nor the operator's record can be written."""
    for path in ("/run/bottle/approvals.json", "/run/bottle/state/operator/audit.jsonl", "/run/bottle/policy.toml"):
        code, said = run(conversation.bundle.container, "sh", "-c", f"echo '[]' > {path}", user="supervise")
        assert code != 0
        assert "Permission denied" in said
    code, said = run(conversation.bundle.container, "bottle-approve", "host", "a.example.com", user="supervise")
    assert code == 1
    assert "Permission denied" in said


@pytest.mark.parametrize(("host", "served"), [("sidecars:9100", True), ("sidecars", True), ("evil.example", False)])
def test_only_the_hosts_of_the_policy_are_answered(conversation: Conversation, host: str, served: bool) -> None:
    """Otherwise a web page could have its own name point here (DNS rebinding)."""
    ping = '{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
    probe = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Host: {host}", "-d", ping)
    status = check(conversation.agent.container, *probe, "http://sidecars:9100/mcp")
    assert (status == "421") == (not served)


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
    assert (story[1]["level"], story[1]["code"]) == ("info", 0)

    code, table = conversation.operator("supervise-operator", "status")
    assert code == 0
    assert table.startswith("events: following since ")
    (line,) = (line for line in table.splitlines() if line.startswith("egress "))
    assert f"running since {egress(told)['since']}, restarts: {before + 1}, exited with 0 at " in line
    events = conversation.operator("supervise-operator", "events")[1]
    assert f"{story[1]['timestamp']}  egress  child_exited  code=0  level=info" in events


def test_supervise_gives_up_root_for_good(conversation: Conversation) -> None:
    """The kernel's account, of every thread: no user, group or capability of root's, nothing to gain by a file."""
    process = conversation.bundle.daemons()["supervise"]
    threads = check(
        conversation.bundle.container, "sh", "-c", f"cat /proc/{process.pid}/task/*/status", user="supervise"
    )
    rows = [line.split() for line in threads.splitlines()]
    found = {name: {tuple(row[1:]) for row in rows if row[0] == f"{name}:"} for name in ("Uid", "Gid", "NoNewPrivs")}
    assert found == {"Uid": {("974",) * 4}, "Gid": {("974",) * 4}, "NoNewPrivs": {("1",)}}
    assert {tuple(row[1:]) for row in rows if row[0] == "Groups:"} == {()}
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert {int(row[1], 16) for row in rows if row[0] == f"{name}:"} == {0}, name
    # What it was started with, and what only SETPCAP could take from here: SETGID and SETUID, of no use to it any more.
    assert {int(row[1], 16) for row in rows if row[0] == "CapBnd:"} == {1 << 6 | 1 << 7}


def test_supervise_has_the_subscription_alone(conversation: Conversation) -> None:
    """Its user is sent away from the control socket, and the operator's command is no way around that."""
    for order in (("restart", "egress"), ("events", "--follow")):
        code, said = run(conversation.bundle.container, *_CTL, *order, user="supervise")
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
        told = json.loads(check(running.container, "supervise-operator", "status", "--json"))
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


_HOLD = """
import socket, sys, time
connections = [socket.create_connection(("sidecars", 9100)) for _ in range(int(sys.argv[1]))]
for _ in range(30):
    socket.create_connection(("sidecars", 9100)).close()
print("holding", flush=True)
connections[0].recv(1)
"""


def test_the_bundle_stops_when_its_agent_is_gone(bundle_image: str, clients_image: str, tmp_path: Path) -> None:
    """W20: the agent's init holds a connection to 9100 that says nothing; a scan of the port is none."""
    assert clients_image
    with ExitStack() as stack:
        network = stack.enter_context(Network(docker_network_kw={"internal": True}))
        environment = {"BOTTLE_LEASE": "agent"}
        running = stack.enter_context(bundle(bundle_image, tmp_path, network=network, environment=environment))
        agent = agent_in(stack, network)
        running.wait_healthy()
        holding = agent.container.get_wrapped_container()
        check(agent.container, "sh", "-c", f"python3 -c '{_HOLD}' 1 > /tmp/held 2>&1 & echo $! > /tmp/pid")
        eventually(lambda: "holding" in check(agent.container, "cat", "/tmp/held"), "the lease")
        # A client that talks comes and goes; so do the thirty connections above.
        assert agent.call("python-session", "ask_operator", question="still there?").text.startswith("pending:")
        assert running.docker.status == "running"
        eventually(lambda: _leases(running) >= 1, "a lease that counts")
        holding.kill()
        assert running.wait_ended() == 0, running.logs
        assert "the agent's lease has ended" in running.logs
        # The engine has no order between the lines of stdout and those of stderr.
        eventually(lambda: '"event": "exit_report"' in running.logs, "the init's report")


def _leases(running: Bundle) -> int:
    """How many of supervise's connections count as leases, by its own health."""
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9100/health').read().decode())"
    return int(json.loads(check(running.container, "python3", "-I", "-c", ask))["leases"])
