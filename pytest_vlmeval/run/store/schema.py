"""The tables of the run store."""

from __future__ import annotations

import re

import sqlalchemy as sa

SCHEMA_VERSION = 6

# Answers with a text that is scored (`records.USABLE`), in the words of the index, so
# that SQLite takes that.
_USABLE = "state IN ('answered', 'cut_off')"
USABLE_ANSWERS = sa.literal_column(_USABLE, sa.Boolean)

# What one of the databases refuses in a text: NUL, and halves of surrogate pairs.
_REFUSED = re.compile("[\x00\x01\ud800-\udfff]")
_ESCAPED = re.compile("\x01([0-9a-f]{4})")


class AnyText(sa.types.TypeDecorator[str]):
    """A text of whatever characters, as models write them, in any database."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Escape what a database would refuse."""
        if value is None or not _REFUSED.search(value):
            return value
        return _REFUSED.sub(lambda found: f"\x01{ord(found[0]):04x}", value)

    def process_result_value(
        self, value: str | None, dialect: sa.Dialect
    ) -> str | None:
        """Undo that."""
        if value is None or "\x01" not in value:
            return value
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)


metadata = sa.MetaData()

meta = sa.Table(
    "meta", metadata, sa.Column("schema_version", sa.Integer, nullable=False)
)

# A run is a model with its settings. `generation` counts its fresh starts, and a fresh
# one takes from the cache no answer up to `cache_after`, which is older.
runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("session_id", sa.Text, nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("cache_after", sa.Integer, nullable=False),
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
    sa.Column("repeats", sa.Integer, nullable=False),
    sa.Column("asks", sa.Boolean, nullable=False),
    sa.Column("entries", sa.JSON, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

# The indexes of a plan's samples, once for all sessions that select the same.
selections = sa.Table(
    "selections",
    metadata,
    sa.Column("selection_id", sa.Text, primary_key=True),
    sa.Column("indexes", sa.JSON, nullable=False),
)

# The processes that share the store. `beats` grows while one lives: what does not beat
# while others do is dead, whatever any machine's clock says.
processes = sa.Table(
    "processes",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("session_id", sa.Text, nullable=False, index=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # live, left, stopped, dead
    sa.Column("beats", sa.Integer, nullable=False),
    sa.Column("joined_at", sa.Float, nullable=False),
)

# A sample that some process is asking now, for as long as that process lives.
claims = sa.Table(
    "claims",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, primary_key=True),
    sa.Column("sample_index", sa.Text, primary_key=True),
    sa.Column("repeat", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("owner", sa.Text, nullable=False, index=True),
)

# Every answer that ever arrived, in order; for one ask of a sample the newest counts.
# `cache_key` names what was asked, of whatever run and dataset. `earlier` has a pair of
# text and reasoning for each turn before the last that was asked, of `turns` in all.
# `asked_in` is the session that asked one that is from the cache, "" else.
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("sample_index", sa.Text, nullable=False),
    sa.Column("repeat", sa.Integer, nullable=False),
    sa.Column("session_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("text", AnyText, nullable=False),
    sa.Column("reasoning", AnyText, nullable=False),
    sa.Column("error", AnyText, nullable=False),
    sa.Column("finish_reason", AnyText, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("turns", sa.Integer, nullable=False),
    sa.Column("earlier", sa.JSON, nullable=False),
    sa.Column("from_cache", sa.Boolean, nullable=False),
    sa.Column("asked_in", sa.Text, nullable=False),
    sa.Column("cache_key", sa.Text, nullable=False),
    sa.Column("endpoint", AnyText, nullable=False),
    sa.Column("system_fingerprint", AnyText, nullable=False),
    sa.Column("answered_at", sa.Float, nullable=False),
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

# What was found out of the media that a run's endpoint takes (`capability.Finding`).
capabilities = sa.Table(
    "capabilities",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("session_id", sa.Text, primary_key=True),
    sa.Column("capability", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("words", AnyText, nullable=False),
    sa.Column("found_at", sa.Float, nullable=False),
)

# What an endpoint said of the model behind it, in one session (`evidence.Evidence`).
evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("session_id", sa.Text, primary_key=True),
    sa.Column("endpoint", AnyText, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("found", sa.JSON, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

# What was said of the model in the session `accepted_in` holds for the answers of
# `session_id` too: somebody said so, with --vlm-reuse=always.
accepted_evidence = sa.Table(
    "accepted_evidence",
    metadata,
    sa.Column("session_id", sa.Text, primary_key=True),
    sa.Column("accepted_in", sa.Text, primary_key=True),
)

# Whether a session may use the answers of others: one of its processes, `owner`, finds
# out. `state` is "running", "settled" or "refused" for the reason `words`; `result` is
# an `accounts.SpotCheck`.
spot_checks = sa.Table(
    "spot_checks",
    metadata,
    sa.Column("session_id", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("words", AnyText, nullable=False),
    sa.Column("result", sa.JSON, nullable=True),
    sa.Column("at", sa.Float, nullable=False),
)

# What spot checks asked again; `seq` is the stored answer that each was compared with.
spot_answers = sa.Table(
    "spot_answers",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("session_id", sa.Text, nullable=False, index=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("sample_index", sa.Text, nullable=False),
    sa.Column("repeat", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("text", AnyText, nullable=False),
    sa.Column("reasoning", AnyText, nullable=False),
    sa.Column("error", AnyText, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("turns", sa.Integer, nullable=False),
    sa.Column("earlier", sa.JSON, nullable=False),
    sa.Column("endpoint", AnyText, nullable=False),
    sa.Column("system_fingerprint", AnyText, nullable=False),
    sa.Column("asked_at", sa.Float, nullable=False),
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
    sa.Column("score", sa.JSON, nullable=True),
    sa.Column("error", AnyText, nullable=False, default=""),
    sa.Column("created_at", sa.Float, nullable=False),
)

verdicts = sa.Table(
    "verdicts",
    metadata,
    sa.Column("score_id", sa.Text, primary_key=True),
    sa.Column("sample_index", sa.Text, primary_key=True),
    sa.Column("value", sa.Float, nullable=True),
    sa.Column("extracted", AnyText, nullable=True),
    sa.Column("reason", AnyText, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("exchanges", sa.JSON, nullable=False),
    sa.Column("corrected", sa.Float, nullable=True),
    sa.Column("rests_on_defect", sa.Boolean, nullable=False),
    sa.Column("unread", sa.Boolean, nullable=False),
    sa.Column("why_lost", AnyText, nullable=False),
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
# prompt and its settings; of one that was answered there is one row. `run_id`,
# `session_id` and `fingerprint` are those it was asked for first, "" for a test of a
# user's own.
exchanges = sa.Table(
    "exchanges",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("question", sa.Text, nullable=False, index=True),
    sa.Column("judge", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("session_id", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("prompt", AnyText, nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("text", AnyText, nullable=True),
    sa.Column("error", AnyText, nullable=False),
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
    sa.Column("message", AnyText, nullable=False),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)
