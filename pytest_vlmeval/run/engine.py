"""The background event loop of a process: claim samples, ask the model, record."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import (
    ErrorKind,
    OutageError,
    Reply,
    Request,
    StoppedError,
)
from pytest_vlmeval.models.endings import Ending
from pytest_vlmeval.models.pool import Attempt, Pool
from pytest_vlmeval.models.refusals import Refusals, explain
from pytest_vlmeval.records import (
    Answer,
    AnswerState,
    Ask,
    FailedAttempt,
    Said,
)
from pytest_vlmeval.run.queue import Board, Queue

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


# Keeps the traceback of what nobody expects, met at a fingerprint's index; returns the
# line about it.
LogBug = Callable[[BaseException, str, str], str]


class Journal:
    """Collects the failed attempts to ask one model or judge, for the store."""

    def __init__(self, asked: str) -> None:
        self._asked = asked
        self._attempts: list[FailedAttempt] = []

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

    def take(self) -> list[FailedAttempt]:
        """Return what is new since the last time."""
        taken, self._attempts = self._attempts, []
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
        *,
        log: LogBug | None = None,
    ) -> None:
        self._pool = pool
        self._log = log
        self._retries = retries
        self._journal = journal
        self._refusals = refusals
        self._random = random.Random()

    async def ask(
        self,
        fingerprint: str,
        index: str,
        request: Request,
        *,
        placed: bool = False,
    ) -> Answer:
        """Ask turn by turn, until one has no usable reply.

        Each has its own retries, and goes with the model's own replies to those before.
        Before a retry others may have the place, if it is `placed`, unless there is a
        reply to lose.
        """
        asked: list[Answer] = []
        for number, _ in enumerate(request.turns, start=1):
            so_far = replace(
                request,
                turns=request.turns[:number],
                # As ms-vlmeval's client has them.
                replies=tuple(each.text.strip() for each in asked),
            )
            lends = placed and number == 1
            asked.append(await self._ask_turn(fingerprint, index, so_far, lends=lends))
            if not asked[-1].is_usable:
                break
        if self._refusals is not None and asked[-1].state not in NO_REPLY:
            self._refusals.note_answer(fingerprint)
        return _join(asked, len(request.turns))

    async def _ask_turn(
        self, fingerprint: str, index: str, request: Request, *, lends: bool
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
            async with self._pool.lent_place() if lends else nullcontext():
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
        if self._log and error.kind == "bug":
            why = self._log(error.__context__ or error, fingerprint, index)
        elif self._refusals is None:
            why = str(error)
        else:  # The options that fix it are the model's, not a judge's.
            why = explain(error, has_images=request.has_images)
        return Answer(
            fingerprint=fingerprint,
            index=index,
            state=_FAILED.get(error.kind, "failed"),
            error=why,
            attempts=attempts,
            latency_ms=1000 * attempt.latency_s,
            endpoint=attempt.endpoint,
        )

    def _delays(self) -> Iterator[float]:
        """Yield the seconds before each retry: exponential with jitter.

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


# Claims beyond the requests in flight, so that a slot never waits for the store: as
# many at least, or this part of the slots.
CLAIM_AHEAD = 8
CLAIM_AHEAD_PART = 4
# Samples that are claimed at once where none of them is asked any more.
AT_ONCE = 1_000
# How long to wait before looking again at samples that other processes hold.
OTHERS_S = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What an engine drains.

    `request` reads the prompt of (fingerprint, index) and raises `VlmEvalError` for
    a row that cannot be asked. `retries` is how often one is sent again. `make_pool`
    opens the endpoints, which bound the requests in flight. `refusals` ends the asking
    of a dataset. `journal` has what failed. `release` lets go of what
    is needed for asking alone. `log` keeps the traceback of what nobody expects.
    """

    request: Callable[[str, str], Request]
    retries: int
    journal: Journal
    make_pool: Callable[[], Pool]
    refusals: Refusals
    release: Callable[[], None]
    log: LogBug


class Engine:
    """Asks everything in the plan that has no answer yet, in a thread of its own.

    `outage` says why nothing more is asked, where no endpoint answers any more.
    """

    def __init__(self, work: Work, queue: Queue, board: Board) -> None:
        self._work = work
        self._queue = queue
        self._board = board
        self.outage = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._pool: Pool | None = None
        self._current: _Drain | None = None
        self._halted = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="vlmeval-engine", daemon=True
        )

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()
        self._ready.wait()

    def set_ceiling(self, ceiling: int) -> None:
        """Take another bound of the requests in flight; from any thread."""
        if self._loop is not None and self._pool is not None:
            # The loop may have ended with the last sample.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._pool.set_ceiling, ceiling)

    def break_off(self, reason: str) -> None:
        """Ask no more, as another process found that nothing answers; any thread."""
        if self._thread.ident is None:
            self.outage = reason
            self._board.fail(OutageError(reason))
        elif self._loop is not None and self._pool is not None:
            # The loop may have ended with the last sample.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._pool.break_off, reason)

    def halt(self, reason: str) -> None:
        """Ask nothing more, as the session ends; what is in flight is still kept.

        From any thread; those who wait are told the `reason`.
        """
        self._halted = reason
        self._board.fail(VlmEvalError(reason))
        if self._loop is not None and self._current is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._current.halt, reason)

    @property
    def in_flight(self) -> int:
        """How many requests are under way, about."""
        return self._pool.in_flight if self._pool and self._thread.is_alive() else 0

    def join(self, limit_s: float) -> None:
        """Wait for the end of the asking, at most `limit_s` seconds."""
        if self._thread.ident is not None:
            self._thread.join(limit_s)

    def finish(self, limit_s: float) -> None:
        """Claim no more, and wait for what is claimed: at most `limit_s` seconds.

        Others, who wait for those answers, would have to ask them once more.
        """
        if self._loop is not None and self._current is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._current.end)
            self._thread.join(limit_s)

    def stop(self) -> None:
        """End at once; requests in flight are dropped, answers received are kept."""
        if self._loop is not None and self._main is not None:
            # The loop may end by itself, and close, at this very moment.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._main.cancel)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._drain())
        except asyncio.CancelledError:
            self._board.fail(VlmEvalError("The run was stopped before this sample."))
        except BaseException as error:
            cause = _first_cause(error)
            if not isinstance(cause, VlmEvalError):
                cause = VlmEvalError(self._work.log(cause, "", ""))
            if isinstance(cause, OutageError):
                self.outage = str(cause)
            self._board.fail(cause)

    async def _drain(self) -> None:
        self._main = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        self._pool = pool = self._work.make_pool()
        try:
            with ThreadPoolExecutor(1, "vlmeval-store") as executor:
                self._current = _Drain(self._work, self._queue, pool, executor)
                if self._halted:
                    return
                await self._current.run()
        finally:
            self._work.release()
            await pool.close()


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Drain:
    """The loop itself: keeps the slots full until every sample has an answer."""

    def __init__(
        self,
        work: Work,
        queue: Queue,
        pool: Pool,
        executor: ThreadPoolExecutor,
    ) -> None:
        self._work = work
        self._queue = queue
        self._pool = pool
        self._asker = Asker(
            pool, work.retries, work.journal, work.refusals, log=work.log
        )
        self._executor = executor
        self._walk: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()
        # What was received and is not stored yet, each with what waits for that.
        self._received: deque[tuple[Answer, asyncio.Future[None]]] = deque()
        self._arrived = asyncio.Event()
        self._store_failed = False

    async def run(self) -> None:
        """Ask until nothing is missing, or `end`; the first error ends everything."""
        try:
            async with asyncio.TaskGroup() as group:
                recorder = group.create_task(self._record_all())
                self._walk = group.create_task(self._ask_all(group))
                await asyncio.wait([self._walk])
                if self._requests:
                    await asyncio.wait(self._requests)
                recorder.cancel()
        finally:
            # What was received while the loop was being ended.
            if not self._store_failed:
                self._executor.submit(self._record).result()

    def end(self) -> None:
        """Claim no more; what is claimed is still asked."""
        if self._walk is not None:
            self._walk.cancel()

    def halt(self, reason: str) -> None:
        """Send nothing more; what is in flight is still recorded."""
        self.end()
        self._pool.stop(reason)

    async def _ask_all(self, group: asyncio.TaskGroup) -> None:
        """Walk over the plan until nothing is missing, others' claims included."""
        while missing := await self._in_store(self._queue.missing):
            for fingerprint, asks in missing.items():
                await self._ask_dataset(group, fingerprint, deque(asks))
            if self._requests:
                await asyncio.wait(self._requests)
            elif await self._in_store(self._queue.missing):
                await asyncio.sleep(OTHERS_S)
                await self._in_store(self._queue.release_dead)

    async def _ask_dataset(
        self, group: asyncio.TaskGroup, fingerprint: str, asks: deque[Ask]
    ) -> None:
        while asks:
            # Where nothing more is asked, that is said of all at once.
            given_up = self._work.refusals.why_given_up(fingerprint)
            size = min(len(asks), AT_ONCE if given_up else await self._room())
            batch = [asks.popleft() for _ in range(size)]
            claim = partial(self._queue.claim, fingerprint, batch)
            for ask in await self._in_store(claim):
                task = group.create_task(self._ask(fingerprint, ask))
                self._requests.add(task)
                task.add_done_callback(self._settle)

    def _settle(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        self._settled.set()

    async def _room(self) -> int:
        """Wait until half of what is claimed ahead is used up; return how many fit."""
        while True:
            slots = self._pool.capacity
            if not slots:
                # All are set aside: nothing is claimed meanwhile.
                self._pool.raise_outage()
                await asyncio.sleep(OTHERS_S)
                continue
            ahead = max(CLAIM_AHEAD, slots // CLAIM_AHEAD_PART)
            room = slots + ahead - len(self._requests)
            if room >= ahead // 2:
                return room
            self._settled.clear()
            await self._settled.wait()

    async def _ask(self, fingerprint: str, ask: Ask) -> None:
        """Ask from a place, and keep it until the answer is stored."""
        reason = self._work.refusals.why_given_up(fingerprint)
        if reason:
            failed = failed_answer(fingerprint, ask.sample, reason, "not_asked")
            await self._keep(replace(failed, repeat=ask.repeat))
            return
        # What was not sent when the session ended is left to the next one.
        with contextlib.suppress(StoppedError):
            async with self._pool.place():
                await self._keep(await self._answer(fingerprint, ask))

    async def _keep(self, answer: Answer) -> None:
        """Wait until an answer is stored."""
        stored = asyncio.get_running_loop().create_future()
        self._received.append((answer, stored))
        self._arrived.set()
        await stored

    async def _answer(self, fingerprint: str, ask: Ask) -> Answer:
        try:
            request = self._work.request(fingerprint, ask.sample)
        except VlmEvalError as error:
            answer = failed_answer(fingerprint, ask.sample, str(error))
        except Exception as error:
            why = self._work.log(error, fingerprint, ask.sample)
            answer = failed_answer(fingerprint, ask.sample, why)
        else:
            answer = await self._asker.ask(
                fingerprint, ask.sample, request, placed=True
            )
        if ask.repeat:
            answer = replace(answer, repeat=ask.repeat)
        return answer

    async def _record_all(self) -> None:
        """Write the answers as they come; those that came together share a commit."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            for stored in await self._in_store(self._record):
                # One whose task was cancelled meanwhile is stored all the same.
                if not stored.done():
                    stored.set_result(None)

    def _record(self) -> list[asyncio.Future[None]]:
        """Keep what was received, and what the journal holds; in the store's thread.

        Returns what waited for it.
        """
        new = [self._received.popleft() for _ in range(len(self._received))]
        try:
            self._queue.record_failures(self._work.journal.take())
            if new:
                self._queue.record([answer for answer, _ in new])
        except BaseException:
            self._store_failed = True
            raise
        return [stored for _, stored in new]

    async def _in_store(self, query: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, query)
