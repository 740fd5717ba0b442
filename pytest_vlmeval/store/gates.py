"""What the gates of each session found."""

from __future__ import annotations

import time
from collections.abc import Sequence

import sqlalchemy as sa

from pytest_vlmeval.gates.outcome import GateResult, as_record, from_record
from pytest_vlmeval.store.database import Database, waits_out_restarts
from pytest_vlmeval.store.schema import gates


@waits_out_restarts
class Gates:
    """The results of gates in the store, by session."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, session_id: str, run_id: str, results: Sequence[GateResult]) -> None:
        """Record results; a session's newest of a gate and metric counts."""
        if not results:
            return
        insert = self._database.insert(gates)
        statement = insert.on_conflict_do_update(
            index_elements=["session_id", "dataset", "gate", "metric"],
            set_={
                name: insert.excluded[name]
                for name in ("outcome", "fails", "result", "decided_at")
            },
        )
        rows = [
            {
                "session_id": session_id,
                "run_id": run_id,
                "dataset": result.dataset,
                "gate": result.gate,
                "metric": result.metric,
                "outcome": result.outcome,
                "fails": result.fails,
                "result": as_record(result),
                "decided_at": time.time(),
            }
            for result in results
        ]
        with self._database.transaction() as connection:
            connection.execute(statement, rows)

    def load(self, session_id: str) -> tuple[GateResult, ...]:
        """Return what the gates of a session found, by dataset, gate and metric."""
        statement = (
            sa.select(gates.c.result)
            .where(gates.c.session_id == session_id)
            .order_by(gates.c.dataset, gates.c.gate, gates.c.metric)
        )
        with self._database.transaction(reading=True) as connection:
            return tuple(map(from_record, connection.scalars(statement)))
