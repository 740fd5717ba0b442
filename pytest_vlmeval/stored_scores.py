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


def find_score(
    store: Store,
    board: Board,
    plan: Plan,
    entry: PlanEntry,
    judge: str | None = None,
    *,
    brief: bool = False,
) -> Score | None:
    """Return the stored score of what a session selected, if there is one.

    `judge` names one of several, whose majority it is otherwise. A `brief` score may
    come without its verdicts.
    """
    found = find_outcome(store, board, plan, entry, judge, brief=brief)
    return found if isinstance(found, Score) else None


def find_outcome(
    store: Store,
    board: Board,
    plan: Plan,
    entry: PlanEntry,
    judge: str | None = None,
    *,
    brief: bool = False,
) -> Score | VlmEvalError | None:
    """Return the stored score, why there is none, or None while it was not tried.

    A `brief` one may come without its verdicts.
    """
    scores = []
    for repeat in range(plan.repeats):
        stored = {
            index: board.get(entry.fingerprint, index, repeat)
            for index in entry.indexes
        }
        score_id = name_score(plan, entry, stored, judge or entry.judge)
        # Of several repeats the verdicts make the score.
        found = store.scores.load(score_id, brief=brief and plan.repeats == 1)
        if not isinstance(found, Score):
            return found
        scores.append(found)
    return average(scores)


def find_scores(
    store: Store, board: Board, plan: Plan, entry: PlanEntry
) -> tuple[Score, ...]:
    """Return the stored scores of each judge where there are several."""
    if len(entry.judges) < 2:
        return ()
    found = [find_score(store, board, plan, entry, name) for name in entry.judges]
    return tuple(score for score in found if score is not None)


def name_score(plan: Plan, entry: PlanEntry, stored: Stored, judge: str) -> str:
    """Name a score by all it is made of: which answers, scored by what."""
    parts = [plan.run_id, entry.fingerprint, plan.scorer, judge]
    digest = hashlib.sha256(json.dumps(parts).encode())
    for index, each in stored.items():
        digest.update(json.dumps([index, each.seq if each else None]).encode())
    return digest.hexdigest()[:32]
