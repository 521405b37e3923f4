"""Calls one tool: `client.py session|stateless URL TOOL ARGUMENTS [cancel]`, and prints what came of it as JSON.

With `cancel`, the call is given up once the server has said that it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from mcp import Client, ClientSession
from mcp.client.streamable_http import streamable_http_client


@contextlib.asynccontextmanager
async def connected(mode: str, url: str) -> AsyncIterator[tuple[Any, str]]:
    """A client, and the protocol that it speaks: the newest one, or the newest of those with sessions."""
    if mode == "stateless":
        async with Client(url) as client:
            yield client, client.protocol_version
        return
    async with streamable_http_client(url) as streams, ClientSession(streams[0], streams[1]) as session:
        result = await session.initialize()
        yield session, result.protocol_version


async def main(mode: str, url: str, tool: str, arguments: str, *words: str) -> None:
    waiting = asyncio.Event()

    async def progress(*_: object) -> None:
        waiting.set()

    async with connected(mode, url) as (client, protocol):
        tools = [found.name for found in (await client.list_tools()).tools]
        call = asyncio.create_task(client.call_tool(tool, json.loads(arguments), progress_callback=progress))
        if "cancel" in words:
            await waiting.wait()
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            print(json.dumps({"cancelled": True}))
            return
        result = await call
    told = {"protocol": protocol, "tools": tools, "error": result.is_error, "text": result.content[0].text}
    print(json.dumps({**told, "progress": waiting.is_set()}))


asyncio.run(main(*sys.argv[1:]))
