"""A user's own table, read as it is written, with what it lacks for ms-vlmeval."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.tables import Table, slim_cell
from pytest_vlmeval.sandbox.own_files import read_cells
from pytest_vlmeval.sandbox.rows import frame_of, read_frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd


def is_own(info: dict[str, str]) -> bool:
    """Whether a dataset is a user's own table."""
    return info["rules"] != info["name"]


def take_own(path: Path, info: dict[str, str], stand_in: Callable[[str], str]) -> Table:
    """Read a user's own table row by row, every cell as its text.

    ms-vlmeval's way of reading makes 7 of '007' and nothing of 'None'. Rows without an
    index are numbered from 1.
    """
    columns: dict[str, list[str]] = {}
    count = 0
    try:
        rows = read_cells(path)
        columns = {name: [] for name in next(rows, [])}
        image = list(columns).index("image") if "image" in columns else -1
        for count, row in enumerate(rows, start=1):  # noqa: B007
            if image >= 0:
                row[image] = slim_cell(row[image], stand_in)
            for cells, cell in zip(columns.values(), row, strict=True):
                cells.append(cell)
    except (csv.Error, ValueError, EOFError, IndexError, OSError) as error:
        # Whoever described the table has read it before.
        raise VlmEvalError(
            f"{path} has changed while it was read: row {count + 1} cannot be used "
            f"({error}). Run the same command again."
        ) from None
    if "index" not in columns:
        numbers = [str(number) for number in range(1, count + 1)]
        columns = {"index": numbers, **columns}
    texts = {name: cells for name, cells in columns.items() if name != "image"}
    return Table(texts, _completed(frame_of(columns), info))


def read_rows(path: Path, info: dict[str, str]) -> pd.DataFrame:
    """Read the rows of a prepared dataset, those of a user's own as its texts."""
    rows = read_frame(path)
    return _completed(rows, info) if is_own(info) else rows


def _completed(rows: pd.DataFrame, info: dict[str, str]) -> pd.DataFrame:
    if info["modality"] == "text":
        # dataset/image_base.py:325 asks for pictures, of which a list may be empty.
        rows["image_path"] = "[]"
    if info["class_name"] == "ImageYORNDataset":
        # What was answered is compared with 'Yes' and 'No' (dataset/image_yorn.py:91).
        rows["answer"] = rows["answer"].str.strip().str.capitalize()
    return rows
