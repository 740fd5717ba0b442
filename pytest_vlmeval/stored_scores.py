"""The scores that the store has of what a session selected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import Plan, PlanEntry, Score
from pytest_vlmeval.repeats import average

if TYPE_CHECKING:
    from pytest_vlmeval.board import Board
    from pytest_vlmeval.store import Store
    from pytest_vlmeval.store.answers import StoredAnswer

    Stored = Mapping[str, StoredAnswer | None]


class StoredScores:
    """Finds them by the answers that a board knows."""

    def __init__(self, store: Store, board: Board, plan: Plan) -> None:
        self._store = store
        self._board = board
        self._plan = plan

    def find(
        self, entry: PlanEntry, judge: str = "", *, brief: bool = False
    ) -> Score | None:
        """Return the score of a dataset, if there is one.

        `judge` names one of several, whose majority it is otherwise. A `brief` score
        may come without its verdicts.
        """
        found = self.outcome(entry, judge, brief=brief)
        return found if isinstance(found, Score) else None

    def outcome(
        self, entry: PlanEntry, judge: str = "", *, brief: bool = False
    ) -> Score | VlmEvalError | None:
        """Return the score, why there is none, or None while it was not tried."""
        repeats = range(self._plan.repeats)
        scores = []
        for repeat in repeats:
            stored = {
                index: self._board.get(entry.fingerprint, index, repeat)
                for index in entry.indexes
            }
            score_id = name_score(self._plan, entry, stored, judge or entry.judge)
            # Of several repeats the verdicts make the score.
            found = self._store.scores.load(score_id, brief=brief and len(repeats) == 1)
            if not isinstance(found, Score):
                return found
            scores.append(found)
        return average(scores)

    def by_judge(self, entry: PlanEntry) -> tuple[Score, ...]:
        """Return the scores of each judge where there are several."""
        if len(entry.judges) < 2:
            return ()
        found = [self.find(entry, name) for name in entry.judges]
        return tuple(score for score in found if score is not None)


def name_score(plan: Plan, entry: PlanEntry, stored: Stored, judge: str) -> str:
    """Name a score by all it is made of: which answers, scored by what."""
    parts = [plan.run_id, entry.fingerprint, plan.scorer, judge]
    digest = hashlib.sha256(json.dumps(parts).encode())
    for index, each in stored.items():
        digest.update(json.dumps([index, each.seq if each else None]).encode())
    return digest.hexdigest()[:32]
