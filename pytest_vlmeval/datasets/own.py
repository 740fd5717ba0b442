"""A user's own table, or a DataFrame, as a dataset; or what is wrong with it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.datasets.catalog import OWN_CLASSES
from pytest_vlmeval.datasets.download import digest, md5_of_file, remember
from pytest_vlmeval.datasets.own_hub import bring_table
from pytest_vlmeval.datasets.own_questions import (
    TAKEN,
    announce_outside,
    write_questions,
)
from pytest_vlmeval.errors import AnswerlessError, VlmEvalError, did_you_mean
from pytest_vlmeval.records import COLUMNS, COUNTED, LETTERS, DatasetInfo
from pytest_vlmeval.sandbox.own_columns import OwnTable, Row, read_list, shown
from pytest_vlmeval.sandbox.own_files import (
    MOST_IMAGE_BYTES,
    SHORTEST_IMAGE,
    UnfitFileError,
    check_regular,
)
from pytest_vlmeval.sandbox.own_formats import ACCEPTED, FORMATS, format_of, is_titled
from pytest_vlmeval.sandbox.rows import HALVES, NO_CHARACTER
from pytest_vlmeval.settings.option import (
    NOT_IN_NAMES,
    can_be_name,
    dataset_name,
    is_repository,
    list_datasets,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from pytest_vlmeval.datasets.download import FileAccess
    from pytest_vlmeval.datasets.own_hub import HubTable
    from pytest_vlmeval.datasets.own_questions import OwnQuestions
    from pytest_vlmeval.records import Kind

SHOWN_FAULTS = 5
# More are not looked for.
MOST_FAULTS = 1_000
# A table with a column of nearly such a name does not count as one without images.
LIKE_IMAGES = ("image", "image_path", "images", "img", "picture", "photo")
ANSWERLESS = (
    " Leave its cells empty, and give --vlm-mode=infer, to collect answers without a "
    "score."
)
WHOLE = re.compile("0|[1-9][0-9]*")


class TableFacts(NamedTuple):
    """What a table is.

    `images` maps the paths that it names to the first row that has each, as a message
    names it; it is empty where the table itself holds the images. `without_image`
    counts the rows that have neither. `grouped` says that it has a column g_index,
    `whole_indexes` that every index is a whole number. `mapped` describes what was
    taken from columns of other names, "" for nothing.
    """

    kind: Kind
    has_images: bool
    has_references: bool
    grouped: bool
    whole_indexes: bool
    images: Mapping[str, str]
    without_image: int = 0
    mapped: str = ""


def read_facts(
    files: Sequence[Path], columns: Mapping[str, str] | None = None
) -> TableFacts:
    """Read the whole table, a row at a time; raises VlmEvalError with its faults."""
    table = OwnTable(files, columns or {})
    if not table.names:
        faults = [f"{row.place}: {row.fault}" for row in table.rows() if row.fault]
        if faults:
            raise VlmEvalError(faults_text(table.path, faults))
        raise VlmEvalError(f"{table.path} has no rows.")
    reading = _Reading(table)
    for row in table.rows():
        reading.add(row)
    return reading.finish()


def faults_text(path: Path, faults: Sequence[str], rule: str = "") -> str:
    """Return one message for the faults of several rows."""
    lines = [f"  {fault}" for fault in faults[:SHOWN_FAULTS]]
    if len(faults) > SHOWN_FAULTS:
        more = len(faults) - SHOWN_FAULTS
        lines.append(f"  and {more}{'' if more < MOST_FAULTS else ' or more'} others")
    first = "the one below the names" if is_titled(path) else "the first"
    head = f"{path} cannot be used (row 1 is {first}):"
    return "\n".join(filter(None, [head, *lines, rule]))


def _take(target: str, name: str) -> str:
    """Return the option that takes a column for something, as a shell takes it."""
    return f"--vlm-columns={shlex.quote(list_datasets([f'{target}={name}']))}"


class _Reading:
    """Looks at one row after the other, then says what the table is."""

    def __init__(self, table: OwnTable) -> None:
        self.table = table
        self._options: set[str] = set()
        self._faults: list[str] = []
        self._rows = 0
        self._without_options: list[Row] = []
        self._without_answer: list[Row] = []
        self._answers_yes_no = True
        self._whole_indexes = True
        self._images: dict[str, str] = {}
        self._without_image = 0
        self._indexes: dict[str, Row] = {}
        # Of rows with images of their own.
        self._showing: set[str] = set()
        # Rows that take their image from another row, which may come later.
        self._borrowed: list[tuple[Row, str]] = []
        self._groups: list[tuple[Row, str]] = []
        self._check_header()

    def _check_header(self) -> None:
        table = self.table
        has = {*table.sources, *(name for name in table.names if name in LETTERS)}
        if not has & {"question", "messages"}:
            raise self._missing("question")
        if not has & {"answer", "messages", *COUNTED}:
            raise AnswerlessError(str(self._missing("answer", ANSWERLESS)))
        like = [near for name in LIKE_IMAGES if (near := table.nearest(name))]
        if like and not has & {"image", "image_path", "messages"}:
            raise table.error(
                "has neither a column image nor image_path; is one of them "
                f"{like[0]!r}? {_take('image', like[0])} takes it"
            )
        letters = [name for name in LETTERS if name in has]
        small = {"a", "b"} <= set(table.names)
        if len(letters) == 1 or (small and not letters and "options" not in has):
            given = letters[0] if letters else "a, b"
            raise table.error(
                f"has options in {given}: they are read from the columns A, B and so "
                "on, at least two"
            )

    def _missing(self, target: str, note: str = "") -> VlmEvalError:
        near = self.table.nearest(target)
        hint = f"; is it {near!r}? {_take(target, near)} takes it" if near else ""
        known = f"{', '.join([target, *COLUMNS[target][:-1]])} or {COLUMNS[target][-1]}"
        return self.table.error(
            f"has no column {target}{hint}",
            f" Its name is {known}; --vlm-columns={target}=NAME takes any other.{note}",
        )

    def add(self, row: Row) -> None:
        """Check a row."""
        self._rows = row.number
        if len(self._faults) > MOST_FAULTS:
            return
        faults = [row.fault] if row.fault else self._faults_of(row)
        for fault in faults:
            self._faults.append(f"{row.place}: {fault}")

    def _faults_of(self, row: Row) -> Iterator[str]:
        # What is remembered of it is its place, not its images.
        cells, row = row.cells, Row(row.number, {}, row.line)
        for name in ("index", "question"):
            if not cells.get(name, "-"):
                yield f"its {name} is empty"
        yield from self._look_at_answer(row, cells)
        self._look_at_image(row, cells)
        index = cells.get("index", str(row.number))
        first = self._indexes.setdefault(index, row)
        if first is not row and index:
            yield (
                f"its index {shown(index)} is that of {first.place} too; each row "
                "needs one of its own. --vlm-columns=index= numbers the rows instead"
            )
        if len(cells.get("image", "")) >= SHORTEST_IMAGE:
            self._showing.add(index)
        self._whole_indexes &= WHOLE.fullmatch(index) is not None
        if "g_index" in cells:
            self._groups.append((row, cells["g_index"]))

    def _look_at_answer(self, row: Row, cells: Mapping[str, str]) -> Iterator[str]:
        answer = cells.get("answer", "")
        letters = [name for name in cells if name in LETTERS]
        given = [name for name in letters if cells[name]]
        self._options.update(letters)
        if not given:
            self._without_options.append(row)
        if letters and not given:
            return
        if not answer:
            self._without_answer.append(row)
        elif letters and answer.strip().upper() not in given:
            yield (
                f"the answer {shown(answer)} is not the letter of one of its options "
                f"({', '.join(given)}), nor its text"
            )
        elif not letters and read_list(answer) == []:
            yield (
                f"the answer {shown(answer)} is a list, but not one of texts; write "
                "each in quotes"
            )
        self._answers_yes_no &= answer.strip().lower() in ("yes", "no", "")

    def _look_at_image(self, row: Row, cells: Mapping[str, str]) -> None:
        if cell := cells.get("image"):
            if len(cell) < SHORTEST_IMAGE and not cell.startswith("["):
                self._borrowed.append((row, cell))
            return
        paths = read_list(cells.get("image_path", "")) or []
        if not paths:
            self._without_image += 1
        for path in paths:
            if path not in self._images:
                self._images[path] = row.place

    def finish(self) -> TableFacts:
        """Describe what the table is; raises VlmEvalError with all faults."""
        table = self.table
        if not self._rows:
            below = " below the line of names" if is_titled(table.path) else ""
            raise VlmEvalError(f"{table.path} has no rows{below}.")
        if self._options:
            self._faults += [
                f"{row.place}: all its options are empty"
                for row in self._without_options
            ]
        has_references = len(self._without_answer) < self._rows
        if has_references:
            self._faults += [
                f"{row.place}: its answer is empty" for row in self._without_answer
            ]
        for row, index in self._borrowed:
            if index not in self._showing:
                self._faults.append(
                    f"{row.place}: its image {shown(index)} is neither base64, nor a "
                    "path that ends as an image's, nor the index of a row with an image"
                )
        for row, index in self._groups:
            if index not in self._indexes:
                self._faults.append(
                    f"{row.place}: its g_index {shown(index)} is no row's index"
                )
        if self._faults:
            raise VlmEvalError(faults_text(table.path, self._faults))
        yes_no = self._answers_yes_no and has_references
        return TableFacts(
            kind="multiple_choice" if self._options else "yes_no" if yes_no else "vqa",
            has_images=self._without_image < self._rows,
            has_references=has_references,
            grouped="g_index" in table.sources,
            whole_indexes=self._whole_indexes,
            images=self._images,
            without_image=self._without_image,
            mapped=table.describe(),
        )


# Counts changes in what is checked, so that older results are not read.
FORMAT = 3
SHOWN_FILES = 2
INSIDE_ONLY = (
    "--vlm-data-paths=inside reads no images outside of the table's folder. Move them "
    "there, or leave the option out."
)
WHERE_IMAGES = "A path of an image counts from the table's folder, or is absolute."


# Names that no rule of ms-vlmeval knows, and that no file can have here; but one of
# its rules is for names with the word `circular`.
OWN = "own~"
CIRCULAR = "own~circular"


class Found(NamedTuple):
    """The files of a table, and the folder in which its images may be.

    `hub` is the repository that they come from.
    """

    files: Sequence[Path]
    folder: Path
    hub: HubTable | None = None


def describe_own(
    place: str,
    access: FileAccess,
    columns: Mapping[str, str] | None = None,
    questions: OwnQuestions | None = None,
) -> DatasetInfo:
    """Return the record of the dataset in a table, which is read row by row.

    `place` is the path of a file, of a folder with a table in it, or a repository of a
    hub, and `columns` says which are for what, where their names do not. `questions`
    makes the rows of the dataset of those of the table. What was found is kept by the
    files' checksums, so that only changed ones are read again; in the data root of the
    `access` tables are known by name. Raises VlmEvalError with the faults and their
    rows, counted from 1.
    """
    cache_dir, columns = access.cache_dir, columns or {}
    name = dataset_name(place)
    if not can_be_name(name):
        raise VlmEvalError(
            f"{place}: its name is part of test ids and cannot be {name!r} there. "
            f"Rename the file without {NOT_IN_NAMES}."
        )
    found = find_files(place, access)
    if questions is not None:
        table = write_questions(
            questions, place, found.files, found.folder, access, found.hub
        )
        found, columns = Found([table], table.parent, found.hub), TAKEN
    table = found.files[0]
    try:
        checksum = _checksum(found.files, columns, cache_dir)
    except OSError as error:
        raise VlmEvalError(
            f"{table} cannot be read: {error.strerror}. Name a file that can."
        ) from None
    facts = _facts(found.files, columns, checksum, cache_dir)
    circular = facts.grouped or "circular" in name.lower()
    if circular and not facts.whole_indexes:
        raise VlmEvalError(
            f"{table}: a table with a column g_index or 'circular' in its name asks "
            "each question once per rotation of its options, and so needs whole "
            "numbers in its column index."
        )
    if found.hub is not None:
        found.hub.bring_images(facts.images, access)
    images = _Images(table, facts.images, found.folder, access)
    confined = access.own_paths == "inside" or is_repository(place)
    images.check_places(confined=confined)
    shown_name = place if is_repository(place) else Path(place).name
    if facts.mapped and questions is None:
        access.announce(f"{shown_name}: {facts.mapped}")
    if facts.without_image and facts.has_images:
        count = facts.without_image
        rows = "1 row has" if count == 1 else f"{count} rows have"
        access.announce(f"{name}: {rows} no image and will be asked as text alone")
    return DatasetInfo(
        name=name,
        kind=facts.kind,
        modality="image" if facts.has_images else "text",
        path=table,
        shards=tuple(found.files[1:]),
        columns=columns,
        folder=found.folder,
        rules=CIRCULAR if circular else OWN,
        confined=confined,
        checksum=images.add_to(checksum),
        family="own",
        source=f"{found.hub.source}" if found.hub else "own file",
        revision=found.hub.version if found.hub else "",
        has_references=facts.has_references,
        **OWN_CLASSES[facts.kind]._asdict(),
    )


def find_files(place: str, access: FileAccess) -> Found:
    """Return the files of a table; VlmEvalError if there is none, or more than one."""
    if is_repository(place):
        hub = bring_table(place, access)
        return Found(hub.files, hub.inside, hub)
    path = Path(place)
    check_exists(place, access.data_root)
    if path.is_dir():
        return Found([table_in(path)], path)
    return Found([path], path.parent)


def table_in(folder: Path) -> Path:
    """Return the one table in a folder; VlmEvalError if it has none or several.

    One that is called metadata describes the folder's images.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file())
    tables = [file for file in files if is_readable(file)]
    chosen = [file for file in tables if dataset_name(str(file)) == "metadata"]
    chosen = chosen or tables
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        names = ", ".join(file.name for file in chosen)
        raise VlmEvalError(
            f"{folder} has several tables: {names}. Name one of them: "
            f"--vlm-data={shlex.quote(list_datasets([str(chosen[0])]))}."
        )
    below = sorted({file.parent for file in folder.glob("*/*") if is_readable(file)})
    hint = ""
    if below:
        given = shlex.quote(list_datasets([f"{below[0]}/"]))
        hint = f" There is one in {below[0]}, which --vlm-data={given} takes."
    raise VlmEvalError(
        f"{folder} is a folder without a table. Put one beside its images, as "
        f"metadata.csv with the columns file_name, question and answer ({ACCEPTED})."
        f"{hint}"
    )


def is_readable(file: Path) -> bool:
    """Return whether a file is a table by its name."""
    return Path(file.name.lower().removesuffix(".gz")).suffix in FORMATS


def check_exists(place: str, data_root: Path) -> None:
    """Raise VlmEvalError, with what may be meant, if there is no such table.

    A table in `data_root` is known by its name. A repository is not looked for.
    """
    path = Path(place)
    if is_repository(place) or path.is_file() or path.is_dir():
        return
    if path.exists():
        raise VlmEvalError(
            f"{path} is not a regular file: a FIFO or a device is not read. Write the "
            "table to a file, and name that."
        )
    name = dataset_name(str(path))
    beside = [file.name for file in path.parent.glob("*") if is_readable(file)]
    hint = did_you_mean(path.name, beside, most=SHOWN_FILES, cutoff=0.75)
    if (there := data_root / path.name).is_file():
        given = shlex.quote(list_datasets([name]))
        hint = f" There is {there}, which is the dataset that --vlm-data={given} takes."
    raise VlmEvalError(
        f"{name}: there is no file {path}. Name a table that exists ({ACCEPTED}), or a "
        f"folder with one.{hint}"
    )


def _checksum(
    files: Sequence[Path], columns: Mapping[str, str], cache_dir: Path
) -> str:
    """Return what tells a table from another: its bytes, and how they are read."""
    sums = [md5_of_file(file, cache_dir) for file in files]
    kind = format_of(files[0])
    if kind == "TSV" and not columns:
        return sums[0]
    return digest([*sums, kind, sorted(columns.items())])


def _facts(
    files: Sequence[Path], columns: Mapping[str, str], checksum: str, cache_dir: Path
) -> TableFacts:
    from filelock import FileLock

    memory = cache_dir / "own" / f"{checksum}-{FORMAT}.json"
    # Of the processes of a session one reads the table, the others its result.
    with ExitStack() as stack:
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(memory.with_suffix(".lock")))
        with suppress(OSError, ValueError, TypeError):
            return TableFacts(**json.loads(memory.read_text(encoding="utf-8")))
        facts = read_facts(files, columns)
        remember(memory, facts._asdict())
        return facts


class _Images(NamedTuple):
    """The files that a table names, by their paths there, each with its first row.

    `folder` is where those of a table that may read no others are.
    """

    table: Path
    rows: Mapping[str, str]
    folder: Path
    access: FileAccess

    def check_places(self, *, confined: bool) -> None:
        """Announce folders beside the table's that are read; VlmEvalError if none may.

        Where a file lies is where its symlinks lead.
        """
        own = self.folder.resolve()
        outside: dict[str, Path] = {}
        for image in self.rows:
            with suppress(OSError, ValueError):  # of which its row is told
                place = (self.table.parent / image).resolve()
                if not place.is_relative_to(own):
                    outside[image] = place
        if not outside:
            return
        if confined:
            faults = [
                f"{self.rows[image]}: {image}: {place} lies outside of the "
                "table's folder"
                for image, place in outside.items()
            ]
            raise VlmEvalError(faults_text(self.table, faults, INSIDE_ONLY))
        places = map(str, outside.values())
        announce_outside(self.table, places, self.folder, self.access)

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
                f"{row}: {image}: {missing[image]}"
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


def as_frame(rows: Any, who: str) -> pd.DataFrame:
    """Return rows as a DataFrame; `VlmEvalError` for what are none."""
    import pandas as pd

    if isinstance(rows, pd.DataFrame):
        return rows
    listed = list(rows) if isinstance(rows, Iterable) else None
    if not listed or not all(isinstance(each, Mapping) for each in listed):
        given = type(rows).__name__ if listed != [] else "nothing"
        raise VlmEvalError(
            f"{who} gave {given} as its rows. It has to give a path, a DataFrame, or a "
            "list of rows, each a dict by column, at least one."
        )
    return pd.DataFrame(listed).fillna("")


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
    return text if text.startswith("[") or not text else str(here / text)
