"""Runs, and what one pytest session needs of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pytest_vlmeval.records import Plan, PlanEntry
from pytest_vlmeval.store.database import Database
from pytest_vlmeval.store.schema import plans, runs


class Runs:
    """The runs of the store and the plans of its sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, identity: Mapping[str, Any], session_id: str, *, fresh: bool) -> str:
        """Return the id of the run with these settings, a new one for a fresh start.

        All processes of one session get the same run: the first makes it.
        """
        name = hashlib.sha256(
            json.dumps(identity, sort_keys=True).encode()
        ).hexdigest()[:16]
        with self._database.transaction() as connection:
            newest = connection.execute(
                sa.select(runs)
                .where(runs.c.identity == name)
                .order_by(runs.c.generation.desc())
                .limit(1)
            ).first()
            if newest is not None and (not fresh or newest.session_id == session_id):
                return str(newest.run_id)
            generation = 1 if newest is None else newest.generation + 1
            run_id = f"{name}-{generation}"
            connection.execute(
                sa.insert(runs).values(
                    run_id=run_id,
                    identity=name,
                    generation=generation,
                    session_id=session_id,
                    settings=dict(identity),
                    created_at=time.time(),
                )
            )
            return run_id

    def save_plan(self, session_id: str, plan: Plan, revision: str = "") -> None:
        """Record what a session needs; its other processes have the same plan."""
        entries = [
            {
                "dataset": entry.dataset,
                "fingerprint": entry.fingerprint,
                "modified": entry.modified,
                "indexes": list(entry.indexes),
                "judges": list(entry.judges),
            }
            for entry in plan.entries
        ]
        values = {
            "session_id": session_id,
            "run_id": plan.run_id,
            "scorer": plan.scorer,
            "entries": entries,
            "revision": revision,
            "created_at": time.time(),
        }
        with self._database.transaction() as connection:
            connection.execute(
                self._database.insert(plans).values(values).on_conflict_do_nothing()
            )

    def load_plan(self, session_id: str) -> Plan | None:
        """Return the plan of a session once one of its processes has recorded it."""
        with self._database.transaction(reading=True) as connection:
            row = connection.execute(
                sa.select(plans).where(plans.c.session_id == session_id)
            ).first()
        return None if row is None else read_plan(row)


def read_plan(row: sa.Row[Any]) -> Plan:
    """Make a plan of its row."""
    entries = tuple(
        PlanEntry(
            **{
                **entry,
                "indexes": tuple(entry["indexes"]),
                "judges": tuple(entry["judges"]),
            }
        )
        for entry in row.entries
    )
    return Plan(run_id=row.run_id, scorer=row.scorer, entries=entries)
