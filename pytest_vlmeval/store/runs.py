"""Runs, and what one pytest session needs of them."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from pytest_vlmeval.records import Plan, PlanEntry
from pytest_vlmeval.store.database import Database, waits_out_restarts
from pytest_vlmeval.store.schema import answers, plans, processes, runs, selections


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
