"""What a run cost: requests, tokens, latencies and errors, summed up by SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pytest_vlmeval.records import UNANSWERED, Account, Plan, RunAccount
from pytest_vlmeval.run.store.database import Database
from pytest_vlmeval.run.store.schema import (
    answers,
    exchanges,
    failed_attempts,
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


class Accounts(Database):
    """The sums of what a run asked."""

    def account(self, plan: Plan, session_id: str = "") -> RunAccount:
        """Sum up what the run asked for the datasets of a plan, in all its sessions.

        And in the session `session_id` alone, if it is given.
        """
        names = {entry.fingerprint: entry.dataset for entry in plan.entries}
        run_id = plan.run_id
        settings = sa.select(runs.c.settings).where(runs.c.run_id == run_id)
        of_judges = (exchanges.c.run_id == run_id) & exchanges.c.fingerprint.in_(names)
        with self._transaction(reading=True) as connection:
            model = str((connection.scalar(settings) or {}).get("model", ""))

            def of_model(table: sa.FromClause, which: sa.ColumnElement[bool]) -> Rows:
                answered = table.c.state.not_in(UNANSWERED)
                turns = 1 + sa.func.json_array_length(table.c.earlier)
                name = sa.literal(model)
                return _sum_up(connection, table, name, answered, which, turns)

            def of_judge(which: sa.ColumnElement[bool]) -> Rows:
                answered = exchanges.c.text.is_not(None)
                return _sum_up(
                    connection, exchanges, exchanges.c.judge, answered, which
                )

            asked = of_model(
                answers,
                (answers.c.run_id == run_id) & answers.c.fingerprint.in_(names),
            )
            judged = of_judge(of_judges)
            errors = _count_errors(connection, run_id, list(names))
            asked_now = of_model(_asked_in(run_id, session_id, list(names)), sa.true())
            judged_now = of_judge(of_judges & (exchanges.c.session_id == session_id))
            errors_now = _count_errors(connection, run_id, list(names), session_id)
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
