"""What models score that say the same to everything, on every dataset of the card."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.records import JudgeReply, PreparedDataset, Scoring
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from tests.sandbox_tables import FIXTURES, write_rows_file
from tests.server.judge import reply

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo, JudgeQuestion
    from pytest_vlmeval.sandbox.process import Sandbox

csv.field_size_limit(sys.maxsize)
Cells = Mapping[str, str]
# None copies the question.
ANSWERS: Mapping[str, str | None] = {
    "A": "A",
    "B": "B",
    "yes": "yes",
    "0": "0",
    "nothing": "",
    "the question": None,
}
SCORINGS: tuple[Scoring, ...] = ("published", "corrected")
JUDGED = {"LLaVABench", "MMBenchVideo", "MMLongBench", "MMVet"}


class Found(NamedTuple):
    """A score, and the sum of its verdicts of how many rows."""

    score: float
    right: float
    rows: int


def fixture_rows(info: DatasetInfo) -> list[Cells]:
    """Give the rows of a dataset's fixture that are asked, without their media."""
    folder = FIXTURES / "LMUData"
    if info.modality == "video":
        name = f"datasets--{info.repository.replace('/', '--')}"
        (folder,) = Path(FIXTURES, "hfcache", "hub", name, "snapshots").iterdir()
    with (folder / f"{info.name}.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    asked = [row for row in rows if row.get("image", info.modality == "video")]
    return [{k: v for k, v in row.items() if k != "image"} for row in asked]


def rows_alone(
    info: DatasetInfo, rows: Sequence[Cells], folder: Path
) -> PreparedDataset:
    """Give a dataset that has nothing but what scoring reads."""
    folder.mkdir(exist_ok=True)
    write_rows_file(folder, rows)
    return PreparedDataset(
        info=info,
        folder=folder,
        fingerprint="",
        checksum="",
        modified=False,
        sample_count=len(rows),
    )


def judge(questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
    """Judge as the test server does."""
    said = (reply(question.prompt, "good") for question in questions)
    return [JudgeReply(number=n, text=text) for n, text in enumerate(said, 1)]


def score_constant(
    sandbox: Sandbox,
    prepared: PreparedDataset,
    rows: Sequence[Cells],
    answer: str | None,
    scoring: Scoring,
) -> Found:
    """Score one answer to all rows."""
    said = [
        row.get("question", "Describe it.") if answer is None else answer
        for row in rows
    ]
    found = score_in_sandbox(
        sandbox,
        prepared,
        [(row["index"], [text]) for row, text in zip(rows, said, strict=True)],
        judge=judge if prepared.info.class_name in JUDGED else None,
        scoring=scoring,
    )
    values = [verdict.value for verdict in found.verdicts]
    right = sum(value for value in values if value is not None)
    return Found(round(found.value, 2), round(right, 3), len(values))
