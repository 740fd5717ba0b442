"""Claims and answers: who asks what now, and what came back."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import sqlalchemy as sa

from pytest_vlmeval.errors import describe
from pytest_vlmeval.records import Answer, Ask, Said, lose
from pytest_vlmeval.store.database import (
    AT_ONCE,
    Database,
    is_of_store,
    waits_out_restarts,
)
from pytest_vlmeval.store.schema import USABLE_ANSWERS, answers, claims

# Texts up to this length (an option's letter) are often the same.
SHORT = 16
_ANSWER_FIELDS = (
    "repeat",
    "state",
    "text",
    "reasoning",
    "error",
    "finish_reason",
    "attempts",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
    "turns",
    "earlier",
    "from_cache",
    "asked_in",
    "endpoint",
    "system_fingerprint",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """An answer with its place in the store and the session that recorded it."""

    seq: int
    session_id: str
    answer: Answer


def counts(stored: StoredAnswer, session_id: str) -> bool:
    """Whether an answer settles its ask for a session.

    A usable answer always does; a failed or empty one only in the session that got it,
    so that the next command asks again.
    """
    return stored.answer.is_usable or stored.session_id == session_id


@waits_out_restarts
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
        asks: Sequence[Ask],
    ) -> list[Ask]:
        """Claim what can be claimed of `asks`, in their order.

        Left out: what another live process holds, and what has an answer that counts
        for this session (`counts`).
        """
        mine: set[Ask] = set()
        with self._database.transaction(lock=f"claims {run_id}") as connection:
            for repeat, indexes in _by_repeat(asks).items():
                part = run_id, fingerprint, repeat, indexes
                taken = set(connection.scalars(self._insert_claims(owner, *part)))
                # Only now, as an answer is recorded just when its claim ends.
                done = set(connection.scalars(self._settled(session_id, *part)))
                self._drop_claims(connection, *part[:3], list(taken & done))
                mine |= {Ask(index, repeat) for index in taken - done}
        return [ask for ask in asks if ask in mine]

    def record(
        self,
        run_id: str,
        session_id: str,
        new: Sequence[Answer],
        cache_keys: Mapping[tuple[str, Ask], str] | None = None,
    ) -> list[StoredAnswer]:
        """Add answers and end their claims, in one transaction.

        `cache_keys` maps fingerprint and ask to the name of what was asked. An answer
        with a value that the database does not take fails alone: then each has a
        transaction of its own.
        """
        keep = partial(self._record, run_id, session_id, cache_keys=cache_keys)
        try:
            return keep(new)
        except Exception as error:
            if is_of_store(error):
                raise
            # Each is begun again by itself after a restart: none may be kept twice.
            outlast = self._database.outlast
            return [
                kept
                for each in new
                for kept in _keep_one(lambda one: outlast(partial(keep, one)), each)
            ]

    def _record(
        self,
        run_id: str,
        session_id: str,
        new: Sequence[Answer],
        cache_keys: Mapping[tuple[str, Ask], str] | None = None,
    ) -> list[StoredAnswer]:
        if not new:
            return []
        keys = cache_keys or {}
        now = time.time()
        rows = [
            {
                "run_id": run_id,
                "session_id": session_id,
                # That of one from the cache is when it was asked.
                "answered_at": answer.answered_at or now,
                "fingerprint": answer.fingerprint,
                "sample_index": answer.index,
                "cache_key": keys.get(
                    (answer.fingerprint, Ask(answer.index, answer.repeat)), ""
                ),
                **{name: getattr(answer, name) for name in _ANSWER_FIELDS},
            }
            for answer in new
        ]
        statement = sa.insert(answers).returning(
            answers.c.seq, sort_by_parameter_order=True
        )
        # One at a time, so that `after` meets the answers of a run in their order.
        with self._database.transaction(lock=f"answers {run_id}") as connection:
            seqs = connection.scalars(statement, rows).all()
            self._end_claims(connection, run_id, new)
        return [
            StoredAnswer(
                seq=int(seq),
                session_id=session_id,
                answer=replace(answer, answered_at=answer.answered_at or now),
            )
            for seq, answer in zip(seqs, new, strict=True)
        ]

    def after(
        self, run_id: str, fingerprints: Iterable[str], seq: int
    ) -> Iterator[list[StoredAnswer]]:
        """Give the answers recorded after `seq` in parts, oldest first."""
        return self._parts(run_id, set(fingerprints), seq)

    def _parts(
        self, run_id: str, wanted: Container[str], seq: int
    ) -> Iterator[list[StoredAnswer]]:
        while True:
            rows = self.rows_after(run_id, seq)
            if part := [_stored(row) for row in rows if row["fingerprint"] in wanted]:
                yield part
            if len(rows) < AT_ONCE:
                return
            seq = rows[-1]["seq"]

    def rows_after(self, run_id: str, seq: int) -> Sequence[sa.RowMapping]:
        """Return the first rows of a run after `seq`, as many as are read at once."""
        query = sa.select(answers).where(
            answers.c.run_id == run_id, answers.c.seq > seq
        )
        query = query.order_by(answers.c.seq).limit(AT_ONCE)
        with self._database.transaction(reading=True) as connection:
            return connection.execute(query).mappings().all()

    def in_flight(self, run_id: str) -> int:
        """Return how many asks of a run some process is at now."""
        query = sa.select(sa.func.count()).where(claims.c.run_id == run_id)
        with self._database.transaction(reading=True) as connection:
            return int(connection.scalar(query.select_from(claims)) or 0)

    def count(self, run_id: str) -> int:
        """Return how many asks of a run have a usable answer, of whatever dataset."""
        asks = answers.c.fingerprint, answers.c.sample_index, answers.c.repeat
        usable = (
            sa.select(*asks)
            .where(answers.c.run_id == run_id, USABLE_ANSWERS)
            .distinct()
            .subquery()
        )
        with self._database.transaction(reading=True) as connection:
            query = sa.select(sa.func.count()).select_from(usable)
            return int(connection.scalar(query) or 0)

    def find_cached(
        self, cache_keys: Sequence[str], after: int
    ) -> dict[str, StoredAnswer]:
        """Return usable answers, newer than `after`, to what these keys name."""
        with self._database.transaction(reading=True) as connection:
            rows = connection.execute(
                sa.select(answers).where(
                    answers.c.cache_key.in_(sa.select(self._database.each(cache_keys))),
                    USABLE_ANSWERS,
                    answers.c.seq > after,
                )
            ).mappings()
            return {str(row["cache_key"]): _stored(row) for row in rows}

    def _insert_claims(
        self,
        owner: str,
        run_id: str,
        fingerprint: str,
        repeat: int,
        indexes: Sequence[str],
    ) -> sa.Executable:
        columns = claims.c
        values = sa.select(
            sa.literal(run_id),
            sa.literal(fingerprint),
            self._database.each(indexes),
            sa.literal(repeat),
            sa.literal(owner),
        ).where(sa.true())
        return (
            self._database.insert(claims)
            .from_select([column.name for column in columns], values)
            .on_conflict_do_nothing()
            .returning(columns.sample_index)
        )

    def _settled(
        self,
        session_id: str,
        run_id: str,
        fingerprint: str,
        repeat: int,
        indexes: Sequence[str],
    ) -> sa.Select[tuple[str]]:
        return sa.select(answers.c.sample_index).where(
            answers.c.run_id == run_id,
            answers.c.fingerprint == fingerprint,
            answers.c.sample_index.in_(sa.select(self._database.each(indexes))),
            answers.c.repeat == repeat,
            USABLE_ANSWERS | (answers.c.session_id == session_id),
        )

    def _end_claims(
        self, connection: sa.Connection, run_id: str, new: Sequence[Answer]
    ) -> None:
        for fingerprint in {answer.fingerprint for answer in new}:
            asked = [
                Ask(each.index, each.repeat)
                for each in new
                if each.fingerprint == fingerprint
            ]
            for repeat, indexes in _by_repeat(asked).items():
                self._drop_claims(connection, run_id, fingerprint, repeat, indexes)

    def _drop_claims(
        self,
        connection: sa.Connection,
        run_id: str,
        fingerprint: str,
        repeat: int,
        indexes: Sequence[str],
    ) -> None:
        if indexes:
            connection.execute(
                sa.delete(claims).where(
                    claims.c.run_id == run_id,
                    claims.c.fingerprint == fingerprint,
                    claims.c.sample_index.in_(sa.select(self._database.each(indexes))),
                    claims.c.repeat == repeat,
                )
            )


def _keep_one(
    keep: Callable[[Sequence[Answer]], list[StoredAnswer]], answer: Answer
) -> list[StoredAnswer]:
    try:
        return keep([answer])
    except Exception as error:
        if is_of_store(error):
            raise
        why = f"the answer cannot be stored: {describe(error)}"
        return keep([lose(answer, why)])


def _by_repeat(asks: Iterable[Ask]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for ask in asks:
        found.setdefault(ask.repeat, []).append(ask.sample)
    return found


def _stored(row: sa.RowMapping) -> StoredAnswer:
    text = row["text"]
    return StoredAnswer(
        seq=row["seq"],
        # The same for thousands of answers, or known by many: kept once.
        session_id=sys.intern(row["session_id"]),
        answer=Answer(
            fingerprint=sys.intern(row["fingerprint"]),
            index=sys.intern(row["sample_index"]),
            answered_at=row["answered_at"],
            **{name: row[name] for name in _ANSWER_FIELDS}
            | {
                "state": sys.intern(row["state"]),
                "finish_reason": sys.intern(row["finish_reason"]),
                "text": text if len(text) > SHORT else sys.intern(text),
                "endpoint": sys.intern(row["endpoint"]),
                "system_fingerprint": sys.intern(row["system_fingerprint"]),
                "earlier": tuple(Said(*each) for each in row["earlier"]),
            },
        ),
    )
