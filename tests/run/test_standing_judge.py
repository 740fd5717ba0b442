"""A judge's connections: one pool for all that is asked of it in a run."""

from __future__ import annotations

from collections.abc import Collection

from pytest_vlmeval.models.pool import Concurrency, Pool
from pytest_vlmeval.records import JudgeQuestion
from pytest_vlmeval.run.judge import Judge
from pytest_vlmeval.run.store import Store
from tests.support.pool_calls import asking_settings, make_pool
from tests.support.server_fixtures import ServerProcess


def test_a_judge_keeps_what_it_found_out_about_its_server(
    judge_store: Store, server: ServerProcess
) -> None:
    server.control(default="yes", latency_s=0.02)
    opened: list[Pool] = []

    def open_pool(aside: Collection[str]) -> Pool:
        adaptive = Concurrency(64, adaptive=True)
        opened.append(make_pool(server.url, concurrency=adaptive, role="judge"))
        return opened[-1]

    def ask(batch: int) -> None:
        questions = [JudgeQuestion(prompt=f"{batch}: {n}?") for n in range(40)]
        assert {reply.text for reply in judge.ask(questions)} == {"yes"}

    judge = Judge("tiny-vlm", asking_settings(retries=0), judge_store, open_pool)
    ask(1)
    found = opened[0].endpoints[0].limiter.limit
    assert found > 8
    ask(2)
    judge.close()
    (pool,) = opened
    assert pool.endpoints[0].limiter.limit >= found
    # What broke is opened anew: ten failures in a row end only what was asked then.
    server.control(rules=[{"status": 400}])
    failed = judge.ask([JudgeQuestion(prompt=f"no {n}") for n in range(20)])
    assert {reply.text for reply in failed} == {None}
    server.control(default="yes")
    ask(3)
    assert len(opened) == 3
    judge.close()
