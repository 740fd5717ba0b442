"""Scores of Video-MME and MMBench-Video, without their videos."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vlmeval.errors import NeedsJudgeError
from pytest_vlmeval.records import DatasetInfo, PreparedDataset, Setting
from pytest_vlmeval.sandbox.calls import ScoredDataset, score_in_sandbox
from tests.sandbox_tables import seed_rows, shared_file, values, write_table
from tests.test_judged_families import CODE

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.sandbox_tables import Row

CHOICES = DatasetInfo(
    name="Video-MME_0.5fps",
    class_name="VideoMME",
    module="videomme",
    kind="multiple_choice",
    modality="video",
    settings={"dataset": "Video-MME", "fps": 0.5},
)
GRADED = DatasetInfo(
    name="MMBench-Video",
    class_name="MMBenchVideo",
    module="mmbench_video",
    kind="vqa",
    modality="video",
    judge="required",
)
PACKED: dict[str, Setting] = {"dataset": "MMBench-Video", "nframe": 8, "pack": True}
SEEDS = ("seed_fixtures", "hfcache", "hub")
SNAPSHOT = ("snapshots", "0123456789abcdef0123456789abcdef01234567")


def choice_rows() -> list[Row]:
    """Give three questions of Video-MME."""
    return [
        {
            "index": index,
            "video": "one",
            "video_path": "./video/one.mp4",
            "duration": ("short", "short", "long")[index],
            "domain": "Knowledge",
            "candidates": "['A. Red apples.', 'B. Green.', 'C. Blue.', 'D. White.']",
            "sub_category": "Law",
            "task_type": "OCR Problems",
            "subtitle_path": "",
            "question": f"Question {index}?",
            "answer": "ABA"[index],
        }
        for index in range(3)
    ]


def graded_rows() -> list[Row]:
    """Give three questions about two videos of MMBench-Video."""
    return [
        {
            "index": index,
            "video": video,
            "video_path": f"./video/{video}.mp4",
            "video_type": "shorts",
            "question": f"Question {index}?",
            "answer": "a box",
            "dimensions": "['OCR', 'Counting']",
        }
        for index, video in enumerate(("red", "red", "blue"))
    ]


def score(
    sandbox: Sandbox,
    folder: Path,
    info: DatasetInfo,
    rows: Sequence[Row],
    answers: Mapping[str, str],
) -> ScoredDataset:
    """Score answers without a judge."""
    write_table(folder / "rows.tsv", rows)
    prepared = PreparedDataset(
        info=info,
        folder=folder,
        fingerprint="",
        checksum="",
        modified=False,
        sample_count=len(rows),
        notes=("8 frames per video",),
    )
    return score_in_sandbox(sandbox, prepared, list(answers.items()))


def judge(
    environment: SandboxEnvironment,
    folder: Path,
    info: DatasetInfo,
    rows: Sequence[Row],
    answers: Mapping[str, str],
    replies: Mapping[str, str],
    scoring: str = "published",
) -> dict[str, Any]:
    """Score answers with a judge that has these replies."""
    write_table(folder / "rows.tsv", rows)
    task = {
        "info": {
            "name": info.name,
            "class_name": info.class_name,
            "module": info.module,
            "modality": "video",
            "settings": dict(info.settings),
        },
        "answers": list(answers.items()),
        "replies": replies,
        "scoring": scoring,
    }
    (folder / "task.json").write_text(json.dumps(task))
    done = subprocess.run(
        [environment.python, "-I", "-X", "utf8", "-c", CODE],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"HOME": str(folder), "LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def test_options_are_matched_exactly_without_a_judge(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    answers = {"0": "The best answer is A.", "1": "(C)", "2": "pick number 1"}
    found = score(sandbox, tmp_path, CHOICES, choice_rows(), answers)
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
    found = score(sandbox, tmp_path, CHOICES, choice_rows(), {"2": "A"})
    assert (found.main_metric, found.value) == ("overall/overall", 100)
    assert values(found.verdicts) == {"2": 1}


@pytest.mark.parametrize(("scoring", "right"), [("published", 0), ("corrected", 1)])
def test_the_judge_sees_the_options_in_corrected_scoring_alone(
    sandbox_environment: SandboxEnvironment, tmp_path: Path, scoring: str, right: int
) -> None:
    found = judge(
        sandbox_environment,
        tmp_path,
        CHOICES,
        choice_rows(),
        {"2": "pick number 1"},
        {"A. Red apples": "A", "pick number 1": "Z"},
        scoring,
    )
    assert [each["value"] for each in found["verdicts"]] == [right]
    assert found["verdicts"][0]["extracted"] == (None, "A")[right]
    assert found["value"] == 100 * right
    assert found["scoring"] == scoring


def test_points_of_a_judge(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    answers = {"0": "a carton", "1": "nothing", "2": "noise"}
    replies = {"a carton": "2", "nothing": "0", "noise": "who knows"}
    found = judge(
        sandbox_environment, tmp_path, GRADED, graded_rows(), answers, replies
    )
    assert [each["value"] for each in found["verdicts"]] == [2 / 3, 0, None]
    reasons = [each["reason"] for each in found["verdicts"]]
    assert reasons == ["2 points", "0 points", "the judge's reply has no points"]
    # What the judge did not grade counts as 0 in coarse_all.
    assert found["metrics"]["coarse_all/Overall"] == 0.67
    assert found["metrics"]["coarse_valid/Overall"] == 1
    assert found["main_metric"] == "coarse_all/Overall"
    assert found["value"] == pytest.approx(0.67 * 100 / 3)


def test_answers_to_all_questions_about_a_video(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
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
    found = judge(sandbox_environment, tmp_path, info, graded_rows(), answers, replies)
    verdicts = {each["index"]: each for each in found["verdicts"]}
    assert verdicts["red"]["value"] == pytest.approx(5 / 6)
    assert verdicts["red"]["reason"] == "2, 3 points"
    assert verdicts["blue"]["value"] == 0
    assert found["metrics"]["coarse_all/Overall"] == pytest.approx(1.67)


def test_mmbench_video_needs_a_judge(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(NeedsJudgeError, match=r"^MMBench-Video has no score: "):
        score(sandbox, tmp_path, GRADED, graded_rows(), {"0": "a"})


def seed_table(repository: str, name: str) -> list[Row]:
    """Give the rows of a seed fixture."""
    path = shared_file(*SEEDS, repository, *SNAPSHOT, f"{name}.tsv")
    with path.open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file, delimiter="\t")]


def test_every_verdict_of_video_mme_s_fixture(
    sandbox: Sandbox, sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    rows = seed_rows("Video-MME")
    answers = {row["index"]: row["prediction"] for row in rows}
    table = seed_table("datasets--lmms-lab--Video-MME", "Video-MME")
    exact = score(sandbox, tmp_path, CHOICES, table, answers)
    assert values(exact.verdicts) == {row["index"]: row["exact"] for row in rows}
    replies = {"pick number 4": "D", "pick number 2": "B"}
    judged = judge(
        sandbox_environment, tmp_path, CHOICES, table, answers, replies, "corrected"
    )
    assert {v["index"]: v["value"] for v in judged["verdicts"]} == {
        row["index"]: row["judge"] for row in rows
    }


def test_every_verdict_of_mmbench_video_s_fixture(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    rows = seed_rows("MMBench-Video")
    answers = {row["index"]: row["prediction"] for row in rows}
    table = seed_table("datasets--opencompass--MMBench-Video", "MMBench-Video")
    replies = {
        f"Candidate answer: {row['prediction']}\n": str(3 * row["judge"])
        for row in rows
    }
    judged = judge(sandbox_environment, tmp_path, GRADED, table, answers, replies)
    assert {v["index"]: v["value"] for v in judged["verdicts"]} == {
        row["index"]: row["judge"] for row in rows
    }
    assert judged["value"] == pytest.approx(50)
