"""Scores, verdicts and what the gates found, each computed once."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import sqlalchemy as sa

from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.records import (
    GateResult,
    Score,
    SoundScore,
    Verdict,
    from_record,
)
from pytest_vlmeval.run.store.database import AT_ONCE, Database
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


_VERDICT = tuple(name for name in Verdict.__dataclass_fields__ if name in verdicts.c)


class Results(Database):
    """The scores of the store with their verdicts, and the results of gates."""

    def claim_score(
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
            self._insert(scores)
            .values(values)
            .on_conflict_do_update(
                index_elements=["score_id"], set_=values, where=failed
            )
            .returning(scores.c.score_id)
        )
        state = sa.select(scores.c.state).where(scores.c.score_id == score_id)
        with self._transaction() as connection:
            if connection.execute(statement).first() is not None:
                return "mine"
            return _CLAIMED[str(connection.scalar(state))]

    def finish_score(self, score_id: str, score: Score) -> None:
        """Record a score with its verdicts."""
        failed = any(verdict.state == "judge_failed" for verdict in score.verdicts)
        values = {
            "state": "incomplete" if failed else "done",
            "score": asdict(replace(score, verdicts=())),
        }
        with self._transaction(lock=f"score {score_id}") as connection:
            connection.execute(
                sa.delete(verdicts).where(verdicts.c.score_id == score_id)
            )
            for start in range(0, len(score.verdicts), AT_ONCE):
                rows = [
                    {
                        "score_id": score_id,
                        "sample_index": verdict.index,
                        **{name: getattr(verdict, name) for name in _VERDICT},
                    }
                    for verdict in score.verdicts[start : start + AT_ONCE]
                ]
                connection.execute(sa.insert(verdicts), rows)
            connection.execute(
                sa.update(scores).where(scores.c.score_id == score_id).values(values)
            )

    def fail_score(self, score_id: str, error: Exception) -> None:
        """Record why a score could not be computed."""
        state = "needs_judge" if isinstance(error, NeedsJudgeError) else "failed"
        mine = sa.update(scores).where(scores.c.score_id == score_id)
        self._write(mine.values(state=state, error=str(error)))

    def abandon_score(self, score_id: str, owner: str) -> None:
        """Leave a score that `owner` has not finished to others."""
        mine = (scores.c.score_id == score_id) & (scores.c.owner == owner)
        self._write(sa.delete(scores).where(mine, scores.c.state == "scoring"))

    def forget_score(self, score_id: str) -> None:
        """Remove a score that was only a look at a part of a dataset."""
        finished = (scores.c.score_id == score_id) & (scores.c.state != "scoring")
        with self._transaction() as connection:
            if connection.execute(sa.delete(scores).where(finished)).rowcount:
                connection.execute(
                    sa.delete(verdicts).where(verdicts.c.score_id == score_id)
                )

    def metric_names(
        self, fingerprint: str, samples: int, own: str = ""
    ) -> tuple[str, ...]:
        """Return the metrics of the newest score of a dataset, none if it has none.

        Of fewer than `samples` there may be fewer metrics, so such are passed over. The
        score is ms-vlmeval's, or that of a user's `own` scoring, by its label.
        """
        query = (
            sa.select(scores.c.score)
            .where(scores.c.fingerprint == fingerprint)
            .where(scores.c.state.in_(("done", "incomplete")))
            .order_by(scores.c.created_at.desc())
        )
        whole = (
            row.score
            for row in self._read(query)
            if row.score["samples"] >= samples
            and (row.score["scoring"] == "own") == bool(own)
            and row.score["scorer"].startswith(own)
        )
        return tuple(next(whole, {"metrics": ()})["metrics"])

    def load_score(
        self, score_id: str, *, brief: bool = False
    ) -> Score | VlmEvalError | None:
        """Return a score, why there is none, or None while it is not done.

        A `brief` one comes without its verdicts.
        """
        with self._transaction(reading=True) as connection:
            row = connection.execute(
                sa.select(scores).where(scores.c.score_id == score_id)
            ).first()
            if row is None or row.state == "scoring":
                return None
            if row.state == "failed":
                return VlmEvalError(row.error)
            if row.state == "needs_judge":
                return NeedsJudgeError(row.error)
            found: tuple[Verdict, ...] = ()
            if not brief:
                query = sa.select(verdicts).where(verdicts.c.score_id == score_id)
                judged = connection.execute(query).mappings()
                found = tuple(map(_verdict, judged.yield_per(AT_ONCE)))
        sound = row.score["sound"]
        return Score(
            **{
                **row.score,
                "notes": tuple(row.score["notes"]),
                "repeats": (),
                "sound": sound and SoundScore(**sound),
                "verdicts": found,
            }
        )

    def save_gates(
        self, session_id: str, run_id: str, results: Sequence[GateResult]
    ) -> None:
        """Record results; a session's newest of a gate and metric counts."""
        if not results:
            return
        insert = self._insert(gates)
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
                "result": asdict(result),
                "decided_at": time.time(),
            }
            for result in results
        ]
        self._write(statement, rows)

    def load_gates(self, session_id: str) -> tuple[GateResult, ...]:
        """Return what the gates of a session found, by dataset, gate and metric."""
        query = (
            sa.select(gates.c.result)
            .where(gates.c.session_id == session_id)
            .order_by(gates.c.dataset, gates.c.gate, gates.c.metric)
        )
        return tuple(from_record(row.result) for row in self._read(query))


def _verdict(row: sa.RowMapping) -> Verdict:
    fields: dict[str, Any] = {name: row[name] for name in _VERDICT}
    # The same for thousands of verdicts, or known by many: kept once.
    for name in ("reason", "why_lost"):
        fields[name] = sys.intern(fields[name])
    fields["exchanges"] = tuple(fields["exchanges"])
    return Verdict(index=sys.intern(row["sample_index"]), **fields)
