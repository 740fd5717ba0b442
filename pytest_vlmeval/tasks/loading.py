"""From the file to its task: which of the two formats it has, and what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytest_vlmeval.option_values import list_datasets
from pytest_vlmeval.tasks.datasets import check_names, take_frames, take_mapped
from pytest_vlmeval.tasks.fates import Idle
from pytest_vlmeval.tasks.fields import (
    NATIVE,
    EvalConfig,
    EvalScopeTask,
    VlmevalkitConfig,
)
from pytest_vlmeval.tasks.judges import take_judge
from pytest_vlmeval.tasks.models import (
    Entry,
    choose_entry,
    list_entries,
    mapped_entries,
    take_model,
)
from pytest_vlmeval.tasks.reading import Reading, shown
from pytest_vlmeval.tasks.record import Task
from pytest_vlmeval.tasks.served import take_served
from pytest_vlmeval.tasks.tree import MAPPING, kind_of, read_json_tree, read_tree

OUTSIDE = Idle(
    "EvalScope reads it for its native backend only; what VLMEvalKit is told stands in "
    "eval_config"
)


def load_task(path: Path, chosen: str | None, folder: Path) -> Task:
    """Read a task file, for the model of the name `chosen` where it has several.

    Paths in it count from `folder`. Raises VlmEvalError, which names file and field.
    """
    try:
        stat = path.stat()
        version = stat.st_mtime_ns, stat.st_size
    except (OSError, ValueError):
        version = 0, 0
    return _load(path, chosen, folder, version)


# Every look at an option comes by here and the next.
@lru_cache(maxsize=16)
def load_mapping(text: str, chosen: str | None, folder: Path) -> Task:
    """Read a task that was given as a dict and is JSON now, as `load_task` does."""
    return _read(MAPPING, read_json_tree(text), chosen, folder)


@lru_cache(maxsize=16)
def _load(
    path: Path, chosen: str | None, folder: Path, version: tuple[int, int]
) -> Task:
    return _read(path, read_tree(path), chosen, folder)


def _read(
    path: Path | str, tree: dict[str, Any], chosen: str | None, folder: Path
) -> Task:
    reading = Reading(path)
    if "eval_backend" in tree or "eval_config" in tree:
        classes, entry = _take_evalscope(reading, tree, chosen, folder)
    elif isinstance(tree.get("model"), dict) or isinstance(tree.get("data"), dict):
        classes, entry = _take_vlmevalkit(reading, tree, chosen)
    else:
        raise reading.error(
            "its top level",
            " is neither a task of EvalScope (eval_backend and eval_config) nor a "
            "configuration of VLMEvalKit (model and data, each a mapping of names).",
        )
    label = entry is not None and chosen == entry.label
    return Task(
        path=path,
        values=reading.values,
        keys=reading.keys,
        classes=classes,
        remarks=tuple(reading.remarks),
        chosen=label,
    )


def _take_evalscope(
    reading: Reading, tree: Mapping[str, Any], chosen: str | None, folder: Path
) -> tuple[dict[str, str], Entry | None]:
    backend = tree.get("eval_backend")
    if backend != "VLMEvalKit":
        raise reading.error(
            "eval_backend",
            f"{shown(backend)} is not supported: only the tasks of the backend "
            "VLMEvalKit run here.",
        )
    for name in NATIVE & set(tree):
        reading.idle(name, OUTSIDE, tree[name])
    rest = {name: value for name, value in tree.items() if name not in NATIVE}
    reading.take(EvalScopeTask, rest, "")
    given = _eval_config(reading, tree.get("eval_config"), folder)
    place = "eval_config."
    left = reading.take(EvalConfig, _checked_data(reading, given, place), place)
    entries = list_entries(reading, given.get("model") or [], f"{place}model")
    entry = choose_entry(reading, entries, chosen)
    served = take_served(reading, left, entry, place)
    if entry is not None and not served:
        take_model(reading, entry)
    take_judge(reading, left, place)
    _place_work_dir(reading, folder)
    return {}, entry


def _checked_data(
    reading: Reading, given: Mapping[str, Any], place: str
) -> dict[str, Any]:
    """Put the names of the datasets that are shown with subtitles in their places."""
    if given.get("data") is None:
        return dict(given)
    if not isinstance(given["data"], list | str):
        return dict(given)  # The table says what is wrong.
    names = check_names(reading, given["data"], f"{place}data")
    frames = {name: given.get(name) for name in ("nframe", "fps", "use_subtitle")}
    if any(isinstance(value, list | dict) for value in frames.values()):
        return dict(given)
    return {**given, "data": take_frames(reading, frames, names, place)}


def _eval_config(reading: Reading, given: object, folder: Path) -> dict[str, Any]:
    """Return the mapping, which may stand in a file of its own or in JSON."""
    if isinstance(given, str):
        if given.endswith((".yaml", ".yml", ".json")):
            return read_tree(folder / Path(given).expanduser())
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = "no JSON"
    if not isinstance(given, dict) or not all(isinstance(each, str) for each in given):
        raise reading.error(
            "eval_config",
            f" is {kind_of(given)}, and takes a mapping with model, data and further "
            "fields, or the path of a .yaml or .json file that holds one.",
        )
    return given


def _place_work_dir(reading: Reading, folder: Path) -> None:
    known = reading.values.get("work-dir")
    if known is not None:
        del reading.values["work-dir"]
        place = str(folder / Path(known.text).expanduser())
        reading.set("work-dir", place, known.field, known.text)


def _take_vlmevalkit(
    reading: Reading, tree: Mapping[str, Any], chosen: str | None
) -> tuple[dict[str, str], Entry | None]:
    reading.take(VlmevalkitConfig, tree, "")
    classes: dict[str, str] = {}
    if tree.get("data") is not None:
        names, classes = take_mapped(reading, tree["data"])
        reading.set("data", list_datasets(names), "data", names)
    entries = mapped_entries(reading, tree.get("model") or {})
    entry = choose_entry(reading, entries, chosen)
    if entry is not None:
        take_model(reading, entry)
    return classes, entry
