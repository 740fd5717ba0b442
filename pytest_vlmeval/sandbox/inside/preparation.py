"""From a dataset's table to samples and media files, with ms-vlmeval's own prompts."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.expressions import evaluate
from pytest_vlmeval.sandbox.inside.families import FAMILIES
from pytest_vlmeval.sandbox.inside.families.common import need_package
from pytest_vlmeval.sandbox.inside.hubs import own_folders, take_shelf
from pytest_vlmeval.sandbox.inside.job import ContainedError, Job, NoTableError, running
from pytest_vlmeval.sandbox.inside.media import (
    SHORTEST_IMAGE,
    ImageError,
    ImageStore,
)
from pytest_vlmeval.sandbox.inside.tables import is_own, table_of, take_own, take_table
from pytest_vlmeval.sandbox.rows import FILE, SAMPLES, write_rows, write_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
        options = dict(family.options if family else _options(cls))
        # dataset/mmgenbench.py leaves out a method that scores.
        cls.__abstractmethods__ = frozenset()
        return cls(dataset=info["rules"], **options)
    except (VlmEvalError, NoTableError):
        raise
    except (Exception, SystemExit) as error:
        raise VlmEvalError(_why_not_built(info, error)) from error


def find_class(info: dict[str, str]) -> Any:
    """Return a dataset's class; what can be scored with all that its scoring needs."""
    name = f"vlmeval.dataset.{info['module']}"
    # First, as it changes the clients that the class's module imports.
    import_module("vlmeval.smp")
    scored = info["class_name"] in FAMILIES
    module = import_module(name) if scored else import_without_scoring(name)
    return getattr(module, info["class_name"])


def _why_not_built(info: dict[str, str], error: BaseException) -> str:
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
        return f"{what} cannot be built {place}. {lacks_text(absent)}"
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


def lacks_text(package: str) -> str:
    """Explain that a package is missing, and what to do."""
    return (
        f"The package {package} is not in the sandbox's environment. "
        "--vlm-sandbox-python takes an environment that has it: with ms-vlmeval, what "
        f"it declares, and {package}."
    )


def _options(cls: Any) -> dict[str, str]:
    # These put the pages of a document together as a model wants them, which for
    # GPT-4 is one by one (dataset/dude.py:79, dataset/slidevqa.py:93).
    return {"model": "GPT4"} if hasattr(cls, "SUPPORTED_MODELS") else {}


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


class _Absence:
    """Stands for anything in a package that is not installed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> _Absence:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absence(f"{self._name}.{name}")

    def __mro_entries__(self, _bases: object) -> tuple[type, ...]:
        return ()

    def __getitem__(self, _key: object) -> _Absence:
        return self

    def __or__(self, _other: object) -> _Absence:
        return self

    __ror__ = __or__

    def __call__(self, *_args: object, **_options: object) -> NoReturn:
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
    stand_in: ClassVar[Callable[[str], Any]] = _Absence

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
    family = FAMILIES.get(info["class_name"])
    # Beside the target: a folder for temporary files may lie in memory.
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        within = own_folders(info, tsv, shelf, target)
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
            shelf=take_shelf(shelf),
        )
        numbers, errors = _read_table(info, tsv, target, job)
        with running(job):
            writer = _SampleWriter(info, job, Path(tsv or scratch), numbers, errors)
            if tsv is None:
                writer.write_rows(target / FILE)
            count = write_samples(target / SAMPLES, writer.samples())
    return {"samples": count}


def _read_table(
    info: dict[str, str], tsv: str | None, target: Path, job: Job
) -> tuple[dict[str, int], dict[str, str]]:
    """Set the job's rows; return their numbers, and the faults of some, by index."""
    if tsv is None:
        return {}, {}
    assert job.images is not None
    stand_in = job.images.stand_in
    if is_own(info):
        table = take_own(Path(tsv), info, stand_in)
        write_rows(target / FILE, table.texts)
    else:
        table = take_table(Path(tsv), stand_in, job.on_progress)
        write_rows(target / FILE, table.texts, table.frame)
    job.rows = table.frame
    numbers = _check_columns(info, job.rows, tsv)
    return numbers, _set_aside_broken(job.rows, numbers)


def _check_columns(
    info: dict[str, str], rows: pd.DataFrame, tsv: str
) -> dict[str, int]:
    """Return each index's row number, counted from 1 below the line of names."""
    family = FAMILIES.get(info["class_name"])
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
    numbers: dict[str, int] = {}
    for number, index in enumerate(rows["index"], start=1):
        first = numbers.setdefault(str(index), number)
        if first != number:
            raise VlmEvalError(
                f"{tsv}: rows {first} and {number} have the same index {index}; each "
                "row needs one of its own."
            )
    return numbers


def _set_aside_broken(rows: pd.DataFrame, numbers: dict[str, int]) -> dict[str, str]:
    """Return the rows, by index, with whose image cell no dataset can be built.

    One such cell is an AssertionError or SyntaxError for all rows (dataset/
    image_base.py:168, smp/misc.py:255), so it gets a text that passes there.
    """
    if "image" not in rows:
        return {}
    cells = {
        str(index): str(cell)
        for index, cell in zip(rows["index"], rows["image"], strict=True)
        if not pd.isna(cell)
    }
    errors = {}
    for index, cell in cells.items():
        if reason := _fault_of_cell(cell, cells):
            errors[index] = _image_fault(numbers[index], index, reason)
    if errors:
        rows["image"] = [
            "." * SHORTEST_IMAGE if str(index) in errors else cell
            for index, cell in zip(rows["index"], rows["image"], strict=True)
        ]
    return errors


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


def _image_fault(number: int, index: str, reason: str) -> str:
    return f"row {number} (index {index}): the image cannot be read: {reason}"


class _SampleWriter:
    """Asks ms-vlmeval for each row's prompt and writes it down."""

    def __init__(
        self,
        info: dict[str, str],
        job: Job,
        tsv: Path,
        numbers: dict[str, int],
        errors: dict[str, str],
    ) -> None:
        self._job = job
        self._tsv = tsv
        self._numbers = numbers
        self._errors = errors
        self._info = info
        self._family = FAMILIES.get(info["class_name"])
        if self._family and self._family.prompt_package:
            need_package(*self._family.prompt_package, info["name"])
        self._dataset = build_dataset(info, job)

    def write_rows(self, path: Path) -> None:
        """Write the table that the class made, without its images."""
        data = self._dataset.data
        write_rows(path, *table_of(data))
        self._numbers = {str(index): at for at, index in enumerate(data["index"], 1)}
        if len(self._numbers) < len(data):
            raise VlmEvalError(
                f"{self._info['name']}: {len(data)} rows have {len(self._numbers)} "
                "different indexes; each row needs one of its own."
            )

    def samples(self) -> Iterator[dict[str, Any]]:
        data = self._dataset.data
        for position in range(len(data)):
            yield self._sample(data.iloc[position])
            self._job.on_progress(position + 1, len(data))

    def _sample(self, row: pd.Series[Any]) -> dict[str, Any]:
        index = str(row["index"])
        prompt: list[list[list[str]]] = []
        error = self._errors.get(index)
        if error is None:
            number = self._numbers.get(index, 0)
            try:
                turns = _turns(self._dataset.build_prompt(row))
                prompt = [[self._part(part) for part in turn] for turn in turns]
            except ImageError as fault:
                error = _image_fault(number, index, str(fault))
            # dataset/utils/olympiadbench.py:198 ends its process.
            except (Exception, SystemExit) as fault:
                error = (
                    f"row {number} (index {index}): ms-vlmeval cannot make its prompt: "
                    f"{type(fault).__name__}: {fault}"
                )
        return {
            "index": index,
            "prompt": prompt,
            "reference": self._reference(row),
            "category": _text(row, "category"),
            "group": self._family.group_of(self._info, row) if self._family else None,
            "error": error,
        }

    def _reference(self, row: pd.Series[Any]) -> str | None:
        reference = _text(row, self._family.reference if self._family else "answer")
        return None if reference == NO_REFERENCE else reference

    def _part(self, part: dict[str, str]) -> list[str]:
        if part["type"] == "text":
            return ["text", str(part["value"])]
        if part["type"] != "image":
            raise TypeError(f"a prompt part of type {part['type']}")
        assert self._job.images is not None
        image = self._job.images.at(self._find(part["value"]))
        return ["image", *(each for each in image if each)]

    def _find(self, path: str) -> str:
        """Look for the file of a column `image_path` beside its TSV."""
        beside = self._tsv.parent / path
        return str(beside) if os.path.lexists(beside) else path


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


def _text(row: pd.Series[Any], name: str) -> str | None:
    if name not in row:
        return None
    value = row[name]
    if not isinstance(value, list) and pd.isna(value):
        return None
    return str(value)
