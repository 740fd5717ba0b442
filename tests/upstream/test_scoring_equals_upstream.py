"""Our scores are ms-vlmeval's: the same answers, scored by it without containment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from tests.support.sandbox_tables import (
    describe,
    prepare,
    score,
    shared_file,
    values,
    write_table,
)
from tests.support.scored_upstream import score_upstream
from tests.support.upstream_tables import CASES, MATH_ANSWERS, answer_all, math_rows

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.sandbox_tables import Row

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", CASES)
def test_every_metric_is_the_same(
    sandbox: Sandbox,
    sandbox_environment: SandboxEnvironment,
    tmp_path: Path,
    name: str,
) -> None:
    class_name, rows, styles = CASES[name]
    answers = answer_all(rows, styles)
    info = describe(write_table(tmp_path / f"{name}.tsv", rows), class_name)
    ours = score(sandbox, prepare(info, sandbox, tmp_path), answers)
    expected, _ = score_upstream(sandbox_environment, info, answers, tmp_path)
    if class_name == "MathVista":
        expected[ours.main_metric] = expected.pop("Overall/acc")
    assert {key: ours.metrics[key] for key in expected} == pytest.approx(expected)
    # Only the sum that MME is ranked by is ours.
    assert set(ours.metrics) - set(expected) <= {"Overall"}
    assert 0 < ours.value < 100


def compare_math(
    sandbox: Sandbox,
    environment: SandboxEnvironment,
    info: DatasetInfo,
    answers: Sequence[tuple[object, str]],
    folder: Path,
) -> None:
    """Compare MathVision's metrics and its verdict on every row."""
    ours = score(sandbox, prepare(info, sandbox, folder), answers)
    expected, verdicts = score_upstream(environment, info, answers, folder)
    texts = {str(index): text for index, text in answers}
    found = values(ours.verdicts)
    different = {
        index: (texts[index], found[index], value)
        for index, value in verdicts.items()
        if found[index] != value
    }
    assert different == {}
    expected[ours.main_metric] = expected.pop("Overall/acc")
    assert ours.main_metric == "Overall/acc (exact matching)"
    assert ours.metrics == pytest.approx(expected)
    assert len(set(verdicts.values())) == 2


def test_every_verdict_of_math_vision_is_the_same(
    sandbox: Sandbox, sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    rows = math_rows()
    filled = [
        (row["index"], style.replace("TEXT", str(row["answer"])))
        for row, style in zip(rows, MATH_ANSWERS, strict=True)
    ]
    table = write_table(tmp_path / "MathVision.tsv", rows)
    info = describe(table, "MathVision")
    compare_math(sandbox, sandbox_environment, info, filled, tmp_path)


def test_every_verdict_on_real_questions_is_the_same(
    sandbox: Sandbox, sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    table = shared_file("LMUData", "MathVision_MINI.tsv")
    info = describe(table, "MathVision")
    data = pd.read_csv(table, sep="\t").head(40)
    rows: list[Row] = [
        {str(name): value for name, value in row.items()} for _, row in data.iterrows()
    ]
    answers = answer_all(rows, MATH_ANSWERS)
    compare_math(sandbox, sandbox_environment, info, answers, tmp_path)
