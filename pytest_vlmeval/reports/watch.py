"""How far a session has come, read from the store: what terminal reports show."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_vlmeval.board import Board
from pytest_vlmeval.records import Plan, Score
from pytest_vlmeval.scoring import find_score, find_scores
from pytest_vlmeval.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetProgress:
    """How many of a dataset's samples are settled: answered, or given up."""

    dataset: str
    settled: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetResult:
    """What became of a dataset; `score` is None where there is none.

    `by_judge` are the scores of each of several judges, whose majority is `score`.
    """

    dataset: str
    samples: int
    answered: int
    modified: bool
    score: Score | None
    by_judge: tuple[Score, ...] = ()


class Watch:
    """Follows one session's plan in the store."""

    def __init__(self, store: Store, plan: Plan, session_id: str) -> None:
        self._store = store
        self._plan = plan
        self._board = Board(store, plan, session_id)

    def progress(self) -> list[DatasetProgress]:
        """Return how far each dataset is, in the plan's order."""
        self._board.refresh()
        settled = self._board.progress()
        return [
            DatasetProgress(
                dataset=entry.dataset,
                settled=settled[entry.fingerprint],
                total=len(entry.indexes) * self._plan.repeats,
            )
            for entry in self._plan.entries
        ]

    def results(self) -> list[DatasetResult]:
        """Return what became of each dataset."""
        self._board.refresh()
        results = []
        for entry in self._plan.entries:
            results.append(
                DatasetResult(
                    dataset=entry.dataset,
                    samples=len(entry.indexes),
                    answered=self._board.answered(entry.fingerprint),
                    modified=entry.modified,
                    score=find_score(self._store, self._board, self._plan, entry),
                    by_judge=find_scores(self._store, self._board, self._plan, entry),
                )
            )
        return results
