"""What tells whether a session may use stored answers: evidence and spot checks."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

import sqlalchemy as sa

from pytest_vlmeval.accounts import SpotCheck
from pytest_vlmeval.evidence import Evidence
from pytest_vlmeval.records import Answer
from pytest_vlmeval.store.database import Database, waits_out_restarts
from pytest_vlmeval.store.schema import (
    accepted_evidence,
    evidence,
    processes,
    spot_answers,
    spot_checks,
)

_ANSWER_FIELDS = (
    "repeat",
    "state",
    "text",
    "reasoning",
    "error",
    "attempts",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
    "turns",
    "earlier",
    "endpoint",
    "system_fingerprint",
)


INTERRUPTED = (
    "The check of the stored answers was interrupted. Nothing was scored. Run the same "
    "command again."
)


class Checking(NamedTuple):
    """How far the check of a session is; `words` say why it was refused."""

    state: str
    words: str


@waits_out_restarts
class Reuse:
    """The evidence of models, and the spot checks of sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_evidence(
        self, run_id: str, session_id: str, found: Sequence[Evidence]
    ) -> None:
        """Keep what endpoints say in this session, once for all its processes."""
        if not found:
            return
        common = {"run_id": run_id, "session_id": session_id}
        rows = [{**common, **asdict(each)} for each in found]
        insert = self._database.insert(evidence).on_conflict_do_nothing()
        with self._database.transaction() as connection:
            connection.execute(insert, rows)

    def evidence_of(
        self, session_ids: Collection[str]
    ) -> Mapping[str, Sequence[Evidence]]:
        """Return what endpoints said, for each session that knows anything.

        With it comes what was accepted later.
        """
        wanted = sa.select(self._database.each(sorted(session_ids)))
        order = evidence.c.at, evidence.c.endpoint
        said_then = (
            sa.select(evidence.c.session_id.label("of"), evidence)
            .where(evidence.c.session_id.in_(wanted))
            .order_by(*order)
        )
        accepted = (
            sa.select(accepted_evidence.c.session_id.label("of"), evidence)
            .join(evidence, evidence.c.session_id == accepted_evidence.c.accepted_in)
            .where(accepted_evidence.c.session_id.in_(wanted))
            .order_by(*order)
        )
        found: dict[str, list[Evidence]] = {}
        with self._database.transaction(reading=True) as connection:
            for query in (said_then, accepted):
                for row in connection.execute(query):
                    said = Evidence(endpoint=row.endpoint, found=row.found, at=row.at)
                    found.setdefault(row.of, []).append(said)
        return found

    def accept_evidence(self, session_ids: Collection[str], session_id: str) -> None:
        """Let what was said in a session hold for the answers of others."""
        rows = [
            {"session_id": each, "accepted_in": session_id}
            for each in sorted(session_ids)
        ]
        if rows:
            insert = self._database.insert(accepted_evidence).on_conflict_do_nothing()
            with self._database.transaction() as connection:
                connection.execute(insert, rows)

    def begin(self, run_id: str, session_id: str, owner: str) -> Checking | None:
        """Take over the check of a session: None where it is the caller's now.

        Else return how far the process is that has it. That of one that is gone is
        taken over.
        """
        values = {
            "session_id": session_id,
            "run_id": run_id,
            "owner": owner,
            "state": "running",
            "words": "",
            "at": time.time(),
        }
        mine = spot_checks.c.session_id == session_id
        gone = sa.select(processes.c.owner).where(processes.c.state != "live")
        with self._database.transaction(lock=f"check {session_id}") as connection:
            insert = self._database.insert(spot_checks).values(values)
            made = connection.execute(
                insert.on_conflict_do_nothing().returning(spot_checks.c.owner)
            ).first()
            if made is not None:
                return None
            taken = connection.execute(
                sa.update(spot_checks)
                .where(mine, spot_checks.c.state == "running")
                .where(spot_checks.c.owner.in_(gone))
                .values(owner=owner)
                .returning(spot_checks.c.owner)
            ).first()
            if taken is not None:
                return None
            query = sa.select(spot_checks.c.state, spot_checks.c.words).where(mine)
            return Checking(*connection.execute(query).one())

    def end(self, session_id: str, result: SpotCheck | None, refusal: str = "") -> None:
        """Record what a check has found; with a `refusal` nobody uses the answers."""
        values = {
            "state": "refused" if refusal else "settled",
            "words": refusal,
            "result": None if result is None else asdict(result),
        }
        with self._database.transaction() as connection:
            connection.execute(
                sa.update(spot_checks)
                .where(spot_checks.c.session_id == session_id)
                .values(values)
            )

    def load(self, session_id: str) -> SpotCheck | None:
        """Return what the check of a session has found; None where there was none."""
        query = sa.select(spot_checks.c.result).where(
            spot_checks.c.session_id == session_id
        )
        with self._database.transaction(reading=True) as connection:
            found = connection.scalar(query)
        return None if found is None else SpotCheck(**found)

    def refusal(self, session_id: str) -> str:
        """Return why no stored answer counts for a session that is over, or ''."""
        query = sa.select(spot_checks.c.state, spot_checks.c.words).where(
            spot_checks.c.session_id == session_id
        )
        with self._database.transaction(reading=True) as connection:
            found = connection.execute(query).first()
        if found is None or found.state == "settled":
            return ""
        return found.words or INTERRUPTED

    def record_answers(
        self, run_id: str, session_id: str, new: Sequence[tuple[int, Answer]]
    ) -> None:
        """Keep what was asked again, each with the number of the stored answer."""
        rows = [
            {
                "run_id": run_id,
                "session_id": session_id,
                "seq": seq,
                "fingerprint": answer.fingerprint,
                "sample_index": answer.index,
                "asked_at": time.time(),
                **{name: getattr(answer, name) for name in _ANSWER_FIELDS},
            }
            for seq, answer in new
        ]
        if rows:
            with self._database.transaction() as connection:
                connection.execute(sa.insert(spot_answers), rows)
