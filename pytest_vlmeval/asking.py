"""One sample, asked until there is an answer or no use in asking again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

from pytest_vlmeval.accounts import FailedAttempt, LimitChange
from pytest_vlmeval.models.client import ErrorKind, Reply, Request
from pytest_vlmeval.models.endings import Ending
from pytest_vlmeval.models.pool import Place, Pool
from pytest_vlmeval.models.pooled import Attempt
from pytest_vlmeval.records import Answer, AnswerState, Said
from pytest_vlmeval.refusals import Refusals, explain

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
NO_REPLY = ("failed", "not_asked")
# States of answers whose text never scores, by how they ended, and of errors that are
# about the answer rather than the request.
_UNUSABLE: Mapping[Ending, AnswerState] = {
    "filtered": "filtered",
    "refused": "refused",
    "broken_off": "aborted",
}
_WHY_UNUSABLE: Mapping[AnswerState, str] = {
    "filtered": "a filter of the server stopped the answer (finish_reason {!r})",
    "refused": "the reply is marked as a refusal",
    "aborted": "the server broke the answer off (finish_reason {!r})",
}
_FAILED: Mapping[ErrorKind, AnswerState] = {
    "filtered": "filtered",
    "aborted": "aborted",
}


class Journal:
    """Collects, of one model or judge, what answers do not tell, for the store."""

    def __init__(self, asked: str) -> None:
        self._asked = asked
        self._attempts: list[FailedAttempt] = []
        self._changes: list[LimitChange] = []

    def note_failure(self, fingerprint: str, index: str, attempt: Attempt) -> None:
        """Keep a request that got no answer."""
        error = attempt.error
        assert error is not None
        self._attempts.append(
            FailedAttempt(
                asked=self._asked,
                endpoint=attempt.endpoint,
                fingerprint=fingerprint,
                index=index,
                kind=error.kind if error.status is None else str(error.status),
                message=str(error),
                latency_ms=1000 * attempt.latency_s,
                at=time.time(),
            )
        )

    def note_limit(self, endpoint: str, before: int, after: int, reason: str) -> None:
        """Keep a change of how many requests an endpoint may have in flight."""
        change = LimitChange(
            asked=self._asked,
            endpoint=endpoint,
            before=before,
            after=after,
            reason=reason,
            at=time.time(),
        )
        self._changes.append(change)

    def take(self) -> tuple[list[FailedAttempt], list[LimitChange]]:
        """Give what is new since the last time."""
        taken = self._attempts, self._changes
        self._attempts, self._changes = [], []
        return taken


class Asker:
    """Asks with retries; whatever happens becomes an `Answer`.

    Raises `OutageError` where nothing can be asked any more. With `refusals` nothing
    more is asked of a dataset whose samples are all refused.
    """

    def __init__(
        self,
        pool: Pool,
        retries: int,
        journal: Journal,
        refusals: Refusals | None = None,
    ) -> None:
        self._pool = pool
        self._retries = retries
        self._journal = journal
        self._refusals = refusals
        self._random = random.Random()

    async def ask(
        self,
        fingerprint: str,
        index: str,
        request: Request,
        place: Place | None = None,
    ) -> Answer:
        """Ask turn by turn, until one has no usable reply.

        Each has its own retries, and goes with the model's own replies to those before.
        Before a retry others may have the `place`, unless there is a reply to lose.
        """
        asked: list[Answer] = []
        for number, _ in enumerate(request.turns, start=1):
            so_far = replace(
                request,
                turns=request.turns[:number],
                # As ms-vlmeval's client has them.
                replies=tuple(each.text.strip() for each in asked),
            )
            lent = place if number == 1 else None
            asked.append(await self._ask_turn(fingerprint, index, so_far, lent))
            if not asked[-1].is_usable:
                break
        if self._refusals is not None and asked[-1].state not in NO_REPLY:
            self._refusals.note_answer(fingerprint)
        return _join(asked, len(request.turns))

    async def _ask_turn(
        self, fingerprint: str, index: str, request: Request, place: Place | None
    ) -> Answer:
        """Send the request, again while its error may pass, at most `retries` times.

        A 400 is confirmed once, alone: swift answers so to all that it has taken
        together when one of them is malformed.
        """
        delays = self._delays()
        attempts = 0
        refusals = self._refusals
        alone = refusals is not None and refusals.is_suspect(fingerprint)
        attempt: Attempt | None = None
        while True:
            async with refusals.confirming if refusals and alone else nullcontext():
                if refusals and (reason := refusals.why_given_up(fingerprint)):
                    if attempt is None:
                        return failed_answer(fingerprint, index, reason, "not_asked")
                    return self._fail(fingerprint, index, attempts, attempt, request)
                attempts += 1
                attempt = await self._pool.ask(request, alone=alone)
                if attempt.reply is not None:
                    return _answer(fingerprint, index, attempts, attempt, attempt.reply)
                self._journal.note_failure(fingerprint, index, attempt)
                error = attempt.error
                assert error is not None
                is_malformed = error.status == 400 and error.kind == "status"
                if is_malformed and not attempt.alone and not alone:
                    alone = True
                    continue
                delay_s = next(delays, None) if error.retryable else None
                if delay_s is None:
                    if refusals:
                        refusals.note_refusal(
                            fingerprint, index, error, has_images=request.has_images
                        )
                    return self._fail(fingerprint, index, attempts, attempt, request)
            async with place.lent() if place else nullcontext():
                await self._pool.pause(delay_s)

    def _fail(
        self,
        fingerprint: str,
        index: str,
        attempts: int,
        attempt: Attempt,
        request: Request,
    ) -> Answer:
        """Return what becomes of a sample whose last attempt failed."""
        error = attempt.error
        assert error is not None
        return Answer(
            fingerprint=fingerprint,
            index=index,
            state=_FAILED.get(error.kind, "failed"),
            # The options that fix it are the model's, not a judge's.
            error=str(error)
            if self._refusals is None
            else explain(error, has_images=request.has_images),
            attempts=attempts,
            latency_ms=1000 * attempt.latency_s,
            endpoint=attempt.endpoint,
        )

    def _delays(self) -> Iterator[float]:
        """Give the seconds before each retry: exponential with jitter.

        What a server itself asks for (Retry-After) closes it in the pool.
        """
        ceiling = FIRST_DELAY_S
        for _ in range(self._retries):
            yield self._random.uniform(ceiling / 2, ceiling)
            ceiling = min(LONGEST_DELAY_S, 2 * ceiling)


def _join(asked: Sequence[Answer], turns: int) -> Answer:
    """Return the answer to a prompt from those to its turns."""
    *before, last = asked
    cut = next((each for each in asked if each.state == "cut_off"), None)
    if cut is not None and last.is_usable:
        last = replace(last, state=cut.state, finish_reason=cut.finish_reason)
    return replace(
        last,
        turns=turns,
        earlier=tuple(Said(each.text, each.reasoning) for each in before),
        attempts=sum(each.attempts for each in asked),
        latency_ms=sum(each.latency_ms for each in asked),
        prompt_tokens=sum(each.prompt_tokens for each in asked),
        completion_tokens=sum(each.completion_tokens for each in asked),
    )


def failed_answer(
    fingerprint: str,
    index: str,
    error: str,
    state: Literal["failed", "not_asked"] = "failed",
) -> Answer:
    """Return the answer of a sample for which no request was sent."""
    return Answer(
        fingerprint=fingerprint, index=index, state=state, error=error, attempts=0
    )


def _answer(
    fingerprint: str, index: str, attempts: int, attempt: Attempt, reply: Reply
) -> Answer:
    state = _UNUSABLE.get(reply.ending)
    if state is None and not reply.text.strip():
        state = "empty"
    elif state is None:
        state = "cut_off" if reply.ending == "cut_off" else "answered"
    why = _WHY_UNUSABLE.get(state, "").format(reply.finish_reason)
    return Answer(
        fingerprint=fingerprint,
        index=index,
        state=state,
        error=why,
        text=reply.text,
        reasoning=reply.reasoning,
        finish_reason=reply.finish_reason,
        attempts=attempts,
        latency_ms=1000 * attempt.latency_s,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        endpoint=attempt.endpoint,
        system_fingerprint=reply.system_fingerprint,
    )
