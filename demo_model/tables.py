"""The three tables of the demo, in ms-vlmeval's layout, as they ship in the package."""

from __future__ import annotations

import base64
import csv
from io import BytesIO
from random import Random
from typing import TYPE_CHECKING

from demo_model.questions import CATEGORIES, Kind, Sample, make_sample

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

TABLES: dict[str, Kind] = {
    "DemoChoice": "choice",
    "DemoYesNo": "yes_no",
    "DemoOpen": "open",
}
ROWS = 40  # in each table
LETTERS = "ABCD"


def held_out_samples(table: str) -> list[Sample]:
    """Draw a table's samples, from a seed that no training uses; answers balanced."""
    random = Random(f"held out {table}")
    samples: list[Sample] = []
    uses: dict[tuple[str, str], int] = {}
    # Every answer of a category comes as often as the others do, so that a model
    # that only guesses the frequent one is not rewarded.
    while len(samples) < ROWS:
        category = CATEGORIES[len(samples) % len(CATEGORIES)]
        drawn = [make_sample(random, TABLES[table], category) for _ in range(20)]
        sample = min(drawn, key=lambda one: uses.get((category, one.answer), 0))
        uses[category, sample.answer] = uses.get((category, sample.answer), 0) + 1
        samples.append(sample)
    return samples


def table_rows(table: str) -> list[dict[str, str]]:
    """Give a table's rows; the image is the base64 of a PNG."""
    rows = []
    for index, sample in enumerate(held_out_samples(table), start=1):
        row = {"index": str(index), "question": sample.question}
        if sample.kind == "choice":
            options = [*sample.options, ""][: len(LETTERS)]
            row |= dict(zip(LETTERS, options, strict=True))
        row |= {"answer": sample.answer, "category": sample.category}
        row["image"] = base64.b64encode(png_bytes(sample.image)).decode()
        rows.append(row)
    return rows


def write_tables(folder: Path) -> None:
    """Write the three tables, tab separated."""
    for table in TABLES:
        rows = table_rows(table)
        path = folder / f"{table}.tsv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(
                file, list(rows[0]), delimiter="\t", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(rows)


def png_bytes(image: Image.Image) -> bytes:
    """Compress an image as PNG."""
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
