"""A user's own table, read as it is written, with what it lacks for ms-vlmeval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from pytest_vlmeval.sandbox.inside.tables import read_table

if TYPE_CHECKING:
    from pathlib import Path


def read_rows(path: Path, info: dict[str, str]) -> pd.DataFrame:
    """Read a dataset's table, a published one as ms-vlmeval does.

    In a user's own every cell keeps its text, of which ms-vlmeval's way of reading
    makes 7 of '007' and nothing of 'None'; rows without an index are numbered from 1.
    """
    if info["rules"] == info["name"]:
        return read_table(path)
    rows = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, na_values=[""])
    if "index" not in rows:
        rows.insert(0, "index", [str(number) for number in range(1, len(rows) + 1)])
    if info["modality"] == "text":
        # dataset/image_base.py:325 asks for pictures, of which a list may be empty.
        rows["image_path"] = "[]"
    if info["class_name"] == "ImageYORNDataset":
        # What was answered is compared with 'Yes' and 'No' (dataset/image_yorn.py:91).
        rows["answer"] = rows["answer"].str.strip().str.capitalize()
    return rows
