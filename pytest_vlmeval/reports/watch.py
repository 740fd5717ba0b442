"""How far a session has come, read from the store: what terminal reports show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_vlmeval.accounts import RunAccount
from pytest_vlmeval.board import Board
from pytest_vlmeval.datasets.prepare import find_prepared
from pytest_vlmeval.datasets.prepared import read_references
from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.records import AnswerState, Plan, PlanEntry, Score
from pytest_vlmeval.reports.summary import Share
from pytest_vlmeval.reports.tally import Tally
from pytest_vlmeval.store import Store
from pytest_vlmeval.store.answers import StoredAnswer
from pytest_vlmeval.stored_scores import StoredScores


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetProgress:
    """How many of a dataset's samples are settled: answered, or given up.

    `right` is the share of answers that look right, where a glance tells.
    """

    dataset: str
    settled: int
    total: int
    right: Share | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a session is: its datasets, and what it is at.

    `in_flight` counts what the run asks now, `retries` and `tokens` are those of the
    answers that the session got.
    """

    datasets: tuple[DatasetProgress, ...] = ()
    in_flight: int = 0
    retries: int = 0
    tokens: int = 0

    @property
    def settled(self) -> int:
        """The settled samples of all datasets."""
        return sum(each.settled for each in self.datasets)

    @property
    def total(self) -> int:
        """The samples of all datasets."""
        return sum(each.total for each in self.datasets)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetResult:
    """What became of a dataset; `score` is None where there is none.

    `version` names its data where there are several. `no_score` then says why, where
    that is known. `by_judge` are the scores of each of several judges, whose majority
    is `score`. `endings` counts what was asked by the state of its answer and the
    server's finish_reason.
    """

    dataset: str
    samples: int
    answered: int
    modified: bool
    score: Score | None
    version: str = ""
    no_score: str = ""
    by_judge: tuple[Score, ...] = ()
    endings: Mapping[tuple[AnswerState, str], int] = field(default_factory=dict)


class Watch:
    """Follows one session's plan in the store."""

    def __init__(
        self, store: Store, plan: Plan, session_id: str, cache_dir: Path
    ) -> None:
        self._store = store
        self._plan = plan
        self._session_id = session_id
        self._board = Board(store, plan, session_id, brief=True, on_new=self._count)
        self._tallies = {
            entry.fingerprint: Tally(session_id, _references(cache_dir, entry))
            for entry in plan.entries
        }

    def progress(self) -> Progress:
        """Return how far each dataset is, in the plan's order."""
        self._board.refresh()
        settled = self._board.progress()
        tallies = self._tallies
        return Progress(
            datasets=tuple(
                DatasetProgress(
                    dataset=entry.dataset,
                    settled=settled[entry.fingerprint],
                    total=len(entry.indexes) * self._plan.repeats,
                    right=tallies[entry.fingerprint].right,
                )
                for entry in self._plan.entries
            ),
            in_flight=self._store.answers.in_flight(self._plan.run_id),
            retries=sum(each.retries for each in tallies.values()),
            tokens=sum(each.tokens for each in tallies.values()),
        )

    def _count(self, stored: StoredAnswer) -> None:
        self._tallies[stored.answer.fingerprint].add(stored)

    def account(self) -> RunAccount:
        """Return what the run has asked for these datasets, and this session alone."""
        self._board.refresh()
        return replace(
            self._store.accounting.read(self._plan, self._session_id),
            origins=self._board.origins(),
            spot_check=self._store.reuse.load(self._session_id),
        )

    def results(self) -> list[DatasetResult]:
        """Return what became of each dataset."""
        self._board.refresh()
        stored = StoredScores(self._store, self._board, self._plan)
        results = []
        for entry in self._plan.entries:
            found = stored.outcome(entry, brief=True)
            score = found if isinstance(found, Score) else None
            results.append(
                DatasetResult(
                    dataset=entry.dataset,
                    samples=len(entry.indexes),
                    answered=self._board.answered(entry.fingerprint),
                    modified=entry.modified,
                    version=entry.version,
                    score=score,
                    no_score="" if score else self._why_no_score(entry, found),
                    by_judge=stored.by_judge(entry),
                    endings=self._board.endings(entry.fingerprint),
                )
            )
        return results

    def _why_no_score(self, entry: PlanEntry, found: object) -> str:
        """Say in a few words why a dataset has no score, "" while answers lack."""
        if entry.unscored:
            return entry.unscored
        if isinstance(found, NeedsJudgeError):
            return "only a judge scores it (--vlm-judge)"
        answered = self._board.answered(entry.fingerprint)
        if isinstance(found, VlmEvalError):
            return "its scoring failed" if answered else "no sample was answered"
        return "only asked so far" if answered == len(entry.indexes) else ""


def _references(cache_dir: Path, entry: PlanEntry) -> Iterable[tuple[str, str | None]]:
    folder = find_prepared(cache_dir, entry.dataset, entry.fingerprint)
    return () if folder is None else read_references(folder)
