"""A table of one's own as a dataset: what ms-vlmeval is told of it, or its faults."""

from __future__ import annotations

import difflib
import hashlib
import json
import shlex
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pytest_vlmeval.datasets.files import md5_of_file, write_whole
from pytest_vlmeval.datasets.own_table import TableFacts, faults_text, read_facts
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_values import (
    NOT_IN_NAMES,
    can_be_name,
    dataset_name,
    list_datasets,
)
from pytest_vlmeval.records import DatasetInfo
from pytest_vlmeval.sandbox.own_files import (
    MOST_IMAGE_BYTES,
    UnfitFileError,
    check_regular,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_vlmeval.records import JudgeNeed, Kind

# Counts changes in what is checked, so that older results are not read.
FORMAT = 2
SHOWN_FILES = 2
SHOWN_FOLDERS = 3
INSIDE_ONLY = (
    "--vlm-data-paths=inside reads no images outside of the table's folder. Move them "
    "there, or leave the option out."
)
WHERE_PICTURES = "A path in image_path counts from the table's folder, or is absolute."


# Names that no rule of ms-vlmeval knows, and that no file can have here; but one of
# its rules is for names with the word `circular`.
OWN = "own~"
CIRCULAR = "own~circular"


class OwnClass(NamedTuple):
    """The class of ms-vlmeval that asks and scores a kind of table."""

    class_name: str
    module: str
    kind: Kind
    judge: JudgeNeed


# As build_dataset decides (dataset/__init__.py:397), where the classes for one's own
# files only differ in where they read them; `CustomVQADataset`, which scores nothing,
# is replaced by the class of the published open questions, and by the one of yes/no
# questions where all answers are that.
CLASSES: dict[Kind, OwnClass] = {
    "multiple_choice": OwnClass(
        "ImageMCQDataset", "image_mcq", "multiple_choice", "optional"
    ),
    "yes_no": OwnClass("ImageYORNDataset", "image_yorn", "yes_no", "optional"),
    "vqa": OwnClass("ImageVQADataset", "image_vqa", "vqa", "unused"),
}


class OwnAccess(NamedTuple):
    """Where is kept what was found, and how the images are had that a table names.

    `paths` says whether they may lie outside of the table's folder. `digest` gives for
    each file a digest of its content or why it has none: whoever reads files does so
    in the sandbox. In `data_root` tables are known by name. `announce` gets what is
    worth a line.
    """

    cache_dir: Path
    digest: Callable[[Sequence[Path]], Sequence[tuple[str, str]]]
    data_root: Path
    paths: Literal["any", "inside"] = "any"
    announce: Callable[[str], None] = lambda line: None


def describe_own(path: Path, access: OwnAccess) -> DatasetInfo:
    """Give the record of the dataset in `path`, which is read row by row.

    What was found is kept by the file's checksum, so that only a changed file is read
    again. Raises VlmEvalError with the faults and their rows, counted from 1 below
    the line of names.
    """
    cache_dir = access.cache_dir
    check_exists(path, access.data_root)
    name = _checked_name(path)
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
    chosen = CLASSES[facts.kind]
    images = _Images(path, facts.pictures, access)
    images.check_places()
    if facts.without_image and facts.has_pictures:
        count = facts.without_image
        rows = "1 row has" if count == 1 else f"{count} rows have"
        access.announce(f"{name}: {rows} no image and will be asked as text alone")
    return DatasetInfo(
        name=name,
        class_name=chosen.class_name,
        module=chosen.module,
        kind=chosen.kind,
        modality="image" if facts.has_pictures else "text",
        path=path,
        rules=CIRCULAR if circular else OWN,
        confined=access.paths == "inside",
        checksum=images.add_to(checksum),
        family="own",
        source="own file",
        has_references=facts.has_references,
        judge=chosen.judge,
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
    beside = {file.stem: file.name for file in path.parent.glob("*.tsv")}
    near = difflib.get_close_matches(name, beside, n=SHOWN_FILES, cutoff=0.6)
    hint = (
        f" Did you mean {' or '.join(beside[stem] for stem in near)}?" if near else ""
    )
    if (there := data_root / path.name).is_file():
        given = shlex.quote(list_datasets([name]))
        hint = f" There is {there}, which is the dataset that --vlm-data={given} takes."
    raise VlmEvalError(
        f"{name}: there is no file {path}. Name a .tsv file that exists.{hint}"
    )


def _checked_name(path: Path) -> str:
    name = dataset_name(str(path))
    if not can_be_name(name):
        raise VlmEvalError(
            f"{path}: its name is part of test ids and cannot be {name!r} there. "
            f"Rename the file without {NOT_IN_NAMES}."
        )
    return name


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
        _remember(memory, facts._asdict())
        return facts


class _Images(NamedTuple):
    """The files that a table names, by their paths there, each with its first row."""

    table: Path
    rows: Mapping[str, int]
    access: OwnAccess

    def check_places(self) -> None:
        """Say which folders beside the table's are read; VlmEvalError where none may.

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
        if self.access.paths == "inside":
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
        """Give the checksum of a table with its images.

        Raises VlmEvalError for images that do not exist or are no regular files.
        """
        if not self.rows:
            return checksum
        key = _digest(str(self.table.absolute()).encode())
        memory = self.access.cache_dir / "own" / f"{key}-pictures.json"
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
            digests = self.access.digest(files)
            for image, (digest, reason) in zip(changed, digests, strict=True):
                found[image] = [*found[image], digest]
                if reason:
                    missing[image] = reason
        if missing:
            faults = [
                f"row {row}: {image}: {missing[image]}"
                for image, row in self.rows.items()
                if image in missing
            ]
            raise VlmEvalError(faults_text(self.table, faults, WHERE_PICTURES))
        if changed or found.keys() != known.keys():
            _remember(memory, found)
        parts = [
            checksum,
            *([name, state[-1]] for name, state in sorted(found.items())),
        ]
        return _digest(json.dumps(parts).encode())


def _state_of(file: Path) -> list[object]:
    """Give what tells that a file has changed; raises OSError for what is none."""
    status = file.stat()
    check_regular(file, status)
    if status.st_size > MOST_IMAGE_BYTES:
        raise UnfitFileError(
            f"it has {status.st_size:,} bytes, more than {MOST_IMAGE_BYTES:,}", file
        )
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _remember(memory: Path, data: object) -> None:
    # A cache that cannot be written costs time only.
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_whole(memory, json.dumps(data))
