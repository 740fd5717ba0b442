"""The background event loop of a process: claim samples, ask the model, record."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

from pytest_vlmeval.errors import VlmEvalError, log_error
from pytest_vlmeval.models.client import (
    Ending,
    ErrorKind,
    OutageError,
    Reply,
    Request,
    StoppedError,
)
from pytest_vlmeval.models.open import create_pool
from pytest_vlmeval.models.pool import Attempt, Pool
from pytest_vlmeval.models.refusals import Refusals, explain
from pytest_vlmeval.records import Answer, AnswerState, Ask, FailedAttempt, Said
from pytest_vlmeval.run.plan import write_request

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.models.server import Servers
    from pytest_vlmeval.run.queue import ProcessShare, Queue
    from pytest_vlmeval.settings import Settings

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


class Asker:
    """Asks with retries; whatever happens becomes an `Answer`.

    Raises `OutageError` where nothing can be asked any more. With `refusals` nothing
    more is asked of a dataset whose samples are all refused. `asked` names the model or
    the judge in the account, `doing` in the log of errors.
    """

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        asked: str,
        *,
        refusals: Refusals | None = None,
        doing: str = "Asking",
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._asked = asked
        self._refusals = refusals
        self._doing = doing
        # Tests have a generator of their own.
        self._random = random.Random()
        self._failures: list[FailedAttempt] = []

    def take_failures(self) -> list[FailedAttempt]:
        """Return the requests that failed since the last time."""
        taken, self._failures = self._failures, []
        return taken

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
                error = attempt.error
                assert error is not None
                self._failures.append(
                    FailedAttempt(
                        asked=self._asked,
                        endpoint=attempt.endpoint,
                        fingerprint=fingerprint,
                        index=index,
                        kind=str(error.status or error.kind),
                        message=str(error),
                        latency_ms=1000 * attempt.latency_s,
                        at=time.time(),
                    )
                )
                is_malformed = error.status == 400 and error.kind == "status"
                if is_malformed and not attempt.alone and not alone:
                    alone = True
                    continue
                delay_s = next(delays, None) if error.retryable else None
                if delay_s is None:
                    if refusals:
                        try:
                            refusals.note_refusal(
                                fingerprint, index, error, has_images=request.has_images
                            )
                        except OutageError as outage:
                            self._pool.break_off(str(outage))
                            raise
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
        if error.kind == "bug":
            why = self.log(error.__context__ or error, fingerprint, index)
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
        for _ in range(self._settings.retries):
            yield self._random.uniform(ceiling / 2, ceiling)
            ceiling = min(LONGEST_DELAY_S, 2 * ceiling)

    def log(self, error: BaseException, fingerprint: str, index: str) -> str:
        """Keep the traceback of what nobody expects; return the line about it."""
        # A judge's question has no index, but a hash.
        sample = index if self._refusals else ""
        dataset = fingerprint.rpartition("-")[0]
        return log_error(self._settings, error, self._doing, dataset, sample)


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
ONE_PROCESS = (
    "--vlm-engine=ray and -n exclude each other: one process hands the samples to all "
    "replicas. Leave -n out, or give -n 0; --vlm-replicas says how many there are."
)

T = TypeVar("T")


class Model:
    """The model of a run as one process asks it: its servers and its endpoints.

    `settings` have the addresses of servers that were started for the run, once it is
    settled; `concurrency` is this process's part of the requests in flight.
    """

    def __init__(
        self, settings: Settings, share: ProcessShare, servers: Servers
    ) -> None:
        self.settings = settings
        self.concurrency = share.concurrency(settings.concurrency)
        self._share = share
        self._servers = servers

    def settle(self) -> None:
        """Start the servers that the run has to start."""
        if self.settings.cluster is not None and self._share.processes > 1:
            raise VlmEvalError(ONE_PROCESS)
        self.settings = self._servers.settle(self.settings)

    def open(
        self, aside: Collection[str] = (), *, api_bases: Sequence[str] | None = None
    ) -> Pool:
        """Open the endpoints, those `aside` set aside, or only those of `api_bases`."""
        settings = self.settings
        if api_bases is not None:
            settings = replace(settings, api_bases=tuple(api_bases))
        return create_pool(settings, self.concurrency, aside, self._servers.learned)


class Engine:
    """Asks everything in the plan that has no answer yet, in a thread of its own.

    Those `aside` cannot be asked at the start. `outage` says why nothing more is asked,
    where no endpoint answers any more.
    """

    def __init__(
        self,
        model: Model,
        library: Library,
        queue: Queue,
        announce: Callable[[str], None],
        aside: Collection[str] = (),
    ) -> None:
        self._model = model
        self._library = library
        self._queue = queue
        self._board = queue.board
        self._refusals = Refusals(queue.datasets, announce)
        self._aside = aside
        self.outage = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._halted = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="vlmeval-engine", daemon=True
        )
        # Of the loop alone.
        self._pool: Pool | None = None
        self._asker: Asker | None = None
        self._walk: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()
        # What was received and is not stored yet, each with what waits for that.
        self._received: deque[tuple[Answer, asyncio.Future[None]]] = deque()
        self._arrived = asyncio.Event()
        self._store_failed = False

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()
        self._ready.wait()

    def set_ceiling(self, ceiling: int) -> None:
        """Take another bound of the requests in flight; from any thread."""
        if self._pool is not None:
            self._call(self._pool.set_ceiling, ceiling)

    def break_off(self, reason: str) -> None:
        """Ask no more, as another process found that nothing answers; any thread."""
        if self._thread.ident is None:
            self.outage = reason
            self._board.fail(OutageError(reason))
        elif self._pool is not None:
            self._call(self._pool.break_off, reason)

    def halt(self, reason: str) -> None:
        """Ask nothing more, as the session ends; what is in flight is still kept.

        From any thread; those who wait are told the `reason`.
        """
        self._halted = reason
        self._board.fail(VlmEvalError(reason))
        if self._pool is not None:
            self._call(self._end_walk)
            self._call(self._pool.stop, reason)

    def _call(self, call: Callable[..., object], *arguments: object) -> None:
        """Call something on the loop, unless that has ended with the last sample."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call, *arguments)

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
        self._call(self._end_walk)
        self.join(limit_s)

    def stop(self) -> None:
        """End at once; requests in flight are dropped, answers received are kept."""
        if self._main is not None:
            self._call(self._main.cancel)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._drain())
        except asyncio.CancelledError:
            self._board.fail(VlmEvalError("The run was stopped before this sample."))
        except BaseException as error:
            cause = error
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            if not isinstance(cause, VlmEvalError):
                line = log_error(self._model.settings, cause, "Asking")
                cause = VlmEvalError(line)
            if isinstance(cause, OutageError):
                self.outage = str(cause)
            self._board.fail(cause)

    async def _drain(self) -> None:
        """Ask until nothing is missing; the first error ends everything."""
        self._main = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        self._pool = pool = self._model.open(self._aside)
        settings = self._model.settings
        self._asker = Asker(
            settings, pool, str(settings.model), refusals=self._refusals
        )
        try:
            with ThreadPoolExecutor(1, "vlmeval-store") as self._executor:
                if not self._halted:
                    await self._ask_and_record()
        finally:
            self._library.release_prompts()
            await pool.close()

    async def _ask_and_record(self) -> None:
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

    def _end_walk(self) -> None:
        """Claim no more; what is claimed is still asked."""
        if self._walk is not None:
            self._walk.cancel()

    async def _ask_all(self, group: asyncio.TaskGroup) -> None:
        """Walk over the plan until nothing is missing, others' claims included."""
        while missing := await self._in_store(self._queue.missing):
            for fingerprint, asks in missing.items():
                await self._ask_dataset(group, fingerprint, deque(asks))
            if self._requests:
                await asyncio.wait(self._requests)
            elif await self._in_store(self._queue.missing):
                await asyncio.sleep(OTHERS_S)
                await self._in_store(self._board.store.release_dead)

    async def _ask_dataset(
        self, group: asyncio.TaskGroup, fingerprint: str, asks: deque[Ask]
    ) -> None:
        while asks:
            # Where nothing more is asked, that is said of all at once.
            given_up = self._refusals.why_given_up(fingerprint)
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
        assert self._pool is not None
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
        assert self._pool is not None
        reason = self._refusals.why_given_up(fingerprint)
        if reason:
            failed = failed_answer(fingerprint, ask.sample, reason, "not_asked")
            await self._keep(failed, ask.repeat)
            return
        # What was not sent when the session ended is left to the next one.
        with contextlib.suppress(StoppedError):
            async with self._pool.place():
                answer = await self._answer(fingerprint, ask.sample)
                await self._keep(answer, ask.repeat)

    async def _answer(self, fingerprint: str, index: str) -> Answer:
        assert self._asker is not None
        dataset = self._queue.datasets[fingerprint]
        try:
            request = write_request(self._library, self._model.settings, dataset, index)
        except VlmEvalError as error:
            return failed_answer(fingerprint, index, str(error))
        except Exception as error:
            why = self._asker.log(error, fingerprint, index)
            return failed_answer(fingerprint, index, why)
        return await self._asker.ask(fingerprint, index, request, placed=True)

    async def _keep(self, answer: Answer, repeat: int) -> None:
        """Wait until an answer is stored."""
        if repeat:
            answer = replace(answer, repeat=repeat)
        stored = asyncio.get_running_loop().create_future()
        self._received.append((answer, stored))
        self._arrived.set()
        await stored

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
        """Keep what was received, and what failed; in the store's thread.

        Returns what waited for it.
        """
        assert self._asker is not None
        new = [self._received.popleft() for _ in range(len(self._received))]
        board = self._board
        try:
            board.store.record_failures(
                board.plan.run_id, board.session_id, self._asker.take_failures()
            )
            if new:
                self._queue.record([answer for answer, _ in new])
        except BaseException:
            self._store_failed = True
            raise
        return [stored for _, stored in new]

    async def _in_store(self, query: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, query)
