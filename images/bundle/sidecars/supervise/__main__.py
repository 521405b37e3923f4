"""`python3 -m sidecars.supervise`: an MCP server by which the agent asks and the operator answers.

The agent reaches the MCP endpoint alone. The operator's side is a Unix socket that belongs to this daemon's user.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse

from sidecars import layout
from sidecars.policy import Policy, or_exit
from sidecars.supervise.questions import QuestionError, Questions

_INSTRUCTIONS = (
    "Ask the operator before you do something that the task does not clearly permit. "
    "An answer of the form pending:ID means that the operator has not answered yet: go on with other work, "
    "and look later with get_answer(ID)."
)


def log(event: str, **fields: object) -> None:
    """One JSON object on one line of stdout."""
    print(json.dumps({"event": event, **fields}), flush=True)


def build(policy: Policy, questions: Questions) -> MCPServer[Any]:
    """The MCP server with its two tools and its health route."""
    server: MCPServer[Any] = MCPServer("bottle-supervise", instructions=_INSTRUCTIONS, log_level="WARNING")

    @server.tool()
    async def ask_operator(question: str) -> str:
        """Ask the operator a question. Returns the answer, or `pending:ID` if none came in time."""
        asked = questions.ask(question)
        log("supervise.asked", id=asked.id, chars=len(question))
        return await questions.wait(asked, policy.answer_timeout_s)

    @server.tool()
    async def get_answer(question_id: str) -> str:
        """The answer to an earlier question, waited for again; `pending:ID` if there still is none."""
        return await questions.wait(questions.get(question_id), policy.answer_timeout_s)

    @server.custom_route("/health", methods=["GET"])
    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "healthy", "open_questions": len(questions.open())})

    return server


def operate(questions: Questions, request: dict[str, Any]) -> dict[str, Any]:
    """One request of the operator's: `{"command": "list"}`, or `{"command": "answer", "id": …, "text": …}`."""
    match request:
        case {"command": "list"}:
            return {"questions": [{"id": question.id, "text": question.text} for question in questions.open()]}
        case {"command": "answer", "id": str(question_id), "text": str(text)}:
            questions.answer(question_id, text)
            log("supervise.answered", id=question_id)
            return {"answered": question_id}
    raise QuestionError("unknown command")


async def _serve_operator(questions: Questions) -> None:
    """Line by line: a JSON object in, a JSON object out."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = operate(questions, json.loads(await reader.readline()))
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


async def serve(policy: Policy) -> None:
    """Both sides until the MCP server ends."""
    questions = Questions()
    operator = asyncio.create_task(_serve_operator(questions))
    try:
        await build(policy, questions).run_streamable_http_async(
            host="0.0.0.0", port=layout.SUPERVISE_PORT, transport_security=security(policy)
        )
    finally:
        operator.cancel()


def main() -> None:
    """uvicorn ends by raising the signal that it got once more: the exit is by TERM."""
    policy = or_exit()
    asyncio.run(serve(policy))


if __name__ == "__main__":
    main()
