"""Short calls of the endpoint client, for the tests of what it does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypedDict, Unpack

import pytest

from pytest_vlmeval.models.client import Reply, Request, RequestError
from pytest_vlmeval.models.endpoint import EndpointClient
from pytest_vlmeval.records import PromptPart
from tests.support.server_fixtures import ServerProcess


class Changes(TypedDict, total=False):
    """Arguments of `EndpointClient` that differ from those all tests share."""

    model: str
    api_key: str | None
    max_tokens: int | None
    temperature: float | None
    timeout_s: float
    concurrency: int
    max_reply_mb: float


def client_of(url: str, **changes: Unpack[Changes]) -> EndpointClient:
    return EndpointClient(
        api_base=url,
        model=changes.get("model", "tiny-vlm"),
        api_key=changes.get("api_key"),
        max_tokens=changes.get("max_tokens", 32),
        temperature=changes.get("temperature", 0.5),
        timeout_s=changes.get("timeout_s", 20),
        concurrency=changes.get("concurrency", 8),
        max_reply_mb=changes.get("max_reply_mb", 32),
    )


def text_request(*texts: str) -> Request:
    parts = tuple(PromptPart(kind="text", text=text) for text in texts)
    return Request(turns=(parts,), media_folder=Path())


def ask(url: str, request: Request, **changes: Unpack[Changes]) -> Reply:
    async def run() -> Reply:
        client = client_of(url, **changes)
        try:
            return await client.ask(request)
        finally:
            await client.close()

    return asyncio.run(run())


def check(url: str, **changes: Unpack[Changes]) -> None:
    asyncio.run(client_of(url, **changes).check())


def ask_error(
    url: str, request: Request | None = None, **changes: Unpack[Changes]
) -> RequestError:
    with pytest.raises(RequestError) as caught:
        ask(url, request or text_request("What is it?"), **changes)
    return caught.value


def error_by(server: ServerProcess, **rule: object) -> RequestError:
    """Give the error to which a rule of the server leads."""
    server.control(rules=[rule])
    return ask_error(server.url)


def facts(error: RequestError) -> tuple[str, int | None, bool]:
    return error.kind, error.status, error.retryable
