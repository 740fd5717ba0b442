"""One endpoint of a pool: its load, its health, and what became of its requests."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_vlmeval.models.client import ModelClient, Reply, RequestError
from pytest_vlmeval.models.limiter import Limiter

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


class Endpoint:
    """One endpoint of the pool: its client, its limit and its health."""

    def __init__(self, name: str, client: ModelClient, limiter: Limiter) -> None:
        self.name = name
        self.client = client
        self.limiter = limiter
        self.aside = False
        self.trouble = ""
        self.emptying = False  # for a request that has to be alone
        self.begun = 0
        self.strikes = 0
        self.probe_s = FIRST_PROBE_S

    def is_free(self) -> bool:
        """Whether the next request may go here."""
        return not (self.aside or self.emptying) and self.limiter.has_room()

    @property
    def load(self) -> float:
        """The part of its slots that is used."""
        return self.limiter.in_flight / self.limiter.limit

    def note_answer(self, latency_s: float) -> None:
        """Forget earlier trouble."""
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
            self.trouble = str(error)
