"""Classes of vlmeval.dataset.image_mcq."""

from __future__ import annotations

from tests.support.schemas import Schema, by_number, several

OPTIONS = {"A": "red", "B": "blue", "C": "green", "D": "grey"}

SCHEMAS = (
    Schema(
        class_name="MMMUProDataset",
        dataset="MMMU_Pro_10c",
        rows=several(
            ["A", "B", "C", "D"],
            **OPTIONS,
            category=["Art", "Art", "Math", "Math"],
            split="test",
        ),
        answers=by_number("A", "C", "The answer is C.", "I cannot say"),
        judge=[("cannot say", "D")],
        expects={"test/Overall": 0.5},
    ),
)
