"""What the real scorers ask a judge: how, how often, and about how many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.run.judge import MOST_FAILURES
from pytest_vlmeval.sandbox.calls import describe_sandbox, score_in_sandbox
from tests.support.judge_calls import make_judge
from tests.support.judged_rows import FAILURE, FAMILIES, choice_rows, one_row, rows_only
from tests.support.sandbox_tables import score, values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_vlmeval.records import JudgeQuestion, JudgeReply
    from pytest_vlmeval.run.store import Store
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.judge_calls import OpenJudge
    from tests.support.server_fixtures import ServerProcess


def test_the_settings_that_ms_vlmeval_gives_its_judge(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge, server: ServerProcess
) -> None:
    prepared, answer = one_row("LLaVABench", tmp_path)
    score(sandbox, prepared, [(0, answer)], open_judge(judge="good"))
    (request,) = server.requests()
    assert request["system"] == (
        "You are a helpful and precise assistant for checking the quality of the "
        "answer."
    )
    assert request["params"] == {"max_tokens": 2048, "temperature": 0.2}
    prepared, answer = one_row("MMVet", tmp_path)
    score(sandbox, prepared, [(0, answer)], open_judge(default="?"))
    assert [each["params"] for each in server.requests()] == [
        {"max_tokens": 3, "temperature": 0.5 * attempt} for attempt in range(5)
    ]


def test_what_matches_or_has_no_answer_is_not_sent(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge, server: ServerProcess
) -> None:
    prepared = rows_only(tmp_path, "ImageMCQDataset", choice_rows(4))
    answers = [(0, "B"), (1, "A"), (2, None), (3, "pick number 2")]
    found = score(sandbox, prepared, answers, open_judge(judge="good"))
    assert values(found.verdicts) == {"0": 1, "1": 0, "2": 0, "3": 1}
    (request,) = server.requests()
    assert "<3>" in str(request["text"])


@pytest.mark.parametrize("class_name", FAMILIES)
def test_no_answer_is_never_judged(
    sandbox: Sandbox,
    tmp_path: Path,
    open_judge: OpenJudge,
    server: ServerProcess,
    class_name: str,
) -> None:
    prepared, _ = one_row(class_name, tmp_path)
    found = score(sandbox, prepared, [(0, None)], open_judge(judge="good"))
    assert server.requests() == []
    assert found.best == found.value < 11


def test_a_dead_judge_is_given_up_and_asked_again_later(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge, server: ServerProcess
) -> None:
    count = 60
    prepared = rows_only(tmp_path, "ImageMCQDataset", choice_rows(count))
    answers = [(n, f"pick number 2 ({n})") for n in range(count)]
    judge = open_judge(judge="good", rules=[{"after": 20, **FAILURE}])
    found = score(sandbox, prepared, answers, judge)
    states = [verdict.state for verdict in found.verdicts]
    assert (states.count("judged"), states.count("judge_failed")) == (20, 40)
    assert 20 + MOST_FAILURES <= len(server.requests()) < count
    assert any(
        verdict.reason.startswith(
            f"the judge gave no reply: not asked, as {MOST_FAILURES} in a row failed: "
        )
        for verdict in found.verdicts
    )
    assert found.best == 100
    server.control(judge="good")
    found = score(sandbox, prepared, answers, judge)
    assert found.value == 100
    assert len(server.requests()) == 40


def test_a_slow_judge_is_asked_about_many_at_once(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge, server: ServerProcess
) -> None:
    prepared = rows_only(tmp_path, "ImageMCQDataset", choice_rows(24))
    answers = [(str(n), [f"pick number 2 ({n})"]) for n in range(24)]
    judge = open_judge(judge="good", latency_s=0.3)
    # The wait for it is no part of the time that a scoring may take.
    found = score_in_sandbox(
        sandbox, prepared, answers, judge=judge.ask, deadline_s=0.5
    )
    assert found.value == 100
    assert server.counters()["max_in_flight"] == 8


def test_a_judge_past_its_deadline_has_failed(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    prepared, answer = one_row("MMVet", tmp_path)
    judge = open_judge(rules=[{"fault": "hang"}])
    (verdict,) = score(sandbox, prepared, [(0, answer)], judge).verdicts
    assert verdict.state == "judge_failed"
    assert "no answer within 5 s" in verdict.reason


def test_the_same_question_is_sent_once(
    sandbox: Sandbox,
    tmp_path: Path,
    open_judge: OpenJudge,
    server: ServerProcess,
    judge_store: Store,
) -> None:
    row, answer = FAMILIES["ImageMCQDataset"]
    rows = [{"index": n, **row} for n in range(9)]
    prepared = rows_only(tmp_path, "ImageMCQDataset", rows)
    answers = [(n, answer) for n in range(9)]
    judge = open_judge(judge="good")
    found = score(sandbox, prepared, answers, judge)
    assert found.value == 100
    # In another order, after a restart: the same replies.
    again = make_judge(server.url, judge_store)
    assert score(sandbox, prepared, answers[::-1], again) == found
    assert len(server.requests()) == 1
    # To a judge of another name it is another question.
    server.control(judge="wrong", models=["another"])
    another = make_judge(server.url, judge_store, "another")
    assert score(sandbox, prepared, answers, another).value == 0
    assert len(server.requests()) == 1
    another.close()


def test_what_goes_wrong_while_asking_ends_the_call(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    prepared, answer = one_row("MMVet", tmp_path)

    def ask(questions: Sequence[JudgeQuestion]) -> Sequence[JudgeReply]:
        raise VlmEvalError(f"no store for {len(questions)}")

    with pytest.raises(VlmEvalError, match=r"^no store for 1$"):
        score_in_sandbox(sandbox, prepared, [("0", [answer])], judge=ask)
    assert describe_sandbox(sandbox).ms_vlmeval
