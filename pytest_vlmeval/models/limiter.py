"""How many requests an endpoint may have in flight, and why that changes.

No clock but the one that is given and no event loop, so that it can be followed step
by step. A *round* is as many answers as there are slots.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

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

Note = Callable[[int, int, str], None]


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
    growth. For both a Retry-After closes the endpoint. `note` is told the limit
    before and after every change with its reason.
    """

    def __init__(
        self,
        concurrency: Concurrency,
        note: Note,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ceiling, self._adaptive = concurrency
        self.limit = min(START, self._ceiling) if self._adaptive else self._ceiling
        self.in_flight = 0
        self.closed_until = 0.0
        self._note = note
        self._clock = clock
        self._slow_start = True
        self._slow_rounds = 0
        self._no_cut_until = 0.0
        self._no_growth_until = 0.0
        self._best: _Measured | None = None
        self._round = _Round(clock())
        note(0, self.limit, "start" if self._adaptive else "fixed")

    def set_ceiling(self, ceiling: int) -> None:
        """Take another upper bound, as processes of the session come and go."""
        self._ceiling = ceiling
        if not self._adaptive or self.limit > ceiling:
            self._change(ceiling, "share of the session's processes")
        elif not self.limit:
            self._change(min(START, ceiling), "share of the session's processes")

    def has_room(self) -> bool:
        """Whether another request may be sent now."""
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
            self._note(self.limit, self.limit, f"closed for {retry_after_s:g} s")
        if not self._adaptive or now < self._no_cut_until:
            return
        self._slow_start = False
        self._no_cut_until = max(now + CUT_AGAIN_S, self.closed_until)
        self._no_growth_until = self._no_cut_until
        self._change(max(1, int(self.limit * CUT)), "the server answered 429")

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
        if best is not None and _is_slower(measured, best):
            # One such round may be a hiccup of this machine; growth waits meanwhile.
            self._slow_rounds += 1
            if self._slow_rounds < SLOW_ROUNDS:
                return
            self._slow_rounds = 0
            self._slow_start = False
            self._no_growth_until = now + CUT_AGAIN_S
            reason = (
                f"95% of the answers within {1000 * measured.p95_s:.0f} ms after "
                f"{1000 * best.p95_s:.0f}, at {measured.rate:.1f}/s after "
                f"{best.rate:.1f}"
            )
            self._change(best.limit, reason)
            return
        self._slow_rounds = 0
        if best is None or measured.limit <= best.limit or measured.rate > best.rate:
            self._best = measured
        if done.clean and now >= self._no_growth_until:
            self._grow()

    def _grow(self) -> None:
        step = 2 * self.limit if self._slow_start else int(self.limit * STEP)
        reason = "a clean round, doubled" if self._slow_start else "a clean round"
        self._change(min(max(step, self.limit + 1), self._ceiling), reason)

    def _change(self, limit: int, reason: str) -> None:
        if limit != self.limit:
            self._note(self.limit, limit, reason)
            self.limit = limit


def _is_slower(measured: _Measured, best: _Measured) -> bool:
    return (
        measured.limit > best.limit
        and measured.p95_s > SLOWER * best.p95_s
        and measured.rate < GAIN * best.rate
    )
