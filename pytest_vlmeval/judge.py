"""A judge of the run: asked through the same client as the model, never twice.

Every question and what came back lie in the store. A reply that is there is used
again; a failure is kept too, but asked again by the next command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.asking import Asker, failed_answer
from pytest_vlmeval.models.client import ModelClient, Request
from pytest_vlmeval.models.factory import create_judge_client
from pytest_vlmeval.records import JudgeQuestion, JudgeReply, PromptPart
from pytest_vlmeval.store.exchanges import Exchanges, identify_question

if TYPE_CHECKING:
    from pytest_vlmeval.judge_settings import JudgeEndpoint
    from pytest_vlmeval.models.server_keeper import Servers
    from pytest_vlmeval.options import Settings

# As many failures in a row, each after its retries, and nothing more is asked.
MOST_FAILURES = 10


class Judge:
    """Asks one judge; `retries` as for the model, at most `concurrency` at once."""

    def __init__(
        self,
        name: str,
        exchanges: Exchanges,
        make_client: Callable[[], ModelClient],
        *,
        retries: int,
        concurrency: int,
    ) -> None:
        self.name = name
        self._exchanges = exchanges
        self._make_client = make_client
        self._retries = retries
        self._concurrency = concurrency

    def check(self) -> None:
        """Raise `VlmEvalError` if the judge cannot be asked."""
        asyncio.run(self._check())

    async def _check(self) -> None:
        client = self._make_client()
        try:
            await client.check()
        finally:
            await client.close()

    def ask(self, questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        """Return a reply for each question, from the store where there is one.

        The same question is asked once. Call it outside of an event loop.
        """
        names = [identify_question(self.name, question) for question in questions]
        known = self._exchanges.find(names)
        missing = {
            name: question
            for name, question in zip(names, questions, strict=True)
            if name not in known
        }
        if missing:
            known |= asyncio.run(self._ask_all(missing))
        return [known[name] for name in names]

    async def _ask_all(
        self, questions: Mapping[str, JudgeQuestion]
    ) -> dict[str, JudgeReply]:
        client = self._make_client()
        line = _Line(self._concurrency)
        asker = Asker(client, self._retries)

        async def ask(name: str, question: JudgeQuestion) -> tuple[str, JudgeReply]:
            async with line.slots:
                if line.broken:
                    answer = failed_answer(self.name, name, line.broken)
                else:
                    answer = await asker.ask(self.name, name, _request(question))
                    line.note(answer.error if answer.state == "failed" else "")
            return name, self._exchanges.record(self.name, name, question, answer)

        try:
            found = await asyncio.gather(
                *(ask(name, question) for name, question in questions.items())
            )
        finally:
            await client.close()
        return dict(found)


class MajorityJudge:
    """Replies as the judge whose verdict on a task counts, or not at all."""

    def __init__(
        self, judges: Mapping[str, Judge], chosen: Mapping[str, str | None]
    ) -> None:
        self._judges = judges
        self._chosen = chosen

    def ask(self, questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        """Return what that judge replied before; nothing is asked that was not."""
        chosen = [self._chosen.get(question.task) for question in questions]
        replies = {
            name: iter(self._judges[name].ask(_of(name, chosen, questions)))
            for name in set(chosen)
            if name is not None
        }
        return [
            JudgeReply(number=0, text=None, error="no majority")
            if name is None
            else next(replies[name])
            for name in chosen
        ]


def _of(
    name: str, chosen: Sequence[str | None], questions: Sequence[JudgeQuestion]
) -> list[JudgeQuestion]:
    return [each for who, each in zip(chosen, questions, strict=True) if who == name]


def create_judges(
    settings: Settings, exchanges: Exchanges, concurrency: int, servers: Servers
) -> dict[str, Judge]:
    """Make the judges of a run by their names; nothing is connected yet."""

    def make_client(endpoint: JudgeEndpoint) -> ModelClient:
        placed = replace(endpoint, api_base=servers.judge_address(endpoint.api_base))
        client = create_judge_client(settings, placed, concurrency=concurrency)
        return servers.watched(client, "judge")

    return {
        endpoint.name: Judge(
            endpoint.name,
            exchanges,
            partial(make_client, endpoint),
            retries=settings.retries,
            concurrency=concurrency,
        )
        for endpoint in settings.judges
    }


class _Line:
    """The way to a judge: its slots, and why nothing goes through any more."""

    def __init__(self, concurrency: int) -> None:
        self.slots = asyncio.Semaphore(concurrency)
        self.broken = ""
        self._failures = 0

    def note(self, error: str) -> None:
        """Take in how a question ended, "" for well."""
        self._failures = self._failures + 1 if error else 0
        if self._failures == MOST_FAILURES and not self.broken:
            self.broken = f"not asked, as {self._failures} in a row failed: {error}"


def _request(question: JudgeQuestion) -> Request:
    return Request(
        parts=(PromptPart(kind="text", text=question.prompt),),
        media_folder=Path(),
        system=question.system,
        max_tokens=question.max_tokens,
        temperature=question.temperature,
    )
