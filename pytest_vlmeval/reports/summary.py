"""Figures of a dataset that reports share: counts, categories, lengths, latencies."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_vlmeval.gates.completeness import describe_defects
from pytest_vlmeval.models.client import find_ending
from pytest_vlmeval.records import (
    NO_GATE,
    UNANSWERED,
    GateOutcome,
    GateResult,
    Score,
    wilson,
)
from pytest_vlmeval.reports.record import (
    DatasetReport,
    Outcome,
    RunReport,
    SampleReport,
)

BINS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The samples whose measure lies from `start` up to `end`, by what they became."""

    start: float
    end: float
    correct: int
    wrong: int
    other: int

    @property
    def count(self) -> int:
        """How many samples there are."""
        return self.correct + self.wrong + self.other


def percentiles(values: Sequence[float]) -> Mapping[int, float]:
    """Return the 50th, 95th and 99th percentile, by the nearest rank."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        rank: ordered[math.ceil(rank / 100 * len(ordered)) - 1] for rank in (50, 95, 99)
    }


def histogram(
    samples: Sequence[SampleReport], measure: Callable[[SampleReport], float | None]
) -> tuple[Bin, ...]:
    """Sort samples into bins of equal width, on a logarithmic scale if they spread."""
    measured = [(measure(sample), sample) for sample in samples]
    found = [(value, sample) for value, sample in measured if value is not None]
    values = [value for value, _ in found]
    if len(set(values)) < 2:
        return ()
    edges = _edges(min(values), max(values))
    bins = []
    for start, end in itertools.pairwise(edges):
        last = end == edges[-1]
        inside = [
            sample.outcome
            for value, sample in found
            if start <= value < end or (last and value == end)
        ]
        correct, wrong = inside.count("correct"), inside.count("wrong")
        other = len(inside) - correct - wrong
        bins.append(
            Bin(start=start, end=end, correct=correct, wrong=wrong, other=other)
        )
    return tuple(bins)


def _edges(low: float, high: float) -> list[float]:
    if high - low < BINS and low == int(low) and high == int(high):
        return [low + number for number in range(int(high - low) + 2)]
    if low > 0 and high / low > 50:
        step = math.log(high / low) / BINS
        return [*(low * math.exp(step * number) for number in range(BINS)), high]
    step = (high - low) / BINS
    return [*(low + step * number for number in range(BINS)), high]


# Of all intervals that reports show: that of the gates, each bound of which holds with
# a confidence of 95 %.
LEVEL = 0.9
LEVEL_TEXT = f"{100 * LEVEL:g} %"
# Outcomes without a usable answer.
USELESS: tuple[Outcome, ...] = ("empty", "filtered", "refused", "aborted", "failed")
OUTCOMES: tuple[Outcome, ...] = (
    "correct",
    "wrong",
    "undecided",
    "unscored",
    "empty",
    "filtered",
    "refused",
    "aborted",
    "failed",
    "missing",
)
# How answers that refuse to answer begin, in the languages of the datasets.
_REFUSAL = re.compile(
    r"\W*(i'?m sorry|i am sorry|sorry[,.]|i can'?t |i cannot |i am unable|i'?m unable|"
    r"as an ai|i apologi[sz]e|抱歉|对不起|很抱歉|非常抱歉|我无法|我不能)",
    re.IGNORECASE,
)
_OPTION = re.compile(r"[A-Z]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of a whole, with its confidence interval (`LEVEL`), all from 0 to 1."""

    part: float
    whole: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself, 0 of nothing."""
        return self.part / self.whole if self.whole else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """How a category's samples were answered."""

    name: str
    share: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of a dataset.

    `interval` is that of the main metric, from 0 to the score's scale, where it is
    known. `notes` are what readers of the score are to know. `latency_ms` maps
    percentiles to milliseconds. `confusion` counts (reference, answered option) where
    the references are letters. `unknown_endings` counts usable answers by a
    finish_reason that is not known. `cut_off` counts the samples whose answer ended at
    the token limit, whatever came of it. `prompt_tokens` and `completion_tokens` are
    sums.
    """

    notes: tuple[str, ...]
    counts: Mapping[Outcome, int]
    answered: int
    cut_off: int
    interval: tuple[float, float] | None
    judged: int
    undecided: int
    refusals: int
    unknown_endings: Mapping[str, int]
    categories: tuple[Category, ...]
    prompt_tokens: int
    completion_tokens: int
    latency_ms: Mapping[int, float]
    lengths: tuple[Bin, ...]
    latencies: tuple[Bin, ...]
    confusion: Mapping[tuple[str, str], int]
    compared: int
    regressed: int
    fixed: int

    @property
    def references(self) -> list[str]:
        """The options that are right somewhere."""
        return sorted({reference for reference, _ in self.confusion})

    @property
    def said(self) -> list[str]:
        """The options that are right or were answered somewhere; "other" comes last."""
        return sorted({option for pair in self.confusion for option in pair})

    @property
    def most_confused(self) -> int:
        """The largest count of `confusion`."""
        return max(self.confusion.values(), default=1)


def find_share(part: float, whole: int) -> Share:
    """Return a share with its confidence interval."""
    if not whole:
        return Share(part=0, whole=0, low=0, high=1)
    low, high = wilson(part / whole, whole, 0.5 + LEVEL / 2)
    return Share(part=part, whole=whole, low=low, high=high)


def summarize(dataset: DatasetReport) -> Summary:
    """Compute the figures of a dataset."""
    samples = dataset.samples
    answers = [each.answer for each in samples if each.answer is not None]
    usable = [each for each in answers if each.is_usable]
    verdicts = [each.verdict for each in samples if each.verdict is not None]
    counts = Counter(each.outcome for each in samples)
    unknown = Counter(
        each.finish_reason
        for each in usable
        if find_ending(each.finish_reason) == "unknown"
    )
    return Summary(
        notes=(
            *(describe_score(dataset.score) if dataset.score else ()),
            *describe_unknown_endings(unknown),
        ),
        counts={each: counts[each] for each in OUTCOMES if counts[each]},
        answered=len(usable),
        cut_off=sum(each.is_cut_off for each in samples),
        interval=_interval(dataset),
        judged=sum(each.state == "judged" for each in verdicts),
        undecided=counts["undecided"],
        refusals=sum(bool(_REFUSAL.match(each.text)) for each in usable),
        unknown_endings=unknown,
        categories=_categories(samples),
        prompt_tokens=sum(each.prompt_tokens for each in answers),
        completion_tokens=sum(each.completion_tokens for each in answers),
        latency_ms=percentiles([each.latency_ms for each in usable]),
        lengths=histogram(samples, _length),
        latencies=histogram(samples, _latency),
        confusion=_confusion(samples),
        compared=sum(each.before is not None for each in samples),
        regressed=sum(each.flip == "regressed" for each in samples),
        fixed=sum(each.flip == "fixed" for each in samples),
    )


def describe_unknown_endings(reasons: Mapping[str, int]) -> list[str]:
    """Say of each finish_reason that is not known how many answers ended by it."""
    return [
        f"the endpoint ended {count} answer{'s' * (count > 1)} with finish_reason "
        f"'{reason}', which is not known: their text is scored"
        for reason, count in sorted(reasons.items())
    ]


def _interval(dataset: DatasetReport) -> tuple[float, float] | None:
    """Return the interval of the main metric.

    That of a threshold's gate where one computed it, else that of a share of right
    answers. A baseline's is about the difference.
    """
    score = dataset.score
    if score is None or not score.samples:
        return None
    for gate in dataset.gates:
        same = gate.gate == "threshold" and gate.metric == score.main_metric
        if same and gate.interval is not None and gate.interval.level == LEVEL:
            return gate.interval.low, gate.interval.high
    if not _is_share(score):
        return None
    share = find_share(score.correct, score.samples)
    return share.low * score.scale, share.high * score.scale


def _is_share(score: Score) -> bool:
    """Return whether the main metric seems to be the share of right answers."""
    share = score.scale * score.correct / score.samples
    return abs(share - score.value) < 0.0001 * score.scale


def describe_score(score: Score) -> list[str]:
    """Return what readers of a score are to know, a line each."""
    found = list(score.notes)
    if score.unread:
        alone = score.judge == "exact_matching"
        judge = "; a judge would read them" if alone else ""
        found.append(
            f"{score.unread} of {score.answered} answers named no option (counted as "
            f"wrong{judge})"
        )
    if defects := describe_defects(score):
        found.append(defects)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """The figures of all datasets of a run together."""

    samples: int
    answered: int
    counts: Mapping[Outcome, int]
    judged: int
    prompt_tokens: int
    completion_tokens: int
    compared: int
    regressed: int
    fixed: int


def total(summaries: Sequence[Summary]) -> Total:
    """Add up the figures of datasets."""
    counts: Counter[Outcome] = Counter()
    for each in summaries:
        counts.update(each.counts)
    return Total(
        samples=counts.total(),
        answered=sum(each.answered for each in summaries),
        counts={each: counts[each] for each in OUTCOMES if counts[each]},
        judged=sum(each.judged + each.undecided for each in summaries),
        prompt_tokens=sum(each.prompt_tokens for each in summaries),
        completion_tokens=sum(each.completion_tokens for each in summaries),
        compared=sum(each.compared for each in summaries),
        regressed=sum(each.regressed for each in summaries),
        fixed=sum(each.fixed for each in summaries),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What a run comes to: how its report begins.

    `state` is "failed" if a test of the run fails for one of the reasons given here,
    else "passed" if gates were set, and "ungated" if none was. `gates` describes the
    gates, `failing` are those that fail the run. `wrong` counts the wrong answers that
    fail their tests, the other numbers count samples, and `unscored` names datasets
    whose scoring failed.
    """

    state: Literal["failed", "passed", "ungated"]
    gates: str
    failing: tuple[GateResult, ...]
    unusable: int
    undecided: int
    missing: int
    wrong: int
    unscored: tuple[str, ...]


def conclude(report: RunReport, found: Total) -> Conclusion:
    """Return what a run comes to; `found` are its figures."""
    every = [gate for each in report.datasets for gate in each.gates]
    gates = [gate for gate in every if gate.counts]
    outcomes = Counter(gate.outcome for gate in gates)
    is_set = any(gate.is_set or gate.outcome != "passed" for gate in gates)
    failing = tuple(gate for gate in gates if gate.fails)
    words = [f"{outcomes['passed']} of {len(gates)} gates passed"]
    if outcomes["inconclusive"]:
        words.append(f"{outcomes['inconclusive']} inconclusive")
    unusable = sum(found.counts.get(each, 0) for each in USELESS)
    unscored = [each.dataset for each in report.datasets if each.failed_to_score]
    undecided, missing = (
        found.counts.get(each, 0) for each in ("undecided", "missing")
    )
    fails = report.start.fails
    wrong = {
        "none": 0,
        "regressed": found.regressed,
        "wrong": found.counts.get("wrong", 0),
    }[fails]
    state: Literal["failed", "passed", "ungated"] = "passed" if is_set else "ungated"
    if failing or unusable or undecided or missing or wrong or unscored:
        state = "failed"
    return Conclusion(
        state=state,
        gates=", ".join(words) if is_set else NO_GATE,
        failing=failing,
        unusable=unusable,
        undecided=undecided,
        missing=missing,
        wrong=wrong,
        unscored=tuple(unscored),
    )


# Gates that fail the run come first, then those that did not pass.
_URGENCY: Mapping[GateOutcome, int] = {"failed": 1, "inconclusive": 2, "passed": 3}


def by_urgency(gates: Iterable[GateResult]) -> list[GateResult]:
    """Return gates in the order in which they are to be looked at."""
    return sorted(gates, key=lambda it: 0 if it.fails else _URGENCY[it.outcome])


def count_endpoints(report: RunReport) -> Mapping[str, int]:
    """Count the answers of each endpoint, or model that runs here."""
    return Counter(
        sample.answer.endpoint
        for dataset in report.datasets
        for sample in dataset.samples
        if sample.answer is not None and sample.answer.endpoint
    )


def score_before(dataset: DatasetReport) -> float | None:
    """Return the main metric before, from 0 to the score's scale; None if not known.

    The share of right answers of the samples that both have, where that is the
    metric; else the value of the baseline that the gate took.
    """
    before = [each.before for each in dataset.samples if each.before is not None]
    if dataset.score is None:
        return None
    if before and _is_share(dataset.score):
        right = sum(each.outcome == "correct" for each in before)
        return dataset.score.scale * right / len(before)
    gates = (each.expected for each in dataset.gates if each.gate == "baseline")
    return next((value for value in gates if value is not None), None)


def _categories(samples: Sequence[SampleReport]) -> tuple[Category, ...]:
    values: dict[str, list[float]] = {}
    for sample in samples:
        if sample.category is not None and sample.outcome != "unscored":
            values.setdefault(sample.category, []).append(sample.value)
    return tuple(
        Category(name=name, share=find_share(sum(each), len(each)))
        for name, each in sorted(values.items())
    )


def _length(sample: SampleReport) -> float | None:
    """Return an answer's length in characters."""
    if sample.answer is None or not any(sample.answer.replies):
        return None
    return sum(map(len, sample.answer.replies))


def _latency(sample: SampleReport) -> float | None:
    """Return the latency of the last attempt in milliseconds."""
    if sample.answer is None or sample.answer.state in UNANSWERED:
        return None
    return sample.answer.latency_ms


def _confusion(samples: Sequence[SampleReport]) -> Mapping[tuple[str, str], int]:
    """Count which option was answered for which, where most references are letters."""
    lettered = [
        each for each in samples if each.reference and _OPTION.fullmatch(each.reference)
    ]
    if len(lettered) < 2:
        return {}
    pairs: Counter[tuple[str, str]] = Counter()
    for sample in lettered:
        if sample.verdict is not None and sample.reference is not None:
            said = (sample.verdict.extracted or "").strip()
            answered = said if _OPTION.fullmatch(said) else "other"
            pairs[sample.reference, answered] += 1
    return dict(sorted(pairs.items()))
