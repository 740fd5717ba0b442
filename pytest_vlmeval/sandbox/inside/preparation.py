"""From a dataset's table to samples and media files, with ms-vlmeval's own prompts."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.expressions import evaluate
from pytest_vlmeval.sandbox.inside.families import FAMILIES, with_adapter
from pytest_vlmeval.sandbox.inside.families.common import need_package
from pytest_vlmeval.sandbox.inside.hubs import own_folders
from pytest_vlmeval.sandbox.inside.job import (
    ContainedError,
    Job,
    NoTableError,
    running,
)
from pytest_vlmeval.sandbox.inside.media import ImageError, ImageStore, VideoError
from pytest_vlmeval.sandbox.inside.tables import is_own, table_of, take_own, take_table
from pytest_vlmeval.sandbox.own_files import PLACE, SHORTEST_IMAGE
from pytest_vlmeval.sandbox.rows import FILE, SAMPLES, write_rows, write_samples
from pytest_vlmeval.sandbox.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def build_dataset(info: dict[str, str], job: Job) -> Any:
    """Return ms-vlmeval's dataset object over the job's rows.

    Raises VlmEvalError where ms-vlmeval cannot build it, with the place in its code.
    """
    # ms-vlmeval puts images and whatever else it makes below this folder, and some
    # classes read the table there themselves.
    os.environ["LMUData"] = str(job.folder)  # noqa: SIM112
    # Others keep what they unpack in the home folder (dataset/vladbench.py:519).
    os.environ["HOME"] = str(job.folder)
    modelscope = job.shelf is not None and job.shelf.hub == "modelscope"
    os.environ["VLMEVALKIT_USE_MODELSCOPE"] = str(int(modelscope))
    if len(job.rows.columns):
        job.add_table(f"{info['rules']}.tsv")
    family = FAMILIES.get(info["class_name"])
    try:
        cls = find_class(info)
        options = dict(family.options if family else ())
        if not options and hasattr(cls, "SUPPORTED_MODELS"):
            # These put the pages of a document together as a model wants them, which
            # for GPT-4 is one by one (dataset/dude.py:79, dataset/slidevqa.py:93).
            options["model"] = "GPT4"
        # dataset/mmgenbench.py leaves out a method that scores.
        cls.__abstractmethods__ = frozenset()
        if job.images is None and family is not None and family.is_general:
            cls = _over_rows(cls, info, job)
        return cls(dataset=info["rules"], **options)
    except (VlmEvalError, NoTableError):
        raise
    except (Exception, SystemExit) as error:
        raise VlmEvalError(why_not_built(info, error)) from error


def _over_rows(cls: Any, info: dict[str, str], job: Job) -> Any:
    """Return a class that takes the rows as they are, and brings nothing.

    Those that it made itself are not made again, and a dataset of several finds the
    rows of each where that has its file.
    """
    if "SUB_DATASET" in job.rows and "original_index" in job.rows:
        for name, rows in job.rows.groupby("SUB_DATASET"):
            part = rows.assign(index=rows["original_index"]).reset_index(drop=True)
            job.tables[str(job.folder / f"{name}.tsv")] = part
        return cls
    if info["modality"] == "video":
        return cls
    base = import_module("vlmeval.dataset.image_base").ImageBaseDataset
    own = {"prepare_tsv": base.prepare_tsv, "post_build": base.post_build}
    if not info["url"]:
        own["load_data"] = lambda _dataset, _name: job.rows.copy()
    return type(cls.__name__, (cls,), own)


def find_class(info: dict[str, str]) -> Any:
    """Return a dataset's class; what can be scored with all that its scoring needs."""
    name = f"vlmeval.dataset.{info['module']}"
    # First, as it changes the clients that the class's module imports.
    import_module("vlmeval.smp")
    scored = with_adapter(info["class_name"]) is not None
    module = import_module(name) if scored else import_without_scoring(name)
    return getattr(module, info["class_name"])


def why_not_built(info: dict[str, str], error: BaseException) -> str:
    """Explain an error with which a dataset's class is imported or built."""
    what = f"{info['name']}: ms-vlmeval's {info['class_name']}"
    place = f"({_place(error)})"
    absent = error.name if isinstance(error, ModuleNotFoundError) else None
    if isinstance(error, ContainedError):
        return (
            f"{what} brings more than its table by itself when it is built {place}, "
            "and the sandbox allows no such thing. It cannot be prepared; a table of "
            "your own, made from its data, can."
        )
    if absent is not None:
        return (
            f"{what} cannot be built {place}. The package {absent} is not in the "
            "sandbox's environment. --vlm-sandbox-python takes an environment that has "
            f"it: with ms-vlmeval, what it declares, and {absent}."
        )
    if isinstance(error, KeyError) and error.args == (info["rules"],):
        cls = find_class(info)
        others = [name for name in cls.DATASET_URL if name.startswith(info["rules"])]
        return (
            f"{what} lists this name and has no data for it {place}. "
            f"Choose {' or '.join(others or cls.DATASET_URL)}."
        )
    return (
        f"{what} cannot be built over its table: {type(error).__name__}: {error} "
        f"{place}."
    )


def _place(error: BaseException) -> str:
    """Name the last line of ms-vlmeval that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "vlmeval/dataset/" in frame.filename]
    if not own:
        return "before it was begun"
    file = own[-1].filename.rpartition("vlmeval/dataset/")[2]
    return f"dataset/{file}:{own[-1].lineno}: {own[-1].line}"


def import_without_scoring(name: str) -> ModuleType:
    """Import a module of datasets, without packages that only its scoring may need.

    Each that is not there is replaced by something that fails when it is used.
    """
    while True:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            Absent.take(error)


class Absence:
    """Stands for anything in a package that is not installed; calls of it fail."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Absence:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(self)(f"{self._name}.{name}")

    def __mro_entries__(self, _bases: object) -> tuple[type, ...]:
        return ()

    def __getitem__(self, _key: object) -> Absence:
        return self

    def __or__(self, _other: object) -> Absence:
        return self

    __ror__ = __or__

    def __call__(self, *_args: object, **_options: object) -> Absence:
        package = self._name.partition(".")[0]
        raise ModuleNotFoundError(
            f"{self._name} is used, and {package} is not installed", name=package
        )


class _AbsentModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent.stand_in(f"{self.__name__}.{name}")


class Absent(MetaPathFinder, Loader):
    """Finds the packages that are known to be absent, and only those.

    `stand_in` makes what stands for a name of theirs.
    """

    names: ClassVar[set[str]] = set()
    stand_in: ClassVar[Callable[[str], Any]] = Absence

    @classmethod
    def take(cls, error: ModuleNotFoundError) -> None:
        """Add the package of an error, which is raised again where that is no help."""
        name = error.name or ""
        if name in cls.names or name.startswith(("vlmeval", "pytest_")):
            raise error
        cls.add(name)

    @classmethod
    def add(cls, name: str) -> None:
        if not cls.names:
            sys.meta_path.append(cls())
        cls.names.add(name)

    def find_spec(
        self, fullname: str, path: object, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parts = fullname.split(".")
        starts = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
        if not starts & self.names:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


# What a test set whose answers are kept secret has in their place.
NO_REFERENCE = "?"


def prepare(
    info: dict[str, str],
    tsv: str | None,
    shelf: dict[str, Any] | None,
    folder: str,
    on_progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Fill `folder` with `rows.parquet`, `samples.parquet` and `media/`.

    Without `tsv` the dataset's class makes the table from what is on the `shelf`.
    `rows.parquet` holds all rows, without the column `image`. `on_progress` gets bytes
    of the table first, then rows. A row whose image or prompt fails is a sample
    with an `error`. Raises VlmEvalError when the table itself cannot be used.
    """
    target = Path(folder)
    media = target / "media"
    media.mkdir()
    family = with_adapter(info["class_name"])
    known = Shelf(**shelf) if shelf else None
    # Beside the target: a folder for temporary files may lie in memory.
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        within = own_folders(info, tsv, known, target)
        images = ImageStore(
            media,
            Path(scratch),
            linked=family is None or family.opened,
            within=within,
        )
        job = Job(
            rows=pd.DataFrame(),
            folder=Path(scratch),
            url=info["url"],
            on_progress=on_progress,
            images=images,
            within=within,
            shelf=known,
        )
        numbers: dict[str, int] = {}
        faults: dict[str, str] = {}
        as_written = False
        if tsv is not None:
            if is_own(info):
                table = take_own(Path(tsv), info, images.stand_in)
                as_written = table.as_written
                write_rows(target / FILE, table.texts)
            else:
                table = take_table(Path(tsv), images.stand_in, on_progress)
                write_rows(target / FILE, table.texts, table.frame)
            job.rows = table.frame
            _check_columns(info, job.rows, tsv)
            numbers = number_rows(tsv, job.rows["index"])
            faults = _set_aside_broken(job.rows)
        with running(job):
            if family and family.prompt_package:
                need_package(*family.prompt_package, info["name"])
            dataset = build_dataset(info, job)
            if tsv is None:
                made = table_of(dataset.data)
                write_rows(target / FILE, made.texts, made.frame)
                numbers = number_rows(info["name"], dataset.data["index"])
            beside = Path(tsv or scratch).parent
            samples = _samples(
                info, dataset, job, beside, numbers, faults, as_written=as_written
            )
            count = write_samples(target / SAMPLES, samples)
    return {"samples": count}


def _check_columns(info: dict[str, str], rows: pd.DataFrame, tsv: str) -> None:
    family = with_adapter(info["class_name"])
    required = ["index", "question"] if family and family.asked else ["index"]
    missing = [name for name in required if name not in rows]
    if info["modality"] == "image" and not {"image", "image_path"} & set(rows):
        missing.append("image")
    if missing:
        raise VlmEvalError(
            f"{tsv} has no column {' and no column '.join(missing)}; it has "
            f"{', '.join(map(str, rows.columns))}. {info['name']} needs "
            f"{', '.join(required)} and image or image_path."
        )


def number_rows(where: str, indexes: Iterable[object]) -> dict[str, int]:
    """Return each index's row number, from 1; raises VlmEvalError if two are equal."""
    numbers: dict[str, int] = {}
    for number, index in enumerate(indexes, start=1):
        first = numbers.setdefault(str(index), number)
        if first != number:
            raise VlmEvalError(
                f"{where}: rows {first} and {number} have the same index {index}; each "
                "row needs one of its own."
            )
    return numbers


def _set_aside_broken(rows: pd.DataFrame) -> dict[str, str]:
    """Return what is wrong with image cells with which no dataset can be built.

    One such cell is an AssertionError or SyntaxError for all rows (dataset/
    image_base.py:168, smp/misc.py:255), so it gets a text that passes there. The
    reasons are by the row's index.
    """
    if "image" not in rows:
        return {}
    cells = {
        str(index): str(cell)
        for index, cell in zip(rows["index"], rows["image"], strict=True)
        if not pd.isna(cell)
    }
    faults = {
        index: reason
        for index, cell in cells.items()
        if (reason := _fault_of_cell(cell, cells))
    }
    if faults:
        rows["image"] = [
            "." * SHORTEST_IMAGE if str(index) in faults else cell
            for index, cell in zip(rows["index"], rows["image"], strict=True)
        ]
    return faults


def _fault_of_cell(cell: str, cells: dict[str, str]) -> str:
    if len(cell) < SHORTEST_IMAGE:
        if len(cells.get(cell, "")) < SHORTEST_IMAGE:
            return f"{cell!r} is neither base64 nor the index of a row with an image"
        return ""
    if cell.startswith("[") and cell.endswith("]"):
        try:
            images = evaluate(cell)
        except Exception as error:
            return f"its list of images cannot be read ({error})"
        if not images:
            return "its list of images is empty"
    return ""


def make_sample(
    index: str,
    number: int,
    ask: Callable[[], list[Any] | None],
    **facts: str | None,
) -> dict[str, Any]:
    """Return a sample with the prompt that `ask` makes, or the `error` in its place."""
    where = f"row {number} (index {index})"
    prompt: list[Any] | None = []
    error = None
    try:
        prompt = ask()
    except ImageError as fault:
        error = f"{where}: the image cannot be read: {fault}"
    except VideoError as fault:
        error = f"{where}: {fault}"
    # dataset/utils/olympiadbench.py:198 ends its process.
    except (Exception, SystemExit) as fault:
        error = (
            f"{where}: ms-vlmeval cannot make its prompt: {type(fault).__name__}: "
            f"{fault}"
        )
    return {"index": index, "prompt": prompt, "error": error, **facts}


def _samples(
    info: dict[str, str],
    dataset: Any,
    job: Job,
    beside: Path,
    numbers: dict[str, int],
    faults: dict[str, str],
    *,
    as_written: bool = False,
) -> Iterator[dict[str, Any]]:
    """Ask ms-vlmeval for each row's prompt; files may lie `beside` the table.

    A question that is asked `as_written` has its images where it says so.
    """
    family = FAMILIES.get(info["class_name"])

    def part(each: dict[str, str]) -> list[str]:
        if each["type"] == "text":
            return ["text", str(each["value"])]
        if each["type"] != "image":
            raise TypeError(f"a prompt part of type {each['type']}")
        assert job.images is not None
        place = beside / each["value"]
        image = job.images.at(str(place) if os.path.lexists(place) else each["value"])
        return ["image", *filter(None, image)]

    def ask(row: pd.Series[Any]) -> list[list[list[str]]]:
        if reason := faults.get(str(row["index"])):
            raise ImageError(reason)
        built = dataset.build_prompt(row)
        turns = [_as_written(built, row["question"])] if as_written else _turns(built)
        return [[part(each) for each in turn] for turn in turns]

    data = dataset.data
    for position in range(len(data)):
        row = data.iloc[position]
        index = str(row["index"])
        reference = text_of(row, family.reference if family else "answer")
        yield make_sample(
            index,
            numbers.get(index, 0),
            partial(ask, row),
            reference=None if reference == NO_REFERENCE else reference,
            category=text_of(row, "category"),
            group=family.group_of(info, row) if family else None,
        )
        job.on_progress(position + 1, len(data))


def _turns(built: list[dict[str, Any]]) -> list[list[dict[str, str]]]:
    """Return what is asked at once, turn by turn: of a dialogue what the user says.

    Its other messages are the reference answers (dataset/image_mt.py:54); each model
    goes on from its own (inference_mt.py:24 chat_mt).
    """
    if not built:
        raise ValueError("there is nothing to ask")
    if "content" in built[0]:
        return [each["content"] for each in built if each["role"] == "user"]
    return [built]


def _as_written(built: list[dict[str, str]], question: str) -> list[dict[str, str]]:
    """Return a prompt's images in the places that its question has for them.

    Without places they come first.
    """
    images = [each for each in built if each["type"] == "image"]
    texts = [{"type": "text", "value": text} for text in question.split(PLACE)]
    if len(texts) == 1:
        return [*images, *texts]
    parts = [each for pair in zip(texts, images, strict=False) for each in pair]
    return [
        each
        for each in [*parts, texts[-1]]
        if each["type"] == "image" or each["value"].strip()
    ]


def text_of(rows: Any, *names: str) -> str | None:
    """Return the text of the first of these columns that a row has; of rows, of all."""
    name = next((name for name in names if name in rows), None)
    if name is None:
        return None
    cells = rows[name] if isinstance(rows, pd.DataFrame) else [rows[name]]
    texts = [str(cell) for cell in cells if isinstance(cell, list) or pd.notna(cell)]
    return " | ".join(texts) if texts else None
