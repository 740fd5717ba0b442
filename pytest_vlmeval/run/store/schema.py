"""The tables of the run store."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

SCHEMA_VERSION = 7

# Answers with a text that is scored (`records.USABLE`), in the words of the index, so
# that SQLite takes that.
_USABLE = "state IN ('answered', 'cut_off')"
USABLE_ANSWERS = sa.literal_column(_USABLE, sa.Boolean)

# What one of the databases refuses in a text: NUL, and halves of surrogate pairs.
_REFUSED = re.compile("[\x00\x01\ud800-\udfff]")
_ESCAPED = re.compile("\x01([0-9a-f]{4})")


class AnyText(sa.types.TypeDecorator[str]):
    """A text of whatever characters, as models write them, in any database.

    What a database would refuse is escaped there.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        if value is None or not _REFUSED.search(value):
            return value
        return _REFUSED.sub(lambda found: f"\x01{ord(found[0]):04x}", value)

    def process_result_value(
        self, value: str | None, dialect: sa.Dialect
    ) -> str | None:
        if value is None or "\x01" not in value:
            return value
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)


def _columns(kind: Any, *names: str, **more: Any) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, **{"nullable": False, **more}) for name in names]


def _numbered(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, primary_key=True, autoincrement=True)


def _costs() -> list[sa.Column[Any]]:
    """Make the columns of what the model or a judge was sent for one answer."""
    return [
        *_columns(AnyText, "error"),
        *_columns(sa.Integer, "attempts", "prompt_tokens", "completion_tokens"),
        *_columns(sa.Float, "latency_ms"),
    ]


def _replies() -> list[sa.Column[Any]]:
    """Make the columns of one answer of the model to one ask.

    `earlier` has a pair of text and reasoning for each turn before the last that was
    asked, of `turns` in all.
    """
    return [
        *_columns(
            sa.Text, "run_id", "session_id", "fingerprint", "sample_index", "state"
        ),
        *_columns(AnyText, "text", "reasoning", "endpoint", "system_fingerprint"),
        *_columns(sa.Integer, "repeat", "turns"),
        *_columns(sa.JSON, "earlier"),
        *_costs(),
    ]


metadata = sa.MetaData()

meta = sa.Table("meta", metadata, *_columns(sa.Integer, "schema_version"))

# A run is a model with its settings. `generation` counts its fresh starts, and a fresh
# one takes from the cache no answer up to `cache_after`, which is older.
runs = sa.Table(
    "runs",
    metadata,
    *_columns(sa.Text, "run_id", primary_key=True),
    *_columns(sa.Text, "identity", "session_id"),
    *_columns(sa.Integer, "generation", "cache_after"),
    *_columns(sa.JSON, "settings"),
    *_columns(sa.Float, "created_at"),
    sa.UniqueConstraint("identity", "generation"),
)

# What one pytest session selected, so that xdist's controller can show it; `revision`,
# `command`, `versions` and `fails` are those of `records.Start`.
plans = sa.Table(
    "plans",
    metadata,
    *_columns(sa.Text, "session_id", primary_key=True),
    *_columns(sa.Text, "run_id", "scorer", "revision", "fails"),
    *_columns(AnyText, "command"),
    *_columns(sa.JSON, "versions"),
    *_columns(sa.Integer, "repeats"),
    *_columns(sa.Boolean, "asks"),
    *_columns(sa.JSON, "entries"),
    *_columns(sa.Float, "created_at"),
)

# The indexes of a plan's samples, once for all sessions that select the same.
selections = sa.Table(
    "selections",
    metadata,
    *_columns(sa.Text, "selection_id", primary_key=True),
    *_columns(sa.JSON, "indexes"),
)

# The processes that share the store. `beats` grows while one lives: what does not beat
# while others do is dead, whatever any machine's clock says. `state` is that of
# `leases.Member`.
processes = sa.Table(
    "processes",
    metadata,
    *_columns(sa.Text, "owner", primary_key=True),
    sa.Column("session_id", sa.Text, nullable=False, index=True),
    *_columns(sa.Text, "run_id", "state"),
    *_columns(sa.Integer, "number", "beats"),
    *_columns(sa.Float, "joined_at"),
)

# A sample that some process is asking now, for as long as that process lives.
claims = sa.Table(
    "claims",
    metadata,
    *_columns(sa.Text, "run_id", "fingerprint", "sample_index", primary_key=True),
    sa.Column("repeat", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("owner", sa.Text, nullable=False, index=True),
)

# Every answer that ever arrived, in order; for one ask of a sample the newest counts.
# `cache_key` names what was asked, of whatever run and dataset. `asked_in` is the
# session that asked one that is from the cache, "" else.
answers = sa.Table(
    "answers",
    metadata,
    _numbered("seq"),
    *_replies(),
    *_columns(AnyText, "finish_reason"),
    *_columns(sa.Boolean, "from_cache"),
    *_columns(sa.Text, "asked_in", "cache_key"),
    *_columns(sa.Float, "answered_at"),
    sa.Index("answers_by_sample", "run_id", "fingerprint", "sample_index", "repeat"),
    sa.Index("answers_in_order", "run_id", "seq"),
    sa.Index(
        "answers_usable",
        "cache_key",
        sqlite_where=sa.text(_USABLE),
        postgresql_where=sa.text(_USABLE),
    ),
    sqlite_autoincrement=True,
)

# What was found out of the media that a run's endpoint takes (`models.check.Finding`).
capabilities = sa.Table(
    "capabilities",
    metadata,
    *_columns(sa.Text, "run_id", "session_id", "capability", primary_key=True),
    *_columns(sa.Text, "state"),
    *_columns(AnyText, "words"),
    *_columns(sa.Float, "found_at"),
)

# What an endpoint said of the model behind it, in one session (`evidence.Evidence`).
evidence = sa.Table(
    "evidence",
    metadata,
    *_columns(sa.Text, "session_id", primary_key=True),
    sa.Column("endpoint", AnyText, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    *_columns(sa.JSON, "found"),
    *_columns(sa.Float, "at"),
)

# What was said of the model in the session `accepted_in` holds for the answers of
# `session_id` too: somebody said so, with --vlm-reuse=always.
accepted_evidence = sa.Table(
    "accepted_evidence",
    metadata,
    *_columns(sa.Text, "session_id", "accepted_in", primary_key=True),
)

# Whether a session may use the answers of others: one of its processes, `owner`, finds
# out. `state` is "running", "settled" or "refused" for the reason `words`; `result` is
# a `records.SpotCheck`.
spot_checks = sa.Table(
    "spot_checks",
    metadata,
    *_columns(sa.Text, "session_id", primary_key=True),
    *_columns(sa.Text, "run_id", "owner", "state"),
    *_columns(AnyText, "words"),
    sa.Column("result", sa.JSON, nullable=True),
    *_columns(sa.Float, "at"),
)

# What spot checks asked again; `seq` is the stored answer that each was compared with.
spot_answers = sa.Table(
    "spot_answers",
    metadata,
    _numbered("number"),
    *_columns(sa.Integer, "seq"),
    *_replies(),
    *_columns(sa.Float, "asked_at"),
    sa.Index("ix_spot_answers_session_id", "session_id"),
    sqlite_autoincrement=True,
)

scores = sa.Table(
    "scores",
    metadata,
    *_columns(sa.Text, "score_id", primary_key=True),
    *_columns(sa.Text, "run_id", "fingerprint", "session_id", "state"),
    sa.Column("owner", sa.Text, nullable=False, index=True),
    sa.Column("score", sa.JSON, nullable=True),
    *_columns(AnyText, "error"),
    *_columns(sa.Float, "created_at"),
)

verdicts = sa.Table(
    "verdicts",
    metadata,
    *_columns(sa.Text, "score_id", "sample_index", primary_key=True),
    sa.Column("value", sa.Float, nullable=True),
    sa.Column("corrected", sa.Float, nullable=True),
    sa.Column("extracted", AnyText, nullable=True),
    *_columns(AnyText, "reason", "why_lost"),
    *_columns(sa.Text, "state"),
    *_columns(sa.JSON, "exchanges"),
    *_columns(sa.Boolean, "rests_on_defect", "unread"),
)

# What the gates of a session found: one row per gate and metric, "" for no metric.
gates = sa.Table(
    "gates",
    metadata,
    *_columns(sa.Text, "session_id", "dataset", "gate", "metric", primary_key=True),
    *_columns(sa.Text, "run_id", "outcome"),
    *_columns(sa.Boolean, "fails"),
    *_columns(sa.JSON, "result"),
    *_columns(sa.Float, "decided_at"),
)

# Everything that was asked of a judge. `question` is a hash of the judge's name, the
# prompt and its settings; of one that was answered there is one row. `run_id`,
# `session_id` and `fingerprint` are those it was asked for first, "" for a test of a
# user's own.
exchanges = sa.Table(
    "exchanges",
    metadata,
    _numbered("number"),
    sa.Column("question", sa.Text, nullable=False, index=True),
    *_columns(sa.Text, "judge", "run_id", "session_id", "fingerprint"),
    *_columns(AnyText, "prompt"),
    *_columns(sa.JSON, "settings"),
    sa.Column("text", AnyText, nullable=True),
    *_costs(),
    *_columns(sa.Float, "asked_at"),
    sa.Index(
        "exchanges_answered",
        "question",
        unique=True,
        sqlite_where=sa.text("text IS NOT NULL"),
        postgresql_where=sa.text("text IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

# Every request that got no answer, of the model or a judge (`records.FailedAttempt`).
failed_attempts = sa.Table(
    "failed_attempts",
    metadata,
    _numbered("number"),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    *_columns(
        sa.Text, "session_id", "asked", "endpoint", "fingerprint", "index", "kind"
    ),
    *_columns(AnyText, "message"),
    *_columns(sa.Float, "latency_ms", "at"),
    sqlite_autoincrement=True,
)
