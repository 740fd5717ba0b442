"""The background event loop of a process: claim samples, ask the model, record."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pytest_vlmeval.asking import Asker, failed_answer
from pytest_vlmeval.board import Board
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import ModelClient, Request
from pytest_vlmeval.records import Answer, Plan
from pytest_vlmeval.store import Store

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

    plan: Plan
    session_id: str
    owner: str
    request: Callable[[str, str], Request]
    concurrency: int
    retries: int


class Engine:
    """Asks everything in the plan that has no answer yet, in a thread of its own."""

    def __init__(
        self,
        work: Work,
        store: Store,
        board: Board,
        make_client: Callable[[], ModelClient],
    ) -> None:
        self._work = work
        self._store = store
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
                drain = _Drain(self._work, self._store, self._board, asker, executor)
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
        store: Store,
        board: Board,
        asker: Asker,
        executor: ThreadPoolExecutor,
    ) -> None:
        self._work = work
        self._store = store
        self._board = board
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
                self._record(rest)

    async def _ask_all(self, group: asyncio.TaskGroup) -> None:
        """Walk over the plan until nothing is missing, others' claims included."""
        while missing := await self._in_store(self._missing):
            for fingerprint, indexes in missing.items():
                await self._ask_dataset(group, fingerprint, deque(indexes))
            if self._requests:
                await asyncio.wait(self._requests)
                await self._received.join()
            elif await self._in_store(self._missing):
                await asyncio.sleep(OTHERS_S)
                await self._in_store(self._store.leases.release_dead)

    async def _ask_dataset(
        self, group: asyncio.TaskGroup, fingerprint: str, indexes: deque[str]
    ) -> None:
        while indexes:
            free = max(0, self._work.concurrency - len(self._requests))
            size = min(len(indexes), CLAIM_AHEAD + free)
            batch = [indexes.popleft() for _ in range(size)]
            for index in await self._in_store(partial(self._claim, fingerprint, batch)):
                await self._slots.acquire()
                task = group.create_task(self._ask(fingerprint, index))
                self._requests.add(task)
                task.add_done_callback(self._requests.discard)

    async def _ask(self, fingerprint: str, index: str) -> None:
        try:
            request = self._work.request(fingerprint, index)
        except VlmEvalError as error:
            answer = failed_answer(fingerprint, index, str(error))
        else:
            answer = await self._asker.ask(fingerprint, index, request)
        self._received.put_nowait(answer)
        self._slots.release()

    async def _record_all(self) -> None:
        """Write the answers as they come; those that came together share a commit."""
        while True:
            new = [await self._received.get()]
            new += [self._received.get_nowait() for _ in range(self._received.qsize())]
            await self._in_store(partial(self._record, new))
            for _ in new:
                self._received.task_done()

    # The rest runs in the store's thread.

    def _claim(self, fingerprint: str, indexes: list[str]) -> list[str]:
        return self._store.answers.claim(
            self._work.plan.run_id,
            self._work.session_id,
            self._work.owner,
            fingerprint,
            indexes,
        )

    def _record(self, new: list[Answer]) -> None:
        stored = self._store.answers.record(
            self._work.plan.run_id, self._work.session_id, new
        )
        self._board.add(stored)

    def _missing(self) -> Mapping[str, list[str]]:
        """Return the samples without an answer, by fingerprint, in the plan's order."""
        self._board.refresh()
        found = {}
        for entry in self._work.plan.entries:
            unanswered = set(self._board.missing(entry.fingerprint))
            if unanswered:
                found[entry.fingerprint] = [
                    index for index in entry.indexes if index in unanswered
                ]
        return found

    async def _in_store(self, query: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, query)
