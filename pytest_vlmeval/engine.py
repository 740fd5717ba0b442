"""The background event loop of a process: claim samples, ask the model, record."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from pytest_vlmeval.asking import Asker, failed_answer
from pytest_vlmeval.board import Board
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import ModelClient, Request
from pytest_vlmeval.queue import Queue
from pytest_vlmeval.records import Answer, Ask

# Claims beyond the requests in flight, so that a slot never waits for the store.
CLAIM_AHEAD = 8
# How long to wait before looking again at samples that other processes hold.
OTHERS_S = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What an engine drains.

    `request` reads the prompt of (fingerprint, index) and raises `VlmEvalError` for
    a row that cannot be asked. `concurrency` bounds the requests in flight,
    `retries` how often one is sent again.
    """

    request: Callable[[str, str], Request]
    concurrency: int
    retries: int


class Engine:
    """Asks everything in the plan that has no answer yet, in a thread of its own."""

    def __init__(
        self,
        work: Work,
        queue: Queue,
        board: Board,
        make_client: Callable[[], ModelClient],
    ) -> None:
        self._work = work
        self._queue = queue
        self._board = board
        self._make_client = make_client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="vlmeval-engine", daemon=True
        )

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """End at once; requests in flight are dropped, answers received are kept."""
        if self._loop is not None and self._main is not None:
            # The loop may end by itself, and close, at this very moment.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._drain())
        except asyncio.CancelledError:
            self._board.fail(VlmEvalError("The run was stopped before this sample."))
        except BaseException as error:
            cause = _first_cause(error)
            if not isinstance(cause, VlmEvalError):
                self._board.fail(VlmEvalError(f"The engine ended by a bug: {cause!r}"))
                raise
            self._board.fail(cause)

    async def _drain(self) -> None:
        self._main = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        client = self._make_client()
        try:
            with ThreadPoolExecutor(1, "vlmeval-store") as executor:
                asker = Asker(client, self._work.retries)
                drain = _Drain(self._work, self._queue, asker, executor)
                await drain.run()
        finally:
            await client.close()


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
        asker: Asker,
        executor: ThreadPoolExecutor,
    ) -> None:
        self._work = work
        self._queue = queue
        self._asker = asker
        self._executor = executor
        self._slots = asyncio.Semaphore(work.concurrency)
        self._requests: set[asyncio.Task[None]] = set()
        self._received: asyncio.Queue[Answer] = asyncio.Queue()

    async def run(self) -> None:
        """Ask until nothing is missing; the first error ends everything."""
        try:
            async with asyncio.TaskGroup() as group:
                recorder = group.create_task(self._record_all())
                await self._ask_all(group)
                recorder.cancel()
        finally:
            # What was received while the loop was being ended.
            rest = [self._received.get_nowait() for _ in range(self._received.qsize())]
            if rest:
                self._queue.record(rest)

    async def _ask_all(self, group: asyncio.TaskGroup) -> None:
        """Walk over the plan until nothing is missing, others' claims included."""
        while missing := await self._in_store(self._queue.missing):
            for fingerprint, asks in missing.items():
                await self._ask_dataset(group, fingerprint, deque(asks))
            if self._requests:
                await asyncio.wait(self._requests)
                await self._received.join()
            elif await self._in_store(self._queue.missing):
                await asyncio.sleep(OTHERS_S)
                await self._in_store(self._queue.release_dead)

    async def _ask_dataset(
        self, group: asyncio.TaskGroup, fingerprint: str, asks: deque[Ask]
    ) -> None:
        while asks:
            free = max(0, self._work.concurrency - len(self._requests))
            size = min(len(asks), CLAIM_AHEAD + free)
            batch = [asks.popleft() for _ in range(size)]
            claim = partial(self._queue.claim, fingerprint, batch)
            for ask in await self._in_store(claim):
                await self._slots.acquire()
                task = group.create_task(self._ask(fingerprint, ask))
                self._requests.add(task)
                task.add_done_callback(self._requests.discard)

    async def _ask(self, fingerprint: str, ask: Ask) -> None:
        try:
            request = self._work.request(fingerprint, ask.sample)
        except VlmEvalError as error:
            answer = failed_answer(fingerprint, ask.sample, str(error))
        else:
            answer = await self._asker.ask(fingerprint, ask.sample, request)
        if ask.repeat:
            answer = replace(answer, repeat=ask.repeat)
        self._received.put_nowait(answer)
        self._slots.release()

    async def _record_all(self) -> None:
        """Write the answers as they come; those that came together share a commit."""
        while True:
            new = [await self._received.get()]
            new += [self._received.get_nowait() for _ in range(self._received.qsize())]
            await self._in_store(partial(self._queue.record, new))
            for _ in new:
                self._received.task_done()

    async def _in_store(self, query: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, query)
