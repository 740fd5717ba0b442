"""A prepared dataset on disk, `rows.parquet` and `samples.parquet`.

The sandbox writes both files and both sides read them; nothing else knows their layout.

Of each column of a dataset's table, without its images, one field of `rows.parquet`
holds the cells as they are written. Where pandas reads something else than these texts,
as numbers and missing cells, another field holds that, so that no table has to be read
as text again. `samples.parquet` has a row for each sample, with its prompt as JSON.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

FILE = "rows.parquet"
SAMPLES = "samples.parquet"
COLUMNS = ("index", "category", "group", "reference", "error", "prompt")
# Rows that are written, or made Python objects, at once.
AT_ONCE = 1_000
# In the file's metadata, a record of each column as JSON.
KEY = b"pytest_vlmeval.rows"
# Half a character is no text: what stands for it is what stands for it in answers.
HALVES = re.compile("[\ud800-\udfff]")
NO_CHARACTER = "\ufffd"


class Column(NamedTuple):
    """A column's name, the fields of its texts and of what pandas reads, and as what.

    `kind` is "text" where a cell is its text and missing if that is empty, "str" for
    texts and null for missing cells, "array" for numbers, "json" for mixed values.
    """

    name: str
    texts: str
    values: str
    kind: str


def write_rows(
    path: Path, texts: Mapping[str, Sequence[str]], read: pd.DataFrame | None = None
) -> None:
    """Write the cells of a table, with what pandas `read` where that is not the text.

    Without `read` a cell is its text, and a missing one where that is empty.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields: dict[str, pa.Array] = {}
    columns = []
    for name, cells in texts.items():
        field = values = _unused(name, fields)
        fields[field] = text_array(cells)
        kind = "text"
        if read is not None:
            kind, found = _as_field(read[name], cells)
            if found is not None:
                values = _unused(f"{name} as pandas reads it", fields)
                fields[values] = found
        columns.append(Column(name, field, values, kind))
    schema = pa.schema(
        [(name, field.type) for name, field in fields.items()],
        metadata={KEY: json.dumps(columns).encode()},
    )
    table = pa.Table.from_arrays(list(fields.values()), schema=schema)
    pq.write_table(table, path, write_page_checksum=True)


def read_texts(
    path: Path, names: Collection[str] | None = None
) -> dict[str, list[str]]:
    """Return the cells as they are written, by column; only those in `names`."""
    with _opened(path) as file:
        columns = _columns(file)
        wanted = [each for each in columns if names is None or each.name in names]
        table = file.read([each.texts for each in wanted], use_threads=False)
        return {each.name: table[each.texts].to_pylist() for each in wanted}


def read_frame(path: Path) -> pd.DataFrame:
    """Return the rows as pandas reads them from the dataset's table."""
    pandas: Any = import_module("pandas")
    with _opened(path) as file:
        columns = _columns(file)
        table = file.read([each.values for each in columns], use_threads=False)
        found = {
            each.name: _as_series(table[each.values], each.kind, pandas)
            for each in columns
        }
    frame: pd.DataFrame = pandas.DataFrame(found)
    return frame


def write_samples(path: Path, samples: Iterable[Mapping[str, Any]]) -> int:
    """Write samples, each a value for each of `COLUMNS`; return how many there are.

    The prompt is plain data, of the others each is a text or None.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Large: all prompts together may have more than 2 GB.
    schema = pa.schema([(name, pa.large_string()) for name in COLUMNS])
    count = 0
    left = iter(samples)
    with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        while part := list(islice(left, AT_ONCE)):
            prompts = [json.dumps(row["prompt"], ensure_ascii=False) for row in part]
            texts = [[row[name] for row in part] for name in COLUMNS[:-1]]
            columns = [text_array(cells) for cells in [*texts, prompts]]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            count += len(part)
    return count


def read_samples_table(folder: Path, columns: Sequence[str]) -> pa.Table:
    """Return these columns of a prepared folder's samples, all rows at once."""
    with _opened(folder / SAMPLES) as file:
        return file.read(list(columns), use_threads=False).combine_chunks()


def read_samples_rows(
    folder: Path, columns: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """Yield these columns of each sample in a prepared folder, row by row."""
    with _opened(folder / SAMPLES) as file:
        parts = file.iter_batches(AT_ONCE, columns=list(columns), use_threads=False)
        for part in parts:
            yield from zip(
                *(column.to_pylist() for column in part.columns), strict=True
            )


def count_samples(folder: Path) -> int:
    """Return how many samples a prepared folder has."""
    import pyarrow.parquet as pq

    with _readable(folder / SAMPLES):
        return int(pq.read_metadata(folder / SAMPLES).num_rows)


def frame_of(texts: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return a table in which each cell is its text, missing where that is empty."""
    pandas: Any = import_module("pandas")
    frame: pd.DataFrame = pandas.DataFrame(
        {
            name: pandas.Series([cell or None for cell in cells], dtype="str")
            for name, cells in texts.items()
        }
    )
    return frame


def text_array(values: Sequence[str | None]) -> pa.Array:
    """Return texts as Arrow has them; its own `array` imports pandas, 60 MB."""
    import numpy as np
    import pyarrow as pa

    encoded = [_encode(value or "") for value in values]
    there = np.array([value is not None for value in values], dtype=bool)
    valid = np.packbits(there, bitorder="little")
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    buffers = [pa.py_buffer(part) for part in (valid, offsets, b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(encoded), buffers)


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return HALVES.sub(NO_CHARACTER, text).encode()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Explain a damaged folder of the cache; it is never replaced unasked."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise VlmEvalError(
            f"{path} is damaged or gone: {reason}. Remove the folder {path.parent}, "
            "and the dataset is prepared again; answers are kept in the run store."
        ) from None


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Arrow's own memory, in huge pages, would cost 28 MB; threads and the machinery of
    # data sets 50.
    pa.set_memory_pool(pa.system_memory_pool())
    with (
        _readable(path),
        pq.ParquetFile(path, page_checksum_verification=True) as file,
    ):
        yield file


def _columns(file: pq.ParquetFile) -> list[Column]:
    return [Column(*each) for each in json.loads(file.metadata.metadata[KEY])]


def _unused(name: str, fields: Collection[str]) -> str:
    """Return a field's name: the column's, as far as UTF-8 has it and it is free."""
    name = _encode(name).decode()
    number = 1
    found = name
    while found in fields:
        number += 1
        found = f"{name} ({number})"
    return found


def _as_field(
    values: pd.Series[Any], cells: Sequence[str]
) -> tuple[str, pa.Array | None]:
    """Return the kind of a column and what to write; None if the texts are that."""
    import pyarrow as pa

    if values.dtype.kind in "biuf":
        return "array", pa.array(values.to_numpy())
    # Only what is missing is not equal to itself.
    plain: list[Any] = [
        None if value is None or value != value else value for value in values
    ]
    if str(values.dtype) == "str":
        same = plain == list(cells)
        return "str", None if same else text_array(plain)
    # A value as Python itself has it, where it is numpy's.
    own = (value.item() if hasattr(value, "item") else value for value in plain)
    return "json", text_array([json.dumps(value) for value in own])


def _as_series(field: pa.ChunkedArray, kind: str, pandas: Any) -> Any:
    if kind == "array":
        return pandas.Series(field.to_numpy())
    cells = field.to_pylist()
    if kind == "text":
        return pandas.Series([cell or None for cell in cells], dtype="str")
    if kind == "str":
        return pandas.Series(cells, dtype="str")
    values = [json.loads(cell) for cell in cells]
    missing = float("nan")
    return pandas.Series(
        [missing if value is None else value for value in values], dtype=object
    )
