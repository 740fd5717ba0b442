"""Runs and their sessions: what each needs, and what is known of past ones."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import Plan, PlanEntry, Scoring, Setting
from pytest_vlmeval.run.store.database import Database, waits_out_restarts
from pytest_vlmeval.run.store.schema import (
    answers,
    plans,
    processes,
    runs,
    scores,
    selections,
)


class OtherRun(NamedTuple):
    """A run that another live process works at."""

    run_id: str
    settings: Mapping[str, Any]


@waits_out_restarts
class Runs:
    """The runs of the store and the plans of its sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, identity: Mapping[str, Any], session_id: str, *, fresh: bool) -> str:
        """Return the id of the run with these settings, a new one for a fresh start.

        All processes of one session get the same run: the first makes it.
        """
        name = _digest(identity)
        with self._database.transaction(lock=f"run {name}") as connection:
            newest = connection.execute(
                sa.select(runs)
                .where(runs.c.identity == name)
                .order_by(runs.c.generation.desc())
                .limit(1)
            ).first()
            if newest is not None and (not fresh or newest.session_id == session_id):
                return str(newest.run_id)
            generation = 1 if newest is None else newest.generation + 1
            last = connection.scalar(sa.select(sa.func.max(answers.c.seq)))
            run_id = f"{name}-{generation}"
            connection.execute(
                sa.insert(runs).values(
                    run_id=run_id,
                    identity=name,
                    generation=generation,
                    session_id=session_id,
                    settings=dict(identity),
                    cache_after=(last or 0) if fresh else 0,
                    created_at=time.time(),
                )
            )
            return run_id

    def find(self, identity: Mapping[str, Any]) -> str | None:
        """Return the id of the newest run with these settings; None without any."""
        query = (
            sa.select(runs.c.run_id)
            .where(runs.c.identity == _digest(identity))
            .order_by(runs.c.generation.desc())
            .limit(1)
        )
        with self._database.transaction(reading=True) as connection:
            found: str | None = connection.scalar(query)
            return found

    def cache_after(self, run_id: str) -> int:
        """Return the number of the last answer that a run takes from no cache."""
        query = sa.select(runs.c.cache_after).where(runs.c.run_id == run_id)
        with self._database.transaction(reading=True) as connection:
            return int(connection.scalar(query) or 0)

    def others(self, run_id: str) -> list[OtherRun]:
        """Return the other runs that live processes work at."""
        query = (
            sa.select(runs.c.run_id, runs.c.settings)
            .where(
                runs.c.run_id.in_(
                    sa.select(processes.c.run_id).where(processes.c.state == "live")
                ),
                runs.c.run_id != run_id,
            )
            .order_by(runs.c.run_id)
        )
        with self._database.transaction(reading=True) as connection:
            return [OtherRun(*row) for row in connection.execute(query)]

    def save_plan(self, session_id: str, plan: Plan, revision: str = "") -> None:
        """Record what a session needs; its other processes have the same plan."""
        values = {
            "session_id": session_id,
            "run_id": plan.run_id,
            "scorer": plan.scorer,
            "repeats": plan.repeats,
            "asks": plan.asks,
            "entries": [
                {
                    "dataset": entry.dataset,
                    "fingerprint": entry.fingerprint,
                    "modified": entry.modified,
                    "judges": list(entry.judges),
                    "unscored": entry.unscored,
                    "checksum": entry.checksum,
                    "version": entry.version,
                    "selection": _digest(entry.indexes),
                }
                for entry in plan.entries
            ],
            "revision": revision,
            "created_at": time.time(),
        }
        known = sa.select(selections.c.selection_id).where(
            selections.c.selection_id.in_([_digest(e.indexes) for e in plan.entries])
        )
        add = self._database.insert
        with self._database.transaction() as connection:
            there = set(connection.scalars(known))
            for entry in plan.entries:
                selection = _digest(entry.indexes)
                if selection not in there:
                    new = {"selection_id": selection, "indexes": list(entry.indexes)}
                    connection.execute(
                        add(selections).values(new).on_conflict_do_nothing()
                    )
            connection.execute(add(plans).values(values).on_conflict_do_nothing())

    def narrow_plan(self, session_id: str, entry: PlanEntry) -> None:
        """Record that a session needs fewer samples of a dataset than it planned."""
        selection = _digest(entry.indexes)
        new = {"selection_id": selection, "indexes": list(entry.indexes)}
        mine = plans.c.session_id == session_id
        with self._database.transaction() as connection:
            connection.execute(
                self._database.insert(selections).values(new).on_conflict_do_nothing()
            )
            planned = connection.scalar(
                sa.select(plans.c.entries).where(mine).with_for_update()
            )
            entries = [
                {**each, "selection": selection}
                if each["dataset"] == entry.dataset
                else each
                for each in planned or ()
            ]
            connection.execute(sa.update(plans).where(mine).values(entries=entries))

    def load_plan(self, session_id: str) -> Plan | None:
        """Return the plan of a session once one of its processes has recorded it."""
        with self._database.transaction(reading=True) as connection:
            row = connection.execute(
                sa.select(plans).where(plans.c.session_id == session_id)
            ).first()
            return None if row is None else read_plans(connection, [row])[0]


def read_plans(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[Plan]:
    """Make plans of their rows."""
    names = {entry["selection"] for row in rows for entry in row.entries}
    found = connection.execute(
        sa.select(selections).where(selections.c.selection_id.in_(names))
    )
    # The session's own process knows them too: kept once.
    indexes = {
        each.selection_id: tuple(map(sys.intern, each.indexes)) for each in found
    }
    return [
        Plan(
            run_id=row.run_id,
            scorer=row.scorer,
            repeats=row.repeats,
            asks=row.asks,
            entries=tuple(_read_entry(entry, indexes) for entry in row.entries),
        )
        for row in rows
    ]


def _read_entry(
    entry: Mapping[str, Any], indexes: Mapping[str, tuple[str, ...]]
) -> PlanEntry:
    return PlanEntry(
        dataset=entry["dataset"],
        fingerprint=entry["fingerprint"],
        modified=entry["modified"],
        judges=tuple(entry["judges"]),
        unscored=entry["unscored"],
        checksum=entry["checksum"],
        version=entry["version"],
        indexes=indexes[entry["selection"]],
    )


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run: what tells it apart, and when it began (seconds since 1970)."""

    run_id: str
    settings: Mapping[str, Setting | None]
    created_at: float

    @property
    def model(self) -> str:
        """The name of the model."""
        return str(self.settings.get("model", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """One pytest session of a run: what it selected, when, at which commit."""

    session_id: str
    plan: Plan
    revision: str
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PastScore:
    """A score of the store without its verdicts; `value` goes from 0 to `scale`."""

    run_id: str
    model: str
    fingerprint: str
    dataset: str
    main_metric: str
    value: float
    scale: float
    samples: int
    judge: str
    scoring: Scoring
    scorer: str
    created_at: float


def _named(runs: Sequence[StoredRun], name: str) -> list[StoredRun]:
    """Return the runs of this id or model, else those whose id begins so."""
    return [run for run in runs if name in (run.run_id, run.model)] or [
        run for run in runs if run.run_id.startswith(name)
    ]


def _find(runs: Sequence[StoredRun], name: str, other: str = "") -> StoredRun:
    found = _named(runs, name)
    if not found:
        known = ", ".join(f"{run.run_id} ({run.model})" for run in runs) or "none"
        raise VlmEvalError(
            f"The store has no {other}run {name!r}. Its {other}runs are: {known}. Name "
            "one by its id, the beginning of its id, or its model."
        )
    # A model may have many runs: its newest counts.
    if len({run.model for run in found}) > 1:
        known = ", ".join(f"{run.run_id} ({run.model})" for run in found)
        raise VlmEvalError(
            f"The store has several runs {name!r}: {known}. Give more of the id."
        )
    return found[0]


@waits_out_restarts
class History:
    """The runs of the store, newest first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def runs(self) -> list[StoredRun]:
        """Return every run."""
        with self._database.transaction(reading=True) as connection:
            rows = connection.execute(
                sa.select(runs).order_by(runs.c.created_at.desc(), runs.c.run_id)
            ).all()
        return [
            StoredRun(
                run_id=row.run_id, settings=row.settings, created_at=row.created_at
            )
            for row in rows
        ]

    def find(self, name: str | None, model: str | None = None) -> StoredRun:
        """Return the run whose id begins with `name`, else the newest, of a model.

        Raises `VlmEvalError` where there is none, or more than one.
        """
        runs = [run for run in self.runs() if model in (None, run.model)]
        if name is not None:
            return _find(runs, name)
        if not runs:
            of = f" of the model {model}" if model else ""
            raise VlmEvalError(f"The store has no run{of}. Run a benchmark first.")
        return runs[0]

    def find_other(self, run_id: str | None, name: str) -> StoredRun:
        """Return the run that `name` means beside the run `run_id` itself.

        `run_id` is None for a run that is not there yet. Raises `VlmEvalError` where
        there is none, or more than one.
        """
        every = self.runs()
        others = [run for run in every if run.run_id != run_id]
        own = [run for run in every if run.run_id == run_id]
        if _named(own, name) and not _named(others, name):
            raise VlmEvalError(
                f"--vlm-compare-with={name} is the run {run_id} of this session "
                "itself. Name another by its id; --vlm-runs lists them."
            )
        return _find(others, name, "other ")

    def sessions(self, run_id: str) -> list[StoredSession]:
        """Return the sessions of a run."""
        with self._database.transaction(reading=True) as connection:
            rows = connection.execute(
                sa.select(plans)
                .where(plans.c.run_id == run_id)
                .order_by(plans.c.created_at.desc(), plans.c.session_id)
            ).all()
            found = read_plans(connection, rows)
        return [
            StoredSession(
                session_id=row.session_id,
                plan=plan,
                revision=row.revision,
                created_at=row.created_at,
            )
            for row, plan in zip(rows, found, strict=True)
        ]

    def scores(self) -> list[PastScore]:
        """Return every score that was computed, of all runs."""
        with self._database.transaction(reading=True) as connection:
            rows = connection.execute(
                sa.select(scores, runs.c.settings)
                .join(runs, runs.c.run_id == scores.c.run_id)
                .where(scores.c.state.in_(("done", "incomplete")))
                .order_by(scores.c.created_at.desc(), scores.c.score_id)
            ).all()
        return [
            PastScore(
                run_id=row.run_id,
                model=str(row.settings.get("model", "")),
                fingerprint=row.fingerprint,
                created_at=row.created_at,
                **{name: row.score[name] for name in _SCORE_FIELDS},
            )
            for row in rows
        ]


_SCORE_FIELDS = (
    "dataset",
    "main_metric",
    "value",
    "scale",
    "samples",
    "judge",
    "scoring",
    "scorer",
)
