"""When a dataset's threshold is decided before all its samples are asked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_vlmeval.gates.early_stop import (
    FIRST_LOOK,
    Decision,
    Whole,
    in_order,
    look_sizes,
)
from pytest_vlmeval.gates.sequences import Bounds, Side, decided_after
from pytest_vlmeval.gates.units import find_units, shares_verdicts
from pytest_vlmeval.records import Verdict

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.gates.thresholds import Threshold
    from pytest_vlmeval.records import PlanEntry, Score

# The steps of the search for the mean from which on a test of all samples fails.
HALVINGS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyThreshold:
    """The thresholds of a dataset, of which one can be decided early."""

    library: Library
    entry: PlanEntry
    thresholds: Sequence[Threshold]

    def why_whole(self) -> str | None:
        """Say why they cannot be decided early; None if they may be."""
        info = self.library.prepared(self.entry.dataset).info
        if not self.thresholds:
            return "it has no threshold"
        if len(self.thresholds) > 1 or self.thresholds[0].metric:
            return "it has thresholds of further metrics"
        if self.thresholds[0].rule == "point":
            return "the rule point looks at the value of all samples"
        rows = self.library.rows(self.entry.dataset)
        grouped = any(row.group is not None for row in rows)
        if info.kind not in ("multiple_choice", "vqa") or (
            grouped and not shares_verdicts(info)
        ):
            return "its score is not the share of right answers"
        if not look_sizes(self.library, self.entry):
            return f"it has no more than {FIRST_LOOK} samples"
        return None

    def decide(self, score: Score) -> Decision | Whole | None:
        """Return whether all samples would reach the threshold; None if unknown."""
        entry, threshold = self.entry, self.thresholds[0]
        everything = tuple(Verdict(index=index, value=0.0) for index in entry.indexes)
        found = find_units(self.library, score)
        every = find_units(self.library, replace(score, verdicts=everything))
        if found is None or every is None:
            return Whole(dataset=entry.dataset, why="its samples have no verdicts")
        values = in_order(entry, found)
        if not is_share(score, values):
            why = f"{score.main_metric} is not the share of right answers"
            return Whole(dataset=entry.dataset, why=why)
        if np.ptp(values) == 0 and not score.main_metric.startswith("Overall"):
            # Of answers that are all alike most other means have the same value.
            return None
        sizes = list(Counter(unit.cluster for unit in every.all).values())
        bounds = find_bounds(threshold, score.scale, sizes)
        decided = decided_after(values, len(every.all), bounds, 1 - threshold.level)
        return None if decided is None else _say(threshold, score, bounds, decided[1])


def _say(threshold: Threshold, score: Score, bounds: Bounds, side: Side) -> Decision:
    passes = side == "above"
    limit = bounds.passes if passes else bounds.fails
    assert limit is not None
    return Decision(
        gate="threshold",
        outcome="passed" if passes else "failed",
        claim=(
            f"{score.main_metric} of all would be at {'least' if passes else 'most'} "
            f"{limit * score.scale:.2f}, with an error of at most "
            f"{1 - threshold.level:.3g}, so its threshold is "
            f"{'' if passes else 'not '}reached"
        ),
    )


def is_share(score: Score, values: np.ndarray) -> bool:
    """Whether a score is the mean of these values, on its scale."""
    mean = float(values.mean()) * score.scale
    # ms-vlmeval rounds some scores to two digits.
    alike = abs(mean - score.value) <= 0.0051 * score.scale / 100
    return alike and bool(np.all((values >= 0) & (values <= 1)))


def find_bounds(threshold: Threshold, scale: float, sizes: Sequence[int]) -> Bounds:
    """Return which shares of all samples would pass, and which fail, a threshold.

    `sizes` are those of the clusters that all samples make. The share has to be as
    far off as a test of all samples wants, were those of a cluster all alike.
    """
    minimum = threshold.minimum / scale
    if threshold.rule == "confident-above":
        off = _surely_below(1 - minimum, sizes, threshold.level)
        return Bounds(passes=None if off is None else 1 - off, fails=minimum)
    return Bounds(passes=minimum, fails=_surely_below(minimum, sizes, threshold.level))


def _surely_below(expected: float, sizes: Sequence[int], level: float) -> float | None:
    """Return the largest share that is surely below `expected`; None if none is."""
    from pytest_vlmeval.gates.intervals import Proportion

    def is_below(share: float) -> bool:
        # Clusters all right or all wrong, as nearly as the share allows.
        found = Proportion(
            correct=share * effective, sizes=effective, scale=1, level=level
        )
        return found.p_below(expected) <= 1 - level

    samples = math.fsum(sizes)
    worth = samples**2 / math.fsum(size**2 for size in sizes)
    effective = np.ones(max(1, math.floor(worth)))
    if not is_below(0.0):
        return None
    low, high = 0.0, expected
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return low
