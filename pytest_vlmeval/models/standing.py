"""A pool that stays open, for callers that have no event loop of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pytest_vlmeval.models.pool import Pool

STOPPED = "not asked, as the session was interrupted"

T = TypeVar("T")


class StandingPool:
    """Keeps one pool from its first use on, on an event loop in a thread of its own.

    So what its endpoints were found to take is known to all that ask there. A pool
    that broke is replaced by the next `run`. Thread-safe.
    """

    def __init__(self, make_pool: Callable[[], Pool]) -> None:
        self._make_pool = make_pool
        self._pool: Pool | None = None
        self._working = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(self, work: Callable[[Pool], Coroutine[Any, Any, T]]) -> T:
        """Do `work` with the pool and wait for it; call it outside of an event loop."""
        future = asyncio.run_coroutine_threadsafe(self._do(work), self._running())
        try:
            try:
                return future.result()
            except KeyboardInterrupt:
                self.stop()
                # What was in flight is kept, unless Ctrl-C is pressed again.
                with suppress(Exception):
                    future.result()
                raise
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Ask nothing more, as the session ends; what is in flight is still kept."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.stop(STOPPED)

    def close(self) -> None:
        """Close the pool, if there is one, and end the thread."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._replace(None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="vlmeval-pool", daemon=True
                )
                self._thread.start()
            return self._loop

    async def _do(self, work: Callable[[Pool], Coroutine[Any, Any, T]]) -> T:
        if self._pool is None or self._pool.is_broken:
            await self._replace(self._make_pool())
        assert self._pool is not None
        if not self._working:
            self._pool.resume()
        self._working += 1
        try:
            return await work(self._pool)
        finally:
            self._working -= 1

    async def _replace(self, pool: Pool | None) -> None:
        before, self._pool = self._pool, pool
        if before is not None:
            await before.close()
