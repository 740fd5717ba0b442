"""A table of one's own as a dataset: what ms-vlmeval is told of it, or its faults."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.datasets.files import md5_of_file, write_whole
from pytest_vlmeval.datasets.own_table import TableFacts, faults_text, read_facts
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo

if TYPE_CHECKING:
    from pytest_vlmeval.records import JudgeNeed, Kind

# Counts changes in what is checked, so that older results are not read.
FORMAT = 1
SHOWN_FILES = 2
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


def describe_own(path: Path, cache_dir: Path) -> DatasetInfo:
    """Give the record of the dataset in `path`, which is read row by row.

    What was found is kept in `cache_dir` by the file's checksum, so that only a
    changed file is read again. Raises VlmEvalError with the faults and their rows,
    counted from 1 below the line of names.
    """
    check_exists(path)
    name = _checked_name(path)
    checksum = md5_of_file(path, cache_dir)
    facts = _facts(path, checksum, cache_dir)
    circular = facts.grouped or "circular" in name.lower()
    if circular and not facts.whole_indexes:
        raise VlmEvalError(
            f"{path}: a table with a column g_index or 'circular' in its name asks "
            "each question once per rotation of its options, and so needs whole "
            "numbers in its column index."
        )
    chosen = CLASSES[facts.kind]
    return DatasetInfo(
        name=name,
        class_name=chosen.class_name,
        module=chosen.module,
        kind=chosen.kind,
        modality="image" if facts.has_pictures else "text",
        path=path,
        rules=CIRCULAR if circular else OWN,
        checksum=_with_pictures(path, facts, checksum, cache_dir),
        family="own",
        source="own file",
        has_references=facts.has_references,
        judge=chosen.judge,
    )


def check_exists(path: Path) -> None:
    """Raise VlmEvalError, with files of a similar name, if there is no such file."""
    if path.is_file():
        return
    if path.is_dir():
        raise VlmEvalError(f"{path} is a folder. Name a .tsv file in it.")
    beside = {file.stem: file.name for file in path.parent.glob("*.tsv")}
    near = difflib.get_close_matches(path.stem, beside, n=SHOWN_FILES, cutoff=0.6)
    hint = (
        f" Did you mean {' or '.join(beside[stem] for stem in near)}?" if near else ""
    )
    raise VlmEvalError(
        f"{path.stem}: there is no file {path}. Name a .tsv file that exists.{hint}"
    )


def _checked_name(path: Path) -> str:
    name = path.stem
    if not re.fullmatch(r"[\w.+-]+", name, re.ASCII):
        raise VlmEvalError(
            f"{path}: its name is part of test ids and cannot be {name!r} there. "
            "Rename the file with letters from a to z, digits, '_', '-', '+' and '.' "
            "only."
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


def _with_pictures(
    path: Path, facts: TableFacts, checksum: str, cache_dir: Path
) -> str:
    """Give the checksum of a table and of the pictures that it names.

    Raises VlmEvalError for pictures that do not exist.
    """
    if not facts.pictures:
        return checksum
    key = _digest(str(path.absolute()).encode())
    memory = cache_dir / "own" / f"{key}-pictures.json"
    known: dict[str, list[object]] = {}
    with suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(memory.read_text(encoding="utf-8")))
    found: dict[str, list[object]] = {}
    missing: list[str] = []
    for picture, row in facts.pictures.items():
        file = path.parent / picture
        try:
            stat = file.stat()
            state: list[object] = [stat.st_size, stat.st_mtime_ns]
            if known.get(picture, [])[:2] == state:
                found[picture] = known[picture]
            else:
                found[picture] = [*state, _digest(file.read_bytes())]
        except OSError as error:
            missing.append(f"row {row}: {picture}: {error.strerror}")
    if missing:
        raise VlmEvalError(faults_text(path, missing, WHERE_PICTURES))
    if found != known:
        _remember(memory, found)
    parts = [checksum, *([name, state[2]] for name, state in sorted(found.items()))]
    return _digest(json.dumps(parts).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _remember(memory: Path, data: object) -> None:
    # A cache that cannot be written costs time only.
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_whole(memory, json.dumps(data))
