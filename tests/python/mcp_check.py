"""Uses a host of crispy-enigma through the official SDK of the Model Context Protocol, as its users do.

usage: mcp_check.py URL KEY LIMITED_KEY

The tenant of KEY has tools, a scripted model that says how to classify, and no documents yet. That of LIMITED_KEY may ask three
times a minute.
"""

import asyncio
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

TEXT = "The kettle boils in three minutes. Then the tea steeps for four. " * 40
MODERN = "2026-07-28"


def connect(url, key, mode):
    http = httpx2.AsyncClient(headers={"x-api-key": key}, timeout=60)
    return Client(streamable_http_client(url, http_client=http), mode=mode)


async def refused(code, call):
    try:
        await call
    except MCPError as error:
        assert error.code == code, error
        return error
    raise AssertionError(f"no error {code}")


async def use(url, key, mode, version):
    async with connect(url, key, mode) as client:
        assert client.protocol_version == version, client.protocol_version
        assert client.server_info.name == "crispy-enigma", client.server_info
        assert client.server_capabilities.tools is not None and client.server_capabilities.resources is not None
        assert "search" in client.instructions

        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        built_in = {"classify_intent", "extract_entities", "ingest_docs", "summarize", "tag_chunk_docs", "search"}
        assert built_in <= set(tools), sorted(tools)
        assert all(tool.output_schema for tool in tools.values())

        # The SDK checks what a tool gives back by the tool's schema.
        documents = [{"docId": f"tea/{mode} {n}", "title": "Tea", "text": TEXT} for n in range(2)]
        arguments = {"documents": documents, "chunking": {"maxChunkSize": 200, "overlap": 50}}
        taken = await client.call_tool("ingest_docs", arguments)
        assert not taken.is_error, taken
        assert [told["status"] for told in taken.structured_content["documents"]] == ["ingested"] * 2, taken
        arguments = {"text": "My bill is wrong", "categories": ["billing", "tech"]}
        done = await client.call_tool("classify_intent", arguments)
        assert not done.is_error and done.structured_content == {"category": "billing", "confidence": 0.5}, done
        found = await client.call_tool("search", {"query": f"How fast is the kettle? Asked by {mode}", "topK": 2})
        assert not found.is_error and len(found.structured_content["sources"]) == 2, found

        failed = await client.call_tool("classify_intent", {"text": 3})
        assert failed.is_error and "VALIDATION_FAILED" in failed.content[0].text, failed
        await refused(-32602, client.call_tool("no_such_tool", {}))

        listed, cursor = [], None
        while True:
            page = await client.list_resources(cursor=cursor)
            listed += page.resources
            cursor = page.next_cursor
            if cursor is None:
                break
        uris = {resource.name: resource.uri for resource in listed}
        assert {document["docId"] for document in documents} <= set(uris), uris
        read = await client.read_resource(uris[f"tea/{mode} 1"])
        assert read.contents[0].text.strip() == TEXT.strip(), read
        templates = (await client.list_resource_templates()).resource_templates
        assert [template.uri_template for template in templates] == ["document:///{docId}"], templates
        await refused(-32602 if version == MODERN else -32002, client.read_resource("document:///no%20such"))
        if version != MODERN:
            await client.send_ping()
    print("ok", mode, version, flush=True)


async def limits(url, limited):
    async with connect(url, limited, "legacy") as client:
        await client.list_tools()
        await client.list_tools()
        error = await refused(-32010, client.list_tools())
        assert error.error.data["code"] == "rate_limited", error.error
    print("ok limits", flush=True)


def causes(error):
    """The errors that a group of errors, or of groups of them, holds."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [cause for part in error.exceptions for cause in causes(part)]


async def stranger(url):
    try:
        async with connect(url, "no key of anybody", "auto"):
            pass
    except (MCPError, BaseExceptionGroup) as error:
        codes = [cause.error.data["code"] for cause in causes(error)]
        assert codes == ["unauthorized"], codes
    else:
        raise AssertionError("a stranger got in")
    print("ok stranger", flush=True)


async def main(url, key, limited):
    await use(url, key, "auto", MODERN)
    await use(url, key, "legacy", "2025-11-25")
    await limits(url, limited)
    await stranger(url)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    print("done")
