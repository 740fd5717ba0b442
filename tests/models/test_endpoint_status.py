"""What the endpoint client makes of HTTP errors: their words, their retries."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode

import pytest

from pytest_vlmeval.models.client import Reply, RequestError
from tests.support.endpoint_calls import (
    ask_error,
    client_of,
    error_by,
    facts,
    text_request,
)
from tests.support.server_fixtures import ServerProcess

KEY = 'sk-"secret"/key+0123456789'
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
    assert str(error) == f"{server.url} answered {status}: because"


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
    assert str(error) == f"{server.url} answered {rule['status']}: {words}"


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
    said = f"key {KEY} and data:image/png;base64,{data[:40]} and {data}."
    rule = {"status": status, "shape": shape, "message": said}
    server.control(rules=[rule | {"fault": "error_body"} if status == 200 else rule])
    error = ask_error(server.url, api_key=KEY)
    text = str(error) + repr(error)
    assert KEY not in text
    assert json.dumps(KEY)[1:-1] not in text
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
