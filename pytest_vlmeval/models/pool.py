"""The endpoints of one model: the least loaded healthy one gets the next request.

An endpoint that fails again and again is set aside, probed, and taken back. Where all
are and nothing was answered for long, the pool breaks: nothing more is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Self

from pytest_vlmeval.errors import VlmEvalError, describe
from pytest_vlmeval.evidence import Evidence
from pytest_vlmeval.models.client import (
    OutageError,
    Reply,
    Request,
    RequestError,
    StoppedError,
)
from pytest_vlmeval.models.pooled import (
    LONGEST_PROBE_S,
    MOST_STRIKES,
    Attempt,
    Endpoint,
)


class Pool:
    """Asks one model at any of its endpoints; all calls are on one event loop.

    At most `ceiling` requests are in flight at all of them together. `outage_s`:
    seconds without any answer after which it breaks, once every endpoint is set aside.
    `aside` names endpoints that could not be asked at the start.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        ceiling: int,
        outage_s: float,
        aside: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoints = tuple(endpoints)
        self._ceiling = ceiling
        self._outage_s = outage_s
        self._clock = clock
        self._aside_at_start = aside
        self._answered_at: float | None = None
        self._waiting: deque[asyncio.Future[Endpoint]] = deque()
        self._waiting_alone: deque[asyncio.Future[Endpoint]] = deque()
        self._places = 0
        self._waiting_outside: deque[asyncio.Future[None]] = deque()
        self._probes: set[asyncio.Task[None]] = set()
        self._broken: OutageError | None = None
        self._ended = asyncio.Event()

    @property
    def capacity(self) -> int:
        """How many requests may be in flight now, in all."""
        healthy = (each.limiter.limit for each in self.endpoints if not each.aside)
        return min(self._ceiling, sum(healthy))

    @property
    def is_broken(self) -> bool:
        """Whether nothing will be asked any more."""
        return self._broken is not None

    def raise_outage(self) -> None:
        """Raise `OutageError` if nothing will be asked any more."""
        if self._broken is not None:
            raise self._broken

    def set_ceiling(self, ceiling: int) -> None:
        """Take another upper bound, as processes of the session come and go."""
        self._ceiling = ceiling
        for endpoint in self.endpoints:
            endpoint.limiter.set_ceiling(ceiling)
        self._serve()

    def resume(self) -> None:
        """Count silence from now on, as nothing was asked for a while."""
        if self._answered_at is not None:
            self._answered_at = self._clock()

    async def check(self) -> dict[str, str]:
        """Return why endpoints cannot be asked, by name; raise if none of them can.

        May run on another event loop than the rest, with connections of its own.
        """
        checks = (endpoint.client.check() for endpoint in self.endpoints)
        results = await asyncio.gather(*checks, return_exceptions=True)
        troubles: dict[str, str] = {}
        for endpoint, result in zip(self.endpoints, results, strict=True):
            if isinstance(result, VlmEvalError):
                troubles[endpoint.name] = str(result)
            elif result is not None:
                raise result
        if len(troubles) == len(self.endpoints):
            words = list(troubles.values())
            count = f"None of the {len(words)} endpoints can be asked."
            raise VlmEvalError("\n".join([count, *words] if words[1:] else words))
        return troubles

    async def describe(self) -> list[Evidence]:
        """Return what endpoints say of their model, after `check`.

        One that cannot be asked, or whose files cannot be read, says nothing.
        """
        at = time.time()
        results = await asyncio.gather(
            *(endpoint.client.describe() for endpoint in self.endpoints),
            return_exceptions=True,
        )
        found = []
        for endpoint, result in zip(self.endpoints, results, strict=True):
            if isinstance(result, BaseException):
                if not isinstance(result, VlmEvalError | OSError):
                    raise result
            elif result:
                found.append(Evidence(endpoint=endpoint.name, found=result, at=at))
        return found

    async def ask(self, request: Request, *, alone: bool = False) -> Attempt:
        """Send a request once, when an endpoint has room; `OutageError` if none will.

        `alone`: while nothing else is in flight at that endpoint.
        """
        if self._answered_at is None:
            self._begin()
        endpoint = await self._acquire(alone=alone)
        limiter, begun = endpoint.limiter, endpoint.begun
        was_alone = limiter.in_flight == 1
        reply: Reply | None = None
        error: RequestError | None = None
        started = time.perf_counter()
        try:
            reply = await endpoint.client.ask(request)
        except RequestError as problem:
            error = problem
        except VlmEvalError:
            raise
        except Exception as bug:
            # Of this request alone, whatever it is: the others go on.
            error = RequestError(
                f"asking {endpoint.name} failed: {describe(bug)}",
                kind="bug",
                retryable=False,
            )
        finally:
            latency_s = time.perf_counter() - started
            limiter.end()
            self._note(endpoint, latency_s, reply, error)
            self._serve()
        return Attempt(
            endpoint=endpoint.name,
            latency_s=latency_s,
            alone=was_alone and endpoint.begun == begun,
            reply=reply,
            error=error,
        )

    async def close(self) -> None:
        """Close all connections; requests still under way fail."""
        for probe in tuple(self._probes):
            probe.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
        for endpoint in self.endpoints:
            await endpoint.client.close()

    def place(self) -> Place:
        """Give what keeps the replies that nobody has stored yet within bounds.

        `async with` waits for one of as many places as requests may be in flight.
        Whoever asks keeps it until the reply is stored: so after a crash no more is
        asked again than may be in flight.
        """
        return Place(self)

    async def take_place(self) -> None:
        """Wait for a place; `OutageError` if nothing will be asked any more."""
        self.raise_outage()
        if self._answered_at is None:
            self._begin()
        if not self._waiting_outside and self._places < self.capacity:
            self._places += 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting_outside.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not future.exception():
                self.leave_place()
            raise

    def leave_place(self) -> None:
        """Give a place back."""
        self._places -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting_outside:
            if self._waiting_outside[0].done():
                self._waiting_outside.popleft()
            elif self._places < self.capacity:
                self._places += 1
                self._waiting_outside.popleft().set_result(None)
            else:
                break

    # Who is served next

    async def _acquire(self, *, alone: bool) -> Endpoint:
        self.raise_outage()
        if not alone and not self._waiting:
            endpoint = self._least_loaded()
            if endpoint is not None:
                return self._enter(endpoint)
        future: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        (self._waiting_alone if alone else self._waiting).append(future)
        self._serve()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not future.exception():
                future.result().limiter.end()
                self._serve()
            raise

    def _least_loaded(self) -> Endpoint | None:
        if self.in_flight >= self._ceiling:
            return None
        free = [endpoint for endpoint in self.endpoints if endpoint.is_free()]
        return min(free, key=lambda endpoint: endpoint.load, default=None)

    def _enter(self, endpoint: Endpoint) -> Endpoint:
        endpoint.begun += 1
        endpoint.limiter.begin(self._held())
        return endpoint

    def _held(self) -> int:
        """Return an endpoint's part of the places whose requests are answered."""
        healthy = sum(not each.aside for each in self.endpoints)
        return max(0, self._places - self.in_flight) // max(1, healthy)

    def _serve(self) -> None:
        """Give free slots to what waits, first what has to be alone."""
        self._let_in()
        self._serve_alone()
        while self._waiting:
            if self._waiting[0].done():
                self._waiting.popleft()
                continue
            endpoint = self._least_loaded()
            if endpoint is None:
                break
            self._waiting.popleft().set_result(self._enter(endpoint))

    def _serve_alone(self) -> None:
        while self._waiting_alone and self._waiting_alone[0].done():
            self._waiting_alone.popleft()
        emptying = [each for each in self.endpoints if each.emptying]
        if not self._waiting_alone:
            for endpoint in emptying:
                endpoint.emptying = endpoint.limiter.in_flight > 0
            return
        healthy = [each for each in self.endpoints if not each.aside]
        emptying = [each for each in emptying if not each.aside]
        if not emptying and healthy:
            emptying = [min(healthy, key=lambda each: each.limiter.in_flight)]
            emptying[0].emptying = True
        for endpoint in emptying:
            limiter = endpoint.limiter
            if limiter.in_flight == 0 and limiter.has_room():
                self._waiting_alone.popleft().set_result(self._enter(endpoint))
                return

    # Health

    def _begin(self) -> None:
        self._answered_at = self._clock()
        for endpoint in self.endpoints:
            if endpoint.name in self._aside_at_start:
                self._set_aside(endpoint)

    def _note(
        self,
        endpoint: Endpoint,
        latency_s: float,
        reply: Reply | None,
        error: RequestError | None,
    ) -> None:
        if reply is not None:
            self._answered_at = self._clock()
            endpoint.note_answer(latency_s)
        elif error is not None:
            endpoint.note_error(error)
            left_s = endpoint.limiter.closed_until - self._clock()
            if left_s > 0:
                asyncio.get_running_loop().call_later(left_s, self._serve)
            if not error.retryable:
                self._answered_at = self._clock()
            elif endpoint.strikes >= MOST_STRIKES and not endpoint.aside:
                self._set_aside(endpoint)
            self._look_for_outage()

    def _set_aside(self, endpoint: Endpoint) -> None:
        endpoint.aside = True
        endpoint.emptying = False
        probe = asyncio.get_running_loop().create_task(self._probe(endpoint))
        self._probes.add(probe)
        probe.add_done_callback(self._probes.discard)

    async def _probe(self, endpoint: Endpoint) -> None:
        """Ask again and again whether it serves, then take it back on trial.

        A server whose model hangs may still list its models: the next failure sets it
        aside again, for longer.
        """
        while endpoint.aside:
            await asyncio.sleep(endpoint.probe_s)
            endpoint.probe_s = min(2 * endpoint.probe_s, LONGEST_PROBE_S)
            try:
                await endpoint.client.check()
            except OutageError as error:
                self.break_off(str(error))
                return
            except VlmEvalError as error:
                endpoint.trouble = str(error).splitlines()[0]
                self._look_for_outage()
            else:
                endpoint.aside = False
                endpoint.strikes = MOST_STRIKES - 1
                self._serve()

    def _look_for_outage(self) -> None:
        """Break once every endpoint is set aside and nothing was answered for long."""
        assert self._answered_at is not None
        silent_s = self._clock() - self._answered_at
        if silent_s < self._outage_s or not all(each.aside for each in self.endpoints):
            return
        if any(each.limiter.in_flight for each in self.endpoints):
            return
        troubles = "; ".join(each.trouble for each in self.endpoints)
        self.break_off(
            f"No endpoint has answered for {silent_s:.0f} s, so that nothing more is "
            f"asked: {troubles.rstrip('.')}. What was answered is stored: run the same "
            "command again once the server is back (--vlm-outage says how long to "
            "wait for it)."
        )

    async def pause(self, delay_s: float) -> None:
        """Wait before a retry; `OutageError` as soon as nothing will be asked."""
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._ended.wait()
        self.raise_outage()

    def break_off(self, reason: str) -> None:
        """Let nothing more be asked: what waits and what comes gets `OutageError`."""
        self._end(OutageError(reason))

    def stop(self, reason: str) -> None:
        """Let nothing more be asked, as the session ends: so with `StoppedError`."""
        if self._broken is None:
            self._end(StoppedError(reason))

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return sum(each.limiter.in_flight for each in self.endpoints)

    def _end(self, error: OutageError) -> None:
        self._broken = error
        self._ended.set()
        for future in (*self._waiting, *self._waiting_alone):
            if not future.done():
                future.set_exception(self._broken)
        for outside in self._waiting_outside:
            if not outside.done():
                outside.set_exception(self._broken)
        self._waiting.clear()
        self._waiting_alone.clear()
        self._waiting_outside.clear()


class Place:
    """A place in a pool, from `async with` to its end; see `Pool.place`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._taken = False

    async def __aenter__(self) -> Self:
        await self._pool.take_place()
        self._taken = True
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._taken:
            self._pool.leave_place()

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """Let others have it meanwhile, by whoever has no reply to lose."""
        self._pool.leave_place()
        self._taken = False
        yield
        await self._pool.take_place()
        self._taken = True
