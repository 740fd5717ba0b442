"""What the store tells of runs that are over: their sessions, scores and costs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vlmeval.records import (
    Answer,
    FailedAttempt,
    JudgeQuestion,
    Origins,
    Plan,
    PlanEntry,
    Said,
    Score,
    SpotCheck,
    Start,
    Verdict,
)
from pytest_vlmeval.reports.terminal import format_account
from pytest_vlmeval.run.plan import find_revision
from pytest_vlmeval.run.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.close()


def plan(run_id: str, *indexes: str) -> Plan:
    entry = PlanEntry(
        dataset="Data", fingerprint="Data-1", modified=False, indexes=indexes
    )
    return Plan(run_id=run_id, scorer="sandbox", entries=(entry,))


def add_score(store: Store, score_id: str, run_id: str, value: float) -> None:
    store.claim_score(score_id, run_id, "Data-1", "session", "owner")
    score = Score(
        dataset="Data",
        metrics={"Overall": value},
        main_metric="Overall",
        value=value,
        best=value,
        samples=2,
        answered=2,
        correct=1,
        undecided=0,
        modified=False,
        scorer="sandbox",
        judge="exact_matching",
        verdicts=(Verdict(index="1", value=1.0),),
    )
    store.finish_score(score_id, score)


def test_runs_and_their_sessions_newest_first(store: Store) -> None:
    first = store.open_run({"model": "one"}, "s1", fresh=False)
    second = store.open_run({"model": "two"}, "s2", fresh=False)
    start = Start(
        revision="abd-dirty", command="pytest", versions={"Python": "3"}, fails="wrong"
    )
    store.save_plan("s1", plan(first, "1"))
    store.save_plan("s3", plan(first, "1", "2"), start)
    assert [(run.run_id, run.model) for run in store.runs()] == [
        (second, "two"),
        (first, "one"),
    ]
    sessions = store.sessions(first)
    assert [(each.session_id, each.start) for each in sessions] == [
        ("s3", start),
        ("s1", Start()),
    ]
    assert sessions[0].plan == plan(first, "1", "2")
    assert sessions[0].created_at >= sessions[1].created_at > 1.7e9
    assert store.sessions(second) == []


def test_scores_of_all_runs_but_not_those_in_the_making(store: Store) -> None:
    first = store.open_run({"model": "one"}, "s1", fresh=False)
    second = store.open_run({"model": "two"}, "s2", fresh=False)
    add_score(store, "a", first, 40)
    add_score(store, "b", second, 60)
    store.claim_score("c", second, "Data-1", "session", "owner")
    found = [(each.model, each.dataset, each.value) for each in store.past_scores()]
    assert found == [("two", "Data", 60), ("one", "Data", 40)]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_revision_is_the_commit_and_says_if_it_is_changed(tmp_path: Path) -> None:
    assert find_revision(tmp_path) == ""
    git(tmp_path, "init")
    (tmp_path / "file").write_text("one", encoding="utf-8")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    commit = git(tmp_path, "rev-parse", "--short=10", "HEAD")
    assert find_revision(tmp_path) == commit
    (tmp_path / "file").write_text("two", encoding="utf-8")
    assert find_revision(tmp_path) == f"{commit}-dirty"


def test_a_folder_that_is_gone_has_no_revision(tmp_path: Path) -> None:
    assert find_revision(tmp_path / "gone") == ""


def open_plan(store: Store, *names: str, session_id: str = "s1") -> Plan:
    run_id = store.open_run({"model": "tiny-vlm"}, session_id, fresh=False)
    entries = tuple(
        PlanEntry(dataset=name, fingerprint=f"{name}-1", modified=False, indexes=("1",))
        for name in names
    )
    return Plan(run_id=run_id, scorer="s", entries=entries)


def answer(index: int, latency_ms: float, **more: object) -> Answer:
    values = {"fingerprint": "Data-1", "state": "answered", **more}
    return Answer(
        index=str(index),
        latency_ms=latency_ms,
        prompt_tokens=10,
        completion_tokens=2,
        **values,  # type: ignore[arg-type]
    )


def failed(index: int, kind: str, asked: str = "tiny-vlm") -> FailedAttempt:
    return FailedAttempt(
        asked=asked,
        endpoint="http://127.0.0.1:1/v1",
        fingerprint="Data-1",
        index=str(index),
        kind=kind,
        message="no",
        latency_ms=1.0,
        at=1.0,
    )


def test_sums_and_percentiles_by_the_nearest_rank(store: Store) -> None:
    plan = open_plan(store, "Data", "More")
    # 1 to 100 ms: the p-th percentile by the nearest rank is p ms.
    new = [answer(n, float(n), attempts=1 + (n % 10 == 0)) for n in range(100, 0, -1)]
    store.record(plan.run_id, "s1", new)
    store.record(
        plan.run_id, "s1", [answer(1, 500.0, fingerprint="More-1", attempts=3)]
    )
    account = store.account(plan)
    data, more = account.datasets
    assert (data.dataset, data.asked, data.answers, data.failed) == (
        "Data",
        "tiny-vlm",
        100,
        0,
    )
    assert (data.requests, data.retries) == (110, 10)
    assert (data.prompt_tokens, data.completion_tokens) == (1000, 200)
    assert (data.latency_p50_ms, data.latency_p95_ms, data.latency_p99_ms) == (
        50,
        95,
        99,
    )
    assert (more.requests, more.retries, more.latency_p50_ms) == (3, 2, 500)
    total = account.model
    assert (total.dataset, total.requests, total.answers) == ("", 113, 101)
    assert (total.latency_p50_ms, total.latency_p99_ms) == (51, 100)


def test_what_failed_has_no_latency_and_what_was_never_asked_no_request(
    store: Store,
) -> None:
    plan = open_plan(store, "Data")
    new = [
        answer(1, 10.0),
        answer(2, 9_000.0, state="failed", attempts=3),
        answer(3, 0.0, state="failed", attempts=0),
    ]
    store.record(plan.run_id, "s1", new)
    attempts = [failed(2, "500"), failed(2, "timeout"), failed(2, "500")]
    store.record_failures(plan.run_id, "s1", attempts)
    (data,) = store.account(plan).datasets
    assert (data.requests, data.retries, data.answers, data.failed) == (4, 2, 1, 2)
    assert (data.latency_p50_ms, data.latency_p99_ms) == (10, 10)
    assert data.errors == {"500": 2, "timeout": 1}


def test_each_turn_of_a_conversation_is_one_request(store: Store) -> None:
    plan = open_plan(store, "Data")
    earlier = (Said("one"), Said("two"))
    new = [
        answer(1, 10.0, turns=3, earlier=earlier, attempts=3),
        answer(2, 10.0, turns=4, earlier=earlier, attempts=5, state="failed"),
    ]
    store.record(plan.run_id, "s1", new)
    account = store.account(plan, "s1")
    assert (account.model.requests, account.model.retries) == (8, 2)
    assert [each.retries for each in new] == [0, 2]
    assert format_account(account) == [
        "asked: 8 requests, 2 of them again, 20 tokens in and 4 out, "
        "p50/p95/p99 10/10/10 ms"
    ]


def test_a_single_request_is_one_request(store: Store) -> None:
    plan = open_plan(store, "Data")
    store.record(plan.run_id, "s1", [answer(1, 10.0)])
    assert format_account(store.account(plan, "s1")) == [
        "asked: 1 request, 10 tokens in and 2 out, p50/p95/p99 10/10/10 ms"
    ]


def test_what_earlier_sessions_asked_is_not_said_to_be_asked_now(store: Store) -> None:
    plan = open_plan(store, "Data", "More")
    new = [answer(1, 10.0), answer(2, 30.0, fingerprint="More-1")]
    store.record(plan.run_id, "s1", new)
    question = JudgeQuestion(prompt="?")
    reply = answer(0, 30.0, text="yes")
    store.record_reply("gpt", question, reply, plan.run_id, "s1")
    store.record_failures(plan.run_id, "s1", [failed(1, "500")])
    # One line for all datasets: each of them is in the report.
    assert format_account(store.account(plan, "s1")) == [
        "asked: 2 requests, 20 tokens in and 4 out, p50/p95/p99 10/30/30 ms, "
        "errors: 500 1x",
        "judge gpt: 1 request, 10 tokens in and 2 out, p50/p95/p99 30/30/30 ms",
    ]
    account = store.account(plan, "s2")
    assert format_account(account) == []
    assert (account.model.requests, account.judges[0].requests) == (2, 1)
    assert account.now is not None
    assert (account.now.requests, account.now.errors) == (0, {})
    origins = Origins(
        asked=1, stored=2, oldest=1e9, newest=1.1e9, endpoints=("http://a/v1",)
    )
    check = SpotCheck(state="same", asked=18, same=15, changed=1, unsteady=1, failed=1)
    assert format_account(replace(account, origins=origins, spot_check=check)) == [
        "3 answers: 1 asked now, 2 from the store (09 Sep 2001 to 09 Nov 2004, "
        "http://a/v1), spot check: 15 of 17 the same, 1 differently each time, 1 more "
        "without an answer"
    ]
    assert format_account(replace(account, origins=origins)) == [
        "3 answers: 1 asked now, 2 from the store (09 Sep 2001 to 09 Nov 2004, "
        "http://a/v1), not checked: another command asked them at the same time"
    ]
    assert format_account(replace(account, origins=Origins(asked=1, equal=2))) == [
        "3 answers: 1 asked now, 2 by the answer to an equal prompt among them"
    ]


def test_the_requests_of_a_spot_check_are_counted_once(store: Store) -> None:
    plan = open_plan(store, "Data")
    kept = store.record(plan.run_id, "s1", [answer(n, 10.0) for n in (1, 2)])
    # Of two that are asked again one, asked twice, counts from now on.
    asked = [(kept[0].seq, answer(1, 10.0)), (kept[1].seq, answer(2, 10.0))]
    asked.append((kept[1].seq, answer(2, 30.0)))
    store.record_spot_answers(plan.run_id, "s2", asked)
    store.record(plan.run_id, "s2", [answer(2, 30.0), answer(3, 20.0)])
    now = store.account(plan, "s2").now
    assert now is not None
    assert (now.requests, now.prompt_tokens, now.completion_tokens) == (4, 40, 8)


def test_an_account_of_nothing(store: Store) -> None:
    account = store.account(open_plan(store, "Data"))
    assert account.datasets[0].latency_p50_ms is None
    assert account.model.requests == 0
    assert account.judges == ()


def test_judges_are_counted_by_what_was_asked_for_first(store: Store) -> None:
    plan = open_plan(store, "Data", "More")
    reply = answer(0, 30.0, text="yes", attempts=2)
    for number, fingerprint in enumerate(("Data-1", "More-1", "More-1")):
        question = JudgeQuestion(prompt=str(number))
        paid = replace(reply, fingerprint=fingerprint)
        store.record_reply("gpt", question, paid, plan.run_id)
    store.record_failures(plan.run_id, "s1", [failed(0, "429", asked="gpt")])
    account = store.account(plan)
    (judge,) = account.judges
    assert (judge.asked, judge.requests, judge.retries, judge.answers) == (
        "gpt",
        6,
        3,
        3,
    )
    assert (judge.prompt_tokens, judge.latency_p95_ms, judge.errors) == (
        30,
        30,
        {"429": 1},
    )
    assert [(each.dataset, each.answers) for each in account.judge_datasets] == [
        ("Data", 1),
        ("More", 2),
    ]
    assert account.model.errors == {}
