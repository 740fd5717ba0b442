"""A stored run as one plain record: all that any report may show of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_vlmeval.accounts import Origins
from pytest_vlmeval.gates.outcome import GateResult
from pytest_vlmeval.models.endings import is_cut_off
from pytest_vlmeval.prompts import Turn
from pytest_vlmeval.records import Answer, Score, Setting, Verdict

if TYPE_CHECKING:
    from pytest_vlmeval.accounts import RunAccount
    from pytest_vlmeval.store.history import PastScore

Outcome = Literal[
    "correct",
    "wrong",
    "unscored",
    "undecided",
    "empty",
    "filtered",
    "refused",
    "aborted",
    "failed",
    "missing",
]
Flip = Literal["regressed", "fixed", ""]
# A graded verdict is right from here on, as in the items.
RIGHT_FROM = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """A sample in what the run is compared with; of a baseline without its text.

    `value` is what it counts, from 0 to 1.
    """

    outcome: Outcome
    value: float
    text: str = ""
    extracted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReport:
    """A sample with what became of it.

    `prompt` is empty where the prepared dataset is gone. `answer` is None where
    nothing came back yet, `verdict` where there is none of its own.
    """

    index: str
    prompt: tuple[Turn, ...] = ()
    reference: str | None = None
    category: str | None = None
    group: str | None = None
    answer: Answer | None = None
    verdict: Verdict | None = None
    before: Before | None = None

    @property
    def outcome(self) -> Outcome:
        """What to say of the sample in one word."""
        return find_outcome(self.answer, self.verdict)

    @property
    def value(self) -> float:
        """What it counts, from 0 to 1: nothing without a usable answer or verdict."""
        return (self.verdict.value or 0.0) if self.verdict else 0.0

    @property
    def is_cut_off(self) -> bool:
        """Whether a limit of tokens ended its answer, or the thoughts before it."""
        return self.answer is not None and is_cut_off(self.answer.finish_reason)

    @property
    def flip(self) -> Flip:
        """Whether it was right before and is not now, or the other way round."""
        if self.before is None:
            return ""
        was, now = self.before.outcome == "correct", self.outcome == "correct"
        if was == now:
            return ""
        return "regressed" if was else "fixed"


def find_outcome(answer: Answer | None, verdict: Verdict | None) -> Outcome:
    """Put answer and verdict into one word."""
    if answer is None or answer.state == "not_asked":
        return "missing"
    if not (answer.state == "answered" or answer.state == "cut_off"):
        return answer.state
    if verdict is None:
        return "unscored"
    if verdict.value is None:
        return "unscored" if verdict.state in ("matched", "judged") else "undecided"
    return "correct" if verdict.value >= RIGHT_FROM else "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """A dataset of the run.

    `checksum` is the MD5 of its file and `version` which of several published ones it
    is, "" where one is known. `folder` is that of the prepared dataset, None where it
    is gone. `no_score` says why `score` is None. `by_judge` are the scores of several
    judges, `past` all scores of this very data in the store, newest first. `gates` is
    what the gates of the session found, `origins` which of the answers it asked itself.
    """

    dataset: str
    fingerprint: str
    modified: bool
    checksum: str = ""
    version: str = ""
    samples: tuple[SampleReport, ...]
    folder: Path | None = None
    score: Score | None = None
    no_score: str = ""
    by_judge: tuple[Score, ...] = ()
    origins: Origins = field(default_factory=Origins)
    past: tuple[PastScore, ...] = ()
    gates: tuple[GateResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What was asked of a judge and what it replied; `text` is None without a reply."""

    number: int
    judge: str
    prompt: str
    text: str | None
    error: str
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """A run as reports show it.

    `settings` is what tells the run apart. `began_at` is that of the newest session,
    in seconds since 1970; `revision` the commit it was started at. `exchanges` are
    by their numbers in the store, `account` is what it cost. `compared_with` names
    what `before` is of.
    """

    version: str
    run_id: str
    model: str
    settings: Mapping[str, Setting | None]
    began_at: float
    revision: str
    scorer: str
    datasets: tuple[DatasetReport, ...]
    exchanges: Mapping[int, Exchange] = field(default_factory=dict)
    account: RunAccount | None = None
    compared_with: str = ""
