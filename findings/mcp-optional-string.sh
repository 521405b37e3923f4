#!/bin/sh
# In the Python MCP SDK, a tool's argument of type `str | None` can't receive text that is JSON: "null" arrives as None, and a text
# that reads as an object or a list is refused.
#
# Expected: a JSON string arrives as that string. The tool's own inputSchema promises so (anyOf string or null), and with the type `str`
#   it does.
# Seen: before it validates, the SDK runs json.loads over string arguments whose annotation is not exactly `str`, to help clients
#   that send lists as text. Under `str | None` (or `str | int`), "null" becomes None; '{"a": 1}' and "[1]" become a dict and a
#   list, and then fail: "Input should be a valid string". Numbers and plain text are left alone. The TypeScript and Go SDKs
#   pass all of them on as sent.
# Versions: mcp 2.3.0 and 1.30.0 on PyPI; @modelcontextprotocol/sdk 1.32.2 on npm.
# Matters: an agent asks an operator, files a note or writes a file by a tool with an optional text; it works until the text
#   happens to be JSON, which for an agent is any day. Declare such an argument as `str` with an empty default.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv two
two/bin/pip install -q mcp==2.3.0
python3 -m venv one
one/bin/pip install -q mcp==1.30.0
npm install --silent --no-fund --no-audit --prefix . @modelcontextprotocol/sdk@1.32.2 zod@4.6.7

cat > stated <<'END'
two, str: "null" -> 'null'
two, str: "{\"a\": 1}" -> '{"a": 1}'
two, str: "[1]" -> '[1]'
two, str | None: "null" -> None
two, str | None: "{\"a\": 1}" -> refused: Input should be a valid string
two, str | None: "[1]" -> refused: Input should be a valid string
one, str: "null" -> 'null'
one, str: "{\"a\": 1}" -> '{"a": 1}'
one, str: "[1]" -> '[1]'
one, str | None: "null" -> None
one, str | None: "{\"a\": 1}" -> refused: Input should be a valid string
one, str | None: "[1]" -> refused: Input should be a valid string
typescript, str | None: "null" -> 'null'
typescript, str | None: "{\"a\": 1}" -> '{"a": 1}'
typescript, str | None: "[1]" -> '[1]'
END

cat > server.py <<'END'
try:
    from mcp.server import MCPServer
except ImportError:
    from mcp.server.fastmcp import FastMCP as MCPServer

server = MCPServer("server")


@server.tool(name="str")
def required(text: str) -> str:
    return repr(text)


@server.tool(name="str | None")
def optional(text: str | None = None) -> str:
    return repr(text)


server.run("stdio")
END

cat > server.mjs <<'END'
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { z } from "zod";

const server = new McpServer({ name: "server", version: "1" });
server.registerTool("str | None", { inputSchema: { text: z.string().optional() } }, async ({ text }) => ({
  content: [{ type: "text", text: `'${text}'` }],
}));
await server.connect(new StdioServerTransport());
END

cat > client.py <<'END'
import json
import subprocess
import sys

process = subprocess.Popen(sys.argv[3:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), file=process.stdin, flush=True)


def call(method, params):
    send(id=1, method=method, params=params)
    return json.loads(process.stdout.readline())["result"]


client = {"name": "client", "version": "1"}
call("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
send(method="notifications/initialized")
for tool in sys.argv[2].split(","):
    for text in ("null", '{"a": 1}', "[1]"):
        result = call("tools/call", {"name": tool, "arguments": {"text": text}})
        answer = result["content"][0]["text"]
        if result.get("isError"):
            answer = "refused: " + answer.splitlines()[-2].partition(" [")[0].strip()
        print(f"{sys.argv[1]}, {tool}: {json.dumps(text)} -> {answer}")
process.terminate()
END
{
    python3 client.py two 'str,str | None' two/bin/python server.py
    python3 client.py one 'str,str | None' one/bin/python server.py
    python3 client.py typescript 'str | None' node server.mjs
} > seen
diff -u stated seen && echo "OK: as stated"
