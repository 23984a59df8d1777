"""Speaks to an MCP server with the official client: lists its tools, calls those that standard input names, and prints what came.

    ask.py MODE http URL [TOKEN]
    ask.py MODE stdio PROGRAM ARGUMENT…

MODE is `auto` or `legacy`. Standard input holds a JSON list of [tool, arguments]; standard output one JSON object.
"""

import asyncio
import json
import os
import sys

import httpx2
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client


def server(kind, first, *others):
    if kind == "stdio":
        return StdioServerParameters(command=first, args=list(others), env=dict(os.environ))
    if others:
        headers = {"Authorization": f"Bearer {others[0]}"}
        return streamable_http_client(first, http_client=httpx2.AsyncClient(headers=headers))
    return first


async def main(mode, *where):
    calls = json.load(sys.stdin)
    async with Client(server(*where), mode=mode, read_timeout_seconds=30) as client:
        tools = (await client.list_tools()).tools
        answers = []
        for name, arguments in calls:
            # The client compares each structured answer with the schema that the tool declares.
            answer = await client.call_tool(name, arguments)
            answers.append({"is_error": bool(answer.is_error), "structured": answer.structured_content,
                            "text": "".join(part.text for part in answer.content)})
        session = client.session
        print(json.dumps({
            "protocol": session.protocol_version, "instructions": session.instructions,
            "tools": [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools], "answers": answers,
        }))


asyncio.run(main(*sys.argv[1:]))
