"""Datasets as test collections: the `Benchmark` base class and what it expands to."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from pytest_vlmeval.errors import VlmEvalError, log_error
from pytest_vlmeval.suite.selection import (
    may_leave_out,
    named_datasets,
    selected_datasets,
)

if TYPE_CHECKING:
    from syrupy.assertion import SnapshotAssertion

    from pytest_vlmeval.datasets.prepare import IndexRow
    from pytest_vlmeval.datasets.unscored import Unscored
    from pytest_vlmeval.run import Run
    from pytest_vlmeval.run.plan import Need
    from pytest_vlmeval.settings import Settings
    from pytest_vlmeval.suite.views import SampleView, ScoreView

# What the benchmarks are marked with, for -m.
MARKERS = {
    "vlm(*datasets)": "the ms-vlmeval datasets that the test runs over",
    "core": "the usual eight benchmarks, for every day",
    "image": "asks about images",
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

PACKAGE = Path(__file__).parents[1]

# The datasets some of whose items were deselected.
DESELECTED = pytest.StashKey[set[str]]()


class Benchmark:
    """Base class of a benchmark: names its datasets, brings their tests.

    A path of a TSV, from the folder of the test's file, names a user's dataset;
    "*" stands for what `--vlm-data` names and no other selected benchmark has.
    Subclasses may add tests of their own with the fixtures `vlm_sample`,
    `vlm_score` and `vlm_run`.

    A dataset that cannot be scored ends the session before anything is asked, unless
    `--vlm-mode=infer`. With `unscored = "leave out"` it is left out, with a line that
    says so, where the command line does not name it.
    """

    datasets: ClassVar[Sequence[str]] = ()
    unscored: ClassVar[Unscored] = "refuse"

    def test_sample(self, vlm_sample: SampleView) -> None:
        """One item per sample: right, wrong, or without a usable answer."""
        vlm_sample.check()

    def test_score(self, vlm_score: ScoreView) -> None:
        """One item per dataset: its score, and whether it is complete."""
        vlm_score.check()

    def test_no_regression(
        self, vlm_score: ScoreView, snapshot: SnapshotAssertion
    ) -> None:
        """One item per dataset: whether it got worse than its baseline."""
        assert vlm_score == snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleParameter:
    """Names the sample that an item shows."""

    dataset: str
    row: IndexRow

    @property
    def id(self) -> str:
        """What stands between the brackets of the item's name."""
        return f"{self.dataset}-{self.row.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreParameter:
    """Names the dataset whose score an item shows."""

    dataset: str

    @property
    def id(self) -> str:
        """What stands between the brackets of the item's name."""
        return self.dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpreparedParameter:
    """Stands for all items of a dataset that could not be prepared."""

    dataset: str
    error: str

    @property
    def id(self) -> str:
        """What stands between the brackets of the item's name."""
        return self.dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class UnselectedParameter:
    """Stands for a test none of whose datasets is selected; it is deselected."""

    id: ClassVar[str] = "unselected"


Parameter = SampleParameter | ScoreParameter | UnpreparedParameter | UnselectedParameter


def id_of(value: object) -> str | None:
    """Return the id of a parameter of ours as it is, but for control characters.

    pytest itself would write letters outside of ASCII as escapes.
    """
    if not isinstance(value, Parameter):
        return None
    return "".join(
        char
        if char.isprintable() or unicodedata.category(char) == "Zs"
        else char.encode("unicode_escape").decode()
        for char in value.id
    )


def wanted_fixture(metafunc: pytest.Metafunc) -> str | None:
    """Return the fixture that a test is to be parametrized by, if it asks for one."""
    for name in ("vlm_sample", "vlm_score"):
        if name in metafunc.fixturenames:
            return name
    return None


def parametrize(metafunc: pytest.Metafunc, fixture: str, run: Run) -> None:
    """Expand a test over the samples or the scores of its datasets."""
    datasets = named_datasets(metafunc)
    run.choice.declare(datasets)
    parameters: list[Parameter] = []
    for dataset in selected_datasets(metafunc, datasets, run).names:
        parameters += _expand(run, dataset, fixture)
    parameters = parameters or [UnselectedParameter()]
    # Their ids come by the hook, whose text pytest takes as it is.
    metafunc.parametrize(fixture, parameters, indirect=True)


def _expand(run: Run, dataset: str, fixture: str) -> Sequence[Parameter]:
    try:
        rows = run.rows(dataset)
    except VlmEvalError as error:
        return [UnpreparedParameter(dataset=dataset, error=str(error))]
    except Exception as error:
        why = log_error(run.settings, error, "Preparing", dataset)
        return [UnpreparedParameter(dataset=dataset, error=why)]
    if fixture == "vlm_score":
        return [ScoreParameter(dataset=dataset)]
    return [SampleParameter(dataset=dataset, row=row) for row in rows]


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


def dataset_of(item: pytest.Item) -> str:
    """Return the dataset that an item shows, "" for one that shows none."""
    dataset: str = getattr(parameter_of(item), "dataset", "")
    return dataset


def shorten(
    report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]
) -> None:
    """Keep of a wrong answer what is said of it, not where in the plugin.

    That would take 800 bytes for each to the end of the session. What has a traceback
    keeps it.
    """
    error = call.excinfo.value if call.excinfo is not None else None
    if parameter_of(item) is not None and getattr(error, "pytrace", True) is False:
        report.longrepr = str(error)


def replace_bug(
    item: pytest.Item, call: pytest.CallInfo[None], settings: Settings
) -> None:
    """Put one line in the place of an exception that nobody expects, met in our code.

    What the test of a user raises by itself stays as it is.
    """
    assert call.excinfo is not None
    error, parameter = call.excinfo.value, parameter_of(item)
    if (
        parameter is None
        or isinstance(error, VlmEvalError)
        or not any(
            PACKAGE in Path(entry.path).parents
            # A test of the wheel's benchmarks, or of the base class.
            and entry.name != getattr(item, "originalname", "")
            for entry in call.excinfo.traceback
        )
    ):
        return
    doing = "The test of" if call.when == "call" else f"The {call.when} of the test of"
    sample = parameter.row.index if isinstance(parameter, SampleParameter) else ""
    line = log_error(settings, error, doing, dataset_of(item), sample)
    failure = pytest.fail.Exception(line, pytrace=False)
    # What --pdb enters is still the place of the exception.
    call.excinfo = pytest.ExceptionInfo.from_exception(
        failure.with_traceback(error.__traceback__)
    )


def gate_folders(items: Iterable[pytest.Item]) -> list[Path]:
    """Return the folders whose thresholds count, each once.

    Those of the tests that ask for a score, and those that are run as a whole.
    """
    partial = _Partial()
    return list(
        dict.fromkeys(
            item.path.parent
            for item in items
            if isinstance(parameter := parameter_of(item), ScoreParameter)
            or (isinstance(parameter, SampleParameter) and not partial.find(item))
        )
    )


def wants_judge(item: pytest.Item) -> bool:
    """Return whether a test asks a judge by itself."""
    return "vlm_judge" in getattr(item, "fixturenames", ())


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


def take_unscored(
    items: list[pytest.Item], reasons: Mapping[str, str], run: Run
) -> list[pytest.Item]:
    """Take out, and return, items of datasets that cannot be scored, for `reasons`.

    Only those of benchmarks that leave them out; others stay.
    """
    taken: list[pytest.Item] = []
    kept: list[pytest.Item] = []
    for item in items:
        dataset = dataset_of(item)
        cls = getattr(item, "cls", None)
        leave = dataset in reasons and may_leave_out(item.config, cls, dataset, run)
        (taken if leave else kept).append(item)
    items[:] = kept
    return taken


def note_deselected(items: Iterable[pytest.Item]) -> None:
    """Remember of which datasets a session does not have all items."""
    for item in items:
        parameter = parameter_of(item)
        if isinstance(parameter, SampleParameter | ScoreParameter):
            found = item.config.stash.setdefault(DESELECTED, set())
            found.add(parameter.dataset)


class _Partial:
    """Whether a session may lack some tests of an item's dataset, in its folder."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Path], bool] = {}

    def find(self, item: pytest.Item) -> bool:
        """Return whether they may be deselected, or lie where nothing is collected."""
        parameter, folder = parameter_of(item), item.path.parent
        key = getattr(parameter, "dataset", ""), folder
        if key not in self._known:
            from pytest_vlmeval.suite.selection import is_narrowed

            deselected = item.config.stash.get(DESELECTED, set())
            narrowed = is_narrowed(item.config, folder)
            self._known[key] = narrowed or key[0] in deselected
        return self._known[key]


def needed_datasets(items: Iterable[pytest.Item]) -> Mapping[str, Need]:
    """Return what the items need of each dataset, in the order of the items."""
    from pytest_vlmeval.run.plan import Need

    whole: set[str] = set()
    gated: set[str] = set()
    compared: dict[str, set[Path]] = {}
    indexes: dict[str, set[str]] = {}
    expected: set[str] = set()
    partial = _Partial()
    for item in items:
        parameter = parameter_of(item)
        if isinstance(parameter, SampleParameter | ScoreParameter):
            function = getattr(item, "function", None)
            if function is Benchmark.test_score or not partial.find(item):
                expected.add(parameter.dataset)
        if isinstance(parameter, SampleParameter):
            indexes.setdefault(parameter.dataset, set()).add(parameter.row.index)
        elif isinstance(parameter, ScoreParameter):
            indexes.setdefault(parameter.dataset, set())
            whole.add(parameter.dataset)
            if "snapshot" in getattr(item, "fixturenames", ()):
                folders = compared.setdefault(parameter.dataset, set())
                folders.add(item.path.parent)
            if getattr(item, "function", None) is not Benchmark.test_no_regression:
                gated.add(parameter.dataset)
    return {
        name: Need(
            whole=name in whole,
            indexes=frozenset() if name in whole else frozenset(found),
            gated=name in gated,
            compared=frozenset(compared.get(name, ())),
            expected=name in expected,
        )
        for name, found in indexes.items()
    }
