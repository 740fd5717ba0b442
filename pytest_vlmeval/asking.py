"""One sample, asked until there is an answer or no use in asking again."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace

from pytest_vlmeval.models.client import ModelClient, Reply, Request, RequestError
from pytest_vlmeval.records import Answer, AnswerState

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0


class Asker:
    """Asks with retries; whatever happens becomes an `Answer`."""

    def __init__(self, client: ModelClient, retries: int) -> None:
        self._client = client
        self._retries = retries
        self._random = random.Random()

    async def ask(self, fingerprint: str, index: str, request: Request) -> Answer:
        """Send the request, again while its error may pass, at most `retries` times."""
        attempt = 0
        while True:
            attempt += 1
            started = time.perf_counter()
            try:
                reply = await self._client.ask(request)
            except RequestError as error:
                if error.retryable and attempt <= self._retries:
                    await asyncio.sleep(self._delay(attempt, error.retry_after_s))
                    continue
                failure = failed_answer(fingerprint, index, str(error))
                return _with_timing(failure, attempt, started)
            return _with_timing(_answer(fingerprint, index, reply), attempt, started)

    def _delay(self, attempt: int, retry_after_s: float | None) -> float:
        """Seconds to wait: exponential with jitter, no less than the server asks."""
        ceiling: float = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1))
        return max(retry_after_s or 0.0, self._random.uniform(ceiling / 2, ceiling))


def failed_answer(fingerprint: str, index: str, error: str) -> Answer:
    """Return the answer of a sample that could not be asked."""
    return Answer(
        fingerprint=fingerprint, index=index, state="failed", error=error, attempts=0
    )


def _answer(fingerprint: str, index: str, reply: Reply) -> Answer:
    state: AnswerState = "answered" if reply.text.strip() else "empty"
    if reply.finish_reason == "length":
        state = "cut_off"
    return Answer(
        fingerprint=fingerprint,
        index=index,
        state=state,
        text=reply.text,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )


def _with_timing(answer: Answer, attempts: int, started: float) -> Answer:
    latency_ms = (time.perf_counter() - started) * 1000
    return replace(answer, attempts=attempts, latency_ms=latency_ms)
