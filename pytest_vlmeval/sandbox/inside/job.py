"""The work in progress in the sandbox: what the fixes read instead of the outside."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from pytest_vlmeval.sandbox.inside.reading import last_named_option, read_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_vlmeval.records import Scoring
    from pytest_vlmeval.sandbox.inside.families.family import Family
    from pytest_vlmeval.sandbox.inside.media import ImageStore
    from pytest_vlmeval.sandbox.shelf import Shelf

    Progress = Callable[[int, int], None]
    # The prompt with its settings: system, max_tokens, temperature, attempt.
    Question = dict[str, Any]
    Ask = Callable[[Sequence[Question]], Sequence[Mapping[str, Any]]]

EXACT = "exact_matching"
JUDGED = "judge"
NO_REPLY = "Failed to obtain answer via API."


class ContainedError(RuntimeError):
    """Something in the process tried what the sandbox does not allow."""


class NoTableError(Exception):
    """A class wants a table of its dataset, and there is none."""


class Exchange(NamedTuple):
    """A question to the judge and what came back: a text, or an error."""

    number: int
    question: Question
    text: str | None
    error: str


@dataclass(slots=True)
class JudgedUnit:
    """One thing to be judged, and how far that is.

    `position` counts the questions that its present run has come to, `pending` is the
    first of them without a reply, `unusable` is true where the judge did not decide.
    """

    key: str
    exchanges: list[Exchange] = field(default_factory=list)
    position: int = 0
    pending: Question | None = None
    result: Any = None
    unusable: bool = False
    done: bool = False

    @property
    def failed(self) -> bool:
        """Whether its last question got no reply at all."""
        return bool(self.exchanges) and self.exchanges[-1].text is None

    @property
    def last_reply(self) -> str:
        """The text that came back last."""
        return (self.exchanges[-1].text or "") if self.exchanges else ""

    @property
    def state(self) -> str:
        """How it ended, as a verdict says it."""
        if not self.exchanges:
            return "matched"
        if not self.unusable:
            return "judged"
        return "judge_failed" if self.failed else "judge_unclear"

    def add(self, question: Question, reply: Mapping[str, Any]) -> None:
        """Take in what came back for a question."""
        question = {name: question[name] for name in question if name != "attempt"}
        self.exchanges.append(Exchange(question=question, **reply))


@dataclass(slots=True)
class LooseQuestions:
    """What is asked of the judge outside of a unit, by the question as a text.

    `said` has what came back each time, `used` how much of it the present run has come
    to, `open` what it has no reply to, with the row that each is about. `units` have
    what was asked about rows.
    """

    said: dict[str, list[Exchange]] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    open: dict[str, tuple[str, Question]] = field(default_factory=dict)
    units: dict[str, JudgedUnit] = field(default_factory=dict)
    runs: int = 0

    def begin(self) -> None:
        """Begin a run anew."""
        self.used.clear()
        self.open.clear()
        self.runs += 1

    @property
    def failures(self) -> int:
        """How many questions got no reply at all."""
        return sum(each.text is None for said in self.said.values() for each in said)


@dataclass(slots=True, kw_only=True)
class Job:
    """One call's data: the dataset's rows, a fresh folder, the tables dumped so far.

    `url` is where the rows are published, `prepared` the folder of the dataset that is
    scored, `shelf` says which repositories of hubs and
    further files a dataset may read. `ask` sends questions to the judge, None where
    there is none; `units` are those for it by their key, and `unit` the one that runs.
    What the judge did not decide is right in the `best_case` and wrong otherwise.
    `asked` are the indexes of the answers in order, `unanswered` of those without a
    usable text, `empty` of those without any, or with ms-vlmeval's own words in its
    place. `results` are those of units, by the file that would hold them. It may open
    files `within` these folders, None for any. `scoring` is the method: as ms-vlmeval
    publishes, as VLMEvalKit does, or corrected.
    `judge_tokens` is the length of a judge's reply where ms-vlmeval's is not meant.
    `takes_last` is for datasets whose authors take the option that is named last.
    `missing` are cells of the dataset's file, by the row's index and the column, which
    have a text that ms-vlmeval reads as no value. `named` is what `read_option` found:
    a task starts again after each reply, and an answer is read under both scorings.
    `family` is how the dataset's class is scored. `given` are the tables that stood
    there before it was evaluated, `refused` what it tried that is not allowed, and
    `loose` what it asked the judge outside of a unit. `stages` counts how often units
    were judged.
    """

    rows: pd.DataFrame
    folder: Path
    on_progress: Progress
    url: str = ""
    images: ImageStore | None = None
    prepared: Path = Path()
    within: Sequence[Path] | None = None
    shelf: Shelf | None = None
    ask: Ask | None = None
    judge_tokens: int | None = None
    best_case: bool = False
    asked: list[str] = field(default_factory=list)
    unanswered: frozenset[str] = frozenset()
    empty: frozenset[str] = frozenset()
    units: dict[str, JudgedUnit] = field(default_factory=dict)
    unit: JudgedUnit | None = None
    scoring: Scoring = "published"
    takes_last: bool = False
    missing: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    results: dict[str, dict[Any, Any]] = field(default_factory=dict)
    named: dict[tuple[str, ...], str | None] = field(default_factory=dict)
    family: Family | None = None
    given: dict[str, pd.DataFrame] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    loose: LooseQuestions = field(default_factory=lambda: LooseQuestions())
    stages: int = 0

    @property
    def is_general(self) -> bool:
        """Whether the class's own `evaluate` is run, of which nothing is known."""
        return self.family is not None and self.family.is_general

    def read(self, answer: str, options: Mapping[str, object]) -> str | None:
        """Read an option in corrected scoring; None for none.

        What nobody can mistake is read; of the rest a judge is asked, or where there is
        none what the dataset's authors would take is taken.
        """
        found = self.read_surely(answer, options)
        if found is None and self.takes_last and self.ask is None:
            return last_named_option(answer, options)
        return found

    def read_surely(self, answer: str, options: Mapping[str, object]) -> str | None:
        """Read an option that nobody can mistake; None for none."""
        texts = {
            letter: "" if each is None else str(each)
            for letter, each in options.items()
        }
        key = (answer, *texts.keys(), *texts.values())
        if key not in self.named:
            self.named[key] = read_option(answer, texts)
        return self.named[key]

    @property
    def not_judged(self) -> frozenset[str]:
        """The answers that no judge is shown, nor asked about what they may mean.

        ms-vlmeval asks what an empty text says, and its judge guesses.
        """
        if self.scoring == "corrected":
            return self.unanswered | self.empty
        return self.unanswered

    @property
    def method(self) -> str:
        """What ms-vlmeval is told of the judge; its files have it in their names."""
        return EXACT if self.ask is None else JUDGED

    def add_table(self, name: str) -> None:
        """Let ms-vlmeval find the rows where it keeps a dataset's file."""
        path = self.folder / name
        path.touch()
        self.tables[str(path)] = self.rows

    def dump_table(self, table: pd.DataFrame, path: str) -> None:
        """Keep a table as a file would, without losing a value."""
        table = table.reset_index(drop=True)
        for name in table.columns:
            if table[name].dtype == object:
                table[name] = [_as_cell(value) for value in table[name]]
        self.tables[path] = table
        # ms-vlmeval asks whether its files are there.
        if Path(path).is_relative_to(self.folder):
            Path(path).touch()


_running: list[Job] = []


@contextmanager
def running(job: Job) -> Iterator[None]:
    """Make `job` the current one."""
    _running.append(job)
    try:
        yield
    finally:
        _running.pop()


def current_job() -> Job:
    """Return the job of the call that is being served."""
    return _running[-1]


def files_within() -> Sequence[Path] | None:
    """Return the folders in which the work in progress may open files; None for any."""
    return _running[-1].within if _running else None


def note_refusal(what: str) -> None:
    """Remember what the evaluation in progress tried that is not allowed, and where.

    What is tried while a module is imported is left to the module.
    """
    if not _running or not _running[-1].is_general:
        return
    frame, place = sys._getframe(1), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if "importlib._bootstrap" in name:
            return
        if not place and "/vlmeval/" in name:
            place = f"{name.rpartition('/vlmeval/')[2]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    if place:
        _running[-1].refused.append(f"{what} ({place})")


def _as_cell(value: Any) -> Any:
    if value is None:
        return float("nan")
    if isinstance(value, list | tuple | dict | set):
        return str(value)
    return value
