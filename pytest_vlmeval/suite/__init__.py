"""Datasets as test collections: the `Benchmark` base class and what it expands to."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from pytest_vlmeval.errors import VlmEvalError, log_error

if TYPE_CHECKING:
    from syrupy.assertion import SnapshotAssertion

    from pytest_vlmeval.datasets.own_questions import OwnQuestions
    from pytest_vlmeval.datasets.prepare import IndexRow
    from pytest_vlmeval.datasets.unscored import Unscored
    from pytest_vlmeval.run.own_scoring import OwnScoring
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
    "recent": "is newer than ms-vlmeval: from a hub, with its own scoring",
}

PACKAGE = Path(__file__).parents[1]


class Benchmark:
    """Base class of a benchmark: names its datasets, brings their tests.

    A path of a table, from the folder of the test's file, or "hf:OWNER/NAME" names a
    user's dataset, and `columns` what its columns are for, as `--vlm-columns` does; "*"
    stands for what `--vlm-data` names and no other selected benchmark has.
    Subclasses may add tests of their own with the fixtures `vlm_sample`,
    `vlm_score` and `vlm_run`.

    A subclass may make the questions itself: `questions(self, row)` gets each row of
    the table as the file has it, and gives a dict for each question, with question,
    answer, image and what `score` reads of it. The question is sent as it stands.

    A dataset that cannot be scored ends the session before anything is asked, unless
    `--vlm-mode=infer`. With `unscored = "leave out"` it is left out, with a line that
    says so, where the command line does not name it.

    A subclass may score its datasets itself: `score(self, sample, answer)`, with a
    third argument `judge` if it asks one, gets a `Sample` and its usable `Answer`, and
    returns a number from 0 to 1, a bool, a `Verdict` or what the judge gave.
    `aggregate(self, verdicts)` may make metrics by name of all verdicts, the main one
    first; else it is their mean. A second argument, `samples`, has the samples by
    index. Changed code scores stored answers anew; `scoring` is a text to change where
    that does not show in the code.
    """

    datasets: ClassVar[Sequence[str]] = ()
    columns: ClassVar[Mapping[str, str]] = {}
    unscored: ClassVar[Unscored] = "refuse"
    scoring: ClassVar[str] = ""

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


def scoring_of(benchmark: type[Benchmark]) -> OwnScoring | None:
    """Return what a benchmark scores its datasets by; None where it defines no score.

    Raises `VlmEvalError` for functions that cannot be called.
    """
    from pytest_vlmeval.run.own_scoring import make_scoring

    made = benchmark()
    score = getattr(made, "score", None)
    aggregate = getattr(made, "aggregate", None)
    if score is None and aggregate is None:
        return None
    # Classes that inherit a score share it, and so have its name.
    owners = (each.__name__ for each in benchmark.__mro__ if "score" in vars(each))
    owner = next(owners, benchmark.__name__)
    return make_scoring(owner, score, aggregate, revision=benchmark.scoring)


def questions_of(benchmark: type[Benchmark]) -> OwnQuestions | None:
    """Return what a benchmark makes the questions of its tables by; None for nothing.

    Raises `VlmEvalError` for what cannot be called, or beside `columns`.
    """
    from pytest_vlmeval.run.own_scoring import make_questions

    made = getattr(benchmark(), "questions", None)
    if made is None:
        return None
    owners = (each.__name__ for each in benchmark.__mro__ if "questions" in vars(each))
    questions = make_questions(next(owners, benchmark.__name__), made)
    if benchmark.columns:
        raise VlmEvalError(
            f"{benchmark.__name__} has columns, and {questions.name} "
            f"({questions.place}): that gets the rows with the columns of the file. "
            "Leave columns out."
        )
    return questions


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

    dataset: ClassVar[str] = ""


Parameter = SampleParameter | ScoreParameter | UnpreparedParameter | UnselectedParameter


def id_of(value: object) -> str | None:
    """Return the id of a parameter of ours as it is, but for control characters.

    pytest itself would write letters outside of ASCII as escapes.
    """
    if not isinstance(value, Parameter):
        return None
    name = value.dataset or "unselected"
    if isinstance(value, SampleParameter):
        name = f"{name}-{value.row.index}"
    return "".join(
        char
        if char.isprintable() or unicodedata.category(char) == "Zs"
        else char.encode("unicode_escape").decode()
        for char in name
    )


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
    parameter = parameter_of(item)
    return "" if parameter is None else parameter.dataset


# The attribute of a report that passes though the answer is wrong.
WRONG = "vlmeval_wrong"


def mark(
    report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]
) -> None:
    """Mark the report of an item of ours, as the terminal's process has no items.

    That is of a wrong answer that passes (`--vlm-wrong=pass`), with `WRONG`, or of one
    that fails with a message of ours, with `FAILED` and its dataset.
    """
    parameter = parameter_of(item)
    if parameter is None or report.when != "call":
        return
    error = call.excinfo.value if call.excinfo is not None else None
    if report.failed and getattr(error, "pytrace", True) is False:
        from pytest_vlmeval.reports.folding import FAILED

        vars(report)[FAILED] = parameter.dataset
    elif report.passed and isinstance(parameter, SampleParameter):
        view: SampleView = getattr(item, "funcargs", {})["vlm_sample"]
        if view.wrong:
            vars(report)[WRONG] = True


def status_of(
    report: pytest.CollectReport | pytest.TestReport,
) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """Return how the terminal counts a wrong answer that passes; None for others."""
    if not hasattr(report, WRONG):
        return None
    return "wrong", "w", ("WRONG", {"yellow": True})


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
