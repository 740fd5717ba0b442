"""Several endpoints: their health, the requests each gets, and what a 400 means."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import OutageError
from pytest_vlmeval.models.pool import AUTO_CEILING, Concurrency, Limiter, Pool
from pytest_vlmeval.records import Answer, FailedAttempt
from pytest_vlmeval.run.engine import Asker
from tests.support.endpoint_calls import text_request
from tests.support.pool_calls import asking_settings, make_pool
from tests.support.server_fixtures import ServerProcess

StartServer = Callable[..., ServerProcess]


def run(pool: Pool, work: Callable[[Pool], Awaitable[object]]) -> None:
    async def inside() -> None:
        try:
            await work(pool)
        finally:
            await pool.close()

    asyncio.run(inside())


def ask_all(
    pool: Pool, count: int, failures: list[FailedAttempt] | None = None
) -> list[Answer]:
    answers: list[Answer] = []

    async def work(pool: Pool) -> None:
        asker = Asker(asking_settings(retries=5), pool, "tiny-vlm")
        asked = (
            asker.ask("Data-1", str(n), text_request(f"<{n}>")) for n in range(count)
        )
        answers.extend(await asyncio.gather(*asked))
        if failures is not None:
            failures.extend(asker.take_failures())

    run(pool, work)
    return answers


def states(answers: list[Answer]) -> set[str]:
    return {answer.state for answer in answers}


def test_the_less_loaded_endpoint_gets_more(vlm_server: StartServer) -> None:
    fast, slow = vlm_server(latency_s=0.02), vlm_server(latency_s=0.5)
    answers = ask_all(make_pool(fast.url, slow.url), 80)
    assert states(answers) == {"answered"}
    assert len(fast.requests()) > 2 * len(slow.requests()) > 0


def test_all_together_keep_the_limit(vlm_server: StartServer) -> None:
    servers = [vlm_server(latency_s=0.05) for _ in range(2)]
    ask_all(make_pool(*(server.url for server in servers)), 40)
    most = [server.counters()["max_in_flight"] for server in servers]
    assert sum(int(str(each)) for each in most) <= 8


def test_a_dead_endpoint_is_set_aside_and_taken_back(vlm_server: StartServer) -> None:
    good, bad = vlm_server(latency_s=0.02), vlm_server(latency_s=0.02)
    bad.kill()

    async def work(pool: Pool) -> None:
        asker = Asker(asking_settings(retries=5), pool, "tiny-vlm")
        one = [asker.ask("D", str(n), text_request(f"<{n}>")) for n in range(40)]
        assert states(list(await asyncio.gather(*one))) == {"answered"}
        assert [endpoint.aside for endpoint in pool.endpoints] == [False, True]
        await asyncio.to_thread(bad.start)
        async with asyncio.timeout(60):
            while pool.endpoints[1].aside:
                await asyncio.sleep(0.05)
        two = [asker.ask("D", str(n), text_request(f"<{n}>")) for n in range(40)]
        assert states(list(await asyncio.gather(*two))) == {"answered"}

    run(make_pool(good.url, bad.url), work)
    assert len(bad.requests()) > 0


def test_the_check_names_those_that_do_not_serve(vlm_server: StartServer) -> None:
    good, other = vlm_server(), vlm_server(models=["another"])

    async def work(pool: Pool) -> None:
        errors = await pool.check()
        assert list(errors) == [other.url]
        assert "does not serve 'tiny-vlm'" in errors[other.url]

    run(make_pool(good.url, other.url), work)


def test_the_check_fails_where_none_serves(vlm_server: StartServer) -> None:
    servers = [vlm_server(models=["another"]) for _ in range(2)]

    async def work(pool: Pool) -> None:
        with pytest.raises(VlmEvalError) as caught:
            await pool.check()
        first, *rest = str(caught.value).splitlines()
        assert first == "None of the 2 endpoints can be asked."
        assert all(url in "".join(rest) for url in (servers[0].url, servers[1].url))

    run(make_pool(*(server.url for server in servers)), work)


def test_an_outage_ends_the_asking(vlm_server: StartServer) -> None:
    server = vlm_server()
    server.kill()

    async def work(pool: Pool) -> None:
        asker = Asker(asking_settings(retries=20), pool, "tiny-vlm")
        asked = (asker.ask("D", str(n), text_request("?")) for n in range(20))
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(each) for each in results} == {OutageError}
        assert re.fullmatch(
            r"No endpoint has answered for \d+ s\. Stopping\. Last error: .+Connection "
            r"refused.*\w\)?\. All answers so far are stored: run the same command "
            r"again once the server is back \(--vlm-outage sets how long to wait for "
            r"it\)\.",
            str(results[0]),
        ), results[0]

    run(make_pool(server.url, outage_s=1), work)


def test_a_400_among_others_is_confirmed_alone(vlm_server: StartServer) -> None:
    """As swift does: all that were taken together are answered so, one is bad."""
    message = {"status": 400, "message": "broken image"}
    server = vlm_server(
        latency_s=0.05,
        rules=[{**message, "contains": "<3>"}, {**message, "times": 4}],
    )
    attempts: list[FailedAttempt] = []
    answers = ask_all(make_pool(server.url), 8, attempts)
    assert [each.index for each in answers if each.state == "failed"] == ["3"]
    assert answers[3].attempts == 2
    assert {each.kind for each in attempts} == {"400"}
    assert len(attempts) == 6


def test_a_400_alone_counts_at_once(server: ServerProcess) -> None:
    server.control(rules=[{"status": 400, "message": "no"}])
    (answer,) = ask_all(make_pool(server.url), 1)
    assert (answer.state, answer.attempts) == ("failed", 1)


def test_retry_after_keeps_everybody_away(server: ServerProcess) -> None:
    server.control(
        latency_s=0.05,
        rules=[{"status": 429, "retry_after": "2", "first": 1, "message": "wait"}],
    )
    pool, begun = make_pool(server.url), time.monotonic()
    assert states(ask_all(pool, 30)) == {"answered"}
    assert pool.endpoints[0].limiter.closed_until >= begun + 2


class Endpoint:
    """An endpoint in a time of its own; beyond `capacity` requests wait in it."""

    def __init__(self, ceiling: int = AUTO_CEILING, *, adaptive: bool = True) -> None:
        self.now = 0.0
        self.capacity = 10_000
        self.latency_s = 0.1
        self.limiter = Limiter(Concurrency(ceiling, adaptive), lambda: self.now)

    def answer_round(self, wanted: int | None = None) -> int:
        """Fill the slots, at most `wanted`, and answer all; return how many."""
        count = 0
        while self.limiter.has_room() and count != wanted:
            self.limiter.begin()
            count += 1
        taken_s = self.latency_s * max(1.0, count / self.capacity)
        self.now += taken_s
        for _ in range(count):
            self.limiter.end()
            self.limiter.note_answer(taken_s)
        return count


def test_a_fixed_limit_never_changes() -> None:
    endpoint = Endpoint(16, adaptive=False)
    for _ in range(5):
        assert endpoint.answer_round() == 16
    endpoint.limiter.note_refusal(None)
    assert endpoint.limiter.limit == 16


def test_slow_start_doubles_up_to_the_ceiling() -> None:
    endpoint = Endpoint()
    limits = [endpoint.answer_round() for _ in range(8)]
    assert limits == [8, 16, 32, 64, 128, 256, 256, 256]


def test_grows_only_when_the_slots_were_used() -> None:
    endpoint = Endpoint()
    for _ in range(8):
        endpoint.answer_round(wanted=4)
    assert endpoint.limiter.limit == 8


def test_errors_of_the_server_only_pause_the_growth() -> None:
    endpoint = Endpoint()
    endpoint.limiter.note_error()
    endpoint.answer_round()
    assert endpoint.limiter.limit == 8
    endpoint.answer_round()
    assert endpoint.limiter.limit == 16


def test_429_cuts_once_then_small_steps() -> None:
    endpoint = Endpoint()
    for _ in range(3):
        endpoint.answer_round()
    assert endpoint.limiter.limit == 64
    endpoint.limiter.note_refusal(None)
    endpoint.limiter.note_refusal(None)
    assert endpoint.limiter.limit == 51
    endpoint.answer_round()
    assert endpoint.limiter.limit == 51
    endpoint.now += 15
    endpoint.answer_round()
    endpoint.answer_round()
    assert 52 <= endpoint.limiter.limit <= 56
    endpoint.limiter.note_refusal(None)
    assert endpoint.limiter.limit < 51


def test_retry_after_closes_the_whole_endpoint() -> None:
    endpoint = Endpoint(16, adaptive=False)
    endpoint.limiter.note_refusal(3.0)
    assert not endpoint.limiter.has_room()
    endpoint.now = 2.9
    assert not endpoint.limiter.has_room()
    endpoint.now = 3.1
    assert endpoint.limiter.has_room()


def test_latency_that_grows_without_throughput_cuts() -> None:
    endpoint = Endpoint()
    endpoint.capacity = 16
    limits = []
    for _ in range(200):
        endpoint.answer_round()
        limits.append(endpoint.limiter.limit)
    assert any(after < before for before, after in pairwise(limits))
    # 16 at once are as fast as more: it stays about there.
    later = limits[20:]
    assert max(later) < 32
    assert min(later) >= 16


def test_another_ceiling_is_kept_at_once() -> None:
    endpoint = Endpoint()
    for _ in range(3):
        endpoint.answer_round()
    endpoint.limiter.set_ceiling(20)
    assert endpoint.limiter.limit == 20
    assert endpoint.answer_round() == 20
    assert endpoint.limiter.limit == 20
    endpoint.limiter.set_ceiling(0)
    assert endpoint.answer_round() == 0
    endpoint.limiter.set_ceiling(64)
    assert endpoint.answer_round() == 8
    assert endpoint.limiter.limit == 16
