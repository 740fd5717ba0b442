"""The test server itself: what other tests rely on."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.models.client import Reply, RequestError
from tests.support.endpoint_calls import ask, client_of, text_request
from tests.support.server_fixtures import SERVER, ServerProcess

Start = Callable[..., ServerProcess]


@pytest.mark.parametrize("command", [["-m", "tests.support.server"], [str(SERVER)]])
def test_runs_as_a_module_and_by_path(command: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, *command, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url.replace("/v1", "/health")) as response:
            assert response.read() == b'{"status": "ok"}'
        assert ask(url, text_request("?")).text == "A"
        process.kill()


def test_answers_by_rule_by_table_by_echo_or_by_default(server: ServerProcess) -> None:
    digest = hashlib.sha256(b"exactly this").hexdigest()
    server.control(
        default="D",
        answers={digest: "by hash", "blue": "by part"},
        rules=[
            {"contains": "red", "answer": "by rule"},
            {"contains": "repeat", "echo": True},
        ],
    )
    questions = ["exactly this", "a blue one", "a red one", "repeat me", "other"]
    answers = [ask(server.url, text_request(question)).text for question in questions]
    assert answers == ["by hash", "by part", "by rule", "repeat me", "D"]


def test_rules_by_number(server: ServerProcess) -> None:
    server.control(
        default="-",
        rules=[
            {"first": 1, "answer": "first"},
            {"every": 3, "answer": "third"},
            {"after": 6, "answer": "late", "times": 1},
        ],
    )
    answers = [ask(server.url, text_request("?")).text for _ in range(8)]
    assert answers == ["first", "-", "third", "-", "-", "third", "late", "-"]


def test_random_failures_are_the_same_each_time(server: ServerProcess) -> None:
    async def failures(seed: int) -> list[bool]:
        server.control(rules=[{"rate": 0.3, "seed": seed, "status": 500}])
        client = client_of(server.url)
        failed = []
        for _ in range(50):
            try:
                await client.ask(text_request("?"))
                failed.append(False)
            except RequestError:
                failed.append(True)
        await client.close()
        return failed

    first = asyncio.run(failures(1))
    assert first == asyncio.run(failures(1)) != asyncio.run(failures(2))
    assert 5 <= sum(first) <= 25


def test_latency_grows_with_the_load(server: ServerProcess) -> None:
    async def seconds(together: int) -> float:
        server.control(latency_s=0.05, latency_per_request_s=0.1)
        client = client_of(server.url)
        started = time.perf_counter()
        await asyncio.gather(*(client.ask(text_request("?")) for _ in range(together)))
        await client.close()
        return time.perf_counter() - started

    assert asyncio.run(seconds(1)) < 0.6 < asyncio.run(seconds(8))


def test_control_forgets_requests_and_refuses_what_it_does_not_know(
    server: ServerProcess,
) -> None:
    ask(server.url, text_request("?"))
    assert server.counters() == {
        "requests": {"/chat/completions": 1},
        "connections": 1,
        "in_flight": 0,
        "max_in_flight": 1,
    }
    server.control(default="B")
    assert server.counters()["requests"] == {}
    assert server.requests(None) == []
    for wrong in ({"defualt": "C"}, {"rules": [{"fault": "reset", "tmies": 1}]}):
        with pytest.raises(urllib.error.HTTPError, match="422") as caught:
            server.control(**wrong)
        caught.value.close()
    assert ask(server.url, text_request("?")).text == "B"


def test_keeps_its_port_and_records_when_started_again(vlm_server: Start) -> None:
    server = vlm_server(default="B")
    url = server.url
    ask(url, text_request("one"))
    server.kill()
    server.start()
    assert server.url == url
    assert ask(url, text_request("two")).text == "B"
    assert [record["text"] for record in server.requests()] == ["one", "two"]


def test_many_connections_at_once(server: ServerProcess) -> None:
    # Long enough for the last to arrive before the first is answered.
    server.control(latency_s=3)

    async def run() -> list[Reply]:
        client = client_of(server.url, concurrency=128)
        replies = await asyncio.gather(
            *(client.ask(text_request("?")) for _ in range(128))
        )
        await client.close()
        return replies

    assert {reply.text for reply in asyncio.run(run())} == {"A"}
    assert server.counters()["max_in_flight"] == 128
