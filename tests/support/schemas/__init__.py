"""Tables in the schema of each class of ms-vlmeval, with answers and a judge's replies.

A module for each group of classes gives `SCHEMAS`; `registry` collects them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.support.sandbox_tables import Row, cell, draw

IMAGE = cell(draw(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A few rows as a class publishes them, answered right, wrong and unusably.

    `dataset` is a name of the catalog. `rows` have the columns that the class reads,
    all of them in the first; an image is put in where a row has none. `answers` are by
    the row's index, and `judge` replies with the text of the first pattern that is
    found in a prompt, or with "?". `expects` are metrics that were computed by hand,
    by the name that `flatten` gives them: with the judge if `needs_judge`, else
    without one. `files` are what the class reads beside the table, by their path.
    `model` is what ms-vlmeval is told of the judge, where it takes only some, and
    `judged_by` and `exact_by` are further arguments of `evaluate` with a judge and
    without one; an `unnamed` judge is of the class's own choice. `opened` says that it
    opens the images. The result is in the file that is `written`, by the end of its
    name, where it returns nothing.
    """

    class_name: str
    dataset: str
    rows: Sequence[Row]
    answers: Mapping[object, str]
    expects: Mapping[str, float]
    judge: Sequence[tuple[str, str]] = ()
    needs_judge: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)
    model: str = ""
    judged_by: Mapping[str, str] = field(default_factory=dict)
    exact_by: Mapping[str, str] = field(default_factory=dict)
    opened: bool = False
    unnamed: bool = False
    written: str = ""

    @property
    def table(self) -> list[Row]:
        """The rows, each with an image."""
        if any(name in row for row in self.rows for name in ("image", "image_path")):
            return list(self.rows)
        return [{**row, "image": IMAGE} for row in self.rows]

    def __str__(self) -> str:
        return f"{self.class_name}-{self.dataset}"


def several(
    references: Sequence[str], **columns: Sequence[object] | object
) -> list[Row]:
    """Give a row for each reference; a list has a cell for each, all else is in all."""
    return [
        {
            "index": number,
            "question": f"Question {number}?",
            "answer": reference,
            **{
                name: cells[number] if isinstance(cells, list) else cells
                for name, cells in columns.items()
            },
        }
        for number, reference in enumerate(references)
    ]


def by_number(*answers: str) -> dict[object, str]:
    """Answer the rows with the indexes 0, 1 ..."""
    return dict(enumerate(answers))
