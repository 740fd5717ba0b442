"""One transaction of the run store, where it lies, and who holds what in it.

A PostgreSQL server that is restarted, or cannot be reached for a while, is waited for:
every public method of the store is done again from its beginning then.

No clock is compared with another: a process counts its own beats in the store, and is
dead once it has missed many of those of another. So clocks that jump, and those of
several machines that differ, do no harm; nor does a store that nobody can write to.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from inspect import isfunction, isgeneratorfunction
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.run.store.schema import (
    SCHEMA_VERSION,
    claims,
    meta,
    metadata,
    processes,
    scores,
)
from pytest_vlmeval.settings.option import hide_password

BUSY_TIMEOUT_S = 60
CONNECT_TIMEOUT_S = 10
# How long a server that was there is waited for, as a model's is (--vlm-outage).
STORE_OUTAGE_S = 120
# How long one is that nothing was heard of yet: it may just be restarted.
OPENING_S = 10
SWITCH_PAUSE_S = 0.01
# A server that vanished is noticed within half a minute.
KEEP_ALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
# Names what must not happen twice at once in a PostgreSQL database.
LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


@dataclass(frozen=True, slots=True)
class Location:
    """The SQLite file of `work_dir`, or, with a `url`, a PostgreSQL database."""

    work_dir: Path
    url: str | None = None

    def __repr__(self) -> str:
        """Name the place without a password."""
        return str(self.work_dir) if self.url is None else hide_password(self.url)

    @property
    def file(self) -> Path | None:
        """The file, None if the store is in a database."""
        return None if self.url else self.work_dir / "store.sqlite"

    @property
    def may_exist(self) -> bool:
        """Whether there is a store already; of a database it is not known."""
        return self.file is None or self.file.exists()

    def explain(self, error: BaseException) -> str:
        """Describe what a failure of the store means; nothing recorded is lost."""
        cause = str(getattr(error, "orig", None) or error).strip()
        if self.url is not None:
            return (
                f"The run store {self} cannot be used: {cause}. See that its server "
                "runs and lets you in, then run the same command again: answers that "
                "were recorded are kept."
            )
        return (
            f"The run store in {self} cannot be used: {cause}. {_remedy(cause)}, or "
            "choose another folder with --vlm-work-dir, then run the same command "
            "again: answers that were recorded are kept."
        )


def _remedy(cause: str) -> str:
    if "full" in cause or "No space left" in cause or "too large" in cause:
        return "Free some space"
    if "not a database" in cause or "malformed" in cause:
        return "Move the damaged file away (it is never overwritten)"
    if "database is locked" in cause:
        return (
            f"Another process held the store for more than {BUSY_TIMEOUT_S} s: end it"
        )
    return "Make it writable"


# PostgreSQL's codes for a server that ends, has crashed, or does not let one in yet;
# class 08 has those for connections that failed.
_ENDING = ("57P01", "57P02", "57P03", "08")
_REFUSED = re.compile(
    "authentication|password|does not exist|pg_hba|certificate|SSL|translate host|"
    "not known|invalid"
)


def is_lost(error: sa.exc.DBAPIError) -> bool:
    """Return whether a PostgreSQL server that was there went away."""
    code = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or (code or "").startswith(_ENDING):
        return True
    # What fails without a code never reached the server.
    return code is None and isinstance(
        error, sa.exc.OperationalError | sa.exc.InterfaceError
    )


def may_come_back(error: sa.exc.DBAPIError) -> float:
    """Return how long to wait for a store that could not be opened, in seconds."""
    words = str(error.orig)
    if "sqlite" in type(error.orig).__module__ or not is_lost(error):
        return 0
    if re.search("starting up|shutting down|not yet accepting|recovery", words):
        return STORE_OUTAGE_S
    return 0 if _REFUSED.search(words) else OPENING_S


def open_database(location: Location) -> sa.Engine:
    """Open, or make, the store; `VlmEvalError` if that cannot be done.

    What the server of a database refuses remains SQLAlchemy's error.
    """
    try:
        engine = _open_postgresql(location) if location.url else _open_sqlite(location)
    except OSError as error:
        raise VlmEvalError(location.explain(error)) from None
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(LOCK, {"name": "vlmeval schema"})
            metadata.create_all(connection)
            version = connection.scalar(sa.select(meta.c.schema_version))
            if version is None:
                connection.execute(
                    sa.insert(meta).values(schema_version=SCHEMA_VERSION)
                )
            elif version != SCHEMA_VERSION:
                # What was made in a store of another version is taken back.
                raise VlmEvalError(_explain_version(location, version))
    except (OSError, VlmEvalError, sa.exc.DBAPIError) as error:
        engine.dispose()
        if isinstance(error, OSError):
            raise VlmEvalError(location.explain(error)) from None
        raise
    return engine


def _explain_version(location: Location, version: int) -> str:
    other = (
        "another folder with --vlm-work-dir"
        if location.file
        else "another database with --vlm-store"
    )
    return (
        f"{location.file or location} has the schema version {version}, this "
        f"version of pytest-vlmeval uses {SCHEMA_VERSION}. Choose {other}, or go "
        "on with the version that wrote it."
    )


def _open_sqlite(location: Location) -> sa.Engine:
    location.work_dir.mkdir(parents=True, exist_ok=True)
    ignore = location.work_dir / ".gitignore"
    if not ignore.exists():
        ignore.write_text("# Made by pytest-vlmeval.\n*\n", encoding="utf-8")
    engine = sa.create_engine(
        f"sqlite:///{location.file}", connect_args={"timeout": BUSY_TIMEOUT_S}
    )

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        _log_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")

    # SQLAlchemy, not sqlite3, begins transactions. One that reads first and writes
    # later cannot wait for the lock in SQLite, so writers begin as writers.
    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        if options.get("impatient", False):
            connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        reading = options.get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Let readers and a writer work side by side.

    SQLite does not wait where two processes switch a new file to this at once: one of
    them is told at once that it is locked.
    """
    end = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(SWITCH_PAUSE_S)
        except UnicodeDecodeError:
            # SQLite's message quotes what it cannot read.
            raise sqlite3.DatabaseError("malformed database schema") from None
        else:
            return


def _open_postgresql(location: Location) -> sa.Engine:
    assert location.url is not None
    try:
        url = sa.make_url(location.url).set(drivername="postgresql+psycopg")
        return sa.create_engine(
            url,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, **KEEP_ALIVE},
            # A connection that the server or the network ended is opened again.
            pool_pre_ping=True,
        )
    except ImportError:
        raise VlmEvalError(
            f"--vlm-store={location} needs psycopg, which is not installed. Run "
            "pip install 'pytest-vlmeval[postgresql]'."
        ) from None
    except (sa.exc.ArgumentError, ValueError):
        raise VlmEvalError(
            f"--vlm-store={location} is not a database's URL. It takes "
            "postgresql://USER@HOST:PORT/DATABASE."
        ) from None


# Rows that are written or read at once: 30,000 would take 20 MB for a moment.
AT_ONCE = 1_000
RECONNECT_S = 0.5
# Names a transaction that has written, so that its end can be looked up.
TRANSACTION = sa.text("SELECT txid_current_if_assigned()")
STATUS = sa.text("SELECT txid_status(:transaction)")

T = TypeVar("T")


def _again(method: Callable[..., T]) -> Callable[..., T]:
    """Let a method of a store begin again after a restart of its server."""

    @wraps(method)
    def call(self: Database, *arguments: Any, **keywords: Any) -> T:
        return self._outlast(partial(method, self, *arguments, **keywords))

    return call


class ConnectionLostError(Exception):
    """The server went away, and with it all that a transaction had done."""

    def __init__(self, error: sa.exc.DBAPIError) -> None:
        super().__init__(str(error))
        self.error = error


# The stores that do not answer: each is announced once by a process.
_lost: set[Location] = set()
_losing = threading.Lock()


class RefusedValueError(VlmEvalError):
    """What was to be written has a value that the database does not take."""


def is_of_store(error: Exception) -> bool:
    """Return whether the store itself fails, and not for a value of one answer."""
    if isinstance(error, ConnectionLostError):
        return True
    return isinstance(error, VlmEvalError) and not isinstance(error, RefusedValueError)


class Database:
    """The open database; its failures become a `VlmEvalError`.

    It lies in a file of `work_dir`, or in the PostgreSQL database of `url`, whose
    server is waited for while it is restarted; `announce` is told so. Every public
    method of a subclass is thread-safe and begins again after such a restart; so none
    may be a generator, whose transactions end before it does.
    """

    def __init__(
        self,
        work_dir: Path,
        url: str | None = None,
        announce: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._location = Location(work_dir, url)
        self._announce = announce
        # Once one has waited in vain, all others fail at once.
        self._impatient = False
        self._engine = self._open()
        self._postgresql = self._engine.dialect.name == "postgresql"
        self._insert = postgresql.insert if self._postgresql else sqlite.insert

    def __init_subclass__(cls) -> None:
        for name, method in list(vars(cls).items()):
            if isfunction(method) and not name.startswith("_"):
                if isgeneratorfunction(method):
                    raise TypeError(f"{name} cannot be done again: it yields")
                setattr(cls, name, _again(method))

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

    def _outlast(self, call: Callable[[], T]) -> T:
        """Return what `call` does; begin it again where the server went away.

        Raises `VlmEvalError` where that stays away.
        """
        end = time.monotonic() + STORE_OUTAGE_S
        while True:
            try:
                return call()
            except ConnectionLostError as lost:
                error = lost.error
            if self._impatient or time.monotonic() >= end:
                self._impatient = True
                raise VlmEvalError(self._location.explain(error))
            self._tell_lost(STORE_OUTAGE_S)
            self._wait(end)

    def _tell_lost(self, limit_s: float) -> None:
        with _losing:
            is_new = self._location not in _lost
            _lost.add(self._location)
        if is_new:
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
            _lost.discard(self._location)
            return

    def _read(self, query: sa.Executable) -> Sequence[sa.Row[Any]]:
        """Return all rows of a query."""
        with self._transaction(reading=True) as connection:
            return connection.execute(query).all()

    def _read_one(self, query: sa.Executable) -> Any:
        """Return the first value of the first row; None if there is none."""
        with self._transaction(reading=True) as connection:
            return connection.scalar(query)

    def _write(
        self, statement: sa.Executable, rows: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        with self._transaction() as connection:
            connection.execute(statement, rows)

    @contextmanager
    def _transaction(
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
            # Somebody else held an SQLite store for too long.
            self._impatient = self._impatient or "database is locked" in str(error)
            raise VlmEvalError(self._location.explain(error)) from None

    def _was_committed(self, transaction: int) -> bool:
        """Look up how a transaction ended whose commit got no answer."""
        end = time.monotonic() + STORE_OUTAGE_S
        self._tell_lost(STORE_OUTAGE_S)
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

    def _each(self, values: Sequence[object]) -> sa.ColumnElement[str]:
        """Return a column of `values`, sent as one parameter, however many they are.

        Each is a text, or JSON of what else it is.
        """
        texts = [v if isinstance(v, str) else json.dumps(v) for v in values]
        array = sa.literal(json.dumps(texts))
        if self._postgresql:
            rows = sa.func.json_array_elements_text(sa.cast(array, postgresql.JSON))
            return rows.table_valued("value").c.value
        return sa.func.json_each(array).table_valued("value").c.value


BEAT_S = 2.0
# As many beats of one process without any of another: half a minute.
MISSED_BEATS = 15


def make_owner() -> str:
    """Name this process among all that may ever share a store: host, pid, chance."""
    return f"{_machine()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"


def _machine() -> str:
    """Name this machine since its start, of which process ids are valid."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()}/{boot.strip()[:8]}/{space}"


def _is_dead(owner: str) -> bool:
    """Return whether `owner` was a process of this machine that is gone.

    So is one that has ended and only waits for its parent to notice: a zombie.
    """
    machine, pid, _ = owner.rsplit(":", 2)
    if machine != _machine():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(") ")[2].startswith("Z")


class Member(NamedTuple):
    """A process of a session.

    `state` is "live", "left" (by itself), "stopped" (as nothing answers) or "dead".
    """

    owner: str
    number: int
    state: str


class Leases(Database):
    """The processes that share a store, and what they hold: claims and scorings."""

    def join(self, owner: str, session_id: str, run_id: str, number: int) -> None:
        """Take part; `number` tells the processes of a session apart."""
        self._write(
            sa.insert(processes).values(
                owner=owner,
                session_id=session_id,
                run_id=run_id,
                number=number,
                state="live",
                beats=0,
                joined_at=time.time(),
            )
        )

    def beat(self, owner: str) -> dict[str, int]:
        """Show that `owner` lives; return the beats of all other live processes."""
        mine = processes.c.owner == owner
        update = sa.update(processes).where(mine)
        others = sa.select(processes.c.owner, processes.c.beats).where(
            processes.c.state == "live", ~mine
        )
        with self._transaction() as connection:
            connection.execute(update.values(beats=processes.c.beats + 1, state="live"))
            return {row.owner: row.beats for row in connection.execute(others)}

    def members(self, session_id: str) -> list[Member]:
        """Return the processes of a session, in the order of their numbers."""
        query = (
            sa.select(processes.c.owner, processes.c.number, processes.c.state)
            .where(processes.c.session_id == session_id)
            .order_by(processes.c.number, processes.c.owner)
        )
        return [Member._make(row) for row in self._read(query)]

    def leave(self, owner: str, *, stopped: bool = False) -> None:
        """End every lease of `owner`, so that others may go on at once.

        Or stop, too, where it has `stopped` because nothing answers.
        """
        self.bury([owner], "stopped" if stopped else "left")

    def release_dead(self) -> None:
        """End the leases of processes of this machine that are gone."""
        query = sa.select(processes.c.owner).where(processes.c.state == "live")
        dead = [row.owner for row in self._read(query) if _is_dead(row.owner)]
        if dead:
            self.bury(dead)

    def bury(self, owners: Sequence[str], state: str = "dead") -> None:
        """End the leases of processes that are gone."""
        mine = scores.c.owner.in_(owners)
        update = sa.update(processes).where(processes.c.owner.in_(owners))
        with self._transaction() as connection:
            connection.execute(update.values(state=state))
            connection.execute(sa.delete(claims).where(claims.c.owner.in_(owners)))
            connection.execute(
                sa.delete(scores).where(mine, scores.c.state == "scoring")
            )


class Heartbeat:
    """Keeps the leases of a process for as long as it lives, and ends those of others.

    `on_beat` is called after each beat, in the heartbeat's thread.
    """

    def __init__(
        self, leases: Leases, owner: str, on_beat: Callable[[], None] = lambda: None
    ) -> None:
        self._leases = leases
        self._owner = owner
        self._on_beat = on_beat
        # Of each other process its beats, and how many of ours found them so.
        self._seen: dict[str, tuple[int, int]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="vlmeval-heartbeat", daemon=True
        )

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self, *, stopped: bool = False) -> None:
        """Stop, and free what is still held; see `Leases.leave`."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        # A store that cannot be written any more is left to the others to tidy.
        with contextlib.suppress(VlmEvalError):
            self._leases.leave(self._owner, stopped=stopped)

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_S):
            # A store that is full or locked for a while is tried again.
            with contextlib.suppress(VlmEvalError):
                self.beat()
                self._on_beat()

    def beat(self) -> None:
        """Beat once; bury who has missed too many beats."""
        before = self._seen
        self._seen = {
            owner: (beats, before[owner][1] + 1)
            if before.get(owner, (None,))[0] == beats
            else (beats, 0)
            for owner, beats in self._leases.beat(self._owner).items()
        }
        gone = [owner for owner, (_, n) in self._seen.items() if n >= MISSED_BEATS]
        if gone:
            self._leases.bury(gone)
