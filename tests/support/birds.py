"""The data of the example in docs/own-scoring.md."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.support.documentation import ROOT, read
from tests.support.run_fixtures import image_bytes

PAGE = ROOT / "docs/own-scoring.md"


def write_birds(folder: Path) -> None:
    """Write the table that the page shows, and the images that it names."""
    rows = [
        [cell.strip() for cell in line.strip("| \n").split("|")]
        for line in read(PAGE).splitlines()
        if ".png |" in line or line.startswith("| question |")
    ]
    with (folder / "birds.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    for number, row in enumerate(rows[1:]):
        (folder / row[-1]).write_bytes(image_bytes(number))
