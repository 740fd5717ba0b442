"""One transaction of the run store, on whatever database it lies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.store.location import LOCK, Location, is_locked, open_database

# Rows that are written or read at once: 30,000 would take 20 MB for a moment.
AT_ONCE = 1_000


class RefusedValueError(VlmEvalError):
    """What was to be written has a value that the database does not take."""


def is_of_store(error: Exception) -> bool:
    """Whether the store itself fails, and not for a value of one answer."""
    return isinstance(error, VlmEvalError) and not isinstance(error, RefusedValueError)


class Database:
    """The open database; its failures become a `VlmEvalError`."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._engine = open_database(location)
        self._postgresql = self._engine.dialect.name == "postgresql"
        self.insert = postgresql.insert if self._postgresql else sqlite.insert
        # Once one has waited in vain, all others fail at once.
        self._impatient = False

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def transaction(
        self, *, reading: bool = False, lock: str | None = None
    ) -> Iterator[sa.Connection]:
        """Run the block in a transaction; one that only reads waits for no writer.

        Of those that take the same `lock` one runs at a time. SQLite has one writer
        at a time anyway.
        """
        try:
            with (
                self._engine.connect().execution_options(
                    reading=reading, impatient=self._impatient
                ) as connection,
                connection.begin(),
            ):
                if lock is not None and self._postgresql:
                    connection.execute(LOCK, {"name": f"vlmeval {lock}"})
                yield connection
        except sa.exc.DataError as error:
            raise RefusedValueError(self._location.explain(error)) from None
        except sa.exc.DatabaseError as error:
            self._impatient = self._impatient or is_locked(error)
            raise VlmEvalError(self._location.explain(error)) from None

    def each(self, values: Sequence[object]) -> sa.ColumnElement[str]:
        """Return a column of `values`, sent as one parameter, however many they are.

        Each is a text, or JSON of what else it is.
        """
        texts = [v if isinstance(v, str) else json.dumps(v) for v in values]
        array = sa.literal(json.dumps(texts))
        if self._postgresql:
            rows = sa.func.json_array_elements_text(sa.cast(array, postgresql.JSON))
            return rows.table_valued("value").c.value
        return sa.func.json_each(array).table_valued("value").c.value
