"""Retries: what is asked again, when, and how often."""

from __future__ import annotations

import asyncio
import time

import pytest

from pytest_vlmeval.records import Answer
from pytest_vlmeval.run.engine import Asker
from tests.support.endpoint_calls import text_request
from tests.support.pool_calls import asking_settings, make_pool
from tests.support.server_fixtures import ServerProcess


def ask(server: ServerProcess, *, retries: int = 3, timeout_s: float = 5) -> Answer:
    """Ask one question of a real server and wait for what becomes of it."""

    async def once() -> Answer:
        pool = make_pool(server.url, timeout_s=timeout_s)
        request = text_request("Which?")
        try:
            asker = Asker(asking_settings(retries=retries), pool, "tiny-vlm")
            return await asker.ask("Data-1", "7", request)
        finally:
            await pool.close()

    return asyncio.run(once())


def test_an_answer_with_its_account(server: ServerProcess) -> None:
    server.control(default="B")
    answer = ask(server)
    assert (answer.fingerprint, answer.index) == ("Data-1", "7")
    assert (answer.state, answer.text, answer.attempts) == ("answered", "B", 1)
    assert answer.latency_ms > 0
    assert answer.prompt_tokens > 0
    assert answer.completion_tokens > 0


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "message": "oops"},
        {"status": 503, "shape": "plain", "message": "busy"},
        {"status": 408, "message": "slow"},
        {"status": 429, "message": "too many"},
        {"fault": "reset"},
        {"fault": "broken_body"},
        {"fault": "truncated_json"},
        {"fault": "error_body"},
        {"choice": {"message": {"content": "A"}, "finish_reason": "abort"}},
        {"raw": "[" * 100_000},
    ],
    ids=lambda fault: str(fault.get("status", fault.get("fault", next(iter(fault))))),
)
def test_what_may_pass_is_asked_again(
    server: ServerProcess, fault: dict[str, object]
) -> None:
    server.control(default="B", rules=[{**fault, "first": 2}])
    answer = ask(server)
    assert (answer.state, answer.text, answer.attempts) == ("answered", "B", 3)
    assert len(server.requests()) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_cannot_pass_is_asked_once(server: ServerProcess, status: int) -> None:
    server.control(rules=[{"status": status, "message": "never"}])
    answer = ask(server)
    assert (answer.state, answer.attempts) == ("failed", 1)
    assert str(status) in answer.error
    assert "never" in answer.error
    assert len(server.requests()) == 1


def test_retries_end(server: ServerProcess) -> None:
    server.control(rules=[{"status": 500, "message": "always"}])
    answer = ask(server, retries=2)
    assert (answer.state, answer.attempts) == ("failed", 3)
    assert "always" in answer.error
    assert len(server.requests()) == 3


def test_retry_after_is_honoured(server: ServerProcess) -> None:
    server.control(
        default="B",
        rules=[{"status": 429, "message": "wait", "retry_after": "3", "first": 1}],
    )
    started = time.monotonic()
    assert ask(server).state == "answered"
    assert time.monotonic() - started >= 3


def test_a_server_that_hangs_is_given_up(server: ServerProcess) -> None:
    server.control(default="B", rules=[{"fault": "hang_body", "first": 1}])
    answer = ask(server, timeout_s=1)
    assert (answer.state, answer.attempts) == ("answered", 2)


@pytest.mark.parametrize(
    ("rule", "state"),
    [
        ({"answer": " \n"}, "empty"),
        ({"answer": "It is", "finish_reason": "length"}, "cut_off"),
        # What has no text is empty, however it ended.
        ({"answer": "", "finish_reason": "length"}, "empty"),
        ({"answer": "A", "finish_reason": "model_length"}, "cut_off"),
        ({"answer": "A", "finish_reason": "content_filter"}, "filtered"),
        ({"answer": "", "finish_reason": "SAFETY"}, "filtered"),
    ],
)
def test_answers_that_cannot_be_used_have_their_own_state(
    server: ServerProcess, rule: dict[str, object], state: str
) -> None:
    server.control(rules=[rule])
    answer = ask(server)
    assert (answer.state, answer.text) == (state, rule["answer"])
