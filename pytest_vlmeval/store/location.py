"""Where a store lies: a file of the work dir, or a database named by its URL."""

from __future__ import annotations

import re
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_values import hide_password
from pytest_vlmeval.store.schema import SCHEMA_VERSION, meta, metadata

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
        """The file, None where the store is in a database."""
        return None if self.url else self.work_dir / "store.sqlite"

    @property
    def may_exist(self) -> bool:
        """Whether there is a store already; of a database it is not known."""
        return self.file is None or self.file.exists()

    def explain(self, error: BaseException) -> str:
        """Say what a failure of the store means; nothing recorded is lost."""
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
    """Whether a PostgreSQL server that was there went away."""
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


def is_locked(error: BaseException) -> bool:
    """Whether somebody else held an SQLite store for too long."""
    return "database is locked" in str(error)


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
            # What was made in a store of another version is taken back.
            _check_version(location, _schema_version(connection))
    except OSError as error:
        raise VlmEvalError(location.explain(error)) from None
    except (VlmEvalError, sa.exc.DBAPIError):
        engine.dispose()
        raise
    return engine


def _check_version(location: Location, version: int) -> None:
    if version == SCHEMA_VERSION:
        return
    other = (
        "another folder with --vlm-work-dir"
        if location.file
        else "another database with --vlm-store"
    )
    raise VlmEvalError(
        f"{location.file or location} has the schema version {version}, this "
        f"version of pytest-vlmeval uses {SCHEMA_VERSION}. Choose {other}, or go "
        "on with the version that wrote it."
    )


def _schema_version(connection: sa.Connection) -> int:
    version = connection.scalar(sa.select(meta.c.schema_version))
    if version is None:
        connection.execute(sa.insert(meta).values(schema_version=SCHEMA_VERSION))
        return SCHEMA_VERSION
    return int(version)


def _open_sqlite(location: Location) -> sa.Engine:
    location.work_dir.mkdir(parents=True, exist_ok=True)
    ignore = location.work_dir / ".gitignore"
    if not ignore.exists():
        ignore.write_text("# Made by pytest-vlmeval.\n*\n", encoding="utf-8")
    engine = sa.create_engine(
        f"sqlite:///{location.file}", connect_args={"timeout": BUSY_TIMEOUT_S}
    )
    _configure_sqlite(engine)
    return engine


def _configure_sqlite(engine: sa.Engine) -> None:
    """Let SQLAlchemy, not sqlite3, begin transactions, and let writers queue up.

    A transaction that reads first and writes later cannot wait for the lock in
    SQLite, so writers begin as writers (BEGIN IMMEDIATE).
    """

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        _log_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        if options.get("impatient", False):
            connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        reading = options.get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


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
