"""An MCP server by which the agent asks and the operator answers, and both learn what becomes of the daemons.

The agent reaches the MCP endpoint alone. The operator's side is a Unix socket that belongs to this daemon's user.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable
from typing import Any

from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse

from sidecars import layout
from sidecars.policy import Policy, or_exit
from sidecars.supervise.questions import QuestionError, Questions
from sidecars.supervise.watch import Watch

_INSTRUCTIONS = (
    "Ask the operator before you do something that the task does not clearly permit. "
    "An answer of the form pending:ID means that the operator has not answered yet: go on with other work, "
    "and look later with get_answer(ID). "
    "If a request or a push fails for no reason that you know, bundle_status tells whether a daemon died or restarts."
)


def log(event: str, **fields: object) -> None:
    """One JSON object on one line of stdout."""
    print(json.dumps({"event": event, **fields}), flush=True)


def build(policy: Policy, questions: Questions, watch: Watch) -> MCPServer[Any]:
    """The MCP server with its three tools and its health route."""
    server: MCPServer[Any] = MCPServer("bottle-supervise", instructions=_INSTRUCTIONS, log_level="WARNING")

    @server.tool()
    async def ask_operator(question: str) -> str:
        """Ask the operator a question. Returns the answer, or `pending:ID` if none came in time."""
        asked = questions.ask(question)
        log("supervise.asked", id=asked.id, chars=len(question))
        return await questions.wait(asked, policy.answer_timeout_ms / 1000)

    @server.tool()
    async def get_answer(question_id: str) -> str:
        """The answer to an earlier question, waited for again; `pending:ID` if there still is none."""
        return await questions.wait(questions.get(question_id), policy.answer_timeout_ms / 1000)

    @server.tool()
    async def bundle_status() -> dict[str, Any]:
        """The state of each daemon between you and the network, and their recent deaths and restarts, oldest first.

        A `child_exited` of level `info` was meant to be: somebody asked for a restart, or the bundle stops.
        `events` is `unknown` where the news stopped coming; what is told then is as of `unknown_since`.
        """
        return watch.status()

    @server.custom_route("/health", methods=["GET"])
    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "healthy", "open_questions": len(questions.open())})

    return server


def operate(questions: Questions, watch: Watch, request: dict[str, Any]) -> dict[str, Any]:
    """One request of the operator's: `{"command": "answer", "id": …, "text": …}`, or `list` or `status` alone."""
    match request:
        case {"command": "status"}:
            return watch.status()
        case {"command": "list"}:
            return {"questions": [{"id": question.id, "text": question.text} for question in questions.open()]}
        case {"command": "answer", "id": str(question_id), "text": str(text)}:
            questions.answer(question_id, text)
            log("supervise.answered", id=question_id)
            return {"answered": question_id}
    raise QuestionError("unknown command")


async def _serve_operator(questions: Questions, watch: Watch) -> None:
    """Line by line: a JSON object in, a JSON object out."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = operate(questions, watch, json.loads(await reader.readline()))
        except (QuestionError, ValueError) as error:
            answer = {"error": str(error)}
        writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    # The directory is this user's alone (0700), so the socket needs no mode of its own.
    layout.OPERATOR_SOCKET.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(connection, layout.OPERATOR_SOCKET)
    async with server:
        await server.serve_forever()


def security(policy: Policy) -> TransportSecuritySettings:
    """The Host headers that are answered: a web page in the agent's container can't rebind its way in."""
    names = [*policy.allowed_hosts, "localhost", "127.0.0.1"]
    hosts = [entry for name in names for entry in ((name,) if ":" in name else (name, f"{name}:*"))]
    return TransportSecuritySettings(enable_dns_rebinding_protection=True, allowed_hosts=hosts)


async def serve(policy: Policy, watch: Watch) -> None:
    """Both sides until the MCP server ends."""
    questions = Questions()
    operator = asyncio.create_task(_serve_operator(questions, watch))
    try:
        await build(policy, questions, watch).run_streamable_http_async(
            host="0.0.0.0", port=layout.SUPERVISE_PORT, transport_security=security(policy)
        )
    finally:
        operator.cancel()


def main(lines: Iterable[bytes], problem: str) -> None:
    """Serve; `lines` are the init's events, none for a `problem`.

    uvicorn ends by raising the signal that it got once more: the exit is by TERM.
    """
    policy = or_exit()
    watch = Watch()

    def follow() -> None:
        log("supervise.events_unknown", reason=watch.follow(lines, problem))

    threading.Thread(target=follow, name="events", daemon=True).start()
    asyncio.run(serve(policy, watch))
