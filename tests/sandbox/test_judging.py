"""What becomes of a judged sample, by what the judge replies, in the real scorers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.judged_rows import FAILURE, FAMILIES, one_row, rows_only
from tests.support.sandbox_tables import score, values

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vlmeval.records import Scoring
    from pytest_vlmeval.run.store import Store
    from pytest_vlmeval.sandbox.calls import ScoredDataset
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.judge_calls import OpenJudge
    from tests.support.sandbox_tables import Row
    from tests.support.server_fixtures import ServerProcess

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
    kept = judge_store.load_exchanges(verdict.exchanges)
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


def given(found: ScoredDataset) -> list[float | None]:
    """Give the values of all verdicts in order."""
    return [verdict.value for verdict in found.verdicts]


def test_mmvet_with_two_of_its_six_capabilities(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    rows: list[Row] = [
        {"index": "v1", "question": "x?", "answer": "1<AND>2", "category": "ocr,math"},
        {"index": "v2", "question": "y?", "answer": "a<OR>b", "category": "ocr"},
    ]
    answers = {"v1": "one is right", "v2": "neither"}
    replies = {"one is right": "0.5", "neither": "0.0"}
    prepared = rows_only(tmp_path, "MMVet", rows)
    found = score(sandbox, prepared, answers.items(), open_judge(answers=replies))
    assert given(found) == [0.5, 0]
    assert (found.main_metric, found.value) == ("Overall/acc", 25)
    assert found.metrics["math/acc"] == 50
    assert found.metrics["spat/tot"] == 0
    assert "spat/acc" not in found.metrics


def test_llava_bench_and_a_reply_without_scores(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    rows: list[Row] = [
        {
            "index": number,
            "question": "Describe it.",
            "category": "conv",
            "caption": "A red box.",
            "gpt4_ans": "A red box.",
            "image_path": f"{number}.jpg",
        }
        for number in range(2)
    ]
    answers = {"0": "a box", "1": "a dog"}
    replies = {"a box": "8 6\nbecause", "a dog": "I cannot say"}
    prepared = rows_only(tmp_path, "LLaVABench", rows)
    found = score(sandbox, prepared, answers.items(), open_judge(answers=replies))
    assert given(found) == [0.6, None]
    assert found.verdicts[0].reason == "6 points, GPT-4's answer 8"
    assert found.verdicts[1].reason == (
        "the judge's reply cannot be used: I cannot say"
    )
    # ms-vlmeval counts such a reply as -1 for both. Here it is 1 point against 10 at
    # worst, and 10 against 1 at best: 7 of 18, or 16 of 9.
    assert found.main_metric == "overall/Relative Score (main)"
    assert (found.value, found.best) == (38.9, 177.8)


@pytest.mark.parametrize(
    ("answers", "expected", "f1"),
    [
        ({"0": "three", "1": "none such"}, [1, 1], 1),
        ({"0": "four"}, [0], 0),
        ({"1": "none such"}, [1], None),
    ],
)
def test_documents_with_nothing_right_or_nothing_answerable(
    sandbox: Sandbox,
    tmp_path: Path,
    open_judge: OpenJudge,
    answers: dict[str, str],
    expected: list[float],
    f1: float | None,
) -> None:
    rows: list[Row] = [
        {
            "index": number,
            "question": "How many?",
            "doc_id": "a.pdf",
            "answer": answer,
            "answer_format": answer_format,
            "evidence_pages": pages,
            "evidence_sources": "['Chart']",
            "image_path": "['a_1.jpg']",
        }
        for number, (answer, answer_format, pages) in enumerate(
            [("3", "Int", "[1]"), ("Not answerable", "Str", "[]")]
        )
    ]
    reply = "Extracted answer: {}\nAnswer format: Integer"
    replies = {
        "Analysis: three": reply.format("3"),
        "Analysis: four": reply.format("4"),
        "Analysis: none such": reply.format("Not answerable"),
    }
    prepared = rows_only(tmp_path, "MMLongBench", rows)
    found = score(sandbox, prepared, answers.items(), open_judge(answers=replies))
    assert given(found) == expected
    assert found.main_metric == "overall_acc/avg_score"
    assert found.value == 100 * sum(expected) / len(expected)
    assert found.metrics.get("overall_f1/avg_score") == f1


@pytest.mark.parametrize(("scoring", "right"), [("published", 0), ("corrected", 1)])
def test_math_vista_reads_a_list_from_the_judge(
    sandbox: Sandbox,
    tmp_path: Path,
    open_judge: OpenJudge,
    scoring: Scoring,
    right: int,
) -> None:
    rows: list[Row] = [
        {
            "index": 0,
            "question": "Which two?",
            "answer": "[1, 2]",
            "question_type": "free_form",
            "answer_type": "list",
            "answer_option": "",
            "choices": "",
            "task": "reading",
            "skills": "['maps']",
        }
    ]
    replies = {"between 1 and 2": "[1, 2]"}
    answers = {"0": "between 1 and 2"}
    prepared = rows_only(tmp_path, "MathVista", rows)
    judge = open_judge(answers=replies)
    found = score(sandbox, prepared, answers.items(), judge, scoring)
    assert given(found) == [right]
    assert (found.main_metric, found.value) == ("Overall/acc", 100 * right)
    assert found.scoring == scoring


MMDU_POINTS = (
    "{{'Creativity': {0}, 'Richness': {0}, 'Visual Perception': {0}, "
    "'Logical Coherence': {0}, 'Answer Accuracy': {0}, "
    "'Image Relationship Understanding': {0}, 'Overall Score': {0}}}"
)


@pytest.mark.parametrize(
    ("reply", "points"),
    [
        ("{'Overall Score': 7}", 7),  # the other dimensions lack
        ("I give it a 9.", 0),
        ("{'a', 'b'}", 0),
        ("{'Overall Score': __import__('os').getpid()}", 0),
        ("{'Overall Score': [10]}", 0),
        ("{'Overall Score': 1e999, 2: 10**10}", 0),
        ("", 0),
    ],
)
def test_a_turn_that_the_judge_does_not_grade(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge, reply: str, points: int
) -> None:
    rows: list[Row] = [
        {
            "index": "d1",
            "question": "['Who?', 'Why?']",
            "answer": "['a fox', 'for fun']",
            "image_path": "['1.png']",
        }
    ]
    long = "a 'fox'\n" * 20_000  # longer than what is evaluated whole
    judge = open_judge(answers={"funny": reply, "fox": MMDU_POINTS.format(8)})
    prepared = rows_only(tmp_path, "MMDUDataset", rows, "MMDU")
    found = score(sandbox, prepared, [("d1", [long, "funny"])], judge)
    (verdict,) = found.verdicts
    assert (verdict.value, verdict.state) == (None, "judge_unclear")
    said = reply or "an empty text"
    assert verdict.reason == f"the judge's reply to turn 2 cannot be used: {said}"
    assert len(verdict.exchanges) == 2
    # As in ms-vlmeval, what has no points counts as none; at best as all.
    assert found.value == 10 * (8 + points) / 2
    assert found.best == 10 * (8 + (points or 10)) / 2
    assert found.metrics["all/Richness"] == 40
    assert found.metrics["valid/Richness"] == 80


def test_a_conversation_without_any_points(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    rows: list[Row] = [
        {"index": n, "question": "['Who?']", "answer": "['a fox']"} for n in range(2)
    ]
    prepared = rows_only(tmp_path, "MMDUDataset", rows, "MMDU")
    answers = [("0", ["nobody"]), ("1", None)]
    judge = open_judge(default="no idea")
    found = score(sandbox, prepared, answers, judge)
    assert given(found) == [None, 0]
    assert (found.value, found.best) == (0, 50)
    # A mean over nothing is no number.
    assert [name for name in found.metrics if name.startswith("valid/")] == []
