"""What was found out of the media that a run's endpoint takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa

from pytest_vlmeval.models.capability import Finding
from pytest_vlmeval.store.database import Database, waits_out_restarts
from pytest_vlmeval.store.schema import capabilities


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
