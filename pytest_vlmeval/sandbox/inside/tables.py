"""Reading a dataset's table without ever holding its pictures."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.expressions import evaluate
from pytest_vlmeval.sandbox.rows import HALVES, NO_CHARACTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

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


class Table(NamedTuple):
    """A dataset's table without its images: its cells, and how pandas reads them.

    `texts` are the cells as they are written, without the column `image`; in that of
    `frame` each image is what stands for it.
    """

    texts: Mapping[str, Sequence[str]]
    frame: pd.DataFrame


def take_table(
    source: Path, stand_in: Callable[[str], str], on_progress: Progress
) -> Table:
    """Read a table piece by piece, each image replaced by what `stand_in` gives for it.

    What is left is small. pandas reads it again as a whole, since it takes the types
    of columns from all of their cells. `on_progress` gets bytes. Raises VlmEvalError
    for what is not a table.
    """
    slim = io.StringIO()
    texts: dict[str, list[str]] = {}
    done = 0
    for piece in _pieces(source, on_progress):
        if "image" in piece:
            piece["image"] = [slim_cell(cell, stand_in) for cell in piece["image"]]
        for name in piece:
            texts.setdefault(str(name), []).extend(piece[name])
        _write(piece, slim, header=not done)
        done += len(piece)
    if done:
        slim.seek(0)
        frame = pd.read_csv(slim, sep="\t")
    else:
        frame = read_table(source)
        texts = {str(name): [] for name in frame}
    texts.pop("image", None)
    return Table(texts, frame)


def table_of(data: pd.DataFrame) -> Table:
    """Give the rows that a class made as if they had been read from a table."""
    slim = io.StringIO()
    own = [name for name in data if str(name) != "image"]
    _write(data[own], slim, header=True)
    # No text that UTF-8 has holds half a character, and pandas refuses it.
    plain = HALVES.sub(NO_CHARACTER, slim.getvalue())
    written = pd.read_csv(io.StringIO(plain), sep="\t", dtype=str, na_filter=False)
    texts = {str(name): list(written[name]) for name in written}
    return Table(texts, pd.read_csv(io.StringIO(plain), sep="\t"))


def load_slim(path: Path, job: Job) -> pd.DataFrame:
    """Read a table that a class brought by itself, its pictures stored and stood for.

    As for the dataset's own table, no more of them than a piece is held.
    """
    assert job.pictures is not None
    return take_table(path, job.pictures.stand_in, job.on_progress).frame


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


def _write(piece: pd.DataFrame, out: io.StringIO, *, header: bool) -> None:
    # In quotes a cell may hold any character; a lone carriage return without them
    # ends the row.
    piece.to_csv(out, sep="\t", index=False, header=header, quoting=csv.QUOTE_ALL)


def slim_cell(cell: str, stand_in: Callable[[str], str]) -> str:
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
