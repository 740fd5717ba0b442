"""The endpoint's client: what it sends, what it makes of answers, and its errors."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import Reply, Request, RequestError
from pytest_vlmeval.records import PromptPart
from tests.support.endpoint_calls import (
    ask,
    ask_error,
    client_of,
    error_by,
    facts,
    text_request,
)
from tests.support.server_fixtures import ServerProcess

KEY = "sk-secret-0123456789"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3
JPEG = b"\xff\xd8\xff\xe0 not a whole image, but these very bytes"


@pytest.fixture
def media(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.jpg").write_bytes(JPEG)
    return tmp_path


def test_images_are_the_files_bytes_in_prompt_order(
    server: ServerProcess, media: Path
) -> None:
    parts = (
        PromptPart(kind="text", text='First: "ä\n'),
        PromptPart(kind="image", media="a.png", media_type="image/png"),
        PromptPart(kind="image", media="b.jpg", media_type="image/jpeg"),
        PromptPart(kind="text", text="Which?"),
    )
    ask(server.url, Request(turns=(parts,), media_folder=media))
    (record,) = server.requests()
    assert record["content"] == "parts"
    assert record["order"] == ["text", "image_url", "image_url", "text"]
    assert record["text"] == 'First: "ä\n\nWhich?'
    assert record["images"] == [
        {
            "media_type": media_type,
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
        }
        for media_type, data in (("image/png", PNG), ("image/jpeg", JPEG))
    ]


def test_text_alone_is_one_string(server: ServerProcess) -> None:
    ask(server.url, text_request("One.", "Two."))
    (record,) = server.requests()
    assert (record["content"], record["text"]) == ("string", "One.\nTwo.")


def test_sends_these_parameters_and_no_others(server: ServerProcess) -> None:
    ask(server.url, text_request("?"))
    ask(server.url, text_request("?"), max_tokens=None, temperature=None)
    first, second = server.requests()
    assert first["model"] == "tiny-vlm"
    assert first["params"] == {"max_tokens": 32, "temperature": 0.5}
    assert second["params"] == {}


def test_sends_the_key_given_and_none_of_the_environment(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "meant-for-another-server")
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    server.control(api_key=KEY)
    ask(server.url, text_request("?"), api_key=KEY)
    ask_error(server.url)
    with_key, without = server.requests()
    assert (with_key["authorized"], with_key["with_key"]) == (True, True)
    assert (without["authorized"], without["with_key"]) == (False, False)
    headers = with_key["headers"]
    assert isinstance(headers, dict)
    assert "openai-organization" not in headers


@pytest.mark.parametrize("name", ["http_proxy", "all_proxy", "HTTPS_PROXY"])
def test_no_proxy_swallows_loopback(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert ask(server.url, text_request("?")).text == "A"


def test_a_proxy_is_used_for_other_hosts(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert ask("http://model.invalid/v1", text_request("?")).text == "A"


def test_a_video_is_sent_as_its_file(server: ServerProcess, media: Path) -> None:
    (media / "c.mp4").write_bytes(JPEG)
    parts = (
        PromptPart(kind="video", media="c.mp4", media_type="video/mp4"),
        PromptPart(kind="text", text="Which?"),
    )
    ask(server.url, Request(turns=(parts,), media_folder=media))
    (record,) = server.requests()
    assert record["order"] == ["video_url", "text"]
    assert record["images"] == [
        {
            "media_type": "video/mp4",
            "sha256": hashlib.sha256(JPEG).hexdigest(),
            "bytes": len(JPEG),
        }
    ]


def test_unreadable_image(server: ServerProcess, tmp_path: Path) -> None:
    part = PromptPart(kind="image", media="gone.png", media_type="image/png")
    error = ask_error(server.url, Request(turns=((part,),), media_folder=tmp_path))
    assert facts(error) == ("input", None, False)
    assert str(error) == ("image gone.png cannot be read: No such file or directory")
    assert server.requests() == []


def test_keeps_as_many_in_flight_as_asked_on_kept_connections(
    server: ServerProcess,
) -> None:
    server.control(latency_s=0.05)

    async def run() -> None:
        client = client_of(server.url, concurrency=8)
        for _ in range(3):
            await asyncio.gather(*(client.ask(text_request("?")) for _ in range(16)))
        await client.close()

    asyncio.run(run())
    counters = server.counters()
    assert counters["requests"] == {"/chat/completions": 48}
    assert counters["max_in_flight"] == 8
    assert counters["connections"] == 8


def test_text_reason_and_tokens(server: ServerProcess) -> None:
    server.control(default="Two red squares.")
    reply = ask(server.url, text_request("What is there?"))
    assert reply == Reply(
        text="Two red squares.",
        finish_reason="stop",
        prompt_tokens=3,
        completion_tokens=3,
    )


@pytest.mark.parametrize(
    ("rule", "text", "reason"),
    [
        ({"answer": "The an", "finish_reason": "length"}, "The an", "length"),
        ({"answer": ""}, "", "stop"),
        ({"null_content": True, "reasoning": "Hm."}, "", "stop"),
        ({"null_content": True, "finish_reason": "length"}, "", "length"),
        ({"answer": "B", "reasoning": "Hm."}, "B", "stop"),
        ({"answer": "?", "finish_reason": "content_filter"}, "?", "content_filter"),
    ],
)
def test_unusual_replies(
    server: ServerProcess, rule: dict[str, object], text: str, reason: str
) -> None:
    server.control(rules=[rule])
    reply = ask(server.url, text_request("?"))
    assert (reply.text, reply.finish_reason) == (text, reason)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"null_content": True}, "null content"),
        (
            {"fault": "error_body", "message": "overloaded"},
            "no choices: overloaded",
        ),
        (
            {"fault": "swift_error_body", "message": "went wrong"},
            "no choices: went wrong",
        ),
        (
            {"fault": "no_choices"},
            'no choices: {"object": "chat.completion", "choices": []}',
        ),
        (
            {"fault": "truncated_json"},
            'what is not JSON: {"id": "chatcmpl-0", "choices": [{"index": 0, "mess',
        ),
        (
            {"fault": "not_json"},
            "what is not JSON: HTML page 'It works!'",
        ),
    ],
)
def test_no_answer_in_a_200(
    server: ServerProcess, rule: dict[str, object], words: str
) -> None:
    error = error_by(server, **rule)
    assert facts(error) == ("protocol", None, True)
    assert str(error) == f"{server.url} answered 200 with {words}"


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


QUOTED_KEY = 'sk-"secret"/key+0123456789'
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (400, False),
        (401, False),
        (403, False),
        (404, False),
        (422, False),
        (408, True),
        (409, True),
        (429, True),
        (500, True),
        (502, True),
        (503, True),
    ],
)
def test_what_may_pass_another_time(
    server: ServerProcess, status: int, retryable: bool
) -> None:
    error = error_by(server, status=status, message="because")
    assert facts(error) == ("status", status, retryable)
    path = "/chat/completions" if status == 404 else ""
    assert str(error) == f"{server.url}{path} answered {status}: because"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            {"status": 400, "message": "row(0) is larger than the max_length(8)"},
            "row(0) is larger than the max_length(8)",
        ),
        ({"status": 404, "shape": "openai", "message": "no such"}, "no such"),
        ({"status": 422, "shape": "detail", "message": "bad"}, "body: bad"),
        (
            {"status": 500, "shape": "plain", "message": "Internal\n Error"},
            "Internal Error",
        ),
        ({"status": 400, "message": ""}, "no message"),
        ({"status": 502, "shape": "empty"}, "no message"),
        ({"status": 400, "message": "lang " * 200}, ("lang " * 200)[:499] + "…"),
    ],
)
def test_says_the_servers_words(
    server: ServerProcess, rule: dict[str, object], words: str
) -> None:
    error = error_by(server, **rule)
    path = "/chat/completions" if rule["status"] == 404 else ""
    assert str(error) == f"{server.url}{path} answered {rule['status']}: {words}"


def test_unknown_model(server: ServerProcess) -> None:
    error = ask_error(server.url, model="other")
    assert facts(error) == ("status", 400, False)
    assert "`other` is not in the model_list: `['tiny-vlm']`." in str(error)


@pytest.mark.parametrize(
    ("status", "shape"),
    [
        (200, "openai"),
        (400, "swift"),
        (401, "openai"),
        (422, "detail"),
        (500, "plain"),
    ],
)
def test_key_and_base64_never_appear(
    server: ServerProcess, status: int, shape: str
) -> None:
    data = b64encode(IMAGE).decode()
    said = f"key {QUOTED_KEY} and data:image/png;base64,{data[:40]} and {data}."
    rule = {"status": status, "shape": shape, "message": said}
    server.control(rules=[rule | {"fault": "error_body"} if status == 200 else rule])
    error = ask_error(server.url, api_key=QUOTED_KEY)
    text = str(error) + repr(error)
    assert QUOTED_KEY not in text
    assert json.dumps(QUOTED_KEY)[1:-1] not in text
    assert data[:20] not in text
    assert "key *** and <base64 data> and <base64 data>." in text


@pytest.mark.parametrize(
    ("header", "low_s", "high_s"),
    [
        ("2", 2, 2),
        ("0.5", 0.5, 0.5),
        ("86400", 300, 300),
        ("date+60", 50, 60),
        ("date+-60", 0, 0),
        ("date+86400", 300, 300),
    ],
)
def test_retry_after(
    server: ServerProcess, header: str, low_s: float, high_s: float
) -> None:
    error = error_by(server, status=429, retry_after=header)
    assert error.retry_after_s is not None
    assert low_s <= error.retry_after_s <= high_s


@pytest.mark.parametrize("header", [None, "soon", "", "nan", "-1", "1e9"])
def test_no_usable_retry_after(server: ServerProcess, header: str | None) -> None:
    error = error_by(server, status=429, retry_after=header)
    assert error.retry_after_s is None


def test_fresh_connection_after_a_500(server: ServerProcess) -> None:
    server.control(rules=[{"status": 500, "times": 1}, {"status": 400, "times": 1}])

    async def run() -> None:
        client = client_of(server.url)
        with pytest.raises(RequestError, match="answered 500"):
            await client.ask(text_request("?"))
        with pytest.raises(RequestError, match="answered 400"):
            await client.ask(text_request("?"))
        await client.ask(text_request("?"))
        await client.close()

    asyncio.run(run())
    first, *others = (record["connection"] for record in server.requests())
    assert first not in others
    assert len(set(others)) == 1


def test_a_500_disturbs_no_request_under_way(server: ServerProcess) -> None:
    server.control(
        rules=[{"contains": "bad", "status": 500}], default="fine", latency_s=0.2
    )

    async def run() -> list[Reply | BaseException]:
        client = client_of(server.url)
        names = ["good", "bad", "good", "good", "bad", "good"]
        try:
            return await asyncio.gather(
                *(client.ask(text_request(name)) for name in names),
                return_exceptions=True,
            )
        finally:
            await client.close()

    found = asyncio.run(run())
    assert sum(isinstance(reply, Reply) for reply in found) == 4
    assert sum(isinstance(reply, RequestError) for reply in found) == 2
