"""Families of datasets on invented rows: what is ranked by, odd rows, single rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.prepare import read_index, read_samples
from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.records import JudgeReply
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from tests.support.sandbox_tables import (
    prepare_rows,
    rows_of,
    score,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.sandbox_tables import Row


def test_ocr_bench_gives_a_point_for_each_answer(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    kinds = [
        "Regular Text Recognition",
        "Doc-oriented VQA",
        "Handwritten Mathematical Expression Recognition",
    ]
    rows = rows_of(["['Exit', 'way out']", "['12']", "['x ^ 2']"], category=kinds)
    prepared = prepare_rows(sandbox, tmp_path, "OCRBench", "OCRBench", rows)
    found = score(sandbox, prepared, [(0, "The WAY OUT."), (1, "13"), (2, "x^2=4")])
    assert values(found.verdicts) == {"0": 1, "1": 0, "2": 1}
    assert found.main_metric == "Final Score"
    assert found.metrics["Final Score"] == 2
    assert found.metrics["Text Recognition"] == 1
    assert found.value == pytest.approx(200 / 3)
    assert score(sandbox, prepared, [(2, "x^2")]).value == 100


def test_mtvqa_averages_over_languages(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = rows_of(["五月", "sortie", "Ausgang"], category=["JA", "FR", "DE"])
    prepared = prepare_rows(sandbox, tmp_path, "MTVQADataset", "MTVQA_TEST", rows)
    assert read_samples(prepared)[0].prompt[0][-1].text.endswith("of the question.")
    found = score(sandbox, prepared, [(0, "五月。"), (1, "la Sortie"), (2, "Eingang")])
    assert values(found.verdicts) == {"0": 1, "1": 1, "2": 0}
    assert found.metrics == pytest.approx(
        {"JA": 100, "FR": 100, "DE": 0, "Average": 200 / 3}
    )
    assert found.value == pytest.approx(200 / 3)


def mmmu_rows(answers: Sequence[str]) -> list[Row]:
    """Give questions with options, the last without."""
    options = ["red"] * (len(answers) - 1) + [""]
    return rows_of(
        answers,
        A=options,
        B=["blue" if option else "" for option in options],
        split=["dev", *["validation"] * (len(answers) - 1)],
    )


def test_mmmu_is_ranked_by_its_validation_split(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = mmmu_rows(["A", "B", "B", "24"])
    prepared = prepare_rows(sandbox, tmp_path, "MMMUDataset", "MMMU_DEV_VAL", rows)
    answers = [(0, "A"), (1, "blue"), (2, "A"), (3, "it is 24")]
    found = score(sandbox, prepared, answers)
    assert values(found.verdicts) == {"0": 1, "1": 1, "2": 0, "3": 1}
    assert found.main_metric == "validation/Overall"
    assert found.value == pytest.approx(200 / 3)


def test_a_question_mark_is_no_reference(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = mmmu_rows(["?", "?"])
    prepared = prepare_rows(sandbox, tmp_path, "MMMUDataset", "MMMU_TEST", rows)
    assert [row.reference for row in read_index(prepared)] == [None, None]
    with pytest.raises(VlmEvalError, match=r"^MMMU_TEST has no reference "):
        score(sandbox, prepared, [(0, "A"), (1, "B")])


def test_mmt_bench_with_few_of_its_categories(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = rows_of(
        ["A", "B"],
        A=["x", "x"],
        B=["y", "y"],
        category=["weather", "scene"],
        split=["val", "val"],
        **{"l2-category": ["visual_recognition", "visual_recognition"]},
    )
    prepared = prepare_rows(sandbox, tmp_path, "ImageMCQDataset", "MMT-Bench_VAL", rows)
    found = score(sandbox, prepared, [(0, "A"), (1, "A")])
    assert (found.main_metric, found.value) == ("ALL/Overall", 50)
    assert found.metrics["ALL/VR"] == 0.5
    assert score(sandbox, prepared, [(0, "A")]).value == 100


@pytest.mark.parametrize("name", ["MMT-Bench_VAL", "MMStar"])
def test_rows_without_a_category_or_a_split(
    sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    rows = rows_of(
        ["A", "B", "A"],
        A=["x"] * 3,
        B=["y"] * 3,
        category=["colour", "", "colour"],
        split=[""] * 3,
    )
    prepared = prepare_rows(sandbox, tmp_path, "ImageMCQDataset", name, rows)
    found = score(sandbox, prepared, [(0, "A"), (1, "B"), (2, "B")])
    assert found.value == pytest.approx(200 / 3)
    assert {key.rpartition("/")[2] for key in found.metrics} == {
        "Overall",
        "colour",
        "unnamed",
    }


def test_rotations_without_the_first_have_no_score(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows: list[Row] = [
        {**row, "index": index}
        for row, index in zip(
            rows_of(["A", "B"], A=["x", "y"], B=["y", "x"]), (1, 1_000_001), strict=True
        )
    ]
    prepared = prepare_rows(sandbox, tmp_path, "ImageMCQDataset", "CCBench", rows)
    with pytest.raises(VlmEvalError) as caught:
        score(sandbox, prepared, [(1_000_001, "B")])
    assert str(caught.value) == (
        "CCBench has no score: it asks each question once per rotation of its options, "
        "and of none the first rotation was asked. Select all rotations of a question."
    )


def test_mme_with_half_of_a_pair(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = rows_of(
        ["Yes", "No", "Yes"],
        category=["color", "color", "color"],
        image_path=["a.png", "a.png", "b.png"],
    )
    prepared = prepare_rows(sandbox, tmp_path, "ImageYORNDataset", "MME", rows)
    found = score(sandbox, prepared, [(0, "Yes"), (1, "Yes"), (2, "Yes")])
    assert values(found.verdicts) == {"0": 1, "1": 0, "2": 1}
    # Three of four answers, one of two images.
    assert found.metrics["color"] == 75 + 50
    assert found.metrics["perception"] == 125
    assert score(sandbox, prepared, [(2, "Yes")]).metrics["Overall"] == 200


def test_hallusion_bench_with_a_part_of_a_figure(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows: list[Row] = [
        {**row, "index": f"VD_chart_1_0_{number}_0", "l2-category": "chart"}
        for number, row in enumerate(rows_of(["Yes", "No"]))
    ]
    prepared = prepare_rows(
        sandbox, tmp_path, "ImageYORNDataset", "HallusionBench", rows
    )
    found = score(sandbox, prepared, [("VD_chart_1_0_1_0", "No")])
    assert (found.main_metric, found.value) == ("Overall/average", 100)


def math_vista_rows() -> list[Row]:
    """Give a question of each kind: options, a number, a text, a list."""
    return rows_of(
        ["5", "12", "north", "[1, 2]"],
        question_type=["multi_choice", "free_form", "free_form", "free_form"],
        answer_type=["text", "integer", "text", "list"],
        answer_option=["B", "", "", ""],
        choices=["['3', '5']", "", "", ""],
        task=["geometry", "counting", "reading", "reading"],
        skills=["['shapes']", "['numbers']", "['maps']", "['maps']"],
    )


@pytest.mark.parametrize(
    ("scoring", "right"), [("published", [1, 1, 0, 0]), ("corrected", [1, 1, 1, 1])]
)
def test_math_vista_as_published_and_corrected(
    sandbox: Sandbox, tmp_path: Path, scoring: str, right: list[int]
) -> None:
    rows = math_vista_rows()
    prepared = prepare_rows(sandbox, tmp_path, "MathVista", "MathVista_MINI", rows)
    answers = [("0", ["B"]), ("1", ["12"]), ("2", ["north"]), ("3", ["[1, 2]"])]
    assert scoring in ("published", "corrected")
    found = score_in_sandbox(
        sandbox,
        prepared,
        answers,
        scoring="corrected" if scoring == "corrected" else "published",
    )
    assert found.scoring == scoring
    assert list(values(found.verdicts).values()) == right
    assert found.main_metric == "Overall/acc (exact matching)"
    assert found.value == sum(right) * 25
    wrong = score(sandbox, prepared, [(0, "A"), (1, ""), (2, "None"), (3, "[1]")])
    assert wrong.value == 0


def test_corrected_scoring_where_nothing_is_to_correct(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = rows_of(["May"], category=["ocr,math"])
    prepared = prepare_rows(sandbox, tmp_path, "MMVet", "MMVet", rows)
    found = score_in_sandbox(
        sandbox,
        prepared,
        [("0", ["May"])],
        judge=lambda _asked: [JudgeReply(number=1, text="1.0")],
        scoring="corrected",
    )
    assert (found.scoring, found.value) == ("published", 100)


def test_without_the_judge_that_a_dataset_needs(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = rows_of(["-1<AND>-5"], category=["ocr,math"])
    prepared = prepare_rows(sandbox, tmp_path, "MMVet", "MMVet", rows)
    with pytest.raises(NeedsJudgeError) as caught:
        score(sandbox, prepared, [(0, "-1 and -5")])
    assert str(caught.value) == (
        "MMVet is scored by a judge only, and there is none. Its answers are kept: "
        "run the same command with --vlm-judge=NAME --vlm-judge-api-base=URL to score "
        "them."
    )
