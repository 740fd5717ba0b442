"""Tables of one's own that come from Python: pandas' DataFrames, as files."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_values import NOT_IN_NAMES, can_be_name
from pytest_vlmeval.sandbox.rows import HALVES, NO_CHARACTER

if TYPE_CHECKING:
    import pandas as pd


def write_frame(name: str, frame: pd.DataFrame, folder: Path, here: Path) -> Path:
    """Write a DataFrame as the table of a dataset; return the file.

    It has the columns of a table of one's own (README). Cells of `image` may be bytes,
    Pillow's pictures, base64, or lists of these; paths in `image_path` count from
    `here`. The file lies below `folder` by its content, so that equal data are the
    same dataset. Raises `VlmEvalError` for a name or a cell that cannot be used.
    """
    if not can_be_name(name):
        raise VlmEvalError(
            f"{name!r} cannot be the name of a dataset: give one without "
            f"{NOT_IN_NAMES}."
        )
    table = frame.copy()
    if "image" in table:
        table["image"] = [
            _picture(cell, f"{name}, row {row}")
            for row, cell in enumerate(table["image"], start=1)
        ]
    if "image_path" in table:
        table["image_path"] = [_paths(cell, here) for cell in table["image_path"]]
    text = table.to_csv(
        sep="\t", index=False, lineterminator="\n", quoting=csv.QUOTE_ALL
    )
    data = HALVES.sub(NO_CHARACTER, text).encode()
    path = folder / hashlib.sha256(data).hexdigest()[:16] / f"{name}.tsv"
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise VlmEvalError(
                f"{path} cannot be written ({error.strerror}): the table of {name} is "
                "kept there. Give another folder as work_dir."
            ) from None
    return path


def _picture(cell: Any, where: str) -> str:
    if isinstance(cell, list | tuple):
        return repr([_picture(each, where) for each in cell])
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bytes):
        return base64.b64encode(cell).decode("ascii")
    if hasattr(cell, "save"):
        out = io.BytesIO()
        cell.save(out, "PNG")
        return base64.b64encode(out.getvalue()).decode("ascii")
    raise VlmEvalError(
        f"{where}: its image is of the type {type(cell).__name__}. It takes bytes, a "
        "picture of Pillow, base64, or a list of these."
    )


def _paths(cell: Any, here: Path) -> str:
    if isinstance(cell, list | tuple):
        return repr([str(here / str(each)) for each in cell])
    text = str(cell)
    return text if text.startswith("[") else str(here / text)
