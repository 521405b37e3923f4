#!/bin/sh
# A Python MCP tool that returns NaN or infinity succeeds on the server and fails in every client.
#
# Expected: the server validates structured output against the schema that it has derived and published itself, so what does not
#   fit is reported as the tool's failure, by the server.
# Seen: for `-> float` the SDK publishes {"type": "number"} and checks the value while it still is a Python float, which NaN passes. Then
#   it serializes NaN and infinities as null, with isError false. The Python and TypeScript clients check the
#   message by the published schema, and raise. The caller loses the whole result, its text included; the server's log shows
#   nothing.
# Versions: mcp 2.3.0 on PyPI (server and client), @modelcontextprotocol/sdk 1.32.2 on npm (client).
# Matters: tools that report measurements (a rate over no time, a mean of nothing) break their agents on quiet days, and the
#   error names the schema, not the number. A model of a tool's result should have `float | None`, and say None itself.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q mcp==2.3.0
npm install --silent --no-fund --no-audit --prefix . @modelcontextprotocol/sdk@1.32.2 zod@4.6.7

cat > stated <<'END'
published: {"result": {"title": "Result", "type": "number"}}
sent: {"content": [{"text": "NaN", "type": "text"}], "isError": false, "structuredContent": {"result": null}}
python client: Invalid structured content returned by tool rate: None is not of type 'number'
typescript client: MCP error -32602: Structured content does not match the tool's output schema: data/result must be number
END

cat > server.py <<'END'
from mcp.server import MCPServer

server = MCPServer("server")


@server.tool()
def rate() -> float:
    return float("nan")


server.run("stdio")
END

cat > wire.py <<'END'
import json
import subprocess
import sys

process = subprocess.Popen([sys.executable, "server.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), file=process.stdin, flush=True)


def call(method, params):
    send(id=1, method=method, params=params)
    return json.loads(process.stdout.readline())["result"]


client = {"name": "client", "version": "1"}
call("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
send(method="notifications/initialized")
print("published:", json.dumps(call("tools/list", {})["tools"][0]["outputSchema"]["properties"]))
print("sent:", json.dumps(call("tools/call", {"name": "rate", "arguments": {}}), sort_keys=True))
process.terminate()
END

cat > client.py <<'END'
import asyncio
import sys

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client


async def main():
    async with Client(stdio_client(StdioServerParameters(command=sys.executable, args=["server.py"]))) as client:
        try:
            print("python client:", await client.call_tool("rate", {}))
        except RuntimeError as error:
            print("python client:", str(error).splitlines()[0])


asyncio.run(main())
END

cat > client.mjs <<'END'
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

const client = new Client({ name: "client", version: "1" });
await client.connect(new StdioClientTransport({ command: "venv/bin/python", args: ["server.py"], stderr: "ignore" }));
await client.listTools();
try {
  console.log("typescript client:", JSON.stringify(await client.callTool({ name: "rate", arguments: {} })));
} catch (error) {
  console.log("typescript client:", error.message);
}
await client.close();
END
{
    venv/bin/python wire.py 2> log
    venv/bin/python client.py 2>> log
    node client.mjs
} > seen
diff -u stated seen && echo "OK: as stated"
