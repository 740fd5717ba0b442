"""What becomes of a judged sample, by what the judge replies, in the real scorers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.judged_rows import FAILURE, FAMILIES, one_row, rows_only
from tests.support.sandbox_tables import score, values

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vlmeval.run.store import Store
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.judge_calls import OpenJudge
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
