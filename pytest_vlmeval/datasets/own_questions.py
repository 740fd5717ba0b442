"""The questions that a benchmark makes of the rows of a table, as a table of its own.

Published tables have several questions in a row, options in a list, or a prompt that is
no column. What a function of the user's own makes of such rows is written down once, by
its content, and then is a table of the user's own like any other. It holds the images,
which come from the table, from files beside it, or from an archive of its repository.
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.datasets.download import digest, md5_of_file, remember
from pytest_vlmeval.errors import VlmEvalError, describe
from pytest_vlmeval.records import COLUMNS
from pytest_vlmeval.sandbox.own_columns import RowError, kind_of, read_images
from pytest_vlmeval.sandbox.own_files import (
    MOST_IMAGE_BYTES,
    OUTSIDE,
    read_regular,
)
from pytest_vlmeval.sandbox.own_formats import open_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vlmeval.datasets.download import FileAccess
    from pytest_vlmeval.datasets.own_hub import HubTable
    from pytest_vlmeval.sandbox.own_columns import Image

# By these names a question is sent as it is written, with each image in its place.
ASKED, SAID = "query", "response"
# What each column of the written table is for: none of the others is guessed to be.
TAKEN = {
    **{name: "" for name, others in COLUMNS.items() if others},
    "question": ASKED,
    "answer": SAID,
    "index": "index",
    "image": "image",
}
FORMAT = 1
SHOWN_COLUMNS = 40
SHOWN_FOLDERS = 3
OUTSIDE_TABLE = (
    "it lies outside of the table's folder, and --vlm-data-paths=inside is given"
)
DAMAGED = (zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnQuestions:
    """A function of the user's own that makes the questions of a table's row.

    `name` is that of the function, as `TestMine.questions`, `place` its file and line,
    and `digest` names its code and all of the user's own that this calls.
    """

    name: str
    make: Callable[[Mapping[str, Any]], object]
    place: str
    digest: str


def write_questions(
    questions: OwnQuestions,
    place: str,
    files: Sequence[Path],
    folder: Path,
    access: FileAccess,
    hub: HubTable | None = None,
) -> Path:
    """Return the table of the questions that are made of all rows of a table's files.

    Its images lie below `folder`, or are in an archive of the repository `hub`; those
    of a table that is no repository may lie elsewhere with own_paths="any". What was
    written is found again by the files' content and the function's code.
    Raises VlmEvalError for rows of which no questions can be made, with their numbers.
    """
    from filelock import FileLock

    sums = [md5_of_file(file, access.cache_dir) for file in files]
    where = [str(folder.absolute()), access.own_paths]
    key = digest([FORMAT, *sums, questions.digest, *where])[:32]
    home = access.cache_dir / "questions"
    home.mkdir(parents=True, exist_ok=True)
    memory = home / f"{key}.json"
    with FileLock(home / f"{key}.lock"), ExitStack() as stack:
        with suppress(OSError, ValueError, KeyError):
            known = json.loads(memory.read_text(encoding="utf-8"))
            path = home / f"{known['content']}.jsonl"
            if path.is_file() and _unchanged(known["images"]):
                announce_outside(files[0], known["images"], folder, access)
                return path
        images = _Images(place, files[0].parent, folder, access, hub)
        stack.callback(images.close)
        partial = home / f"{key}.partial"
        stack.callback(partial.unlink, missing_ok=True)
        content = _write(questions, place, files, images, partial)
        if images.missing:
            images.bring()
            content = _write(questions, place, files, images, partial)
        path = home / f"{content}.jsonl"
        partial.replace(path)
        remember(memory, {"content": content, "images": images.states})
    announce_outside(files[0], images.states, folder, access)
    return path


def announce_outside(
    table: Path, images: Iterable[str], folder: Path, access: FileAccess
) -> None:
    """Announce the folders of a table's images that are not in its own.

    Where a file lies is where its symlinks lead.
    """
    own = folder.resolve()
    outside = {str(Path(each).resolve().parent) for each in images}
    folders = sorted(each for each in outside if not Path(each).is_relative_to(own))
    if not folders:
        return
    more = len(folders) - SHOWN_FOLDERS
    access.announce(
        f"{table.name} names images outside of its folder, in "
        + ", ".join(folders[:SHOWN_FOLDERS])
        + (f" and {more} more folders" if more > 0 else "")
    )


def _unchanged(states: Mapping[str, list[int]]) -> bool:
    return all(_state_of(Path(path)) == state for path, state in states.items())


def _state_of(path: Path) -> list[int]:
    """Return what tells that a file has changed."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _write(
    questions: OwnQuestions,
    place: str,
    files: Sequence[Path],
    images: _Images,
    path: Path,
) -> str:
    """Write the table; return what names its content."""
    found = hashlib.sha256()
    number = count = 0
    with path.open("wb") as out:
        for file in files:
            for record in open_records(file).rows:
                number += 1
                where = f"row {number}"
                if record.line:
                    where += f" (line {record.line})"
                if record.fault:
                    raise VlmEvalError(f"{place}: {where} {record.fault}.")
                for made in _made(questions, place, where, record.cells):
                    count += 1
                    try:
                        row = _row(made, count, images)
                    except RowError as error:
                        raise VlmEvalError(
                            f"{place}: what {questions.name} ({questions.place}) makes "
                            f"of {where} cannot be used: {error}."
                        ) from None
                    line = json.dumps(row, ensure_ascii=False).encode(errors="replace")
                    found.update(line)
                    out.write(line + b"\n")
    if not count:
        raise VlmEvalError(
            f"{place}: {questions.name} ({questions.place}) makes no question of its "
            f"{number} rows. It has to give a dict for each question."
        )
    return found.hexdigest()[:32]


def _made(
    questions: OwnQuestions, place: str, where: str, cells: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """Yield the questions of a row; VlmEvalError if the function fails."""
    head = f"{place}: {questions.name} ({questions.place}) "
    try:
        made = questions.make(dict(cells))
        if isinstance(made, Mapping):
            made = [made]
        listed = list(made) if isinstance(made, Iterable) else None
    except (KeyboardInterrupt, GeneratorExit, VlmEvalError):
        raise
    except BaseException as error:
        names = list(cells)
        more = len(names) - SHOWN_COLUMNS
        shown = ", ".join(names[:SHOWN_COLUMNS])
        raise VlmEvalError(
            f"{head}fails at {where}: {describe(error)}. The row has the columns "
            f"{shown}{f' and {more} more' if more > 0 else ''}."
        ) from None
    if listed is None or not all(isinstance(each, Mapping) for each in listed):
        given = type(made).__name__ if listed is None else "a list with others"
        raise VlmEvalError(
            f"{head}gave {given} for {where}. It has to give a dict, by column, for "
            'each question of the row: {"question": "What?", "answer": "A cat"}.'
        )
    yield from listed


def _row(
    made: Mapping[str, Any], number: int, images: _Images
) -> dict[str, str | list[str]]:
    """Return a question as a row of the table; RowError for what cannot be one."""
    row: dict[str, str | list[str]] = {
        str(name): _text(value, str(name))
        for name, value in made.items()
        if name not in ("question", "answer", "index", "image", "image_path")
    }
    for name, known in (("question", ASKED), ("answer", SAID)):
        if name == "question" and name not in made:
            raise RowError(
                f"it has no question, only {', '.join(map(str, made)) or 'nothing'}"
            )
        row[known] = _text(made.get(name), name)
    row["index"] = _text(made.get("index", number), "index")
    shown: list[Image] = []
    for name in ("image", "image_path"):
        shown = shown or read_images(made.get(name), name)
    row["image"] = [
        each.text if each.kind == "data" else images.read(each.text) for each in shown
    ]
    return row


def _text(value: object, name: str) -> str:
    """Return a cell as text; lists and objects as JSON."""
    if value is None or value != value:  # not a number: missing
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple | dict):
        try:
            return json.dumps(value, ensure_ascii=False)
        except TypeError:
            raise RowError(
                f"its {name} is {kind_of(value)} that JSON cannot hold"
            ) from (None)
    if isinstance(value, bytes):
        raise RowError(f"its {name} is bytes; only image takes these")
    return str(value)


class _Images:
    """The images that rows name by their paths, in base64.

    `missing` are those that the repository has and that are not here yet. `states` tell
    whether files beside a table that is no repository have changed.
    """

    def __init__(
        self,
        place: str,
        beside: Path,
        folder: Path,
        access: FileAccess,
        hub: HubTable | None,
    ) -> None:
        self._place = place
        self._beside = beside
        self._access = access
        self._hub = hub
        confined = hub is not None or access.own_paths == "inside"
        self._within = [folder.resolve()] if confined else None
        self._brought = False
        self._closed = [] if hub is None else sorted(hub.archives, reverse=True)
        self._opened: list[zipfile.ZipFile] = []
        self._members: dict[str, tuple[zipfile.ZipFile, zipfile.ZipInfo]] = {}
        self.missing: dict[str, None] = {}
        self.states: dict[str, list[int]] = {}

    def close(self) -> None:
        """Close the archives."""
        for archive in self._opened:
            archive.close()

    def bring(self) -> None:
        """Download what is missing."""
        assert self._hub is not None
        self._hub.bring_images(self.missing, self._access)
        self.missing.clear()
        self._brought = True

    def read(self, name: str) -> str:
        """Return an image; RowError if it cannot be had."""
        path = self._beside / name
        if self._hub is not None and not path.exists():
            data = self._bring_later(self._hub, name)
        else:
            try:
                data = read_regular(path, MOST_IMAGE_BYTES, self._within)
                if self._hub is None:
                    self.states[str(path.absolute())] = _state_of(path)
            except OSError as error:
                why = error.strerror or str(error)
                if why == OUTSIDE and self._hub is None:
                    why = OUTSIDE_TABLE
                raise RowError(f"its image {name}: {why}") from None
        return base64.b64encode(data).decode("ascii")

    def _bring_later(self, hub: HubTable, name: str) -> bytes:
        """Return an image out of an archive; nothing if it is to be downloaded."""
        beside = self._beside.relative_to(hub.root).as_posix()
        inside = posixpath.normpath(posixpath.join(beside, name))
        if inside in hub.sizes:
            if self._brought:
                raise RowError(
                    f"its image {name} is not on disk, and --vlm-offline is set. Run "
                    "the same command once without it"
                )
            self.missing[name] = None
            return b""
        while inside not in self._members and self._closed:
            # That which is called as a folder of the image first.
            folders = PurePosixPath(inside).parts
            self._closed.sort(key=lambda each: PurePosixPath(each).stem in folders)
            self._open(hub, self._closed.pop())
        if inside not in self._members:
            raise RowError(
                f"its image {name} is neither a file of the repository nor in an "
                f"archive of it ({', '.join(hub.archives) or 'it has none'})"
            )
        archive, member = self._members[inside]
        if member.file_size > MOST_IMAGE_BYTES:
            raise RowError(
                f"its image {name} has {member.file_size:,} bytes, more than "
                f"{MOST_IMAGE_BYTES:,}"
            )
        try:
            with archive.open(member) as file:
                return file.read(MOST_IMAGE_BYTES)
        except (OSError, RuntimeError, NotImplementedError, *DAMAGED) as error:
            raise RowError(
                f"its image {name} cannot be read from {archive.filename} "
                f"({describe(error)})"
            ) from None

    def _open(self, hub: HubTable, path: str) -> None:
        """Take note of the files in an archive, as if they were beside it."""
        file = hub.bring_archive(path, self._access)
        try:
            archive = zipfile.ZipFile(file)
        except (OSError, *DAMAGED) as error:
            raise VlmEvalError(
                f"{self._place}: {file} cannot be read ({describe(error)}). Remove it, "
                "to have it downloaded again."
            ) from None
        self._opened.append(archive)
        beside = PurePosixPath(path).parent
        for member in archive.infolist():
            name = posixpath.normpath(str(beside / member.filename))
            self._members.setdefault(name, (archive, member))
