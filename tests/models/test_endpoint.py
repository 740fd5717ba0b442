"""What the endpoint client sends, and what it makes of answers."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from pytest_vlmeval.models.client import Reply, Request
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
            "what is not JSON: <html><body>It works!</body></html>",
        ),
    ],
)
def test_no_answer_in_a_200(
    server: ServerProcess, rule: dict[str, object], words: str
) -> None:
    error = error_by(server, **rule)
    assert facts(error) == ("protocol", None, True)
    assert str(error) == f"{server.url} answered 200 with {words}"
