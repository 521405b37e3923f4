// Calls one tool: `client.mjs sdk1|sdk2|sdk2-stateless URL TOOL ARGUMENTS`, and prints what came of it as JSON.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as Transport1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const [mode, url, name, args] = process.argv.slice(2);
let progress = false;
const onprogress = () => { progress = true; };
const me = { name: 'test', version: '1' };
let client, transport, tools, result;
const names = async () => (await client.listTools()).tools.map((tool) => tool.name);
if (mode === 'sdk1') {
  [client, transport] = [new Client1(me), new Transport1(new URL(url))];
  await client.connect(transport);
  tools = await names();
  result = await client.callTool({ name, arguments: JSON.parse(args) }, undefined, { onprogress });
} else {
  client = new Client(me, mode === 'sdk2' ? {} : { versionNegotiation: { mode: 'auto' } });
  transport = new StreamableHTTPClientTransport(new URL(url));
  await client.connect(transport);
  tools = await names();
  result = await client.callTool({ name, arguments: JSON.parse(args) }, { onprogress });
}
console.log(JSON.stringify({
  protocol: transport.protocolVersion, tools, error: Boolean(result.isError), text: result.content[0].text, progress,
}));
// The server may be gone by now.
await client.close().catch(() => {});
