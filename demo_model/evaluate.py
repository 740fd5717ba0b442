"""The accuracy on the held-out tables, asked through the ONNX files.

python -m demo_model.evaluate
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from demo_model.questions import CATEGORIES, benchmark_prompt
from demo_model.tables import TABLES, held_out_samples, png_bytes
from pytest_vlmeval.models.demo import FOLDER, DemoModel

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vlmeval.models.demo import Part

MAX_TOKENS = 16


def report_accuracy(folder: Path = FOLDER) -> str:
    """Ask every held-out question; give one line for each table."""
    model = DemoModel(folder=folder)
    lines = []
    for table in TABLES:
        asked: Counter[str] = Counter()
        right: Counter[str] = Counter()
        for sample in held_out_samples(table):
            image = png_bytes(sample.image)
            parts: list[Part] = [("image", image), ("text", benchmark_prompt(sample))]
            asked[sample.category] += 1
            right[sample.category] += (
                model.generate(parts, MAX_TOKENS).text == sample.answer
            )
        by_category = ", ".join(
            f"{category} {right[category]}/{asked[category]}" for category in CATEGORIES
        )
        total = f"{right.total()}/{asked.total()}"
        lines.append(f"{table}: {total} right ({by_category})")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report_accuracy())
