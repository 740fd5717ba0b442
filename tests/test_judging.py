"""What becomes of a judged sample, by what the judge replies, in the real scorers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.judge import MOST_FAILURES
from pytest_vlmeval.sandbox.calls import describe_sandbox, score_in_sandbox
from tests.judge_calls import make_judge
from tests.sandbox_tables import score, values
from tests.test_judged_families import rows_only

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_vlmeval.records import JudgeQuestion, JudgeReply, PreparedDataset
    from pytest_vlmeval.sandbox.process import Sandbox
    from pytest_vlmeval.store import Store
    from tests.judge_calls import OpenJudge
    from tests.sandbox_tables import Row
    from tests.server_fixtures import ServerProcess

FAILURE = {"status": 500, "message": "out of memory"}
# A row of each family, with an answer that only a judge can read.
FAMILIES: dict[str, tuple[Row, str]] = {
    "ImageMCQDataset": (
        {"question": "Which?", "answer": "B", "A": "red", "B": "blue"},
        "pick number 2",
    ),
    "ImageYORNDataset": ({"question": "Is it?", "answer": "Yes"}, "Affirmative."),
    "MathVision": (
        {"question": "?", "answer": "3", "choices": "[]", "category": "algebra"},
        "it is 3",
    ),
    "MMVet": ({"question": "?", "answer": "red", "category": "rec"}, "red"),
    "LLaVABench": (
        {"question": "?", "category": "conv", "caption": "", "gpt4_ans": "A box."},
        "A box.",
    ),
    "MMLongBench": (
        {
            "question": "?",
            "answer": "3",
            "answer_format": "Int",
            "evidence_pages": "[1]",
            "evidence_sources": "['Chart']",
        },
        "There are 3",
    ),
}
# How often ms-vlmeval asks about a row whose replies it cannot use.
ATTEMPTS = {
    "ImageMCQDataset": 3,
    "ImageYORNDataset": 5,
    "MathVision": 5,
    "MMVet": 5,
    "LLaVABench": 1,
    "MMLongBench": 5,
}
FREE_FORM = {"MathVision", "MMLongBench"}


def one_row(class_name: str, folder: Path) -> tuple[PreparedDataset, str]:
    """Give a dataset of one row, and the answer to it."""
    row, answer = FAMILIES[class_name]
    return rows_only(folder, class_name, [{"index": 0, **row}]), answer


@pytest.mark.parametrize("class_name", FAMILIES)
def test_a_good_judge_and_its_bounds(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge, class_name: str
) -> None:
    prepared, answer = one_row(class_name, tmp_path)
    found = score(sandbox, prepared, [(0, answer)], open_judge(judge="good"))
    (verdict,) = found.verdicts
    assert (verdict.value, verdict.state) == (1, "judged")
    assert len(verdict.exchanges) == 1
    assert found.best == found.value > 99


@pytest.mark.parametrize("class_name", FAMILIES)
def test_a_wrong_judge_is_believed(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge, class_name: str
) -> None:
    prepared, answer = one_row(class_name, tmp_path)
    found = score(sandbox, prepared, [(0, answer)], open_judge(judge="wrong"))
    (verdict,) = found.verdicts
    assert (verdict.value, verdict.state) == (0, "judged")
    assert found.best == found.value == 0


@pytest.mark.parametrize("class_name", FAMILIES)
def test_a_judge_that_fails(
    sandbox: Sandbox,
    tmp_path: Path,
    open_judge: OpenJudge,
    server: ServerProcess,
    class_name: str,
) -> None:
    prepared, answer = one_row(class_name, tmp_path)
    judge = open_judge(rules=[FAILURE], retries=1)
    found = score(sandbox, prepared, [(0, answer)], judge)
    (verdict,) = found.verdicts
    assert (verdict.value, verdict.state) == (None, "judge_failed")
    assert verdict.reason == (
        f"the judge gave no reply: {server.url} answered 500: out of memory"
    )
    # Tried again by us, then not by ms-vlmeval.
    assert len(server.requests()) == 2
    assert found.value < 11
    assert found.best > 99
    server.control(judge="good")
    again = score(sandbox, prepared, [(0, answer)], judge)
    assert again.verdicts[0].value == 1


@pytest.mark.parametrize("reply", ["", "?"])
@pytest.mark.parametrize("class_name", FAMILIES)
def test_replies_that_cannot_be_used(
    sandbox: Sandbox,
    tmp_path: Path,
    open_judge: OpenJudge,
    server: ServerProcess,
    judge_store: Store,
    class_name: str,
    reply: str,
) -> None:
    prepared, answer = one_row(class_name, tmp_path)
    judge = open_judge(default=reply)
    found = score(sandbox, prepared, [(0, answer)], judge)
    (verdict,) = found.verdicts
    attempts = ATTEMPTS[class_name]
    if reply and class_name in FREE_FORM:
        attempts = 1  # Whatever it is, it is read once.
    assert len(server.requests()) == len(verdict.exchanges) == attempts
    kept = judge_store.exchanges.load(verdict.exchanges)
    assert [each["text"] for each in kept] == [reply] * attempts
    if reply and class_name == "MathVision":
        assert (verdict.value, verdict.state) == (0, "judged")
        return
    assert (verdict.value, verdict.state) == (None, "judge_unclear")
    said = reply or "an empty text"
    assert verdict.reason == f"the judge's reply cannot be used: {said}"
    assert found.value < 11
    assert found.best > 99
    # A reply is a reply: it is not asked for again.
    assert score(sandbox, prepared, [(0, answer)], judge) == found
    assert len(server.requests()) == attempts


@pytest.mark.parametrize(
    ("class_name", "manner", "value"),
    [
        ("ImageMCQDataset", "verbose", 1),
        ("ImageMCQDataset", "chinese", 1),
        ("ImageMCQDataset", "fenced", None),
        ("ImageYORNDataset", "verbose", 1),
        ("ImageYORNDataset", "chinese", 1),
        ("ImageYORNDataset", "fenced", 1),
        ("MMVet", "verbose", None),
        ("LLaVABench", "fenced", None),
        ("MMLongBench", "verbose", 1),
    ],
)
def test_manners_of_speaking(
    sandbox: Sandbox,
    tmp_path: Path,
    open_judge: OpenJudge,
    class_name: str,
    manner: str,
    value: float | None,
) -> None:
    prepared, answer = one_row(class_name, tmp_path)
    found = score(sandbox, prepared, [(0, answer)], open_judge(judge=manner))
    (verdict,) = found.verdicts
    assert verdict.value == value
    assert verdict.state == ("judge_unclear" if value is None else "judged")


def test_neither_yes_nor_no_is_a_verdict(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    prepared, _ = one_row("ImageYORNDataset", tmp_path)
    found = score(sandbox, prepared, [(0, "a boat")], open_judge(judge="good"))
    (verdict,) = found.verdicts
    assert (verdict.value, verdict.state) == (0, "judged")
    assert verdict.extracted == "Unknown"


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


def choice_rows(count: int) -> list[Row]:
    """Give questions, B of which is right."""
    row, _ = FAMILIES["ImageMCQDataset"]
    return [{"index": n, **row, "question": f"Which <{n}>?"} for n in range(count)]


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


def test_one_rotation_that_is_unclear_leaves_its_question_open(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    row = {"A": "red", "B": "blue", "category": "c"}
    rows = [
        {"index": n, "question": f"Which <{n}>?", **row, "answer": "B"}
        for n in (1, 1_000_001, 2, 1_000_002)
    ]
    circular = rows_only(tmp_path, "ImageMCQDataset", rows, "MMBench_own")
    answers = [(row["index"], "pick number 2") for row in rows]
    judge = open_judge(
        judge="good", rules=[{"contains": "<1000001>", "answer": "no idea"}]
    )
    found = score(sandbox, circular, answers, judge)
    assert values(found.verdicts) == {
        "1": None,
        "1000001": None,
        "2": 1,
        "1000002": 1,
    }
    assert {verdict.state for verdict in found.verdicts[:2]} == {"judge_unclear"}
    assert (found.value, found.best) == (50, 100)


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
