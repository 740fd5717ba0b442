"""Datasets as test collections: the `Benchmark` base class and what it expands to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pytest

from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.prepare import IndexRow
    from pytest_vlmeval.run import Needed, Run
    from pytest_vlmeval.views import SampleView, ScoreView

MARK = "vlm"

# What the benchmarks are marked with, for -m.
MARKERS = {
    "vlm(*datasets)": "the ms-vlmeval datasets that the test runs over",
    "core": "the usual eight benchmarks, for every day",
    "image": "asks about pictures",
    "video": "asks about videos",
    "multiple_choice": "asks for one of several options",
    "yes_no": "asks for yes or no",
    "vqa": "asks an open question",
    "caption": "asks for a description",
    "ocr": "needs text to be read",
    "math": "needs mathematics",
    "document": "asks about documents",
    "chinese": "asks in Chinese",
    "needs_judge": "is scored by a judge only",
}


class Benchmark:
    """Base class of a benchmark: names its datasets, brings their tests.

    Subclasses may add tests of their own with the fixtures `vlm_sample`,
    `vlm_score` and `vlm_run`.
    """

    datasets: ClassVar[Sequence[str]] = ()

    def test_sample(self, vlm_sample: SampleView) -> None:
        """One item per sample: right, wrong, or without a usable answer."""
        vlm_sample.check()

    def test_score(self, vlm_score: ScoreView) -> None:
        """One item per dataset: its score, and whether it is complete."""
        vlm_score.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleParameter:
    """Names the sample that an item shows."""

    dataset: str
    row: IndexRow


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreParameter:
    """Names the dataset whose score an item shows."""

    dataset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpreparedParameter:
    """Stands for all items of a dataset that could not be prepared."""

    dataset: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnselectedParameter:
    """Stands for a test none of whose datasets is selected; it is deselected."""


Parameter = SampleParameter | ScoreParameter | UnpreparedParameter | UnselectedParameter


def wanted_fixture(metafunc: pytest.Metafunc) -> str | None:
    """Return the fixture that a test is to be parametrized by, if it asks for one."""
    for name in ("vlm_sample", "vlm_score"):
        if name in metafunc.fixturenames:
            return name
    return None


def parametrize(metafunc: pytest.Metafunc, fixture: str, run: Run) -> None:
    """Expand a test over the samples or the scores of its datasets."""
    from pytest_vlmeval.selection import may_select

    parameters: list[Parameter] = []
    ids: list[str] = []
    for dataset in _selected_datasets(metafunc, run):
        if not may_select(metafunc.definition, dataset):
            continue
        for name, parameter in _expand(run, dataset, fixture):
            ids.append(name)
            parameters.append(parameter)
    if not parameters:
        ids, parameters = ["unselected"], [UnselectedParameter()]
    metafunc.parametrize(fixture, parameters, indirect=True, ids=ids)


def _selected_datasets(metafunc: pytest.Metafunc, run: Run) -> list[str]:
    names = declared_datasets(metafunc)
    run.declared.update(names)
    chosen = run.settings.data
    return [name for name in names if not chosen or name in chosen]


def declared_datasets(metafunc: pytest.Metafunc) -> list[str]:
    """Return the datasets of a test: those of its marker, else of its class."""
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
    return [str(name) for name in found]


def _all_text(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) and value for value in values)


def _expand(run: Run, dataset: str, fixture: str) -> Iterable[tuple[str, Parameter]]:
    try:
        rows = run.rows(dataset)
    except VlmEvalError as error:
        return [(dataset, UnpreparedParameter(dataset=dataset, error=str(error)))]
    if fixture == "vlm_score":
        return [(dataset, ScoreParameter(dataset=dataset))]
    return [
        (f"{dataset}-{row.index}", SampleParameter(dataset=dataset, row=row))
        for row in rows
    ]


def parameter_of(item: pytest.Item) -> Parameter | None:
    """Return what an item shows; None for an item that is not ours."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return None
    for fixture in ("vlm_sample", "vlm_score"):
        parameter: Parameter | None = callspec.params.get(fixture)
        if isinstance(parameter, Parameter):
            return parameter
    return None


def drop_placeholders(items: list[pytest.Item]) -> list[pytest.Item]:
    """Take out items that show nothing, and return them.

    A dataset that cannot be prepared keeps one item, which fails and says why.
    """
    dropped: list[pytest.Item] = []
    kept: list[pytest.Item] = []
    reported: set[str] = set()
    for item in items:
        parameter = parameter_of(item)
        if isinstance(parameter, UnselectedParameter):
            dropped.append(item)
        elif isinstance(parameter, UnpreparedParameter):
            again = parameter.dataset in reported
            (dropped if again else kept).append(item)
            reported.add(parameter.dataset)
        else:
            kept.append(item)
    items[:] = kept
    return dropped


def needed_datasets(items: Iterable[pytest.Item]) -> Mapping[str, Needed]:
    """Return what the items need of each dataset, in the order of the items."""
    from pytest_vlmeval.run import Needed

    whole: set[str] = set()
    indexes: dict[str, set[str]] = {}
    for item in items:
        parameter = parameter_of(item)
        if isinstance(parameter, SampleParameter):
            indexes.setdefault(parameter.dataset, set()).add(parameter.row.index)
        elif isinstance(parameter, ScoreParameter):
            indexes.setdefault(parameter.dataset, set())
            whole.add(parameter.dataset)
    return {
        name: Needed(whole=name in whole, indexes=frozenset(found))
        for name, found in indexes.items()
    }
