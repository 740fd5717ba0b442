"""Which split of a prepared dataset each of its samples is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vlmeval.records import PreparedDataset


def read_splits(prepared: PreparedDataset) -> dict[str, str]:
    """Give the split of each sample; empty where the dataset has none."""
    from pyarrow import csv

    rows = csv.read_csv(
        prepared.folder / "rows.tsv",
        parse_options=csv.ParseOptions(delimiter="\t", newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            include_columns=["index", "split"],
            include_missing_columns=True,
            column_types={"index": "string", "split": "string"},
        ),
    ).to_pydict()
    pairs = zip(rows["index"], rows["split"], strict=True)
    return {index: split for index, split in pairs if split}
