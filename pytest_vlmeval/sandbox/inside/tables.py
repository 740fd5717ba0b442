"""Reads tables: a dataset's, known by its checksum, and a user's own."""

from __future__ import annotations

import csv
import hashlib
import io
from contextlib import suppress
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.expressions import evaluate
from pytest_vlmeval.sandbox.inside.job import current_job
from pytest_vlmeval.sandbox.inside.media import BASE64_URL, STAND_IN
from pytest_vlmeval.sandbox.own_files import (
    MOST_IMAGE_BYTES,
    SHORTEST_IMAGE,
    read_regular,
)
from pytest_vlmeval.sandbox.rows import (
    HALVES,
    NO_CHARACTER,
    frame_of,
    read_frame,
    read_texts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_vlmeval.sandbox.inside.job import Job, Progress

# A table is read in pieces of about this size, the first one as if rows were large.
PIECE_BYTES = 16 * 2**20
FIRST_ROWS = 8
MOST_ROWS = 2_000


class Table(NamedTuple):
    """A dataset's table without its images: its cells, and how pandas reads them.

    `texts` are the cells as they are written, without the column `image`; in that of
    `frame` each image is what stands for it. If `as_written`, questions are whole
    prompts, with places for images.
    """

    texts: Mapping[str, Sequence[str]]
    frame: pd.DataFrame
    as_written: bool = False


def take_table(
    source: Path, stand_in: Callable[[str], str], on_progress: Progress
) -> Table:
    """Read a table piece by piece, each image replaced by what `stand_in` gives for it.

    `on_progress` gets bytes. Raises VlmEvalError for what is not a table.
    """
    texts: dict[str, list[str]] = {}
    for piece in _pieces(source, on_progress):
        if "image" in piece:
            piece["image"] = [slim_cell(cell, stand_in) for cell in piece["image"]]
        for name in piece:
            texts.setdefault(str(name), []).extend(piece[name])
    frame = _as_pandas_reads(texts) if texts else pd.read_csv(source, sep="\t")
    own = texts or {str(name): [] for name in frame}
    return Table({name: own[name] for name in own if name != "image"}, frame)


def table_of(data: pd.DataFrame) -> Table:
    """Return the rows that a class made as if they had been read from a table."""
    texts = {
        str(name): [
            "" if missing else str(cell)
            for cell, missing in zip(data[name], data[name].isna(), strict=True)
        ]
        for name in data
        if str(name) != "image"
    }
    return Table(texts, _as_pandas_reads(texts))


def _as_pandas_reads(texts: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return the table that pandas makes of cells, as ms-vlmeval has it.

    pandas takes numbers, missing cells and the types of columns from texts in a file
    alone. Here it is in memory and has quotes around each cell, in which any character
    is a part of it; a lone carriage return without them would end the row.
    """
    file = io.StringIO()
    writer = csv.writer(file, "excel-tab", quoting=csv.QUOTE_ALL)
    writer.writerow(texts)
    writer.writerows(zip(*texts.values(), strict=True))
    # No text that UTF-8 has holds half a character, and pandas refuses it.
    plain = HALVES.sub(NO_CHARACTER, file.getvalue())
    return pd.read_csv(io.StringIO(plain), sep="\t")


def load_slim(path: Path, job: Job) -> pd.DataFrame:
    """Read a table that a class brought by itself, its images stored and stood for.

    As for the dataset's own table, no more of them than a piece is held.
    """
    assert job.images is not None
    return take_table(path, job.images.stand_in, job.on_progress).frame


def stand_in_frame(data: pd.DataFrame, job: Job) -> pd.DataFrame:
    """Replace the images of a table in memory by what stands for them."""
    if job.images is not None:
        stand_in = job.images.stand_in
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
        raise VlmEvalError(
            f"{source} is not a table in ms-vlmeval's TSV layout: {error}. It needs "
            "tabs between the columns, UTF-8, and a first line with their names."
        ) from error


def slim_cell(cell: str, stand_in: Callable[[str], str]) -> str:
    """Replace the images of a cell, which holds one or a list of them."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return stand_in(cell)
    try:
        images = evaluate(cell)
    except Exception:
        return cell  # whoever reads it says what is wrong
    if not isinstance(images, list) or not images:
        return cell
    return str([stand_in(each) if isinstance(each, str) else each for each in images])


class _AnyChecksum(str):
    """A checksum that a class takes for the published one, whichever that is."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def fix_checksums(module: Any) -> None:
    """Answer smp/file.py:372: a table of another checksum is downloaded over."""
    upstream = module.md5

    def md5(path: str) -> str:
        job = current_job()
        if str(path) in job.tables:
            return _AnyChecksum()  # checked before it came here
        if not Path(path).exists():  # dataset/worldsense.py:150
            return ""
        checksum = str(upstream(path))
        shelf = job.shelf
        if shelf is None or not str(path).endswith(".tsv"):
            return checksum
        shelf.checksums.setdefault(str(path), checksum)
        return _AnyChecksum(checksum) if shelf.any_checksum else checksum

    module.md5 = md5


def is_own(info: Mapping[str, Any]) -> bool:
    """Return whether a dataset is a user's own table."""
    return bool(info["rules"] != info["name"])


def take_own(
    path: Path, info: Mapping[str, Any], stand_in: Callable[[str], str]
) -> Table:
    """Read a user's own table row by row, every cell as its text.

    ms-vlmeval's way of reading makes 7 of '007' and nothing of 'None'. Rows without an
    index are numbered from 1.
    """
    # Of the package's records, which no other table needs here.
    from pytest_vlmeval.sandbox.own_columns import OwnTable

    columns: dict[str, list[str]] = {}
    count = 0
    try:
        shards = map(Path, info.get("shards", ()))
        table = OwnTable([path, *shards], info.get("columns", {}))
        for row in table.rows():
            if row.fault:
                raise ValueError(row.fault)
            if image := row.cells.get("image"):
                row.cells["image"] = slim_cell(image, stand_in)
            for name, cell in row.cells.items():
                # Only some rows may have as many options.
                columns.setdefault(name, [""] * count).append(cell)
            count += 1
            for cells in columns.values():
                if len(cells) < count:
                    cells.append("")
    except (VlmEvalError, ValueError, OSError) as error:
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
    return Table(columns, rows, as_written=table.as_written)


def _as_paths(columns: dict[str, list[str]], images: list[str]) -> list[str]:
    """Return what stands for each row's images as if it were their paths.

    Of rows with a column `image` ms-vlmeval leaves out those without one (dataset/
    image_base.py:153); a list of paths may be empty.
    """
    by_index = dict(zip(columns["index"], images, strict=True))
    paths = columns.get("image_path", [""] * len(images))
    return [
        str(
            _images_of(by_index.get(cell, cell) if len(cell) < SHORTEST_IMAGE else cell)
        )
        if cell
        else path or "[]"
        for cell, path in zip(images, paths, strict=True)
    ]


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
    """Return a digest of each file's content, or in its place what is wrong."""
    found: list[tuple[str, str]] = []
    for path in files:
        try:
            data = read_regular(Path(path), MOST_IMAGE_BYTES)
            found.append((hashlib.sha256(data).hexdigest()[:32], ""))
        except OSError as error:
            found.append(("", str(error.strerror)))
    return {"digests": found}


def read_rows(path: Path, info: dict[str, str]) -> pd.DataFrame:
    """Read the rows of a prepared dataset, those of a user's own as its texts."""
    rows = read_frame(path)
    return _completed(rows, info) if is_own(info) else rows


def _completed(rows: pd.DataFrame, info: Mapping[str, Any]) -> pd.DataFrame:
    if info["modality"] == "text":
        # dataset/image_base.py:325 asks for images, of which a list may be empty.
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
    """Return the rows with the texts that were read as no value."""
    rows = rows.copy()
    for name in dict.fromkeys(name for cells in missing.values() for name in cells):
        rows[name] = [
            missing.get(str(index), {}).get(name, cell)
            for index, cell in zip(rows["index"], rows[name], strict=True)
        ]
    return rows
