"""What requests failed, how the concurrency changed, and what a run cost in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from pytest_vlmeval.accounts import Account, FailedAttempt, LimitChange, RunAccount
from pytest_vlmeval.records import UNANSWERED, Plan
from pytest_vlmeval.store.database import Database, waits_out_restarts
from pytest_vlmeval.store.schema import (
    answers,
    exchanges,
    failed_attempts,
    limit_changes,
    runs,
    spot_answers,
)

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
        attempts: Sequence[FailedAttempt] = (),
        changes: Sequence[LimitChange] = (),
    ) -> None:
        """Keep failed attempts and changes of the concurrency, in one transaction."""
        common = {"run_id": run_id, "session_id": session_id}
        with self._database.transaction() as connection:
            if attempts:
                rows = [{**common, **asdict(each)} for each in attempts]
                connection.execute(sa.insert(failed_attempts), rows)
            if changes:
                rows = [{**common, **asdict(each)} for each in changes]
                connection.execute(sa.insert(limit_changes), rows)

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
            changes = _changes(connection, plan.run_id)
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
            changes=changes,
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


def _changes(connection: sa.Connection, run_id: str) -> tuple[LimitChange, ...]:
    names = LimitChange.__dataclass_fields__
    rows = connection.execute(
        sa.select(*(limit_changes.c[name] for name in names))
        .where(limit_changes.c.run_id == run_id)
        .order_by(limit_changes.c.number)
    )
    return tuple(LimitChange(**row._mapping) for row in rows)
