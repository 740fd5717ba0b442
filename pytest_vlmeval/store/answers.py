"""Claims and answers: who asks what now, and what came back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from pytest_vlmeval.records import Answer
from pytest_vlmeval.store.database import Database
from pytest_vlmeval.store.leases import LEASE_S
from pytest_vlmeval.store.schema import answers, claims

_ANSWER_FIELDS = (
    "state",
    "text",
    "reasoning",
    "error",
    "attempts",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """An answer with its place in the store and the session that recorded it."""

    seq: int
    session_id: str
    answer: Answer


def counts(stored: StoredAnswer, session_id: str) -> bool:
    """Whether an answer settles its sample for a session.

    A usable answer always does; a failed, empty or cut-off one only in the session
    that got it, so that the next command asks again.
    """
    return stored.answer.state == "answered" or stored.session_id == session_id


class Answers:
    """The answers of the store and the claims on those still missing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self,
        run_id: str,
        session_id: str,
        owner: str,
        fingerprint: str,
        indexes: Sequence[str],
    ) -> list[str]:
        """Claim what can be claimed of `indexes`, in their order.

        Left out: samples another live process holds, and samples with an answer
        that counts for this session (`counts`).
        """
        until = time.time() + LEASE_S
        new = self._database.insert(claims).values(
            [
                {
                    "run_id": run_id,
                    "fingerprint": fingerprint,
                    "sample_index": index,
                    "owner": owner,
                    "lease_until": until,
                }
                for index in indexes
            ]
        )
        statement = new.on_conflict_do_update(
            index_elements=["run_id", "fingerprint", "sample_index"],
            set_={"owner": owner, "lease_until": until},
            where=claims.c.lease_until < time.time(),
        ).returning(claims.c.sample_index)
        with self._database.transaction() as connection:
            mine = set(connection.scalars(statement))
            done = _settled(connection, run_id, session_id, fingerprint, mine)
            _drop_claims(connection, run_id, fingerprint, done)
        return [index for index in indexes if index in mine and index not in done]

    def record(
        self, run_id: str, session_id: str, new: Sequence[Answer]
    ) -> list[StoredAnswer]:
        """Add answers and end their claims, in one transaction."""
        now = time.time()
        stored = []
        with self._database.transaction() as connection:
            for answer in new:
                values = {
                    "run_id": run_id,
                    "session_id": session_id,
                    "answered_at": now,
                    "fingerprint": answer.fingerprint,
                    "sample_index": answer.index,
                    **{name: getattr(answer, name) for name in _ANSWER_FIELDS},
                }
                seq = connection.scalar(
                    sa.insert(answers).values(values).returning(answers.c.seq)
                )
                stored.append(
                    StoredAnswer(
                        seq=int(seq or 0), session_id=session_id, answer=answer
                    )
                )
            for fingerprint in {answer.fingerprint for answer in new}:
                done = {a.index for a in new if a.fingerprint == fingerprint}
                _drop_claims(connection, run_id, fingerprint, done)
        return stored

    def after(
        self, run_id: str, fingerprints: Sequence[str], seq: int
    ) -> list[StoredAnswer]:
        """Return the answers recorded after `seq`, oldest first."""
        with self._database.transaction(reading=True) as connection:
            rows = connection.execute(
                sa.select(answers)
                .where(
                    answers.c.run_id == run_id,
                    answers.c.fingerprint.in_(fingerprints),
                    answers.c.seq > seq,
                )
                .order_by(answers.c.seq)
            ).all()
        return [
            StoredAnswer(
                seq=row.seq,
                session_id=row.session_id,
                answer=Answer(
                    fingerprint=row.fingerprint,
                    index=row.sample_index,
                    **{name: getattr(row, name) for name in _ANSWER_FIELDS},
                ),
            )
            for row in rows
        ]


def _settled(
    connection: sa.Connection,
    run_id: str,
    session_id: str,
    fingerprint: str,
    indexes: set[str],
) -> set[str]:
    """Return which of the samples have an answer that `counts` for the session."""
    return set(
        connection.scalars(
            sa.select(answers.c.sample_index).where(
                answers.c.run_id == run_id,
                answers.c.fingerprint == fingerprint,
                answers.c.sample_index.in_(indexes),
                (answers.c.state == "answered") | (answers.c.session_id == session_id),
            )
        )
    )


def _drop_claims(
    connection: sa.Connection, run_id: str, fingerprint: str, indexes: set[str]
) -> None:
    if indexes:
        connection.execute(
            sa.delete(claims).where(
                claims.c.run_id == run_id,
                claims.c.fingerprint == fingerprint,
                claims.c.sample_index.in_(indexes),
            )
        )
