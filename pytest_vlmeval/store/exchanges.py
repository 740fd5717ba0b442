"""What was asked of judges and what they replied; a reply is used again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from pytest_vlmeval.records import WITHHELD, Answer, JudgeQuestion, JudgeReply
from pytest_vlmeval.store.database import Database, waits_out_restarts
from pytest_vlmeval.store.schema import exchanges

# Databases bound how many values a query may hold.
BATCH = 500
_OF_ANSWER = (
    "error",
    "attempts",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
)


def identify_question(judge: str, question: JudgeQuestion) -> str:
    """Name a question by all that its reply depends on, of whatever dataset it is."""
    parts = [
        judge,
        question.system,
        question.max_tokens,
        question.temperature,
        question.prompt,
        question.attempt,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@waits_out_restarts
class Exchanges:
    """The questions to judges and their replies, those without one included."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, names: Sequence[str]) -> dict[str, JudgeReply]:
        """Return the replies there are to the questions of these names."""
        found = {}
        with self._database.transaction(reading=True) as connection:
            for start in range(0, len(names), BATCH):
                part = names[start : start + BATCH]
                rows = connection.execute(
                    sa.select(exchanges).where(
                        exchanges.c.question.in_(part), exchanges.c.text.is_not(None)
                    )
                )
                for row in rows:
                    reply = JudgeReply(number=row.number, text=row.text)
                    found[str(row.question)] = reply
        return found

    def record(
        self,
        judge: str,
        name: str,
        question: JudgeQuestion,
        answer: Answer,
        asked_for: tuple[str, str] = ("", ""),
        session_id: str = "",
    ) -> JudgeReply:
        """Keep what came of a question, and return the reply that counts.

        That is the first: where two processes ask the same, both use one. It is
        `asked_for` a run and a fingerprint, which pay for it, by the session
        `session_id`.
        """
        text = None if answer.state in WITHHELD else answer.text
        values = {
            "question": name,
            "judge": judge,
            "run_id": asked_for[0],
            "session_id": session_id,
            "fingerprint": asked_for[1],
            "prompt": question.prompt,
            "settings": {
                name: getattr(question, name)
                for name in ("system", "max_tokens", "temperature")
            },
            "text": text,
            **{name: getattr(answer, name) for name in _OF_ANSWER},
            "asked_at": time.time(),
        }
        statement = (
            self._database.insert(exchanges)
            .values(values)
            .on_conflict_do_nothing()
            .returning(exchanges.c.number)
        )
        with self._database.transaction() as connection:
            number = connection.scalar(statement)
        if number is None:
            return self.find([name])[name]
        return JudgeReply(number=int(number), text=text, error=answer.error)

    def load(self, numbers: Sequence[int]) -> list[Mapping[str, object]]:
        """Return exchanges whole, in the order they were made."""
        with self._database.transaction(reading=True) as connection:
            rows = connection.execute(
                sa.select(exchanges)
                .where(exchanges.c.number.in_(numbers))
                .order_by(exchanges.c.number)
            ).all()
        return [dict(row._mapping) for row in rows]
