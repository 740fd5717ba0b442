"""The tables of the run store, and how its database is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa

from pytest_vlmeval.errors import VlmEvalError

SCHEMA_VERSION = 3
BUSY_TIMEOUT_S = 60

metadata = sa.MetaData()

meta = sa.Table(
    "meta", metadata, sa.Column("schema_version", sa.Integer, nullable=False)
)

# A run is a model with its settings. `generation` counts its fresh starts.
runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("session_id", sa.Text, nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.UniqueConstraint("identity", "generation"),
)

# What one pytest session selected, so that xdist's controller can show it. `revision`
# is the commit of the folder it was started in, "" outside of git.
plans = sa.Table(
    "plans",
    metadata,
    sa.Column("session_id", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("scorer", sa.Text, nullable=False),
    sa.Column("entries", sa.JSON, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

# A sample that some process is asking now. A lease that ran out may be taken over.
claims = sa.Table(
    "claims",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, primary_key=True),
    sa.Column("sample_index", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False, index=True),
    sa.Column("lease_until", sa.Float, nullable=False),
)

# Every answer that ever arrived, in order; for one sample the newest counts.
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("sample_index", sa.Text, nullable=False),
    sa.Column("session_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("reasoning", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("answered_at", sa.Float, nullable=False),
    sa.Index("answers_by_sample", "run_id", "fingerprint", "sample_index"),
    sqlite_autoincrement=True,
)

scores = sa.Table(
    "scores",
    metadata,
    sa.Column("score_id", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("session_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False, index=True),
    sa.Column("lease_until", sa.Float, nullable=False),
    sa.Column("score", sa.JSON, nullable=True),
    sa.Column("error", sa.Text, nullable=False, default=""),
    sa.Column("created_at", sa.Float, nullable=False),
)

verdicts = sa.Table(
    "verdicts",
    metadata,
    sa.Column("score_id", sa.Text, primary_key=True),
    sa.Column("sample_index", sa.Text, primary_key=True),
    sa.Column("value", sa.Float, nullable=True),
    sa.Column("extracted", sa.Text, nullable=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("exchanges", sa.JSON, nullable=False),
)

# What the gates of a session found: one row per gate and metric, "" for no metric.
gates = sa.Table(
    "gates",
    metadata,
    sa.Column("session_id", sa.Text, primary_key=True),
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("gate", sa.Text, primary_key=True),
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("fails", sa.Boolean, nullable=False),
    sa.Column("result", sa.JSON, nullable=False),
    sa.Column("decided_at", sa.Float, nullable=False),
)

# Everything that was asked of a judge. `question` is a hash of the judge's name, the
# prompt and its settings; of one that was answered there is one row. `run_id` and
# `fingerprint` are those it was asked for first, "" for a test of a user's own.
exchanges = sa.Table(
    "exchanges",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("question", sa.Text, nullable=False, index=True),
    sa.Column("judge", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("text", sa.Text, nullable=True),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("asked_at", sa.Float, nullable=False),
    sa.Index(
        "exchanges_answered",
        "question",
        unique=True,
        sqlite_where=sa.text("text IS NOT NULL"),
        postgresql_where=sa.text("text IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

# Every request that got no answer, of the model or a judge (`accounts.FailedAttempt`).
failed_attempts = sa.Table(
    "failed_attempts",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("session_id", sa.Text, nullable=False),
    sa.Column("asked", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("index", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)

# Every change of how many requests may be in flight (`accounts.LimitChange`).
limit_changes = sa.Table(
    "limit_changes",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("session_id", sa.Text, nullable=False),
    sa.Column("asked", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("before", sa.Integer, nullable=False),
    sa.Column("after", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)


def _configure_sqlite(engine: sa.Engine) -> None:
    """Let SQLAlchemy, not sqlite3, begin transactions, and let writers queue up.

    A transaction that reads first and writes later cannot wait for the lock in
    SQLite, so writers begin as writers (BEGIN IMMEDIATE).
    """

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def store_file(work_dir: Path) -> Path:
    """Return where the store of a work dir lies."""
    return work_dir / "store.sqlite"


def open_database(work_dir: Path) -> sa.Engine:
    """Open, or make, the store in `work_dir`; `VlmEvalError` if that cannot be done."""
    path = store_file(work_dir)
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        ignore = work_dir / ".gitignore"
        if not ignore.exists():
            ignore.write_text("# Made by pytest-vlmeval.\n*\n", encoding="utf-8")
        engine = sa.create_engine(
            f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S}
        )
        _configure_sqlite(engine)
        with engine.begin() as connection:
            metadata.create_all(connection)
            version = _schema_version(connection)
    except (OSError, sa.exc.DatabaseError) as error:
        raise VlmEvalError(explain_failure(work_dir, error)) from None
    if version != SCHEMA_VERSION:
        engine.dispose()
        raise VlmEvalError(
            f"{path} has the schema version {version}, this version of pytest-vlmeval "
            f"uses {SCHEMA_VERSION}. Choose another folder with --vlm-work-dir, or go "
            "on with the version that wrote it."
        )
    return engine


def _schema_version(connection: sa.Connection) -> int:
    version = connection.scalar(sa.select(meta.c.schema_version))
    if version is None:
        connection.execute(sa.insert(meta).values(schema_version=SCHEMA_VERSION))
        return SCHEMA_VERSION
    return int(version)


def explain_failure(work_dir: Path, error: BaseException) -> str:
    """Say what a failure of the store means for its user; nothing recorded is lost."""
    cause = str(getattr(error, "orig", None) or error)
    if "full" in cause or "No space left" in cause:
        remedy = "Free some space"
    elif "not a database" in cause or "malformed" in cause:
        remedy = "Move the damaged file away (it is never overwritten)"
    elif "locked" in cause:
        remedy = (
            f"Another process held the store for more than {BUSY_TIMEOUT_S} s: end it"
        )
    else:
        remedy = "Make it writable"
    return (
        f"The run store in {work_dir} cannot be used: {cause}. {remedy}, or choose "
        "another folder with --vlm-work-dir, then run the same command again: "
        "answers that were recorded are kept."
    )
