"""Reading a dataset's table without ever holding its pictures."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.expressions import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vlmeval.sandbox.inside.job import Job, Progress

# A table is read in pieces of about this size, the first one as if rows were large.
PIECE_BYTES = 16 * 2**20
FIRST_ROWS = 8
MOST_ROWS = 2_000


def read_table(path: Path) -> pd.DataFrame:
    """Read a TSV as ms-vlmeval does; raises VlmEvalError when it is not one."""
    try:
        return pd.read_csv(path, sep="\t")
    except ValueError as error:
        raise _no_table(path, error) from error


def split_table(
    source: Path,
    rows: Path,
    slim: Path,
    stand_in: Callable[[str], str],
    on_progress: Progress,
) -> None:
    """Copy a table twice: to `rows` without its column `image`, and to `slim`.

    In `slim` each picture is what `stand_in` gives for its base64 text. Values stay as
    they are written, so that pandas reads the same from the copies. `on_progress` gets
    bytes. Raises VlmEvalError for what is not a table.
    """
    done = 0
    for piece in _pieces(source, on_progress):
        if "image" in piece:
            piece["image"] = [_slim(cell, stand_in) for cell in piece["image"]]
        _append(piece.drop(columns="image", errors="ignore"), rows, done)
        _append(piece, slim, done)
        done += len(piece)
    if not done:
        for copy in (rows, slim):
            read_table(source).to_csv(copy, sep="\t", index=False)


def load_slim(path: Path, job: Job) -> pd.DataFrame:
    """Read a table that a class brought by itself, its pictures stored and stood for.

    As for the dataset's own table, no more of them than a piece is held.
    """
    assert job.pictures is not None
    slim = job.folder / f".{path.name}.slim"
    split_table(path, Path(os.devnull), slim, job.pictures.stand_in, job.on_progress)
    try:
        return read_table(slim)
    finally:
        slim.unlink()


def stand_in_frame(data: pd.DataFrame, job: Job) -> pd.DataFrame:
    """Replace the pictures of a table in memory by what stands for them."""
    if job.pictures is not None:
        stand_in = job.pictures.stand_in
        data["image"] = [
            [stand_in(each) for each in cell]
            if isinstance(cell, list)
            else stand_in(str(cell))
            for cell in data["image"]
        ]
    return data


def _pieces(source: Path, on_progress: Progress) -> Iterator[pd.DataFrame]:
    """Read a table bit by bit, every value as the text it is."""
    size, done, count = source.stat().st_size, 0, FIRST_ROWS
    try:
        with (
            source.open("rb") as file,
            pd.read_csv(
                file, sep="\t", dtype=str, na_filter=False, iterator=True
            ) as reader,
            suppress(StopIteration),
        ):
            while True:
                piece = reader.get_chunk(count)
                yield piece
                done += len(piece)
                on_progress(file.tell(), size)
                count = PIECE_BYTES * done // max(file.tell(), 1)
                count = min(max(count, 1), MOST_ROWS)
    except ValueError as error:
        raise _no_table(source, error) from error


def _append(piece: pd.DataFrame, path: Path, done: int) -> None:
    piece.to_csv(
        path,
        sep="\t",
        index=False,
        encoding="utf-8",
        mode="a" if done else "w",
        header=not done,
    )


def _slim(cell: str, stand_in: Callable[[str], str]) -> str:
    """Replace the pictures of a cell, which holds one or a list of them."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return stand_in(cell)
    try:
        pictures = evaluate(cell)
    except Exception:
        return cell  # whoever reads it says what is wrong
    if not isinstance(pictures, list) or not pictures:
        return cell
    return str([stand_in(each) if isinstance(each, str) else each for each in pictures])


def _no_table(path: Path, error: ValueError) -> VlmEvalError:
    return VlmEvalError(
        f"{path} is not a table in ms-vlmeval's TSV layout: {error}. It needs "
        "tabs between the columns, UTF-8, and a first line with their names."
    )
