"""Claims and answers, judges' replies, and what lets a session use stored answers."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import (
    Callable,
    Collection,
    Container,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa

from pytest_vlmeval.errors import describe
from pytest_vlmeval.models.check import Finding
from pytest_vlmeval.models.evidence import Evidence
from pytest_vlmeval.records import (
    WITHHELD,
    Answer,
    Ask,
    FailedAttempt,
    JudgeQuestion,
    JudgeReply,
    Said,
    SpotCheck,
    lose,
)
from pytest_vlmeval.run.store.database import AT_ONCE, Database, is_of_store
from pytest_vlmeval.run.store.schema import (
    USABLE_ANSWERS,
    accepted_evidence,
    answers,
    capabilities,
    claims,
    evidence,
    exchanges,
    failed_attempts,
    processes,
    spot_answers,
    spot_checks,
)

# Texts up to this length (an option's letter) are often the same.
SHORT = 16
# Databases bound how many values a query may hold.
BATCH = 500
INTERRUPTED = (
    "The check of the stored answers was interrupted. Nothing was scored. Run the same "
    "command again."
)


def _kept_in(table: sa.Table) -> tuple[str, ...]:
    return tuple(name for name in Answer.__dataclass_fields__ if name in table.c)


_FIELDS = _kept_in(answers)
_SPOT_FIELDS = _kept_in(spot_answers)
_EXCHANGE_FIELDS = _kept_in(exchanges)
# The same for thousands of answers, or known by many: kept once.
_REPEATED = ("fingerprint", "state", "finish_reason", "endpoint", "system_fingerprint")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """An answer with its place in the store and the session that recorded it."""

    seq: int
    session_id: str
    answer: Answer


def counts(stored: StoredAnswer, session_id: str) -> bool:
    """Return whether an answer settles its ask for a session.

    A usable answer always does; a failed or empty one only in the session that got it,
    so that the next command asks again.
    """
    return stored.answer.is_usable or stored.session_id == session_id


class Asking(Database):
    """What is asked and answered, and the claims on what is still missing."""

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
        with self._transaction(lock=f"claims {run_id}") as connection:
            for repeat, indexes in _by_repeat(asks).items():
                values = sa.select(
                    sa.literal(run_id),
                    sa.literal(fingerprint),
                    self._each(indexes),
                    sa.literal(repeat),
                    sa.literal(owner),
                ).where(sa.true())
                insert = (
                    self._insert(claims)
                    .from_select([column.name for column in claims.c], values)
                    .on_conflict_do_nothing()
                    .returning(claims.c.sample_index)
                )
                taken = set(connection.scalars(insert))
                # Only now, as an answer is recorded just when its claim ends.
                settled = sa.select(answers.c.sample_index).where(
                    self._is_of(answers, run_id, fingerprint, repeat, indexes),
                    USABLE_ANSWERS | (answers.c.session_id == session_id),
                )
                done = taken & set(connection.scalars(settled))
                if done:
                    which = run_id, fingerprint, repeat, list(done)
                    connection.execute(
                        sa.delete(claims).where(self._is_of(claims, *which))
                    )
                mine |= {Ask(index, repeat) for index in taken - done}
        return [ask for ask in asks if ask in mine]

    def _is_of(
        self,
        table: sa.Table,
        run_id: str,
        fingerprint: str,
        repeat: int,
        indexes: Sequence[str],
    ) -> sa.ColumnElement[bool]:
        return sa.and_(
            table.c.run_id == run_id,
            table.c.fingerprint == fingerprint,
            table.c.sample_index.in_(sa.select(self._each(indexes))),
            table.c.repeat == repeat,
        )

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
        keep = partial(self._record, run_id, session_id, cache_keys=cache_keys or {})
        try:
            return keep(new)
        except Exception as error:
            if is_of_store(error):
                raise

        # Each is begun again by itself after a restart: none may be kept twice.
        def keep_one(answer: Answer) -> list[StoredAnswer]:
            return self._outlast(lambda: keep([answer]))

        return [kept for each in new for kept in _or_lost(keep_one, each, "answer")]

    def _record(
        self,
        run_id: str,
        session_id: str,
        new: Sequence[Answer],
        *,
        cache_keys: Mapping[tuple[str, Ask], str],
    ) -> list[StoredAnswer]:
        if not new:
            return []
        now = time.time()
        # That of one from the cache is when it was asked.
        new = [replace(each, answered_at=each.answered_at or now) for each in new]
        rows = []
        asked: dict[str, list[Ask]] = {}
        for answer in new:
            ask = Ask(answer.index, answer.repeat)
            asked.setdefault(answer.fingerprint, []).append(ask)
            row = {name: getattr(answer, name) for name in _FIELDS}
            row |= {
                "run_id": run_id,
                "session_id": session_id,
                "sample_index": answer.index,
                "cache_key": cache_keys.get((answer.fingerprint, ask), ""),
            }
            rows.append(row)
        statement = sa.insert(answers).returning(
            answers.c.seq, sort_by_parameter_order=True
        )
        # One at a time, so that `after` meets the answers of a run in their order.
        with self._transaction(lock=f"answers {run_id}") as connection:
            seqs = connection.scalars(statement, rows).all()
            for fingerprint, asks in asked.items():
                for repeat, indexes in _by_repeat(asks).items():
                    which = run_id, fingerprint, repeat, indexes
                    connection.execute(
                        sa.delete(claims).where(self._is_of(claims, *which))
                    )
        return [
            StoredAnswer(seq=int(seq), session_id=session_id, answer=answer)
            for seq, answer in zip(seqs, new, strict=True)
        ]

    def answers_after(
        self, run_id: str, fingerprints: Iterable[str], seq: int
    ) -> Iterator[list[StoredAnswer]]:
        """Return the answers recorded after `seq` in parts, oldest first."""
        return self._parts_after(run_id, set(fingerprints), seq)

    def _parts_after(
        self, run_id: str, wanted: Container[str], seq: int
    ) -> Iterator[list[StoredAnswer]]:
        query = sa.select(answers).where(answers.c.run_id == run_id)
        query = query.order_by(answers.c.seq).limit(AT_ONCE)
        while True:
            # What was yielded already is not read again after a restart.
            rows = self._outlast(
                partial(self._read_mappings, query.where(answers.c.seq > seq))
            )
            if part := [_stored(row) for row in rows if row["fingerprint"] in wanted]:
                yield part
            if len(rows) < AT_ONCE:
                return
            seq = rows[-1]["seq"]

    def _read_mappings(self, query: sa.Executable) -> Sequence[sa.RowMapping]:
        with self._transaction(reading=True) as connection:
            return connection.execute(query).mappings().all()

    def in_flight(self, run_id: str) -> int:
        """Return how many asks of a run some process is at now."""
        count = sa.select(sa.func.count()).select_from(claims)
        return int(self._read_one(count.where(claims.c.run_id == run_id)))

    def count_usable(self, run_id: str) -> int:
        """Return how many asks of a run have a usable answer, of whatever dataset."""
        usable = (
            sa.select(answers.c.fingerprint, answers.c.sample_index, answers.c.repeat)
            .where(answers.c.run_id == run_id, USABLE_ANSWERS)
            .distinct()
            .subquery()
        )
        return int(self._read_one(sa.select(sa.func.count()).select_from(usable)))

    def find_cached(
        self, cache_keys: Sequence[str], after: int
    ) -> dict[str, StoredAnswer]:
        """Return usable answers, newer than `after`, to what these keys name."""
        query = sa.select(answers).where(
            answers.c.cache_key.in_(sa.select(self._each(cache_keys))),
            USABLE_ANSWERS,
            answers.c.seq > after,
        )
        rows = self._read_mappings(query)
        return {str(row["cache_key"]): _stored(row) for row in rows}

    def record_failures(
        self, run_id: str, session_id: str, attempts: Sequence[FailedAttempt]
    ) -> None:
        """Keep requests that got no answer, in one transaction."""
        common = {"run_id": run_id, "session_id": session_id}
        if attempts:
            rows = [{**common, **asdict(each)} for each in attempts]
            self._write(sa.insert(failed_attempts), rows)

    # Judges

    def find_replies(self, names: Sequence[str]) -> dict[str, JudgeReply]:
        """Return the replies there are to the questions of these names."""
        found = {}
        for start in range(0, len(names), BATCH):
            query = sa.select(exchanges).where(
                exchanges.c.question.in_(names[start : start + BATCH]),
                exchanges.c.text.is_not(None),
            )
            for row in self._read(query):
                found[str(row.question)] = JudgeReply(number=row.number, text=row.text)
        return found

    def record_reply(
        self,
        judge: str,
        question: JudgeQuestion,
        answer: Answer,
        run_id: str = "",
        session_id: str = "",
    ) -> JudgeReply:
        """Keep what came of a question, and return the reply that counts.

        That is the first: where two processes ask the same, both use one. The run and
        the fingerprint of `answer` pay for it. A reply with a value that the database
        does not take is kept as failed.
        """

        def keep(answer: Answer) -> JudgeReply:
            name = identify_question(judge, question)
            text = None if answer.state in WITHHELD else answer.text
            values = {field: getattr(answer, field) for field in _EXCHANGE_FIELDS} | {
                "question": name,
                "judge": judge,
                "run_id": run_id,
                "session_id": session_id,
                "prompt": question.prompt,
                "settings": {
                    field: getattr(question, field)
                    for field in ("system", "max_tokens", "temperature")
                }
                | ({"images": len(question.images)} if question.images else {}),
                "text": text,
                "asked_at": time.time(),
            }
            insert = self._insert(exchanges).values(values).on_conflict_do_nothing()
            with self._transaction() as connection:
                number = connection.scalar(insert.returning(exchanges.c.number))
            if number is None:
                return self.find_replies([name])[name]
            return JudgeReply(number=int(number), text=text, error=answer.error)

        return _or_lost(keep, answer, "reply")

    def load_exchanges(self, numbers: Sequence[int]) -> list[Mapping[str, object]]:
        """Return exchanges whole, in the order they were made."""
        wanted = sorted(numbers)
        parts = [wanted[at : at + BATCH] for at in range(0, len(wanted), BATCH)]
        query = sa.select(exchanges).order_by(exchanges.c.number)
        return [
            dict(row)
            for part in parts
            for row in self._read_mappings(query.where(exchanges.c.number.in_(part)))
        ]

    # What lets a session use the answers of others

    def record_findings(
        self, run_id: str, session_id: str, findings: Sequence[Finding]
    ) -> None:
        """Keep what one process of a session found of media for the others."""
        common = {"run_id": run_id, "session_id": session_id, "found_at": time.time()}
        rows = [{**common, **asdict(each)} for each in findings]
        self._write(self._insert(capabilities).on_conflict_do_nothing(), rows)

    def findings(self, run_id: str, session_id: str) -> list[Finding]:
        """Return what is known: what was accepted ever, what failed in this session.

        An endpoint that refused something may be another one by the next session.
        """
        table = capabilities.c
        query = (
            sa.select(table.capability, table.state, table.words)
            .where(table.run_id == run_id)
            .where((table.state == "accepted") | (table.session_id == session_id))
            .order_by(table.found_at)
        )
        return [Finding(**row._asdict()) for row in self._read(query)]

    def record_evidence(
        self, run_id: str, session_id: str, found: Sequence[Evidence]
    ) -> None:
        """Keep what endpoints say in this session, once for all its processes."""
        common = {"run_id": run_id, "session_id": session_id}
        if found:
            rows = [{**common, **asdict(each)} for each in found]
            self._write(self._insert(evidence).on_conflict_do_nothing(), rows)

    def evidence_of(
        self, session_ids: Collection[str]
    ) -> Mapping[str, Sequence[Evidence]]:
        """Return what endpoints said, for each session that knows anything.

        With it comes what was accepted later.
        """
        wanted = sa.select(self._each(sorted(session_ids)))
        accepted = accepted_evidence.c
        queries = [
            sa.select(evidence.c.session_id.label("of"), evidence).where(
                evidence.c.session_id.in_(wanted)
            ),
            sa.select(accepted.session_id.label("of"), evidence)
            .join(evidence, evidence.c.session_id == accepted.accepted_in)
            .where(accepted.session_id.in_(wanted)),
        ]
        found: dict[str, list[Evidence]] = {}
        for query in queries:
            for row in self._read(query.order_by(evidence.c.at, evidence.c.endpoint)):
                said = Evidence(endpoint=row.endpoint, found=row.found, at=row.at)
                found.setdefault(row.of, []).append(said)
        return found

    def accept_evidence(self, session_ids: Collection[str], session_id: str) -> None:
        """Let what was said in a session hold for the answers of others."""
        rows = [
            {"session_id": each, "accepted_in": session_id}
            for each in sorted(session_ids)
        ]
        if rows:
            self._write(self._insert(accepted_evidence).on_conflict_do_nothing(), rows)

    def begin_check(
        self, run_id: str, session_id: str, owner: str
    ) -> tuple[str, str] | None:
        """Take over the check of a session: None if it is the caller's now.

        Else return how far the process is that has it, and why it was refused. That of
        one that is gone is taken over.
        """
        values = {
            "session_id": session_id,
            "run_id": run_id,
            "owner": owner,
            "state": "running",
            "words": "",
            "at": time.time(),
        }
        mine = spot_checks.c.session_id == session_id
        gone = sa.select(processes.c.owner).where(processes.c.state != "live")
        take = (
            self._insert(spot_checks).values(values).on_conflict_do_nothing(),
            sa.update(spot_checks)
            .where(mine, spot_checks.c.state == "running")
            .where(spot_checks.c.owner.in_(gone))
            .values(owner=owner),
        )
        query = sa.select(spot_checks.c.state, spot_checks.c.words).where(mine)
        with self._transaction(lock=f"check {session_id}") as connection:
            for statement in take:
                if connection.scalar(statement.returning(spot_checks.c.owner)):
                    return None
            state, words = connection.execute(query).one()
            return state, words

    def end_check(
        self, session_id: str, result: SpotCheck | None, refusal: str = ""
    ) -> None:
        """Record what a check has found; with a `refusal` nobody uses the answers."""
        mine = spot_checks.c.session_id == session_id
        self._write(
            sa.update(spot_checks)
            .where(mine)
            .values(
                state="refused" if refusal else "settled",
                words=refusal,
                result=None if result is None else asdict(result),
            )
        )

    def spot_check(self, session_id: str) -> SpotCheck | None:
        """Return what the check of a session has found; None if there was none."""
        mine = spot_checks.c.session_id == session_id
        found = self._read_one(sa.select(spot_checks.c.result).where(mine))
        return None if found is None else SpotCheck(**found)

    def refusal(self, session_id: str) -> str:
        """Return why no stored answer counts for a session that is over, or ''."""
        mine = spot_checks.c.session_id == session_id
        for row in self._read(sa.select(spot_checks).where(mine)):
            if row.state != "settled":
                return row.words or INTERRUPTED
        return ""

    def record_spot_answers(
        self, run_id: str, session_id: str, new: Sequence[tuple[int, Answer]]
    ) -> None:
        """Keep what was asked again, each with the number of the stored answer."""
        rows = [
            {
                "run_id": run_id,
                "session_id": session_id,
                "seq": seq,
                "sample_index": answer.index,
                "asked_at": time.time(),
                **{name: getattr(answer, name) for name in _SPOT_FIELDS},
            }
            for seq, answer in new
        ]
        if rows:
            self._write(sa.insert(spot_answers), rows)


def _or_lost(keep: Callable[[Answer], T], answer: Answer, what: str) -> T:
    """Keep an answer, or what is left of one that the database does not take."""
    try:
        return keep(answer)
    except Exception as error:
        if is_of_store(error):
            raise
        return keep(lose(answer, f"the {what} cannot be stored: {describe(error)}"))


def _by_repeat(asks: Iterable[Ask]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for ask in asks:
        found.setdefault(ask.repeat, []).append(ask.sample)
    return found


def _stored(row: sa.RowMapping) -> StoredAnswer:
    fields: dict[str, Any] = {name: row[name] for name in _FIELDS}
    for name in _REPEATED:
        fields[name] = sys.intern(fields[name])
    if len(fields["text"]) <= SHORT:
        fields["text"] = sys.intern(fields["text"])
    fields["earlier"] = tuple(Said(*each) for each in fields["earlier"])
    return StoredAnswer(
        seq=row["seq"],
        session_id=sys.intern(row["session_id"]),
        answer=Answer(index=sys.intern(row["sample_index"]), **fields),
    )


def identify_question(judge: str, question: JudgeQuestion) -> str:
    """Name a question by all that its reply depends on, of whatever dataset it is."""
    parts = [
        judge,
        question.system,
        question.max_tokens,
        question.temperature,
        question.prompt,
        question.attempt,
    ]
    if question.images:
        parts += [question.first, *(image.name for image in question.images)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
