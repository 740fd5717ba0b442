"""Which columns of a user's own table are for what, and its rows in one form.

In that form a row has texts alone: `index`, `question`, `answer`, `A`, `B`, ... for
options, `image` in base64, `image_path`, and all other columns of one value. What
stands elsewhere under another name, as a list, or in messages is brought into it.
"""

from __future__ import annotations

import ast
import base64
import difflib
import json
import math
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import COLUMNS, COUNTED, LETTERS
from pytest_vlmeval.sandbox.own_files import PLACE, SHORTEST_IMAGE
from pytest_vlmeval.sandbox.own_formats import format_of, is_titled, open_records
from pytest_vlmeval.sandbox.rows import HALVES, NO_CHARACTER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_vlmeval.sandbox.own_formats import Record

IMAGE_SUFFIXES = tuple(
    ".png .jpg .jpeg .webp .gif .bmp .tif .tiff .avif .heic .heif".split()
)
# A longer text is not a list of paths.
LONGEST_LIST = 4_096
SHOWN_TEXT = 60
SHOWN_COLUMNS = 40
SEPARATED = {";": "semicolons", "\t": "tabs"}


class RowError(Exception):
    """What is wrong with one row."""


class Row(NamedTuple):
    """A row in the one form; `number` counts from 1, over all files of a table.

    `line` is where it begins in its file, 0 where lines are not counted. `fault` says
    why it cannot be used.
    """

    number: int
    cells: dict[str, str]
    line: int = 0
    fault: str = ""

    @property
    def place(self) -> str:
        """Name the row for a message."""
        return f"row {self.number}" + (f" (line {self.line})" if self.line else "")


class OwnTable:
    """A table of the user's own, in one or several files with the same columns.

    `given` maps what a column is for to its name, as --vlm-columns has it; an empty
    name leaves it out. `names` are all columns, `sources` those that are for something,
    by that. Raises VlmEvalError for a file that cannot be read, or columns of which it
    is open what they are for.
    """

    def __init__(self, files: Sequence[Path], given: Mapping[str, str]) -> None:
        self.path = files[0]
        self._given = given
        self._opened = [open_records(path) for path in files]
        first = self._opened[0]
        self.names = list(first.names)
        for records in self._opened[1:]:
            self.names += [name for name in records.names if name not in self.names]
        self._separator = first.separator
        twice = {name for name in first.names if first.names.count(name) > 1 and name}
        if twice:
            raise self.error(f"has more than one column {min(twice)}")
        self.sources = self._find_sources()
        self._targets = {name: target for target, name in self.sources.items()}
        asked, said = self.sources.get("question", ""), self.sources.get("answer", "")
        # Whether questions are whole prompts, which may have places for images.
        self.as_written = "messages" in self.sources or (
            asked.lower() == "query" and said.lower() == "response"
        )
        self._renamed = self._find_renamed()
        # What rows were changed beyond the names of their columns.
        self._remarks: dict[str, None] = {}

    def error(self, text: str, note: str = "") -> VlmEvalError:
        """Return an error of the table, with the columns that it has."""
        names = self.names[:SHOWN_COLUMNS]
        more = len(self.names) - len(names)
        columns = ", ".join(names) + (f" and {more} more" if more > 0 else "")
        return VlmEvalError(f"{self.path} {text}. It has the columns {columns}.{note}")

    def _find_sources(self) -> dict[str, str]:
        for target, name in self._given.items():
            if name and name not in self.names:
                near = difflib.get_close_matches(name, self.names, n=1)
                option = f"--vlm-columns={target}={name}"
                raise self.error(
                    f"has no column {name!r}, which {option} names",
                    f" Did you mean {near[0]}?" if near else "",
                )
        found = {target: name for target, name in self._given.items() if name}
        skipped = set(self._given)
        if set(COUNTED) & set(found):
            skipped.add("answer")
        # Messages hold the question, unless that has a column of its own.
        own_question = "question" in self.names or found.get("question")
        if own_question and "messages" not in found:
            skipped.add("messages")
        for target in COLUMNS:
            if target in skipped or (target == "question" and "messages" in found):
                continue
            source = self._source_of(target, set(found.values()))
            if source is not None:
                found[target] = source
        return found

    def _source_of(self, target: str, taken: set[str]) -> str | None:
        if target in self.names:
            return target if target not in taken else None
        accepted = (target, *COLUMNS[target])
        fitting = [
            name
            for name in self.names
            if name.strip().lower() in accepted and name not in taken
        ]
        if len(fitting) > 1:
            options = " or ".join(f"--vlm-columns={target}={each}" for each in fitting)
            raise self.error(
                f"has {len(fitting)} columns that may be its {target}: "
                f"{', '.join(fitting)}",
                f" Give {options}.",
            )
        return fitting[0] if fitting else None

    def _find_renamed(self) -> dict[str, str] | None:
        """Return the names in the one form of columns that need no more than these.

        That is so in a text file whose options and answers have cells of their own.
        """
        special = self.as_written or set(COUNTED) & set(self.sources)
        letters = [name for name in (*self.names, *self.sources) if name in LETTERS]
        if "options" in self.sources and ("options" in self._given or not letters):
            special = True
        if special or not is_titled(self.path):
            return None
        return {
            name: self._targets.get(name, name)
            for name in self.names
            if name in self._targets or name not in self.sources
        }

    def nearest(self, name: str) -> str | None:
        """Return a column that is spelt nearly like a name."""
        by_small = {each.strip().lower(): each for each in self.names}
        near = difflib.get_close_matches(name, by_small, n=1, cutoff=0.7)
        return by_small[near[0]] if near else None

    def describe(self) -> str:
        """Return what was taken from other columns, or changed; "" for nothing.

        It is known in full once all rows were read.
        """
        parts = [
            f"{target} from {name!r}"
            for target, name in self.sources.items()
            if target != name
        ]
        if "messages" in self.sources:
            parts.append("prompts as the messages have them")
        elif self.as_written:
            parts.append("prompts as they are written")
        if self._separator in SEPARATED:
            parts.insert(0, f"{SEPARATED[self._separator]} between its columns")
        return ", ".join([*parts, *self._remarks])

    def rows(self) -> Iterator[Row]:
        """Yield the rows in the one form, once; VlmEvalError if a file breaks off."""
        number = 0
        # Of a TSV, lines are not counted: they are its rows.
        has_lines = format_of(self.path) != "TSV"
        for records in self._opened:
            for record in records.rows:
                number += 1
                line = record.line if has_lines else 0
                cells: dict[str, str] = {}
                fault = record.fault
                if not fault:
                    try:
                        cells = self._cells(record)
                    except RowError as error:
                        fault = str(error)
                yield Row(number, cells, line, fault)

    def _cells(self, record: Record) -> dict[str, str]:
        values, sources = record.cells, self.sources
        cells: dict[str, str] = {}
        if self._renamed is not None:
            cells = {name: values[known] for known, name in self._renamed.items()}
            options = {name: cells[name] for name in cells if name in LETTERS}
            answer = cells.get("answer", "")
            if options and not options.get(answer):
                self._set_answer(cells, options, values, Asked())
            if not _is_plain_image(cells):
                self._set_images(cells, values, Asked())
            return cells
        # In the order of the columns, whatever they are for.
        for name, value in values.items():
            if (target := self._targets.get(name)) is not None:
                if target not in ("options", "messages", *COUNTED):
                    cells[target] = ""
            elif name not in sources and (text := _text(value)) is not None:
                cells[name] = text
        for target in sources:
            if target in PLAIN or target in LETTERS:
                cells[target] = _plain(values.get(sources[target]), target)
        asked = Asked()
        if "messages" in sources:
            asked = read_messages(values.get(sources["messages"]))
            cells["question"] = asked.question
        if self.as_written:
            for name, reason in (("system", NO_SYSTEM), ("history", ONE_QUESTION)):
                if name not in self._targets and values.get(name):
                    raise RowError(reason)
        options = self._options(values, cells)
        cells.update(options)
        self._set_answer(cells, options, values, asked)
        self._set_images(cells, values, asked)
        return cells

    def _options(
        self, values: Mapping[str, Any], cells: Mapping[str, str]
    ) -> dict[str, str]:
        letters = {name: cells[name] for name in LETTERS if name in cells}
        listed = self.sources.get("options")
        if listed is None or (letters and "options" not in self._given):
            return letters
        found = read_options(values.get(listed))
        plain = strip_letters(found)
        if plain != found:
            self._remarks["options without their own letters"] = None
        return dict(zip(LETTERS, plain, strict=False))

    def _set_answer(
        self,
        cells: dict[str, str],
        options: Mapping[str, str],
        values: Mapping[str, Any],
        asked: Asked,
    ) -> None:
        given = {name: text for name, text in options.items() if text.strip()}
        for target, first in COUNTED.items():
            if target in self.sources:
                value = values.get(self.sources[target])
                cells["answer"] = letter_of(value, first, given)
                return
        said: Any = asked.answer
        if "answer" in self.sources:
            said = values.get(self.sources["answer"])
        elif "messages" not in self.sources:
            return
        if isinstance(said, bool):
            self._remarks["answers Yes for true, No for false"] = None
            said = "Yes" if said else "No"
        if isinstance(said, list) and given and len(said) == 1:
            (said,) = said
        if isinstance(said, list):
            cells["answer"] = _several(said)
        else:
            text = _plain(said, "answer")
            cells["answer"] = self._letter(text, given) if given else text

    def _letter(self, text: str, given: Mapping[str, str]) -> str:
        """Return the letter that an answer stands for, else the answer itself."""
        bare = text.strip()
        fitting = [name for name, option in given.items() if option.strip() == bare]
        if bare.upper() in given:
            others = [name for name in fitting if name != bare.upper()]
            if others and "options" in self.sources and "answer" not in self._given:
                raise RowError(
                    f"the answer {shown(text)} is the letter of an option and the text "
                    f"of {', '.join(others)}; --vlm-columns=answer="
                    f"{self.sources.get('answer', 'answer')} takes letters for letters"
                )
            return text
        if "answer" not in self._given and re.fullmatch("[0-9]{1,2}", bare):
            name = self.sources.get("answer", "answer")
            if int(bare) <= len(given):
                raise RowError(
                    f"the answer {bare} may be the number of an option. Give "
                    f"--vlm-columns=answer_from_0={name} if they count from 0, "
                    f"--vlm-columns=answer_from_1={name} if from 1, or "
                    f"--vlm-columns=answer={name} if it is an option's text"
                )
        if len(fitting) == 1:
            self._remarks["the letters of answers from the options' texts"] = None
            return fitting[0]
        return text

    def _set_images(
        self, cells: dict[str, str], values: Mapping[str, Any], asked: Asked
    ) -> None:
        found = asked.images
        for target in ("image", "image_path"):
            if target not in self.sources:
                continue
            name = self.sources[target]
            further = read_images(values.get(name), target)
            if asked.images and further:
                raise RowError(
                    f"has images in its messages and in its column {name}; their order "
                    "is open. Leave out one of these"
                )
            # Paths count where there is no image in base64.
            found = found or further
        data = [each.text for each in found if each.kind == "data"]
        paths = [each.text for each in found if each.kind == "path"]
        if data and paths:
            raise RowError("some of its images are files and some are in the table")
        if self.as_written:
            _check_places(cells["question"], len(found))
        if data or "image" in self.sources:
            cells["image"] = _listed(data)
        if paths or ("image_path" in self.sources and not data):
            cells["image_path"] = _listed(paths)


def _is_plain_image(cells: Mapping[str, str]) -> bool:
    """Return whether the image of a text file's row is in the one form already."""
    if image := cells.get("image", ""):
        return len(image) >= SHORTEST_IMAGE and not (
            image.startswith(("[", "data:")) or "." in image
        )
    path = cells.get("image_path", "")
    return not path.startswith(("[", "data:", "http", "HTTP", "file://"))


# What is taken from its column as it stands there.
PLAIN = ("index", "question", "category", "split", "hint", "g_index")
NO_SYSTEM = (
    "has a system message, and a row holds what the user asks. Leave it out; "
    "--vlm-system-prompt gives one to all rows"
)
ONE_QUESTION = (
    "has several turns, and a row asks one question. Make a row of each question, or "
    "write what was said before into it"
)


def shown(text: str) -> str:
    """Return a text for a message, shortened."""
    return repr(text if len(text) <= SHOWN_TEXT else text[:SHOWN_TEXT] + "…")


def _text(value: object) -> str | None:
    """Return a single value as text, None for what holds several."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        # No text that UTF-8 has holds half a character.
        return HALVES.sub(NO_CHARACTER, value) if not value.isascii() else value
    if isinstance(value, bytes | list | tuple | dict):
        return None
    return str(value)


def _plain(value: object, target: str) -> str:
    text = _text(value)
    if text is None:
        raise RowError(f"its {target} is {kind_of(value)}, not a text")
    return text


def kind_of(value: object) -> str:
    """Name the kind of a value that is no single one."""
    if isinstance(value, bytes):
        return "bytes"
    return "a list" if isinstance(value, list | tuple) else "an object"


def _several(values: Sequence[object]) -> str:
    texts = [_text(each) for each in values]
    if None in texts:
        raise RowError("its answer is a list, but not one of texts")
    return repr(texts) if texts else ""


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else repr(list(texts)) if texts else ""


def read_list(cell: str) -> list[str] | None:
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


def _literal(text: str) -> object:
    """Read a list or an object in JSON or Python's way; None for what is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            found: object = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found
    return None


def read_options(value: object) -> list[str]:
    """Return the texts of options; raises RowError for what is no list of them.

    They are a list, an object by letters, or one with the lists `label` and `text`.
    """
    given = value
    if isinstance(value, str):
        if not value.strip():
            return []
        value = _literal(value.strip())
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = value["text"]
    if isinstance(value, dict):
        # Columns of objects in Parquet have all letters that any row has.
        while value and list(value.values())[-1] is None:
            value.popitem()
        letters = list(LETTERS)[: len(value)]
        if [str(name).strip() for name in value] != letters:
            raise RowError(
                "its options are an object whose names are not A, B, ... in order"
            )
        value = list(value.values())
    if given is None:
        return []
    texts = [_text(each) for each in value] if isinstance(value, list) else [None]
    if None in texts:
        raise RowError(
            f"its options {shown(str(given))} are no list of texts; write "
            '["red", "blue"], or give each a column A, B, ...'
        )
    if len(texts) > len(LETTERS):
        raise RowError(f"it has {len(texts)} options; there are letters for 26")
    return [text or "" for text in texts]


def strip_letters(options: Sequence[str]) -> list[str]:
    """Return options without the letters before them, if each has its own."""
    plain = []
    for letter, option in zip(LETTERS, options, strict=False):
        found = re.fullmatch(rf"\s*\(?{letter}[.):]\s*(.*\S)\s*", option, re.DOTALL)
        if found is None:
            return list(options)
        plain.append(found[1])
    return plain


def letter_of(value: object, first: int, given: Mapping[str, str]) -> str:
    """Return the letter of the option with a number; RowError for none."""
    text = _text(value)
    if text == "":
        return ""
    bare = re.sub(r"\.0+$", "", (text or "").strip())
    number = int(bare) - first if re.fullmatch("[0-9]{1,6}", bare) else -1
    letter = list(LETTERS)[number] if 0 <= number < len(LETTERS) else ""
    if letter not in given:
        last = first + len(given) - 1
        raise RowError(
            f"the answer {shown(str(value))} is not the number of one of its options, "
            f"from {first} to {last}"
        )
    return letter


class Image(NamedTuple):
    """An image of a row: its `data` in base64, or its file's `path`."""

    kind: Literal["data", "path"]
    text: str


def read_images(value: Any, target: str) -> list[Image]:
    """Return the images of a cell, one or a list; raises RowError for what is none.

    Each is bytes, base64, a data URL, a path, or Hugging Face's object of `bytes` and
    `path`. A short text without an image's suffix is left in its place: it may be the
    index of the row with the image.
    """
    if value is None or value == "":
        return []
    if isinstance(value, list | tuple):
        return [image for each in value for image in read_images(each, target)]
    if isinstance(value, bytes):
        return [Image("data", base64.b64encode(value).decode("ascii"))]
    if isinstance(value, dict):
        if value.get("bytes"):
            return read_images(value["bytes"], target)
        inner = value.get("path") or value.get("url") or value.get("image")
        if isinstance(inner, str):
            return [_image_of(inner, "image_path")]
        raise RowError(f"its {target} is an object without bytes and path")
    if not isinstance(value, str):
        text = _text(value)
        if target == "image" and text and re.fullmatch("[0-9]+", text):
            return [Image("data", text)]
        raise RowError(
            f"its {target} {shown(str(value))} is neither an image nor a path"
        )
    if value.startswith("[") and value.endswith("]"):
        if target == "image" and len(value) > LONGEST_LIST:
            return [Image("data", value)]
        listed = read_list(value)
        if not listed and value != "[]":
            if target == "image":
                return [Image("data", value)]
            raise RowError(
                f"its {target} {shown(value)} is neither a path nor a list of paths"
            )
        return [_image_of(each, target) for each in listed or []]
    return [_image_of(value, target)]


def _image_of(text: str, target: str) -> Image:
    if text.startswith("data:"):
        _, mark, data = text.partition(";base64,")
        if not mark:
            raise RowError("its image is a data URL that is not in base64")
        return Image("data", data)
    if re.match("https?://", text, re.IGNORECASE):
        raise RowError(
            f"its image {shown(text)} is a URL, and no images are downloaded. "
            "Download it, and name the file"
        )
    if text.startswith("file://"):
        return Image("path", text.removeprefix("file://"))
    if target == "image_path":
        return Image("path", text)
    is_long = len(text) >= SHORTEST_IMAGE
    # In base64 there is no dot.
    is_path = "." in text if is_long else text.lower().endswith(IMAGE_SUFFIXES)
    return Image("path" if is_path else "data", text)


class Asked(NamedTuple):
    """What messages ask, with a place for each image, and what they answer."""

    question: str = ""
    images: Sequence[Image] = ()
    answer: str | None = None


# ShareGPT's names of those who speak.
ROLES = {"human": "user", "gpt": "assistant"}


def read_messages(value: object) -> Asked:
    """Return what a conversation of one question asks; raises RowError for others."""
    if isinstance(value, str):
        value = _literal(value)
    if not isinstance(value, list) or not value:
        raise RowError("its messages are no list of messages")
    spoken: list[tuple[str, str, list[Image]]] = []
    for message in value:
        if not isinstance(message, dict):
            raise RowError("one of its messages is not an object")
        role = str(message.get("role") or message.get("from") or "")
        role = ROLES.get(role, role)
        content = message.get("content", message.get("value"))
        if role == "system":
            raise RowError(NO_SYSTEM)
        if role not in ("user", "assistant"):
            raise RowError(
                f"has a message of the role {shown(role)}; user and assistant are read"
            )
        spoken.append((role, *_content(content)))
    roles = [role for role, *_ in spoken]
    if roles.count("user") > 1:
        raise RowError(ONE_QUESTION)
    if roles not in (["user"], ["user", "assistant"]):
        raise RowError("its messages are not one of the user and an answer to it")
    _, question, images = spoken[0]
    return Asked(question, images, spoken[1][1] if len(spoken) > 1 else None)


def _content(content: object) -> tuple[str, list[Image]]:
    """Return the text of a message, with places for its images, and these."""
    if content is None or isinstance(content, str):
        return _text(content) or "", []
    if not isinstance(content, list):
        raise RowError("the content of a message is neither a text nor a list of parts")
    texts: list[str] = []
    images: list[Image] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image_url", "image"):
            given = part.get(kind)
            # In a list without an image, its place is for one of another column.
            images += read_images(given, "image")
            texts.append(PLACE)
        else:
            raise RowError(
                f"has a part of the type {shown(str(kind))} in a message; text, "
                "image_url and image are read"
            )
    return "".join(texts), images


def _check_places(question: str, images: int) -> None:
    places = question.count(PLACE)
    if places not in (0, images):
        noun = "image" if images == 1 else "images"
        raise RowError(
            f"has {places} {PLACE} in its question, and {images or 'no'} {noun}"
        )
    other = re.search("<(video|audio)>", question)
    if other is not None:
        raise RowError(f"has {other[0]} in its question; only images are shown")
