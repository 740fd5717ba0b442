"""What the endpoint client makes of lost connections and servers that hang."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import RequestError
from tests.support.endpoint_calls import (
    ask_error,
    client_of,
    error_by,
    facts,
    text_request,
)
from tests.support.server_fixtures import ServerProcess


def test_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        error = ask_error(url)
    assert facts(error) == ("connection", None, True)
    assert str(error) == f"the connection to {url} failed: Connection refused"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("reset", "Connection reset by peer"),
        ("broken_body", "broken off in the middle of an answer"),
    ],
)
def test_lost(server: ServerProcess, fault: str, reason: str) -> None:
    error = error_by(server, fault=fault)
    assert facts(error) == ("connection", None, True)
    assert str(error) == f"the connection to {server.url} failed: {reason}"


def test_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    error = ask_error("http://model.invalid:8000/v1")
    assert facts(error) == ("connection", None, True)
    assert "model.invalid" in str(error)


def test_server_that_dies_and_comes_back(
    vlm_server: Callable[..., ServerProcess],
) -> None:
    server = vlm_server(rules=[{"fault": "exit", "after": 1}])

    async def run() -> None:
        client = client_of(server.url)
        await client.ask(text_request("?"))
        for _ in range(2):  # while it dies, and when it is dead
            with pytest.raises(RequestError, match="the connection to") as caught:
                await client.ask(text_request("?"))
            assert facts(caught.value) == ("connection", None, True)
        server.kill()
        server.start()
        assert (await client.ask(text_request("?"))).text == "A"
        await client.close()

    asyncio.run(run())


@pytest.mark.parametrize("fault", ["hang", "hang_body"])
def test_deadline(server: ServerProcess, fault: str) -> None:
    server.control(rules=[{"fault": fault, "first": 1}])

    async def run() -> float:
        client = client_of(server.url, timeout_s=0.5)
        started = time.monotonic()
        with pytest.raises(RequestError) as caught:
            await client.ask(text_request("?"))
        waited_s = time.monotonic() - started
        assert facts(caught.value) == ("timeout", None, True)
        assert str(caught.value) == f"{server.url} gave no answer within 0.5 s"
        assert (await client.ask(text_request("?"))).text == "A"
        await client.close()
        return waited_s

    assert 0.5 <= asyncio.run(run()) < 2


def test_deadline_holds_though_bytes_keep_coming() -> None:
    """A server that sends a byte now and then never trips a timeout of reads."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            writer.close()

    async def run() -> None:
        dripping = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = dripping.sockets[0].getsockname()[1]
        client = client_of(f"http://127.0.0.1:{port}", timeout_s=0.5)
        with pytest.raises(RequestError) as caught:
            await client.ask(text_request("?"))
        assert caught.value.kind == "timeout"
        await client.close()
        dripping.close()
        await asyncio.sleep(0.2)  # until its writer has seen the end

    asyncio.run(run())


def test_what_is_not_http() -> None:
    async def babble(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    async def run() -> None:
        other = await asyncio.start_server(babble, "127.0.0.1", 0)
        port = other.sockets[0].getsockname()[1]
        client = client_of(f"http://127.0.0.1:{port}")
        with pytest.raises(RequestError) as caught:
            await client.ask(text_request("?"))
        assert facts(caught.value) == ("connection", None, True)
        assert "\n" not in str(caught.value)
        await client.close()
        other.close()

    asyncio.run(run())


@pytest.mark.parametrize("key", ["line\nbreak", "schlüssel"])
def test_key_that_cannot_be_sent(key: str) -> None:
    with pytest.raises(VlmEvalError) as caught:
        client_of("http://127.0.0.1:1/v1", api_key=key)
    assert str(caught.value) == (
        "The API key holds a line break or another character that cannot be "
        "sent. Set VLM_API_KEY, or give a file that holds the key with "
        "--vlm-api-key-file."
    )
