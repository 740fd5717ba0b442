"""What ms-vlmeval says of each dataset that it names, by importing its classes."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from pytest_vlmeval.sandbox.inside.preparation import Absence, Absent

OWN = "vlmeval.dataset"
# One table of the repository is all it wants (dataset/image_mcq.py:961).
WITHOUT_REPOSITORY = {"MME-RealWorld-Lite"}
# It makes a list of a set, each time in another order (dataset/refspatial.py:87).
UNORDERED = {"RefSpatialDataset"}


class _Anything(Absence, str):  # type: ignore[misc]
    """Stands for anything in a package that is not installed, and does nothing."""

    def __call__(self, *_args: object, **_options: object) -> Absence:
        return self


def list_datasets() -> dict[str, Any]:
    """Return the `datasets` in ms-vlmeval's order, each as plain data.

    `data` is the name of its data, another one where `name` is a preset's. `address`,
    `md5` and `repository` are "" where there is none, `kind` and `modality` as
    ms-vlmeval calls them.
    """
    package = _import_package()
    presets = import_module(f"{OWN}.video_dataset_config").supported_video_datasets
    found: dict[str, dict[str, Any]] = {}
    for name, preset in presets.items():
        found[name] = _describe(name, preset.func, preset.keywords)
    for cls in package.DATASET_CLASSES:
        names = cls.supported_datasets()
        for name in sorted(names) if cls.__name__ in UNORDERED else names:
            # The first class that supports a name builds it (dataset/__init__.py:391).
            if name not in found:
                found[name] = _describe(name, cls, {})
    return {"datasets": list(found.values())}


def _import_package() -> Any:
    """Import the package's own file, which lists the classes and is else passed by."""
    # First, as it changes the clients that the classes' modules import.
    import_module("vlmeval.smp")
    # Some modules use their packages as they are imported (dataset/utils/spatial_bench/
    # matching_func.py:231); what they make of them says nothing of a dataset.
    Absent.stand_in = _Anything
    # Before something with a few of their functions is put in their place.
    for name in ("torch", "torchvision", "cv2"):
        if find_spec(name) is None:
            Absent.add(name)
    (folder,) = sys.modules[OWN].__path__
    file = Path(folder, "__init__.py")
    spec = spec_from_file_location(OWN, file, submodule_search_locations=[folder])
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[OWN] = module
    while True:
        try:
            spec.loader.exec_module(module)
        except ModuleNotFoundError as error:
            Absent.take(error)
        else:
            return module


def _describe(name: str, cls: Any, settings: dict[str, Any]) -> dict[str, Any]:
    # A preset's data is that of the dataset it presets.
    data = str(settings.get("dataset", name))
    collections = getattr(cls, "DATASET_SETS", None)
    members = collections.get(name, ()) if isinstance(collections, dict) else ()
    checksum = _entry(getattr(cls, "DATASET_MD5", None), data)
    return {
        "name": name,
        "class_name": cls.__name__,
        "module": cls.__module__.removeprefix(OWN).removeprefix("."),
        "kind": str(getattr(cls, "TYPE", None)),
        "modality": str(getattr(cls, "MODALITY", None)),
        "address": _entry(getattr(cls, "DATASET_URL", None), data),
        "md5": checksum or _entry(getattr(cls, "MD5", None), data),
        "repository": _repository(cls, name),
        "data": data,
        "settings": settings,
        "members": list(members),
    }


def _entry(table: Any, name: str) -> str:
    """Return what a class has for a name, or for all; "" for none."""
    value = table.get(name) if isinstance(table, dict) else table
    return value if isinstance(value, str) else ""


def _repository(cls: Any, name: str) -> str:
    """Return the hub's repository that the methods of a class take by default."""
    # Single files of theirs are enough.
    if name in WITHOUT_REPOSITORY or getattr(cls, "DATASET_PART_URL", None):
        return ""
    methods = [getattr(cls, "prepare_dataset", None), *vars(cls).values()]
    for method in methods:
        if inspect.isroutine(method) and callable(method):
            parameter = inspect.signature(method).parameters.get("repo_id")
            if parameter is not None and isinstance(parameter.default, str):
                return parameter.default
    return ""
