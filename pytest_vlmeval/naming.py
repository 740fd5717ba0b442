"""Which datasets a test runs over: those it names, as far as --vlm-data takes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.option_values import dataset_name, is_table

if TYPE_CHECKING:
    from pytest_vlmeval.run import Run

MARK = "vlm"


def selected_datasets(
    metafunc: pytest.Metafunc, datasets: Iterable[str], run: Run
) -> list[str]:
    """Return the names of those of a test's datasets that may have a selected item."""
    from pytest_vlmeval.selection import may_select

    return [
        run.take(dataset)
        for dataset in run.choice.among(datasets)
        if may_select(metafunc.definition, dataset_name(dataset))
    ]


def named_datasets(metafunc: pytest.Metafunc) -> list[str]:
    """Return the datasets of a test: those of its marker, else of its class.

    A path counts from the folder of the test's file and is made absolute.
    """
    mark = metafunc.definition.get_closest_marker(MARK)
    if mark is not None:
        names: Iterable[object] = mark.args
    elif metafunc.cls is not None and hasattr(metafunc.cls, "datasets"):
        names = metafunc.cls.datasets
    else:
        names = ()
    found = list(dict.fromkeys(names))
    if isinstance(names, str) or not found or not _all_text(found):
        raise pytest.Collector.CollectError(
            f"{metafunc.definition.nodeid} uses a vlmeval fixture but names no dataset "
            f"(given: {names!r}). Mark it with "
            '@pytest.mark.vlm("MMStar"), or put it into a Benchmark class with '
            'datasets = ["MMStar"].'
        )
    folder = metafunc.definition.path.parent
    return [
        str(folder / str(name)) if is_table(str(name)) else str(name) for name in found
    ]


def _all_text(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) and value for value in values)
