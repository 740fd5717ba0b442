"""A judge of the run: asked through the same client as the model, never twice.

Every question and what came back lie in the store. A reply that is there is used
again; a failure is kept too, but asked again by the next command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.asking import Asker, Journal, failed_answer
from pytest_vlmeval.errors import describe
from pytest_vlmeval.judge_settings import AS_ASKED, JudgeAsking
from pytest_vlmeval.models.client import OutageError, Request, StoppedError
from pytest_vlmeval.models.factory import NoteLimit, create_judge_pool
from pytest_vlmeval.models.limiter import Concurrency
from pytest_vlmeval.models.pool import Pool
from pytest_vlmeval.models.standing import StandingPool
from pytest_vlmeval.prompt_settings import Prompting
from pytest_vlmeval.prompts import PromptPart
from pytest_vlmeval.records import (
    UNANSWERED,
    Answer,
    JudgeQuestion,
    JudgeReply,
    lose,
)
from pytest_vlmeval.store import Store
from pytest_vlmeval.store.database import is_of_store
from pytest_vlmeval.store.exchanges import identify_question

if TYPE_CHECKING:
    from pytest_vlmeval.judge_settings import JudgeEndpoint
    from pytest_vlmeval.models.server_keeper import Servers
    from pytest_vlmeval.options import Settings

# As many failures in a row, each after its retries, and nothing more is asked.
MOST_FAILURES = 10


class Judge:
    """Asks one judge: with retries, breaker and accounts as the model is asked.

    `make_pool` opens its endpoints, those that cannot be asked set aside, and tells
    changes of their limits. `asking` is what changes each question. What is asked goes
    to the account of the run and session `asked_in` ("": none).
    """

    def __init__(
        self,
        name: str,
        store: Store,
        make_pool: Callable[[NoteLimit, Collection[str]], Pool],
        *,
        retries: int,
        asking: JudgeAsking = AS_ASKED,
        asked_in: tuple[str, str] = ("", ""),
    ) -> None:
        self.name = name
        self._asking = asking
        self._prompting = Prompting(extra_body=asking.extra_body)
        self._store = store
        self._make_pool = make_pool
        self._retries = retries
        self._run_id, self._session_id = asked_in
        self._aside: Collection[str] = ()
        self._journal = Journal(name)
        self._standing = StandingPool(
            lambda: make_pool(self._journal.note_limit, self._aside)
        )

    def check(self) -> dict[str, str]:
        """Return why endpoints cannot be asked; `VlmEvalError` if none of them can."""
        troubles = asyncio.run(self._check())
        self._aside = tuple(troubles)
        return troubles

    async def _check(self) -> dict[str, str]:
        pool = self._make_pool(lambda *change: None, ())
        try:
            return await pool.check()
        finally:
            await pool.close()

    def ask(
        self, questions: Sequence[JudgeQuestion], fingerprint: str = ""
    ) -> list[JudgeReply]:
        """Return a reply for each question, from the store where there is one.

        The same question is asked once, on account of the dataset that first does.
        Call it outside of an event loop.
        """
        questions = [self._asking.change(question) for question in questions]
        names = [identify_question(self.name, question) for question in questions]
        known = self._store.exchanges.find(names)
        missing = {
            name: question
            for name, question in zip(names, questions, strict=True)
            if name not in known
        }
        if missing:
            ask_all = partial(self._ask_all, missing, fingerprint)
            known |= self._standing.run(ask_all)
        return [known[name] for name in names]

    def halt(self) -> None:
        """Ask nothing more, as the session ends; from any thread."""
        self._standing.stop()

    def close(self) -> None:
        """Close its connections."""
        self._standing.close()

    async def _ask_all(
        self, questions: Mapping[str, JudgeQuestion], fingerprint: str, pool: Pool
    ) -> dict[str, JudgeReply]:
        asker = Asker(pool, self._retries, self._journal)
        failures = _Failures(pool)
        loop = asyncio.get_running_loop()

        async def ask(name: str, question: JudgeQuestion) -> tuple[str, JudgeReply]:
            try:
                async with pool.place() as place:
                    request = _request(question, self._prompting)
                    answer = await asker.ask(fingerprint, name, request, place)
                    unanswered = answer.state in UNANSWERED
                    failures.note(answer.error if unanswered else "")
                    return name, await keep(name, question, answer)
            except StoppedError as error:
                return name, JudgeReply(number=0, text=None, error=str(error))
            except OutageError as error:
                failed = failed_answer(fingerprint, name, str(error))
                return name, await keep(name, question, failed)

        async def keep(
            name: str, question: JudgeQuestion, answer: Answer
        ) -> JudgeReply:
            write = partial(self._record, name, question, answer, fingerprint)
            return await loop.run_in_executor(executor, write)

        # However long the store takes, the requests in flight go on.
        with ThreadPoolExecutor(1, "vlmeval-exchanges") as executor:
            tasks = [
                asyncio.create_task(ask(name, question))
                for name, question in questions.items()
            ]
            try:
                found = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                attempts, changes = self._journal.take()
                self._store.accounting.record(
                    self._run_id, self._session_id, attempts, changes
                )
        return dict(found)

    def _record(
        self, name: str, question: JudgeQuestion, answer: Answer, fingerprint: str
    ) -> JudgeReply:
        """Keep a reply; one that the store does not take fails alone."""
        record = partial(self._store.exchanges.record, self.name, name, question)
        asked_for = self._run_id, fingerprint
        try:
            return record(answer, asked_for, self._session_id)
        except Exception as error:
            if is_of_store(error):
                raise
            why = f"the reply cannot be stored: {describe(error)}"
            return record(lose(answer, why), asked_for, self._session_id)


class MajorityJudge:
    """Replies as the judge whose verdict on a task counts, or not at all."""

    def __init__(
        self, judges: Mapping[str, Judge], chosen: Mapping[str, str | None]
    ) -> None:
        self._judges = judges
        self._chosen = chosen

    def ask(
        self, questions: Sequence[JudgeQuestion], fingerprint: str = ""
    ) -> list[JudgeReply]:
        """Return what that judge replied before; nothing is asked that was not."""
        chosen = [self._chosen.get(question.task) for question in questions]
        replies = {
            name: iter(
                self._judges[name].ask(_of(name, chosen, questions), fingerprint)
            )
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
    settings: Settings,
    store: Store,
    concurrency: Concurrency,
    servers: Servers,
    asked_in: tuple[str, str] = ("", ""),
) -> dict[str, Judge]:
    """Make the judges of a run by their names; nothing is connected yet.

    `asked_in` is the run and the session that pay for what is asked.
    """

    def make_pool(
        endpoint: JudgeEndpoint, note: NoteLimit, aside: Collection[str]
    ) -> Pool:
        placed = replace(
            endpoint, api_bases=servers.judge_addresses(endpoint.api_bases)
        )
        watched = partial(servers.watched, role="judge")
        return create_judge_pool(
            settings, placed, concurrency, note, watched, aside, servers.learned
        )

    return {
        endpoint.label: Judge(
            endpoint.label,
            store,
            partial(make_pool, endpoint),
            retries=settings.retries,
            asking=endpoint.asking,
            asked_in=asked_in,
        )
        for endpoint in settings.judges
    }


class _Failures:
    """Ends the asking where too many questions in a row failed."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._in_a_row = 0

    def note(self, error: str) -> None:
        """Take in how a question ended, "" for well."""
        self._in_a_row = self._in_a_row + 1 if error else 0
        if self._in_a_row == MOST_FAILURES:
            self._pool.break_off(
                f"not asked, as {self._in_a_row} in a row failed: {error}"
            )


def _request(question: JudgeQuestion, prompting: Prompting) -> Request:
    return Request(
        turns=((PromptPart(kind="text", text=question.prompt),),),
        media_folder=Path(),
        system=question.system,
        max_tokens=question.max_tokens,
        temperature=question.temperature,
        prompting=prompting,
    )
