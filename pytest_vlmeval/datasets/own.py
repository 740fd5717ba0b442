"""A user's own table, or a DataFrame, as a dataset; or what is wrong with it."""

from __future__ import annotations

import ast
import base64
import csv
import difflib
import gzip
import hashlib
import io
import json
import re
import shlex
import string
import zlib
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.datasets.catalog import OWN_CLASSES
from pytest_vlmeval.datasets.download import digest, md5_of_file, remember
from pytest_vlmeval.errors import AnswerlessError, VlmEvalError, did_you_mean
from pytest_vlmeval.records import DatasetInfo
from pytest_vlmeval.sandbox.own_files import (
    GZIP,
    MOST_IMAGE_BYTES,
    SHORTEST_IMAGE,
    UnfitFileError,
    check_regular,
    open_regular,
    read_cells,
)
from pytest_vlmeval.sandbox.rows import HALVES, NO_CHARACTER
from pytest_vlmeval.settings.option import (
    NOT_IN_NAMES,
    can_be_name,
    dataset_name,
    list_datasets,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from pytest_vlmeval.datasets.download import FileAccess
    from pytest_vlmeval.records import Kind

SHOWN_FAULTS = 5
# More are not looked for.
MOST_FAULTS = 1_000
SHOWN_TEXT = 60
OPTIONS = set(string.ascii_uppercase)
# A table with a column of such a name does not count as one without images.
LIKE_IMAGES = ("image", "image_path", "images", "img", "picture", "photo")
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
_TEXTS = "dtype=str, keep_default_na=False"
# How pandas reads each of them, but for what may be no table.
READERS = {
    "an Excel or ZIP file": f"read_excel({{}}, {_TEXTS})",
    "an Excel file": f"read_excel({{}}, {_TEXTS})",
    "a Parquet file": "read_parquet({})",
    "in UTF-16": f'read_csv({{}}, sep="\\t", encoding="utf-16", {_TEXTS})',
    "JSON": "read_json({}, dtype=False)",
    "JSON, an object a line": "read_json({}, dtype=False, lines=True)",
    "a CSV file, with commas or semicolons": (
        f'read_csv({{}}, sep=None, engine="python", {_TEXTS})'
    ),
}


class TableFacts(NamedTuple):
    """What a table is.

    `images` maps the paths in its column image_path to the first row that has each,
    counted from 1; it is empty where the column `image` holds the images.
    `without_image` counts the rows that have neither.
    `grouped` says that it has a column g_index, `whole_indexes` that every index is a
    whole number.
    """

    kind: Kind
    has_images: bool
    has_references: bool
    grouped: bool
    whole_indexes: bool
    images: Mapping[str, int]
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
    """Return one message for the faults of several rows."""
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
            try:
                line = gzip.GzipFile(fileobj=file).readline(65_536)
            except (OSError, EOFError, zlib.error) as error:
                raise _damaged(path, error) from None
        else:
            line += file.readline(65_536)
    found = next((what for magic, what in MAGIC.items() if line.startswith(magic)), "")
    if not line.strip():
        found = "empty"
    elif not found and b"\t" not in line:
        if line.lstrip().startswith(b"["):
            found = "JSON"
        elif line.lstrip().startswith(b"{"):
            whole = line.rstrip().endswith(b"}")
            found = "JSON, an object a line" if whole else "JSON"
        elif b"," in line or b";" in line:
            found = "a CSV file, with commas or semicolons"
        else:
            found = "without a tab in its first line"
    if found:
        raise VlmEvalError(
            f"{path} is not a TSV: it is {found}. {LAYOUT}{_conversion(path, found)}"
        )


def _conversion(path: Path, what: str) -> str:
    """Return the command that makes a TSV of a file, "" for what may be no table."""
    if what not in READERS:
        return ""
    target = path.with_suffix(".tsv")
    if target == path:
        target = path.with_name(f"{path.stem}-tabs.tsv")
    # Double quotes are plain in what a shell quotes.
    source, place = (
        json.dumps(str(each), ensure_ascii=False) for each in (path, target)
    )
    read = READERS[what].format(source)
    code = f'import pandas; pandas.{read}.to_csv({place}, sep="\\t", index=False)'
    return f" To make one of it:\n\n    python -c {shlex.quote(code)}\n"


def _damaged(path: Path, error: Exception) -> VlmEvalError:
    return VlmEvalError(
        f"{path} cannot be unpacked ({error}): it is not a whole gzip file. Pack the "
        "table again, or name the TSV itself."
    )


def _read_rows(path: Path) -> Iterator[list[str]]:
    """Yield the lines that are not blank, split as pandas does."""
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
        self._images: dict[str, int] = {}
        self._without_image = 0
        self._indexes: set[str] = set()
        # Of rows with images of their own.
        self._showing: set[str] = set()
        # Rows that take their image from another row, which may come later.
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
        like = [near for name in LIKE_IMAGES if (near := self._nearest(name))]
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
        yield from self._look_at_image(number, row)
        index = row.get("index", str(number))
        self._indexes.add(index)
        if len(row.get("image", "")) >= SHORTEST_IMAGE:
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

    def _look_at_image(self, number: int, row: Mapping[str, str]) -> Iterator[str]:
        if cell := row.get("image"):
            if cell.startswith("data:"):
                yield "its image is a data URL; leave only what follows 'base64,'"
            elif len(cell) < SHORTEST_IMAGE and not cell.startswith("["):
                self._borrowed[number] = cell
            return
        cell = row.get("image_path", "")
        paths = _read_list(cell) or []
        if not paths:
            self._without_image += 1
        if not paths and cell not in ("", "[]"):
            yield f"its image_path {_shown(cell)} is neither a path nor a list of paths"
        for path in paths:
            self._images.setdefault(path, number)

    def finish(self) -> TableFacts:
        """Describe what the table is; raises VlmEvalError with all faults."""
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
                    "the index of a row with an image; paths belong in a column "
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
            has_images=self._without_image < self._rows,
            has_references=has_references,
            grouped="g_index" in self._header,
            whole_indexes=self._whole_indexes,
            images=self._images,
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


# Counts changes in what is checked, so that older results are not read.
FORMAT = 2
SHOWN_FILES = 2
SHOWN_FOLDERS = 3
INSIDE_ONLY = (
    "--vlm-data-paths=inside reads no images outside of the table's folder. Move them "
    "there, or leave the option out."
)
WHERE_IMAGES = "A path in image_path counts from the table's folder, or is absolute."


# Names that no rule of ms-vlmeval knows, and that no file can have here; but one of
# its rules is for names with the word `circular`.
OWN = "own~"
CIRCULAR = "own~circular"


def describe_own(path: Path, access: FileAccess) -> DatasetInfo:
    """Return the record of the dataset in `path`, which is read row by row.

    What was found is kept by the file's checksum, so that only a changed file is read
    again; in the data root of the `access` tables are known by name. Raises
    VlmEvalError with the faults and their rows, counted from 1 below the line of names.
    """
    cache_dir = access.cache_dir
    check_exists(path, access.data_root)
    name = dataset_name(str(path))
    if not can_be_name(name):
        raise VlmEvalError(
            f"{path}: its name is part of test ids and cannot be {name!r} there. "
            f"Rename the file without {NOT_IN_NAMES}."
        )
    try:
        checksum = md5_of_file(path, cache_dir)
    except OSError as error:
        raise VlmEvalError(
            f"{path} cannot be read: {error.strerror}. Name a .tsv file that can."
        ) from None
    facts = _facts(path, checksum, cache_dir)
    circular = facts.grouped or "circular" in name.lower()
    if circular and not facts.whole_indexes:
        raise VlmEvalError(
            f"{path}: a table with a column g_index or 'circular' in its name asks "
            "each question once per rotation of its options, and so needs whole "
            "numbers in its column index."
        )
    images = _Images(path, facts.images, access)
    images.check_places()
    if facts.without_image and facts.has_images:
        count = facts.without_image
        rows = "1 row has" if count == 1 else f"{count} rows have"
        access.announce(f"{name}: {rows} no image and will be asked as text alone")
    return DatasetInfo(
        name=name,
        kind=facts.kind,
        modality="image" if facts.has_images else "text",
        path=path,
        rules=CIRCULAR if circular else OWN,
        confined=access.own_paths == "inside",
        checksum=images.add_to(checksum),
        family="own",
        source="own file",
        has_references=facts.has_references,
        **OWN_CLASSES[facts.kind]._asdict(),
    )


def check_exists(path: Path, data_root: Path) -> None:
    """Raise VlmEvalError, with what may be meant, if there is no such file.

    A table in `data_root` is known by its name.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise VlmEvalError(f"{path} is a folder. Name a .tsv file in it.")
    if path.exists():
        raise VlmEvalError(
            f"{path} is not a regular file: a FIFO or a device is not read. Write the "
            "table to a file, and name that."
        )
    name = dataset_name(str(path))
    beside = [file.name for file in path.parent.glob("*.tsv")]
    hint = did_you_mean(f"{name}.tsv", beside, most=SHOWN_FILES, cutoff=0.75)
    if (there := data_root / path.name).is_file():
        given = shlex.quote(list_datasets([name]))
        hint = f" There is {there}, which is the dataset that --vlm-data={given} takes."
    raise VlmEvalError(
        f"{name}: there is no file {path}. Name a .tsv file that exists.{hint}"
    )


def _facts(path: Path, checksum: str, cache_dir: Path) -> TableFacts:
    from filelock import FileLock

    memory = cache_dir / "own" / f"{checksum}-{FORMAT}.json"
    # Of the processes of a session one reads the table, the others its result.
    with ExitStack() as stack:
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(memory.with_suffix(".lock")))
        with suppress(OSError, ValueError, TypeError):
            return TableFacts(**json.loads(memory.read_text(encoding="utf-8")))
        facts = read_facts(path)
        remember(memory, facts._asdict())
        return facts


class _Images(NamedTuple):
    """The files that a table names, by their paths there, each with its first row."""

    table: Path
    rows: Mapping[str, int]
    access: FileAccess

    def check_places(self) -> None:
        """Announce folders beside the table's that are read; VlmEvalError if none may.

        Where a file lies is where its symlinks lead.
        """
        own = self.table.parent.resolve()
        outside: dict[str, Path] = {}
        for image in self.rows:
            with suppress(OSError, ValueError):  # of which its row is told
                place = (self.table.parent / image).resolve()
                if not place.is_relative_to(own):
                    outside[image] = place
        if not outside:
            return
        if self.access.own_paths == "inside":
            faults = [
                f"row {self.rows[image]}: {image}: {place} lies outside of the "
                "table's folder"
                for image, place in outside.items()
            ]
            raise VlmEvalError(faults_text(self.table, faults, INSIDE_ONLY))
        folders = sorted({str(place.parent) for place in outside.values()})
        more = len(folders) - SHOWN_FOLDERS
        shown = ", ".join(folders[:SHOWN_FOLDERS])
        self.access.announce(
            f"{self.table.name} names images outside of its folder, in {shown}"
            + (f" and {more} more folders" if more > 0 else "")
        )

    def add_to(self, checksum: str) -> str:
        """Return the checksum of a table with its images.

        Raises VlmEvalError for images that do not exist or are no regular files.
        """
        if not self.rows:
            return checksum
        key = digest(str(self.table.absolute()))
        memory = self.access.cache_dir / "own" / f"{key}-images.json"
        known: dict[str, list[object]] = {}
        with suppress(OSError, ValueError, TypeError):
            known = dict(json.loads(memory.read_text(encoding="utf-8")))
        found: dict[str, list[object]] = {}
        missing: dict[str, str] = {}
        changed: list[str] = []
        for image in self.rows:
            try:
                state = _state_of(self.table.parent / image)
            except (OSError, ValueError) as error:
                missing[image] = getattr(error, "strerror", None) or str(error)
                continue
            if known.get(image, [])[:-1] == state:
                found[image] = known[image]
            else:
                found[image] = state
                changed.append(image)
        files = [self.table.parent / image for image in changed]
        if files and not missing:
            known_now = self.access.digest(files)
            for image, (content, reason) in zip(changed, known_now, strict=True):
                found[image] = [*found[image], content]
                if reason:
                    missing[image] = reason
        if missing:
            faults = [
                f"row {row}: {image}: {missing[image]}"
                for image, row in self.rows.items()
                if image in missing
            ]
            raise VlmEvalError(faults_text(self.table, faults, WHERE_IMAGES))
        if changed or found.keys() != known.keys():
            remember(memory, found)
        known_by = ([name, state[-1]] for name, state in sorted(found.items()))
        return digest([checksum, *known_by])


def _state_of(file: Path) -> list[object]:
    """Return what tells that a file has changed; raises OSError for what is none."""
    status = file.stat()
    check_regular(file, status)
    if status.st_size > MOST_IMAGE_BYTES:
        raise UnfitFileError(
            f"it has {status.st_size:,} bytes, more than {MOST_IMAGE_BYTES:,}", file
        )
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def write_frame(name: str, frame: pd.DataFrame, folder: Path, here: Path) -> Path:
    """Write a DataFrame as the table of a dataset; return the file.

    It has the columns of a user's table (README). Cells of `image` may be bytes,
    Pillow's images, base64, or lists of these; paths in `image_path` count from
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
            _image(cell, f"{name}, row {row}")
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


def _image(cell: Any, where: str) -> str:
    if isinstance(cell, list | tuple):
        return repr([_image(each, where) for each in cell])
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bytes):
        return base64.b64encode(cell).decode("ascii")
    if hasattr(cell, "save"):
        out = io.BytesIO()
        cell.save(out, "PNG")
        return base64.b64encode(out.getvalue()).decode("ascii")
    raise VlmEvalError(
        f"{where}: its image is of the type {type(cell).__name__}. It takes bytes, an "
        "image of Pillow, base64, or a list of these."
    )


def _paths(cell: Any, here: Path) -> str:
    if isinstance(cell, list | tuple):
        return repr([str(here / str(each)) for each in cell])
    text = str(cell)
    return text if text.startswith("[") else str(here / text)
