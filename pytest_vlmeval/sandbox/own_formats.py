"""The records of a user's own file: TSV, CSV, JSON, JSON Lines or Parquet.

A table is read where it is described and once more where it is prepared, by this
module both times. None of the formats holds code, and none is read without a bound.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shlex
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.own_files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

GZIP = b"\x1f\x8b"
# A line with several images in base64 is shorter by far.
LONGEST_LINE = 2**28
# Of a JSON file, which is read whole.
MOST_JSON_BYTES = 2**31
# What one row group of a Parquet file may unpack to, by its own account.
MOST_GROUP_BYTES = 2**33
PARQUET_ROWS = 16
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# By the end of a file's name; each may be packed with gzip, but for Parquet.
FORMATS = {
    ".tsv": "TSV",
    ".csv": "CSV",
    ".jsonl": "JSON Lines",
    ".json": "JSON",
    ".parquet": "Parquet",
}
ACCEPTED = ".tsv, .csv, .jsonl, .json, each also with .gz, or .parquet"
# What a file begins with that is something else.
MAGIC = {
    b"PK\x03\x04": "an Excel or ZIP file",
    b"\xd0\xcf\x11\xe0": "an Excel file",
    b"\xff\xfe": "in UTF-16",
    b"\xfe\xff": "in UTF-16",
}
_TEXTS = "dtype=str, keep_default_na=False"
# How pandas reads each of them.
READERS = {
    "an Excel or ZIP file": f"read_excel({{}}, {_TEXTS})",
    "an Excel file": f"read_excel({{}}, {_TEXTS})",
    "in UTF-16": (
        f'read_csv({{}}, sep=None, engine="python", encoding="utf-16", {_TEXTS})'
    ),
}


class Record(NamedTuple):
    """A row as its file has it: values by their columns.

    `line` is where it begins in a text file whose lines are counted, else 0. `fault`
    says why it cannot be used, "" if it can.
    """

    cells: Mapping[str, Any]
    line: int = 0
    fault: str = ""


class Records(NamedTuple):
    """The records of a table, with all columns that any of them has.

    Those of JSON and Parquet hold numbers, lists, bytes and null, others texts alone.
    `separator` is that of a CSV.
    """

    names: Sequence[str]
    rows: Iterable[Record]
    separator: str = ""


def format_of(path: Path) -> str:
    """Return the format that the end of a file's name stands for; TSV for any other."""
    name = path.name.lower().removesuffix(".gz")
    return FORMATS.get(Path(name).suffix, "TSV")


def is_titled(path: Path) -> bool:
    """Return whether the names of a file's columns stand in a row of their own."""
    return format_of(path) in ("TSV", "CSV")


def open_records(path: Path) -> Records:
    """Return what a file holds, its rows read one by one as they are asked for.

    Raises VlmEvalError, at once or as the rows are read, for what is no such file.
    """
    kind = format_of(path)
    _check_beginning(path, kind)
    if kind == "Parquet":
        return _parquet(path)
    if kind == "JSON":
        return _json(path)
    if kind == "JSON Lines":
        names = _names_of(record.cells for record in _json_lines(path))
        return Records(names, _json_lines(path))
    return _delimited(path, kind)


def _check_beginning(path: Path, kind: str) -> None:
    with open_regular(path) as file:
        line = file.read(8)
        if line.startswith(GZIP):
            file.seek(0)
            try:
                line = gzip.GzipFile(fileobj=file).readline(65_536)
            except (OSError, EOFError, zlib.error) as error:
                raise _damaged(path, error) from None
        else:
            line += file.readline(65_536)
    found = next((what for magic, what in MAGIC.items() if line.startswith(magic)), "")
    if not line.strip():
        raise VlmEvalError(f"{path} is empty. {layout(kind)}")
    if found:
        raise VlmEvalError(
            f"{path} is not a {kind} file: it is {found}.{_conversion(path, found)}"
        )
    there = _suffix_of(line)
    if kind == "Parquet" and there != ".parquet":
        raise VlmEvalError(
            f"{path} is not a Parquet file: it does not begin with PAR1. Name it by "
            f"what it is: {ACCEPTED}."
        )
    wrong = {
        ".parquet": kind != "Parquet",
        ".json": kind in ("TSV", "CSV")
        or (kind == "JSON Lines" and line.lstrip().startswith(b"[")),
        ".jsonl": kind in ("TSV", "CSV"),
        ".csv": kind == "TSV",
    }.get(there, False)
    if wrong:
        what = {".csv": "a CSV file, with commas or semicolons"}.get(
            there, f"a {FORMATS[there]} file"
        )
        place = _renamed(path, there)
        raise VlmEvalError(
            f"{path} is not a {kind} file: it is {what}. Rename it:\n\n"
            f"    mv {shlex.quote(str(path))} {shlex.quote(str(place))}\n"
        )
    if kind == "TSV" and b"\t" not in line:
        raise VlmEvalError(
            f"{path} is not a TSV file: its first line has no tab. {layout(kind)}"
        )


def _suffix_of(line: bytes) -> str:
    """Return the end of the name that a file with this first line should have."""
    start = line.removeprefix(b"\xef\xbb\xbf").lstrip()
    if line.startswith(b"PAR1"):
        return ".parquet"
    if start.startswith(b"[") and b"\t" not in line:
        return ".json"
    if start.startswith(b"{") and b"\t" not in line:
        return ".jsonl" if start.rstrip().endswith(b"}") else ".json"
    if b"\t" not in line and (b"," in line or b";" in line):
        return ".csv"
    return ""


def _renamed(path: Path, suffix: str) -> Path:
    packed = ".gz" if path.name.lower().endswith(".gz") else ""
    name = path.name[: len(path.name) - len(packed)]
    return path.with_name(f"{Path(name).stem}{suffix}{packed}")


def layout(kind: str) -> str:
    """Describe what a file of a format has to look like."""
    if kind in ("TSV", "CSV"):
        between = "tabs" if kind == "TSV" else "commas"
        return (
            f"It needs {between} between the columns, UTF-8, and a first line with "
            "their names: question, answer, image or image_path, and A, B, ... for "
            "options."
        )
    if kind == "JSON Lines":
        return "It needs an object on each line, in UTF-8: a row with its columns."
    if kind == "JSON":
        return (
            'It needs a list of objects, in UTF-8, each a row, or {"data": [...]} with '
            "such a list."
        )
    return "It needs a column for each of question, answer and image."


def _conversion(path: Path, what: str) -> str:
    """Return the command that makes a TSV of a file."""
    target = path.with_suffix(".tsv")
    if target == path:
        target = path.with_name(f"{path.stem}-tabs.tsv")
    # Double quotes are plain in what a shell quotes.
    source, place = (
        json.dumps(str(each), ensure_ascii=False) for each in (path, target)
    )
    read = READERS[what].format(source)
    code = f'import pandas; pandas.{read}.to_csv({place}, sep="\\t", index=False)'
    return f" To make a TSV of it:\n\n    python -c {shlex.quote(code)}\n"


def _damaged(path: Path, error: Exception) -> VlmEvalError:
    return VlmEvalError(
        f"{path} cannot be unpacked ({error}): it is not a whole gzip file. Pack the "
        "table again, or name the file itself."
    )


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, with their ends; VlmEvalError for what is none.

    A lone carriage return ends no line.
    """
    count = 0
    try:
        with open_regular(path) as file:
            packed = file.read(2) == GZIP
            file.seek(0)
            plain = gzip.GzipFile(fileobj=file) if packed else file
            with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as text:
                while line := text.readline(LONGEST_LINE):
                    if len(line) == LONGEST_LINE:
                        raise csv.Error(
                            f"a line has more than {LONGEST_LINE:,} characters"
                        )
                    yield line
                    count += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, error) from None
    except csv.Error as error:
        raise _unreadable(path, count, error) from None
    except UnicodeDecodeError as error:
        kind = format_of(path)
        place = path.with_name(f"{path.stem}-utf8{path.suffix}")
        raise VlmEvalError(
            # Text is decoded in blocks, so the line is not exactly known.
            f"{path} is not a {kind} file in UTF-8: after {count} lines it cannot be "
            f"read ({error}). With its encoding in the place of gb18030, this writes "
            f"it in UTF-8:\n\n    iconv -f gb18030 -t utf-8 {shlex.quote(str(path))} "
            f"> {shlex.quote(str(place))}\n"
        ) from None


def _unreadable(path: Path, count: int, error: Exception) -> VlmEvalError:
    kind = format_of(path)
    return VlmEvalError(
        f"{path} is not a {kind} file: after {count} lines it cannot be read "
        f"({error}). {layout(kind)}"
    )


def _delimited(path: Path, kind: str) -> Records:
    separator = "\t" if kind == "TSV" else _separator(path)
    rows = _cells(path, separator)
    names, _ = next(rows, ([], 0))
    return Records(
        names,
        (_record(names, cells, line) for cells, line in rows),
        separator=separator if kind == "CSV" else "",
    )


def _separator(path: Path) -> str:
    """Return what is between the columns of a CSV; VlmEvalError if that is open."""
    found = {}
    for separator in SEPARATORS:
        names, _ = next(_cells(path, separator), ([], 0))
        if len(names) > 1:
            found[separator] = [name.strip() for name in names]
    # A name has rarely a sign between columns in it, and then stands in quotes.
    plain = {
        each: names
        for each, names in found.items()
        if not any(set(SEPARATORS) & set(name) for name in names)
    }
    fitting = plain or found
    if len(fitting) > 1:
        between = " or ".join(SEPARATORS[each] for each in fitting)
        raise VlmEvalError(
            f"{path}: its columns may be parted by {between}. Use one of them in its "
            "first line, and put names that contain another into double quotes."
        )
    return next(iter(fitting), ",")


def _cells(path: Path, separator: str) -> Iterator[tuple[list[str], int]]:
    """Yield the rows that are not blank, split as pandas does, with their lines."""
    # An image is a cell of any length up to that of its line.
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(_lines(path), delimiter=separator)
    begins = 1
    try:
        for row in reader:
            if row:
                yield row, begins
            begins = reader.line_num + 1
    except csv.Error as error:
        raise _unreadable(path, reader.line_num, error) from None


def _record(names: list[str], cells: list[str], line: int) -> Record:
    if len(cells) != len(names):
        noun = "cell" if len(cells) == 1 else "cells"
        return Record(
            {},
            line,
            f"has {len(cells)} {noun}, the line of names {len(names)}; a quote that is "
            "not closed swallows what follows",
        )
    return Record(dict(zip(names, cells, strict=True)), line)


def _names_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _json_lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Record({}, number, f"is not JSON ({_said(error)})")
            continue
        if isinstance(row, dict):
            yield Record(row, number)
        else:
            yield Record({}, number, f"is {_kind_of(row)}, not an object")


def _json(path: Path) -> Records:
    with open_regular(path) as file:
        packed = file.read(2) == GZIP
        file.seek(0)
        try:
            plain = gzip.GzipFile(fileobj=file) if packed else file
            data = plain.read(MOST_JSON_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(path, error) from None
    if len(data) > MOST_JSON_BYTES:
        raise VlmEvalError(
            f"{path} has more than {MOST_JSON_BYTES:,} bytes, and JSON is read whole. "
            "Write it as JSON Lines, an object a line, or as Parquet."
        )
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        hint = ""
        if _suffix_of(data.partition(b"\n")[0]) == ".jsonl":
            place = _renamed(path, ".jsonl")
            hint = (
                " It seems to have an object on each line. Rename it:\n\n"
                f"    mv {shlex.quote(str(path))} {shlex.quote(str(place))}\n"
            )
        raise VlmEvalError(
            f"{path} is not a JSON file ({_said(error)}).{hint or ' ' + layout('JSON')}"
        ) from None
    given = found
    if isinstance(found, dict) and isinstance(found.get("data"), list):
        found = found["data"]
    if not isinstance(found, list):
        has = _kind_of(given)
        if isinstance(given, dict):
            has += f" with {', '.join(map(str, list(given)[:8])) or 'nothing'}"
        raise VlmEvalError(f"{path} holds {has}. {layout('JSON')}")
    rows = [
        Record(row)
        if isinstance(row, dict)
        else Record({}, fault=f"is {_kind_of(row)}, not an object")
        for row in found
    ]
    return Records(_names_of(row.cells for row in rows), rows)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else "it is nested too deeply"


def _kind_of(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    if value is None:
        return "null"
    return kinds.get(type(value), "a number")


def _parquet(path: Path) -> Records:
    from pyarrow import ArrowException, parquet

    try:
        with open_regular(path) as file:
            table = parquet.ParquetFile(file)
            schema = table.schema_arrow
            groups = [
                table.metadata.row_group(number).total_byte_size
                for number in range(table.metadata.num_row_groups)
            ]
    except (ArrowException, OSError, ValueError) as error:
        raise _broken_parquet(path, error) from None
    if max(groups, default=0) > MOST_GROUP_BYTES:
        raise VlmEvalError(
            f"{path} has a row group of {max(groups):,} bytes, more than "
            f"{MOST_GROUP_BYTES:,}. Write it with smaller ones."
        )
    labels = _class_labels(schema.metadata or {})
    return Records(list(schema.names), _parquet_rows(path, labels))


def _parquet_rows(path: Path, labels: Mapping[str, list[str]]) -> Iterator[Record]:
    from pyarrow import ArrowException, parquet

    try:
        with open_regular(path) as file:
            table = parquet.ParquetFile(file)
            for batch in table.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    for name, names in labels.items():
                        number = row.get(name)
                        if isinstance(number, int) and 0 <= number < len(names):
                            row[name] = names[number]
                    yield Record(row)
    except (ArrowException, OSError, ValueError) as error:
        raise _broken_parquet(path, error) from None


def _broken_parquet(path: Path, error: Exception) -> VlmEvalError:
    said = " ".join(str(error).split())[:200]
    return VlmEvalError(
        f"{path} is not a Parquet file that can be read ({said}). Write it again, or "
        "download it again."
    )


def _class_labels(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of classes, of whose numbers Hugging Face makes a column."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            name: [str(each) for each in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
