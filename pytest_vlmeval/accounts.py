"""What a run asked and what it cost: plain data for the store and for reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """A request that got no answer, whether or not a later one did.

    `asked` is the name of the model or the judge, `endpoint` its base URL. `kind` is
    the HTTP status, or "connection", "timeout", "protocol" or "input". `at` is in
    seconds since 1970.
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
class RunAccount:
    """The account of a run: all its sessions together.

    `model` is the total, `datasets` has one entry for each dataset of the plan;
    `judges` and `judge_datasets` are the same for each judge that was asked, with
    what the run's own questions cost: those that were stored before cost nothing.
    `changes` are those of the concurrency, oldest first.
    """

    model: Account
    datasets: tuple[Account, ...]
    judges: tuple[Account, ...] = ()
    judge_datasets: tuple[Account, ...] = ()
    changes: tuple[LimitChange, ...] = ()
