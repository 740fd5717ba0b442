"""Which datasets a test runs over: those it names, as far as --vlm-data takes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pytest_vlmeval.option_values import dataset_name, is_table

if TYPE_CHECKING:
    from pytest_vlmeval.run import Run

MARK = "vlm"


class Selected(NamedTuple):
    """Which of a test's datasets may have a selected item.

    `left_out` are those of them that are not run, and why they cannot be scored.
    """

    names: list[str]
    left_out: dict[str, str]


def selected_datasets(
    metafunc: pytest.Metafunc, datasets: Iterable[str], run: Run
) -> Selected:
    """Return the names of those of a test's datasets that may have a selected item."""
    from pytest_vlmeval.selection import may_select

    found = Selected([], {})
    for dataset in run.choice.among(datasets):
        if may_select(metafunc.definition, dataset_name(dataset)):
            name = run.take(dataset)
            why = None
            if may_leave_out(metafunc.config, metafunc.cls, name, run):
                why = run.foresee_unscored(name)
            if why is None:
                found.names.append(name)
            else:
                found.left_out[name] = why
    return found


def may_leave_out(
    config: pytest.Config, benchmark: type | None, dataset: str, run: Run
) -> bool:
    """Whether a dataset of a benchmark is left out where it cannot be scored.

    What the command line names is not: it is refused.
    """
    from pytest_vlmeval.selection import is_in_ids

    return (
        run.settings.mode != "infer"
        and getattr(benchmark, "unscored", "refuse") == "leave out"
        and not run.choice.names(dataset)
        and not is_in_ids(config, dataset)
    )


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
