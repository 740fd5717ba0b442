"""Every verdict of the seed fixtures, in the families that can be scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.prepare import read_index
from tests.sandbox_tables import (
    describe,
    prepare,
    score,
    seed_rows,
    shared_file,
    values,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vlmeval.sandbox.process import Sandbox

SEEDS = {
    "ImageMCQDataset": """
        MMBench_DEV_EN MMBench_TEST_EN MMBench_DEV_CN MMBench_TEST_CN MMBench MMBench_CN
        MMBench_DEV_EN_V11 MMBench_TEST_EN_V11 MMBench_DEV_CN_V11 MMBench_TEST_CN_V11
        MMBench_V11 MMBench_CN_V11 SEEDBench_IMG SEEDBench2 SEEDBench2_Plus
        ScienceQA_VAL ScienceQA_TEST MMT-Bench_ALL_MI MMT-Bench_ALL MMT-Bench_VAL_MI
        MMT-Bench_VAL AesBench_VAL AesBench_TEST CCBench AI2D_TEST MMStar RealWorldQA
        BLINK""",
    "ImageYORNDataset": "MME HallusionBench POPE",
    "ImageVQADataset": """
        OCRVQA_TEST OCRVQA_TESTCORE TextVQA_VAL DocVQA_VAL InfoVQA_VAL ChartQA_TEST""",
    "MathVision": "MathVision MathVision_MINI",
}
SEED_CASES = [(c, name) for c, names in SEEDS.items() for name in names.split()]
MAIN = {
    "MMBench_DEV_EN": ("dev/Overall", 50),
    "MMT-Bench_ALL": ("ALL/Overall", 50),
    "MMStar": ("Overall", 50),
    "POPE": ("Overall/Overall", 50),
    "MME": ("Overall", 300 * 100 / 2800),
    "HallusionBench": ("Overall/average", 160 / 3),
    "ChartQA_TEST": ("Overall", 50),
    "MathVision": ("Overall/acc", 50),
}


@pytest.mark.parametrize(("class_name", "name"), SEED_CASES)
def test_every_verdict_of_a_seed_fixture(
    sandbox: Sandbox, tmp_path: Path, class_name: str, name: str
) -> None:
    rows = seed_rows(name)
    table = shared_file("seed_fixtures", "LMUData", f"{name}.tsv")
    prepared = prepare(describe(table, class_name), sandbox, tmp_path)
    asked = {row.index for row in read_index(prepared)}
    expected = {row["index"]: row["exact"] for row in rows if row["index"] in asked}
    answers = [(r["index"], r["prediction"]) for r in rows if r["index"] in asked]
    found = score(sandbox, prepared, answers)
    assert values(found.verdicts) == expected
    assert found.metrics[found.main_metric] >= 0
    if name in MAIN:
        assert (found.main_metric, found.value) == pytest.approx(MAIN[name])
