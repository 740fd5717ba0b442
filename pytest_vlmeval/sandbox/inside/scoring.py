"""From answers to metrics and verdicts, through ms-vlmeval's own `evaluate`."""

from __future__ import annotations

import platform
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.families import find_family
from pytest_vlmeval.sandbox.inside.job import Job, running
from pytest_vlmeval.sandbox.inside.metrics import flatten
from pytest_vlmeval.sandbox.inside.preparation import build_dataset, read_table

if TYPE_CHECKING:
    from collections.abc import Callable


def describe() -> dict[str, Any]:
    """Give the versions that decide a score."""
    return {
        "ms_vlmeval": version("ms-vlmeval"),
        "python": platform.python_version(),
        "pandas": version("pandas"),
    }


def score(
    info: dict[str, str],
    rows: str,
    answers: list[tuple[str, str]],
    on_progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Score answers, given as [index, text], against the rows of the file `rows`.

    The table that ms-vlmeval sees has the rows that were answered, in the dataset's
    order, each with its text exactly as it is. Raises VlmEvalError for a class
    without an adapter and a dataset without references.
    """
    family = find_family(info)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        job = Job(
            rows=read_table(Path(rows)), folder=Path(folder), on_progress=on_progress
        )
        with running(job):
            dataset = build_dataset(info, job)
            table = _predictions(info, dataset.data, answers)
            path = str(job.folder / f"answers_{info['name']}.xlsx")
            job.dump_table(table, path)
            outcome = family.evaluate(dataset, path, job)
    metrics = flatten(outcome.result)
    main_metric, value = family.main(info, metrics, outcome.verdicts)
    return {
        "metrics": metrics,
        "main_metric": main_metric,
        "value": value,
        "verdicts": outcome.verdicts,
    }


def _predictions(
    info: dict[str, str], rows: pd.DataFrame, answers: list[tuple[str, str]]
) -> pd.DataFrame:
    if "answer" not in rows or rows["answer"].isna().all():
        raise VlmEvalError(
            f"{info['name']} has no reference answers, so its answers cannot be scored "
            "here. --vlm-mode=infer collects them."
        )
    texts = dict(answers)
    indices = [str(index) for index in rows["index"]]
    unknown = texts.keys() - set(indices)
    if unknown or not texts:
        raise ValueError(f"{len(texts)} answers, without a row: {sorted(unknown)[:5]}")
    table = rows[[index in texts for index in indices]].copy()
    table["prediction"] = [texts[str(index)] for index in table["index"]]
    return table
