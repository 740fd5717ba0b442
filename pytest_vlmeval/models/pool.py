"""The endpoints of one model: the least loaded healthy one gets the next request.

A `Limiter` has no clock but the one that is given and no event loop, so that it can be
followed step by step. A *round* is as many answers as there are slots.

An endpoint that fails again and again is set aside, probed, and taken back. Where all
are and nothing was answered for long, the pool breaks: nothing more is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pytest_vlmeval.errors import VlmEvalError, describe
from pytest_vlmeval.models.client import (
    ModelClient,
    OutageError,
    Reply,
    Request,
    RequestError,
    Role,
    StoppedError,
)
from pytest_vlmeval.models.evidence import Evidence
from pytest_vlmeval.sandbox.environment import write_held

T = TypeVar("T")

START = 8
# The most that `auto` goes to, for all processes of a session together.
AUTO_CEILING = 256
SMALLEST_ROUND = 8
# Nothing is concluded from a round in which less than this part was used.
USED = 0.8
STEP = 1.05
# A 429 cuts to this part, but not again within so many seconds.
CUT = 0.8
CUT_AGAIN_S = 15.0
# A round has got slower without a gain where its 95th percentile is this many times
# the best round's, and its throughput not that many times. As many in a row cut.
SLOWER = 1.3
GAIN = 1.1
SLOW_ROUNDS = 2


class Concurrency(NamedTuple):
    """What a user asked for: `ceiling` requests, or `adaptive` up to as many."""

    ceiling: int
    adaptive: bool


@dataclass(slots=True)
class _Round:
    started: float
    clean: bool = True
    most_used: int = 0
    latencies_s: list[float] = field(default_factory=list)


class _Measured(NamedTuple):
    limit: int
    rate: float  # answers per second
    p95_s: float


class Limiter:
    """Bounds the requests in flight at one endpoint.

    A fixed one never changes its limit. An adaptive one doubles after each clean
    round, then goes on in small steps; it grows only if its slots were used. A 429
    cuts, as does a latency that grows without throughput; other errors only pause the
    growth. For both a Retry-After closes the endpoint.
    """

    def __init__(
        self,
        concurrency: Concurrency,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ceiling, self._adaptive = concurrency
        self.limit = min(START, self._ceiling) if self._adaptive else self._ceiling
        self.in_flight = 0
        self.closed_until = 0.0
        self._clock = clock
        self._slow_start = True
        self._slow_rounds = 0
        self._no_cut_until = 0.0
        self._no_growth_until = 0.0
        self._best: _Measured | None = None
        self._round = _Round(clock())

    def set_ceiling(self, ceiling: int) -> None:
        """Take another upper bound, as processes of the session come and go."""
        self._ceiling = ceiling
        if not self._adaptive or self.limit > ceiling:
            self.limit = ceiling
        elif not self.limit:
            self.limit = min(START, ceiling)

    def has_room(self) -> bool:
        """Return whether another request may be sent now."""
        return self.in_flight < self.limit and self._clock() >= self.closed_until

    def begin(self, held: int = 0) -> None:
        """Count a request that is being sent.

        `held` slots are used, too: their requests are answered, but not yet stored.
        """
        self.in_flight += 1
        used = self.in_flight + held
        if used > self._round.most_used:
            self._round.most_used = used

    def end(self) -> None:
        """Count a request that is done with, however it ended."""
        self.in_flight -= 1

    def note_answer(self, latency_s: float) -> None:
        """Take in that a request was answered."""
        if not self._adaptive:
            return
        latencies = self._round.latencies_s
        latencies.append(latency_s)
        if len(latencies) >= max(self.limit, SMALLEST_ROUND):
            self._close_round()

    def note_error(self) -> None:
        """Take in that a request failed at the endpoint."""
        self._round.clean = False

    def note_refusal(self, retry_after_s: float | None) -> None:
        """Take in a 429 or a 503 that asks to wait."""
        self._round.clean = False
        now = self._clock()
        if retry_after_s and now + retry_after_s > self.closed_until:
            self.closed_until = now + retry_after_s
        if not self._adaptive or now < self._no_cut_until:
            return
        self._slow_start = False
        self._no_cut_until = max(now + CUT_AGAIN_S, self.closed_until)
        self._no_growth_until = self._no_cut_until
        self.limit = max(1, int(self.limit * CUT))

    def _close_round(self) -> None:
        done, now = self._round, self._clock()
        self._round = _Round(now, most_used=self.in_flight)
        if done.most_used < USED * self.limit:
            return
        latencies = sorted(done.latencies_s)
        measured = _Measured(
            limit=self.limit,
            rate=len(latencies) / max(now - done.started, 1e-6),
            p95_s=latencies[int(0.95 * (len(latencies) - 1))],
        )
        best = self._best
        if (
            best is not None
            and measured.limit > best.limit
            and measured.p95_s > SLOWER * best.p95_s
            and measured.rate < GAIN * best.rate
        ):
            # One such round may be a hiccup of this machine; growth waits meanwhile.
            self._slow_rounds += 1
            if self._slow_rounds < SLOW_ROUNDS:
                return
            self._slow_rounds = 0
            self._slow_start = False
            self._no_growth_until = now + CUT_AGAIN_S
            self.limit = best.limit
            return
        self._slow_rounds = 0
        if best is None or measured.limit <= best.limit or measured.rate > best.rate:
            self._best = measured
        if done.clean and now >= self._no_growth_until:
            step = 2 * self.limit if self._slow_start else int(self.limit * STEP)
            self.limit = min(max(step, self.limit + 1), self._ceiling)


# An endpoint is set aside at so many strikes in a row, one for most errors.
MOST_STRIKES = 5
STRIKES = {"connection": 2, "replica": MOST_STRIKES}
FIRST_PROBE_S = 0.5
LONGEST_PROBE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What became of one request: a `reply`, or an `error`.

    `alone` says that nothing else was in flight at that endpoint all the time;
    `latency_s` leaves out the wait for a slot.
    """

    endpoint: str
    latency_s: float
    alone: bool
    reply: Reply | None = None
    error: RequestError | None = None


@dataclass(slots=True, eq=False)
class Endpoint:
    """One endpoint of the pool: its client, its limit and its health."""

    name: str
    client: ModelClient
    limiter: Limiter
    aside: bool = False
    error: str = ""
    emptying: bool = False  # for a request that has to be alone
    begun: int = 0
    strikes: int = 0
    probe_s: float = FIRST_PROBE_S

    def is_free(self) -> bool:
        """Return whether the next request may go here."""
        return not (self.aside or self.emptying) and self.limiter.has_room()

    @property
    def load(self) -> float:
        """The part of its slots that is used."""
        return self.limiter.in_flight / self.limiter.limit

    def note_answer(self, latency_s: float) -> None:
        """Forget earlier errors."""
        self.strikes = 0
        self.probe_s = FIRST_PROBE_S
        self.limiter.note_answer(latency_s)

    def note_error(self, error: RequestError) -> None:
        """Count what is the endpoint's fault, not the request's."""
        if error.status == 429 or error.retry_after_s is not None:
            self.limiter.note_refusal(error.retry_after_s)
        elif error.retryable:
            self.limiter.note_error()
            self.strikes += STRIKES.get(error.kind, 1)
            self.error = str(error)


# Those who wait for something, the first come first.
_Line = deque[asyncio.Future[T]]


def _waits(line: _Line[Any]) -> bool:
    """Return whether anyone waits in a line, not counting who was cancelled."""
    while line and line[0].done():
        line.popleft()
    return bool(line)


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
    ) -> None:
        self.endpoints = tuple(endpoints)
        self._ceiling = ceiling
        self._outage_s = outage_s
        self._aside_at_start = aside
        self._answered_at: float | None = None
        self._waiting: _Line[Endpoint] = deque()
        self._waiting_alone: _Line[Endpoint] = deque()
        self._places = 0
        self._waiting_outside: _Line[None] = deque()
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
            self._answered_at = time.monotonic()

    async def check(self) -> dict[str, str]:
        """Return why endpoints cannot be asked, by name; raise if none of them can.

        May run on another event loop than the rest, with connections of its own.
        """
        checks = (endpoint.client.check() for endpoint in self.endpoints)
        results = await asyncio.gather(*checks, return_exceptions=True)
        errors: dict[str, str] = {}
        for endpoint, result in zip(self.endpoints, results, strict=True):
            if isinstance(result, VlmEvalError):
                errors[endpoint.name] = str(result)
            elif result is not None:
                raise result
        if len(errors) == len(self.endpoints):
            words = list(errors.values())
            count = f"None of the {len(words)} endpoints can be asked."
            raise VlmEvalError("\n".join([count, *words] if words[1:] else words))
        return errors

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
                f"asking {endpoint.name} failed: {describe(bug)}", kind="bug"
            )
            error.__context__ = bug
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

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of as many places as requests may be in flight; wait for it.

        Whoever asks keeps it until the reply is stored: so after a crash no more is
        asked again than may be in flight. `OutageError` if nothing will be asked any
        more.
        """
        await self._take_place()
        try:
            yield
        finally:
            self._leave_place()

    @asynccontextmanager
    async def lent_place(self) -> AsyncIterator[None]:
        """Let others have the own place meanwhile, by whoever has no reply to lose."""
        self._leave_place()
        try:
            yield
            await self._take_place()
        except BaseException:
            self._places += 1  # which the end of `place` leaves
            raise

    async def _take_place(self) -> None:
        self.raise_outage()
        self._begin()
        if not self._waiting_outside and self._places < self.capacity:
            self._places += 1
        else:
            await self._wait(self._waiting_outside, lambda _: self._leave_place())

    def _leave_place(self) -> None:
        self._places -= 1
        self._serve()

    # Who is served next

    async def _acquire(self, *, alone: bool) -> Endpoint:
        self.raise_outage()
        if not alone and not self._waiting:
            endpoint = self._least_loaded()
            if endpoint is not None:
                return self._enter(endpoint)
        line = self._waiting_alone if alone else self._waiting
        return await self._wait(line, lambda endpoint: endpoint.limiter.end())

    async def _wait(self, line: _Line[T], give_back: Callable[[T], None]) -> T:
        """Wait in a line; who is cancelled when just served gives back what it got."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        line.append(future)
        self._serve()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not future.exception():
                give_back(future.result())
                self._serve()
            raise

    def _least_loaded(self) -> Endpoint | None:
        if self.in_flight >= self._ceiling:
            return None
        free = [endpoint for endpoint in self.endpoints if endpoint.is_free()]
        return min(free, key=lambda endpoint: endpoint.load, default=None)

    def _enter(self, endpoint: Endpoint) -> Endpoint:
        endpoint.begun += 1
        # Its part of the places whose requests are answered.
        healthy = sum(not each.aside for each in self.endpoints)
        held = max(0, self._places - self.in_flight) // max(1, healthy)
        endpoint.limiter.begin(held)
        return endpoint

    def _serve(self) -> None:
        """Hand out free places, then free slots, first to what has to be alone."""
        while _waits(self._waiting_outside) and self._places < self.capacity:
            self._places += 1
            self._waiting_outside.popleft().set_result(None)
        self._serve_alone()
        while _waits(self._waiting) and (endpoint := self._least_loaded()):
            self._waiting.popleft().set_result(self._enter(endpoint))

    def _serve_alone(self) -> None:
        emptying = [each for each in self.endpoints if each.emptying]
        if not _waits(self._waiting_alone):
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
        """Begin to count silence and to probe what is set aside; once."""
        if self._answered_at is not None:
            return
        self._answered_at = time.monotonic()
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
            self._answered_at = time.monotonic()
            endpoint.note_answer(latency_s)
        elif error is not None:
            endpoint.note_error(error)
            left_s = endpoint.limiter.closed_until - time.monotonic()
            if left_s > 0:
                asyncio.get_running_loop().call_later(left_s, self._serve)
            if not error.retryable:
                self._answered_at = time.monotonic()
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
                endpoint.error = str(error).splitlines()[0]
                self._look_for_outage()
            else:
                endpoint.aside = False
                endpoint.strikes = MOST_STRIKES - 1
                self._serve()

    def _look_for_outage(self) -> None:
        """Break once every endpoint is set aside and nothing was answered for long."""
        assert self._answered_at is not None
        silent_s = time.monotonic() - self._answered_at
        if silent_s < self._outage_s or not all(each.aside for each in self.endpoints):
            return
        if any(each.limiter.in_flight for each in self.endpoints):
            return
        errors = "; ".join(each.error for each in self.endpoints)
        self.break_off(
            f"No endpoint has answered for {silent_s:.0f} s. Stopping. Last error: "
            f"{errors.rstrip('.:')}. All answers so far are stored: run the same "
            "command again once the server is back (--vlm-outage sets how long to wait "
            "for it)."
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
        lines: list[_Line[Any]]
        lines = [self._waiting, self._waiting_alone, self._waiting_outside]
        for line in lines:
            while _waits(line):
                line.popleft().set_exception(error)


STOPPED = "not asked, as the session was interrupted"


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
            if self._loop is not None and self._pool is not None:
                self._loop.call_soon_threadsafe(self._pool.stop, STOPPED)

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


def end_note(folder: Path, role: Role) -> Path:
    """Return the file that says why the run's server of a role has ended."""
    return folder / f"{role}.ended"


class Learned:
    """The findings of one process, and by files in `folder` those of the others.

    Without a `folder` they are shared within the process alone. `announce` is told what
    users should know, each line once.
    """

    def __init__(
        self,
        folder: Path | None = None,
        announce: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._folder = folder
        self._announce = announce
        self._announced: set[str] = set()
        self._names: dict[tuple[str, str], str] = {}

    def announce(self, line: str) -> None:
        """Tell the user, once."""
        if line not in self._announced:
            self._announced.add(line)
            self._announce(line)

    def raise_ended(self, role: Role) -> None:
        """Raise `OutageError` if a server that the run had started has ended.

        Each sample would else be asked in vain, again and again, and be recorded as
        failed.
        """
        if self._folder is not None and end_note(self._folder, role).exists():
            raise OutageError(end_note(self._folder, role).read_text(encoding="utf-8"))

    def token_limit_name(self, api_base: str, model: str) -> str:
        """Return the name that a server asked for, "" if it asked for none."""
        key = api_base, model
        if key not in self._names:
            self._names[key] = ""
            if self._folder is not None:
                # Another process of the session may have found it out.
                with suppress(OSError, ValueError):
                    self._names[key] = self._file(self._folder, *key).read_text("utf-8")
        return self._names[key]

    def keep_token_limit_name(self, api_base: str, model: str, name: str) -> None:
        """Remember the name of the token limit for all further requests."""
        self._names[api_base, model] = name
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        write_held(self._file(self._folder, api_base, model), name.encode())

    def _file(self, folder: Path, api_base: str, model: str) -> Path:
        digest = hashlib.sha256(json.dumps([api_base, model]).encode()).hexdigest()
        return folder / f"learned-{digest[:16]}.txt"
