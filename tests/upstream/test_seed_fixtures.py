"""Every verdict of the seed fixtures, for every image dataset of the card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.prepare import read_index
from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.sandbox.environment import ADDONS
from tests.support.sandbox_tables import (
    describe,
    prepare,
    score,
    seed_rows,
    shared_file,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vlmeval.records import PreparedDataset, Scoring
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.judge_calls import OpenJudge
    from tests.support.server_fixtures import ServerProcess

SEEDS = {
    "ImageMCQDataset": """
        MMBench_DEV_EN MMBench_TEST_EN MMBench_DEV_CN MMBench_TEST_CN MMBench MMBench_CN
        MMBench_DEV_EN_V11 MMBench_TEST_EN_V11 MMBench_DEV_CN_V11 MMBench_TEST_CN_V11
        MMBench_V11 MMBench_CN_V11 SEEDBench_IMG SEEDBench2 SEEDBench2_Plus
        ScienceQA_VAL ScienceQA_TEST MMT-Bench_ALL_MI MMT-Bench_ALL MMT-Bench_VAL_MI
        MMT-Bench_VAL AesBench_VAL AesBench_TEST CCBench AI2D_TEST MMStar RealWorldQA
        BLINK""",
    "MMMUDataset": "MMMU_DEV_VAL",
    "ImageYORNDataset": "MME HallusionBench POPE",
    "ImageVQADataset": """
        OCRVQA_TEST OCRVQA_TESTCORE TextVQA_VAL DocVQA_VAL InfoVQA_VAL ChartQA_TEST""",
    "OCRBench": "OCRBench",
    "MTVQADataset": "MTVQA_TEST",
    "MathVision": "MathVision MathVision_MINI",
    "MathVista": "MathVista_MINI",
    "ImageCaptionDataset": "COCO_VAL",
    "VCRDataset": """
        VCR_EN_EASY_500 VCR_EN_EASY_100 VCR_EN_EASY_ALL VCR_EN_HARD_500 VCR_EN_HARD_100
        VCR_EN_HARD_ALL VCR_ZH_EASY_500 VCR_ZH_EASY_100 VCR_ZH_EASY_ALL VCR_ZH_HARD_500
        VCR_ZH_HARD_100 VCR_ZH_HARD_ALL""",
}
JUDGED = {
    "MMVet": "MMVet",
    "LLaVABench": "LLaVABench",
    "MMLongBench": "MMLongBench_DOC",
}
# Their classes ask a judge about what does not match.
READ_BY_JUDGE = {
    class_name: SEEDS[class_name]
    for class_name in (
        "ImageMCQDataset",
        "MMMUDataset",
        "ImageYORNDataset",
        "MathVision",
        "MathVista",
    )
}
SECRET = {
    "MMMUDataset": "MMMU_TEST",
    "ImageMCQDataset": "MLLMGuard_DS",
    "ImageVQADataset": "DocVQA_TEST InfoVQA_TEST",
}
MAIN = {
    "MMBench_DEV_EN": ("dev/Overall", 50),
    "MMT-Bench_ALL": ("ALL/Overall", 50),
    "MMStar": ("Overall", 50),
    "MMMU_DEV_VAL": ("validation/Overall", 100 / 3),
    "POPE": ("Overall/Overall", 50),
    "MME": ("Overall", 300 * 100 / 2800),
    "HallusionBench": ("Overall/average", 160 / 3),
    "ChartQA_TEST": ("Overall", 50),
    "OCRBench": ("Final Score", 50),
    "MTVQA_TEST": ("Average", 50),
    "MathVision": ("Overall/acc (exact matching)", 50),
    "MathVista_MINI": ("Overall/acc (exact matching)", 100 / 3),
    "VCR_EN_EASY_500": ("Exact_Match", 60),
}


def cases(table: dict[str, str]) -> list[object]:
    """Give class and name of every dataset; those with add-ons are marked."""
    return [
        pytest.param(
            class_name, name, marks=[pytest.mark.addons] if class_name in ADDONS else []
        )
        for class_name, names in table.items()
        for name in names.split()
    ]


def prepare_seed(
    sandbox: Sandbox, folder: Path, class_name: str, name: str
) -> tuple[PreparedDataset, list[tuple[object, str]], dict[str, float | None]]:
    """Prepare a fixture; give its answers and the verdict each must get."""
    rows = seed_rows(name)
    table = shared_file("seed_fixtures", "LMUData", f"{name}.tsv")
    prepared = prepare(describe(table, class_name), sandbox, folder)
    asked = {row.index for row in read_index(prepared)}
    rows = [row for row in rows if row["index"] in asked]
    answers: list[tuple[object, str]] = [(r["index"], r["prediction"]) for r in rows]
    return prepared, answers, {row["index"]: row["exact"] for row in rows}


@pytest.mark.parametrize(("class_name", "name"), cases(SEEDS))
def test_every_verdict_of_a_seed_fixture(
    sandbox_of: Callable[[str], Sandbox], tmp_path: Path, class_name: str, name: str
) -> None:
    sandbox = sandbox_of(class_name)
    prepared, answers, expected = prepare_seed(sandbox, tmp_path, class_name, name)
    found = score(sandbox, prepared, answers)
    assert values(found.verdicts) == expected
    assert found.metrics[found.main_metric] >= 0
    assert found.scoring == "published"
    assert bool(found.notes) == name.startswith("VCR_ZH")
    if name in MAIN:
        assert (found.main_metric, found.value) == pytest.approx(MAIN[name])


@pytest.mark.parametrize(("class_name", "name"), cases(SEEDS))
def test_one_answer_of_a_seed_fixture_scores(
    sandbox_of: Callable[[str], Sandbox], tmp_path: Path, class_name: str, name: str
) -> None:
    sandbox = sandbox_of(class_name)
    prepared, answers, expected = prepare_seed(sandbox, tmp_path, class_name, name)
    found = score(sandbox, prepared, answers[:1])
    (verdict,) = found.verdicts
    assert verdict.value == expected[verdict.index]
    assert 0 <= found.value <= found.scale


@pytest.mark.parametrize(("class_name", "name"), cases({**READ_BY_JUDGE, **JUDGED}))
def test_every_verdict_of_a_seed_fixture_with_a_judge(
    sandbox_of: Callable[[str], Sandbox],
    tmp_path: Path,
    open_judge: OpenJudge,
    server: ServerProcess,
    class_name: str,
    name: str,
) -> None:
    sandbox = sandbox_of(class_name)
    prepared, answers, matched = prepare_seed(sandbox, tmp_path, class_name, name)
    expected = {row["index"]: row["judge"] for row in seed_rows(name)}
    judge = open_judge(judge="good")
    # Lists as MathVista's answers are right only with its defect corrected; an answer
    # like "Affirmative." is read without a judge then.
    scoring: Scoring = "corrected"
    if class_name == "ImageYORNDataset":
        alone = score(sandbox, prepared, answers, scoring="corrected")
        # Rows without an image are not asked.
        assert values(alone.verdicts) == {index: expected[index] for index in matched}
        scoring = "published"
    found = score(sandbox, prepared, answers, judge, scoring)
    verdicts = values(found.verdicts)
    assert verdicts == {index: expected[index] for index in verdicts}
    asked = {v.index for v in found.verdicts if v.state == "judged"}
    assert {v.index for v in found.verdicts if v.exchanges} == asked
    assert not any(matched[index] for index in asked)
    assert found.best == found.value
    sent = len(server.requests())
    assert score(sandbox, prepared, answers, judge, scoring) == found
    assert len(server.requests()) == sent > 0


@pytest.mark.parametrize(("class_name", "name"), cases(JUDGED))
def test_a_dataset_that_needs_a_judge(
    sandbox_of: Callable[[str], Sandbox], tmp_path: Path, class_name: str, name: str
) -> None:
    sandbox = sandbox_of(class_name)
    prepared, answers, expected = prepare_seed(sandbox, tmp_path, class_name, name)
    assert set(expected.values()) == {None}
    assert all(row.reference for row in read_index(prepared))
    with pytest.raises(NeedsJudgeError, match=f"^{name} is scored by a judge only"):
        score(sandbox, prepared, answers)


@pytest.mark.parametrize(("class_name", "name"), cases(SECRET))
def test_a_dataset_whose_references_are_secret(
    sandbox: Sandbox, tmp_path: Path, class_name: str, name: str
) -> None:
    prepared, answers, expected = prepare_seed(sandbox, tmp_path, class_name, name)
    assert set(expected.values()) == {None}
    assert {row.reference for row in read_index(prepared)} == {None}
    with pytest.raises(VlmEvalError, match=f"^{name} has no reference answers, "):
        score(sandbox, prepared, answers)
