"""One transaction of the run store, on whatever database it lies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.store import schema


class Database:
    """The open database; its failures become a `VlmEvalError`."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._engine = schema.open_database(work_dir)
        postgres = self._engine.dialect.name == "postgresql"
        self.insert = postgresql.insert if postgres else sqlite.insert

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def transaction(self, *, reading: bool = False) -> Iterator[sa.Connection]:
        """Run the block in a transaction; one that only reads waits for no writer."""
        try:
            with (
                self._engine.connect().execution_options(reading=reading) as connection,
                connection.begin(),
            ):
                yield connection
        except sa.exc.DatabaseError as error:
            raise VlmEvalError(schema.explain_failure(self._work_dir, error)) from None
