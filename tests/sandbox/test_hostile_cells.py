"""Hostile cells in a dataset's file, prepared and scored: refused or taken as text."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from pytest_vlmeval.sandbox.process import SandboxFault
from tests.sandbox.test_hostile_answers import catalog as catalog
from tests.sandbox.test_hostile_answers import marker as marker
from tests.sandbox.test_hostile_answers import needs_seeds
from tests.support.hostile import corpus
from tests.support.hostile_scoring import Cells, Fair, replies_of
from tests.support.sandbox_tables import FIXTURES, describe, prepare, write_table

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.sandbox.process import Sandbox

pytestmark = [pytest.mark.slow, needs_seeds]
# One of each class that prepares images, and of each way to score in a class.
FAMILIES = [
    *("MMBench_DEV_EN", "CCBench", "MMStar", "MMT-Bench_VAL", "MMMU_DEV_VAL", "MME"),
    *("HallusionBench", "POPE", "OCRVQA_TEST", "TextVQA_VAL", "DocVQA_VAL"),
    *("ChartQA_TEST", "OCRBench", "MTVQA_TEST", "MathVista_MINI", "MathVision_MINI"),
    *("LLaVABench", "MMVet"),
    pytest.param("COCO_VAL", marks=pytest.mark.addons),
    pytest.param("VCR_EN_EASY_100", marks=pytest.mark.addons),
    pytest.param("MMLongBench_DOC", marks=pytest.mark.addons),
]
# Of the corpus each third text, so that every kind is there and in several columns.
EACH = 3

Row = dict[str, str]


def halve(rows: Sequence[Row], attempt: Callable[[Sequence[Row]], None]) -> list[str]:
    """Try all rows together, then by halves; give what is said of those that fail."""
    try:
        attempt(rows)
    except (VlmEvalError, SandboxFault) as error:
        if len(rows) == 1:
            return [str(error)]
        middle = len(rows) // 2
        return halve(rows[:middle], attempt) + halve(rows[middle:], attempt)
    return []


@pytest.mark.parametrize("name", FAMILIES)
def test_hostile_cells_of_a_dataset(
    sandbox_of: Callable[[str], Sandbox],
    catalog: dict[str, DatasetInfo],
    tmp_path: Path,
    marker: Path,
    name: str,
) -> None:
    with (FIXTURES / "LMUData" / f"{name}.tsv").open(
        encoding="utf-8", newline=""
    ) as file:
        rows: list[Row] = list(csv.DictReader(file, delimiter="\t"))
    texts = [it for it in corpus(marker, long_bytes=9) if len(it.text) < 1_000][::EACH]
    # As a file of one's own: the published one has another checksum.
    info = describe(tmp_path / f"{name}.tsv", catalog[name].class_name)
    hostile = Cells.of(Fair(info, rows, {}, {}), texts).copies
    sandbox = sandbox_of(info.class_name)
    scored: set[str] = set()

    def attempt(copies: Sequence[Row]) -> None:
        write_table(tmp_path / f"{name}.tsv", [*rows, *copies])
        prepared = prepare(info, sandbox, tmp_path)
        samples = read_samples(prepared)
        # A row that cannot be asked says so by its number; the others are there.
        assert all(it.error is None or it.error.startswith("row ") for it in samples)
        asked = [it.index for it in samples if not it.error]
        answers = [(index, "A") for index in asked]
        score_in_sandbox(sandbox, prepared, answers, judge=replies_of(["8 8"]))
        scored.update(asked)

    refused = halve(hostile, attempt)
    for said in refused:
        # A reason, and neither a dead process nor one that took too long.
        assert not said.startswith((f"Preparing {name} ", f"Scoring {name} ")), said
    # Many cells are texts like any other; images and lists make their row useless.
    assert len(scored & {row["index"] for row in hostile}) > len(hostile) / 4, refused[
        :3
    ]
    assert not marker.exists()
