#!/bin/sh
# Asked for a tool that doesn't exist, the Python and TypeScript MCP SDKs answer with a result, Go's with an error.
#
# Expected: an error. The MCP specification (server/tools, "Error Handling") has two kinds: JSON-RPC errors for protocol faults, an unknown
#   tool first among them, with the example code -32602; and results with isError for faults that happened inside a tool.
# Seen: the Python and TypeScript servers return a successful response whose result says isError. TypeScript's text even begins with
#   "MCP error -32602", an error that was caught and made a result. Go's server returns the error. For arguments that the
#   schema forbids, all three return a result, as the newer specifications want.
# Versions: mcp 2.3.0 and 1.30.0 on PyPI, @modelcontextprotocol/sdk 1.32.2 on npm, go-sdk 1.8.0; protocol 2025-06-18.
# Matters: a gateway, a test or a health check that asks for a tool by name can't tell "there is no such tool" from "the tool
#   failed" by the protocol's own means, and a stack that retries isError results retries a misspelt name.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=go1.26.8 GOPATH="$dir/go" GOCACHE="$dir/cache"
python3 -m venv two
two/bin/pip install -q mcp==2.3.0
python3 -m venv one
one/bin/pip install -q mcp==1.30.0
npm install --silent --no-fund --no-audit --prefix . @modelcontextprotocol/sdk@1.32.2 zod@4.6.7

cat > stated <<'END'
python 2, no such tool: result, isError: Unknown tool: nosuch
python 2, argument missing: result, isError
python 1, no such tool: result, isError: Unknown tool: nosuch
python 1, argument missing: result, isError
typescript, no such tool: result, isError: MCP error -32602: Tool nosuch not found
typescript, argument missing: result, isError
go, no such tool: error -32602: unknown tool "nosuch"
go, argument missing: result, isError
END

cat > server.py <<'END'
try:
    from mcp.server import MCPServer
except ImportError:
    from mcp.server.fastmcp import FastMCP as MCPServer

server = MCPServer("server")


@server.tool()
def echo(text: str) -> str:
    return text


server.run("stdio")
END

cat > server.mjs <<'END'
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { z } from "zod";

const server = new McpServer({ name: "server", version: "1" });
server.registerTool("echo", { inputSchema: { text: z.string() } }, async ({ text }) => ({ content: [{ type: "text", text }] }));
await server.connect(new StdioServerTransport());
END

cat > main.go <<'END'
package main

import (
	"context"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

type arguments struct {
	Text string `json:"text"`
}

func echo(_ context.Context, _ *mcp.CallToolRequest, in arguments) (*mcp.CallToolResult, any, error) {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: in.Text}}}, nil, nil
}

func main() {
	server := mcp.NewServer(&mcp.Implementation{Name: "server", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "echo"}, echo)
	_ = server.Run(context.Background(), &mcp.StdioTransport{})
}
END
go mod init try 2> log
go get github.com/modelcontextprotocol/go-sdk/mcp@v1.8.0 2>> log
go build -o server-go .

cat > client.py <<'END'
import json
import subprocess
import sys

process = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), file=process.stdin, flush=True)


def call(method, params):
    send(id=1, method=method, params=params)
    return json.loads(process.stdout.readline())


def verdict(response):
    if "error" in response:
        return "error {code}: {message}".format(**response["error"])
    result = response["result"]
    return ("result, isError" if result.get("isError") else "result") + ": " + result["content"][0]["text"]


client = {"name": "client", "version": "1"}
call("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
send(method="notifications/initialized")
print(f"{sys.argv[1]}, no such tool:", verdict(call("tools/call", {"name": "nosuch", "arguments": {}})))
print(f"{sys.argv[1]}, argument missing:", verdict(call("tools/call", {"name": "echo", "arguments": {}})).split(":")[0])
process.terminate()
END
{
    python3 client.py 'python 2' two/bin/python server.py
    python3 client.py 'python 1' one/bin/python server.py
    python3 client.py typescript node server.mjs
    python3 client.py go ./server-go
} > seen
diff -u stated seen && echo "OK: as stated"
