"""Runs and their sessions: what each needs, and what is known of past ones."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import Plan, PlanEntry, Score, ScoringMethod, Setting, Start
from pytest_vlmeval.run.store.database import Database
from pytest_vlmeval.run.store.schema import (
    answers,
    plans,
    processes,
    runs,
    scores,
    selections,
)


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
    """One pytest session of a run: what it selected, when, and how it was started."""

    session_id: str
    plan: Plan
    start: Start
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
    scoring: ScoringMethod
    scorer: str
    created_at: float


_OF_SCORE = PastScore.__dataclass_fields__.keys() & Score.__dataclass_fields__.keys()
_OF_START = tuple(Start.__dataclass_fields__)
_OF_ENTRY = PlanEntry.__dataclass_fields__.keys() - {"indexes"}


class Runs(Database):
    """The runs of the store, the plans of its sessions, and what is known of both."""

    def open_run(
        self, identity: Mapping[str, Any], session_id: str, *, fresh: bool
    ) -> str:
        """Return the id of the run with these settings, a new one for a fresh start.

        All processes of one session get the same run: the first makes it.
        """
        name = _digest(identity)
        with self._transaction(lock=f"run {name}") as connection:
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

    def same_run(self, identity: Mapping[str, Any]) -> str | None:
        """Return the id of the newest run with these settings; None without any."""
        query = (
            sa.select(runs.c.run_id)
            .where(runs.c.identity == _digest(identity))
            .order_by(runs.c.generation.desc())
            .limit(1)
        )
        found: str | None = self._read_one(query)
        return found

    def cache_after(self, run_id: str) -> int:
        """Return the number of the last answer that a run takes from no cache."""
        query = sa.select(runs.c.cache_after).where(runs.c.run_id == run_id)
        return int(self._read_one(query) or 0)

    def other_runs(self, run_id: str) -> list[StoredRun]:
        """Return the other runs that live processes work at, newest first."""
        live = sa.select(processes.c.run_id).where(processes.c.state == "live")
        return self._runs(runs.c.run_id.in_(live), runs.c.run_id != run_id)

    def runs(self) -> list[StoredRun]:
        """Return every run, newest first."""
        return self._runs()

    def _runs(self, *which: sa.ColumnElement[bool]) -> list[StoredRun]:
        order = runs.c.created_at.desc(), runs.c.run_id
        return [
            StoredRun(
                run_id=row.run_id, settings=row.settings, created_at=row.created_at
            )
            for row in self._read(sa.select(runs).where(*which).order_by(*order))
        ]

    def save_plan(
        self, session_id: str, plan: Plan, start: Start | None = None
    ) -> None:
        """Record what a session needs; its other processes have the same plan."""
        indexes = {_digest(entry.indexes): entry.indexes for entry in plan.entries}
        values = {
            "session_id": session_id,
            "run_id": plan.run_id,
            "scorer": plan.scorer,
            "repeats": plan.repeats,
            "asks": plan.asks,
            "entries": [
                {name: getattr(entry, name) for name in _OF_ENTRY}
                | {"selection": _digest(entry.indexes)}
                for entry in plan.entries
            ],
            **asdict(start or Start()),
            "created_at": time.time(),
        }
        known = sa.select(selections.c.selection_id).where(
            selections.c.selection_id.in_(list(indexes))
        )
        insert = self._insert(plans).values(values).on_conflict_do_nothing()
        with self._transaction() as connection:
            for name in indexes.keys() - set(connection.scalars(known)):
                self._add_selection(connection, name, indexes[name])
            connection.execute(insert)

    def _add_selection(
        self, connection: sa.Connection, name: str, indexes: Sequence[str]
    ) -> None:
        new = {"selection_id": name, "indexes": indexes}
        insert = self._insert(selections).values(new)
        connection.execute(insert.on_conflict_do_nothing())

    def narrow_plan(self, session_id: str, entry: PlanEntry) -> None:
        """Record that a session needs fewer samples of a dataset than it planned."""
        selection = _digest(entry.indexes)
        mine = plans.c.session_id == session_id
        planned = sa.select(plans.c.entries).where(mine).with_for_update()
        with self._transaction() as connection:
            self._add_selection(connection, selection, entry.indexes)
            entries = [
                {**each, "selection": selection}
                if each["dataset"] == entry.dataset
                else each
                for each in connection.scalar(planned) or ()
            ]
            connection.execute(sa.update(plans).where(mine).values(entries=entries))

    def load_plan(self, session_id: str) -> Plan | None:
        """Return the plan of a session once one of its processes has recorded it."""
        found = self._sessions(plans.c.session_id == session_id)
        return found[0].plan if found else None

    def sessions(self, run_id: str) -> list[StoredSession]:
        """Return the sessions of a run, newest first."""
        return self._sessions(plans.c.run_id == run_id)

    def _sessions(self, which: sa.ColumnElement[bool]) -> list[StoredSession]:
        order = plans.c.created_at.desc(), plans.c.session_id
        with self._transaction(reading=True) as connection:
            rows = connection.execute(sa.select(plans).where(which).order_by(*order))
            found = rows.all()
            names = {entry["selection"] for row in found for entry in row.entries}
            chosen = sa.select(selections).where(selections.c.selection_id.in_(names))
            # The session's own process knows them too: kept once.
            indexes = {
                each.selection_id: tuple(map(sys.intern, each.indexes))
                for each in connection.execute(chosen)
            }
        return [
            StoredSession(
                session_id=row.session_id,
                plan=Plan(
                    run_id=row.run_id,
                    scorer=row.scorer,
                    repeats=row.repeats,
                    asks=row.asks,
                    entries=tuple(
                        PlanEntry(
                            **{
                                name: entry[name]
                                # What an older version wrote may lack the newest.
                                for name in (_OF_ENTRY & entry.keys()) - {"judges"}
                            },
                            judges=tuple(entry["judges"]),
                            indexes=indexes[entry["selection"]],
                        )
                        for entry in row.entries
                    ),
                ),
                start=Start(**{name: getattr(row, name) for name in _OF_START}),
                created_at=row.created_at,
            )
            for row in found
        ]

    def find_run(self, name: str | None, model: str | None = None) -> StoredRun:
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

    def find_other_run(self, run_id: str | None, name: str) -> StoredRun:
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

    def past_scores(self) -> list[PastScore]:
        """Return every score that was computed, of all runs, newest first."""
        query = (
            sa.select(scores, runs.c.settings)
            .join(runs, runs.c.run_id == scores.c.run_id)
            .where(scores.c.state.in_(("done", "incomplete")))
            .order_by(scores.c.created_at.desc(), scores.c.score_id)
        )
        return [
            PastScore(
                run_id=row.run_id,
                model=str(row.settings.get("model", "")),
                fingerprint=row.fingerprint,
                created_at=row.created_at,
                **{name: row.score[name] for name in _OF_SCORE},
            )
            for row in self._read(query)
        ]


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
