"""Reads a table of one's own row by row: what kind it is, and what is wrong where."""

from __future__ import annotations

import ast
import csv
import difflib
import gzip
import re
import string
import zlib
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.errors import AnswerlessError, VlmEvalError
from pytest_vlmeval.sandbox.own_files import GZIP, open_regular, read_cells

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_vlmeval.records import Kind

# ms-vlmeval takes a shorter text for the index of the row that has the picture.
SHORTEST_PICTURE = 65
SHOWN_FAULTS = 5
# More are not looked for.
MOST_FAULTS = 1_000
SHOWN_TEXT = 60
OPTIONS = set(string.ascii_uppercase)
# A table with a column of such a name is not taken for one without pictures.
LIKE_PICTURES = ("image", "image_path", "images", "img", "picture", "photo")
LAYOUT = (
    "It needs tabs between the columns, UTF-8, and a first line with their names: "
    "question, answer, image or image_path, and A, B, ... for options."
)
ANSWERLESS = (
    " Leave its cells empty, and give --vlm-mode=infer, to collect answers without a "
    "score."
)
WHOLE = re.compile("0|[1-9][0-9]*")
# What a file begins with that is something else.
MAGIC = {
    b"PK\x03\x04": "an Excel or ZIP file",
    b"\xd0\xcf\x11\xe0": "an Excel file",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "in UTF-16",
    b"\xfe\xff": "in UTF-16",
}


class TableFacts(NamedTuple):
    """What a table is.

    `pictures` maps the paths in its column image_path to the first row that has each,
    counted from 1; it is empty where the column `image` holds the pictures.
    `without_image` counts the rows that have neither.
    `grouped` says that it has a column g_index, `whole_indexes` that every index is a
    whole number.
    """

    kind: Kind
    has_pictures: bool
    has_references: bool
    grouped: bool
    whole_indexes: bool
    pictures: Mapping[str, int]
    without_image: int = 0


def read_facts(path: Path) -> TableFacts:
    """Read the whole table, a row at a time; raises VlmEvalError with its faults."""
    _check_beginning(path)
    rows = _read_rows(path)
    reading = _Reading(path, next(rows, []))
    for number, row in enumerate(rows, start=1):
        reading.add(number, row)
    return reading.finish()


def faults_text(path: Path, faults: Sequence[str], rule: str = "") -> str:
    """Give one message for the faults of several rows."""
    lines = [f"  {fault}" for fault in faults[:SHOWN_FAULTS]]
    if len(faults) > SHOWN_FAULTS:
        more = len(faults) - SHOWN_FAULTS
        lines.append(f"  and {more}{'' if more < MOST_FAULTS else ' or more'} others")
    head = f"{path} cannot be used (row 1 is the one below the names):"
    return "\n".join(filter(None, [head, *lines, rule]))


def _check_beginning(path: Path) -> None:
    with open_regular(path) as file:
        line = file.read(8)
        if line.startswith(GZIP):
            file.seek(0)
            line = _unpacked_line(path, file)
        else:
            line += file.readline(65_536)
    found = next((what for magic, what in MAGIC.items() if line.startswith(magic)), "")
    if not line.strip():
        found = "empty"
    elif not found and b"\t" not in line:
        if line.lstrip().startswith((b"{", b"[")):
            found = "JSON"
        elif b"," in line or b";" in line:
            found = "a CSV file, with commas or semicolons"
        else:
            found = "without a tab in its first line"
    if found:
        raise VlmEvalError(f"{path} is not a TSV: it is {found}. {LAYOUT}")


def _unpacked_line(path: Path, file: io.BufferedReader) -> bytes:
    try:
        return gzip.GzipFile(fileobj=file).readline(65_536)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> VlmEvalError:
    return VlmEvalError(
        f"{path} cannot be unpacked ({error}): it is not a whole gzip file. Pack the "
        "table again, or name the TSV itself."
    )


def _read_rows(path: Path) -> Iterator[list[str]]:
    """Give the lines that are not blank, split as pandas does."""
    count = 0
    try:
        for row in read_cells(path):
            yield row
            count += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, error) from None
    except (csv.Error, UnicodeDecodeError) as error:
        # Text is decoded in blocks, so the row is not exactly known.
        raise VlmEvalError(
            f"{path} is not a TSV: after {count} lines it cannot be read ({error}). "
            f"{LAYOUT}"
        ) from None


class _Reading:
    """Looks at one row after the other, then says what the table is."""

    def __init__(self, path: Path, header: list[str]) -> None:
        self._path = path
        self._header = header
        self._options = [name for name in header if name in OPTIONS]
        self._faults: list[str] = []
        self._rows = 0
        self._without_answer: list[int] = []
        self._answers_yes_no = True
        self._whole_indexes = True
        self._pictures: dict[str, int] = {}
        self._without_image = 0
        self._indexes: set[str] = set()
        # Of rows with images of their own.
        self._showing: set[str] = set()
        # Rows that take their picture from another row, which may come later.
        self._borrowed: dict[int, str] = {}
        self._groups: dict[int, str] = {}
        self._check_header()

    def _check_header(self) -> None:
        names = self._header
        twice = sorted({name for name in names if names.count(name) > 1 and name})
        if twice:
            raise self._error(f"has more than one column {twice[0]}")
        for name in ("question", "answer"):
            if name not in names:
                near = self._nearest(name)
                hint = f"; is it {near!r}? Rename that" if near else ""
                text = f"has no column {name}{hint}"
                if name == "answer":
                    raise AnswerlessError(str(self._error(text, ANSWERLESS)))
                raise self._error(text)
        like = [near for name in LIKE_PICTURES if (near := self._nearest(name))]
        if like and not {"image", "image_path"} & set(names):
            raise self._error(
                "has neither a column image (base64) nor image_path; is one of them "
                f"{like[0]!r}? Rename that"
            )
        small = {"a", "b"} <= set(names)
        if len(self._options) == 1 or (small and not self._options):
            given = self._options[0] if self._options else "a, b"
            raise self._error(
                f"has options in {given}: they are read from the columns A, B and so "
                "on, at least two"
            )

    def _nearest(self, name: str) -> str | None:
        by_small = {each.strip().lower(): each for each in self._header}
        near = difflib.get_close_matches(name, by_small, n=1, cutoff=0.7)
        return by_small[near[0]] if near else None

    def _error(self, text: str, note: str = "") -> VlmEvalError:
        columns = ", ".join(self._header)
        return VlmEvalError(f"{self._path} {text}. It has the columns {columns}.{note}")

    def add(self, number: int, cells: list[str]) -> None:
        """Check a row."""
        self._rows = number
        if len(self._faults) > MOST_FAULTS:
            return
        if len(cells) != len(self._header):
            self._faults.append(
                f"row {number}: has {len(cells)} cells, the line of names "
                f"{len(self._header)}; a quote that is not closed swallows what follows"
            )
            return
        row = dict(zip(self._header, cells, strict=True))
        for fault in self._faults_of(number, row):
            self._faults.append(f"row {number}: {fault}")

    def _faults_of(self, number: int, row: Mapping[str, str]) -> Iterator[str]:
        for name in ("index", "question"):
            if not row.get(name, "-"):
                yield f"its {name} is empty"
        yield from self._look_at_answer(number, row)
        yield from self._look_at_picture(number, row)
        index = row.get("index", str(number))
        self._indexes.add(index)
        if len(row.get("image", "")) >= SHORTEST_PICTURE:
            self._showing.add(index)
        self._whole_indexes &= WHOLE.fullmatch(index) is not None
        if "g_index" in row:
            self._groups[number] = row["g_index"]

    def _look_at_answer(self, number: int, row: Mapping[str, str]) -> Iterator[str]:
        answer = row["answer"]
        given = [name for name in self._options if row[name]]
        if self._options and not given:
            yield "all its options are empty"
        elif not answer:
            self._without_answer.append(number)
        elif self._options and answer.strip().upper() not in given:
            yield (
                f"the answer {_shown(answer)} is not the letter of one of its options "
                f"({', '.join(given)})"
            )
        elif not self._options and _read_list(answer) == []:
            yield (
                f"the answer {_shown(answer)} is a list, but not one of texts; write "
                "each in quotes"
            )
        self._answers_yes_no &= answer.strip().lower() in ("yes", "no", "")

    def _look_at_picture(self, number: int, row: Mapping[str, str]) -> Iterator[str]:
        if cell := row.get("image"):
            if cell.startswith("data:"):
                yield "its image is a data URL; leave only what follows 'base64,'"
            elif len(cell) < SHORTEST_PICTURE and not cell.startswith("["):
                self._borrowed[number] = cell
            return
        cell = row.get("image_path", "")
        paths = _read_list(cell) or []
        if not paths:
            self._without_image += 1
        if not paths and cell not in ("", "[]"):
            yield f"its image_path {_shown(cell)} is neither a path nor a list of paths"
        for path in paths:
            self._pictures.setdefault(path, number)

    def finish(self) -> TableFacts:
        """Say what the table is; raises VlmEvalError with all faults."""
        if not self._rows:
            raise VlmEvalError(f"{self._path} has no rows below the line of names.")
        has_references = len(self._without_answer) < self._rows
        if has_references:
            self._faults += [
                f"row {number}: its answer is empty" for number in self._without_answer
            ]
        for number, index in self._borrowed.items():
            if index not in self._showing:
                self._faults.append(
                    f"row {number}: its image {_shown(index)} is neither base64 nor "
                    "the index of a row with a picture; paths belong in a column "
                    "image_path"
                )
        for number, index in self._groups.items():
            if index not in self._indexes:
                self._faults.append(
                    f"row {number}: its g_index {_shown(index)} is no row's index"
                )
        if self._faults:
            raise VlmEvalError(faults_text(self._path, self._faults))
        yes_no = self._answers_yes_no and has_references
        return TableFacts(
            kind="multiple_choice" if self._options else "yes_no" if yes_no else "vqa",
            has_pictures=self._without_image < self._rows,
            has_references=has_references,
            grouped="g_index" in self._header,
            whole_indexes=self._whole_indexes,
            pictures=self._pictures,
            without_image=self._without_image,
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_TEXT else text[:SHOWN_TEXT] + "…")


def _read_list(cell: str) -> list[str] | None:
    """Read a text or a list of texts; a list of anything else is an empty one.

    None for what is neither, though it begins and ends like a list.
    """
    if not (cell.startswith("[") and cell.endswith("]")):
        return [cell] if cell else []
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if all(isinstance(each, str) and each for each in found) else []
