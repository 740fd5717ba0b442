"""Rows that a judge scores: of each family one, whose answer only a judge can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.records import PreparedDataset
from tests.support.sandbox_tables import describe, write_rows_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.sandbox_tables import Row

FAILURE = {"status": 500, "message": "out of memory"}
# A row of each family, with an answer that only a judge can read.
FAMILIES: dict[str, tuple[Row, str]] = {
    "ImageMCQDataset": (
        {"question": "Which?", "answer": "B", "A": "red", "B": "blue"},
        "pick number 2",
    ),
    "ImageYORNDataset": ({"question": "Is it?", "answer": "Yes"}, "Affirmative."),
    "MathVision": (
        {"question": "?", "answer": "3", "choices": "[]", "category": "algebra"},
        "it is 3",
    ),
    "MMVet": ({"question": "?", "answer": "red", "category": "rec"}, "red"),
    "LLaVABench": (
        {"question": "?", "category": "conv", "caption": "", "gpt4_ans": "A box."},
        "A box.",
    ),
    "MMLongBench": (
        {
            "question": "?",
            "answer": "3",
            "answer_format": "Int",
            "evidence_pages": "[1]",
            "evidence_sources": "['Chart']",
        },
        "There are 3",
    ),
}


def rows_only(
    folder: Path, class_name: str, rows: Sequence[Row], name: str | None = None
) -> PreparedDataset:
    """Give a dataset that has nothing but what scoring reads."""
    table = write_rows_file(folder, rows)
    return PreparedDataset(
        info=describe(table, class_name, name or class_name),
        folder=folder,
        fingerprint="",
        checksum="",
        modified=False,
        sample_count=len(rows),
    )


def one_row(class_name: str, folder: Path) -> tuple[PreparedDataset, str]:
    """Give a dataset of one row, and the answer to it."""
    row, answer = FAMILIES[class_name]
    return rows_only(folder, class_name, [{"index": 0, **row}]), answer


def choice_rows(count: int) -> list[Row]:
    """Give questions, B of which is right."""
    row, _ = FAMILIES["ImageMCQDataset"]
    return [{"index": n, **row, "question": f"Which <{n}>?"} for n in range(count)]
