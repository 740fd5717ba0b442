"""One transaction of the run store, on whatever database it lies.

A PostgreSQL server that is restarted, or cannot be reached for a while, is waited for:
every public method of a part of the store is done again from its beginning then.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from inspect import isfunction, isgeneratorfunction
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.store import location as places
from pytest_vlmeval.store.location import (
    LOCK,
    Location,
    is_locked,
    is_lost,
    may_come_back,
    open_database,
)

# Rows that are written or read at once: 30,000 would take 20 MB for a moment.
AT_ONCE = 1_000
RECONNECT_S = 0.5
# Names a transaction that has written, so that its end can be looked up.
TRANSACTION = sa.text("SELECT txid_current_if_assigned()")
STATUS = sa.text("SELECT txid_status(:transaction)")

T = TypeVar("T")
Part = TypeVar("Part")


class ConnectionLostError(Exception):
    """The server went away, and with it all that a transaction had done."""

    def __init__(self, error: sa.exc.DBAPIError) -> None:
        super().__init__(str(error))
        self.error = error


def waits_out_restarts(part: type[Part]) -> type[Part]:
    """Let every public method of a part of the store begin again after a restart.

    None may be a generator, whose transactions end before it does.
    """
    for name, method in list(vars(part).items()):
        if isfunction(method) and not name.startswith("_"):
            if isgeneratorfunction(method):
                message = f"{part.__name__}.{name} cannot be done again: it yields"
                raise TypeError(message)
            setattr(part, name, _again(method))
    return part


def _again(method: Callable[..., T]) -> Callable[..., T]:
    @wraps(method)
    def call(self: Any, *arguments: Any, **keywords: Any) -> T:
        database: Database = self._database
        return database.outlast(partial(method, self, *arguments, **keywords))

    return call


class _Outages:
    """Which stores do not answer: each is announced once by a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: set[Location] = set()

    def note(self, location: Location) -> bool:
        """Take in that a store does not answer; return whether that is new."""
        with self._lock:
            new = location not in self._lost
            self._lost.add(location)
            return new

    def forget(self, location: Location) -> None:
        """Take in that it answers again."""
        with self._lock:
            self._lost.discard(location)


_outages = _Outages()


class RefusedValueError(VlmEvalError):
    """What was to be written has a value that the database does not take."""


def is_of_store(error: Exception) -> bool:
    """Whether the store itself fails, and not for a value of one answer."""
    if isinstance(error, ConnectionLostError):
        return True
    return isinstance(error, VlmEvalError) and not isinstance(error, RefusedValueError)


class Database:
    """The open database; its failures become a `VlmEvalError`.

    `announce` is told that its server is waited for.
    """

    def __init__(self, location: Location, announce: Callable[[str], None]) -> None:
        self._location = location
        self._announce = announce
        # Once one has waited in vain, all others fail at once.
        self._impatient = False
        self._engine = self._open()
        self._postgresql = self._engine.dialect.name == "postgresql"
        self.insert = postgresql.insert if self._postgresql else sqlite.insert

    def _open(self) -> sa.Engine:
        """Open it; a server that is being started is waited for."""
        started = time.monotonic()
        while True:
            try:
                return open_database(self._location)
            except sa.exc.DBAPIError as error:
                limit_s = may_come_back(error)
                if time.monotonic() - started >= limit_s:
                    raise VlmEvalError(self._location.explain(error)) from None
                self._tell_lost(limit_s)
            time.sleep(RECONNECT_S)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def outlast(self, call: Callable[[], T]) -> T:
        """Return what `call` does; begin it again where the server went away.

        Raises `VlmEvalError` where that stays away.
        """
        end = time.monotonic() + places.STORE_OUTAGE_S
        while True:
            try:
                found = call()
            except ConnectionLostError as lost:
                error = lost.error
            else:
                return found
            if self._impatient or time.monotonic() >= end:
                self._impatient = True
                raise VlmEvalError(self._location.explain(error))
            self._tell_lost(places.STORE_OUTAGE_S)
            self._wait(end)

    def _tell_lost(self, limit_s: float) -> None:
        if _outages.note(self._location):
            self._announce(
                f"the run store {self._location} does not answer; waits for it, "
                f"{limit_s:.0f} s at most."
            )

    def _wait(self, end: float) -> None:
        """Wait until the server lets one in again, or the time is up."""
        while time.monotonic() < end:
            time.sleep(RECONNECT_S)
            try:
                with self._engine.connect() as connection:
                    connection.scalar(sa.select(1))
            except sa.exc.DBAPIError:
                continue
            _outages.forget(self._location)
            return

    @contextmanager
    def transaction(
        self, *, reading: bool = False, lock: str | None = None
    ) -> Iterator[sa.Connection]:
        """Run the block in a transaction; one that only reads waits for no writer.

        Of those that take the same `lock` one runs at a time. SQLite has one writer
        at a time anyway. Raises `ConnectionLostError` where the server went away and
        nothing of the block was kept.
        """
        written: int | None = None
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
                if self._postgresql and not reading:
                    written = connection.scalar(TRANSACTION)
        except sa.exc.DataError as error:
            raise RefusedValueError(self._location.explain(error)) from None
        except sa.exc.DBAPIError as error:
            if self._postgresql and is_lost(error):
                # The server may have gone just after it committed.
                if written is not None and self._was_committed(written):
                    return
                raise ConnectionLostError(error) from None
            self._impatient = self._impatient or is_locked(error)
            raise VlmEvalError(self._location.explain(error)) from None

    def _was_committed(self, transaction: int) -> bool:
        """Look up how a transaction ended whose commit got no answer."""
        end = time.monotonic() + places.STORE_OUTAGE_S
        self._tell_lost(places.STORE_OUTAGE_S)
        while not self._impatient and time.monotonic() < end:
            self._wait(end)
            try:
                with self._engine.connect() as connection:
                    status = connection.scalar(STATUS, {"transaction": transaction})
            except sa.exc.DataError:
                # After a crash the server may not have got so far.
                return False
            except sa.exc.DBAPIError:
                continue
            if status != "in progress":
                return bool(status == "committed")
        return False

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
