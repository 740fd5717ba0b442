"""What the store knows of runs that are over: their sessions and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import Plan, Scoring, Setting
from pytest_vlmeval.store.database import Database, waits_out_restarts
from pytest_vlmeval.store.runs import read_plans
from pytest_vlmeval.store.schema import plans, runs, scores


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
