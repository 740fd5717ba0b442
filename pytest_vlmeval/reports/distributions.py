"""How answers spread: percentiles, and histograms that also say what was right."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pytest_vlmeval.reports.record import SampleReport

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
