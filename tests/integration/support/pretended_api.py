"""Two model APIs that want the same of every agent: that it asks its operator, and then commits and pushes.

Runs by itself in the container of `launcher.demo.Internet`, beside its demo_origin.py (`python3 pretended_api.py
NAME…`). It speaks what the real programs read: the streams of Anthropic's `/v1/messages` and of OpenAI's
`/v1/responses`. After the certificate each line of its output is a JSON object: a request that it got.
"""

import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ASK, WORK = "call_ask", "call_work"
QUESTION = {"question": "left or right?"}
COMMAND = (
    "git clone -q git://sidecars:9418/demo /tmp/demo && cd /tmp/demo && echo made >made.txt && git add made.txt"
    " && git -c user.name=Agent -c user.email=agent@example.com commit -qm 'Made by the agent'"
    " && git push origin HEAD:refs/heads/made && git ls-remote origin"
)
EXEC_COMMAND = (WORK, "exec_command", {"cmd": COMMAND})
CODE_MODE = "exec"
"""The tool of Codex's by which a model calls all others: it runs JavaScript."""
LAST_WORDS = "The work is done."


def wanted(names: list[str], results: dict[str, str]) -> tuple[str, str, dict[str, Any]] | None:
    """The call of a tool that comes next: its id, the tool's name, its arguments; none at the end."""
    if ASK not in results:
        return ASK, "mcp__supervise__ask_operator", QUESTION
    if WORK not in results:
        tools = {"Bash": {"command": COMMAND, "description": "Commit and push"}, "shell_command": {"command": COMMAND}}
        return next(((WORK, name, arguments) for name, arguments in tools.items() if name in names), EXEC_COMMAND)
    return None


def tool_names(body: dict[str, Any]) -> list[str]:
    """The names of the tools that a request offers, those in groups and those among its input as well."""
    inputs = body["input"] if isinstance(body.get("input"), list) else []
    groups = [body, *(item for item in inputs if item.get("type") == "additional_tools")]
    tools = [tool for group in groups for tool in group.get("tools") or ()]
    return [str(each.get("name") or each.get("type")) for tool in tools for each in tool.get("tools") or [tool]]


def results_of(body: dict[str, Any]) -> dict[str, str]:
    """What the tools have said that were called, by the calls' ids."""
    found = {}
    for message in body.get("messages") or ():
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part.get("type") == "tool_result":
                found[part["tool_use_id"]] = json.dumps(part.get("content"))
    for item in body["input"] if isinstance(body.get("input"), list) else ():
        if item.get("type") in ("function_call_output", "custom_tool_call_output"):
            found[item["call_id"]] = json.dumps(item.get("output"))
    return found


def messages(body: dict[str, Any], call: tuple[str, str, dict[str, Any]] | None) -> Iterator[dict[str, Any]]:
    """The events of an answer of Anthropic's."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": body.get("model")}
    message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield {"type": "message_start", "message": message}
    if call is None:
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        delta = {"type": "text_delta", "text": LAST_WORDS}
    else:
        block = {"type": "tool_use", "id": call[0], "name": call[1], "input": {}}
        yield {"type": "content_block_start", "index": 0, "content_block": block}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(call[2])}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    reason = "end_turn" if call is None else "tool_use"
    yield {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}
    yield {"type": "message_stop"}


def responses(names: list[str], call: tuple[str, str, dict[str, Any]] | None) -> Iterator[dict[str, Any]]:
    """The events of an answer of OpenAI's."""
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    yield {"type": "response.created", "response": {"id": "resp_1"}}
    if call is None:
        content = [{"type": "output_text", "text": LAST_WORDS}]
        item: dict[str, Any] = {"type": "message", "id": "msg_1", "role": "assistant", "content": content}
    elif CODE_MODE in names:
        # It waits for the whole of the script, and not for its own half minute.
        script = '// @exec: {"yield_time_ms": 600000}\n'
        script += f"text(await tools.{call[1]}({json.dumps(call[2])}))"
        item = {"type": "custom_tool_call", "id": "ctc_1", "name": CODE_MODE, "namespace": "functions", "input": script}
    else:
        item = {"type": "function_call", "id": "fc_1", "name": call[1], "arguments": json.dumps(call[2])}
    if call is not None:
        item["call_id"] = call[0]
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": {"id": "resp_1", "usage": usage}}


class Api(BaseHTTPRequestHandler):
    """Answers both APIs, and everything else with an empty object."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """A turn of the conversation, or something beside it."""
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._chunks()
        try:
            body = json.loads(text)
        except ValueError:
            body = {}
        results, names = results_of(body), tool_names(body)
        told = {"path": self.path, "results": results, "tools": names}
        for header in ("x-api-key", "authorization"):
            if value := self.headers.get(header):
                told[header] = hashlib.sha256(value.encode()).hexdigest()
        print(json.dumps(told), flush=True)
        path = self.path.partition("?")[0]
        if path.endswith("/responses"):
            self._stream(responses(names, wanted(names, results)))
        elif path.endswith("/messages") and body.get("stream"):
            # A request without tools is one beside the conversation: for its title, say.
            self._stream(messages(body, wanted(names, results) if names else None))
        else:
            self._whole({"input_tokens": 1} if path.endswith("count_tokens") else {})

    def do_GET(self) -> None:
        """Lists of models and the like: nothing that anything depends on."""
        print(json.dumps({"path": self.path}), flush=True)
        self._whole({"data": [], "models": []})

    def do_HEAD(self) -> None:
        """Whether anybody is there."""
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _chunks(self) -> bytes:
        found = b""
        while "chunked" in self.headers.get("Transfer-Encoding", "") and (size := int(self.rfile.readline(), 16)):
            found += self.rfile.read(size)
            self.rfile.readline()
        return found

    def _whole(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, events: Iterator[dict[str, Any]]) -> None:
        content = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Nothing: what comes in is printed already."""


def main(names: list[str]) -> None:
    """Print the authority's certificate once the port listens, and serve for good."""
    certificate, context = importlib.import_module("demo_origin").server_context(names)
    server = ThreadingHTTPServer(("0.0.0.0", 443), Api)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(certificate, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
