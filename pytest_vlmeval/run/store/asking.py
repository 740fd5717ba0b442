"""Claims, answers and what they cost; judges' replies; what lets a session use them."""

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
from typing import Any, NamedTuple

import sqlalchemy as sa

from pytest_vlmeval.errors import describe
from pytest_vlmeval.models.check import Finding
from pytest_vlmeval.models.evidence import Evidence
from pytest_vlmeval.records import (
    UNANSWERED,
    WITHHELD,
    Account,
    Answer,
    Ask,
    FailedAttempt,
    JudgeQuestion,
    JudgeReply,
    Plan,
    RunAccount,
    Said,
    SpotCheck,
    lose,
)
from pytest_vlmeval.run.store.database import (
    AT_ONCE,
    Database,
    is_of_store,
    waits_out_restarts,
)
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
    runs,
    spot_answers,
    spot_checks,
)

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
    """Return whether an answer settles its ask for a session.

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
        """Return the answers recorded after `seq` in parts, oldest first."""
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


# Databases bound how many values a query may hold.
BATCH = 500
_OF_ANSWER = (
    "error",
    "attempts",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
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
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@waits_out_restarts
class Exchanges:
    """The questions to judges and their replies, those without one included."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, names: Sequence[str]) -> dict[str, JudgeReply]:
        """Return the replies there are to the questions of these names."""
        found = {}
        with self._database.transaction(reading=True) as connection:
            for start in range(0, len(names), BATCH):
                part = names[start : start + BATCH]
                rows = connection.execute(
                    sa.select(exchanges).where(
                        exchanges.c.question.in_(part), exchanges.c.text.is_not(None)
                    )
                )
                for row in rows:
                    reply = JudgeReply(number=row.number, text=row.text)
                    found[str(row.question)] = reply
        return found

    def record(
        self,
        judge: str,
        name: str,
        question: JudgeQuestion,
        answer: Answer,
        asked_for: tuple[str, str] = ("", ""),
        session_id: str = "",
    ) -> JudgeReply:
        """Keep what came of a question, and return the reply that counts.

        That is the first: where two processes ask the same, both use one. It is
        `asked_for` a run and a fingerprint, which pay for it, by the session
        `session_id`.
        """
        text = None if answer.state in WITHHELD else answer.text
        values = {
            "question": name,
            "judge": judge,
            "run_id": asked_for[0],
            "session_id": session_id,
            "fingerprint": asked_for[1],
            "prompt": question.prompt,
            "settings": {
                name: getattr(question, name)
                for name in ("system", "max_tokens", "temperature")
            },
            "text": text,
            **{name: getattr(answer, name) for name in _OF_ANSWER},
            "asked_at": time.time(),
        }
        statement = (
            self._database.insert(exchanges)
            .values(values)
            .on_conflict_do_nothing()
            .returning(exchanges.c.number)
        )
        with self._database.transaction() as connection:
            number = connection.scalar(statement)
        if number is None:
            return self.find([name])[name]
        return JudgeReply(number=int(number), text=text, error=answer.error)

    def load(self, numbers: Sequence[int]) -> list[Mapping[str, object]]:
        """Return exchanges whole, in the order they were made."""
        with self._database.transaction(reading=True) as connection:
            rows = connection.execute(
                sa.select(exchanges)
                .where(exchanges.c.number.in_(numbers))
                .order_by(exchanges.c.number)
            ).all()
        return [dict(row._mapping) for row in rows]


_SPOT_FIELDS = (
    "repeat",
    "state",
    "text",
    "reasoning",
    "error",
    "attempts",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
    "turns",
    "earlier",
    "endpoint",
    "system_fingerprint",
)


INTERRUPTED = (
    "The check of the stored answers was interrupted. Nothing was scored. Run the same "
    "command again."
)


class Checking(NamedTuple):
    """How far the check of a session is; `words` say why it was refused."""

    state: str
    words: str


@waits_out_restarts
class Reuse:
    """The evidence of models, and the spot checks of sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_evidence(
        self, run_id: str, session_id: str, found: Sequence[Evidence]
    ) -> None:
        """Keep what endpoints say in this session, once for all its processes."""
        if not found:
            return
        common = {"run_id": run_id, "session_id": session_id}
        rows = [{**common, **asdict(each)} for each in found]
        insert = self._database.insert(evidence).on_conflict_do_nothing()
        with self._database.transaction() as connection:
            connection.execute(insert, rows)

    def evidence_of(
        self, session_ids: Collection[str]
    ) -> Mapping[str, Sequence[Evidence]]:
        """Return what endpoints said, for each session that knows anything.

        With it comes what was accepted later.
        """
        wanted = sa.select(self._database.each(sorted(session_ids)))
        order = evidence.c.at, evidence.c.endpoint
        said_then = (
            sa.select(evidence.c.session_id.label("of"), evidence)
            .where(evidence.c.session_id.in_(wanted))
            .order_by(*order)
        )
        accepted = (
            sa.select(accepted_evidence.c.session_id.label("of"), evidence)
            .join(evidence, evidence.c.session_id == accepted_evidence.c.accepted_in)
            .where(accepted_evidence.c.session_id.in_(wanted))
            .order_by(*order)
        )
        found: dict[str, list[Evidence]] = {}
        with self._database.transaction(reading=True) as connection:
            for query in (said_then, accepted):
                for row in connection.execute(query):
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
            insert = self._database.insert(accepted_evidence).on_conflict_do_nothing()
            with self._database.transaction() as connection:
                connection.execute(insert, rows)

    def begin(self, run_id: str, session_id: str, owner: str) -> Checking | None:
        """Take over the check of a session: None if it is the caller's now.

        Else return how far the process is that has it. That of one that is gone is
        taken over.
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
        with self._database.transaction(lock=f"check {session_id}") as connection:
            insert = self._database.insert(spot_checks).values(values)
            made = connection.execute(
                insert.on_conflict_do_nothing().returning(spot_checks.c.owner)
            ).first()
            if made is not None:
                return None
            taken = connection.execute(
                sa.update(spot_checks)
                .where(mine, spot_checks.c.state == "running")
                .where(spot_checks.c.owner.in_(gone))
                .values(owner=owner)
                .returning(spot_checks.c.owner)
            ).first()
            if taken is not None:
                return None
            query = sa.select(spot_checks.c.state, spot_checks.c.words).where(mine)
            return Checking(*connection.execute(query).one())

    def end(self, session_id: str, result: SpotCheck | None, refusal: str = "") -> None:
        """Record what a check has found; with a `refusal` nobody uses the answers."""
        values = {
            "state": "refused" if refusal else "settled",
            "words": refusal,
            "result": None if result is None else asdict(result),
        }
        with self._database.transaction() as connection:
            connection.execute(
                sa.update(spot_checks)
                .where(spot_checks.c.session_id == session_id)
                .values(values)
            )

    def load(self, session_id: str) -> SpotCheck | None:
        """Return what the check of a session has found; None if there was none."""
        query = sa.select(spot_checks.c.result).where(
            spot_checks.c.session_id == session_id
        )
        with self._database.transaction(reading=True) as connection:
            found = connection.scalar(query)
        return None if found is None else SpotCheck(**found)

    def refusal(self, session_id: str) -> str:
        """Return why no stored answer counts for a session that is over, or ''."""
        query = sa.select(spot_checks.c.state, spot_checks.c.words).where(
            spot_checks.c.session_id == session_id
        )
        with self._database.transaction(reading=True) as connection:
            found = connection.execute(query).first()
        if found is None or found.state == "settled":
            return ""
        return found.words or INTERRUPTED

    def record_answers(
        self, run_id: str, session_id: str, new: Sequence[tuple[int, Answer]]
    ) -> None:
        """Keep what was asked again, each with the number of the stored answer."""
        rows = [
            {
                "run_id": run_id,
                "session_id": session_id,
                "seq": seq,
                "fingerprint": answer.fingerprint,
                "sample_index": answer.index,
                "asked_at": time.time(),
                **{name: getattr(answer, name) for name in _SPOT_FIELDS},
            }
            for seq, answer in new
        ]
        if rows:
            with self._database.transaction() as connection:
                connection.execute(sa.insert(spot_answers), rows)


@waits_out_restarts
class Capabilities:
    """The findings in the store, by run and session."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, run_id: str, session_id: str, findings: Sequence[Finding]) -> None:
        """Keep what one process of a session found for the others."""
        insert = self._database.insert(capabilities).on_conflict_do_nothing()
        common = {"run_id": run_id, "session_id": session_id, "found_at": time.time()}
        with self._database.transaction() as connection:
            connection.execute(insert, [{**common, **asdict(f)} for f in findings])

    def load(self, run_id: str, session_id: str) -> list[Finding]:
        """Return what is known: what was accepted ever, what failed in this session.

        An endpoint that refused something may be another one by the next session.
        """
        query = (
            sa.select(
                capabilities.c.capability, capabilities.c.state, capabilities.c.words
            )
            .where(capabilities.c.run_id == run_id)
            .where(
                (capabilities.c.state == "accepted")
                | (capabilities.c.session_id == session_id)
            )
            .order_by(capabilities.c.found_at)
        )
        with self._database.transaction(reading=True) as connection:
            return [Finding(**row._asdict()) for row in connection.execute(query)]


RANKS = {"latency_p50_ms": 0.50, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
_NOTHING: Mapping[str, Any] = {
    "requests": 0,
    "retries": 0,
    "answers": 0,
    "failed": 0,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    **dict.fromkeys(RANKS),
}
# Texts stay out of what the database sorts.
SUMMED = ("attempts", "latency_ms", "prompt_tokens", "completion_tokens")
ONE_TURN = sa.literal(1)
Rows = Mapping[tuple[str, str], Mapping[str, Any]]


@waits_out_restarts
class Accounting:
    """Keeps what answers do not tell, and sums up a run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(
        self,
        run_id: str,
        session_id: str,
        attempts: Sequence[FailedAttempt],
    ) -> None:
        """Keep failed attempts, in one transaction."""
        if not attempts:
            return
        common = {"run_id": run_id, "session_id": session_id}
        with self._database.transaction() as connection:
            rows = [{**common, **asdict(each)} for each in attempts]
            connection.execute(sa.insert(failed_attempts), rows)

    def read(self, plan: Plan, session_id: str = "") -> RunAccount:
        """Sum up what the run asked for the datasets of a plan, in all its sessions.

        And in the session `session_id` alone, if it is given.
        """
        names = {entry.fingerprint: entry.dataset for entry in plan.entries}
        of_answers = (answers.c.run_id == plan.run_id) & answers.c.fingerprint.in_(
            names
        )
        of_judges = (exchanges.c.run_id == plan.run_id) & exchanges.c.fingerprint.in_(
            names
        )
        with self._database.transaction(reading=True) as connection:
            settings = connection.scalar(
                sa.select(runs.c.settings).where(runs.c.run_id == plan.run_id)
            )
            model = str((settings or {}).get("model", ""))
            name = sa.literal(model)
            answered = answers.c.state.not_in(UNANSWERED)
            turns = 1 + sa.func.json_array_length(answers.c.earlier)
            asked = _sum_up(connection, answers, name, answered, of_answers, turns)
            answered = exchanges.c.text.is_not(None)
            judge = exchanges.c.judge
            judged = _sum_up(connection, exchanges, judge, answered, of_judges)
            errors = _count_errors(connection, plan.run_id, list(names))
            now = _asked_in(plan.run_id, session_id, list(names))
            asked_now = _sum_up(
                connection,
                now,
                name,
                now.c.state != "failed",
                sa.true(),
                1 + sa.func.json_array_length(now.c.earlier),
            )
            mine = exchanges.c.session_id == session_id
            judged_now = _sum_up(
                connection, exchanges, judge, answered, of_judges & mine
            )
            errors_now = _count_errors(connection, plan.run_id, list(names), session_id)
        judges = sorted({who for who, _ in judged})
        return RunAccount(
            model=_account(model, "", "", asked, errors),
            datasets=tuple(
                _account(model, dataset, fingerprint, asked, errors)
                for fingerprint, dataset in names.items()
            ),
            judges=tuple(_account(who, "", "", judged, errors) for who in judges),
            judge_datasets=tuple(
                _account(who, dataset, fingerprint, judged, errors)
                for who in judges
                for fingerprint, dataset in names.items()
                if (who, fingerprint) in judged
            ),
            now=_account(model, "", "", asked_now, errors_now),
            judges_now=tuple(
                _account(who, "", "", judged_now, errors_now)
                for who in judges
                if (who, "") in judged_now
            ),
        )


def _account(
    asked: str,
    dataset: str,
    fingerprint: str,
    rows: Rows,
    errors: Mapping[tuple[str, str], Mapping[str, int]],
) -> Account:
    key = asked, fingerprint
    values = {**_NOTHING, **rows.get(key, {})}
    return Account(
        dataset=dataset, asked=asked, errors=dict(errors.get(key, {})), **values
    )


def _sum_up(
    connection: sa.Connection,
    table: sa.FromClause,
    asked: sa.ColumnElement[str],
    answered: sa.ColumnElement[bool],
    which: sa.ColumnElement[bool],
    turns: sa.ColumnElement[int] = ONE_TURN,
) -> Rows:
    """Return sums and percentiles by who was asked and dataset, "" for all of them.

    `turns` counts those that were asked, each with a request that is no retry.
    """
    found = {}
    for by_dataset in (True, False):
        dataset = table.c.fingerprint if by_dataset else sa.literal("")
        groups = [asked.label("asked"), dataset.label("fingerprint")]
        timed = answered & (table.c.attempts > 0)
        partition = [*groups[: 1 + by_dataset], timed]
        ranked = (
            sa.select(
                *groups,
                *(table.c[name] for name in SUMMED),
                timed.label("timed"),
                sa.case((answered, 1), else_=0).label("answered"),
                turns.label("turns_asked"),
                sa.func.row_number()
                .over(partition_by=partition, order_by=table.c.latency_ms)
                .label("rank"),
                sa.func.count().over(partition_by=partition).label("ranks"),
            )
            .where(which)
            .subquery()
        )
        for row in connection.execute(_totals(ranked)):
            values = dict(row._mapping)
            key = str(values.pop("asked")), str(values.pop("fingerprint"))
            found[key] = values
    return found


def _asked_in(run_id: str, session_id: str, fingerprints: Sequence[str]) -> sa.Subquery:
    """Select what a session asked, for its answers and for its spot check.

    An answer of the check that counts from then on is in both tables.
    """
    again, new = spot_answers.c, answers.c
    checked = sa.exists().where(
        again.session_id == session_id,
        again.fingerprint == new.fingerprint,
        again.sample_index == new.sample_index,
        again.repeat == new.repeat,
    )
    parts = [
        sa.select(*(table[name] for name in ("fingerprint", "state", "earlier")))
        .add_columns(*(table[name] for name in SUMMED))
        .where(table.run_id == run_id, table.session_id == session_id)
        .where(table.fingerprint.in_(fingerprints))
        for table in (new, again)
    ]
    return sa.union_all(parts[0].where(~checked), parts[1]).subquery()


def _totals(ranked: sa.Subquery) -> sa.Select[Any]:
    """Select the sums of each group, and its latencies by the nearest rank.

    The percentile p of n values is the one of rank ceil(p n), which is the least
    whose rank is at least p n.
    """
    values = ranked.c
    surplus = values.attempts - values.turns_asked
    again = sa.case((surplus > 0, surplus), else_=0)
    return sa.select(
        values.asked,
        values.fingerprint,
        sa.func.sum(values.attempts).label("requests"),
        sa.func.sum(again).label("retries"),
        sa.func.sum(values.answered).label("answers"),
        sa.func.sum(1 - values.answered).label("failed"),
        sa.func.sum(values.prompt_tokens).label("prompt_tokens"),
        sa.func.sum(values.completion_tokens).label("completion_tokens"),
        *(
            sa.func.min(
                sa.case(
                    (
                        values.timed & (values.rank >= share * values.ranks),
                        values.latency_ms,
                    )
                )
            ).label(name)
            for name, share in RANKS.items()
        ),
    ).group_by(values.asked, values.fingerprint)


def _count_errors(
    connection: sa.Connection,
    run_id: str,
    fingerprints: Sequence[str],
    session_id: str | None = None,
) -> Mapping[tuple[str, str], Mapping[str, int]]:
    table = failed_attempts.c
    groups = (table.asked, table.fingerprint, table.kind)
    rows = connection.execute(
        sa.select(*groups, sa.func.count())
        .where(table.run_id == run_id, table.fingerprint.in_(fingerprints))
        .where(sa.true() if session_id is None else table.session_id == session_id)
        .group_by(*groups)
        .order_by(*groups)
    )
    found: dict[tuple[str, str], dict[str, int]] = {}
    for asked, fingerprint, kind, count in rows:
        for key in ((asked, fingerprint), (asked, "")):
            errors = found.setdefault(key, {})
            errors[kind] = errors.get(kind, 0) + int(count)
    return found
