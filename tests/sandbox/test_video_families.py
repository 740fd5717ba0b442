"""Scores of Video-MME and MMBench-Video, without their videos."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.errors import NeedsJudgeError
from pytest_vlmeval.records import DatasetInfo, PreparedDataset, Scoring, Setting
from tests.support.sandbox_tables import (
    score,
    seed_rows,
    shared_file,
    values,
    write_rows_file,
)
from tests.support.video_rows import CHOICES, GRADED, choice_rows, graded_rows

if TYPE_CHECKING:
    from pytest_vlmeval.run.judge import Judge
    from pytest_vlmeval.sandbox.calls import ScoredDataset
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.judge_calls import OpenJudge
    from tests.support.sandbox_tables import Row
    from tests.support.server_fixtures import ServerProcess

PACKED: dict[str, Setting] = {"dataset": "MMBench-Video", "nframe": 8, "pack": True}
SEEDS = ("seed_fixtures", "hfcache", "hub")
SNAPSHOT = ("snapshots", "0123456789abcdef0123456789abcdef01234567")


def score_rows(
    sandbox: Sandbox,
    folder: Path,
    info: DatasetInfo,
    rows: Sequence[Row],
    answers: Mapping[str, str],
    judge: Judge | None = None,
    scoring: Scoring = "published",
) -> ScoredDataset:
    """Score answers to rows that have nothing but what scoring reads."""
    write_rows_file(folder, rows)
    prepared = PreparedDataset(
        info=info,
        folder=folder,
        fingerprint="",
        checksum="",
        modified=False,
        sample_count=len(rows),
        notes=("8 frames per video",),
    )
    return score(sandbox, prepared, answers.items(), judge, scoring)


def test_options_are_matched_exactly_without_a_judge(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    answers = {"0": "The best answer is A.", "1": "(C)", "2": "pick number 1"}
    found = score_rows(sandbox, tmp_path, CHOICES, choice_rows(), answers)
    assert values(found.verdicts) == {"0": 1, "1": 0, "2": 0}
    assert [each.extracted for each in found.verdicts] == ["A", "C", None]
    assert found.verdicts[2].reason == "no letter from A to D in the answer"
    assert found.main_metric == "overall/overall"
    assert found.value == pytest.approx(33.3)
    assert found.metrics["short/overall"] == 0.5
    assert found.metrics["long/domain/Knowledge"] == 0
    # Durations and topics without a question are left out.
    assert "medium/overall" not in found.metrics
    assert found.notes == ("8 frames per video",)


def test_one_answer_scores(sandbox: Sandbox, tmp_path: Path) -> None:
    found = score_rows(sandbox, tmp_path, CHOICES, choice_rows(), {"2": "A"})
    assert (found.main_metric, found.value) == ("overall/overall", 100)
    assert values(found.verdicts) == {"2": 1}


@pytest.mark.parametrize(("scoring", "right"), [("published", 0), ("corrected", 1)])
def test_the_judge_sees_the_options_in_corrected_scoring_alone(
    sandbox: Sandbox,
    tmp_path: Path,
    open_judge: OpenJudge,
    server: ServerProcess,
    scoring: Scoring,
    right: int,
) -> None:
    judge = open_judge(answers={"A. Red apples": "A"}, default="Z")
    answers = {"1": "B", "2": "pick number 1"}
    found = score_rows(
        sandbox, tmp_path, CHOICES, choice_rows(), answers, judge, scoring
    )
    assert values(found.verdicts) == {"1": 1, "2": right}
    assert found.verdicts[1].extracted == (None, "A")[right]
    assert found.value == pytest.approx(50 + 50 * right)
    assert found.scoring == scoring
    # What matched exactly is not asked, nor what could not be read.
    assert len(server.requests()) == right


def test_a_reply_that_names_no_option_is_unclear(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    judge = open_judge(default="who knows")
    found = score_rows(
        sandbox,
        tmp_path,
        CHOICES,
        choice_rows(),
        {"1": "B", "2": "pick number 1"},
        judge,
        "corrected",
    )
    assert values(found.verdicts) == {"1": 1, "2": None}
    assert found.verdicts[1].reason == "the judge's reply cannot be used: who knows"
    assert (found.value, found.best) == (50, 100)


def test_points_of_a_judge(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    answers = {"0": "a carton", "1": "nothing", "2": "noise"}
    replies = {"a carton": "2", "nothing": "0", "noise": "who knows"}
    judge = open_judge(answers=replies)
    found = score_rows(sandbox, tmp_path, GRADED, graded_rows(), answers, judge)
    assert values(found.verdicts) == {"0": 2 / 3, "1": 0, "2": None}
    assert [each.reason for each in found.verdicts] == [
        "2 points",
        "0 points",
        "the judge's reply cannot be used: who knows",
    ]
    assert found.metrics["coarse_all/Overall"] == 0.67
    assert found.main_metric == "coarse_all/Overall"
    assert found.value == pytest.approx(0.67 * 100 / 3)
    assert found.best == pytest.approx(1.67 * 100 / 3)


def test_answers_to_all_questions_about_a_video(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    info = DatasetInfo(
        name="MMBench_Video_8frame_pack",
        class_name="MMBenchVideo",
        module="mmbench_video",
        kind="vqa",
        modality="video",
        settings=PACKED,
    )
    answers = {"red": '{"0": "a carton", "1": "a box"}', "blue": "I cannot say"}
    replies = {"a carton": "2", "Candidate answer: a box": "3"}
    judge = open_judge(answers=replies)
    found = score_rows(sandbox, tmp_path, info, graded_rows(), answers, judge)
    verdicts = {each.index: each for each in found.verdicts}
    assert verdicts["red"].value == pytest.approx(5 / 6)
    assert verdicts["red"].reason == "2, 3 points"
    assert verdicts["blue"].value == 0
    assert found.metrics["coarse_all/Overall"] == pytest.approx(1.67)


def test_mmbench_video_needs_a_judge(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(NeedsJudgeError, match=r"^MMBench-Video is scored by a judge"):
        score_rows(sandbox, tmp_path, GRADED, graded_rows(), {"0": "a"})


def seed_table(repository: str, name: str) -> list[Row]:
    """Give the rows of a seed fixture."""
    path = shared_file(*SEEDS, repository, *SNAPSHOT, f"{name}.tsv")
    with path.open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file, delimiter="\t")]


def test_every_verdict_of_video_mme_s_fixture(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    rows = seed_rows("Video-MME")
    answers = {row["index"]: row["prediction"] for row in rows}
    table = seed_table("datasets--lmms-lab--Video-MME", "Video-MME")
    exact = score_rows(sandbox, tmp_path, CHOICES, table, answers)
    assert values(exact.verdicts) == {row["index"]: row["exact"] for row in rows}
    judge = open_judge(answers={"pick number 4": "D", "pick number 2": "B"})
    judged = score_rows(sandbox, tmp_path, CHOICES, table, answers, judge, "corrected")
    assert values(judged.verdicts) == {row["index"]: row["judge"] for row in rows}


def test_every_verdict_of_mmbench_video_s_fixture(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    rows = seed_rows("MMBench-Video")
    answers = {row["index"]: row["prediction"] for row in rows}
    table = seed_table("datasets--opencompass--MMBench-Video", "MMBench-Video")
    replies = {
        f"Candidate answer: {row['prediction']}\n": str(3 * row["judge"])
        for row in rows
    }
    judge = open_judge(answers=replies)
    judged = score_rows(sandbox, tmp_path, GRADED, table, answers, judge)
    assert values(judged.verdicts) == {row["index"]: row["judge"] for row in rows}
    assert judged.value == pytest.approx(50)
