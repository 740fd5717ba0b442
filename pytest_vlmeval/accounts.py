"""What a run asked and what it cost: plain data for the store and for reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """A request that got no answer, whether or not a later one did.

    `asked` is the name of the model or the judge, `endpoint` its base URL. `kind` is
    the HTTP status, or another of `models.client.ErrorKind`. `at` is in seconds since
    1970.
    """

    asked: str
    endpoint: str
    fingerprint: str
    index: str
    kind: str
    message: str
    latency_ms: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChange:
    """How many requests an endpoint may have in flight from `at` on, and why."""

    asked: str
    endpoint: str
    before: int
    after: int
    reason: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What was asked of one model or judge for one dataset, or for all of them.

    `dataset` is "" for all. `requests` counts every attempt, `retries` those beyond
    the first of each question, `answers` the questions that were answered in any way,
    `failed` those that were not. Latencies are those of the last attempts, in ms, by
    the nearest rank; None where nothing was answered. `errors` counts failed attempts
    by kind.
    """

    dataset: str
    asked: str
    requests: int
    retries: int
    answers: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """How many answers a session asked itself, and where it has the others from.

    `equal` are those of its own that it asked for an equal prompt, once for all.
    `oldest` and `newest` are when those were given, to the day, in seconds since 1970,
    and `endpoints` what gave them; all of them empty where `stored` is 0.
    """

    asked: int = 0
    equal: int = 0
    stored: int = 0
    oldest: float = 0.0
    newest: float = 0.0
    endpoints: tuple[str, ...] = ()

    @property
    def described(self) -> str:
        """Say from when the stored ones are and what gave them, "" without any."""
        times = (self.oldest, self.newest) if self.stored else ()
        days = [f"{datetime.fromtimestamp(at, UTC):%d %b %Y}" for at in times if at]
        parts = [" to ".join(dict.fromkeys(days)), ", ".join(self.endpoints)]
        return ", ".join(filter(None, parts))

    def __add__(self, other: Origins) -> Origins:
        """Return those of both together."""
        both = [each for each in (self, other) if each.stored]
        return Origins(
            asked=self.asked + other.asked,
            equal=self.equal + other.equal,
            stored=self.stored + other.stored,
            oldest=min((each.oldest for each in both), default=0.0),
            newest=max((each.newest for each in both), default=0.0),
            endpoints=tuple(sorted({*self.endpoints, *other.endpoints})),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotCheck:
    """What asking some stored answers again has shown.

    `state` is "same", "few" (too few to tell: their new answers count), "weights"
    (nothing was asked: the same checksums) or "unchecked", for the reason `why`; where
    they have changed nothing is used, and there is no such record. Of the `asked`
    samples `same` were answered as before, `changed` twice in another way, `unsteady`
    each time differently, and `failed` not at all; `requests` counts every attempt.
    `few` are those among them that are all of their source, and too few to tell.
    """

    state: Literal["same", "few", "weights", "unchecked"]
    why: str = ""
    asked: int = 0
    same: int = 0
    changed: int = 0
    unsteady: int = 0
    failed: int = 0
    few: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAccount:
    """The account of a run: all its sessions together.

    `model` is the total, `datasets` has one entry for each dataset of the plan;
    `judges` and `judge_datasets` are the same for each judge that was asked, with
    what the run's own questions cost: those that were stored before cost nothing.
    `changes` are those of the concurrency, oldest first. `now` and `judges_now` are
    what the session at hand has asked itself, its spot check included, `origins` says
    which of its answers are from the store, and `spot_check` whether those were found
    to be the model's.
    """

    model: Account
    datasets: tuple[Account, ...]
    judges: tuple[Account, ...] = ()
    judge_datasets: tuple[Account, ...] = ()
    changes: tuple[LimitChange, ...] = ()
    now: Account | None = None
    judges_now: tuple[Account, ...] = ()
    origins: Origins | None = None
    spot_check: SpotCheck | None = None
