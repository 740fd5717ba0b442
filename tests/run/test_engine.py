"""What is asked, by which process and how often; what is kept, whatever befalls."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.models.client import Request
from pytest_vlmeval.records import Answer, Ask, Plan, PlanEntry, PromptPart
from pytest_vlmeval.run.engine import Asker
from pytest_vlmeval.run.queue import Board, part_of
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store.database import Member
from tests.support.endpoint_calls import text_request
from tests.support.engine_calls import CONCURRENCY, Asking, ask_for, count_answers
from tests.support.pool_calls import asking_settings, make_pool
from tests.support.running import wait_for
from tests.support.server_fixtures import ServerProcess

ROOT = Path(__file__).parents[2]


def test_whatever_befalls_one_sample_the_others_are_asked(
    tmp_path: Path, server: ServerProcess
) -> None:
    """A prompt that cannot be made, a file of an odd name, a reply of odd counts."""
    server.control(
        default="B",
        rules=[{"contains": "<5>", "answer": "B", "usage": {"prompt_tokens": 10**30}}],
    )

    def request(fingerprint: str, index: str) -> Request:
        if index == "2":
            raise KeyError(index)
        if index == "3":
            odd = PromptPart(kind="image", media="a\0.png", media_type="image/png")
            return Request(turns=((odd,),), media_folder=tmp_path)
        return ask_for(fingerprint, index)

    indexes = [str(number) for number in range(20)]
    asking = Asking(server.url, tmp_path, indexes, request=request)
    asking.engine.start()
    answers = {each: asking.board.wait("Data-1", each).answer for each in indexes}
    asking.close()
    failed = {name: it.error for name, it in answers.items() if it.state == "failed"}
    where = f"The traceback is in {tmp_path / 'errors.log'}."
    assert failed == {
        "2": f"Asking Data-2 failed unexpectedly: KeyError: '2'. {where}",
        "3": f"Asking Data-3 failed unexpectedly: ValueError: embedded null byte. "
        f"{where}",
    }
    log = (tmp_path / "errors.log").read_text()
    assert "Asking Data-3: dataset Data, sample 3\nTraceback (most recent" in log
    assert "KeyError: '2'" in log
    assert {it.text for it in answers.values() if it.state == "answered"} == {"B"}
    assert answers["5"].prompt_tokens == 0


def test_what_waits_for_the_store_keeps_its_place(
    tmp_path: Path, server: ServerProcess
) -> None:
    """So that a kill at this moment loses no more than may be in flight."""
    server.control(default="B", latency_s=0.02)
    asking = Asking(server.url, tmp_path, [str(number) for number in range(60)])
    other = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    asking.engine.start()
    wait_for(lambda: count_answers(tmp_path) >= 10)
    other.execute("BEGIN IMMEDIATE")
    kept = count_answers(tmp_path)
    sent = -1
    # Until nothing is sent any more of what was claimed ahead.
    while sent != (sent := len(server.requests())):
        time.sleep(1)
    other.rollback()
    other.close()
    wait_for(lambda: not asking.board.missing("Data-1"))
    asking.close()
    # Fewer where some slots were about to claim at that moment.
    assert kept < sent <= kept + CONCURRENCY
    assert set(Counter(each["text"] for each in server.requests()).values()) == {1}


@pytest.mark.slow
def test_a_kill_at_any_moment_costs_no_more_than_what_was_in_flight(
    tmp_path: Path, server: ServerProcess, figure: Callable[[str], None]
) -> None:
    server.control(default="B", latency_s=0.005)
    command = [
        sys.executable,
        "-m",
        "tests.support.engine_calls",
        server.url,
        str(tmp_path),
    ]
    found = subprocess.run(
        [*command, "200", "4711"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lost = json.loads(found.stdout)
    busy = [each for each in lost if each]
    figure(
        f"{len(lost)} kills at concurrency {CONCURRENCY}: {len(busy)} lost answers, "
        f"{max(lost)} at most, {sum(lost) / len(lost):.1f} on average; "
        f"{len(server.requests())} requests"
    )
    assert len(lost) == 200
    assert min(lost) >= 0
    assert max(lost) <= CONCURRENCY
    assert len(busy) > 50


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


DATA = "Data-1"
ENTRY = PlanEntry(
    dataset="Data", fingerprint=DATA, modified=False, indexes=("3", "1", "2")
)
PLAN = Plan(run_id="r", scorer="x", entries=(ENTRY,), repeats=2)


def answer(index: str, repeat: int = 0, state: str = "answered") -> Answer:
    return Answer(
        fingerprint=DATA,
        index=index,
        repeat=repeat,
        state=state,  # type: ignore[arg-type]
        text="A",
    )


@pytest.mark.parametrize("brief", [False, True])
def test_what_is_missing_in_the_order_of_the_samples(
    tmp_path: Path, brief: bool
) -> None:
    store = Store(tmp_path)
    board = Board(store, PLAN, "s", brief=brief)
    new = [answer("1"), answer("3"), answer("3", 1), answer("2", 1, "failed")]
    kept = store.record("r", "s", new)
    board.refresh()
    assert board.missing(DATA) == [Ask("1", 1), Ask("2", 0)]
    assert board.progress() == {DATA: 4}
    assert board.answered(DATA) == 1
    found = board.get(DATA, "3", 1)
    assert found is not None
    assert found.seq == kept[2].seq
    assert found.answer.state == "answered"
    assert found.answer.text == ("" if brief else "A")
    store.close()


def test_an_answer_of_another_process_is_not_skipped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    board = Board(store, PLAN, "s")
    store.record("r", "other", [answer("1")])
    board.add(store.record("r", "s", [answer("2")]))
    store.record("r", "other", [answer("3")])
    board.refresh()
    assert all(board.get(DATA, index) is not None for index in "123")
    store.close()


def parts(total: int, processes: int, *states: str) -> list[int]:
    members = [Member(str(n), n, state) for n, state in enumerate(states)]
    return [part_of(total, each.owner, members, processes) for each in members]


@pytest.mark.parametrize("total", [1, 2, 7, 16])
def test_the_parts_of_all_are_the_total(total: int) -> None:
    for processes in range(1, 6):
        assert sum(parts(total, processes, *["live"] * processes)) == total


def test_who_comes_first_takes_no_more_than_its_part() -> None:
    assert parts(16, 4, "live") == [4]
    assert parts(5, 2, "live") == [3]
    assert part_of(5, "1", [Member("1", 1, "live")], 2) == 2
    assert parts(1, 2, "live", "live") == [1, 0]


def test_what_one_leaves_the_others_take() -> None:
    assert parts(16, 4, "live", "left", "left", "left") == [16, 0, 0, 0]
    assert parts(7, 3, "left", "live", "live") == [0, 4, 3]


def test_the_part_of_a_dead_one_is_kept_for_its_successor() -> None:
    assert parts(16, 2, "dead", "live") == [0, 8]
    assert parts(16, 2, "dead", "live", "live") == [0, 8, 8]
    assert parts(1, 2, "live", "dead", "live") == [1, 0, 0]
