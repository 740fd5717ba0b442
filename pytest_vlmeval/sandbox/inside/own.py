"""A user's own table, read as it is written, with what it lacks for ms-vlmeval."""

from __future__ import annotations

import csv
import hashlib
import os
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.expressions import evaluate
from pytest_vlmeval.sandbox.inside.pictures import (
    BASE64_URL,
    SHORTEST_PICTURE,
    STAND_IN,
)
from pytest_vlmeval.sandbox.inside.tables import Table, slim_cell
from pytest_vlmeval.sandbox.own_files import (
    MOST_IMAGE_BYTES,
    open_regular,
    read_cells,
)
from pytest_vlmeval.sandbox.rows import frame_of, read_frame, read_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
        lines = read_cells(path)
        columns = {name: [] for name in next(lines, [])}
        image = list(columns).index("image") if "image" in columns else -1
        for count, row in enumerate(lines, start=1):  # noqa: B007
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
    images = columns.pop("image", None)
    rows = _completed(frame_of(columns), info)
    if images is not None:
        rows["image_path"] = _as_paths(columns, images)
    return Table(columns, rows)


def _as_paths(columns: dict[str, list[str]], images: list[str]) -> list[str]:
    """Give what stands for each row's images as if it were their paths.

    Of rows with a column `image` ms-vlmeval leaves out those without one (dataset/
    image_base.py:153); a list of paths may be empty.
    """
    by_index = dict(zip(columns["index"], images, strict=True))
    paths = columns.get("image_path", [""] * len(images))
    return [
        str(_images_of(by_index.get(cell, cell) if _is_short(cell) else cell))
        if cell
        else path or "[]"
        for cell, path in zip(images, paths, strict=True)
    ]


def _is_short(cell: str) -> bool:
    return len(cell) < SHORTEST_PICTURE


def _images_of(cell: str) -> list[str]:
    cells: Any = [cell]
    if cell.startswith("[") and cell.endswith("]"):
        try:
            cells = evaluate(cell)
        except Exception:
            cells = [cell]  # it is shown, and then said that it is none
    return [
        text if text.startswith(STAND_IN) else BASE64_URL + text
        for text in map(str, cells)
    ]


def digest_files(files: Sequence[str]) -> dict[str, Any]:
    """Give of each file a digest of what it holds, or in its place what is wrong."""
    found: list[tuple[str, str]] = []
    for path in files:
        try:
            with open_regular(Path(path)) as file:
                if os.fstat(file.fileno()).st_size > MOST_IMAGE_BYTES:
                    found.append(("", f"it has more than {MOST_IMAGE_BYTES:,} bytes"))
                    continue
                digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
                found.append((digest, ""))
        except OSError as error:
            found.append(("", str(error.strerror)))
    return {"digests": found}


def read_rows(path: Path, info: dict[str, str]) -> pd.DataFrame:
    """Read the rows of a prepared dataset, those of a user's own as its texts."""
    rows = read_frame(path)
    return _completed(rows, info) if is_own(info) else rows


def _completed(rows: pd.DataFrame, info: dict[str, str]) -> pd.DataFrame:
    if info["modality"] == "text":
        # dataset/image_base.py:325 asks for pictures, of which a list may be empty.
        rows["image_path"] = "[]"
    elif "image_path" in rows:
        rows["image_path"] = rows["image_path"].fillna("[]")
    if info["class_name"] == "ImageMCQDataset":
        # The names of options are upper case.
        rows["answer"] = rows["answer"].str.strip().str.upper()
    if info["class_name"] == "ImageYORNDataset":
        # What was answered is compared with 'Yes' and 'No' (dataset/image_yorn.py:91).
        rows["answer"] = rows["answer"].str.strip().str.capitalize()
    return rows


def find_missing(path: Path, rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Find the options and references whose text pandas reads as no value.

    These are 'None', 'NA', 'null', 'nan', 'N/A' and a few more: by the index of their
    row in `rows`, as `read_rows` gave them, and by their column.
    """
    names = [*ascii_uppercase, "answer"]
    found: dict[str, dict[str, str]] = {}
    for name, texts in read_texts(path, names).items():
        if not rows[name].isna().any():
            continue
        for index, cell, text in zip(rows["index"], rows[name], texts, strict=True):
            if cell != cell and text.strip():  # not a number: missing
                found.setdefault(str(index), {})[name] = text
    return found


def keep_missing(
    rows: pd.DataFrame, missing: Mapping[str, Mapping[str, str]]
) -> pd.DataFrame:
    """Give the rows with the texts that were read as no value."""
    rows = rows.copy()
    for name in dict.fromkeys(name for cells in missing.values() for name in cells):
        rows[name] = [
            missing.get(str(index), {}).get(name, cell)
            for index, cell in zip(rows["index"], rows[name], strict=True)
        ]
    return rows
