"""Scores, verdicts and what the gates found, each computed once."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import sqlalchemy as sa

from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.records import (
    GateResult,
    Score,
    SoundScore,
    Verdict,
    as_record,
    from_record,
)
from pytest_vlmeval.run.store.database import AT_ONCE, Database, waits_out_restarts
from pytest_vlmeval.run.store.schema import gates, scores, verdicts

# A score is "incomplete" where a judge gave no reply, which it may another time.
_CLAIMED: Mapping[str, Literal["taken", "done", "failed"]] = {
    "scoring": "taken",
    "done": "done",
    "incomplete": "done",
    "failed": "failed",
    "needs_judge": "failed",
}
_TRIED_AGAIN = ("failed", "needs_judge", "incomplete")


@waits_out_restarts
class Scores:
    """The scores of the store, with their verdicts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, score_id: str, run_id: str, fingerprint: str, session_id: str, owner: str
    ) -> Literal["mine", "taken", "done", "failed"]:
        """Ask to compute a score: it is ours to do, being done, or there already.

        A scoring that failed in an earlier session is tried again, as is one whose
        judge gave no reply.
        """
        values = {
            "score_id": score_id,
            "run_id": run_id,
            "fingerprint": fingerprint,
            "session_id": session_id,
            "state": "scoring",
            "owner": owner,
            "created_at": time.time(),
            "error": "",
        }
        failed = scores.c.state.in_(_TRIED_AGAIN) & (scores.c.session_id != session_id)
        statement = (
            self._database.insert(scores)
            .values(values)
            .on_conflict_do_update(
                index_elements=["score_id"], set_=values, where=failed
            )
            .returning(scores.c.score_id)
        )
        state = sa.select(scores.c.state).where(scores.c.score_id == score_id)
        with self._database.transaction() as connection:
            if connection.execute(statement).first() is not None:
                return "mine"
            return _CLAIMED[str(connection.scalar(state))]

    def finish(self, score_id: str, score: Score) -> None:
        """Record a score with its verdicts."""
        fields = {
            name: getattr(score, name)
            for name in Score.__dataclass_fields__
            if name not in ("verdicts", "metrics", "sound")
        }
        failed = any(verdict.state == "judge_failed" for verdict in score.verdicts)
        with self._database.transaction(lock=f"score {score_id}") as connection:
            connection.execute(
                sa.delete(verdicts).where(verdicts.c.score_id == score_id)
            )
            for start in range(0, len(score.verdicts), AT_ONCE):
                part = score.verdicts[start : start + AT_ONCE]
                rows = [_verdict_row(score_id, verdict) for verdict in part]
                connection.execute(sa.insert(verdicts), rows)
            connection.execute(
                sa.update(scores)
                .where(scores.c.score_id == score_id)
                .values(
                    state="incomplete" if failed else "done",
                    score={
                        **fields,
                        "metrics": dict(score.metrics),
                        "sound": score.sound and asdict(score.sound),
                    },
                )
            )

    def fail(self, score_id: str, error: Exception) -> None:
        """Record why a score could not be computed."""
        state = "needs_judge" if isinstance(error, NeedsJudgeError) else "failed"
        with self._database.transaction() as connection:
            connection.execute(
                sa.update(scores)
                .where(scores.c.score_id == score_id)
                .values(state=state, error=str(error))
            )

    def abandon(self, score_id: str, owner: str) -> None:
        """Leave a score that `owner` has not finished to others."""
        with self._database.transaction() as connection:
            connection.execute(
                sa.delete(scores).where(
                    scores.c.score_id == score_id,
                    scores.c.owner == owner,
                    scores.c.state == "scoring",
                )
            )

    def forget(self, score_id: str) -> None:
        """Remove a score that was only a look at a part of a dataset."""
        finished = sa.and_(
            scores.c.score_id == score_id, scores.c.state.not_in(("scoring",))
        )
        with self._database.transaction() as connection:
            if connection.execute(sa.delete(scores).where(finished)).rowcount:
                connection.execute(
                    sa.delete(verdicts).where(verdicts.c.score_id == score_id)
                )

    def metric_names(self, fingerprint: str, samples: int) -> tuple[str, ...]:
        """Return the metrics of the newest score of a dataset, none if it has none.

        Of fewer than `samples` there may be fewer metrics, so such are passed over.
        """
        statement = (
            sa.select(scores.c.score)
            .where(scores.c.fingerprint == fingerprint)
            .where(scores.c.state.in_(("done", "incomplete")))
            .order_by(scores.c.created_at.desc())
        )
        with self._database.transaction(reading=True) as connection:
            for score in connection.scalars(statement):
                if score["samples"] >= samples:
                    return tuple(score["metrics"])
        return ()

    def load(
        self, score_id: str, *, brief: bool = False
    ) -> Score | VlmEvalError | None:
        """Return a score, why there is none, or None while it is not done.

        A `brief` one comes without its verdicts.
        """
        with self._database.transaction(reading=True) as connection:
            row = connection.execute(
                sa.select(scores).where(scores.c.score_id == score_id)
            ).first()
            if row is None or row.state == "scoring":
                return None
            if row.state == "failed":
                return VlmEvalError(row.error)
            if row.state == "needs_judge":
                return NeedsJudgeError(row.error)
            found = () if brief else _load_verdicts(connection, score_id)
        sound = row.score["sound"]
        return Score(
            **{
                **row.score,
                "notes": tuple(row.score["notes"]),
                "repeats": (),
                "sound": sound and SoundScore(**sound),
            },
            verdicts=found,
        )


def _verdict_row(score_id: str, verdict: Verdict) -> dict[str, object]:
    return {
        "score_id": score_id,
        "sample_index": verdict.index,
        "value": verdict.value,
        "extracted": verdict.extracted,
        "reason": verdict.reason,
        "state": verdict.state,
        "exchanges": list(verdict.exchanges),
        "corrected": verdict.corrected,
        "rests_on_defect": verdict.rests_on_defect,
        "unread": verdict.unread,
        "why_lost": verdict.why_lost,
    }


def _load_verdicts(connection: sa.Connection, score_id: str) -> tuple[Verdict, ...]:
    judged = connection.execute(
        sa.select(verdicts).where(verdicts.c.score_id == score_id)
    )
    return tuple(map(_verdict, judged.yield_per(AT_ONCE)))


def _verdict(row: sa.Row[Any]) -> Verdict:
    return Verdict(
        # Known by many, or the same for thousands of verdicts: kept once.
        index=sys.intern(row.sample_index),
        value=row.value,
        extracted=row.extracted,
        reason=sys.intern(row.reason),
        state=row.state,
        exchanges=tuple(row.exchanges),
        corrected=row.corrected,
        rests_on_defect=row.rests_on_defect,
        unread=row.unread,
        why_lost=sys.intern(row.why_lost),
    )


@waits_out_restarts
class Gates:
    """The results of gates in the store, by session."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, session_id: str, run_id: str, results: Sequence[GateResult]) -> None:
        """Record results; a session's newest of a gate and metric counts."""
        if not results:
            return
        insert = self._database.insert(gates)
        statement = insert.on_conflict_do_update(
            index_elements=["session_id", "dataset", "gate", "metric"],
            set_={
                name: insert.excluded[name]
                for name in ("outcome", "fails", "result", "decided_at")
            },
        )
        rows = [
            {
                "session_id": session_id,
                "run_id": run_id,
                "dataset": result.dataset,
                "gate": result.gate,
                "metric": result.metric,
                "outcome": result.outcome,
                "fails": result.fails,
                "result": as_record(result),
                "decided_at": time.time(),
            }
            for result in results
        ]
        with self._database.transaction() as connection:
            connection.execute(statement, rows)

    def load(self, session_id: str) -> tuple[GateResult, ...]:
        """Return what the gates of a session found, by dataset, gate and metric."""
        statement = (
            sa.select(gates.c.result)
            .where(gates.c.session_id == session_id)
            .order_by(gates.c.dataset, gates.c.gate, gates.c.metric)
        )
        with self._database.transaction(reading=True) as connection:
            return tuple(map(from_record, connection.scalars(statement)))
