"""Building ms-vlmeval's dataset object over a table that is already here."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.families import FAMILIES
from pytest_vlmeval.sandbox.inside.job import ContainedError, NoTableError

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.inside.job import Job


def build_dataset(info: dict[str, str], job: Job) -> Any:
    """Give ms-vlmeval's dataset object over the job's rows.

    Raises VlmEvalError where ms-vlmeval cannot build it, with the place in its code.
    """
    # ms-vlmeval puts pictures and whatever else it makes below this folder, and some
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
    """Give a dataset's class; what can be scored with all that its scoring needs."""
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
    """Say that a package is missing, and what to do."""
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
            absent = error.name or ""
            if absent in _Absent.names or absent.startswith(("vlmeval", "pytest_")):
                raise
            _Absent.add(absent)


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
    def __getattr__(self, name: str) -> _Absence:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absence(f"{self.__name__}.{name}")


class _Absent(MetaPathFinder, Loader):
    """Finds the packages that are known to be absent, and only those."""

    names: ClassVar[set[str]] = set()

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
