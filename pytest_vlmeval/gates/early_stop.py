"""When a dataset's threshold is decided before all its samples are asked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_vlmeval.gates.outcome import GateResult
from pytest_vlmeval.gates.sequences import Bounds, decided_after
from pytest_vlmeval.gates.units import find_units, shares_verdicts
from pytest_vlmeval.records import Verdict

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.gates.thresholds import Threshold
    from pytest_vlmeval.gates.units import Units
    from pytest_vlmeval.records import PlanEntry, Score

# Samples at the first look, and how many times more there are at each further one.
FIRST_LOOK = 50
GROWTH = 1.5
# The steps of the search for the mean from which on a test of all samples fails.
HALVINGS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """That a dataset's threshold was decided after `asked` of `total` samples.

    `limit` is what the metric of all samples surely reaches, or does not exceed where
    the outcome is "failed", but for a chance of at most `error`.
    """

    dataset: str
    asked: int
    total: int
    metric: str
    outcome: Literal["passed", "failed"]
    limit: float
    error: float

    @property
    def reason(self) -> str:
        """Say that it stopped, after how many samples, why and how surely."""
        side = "at least" if self.outcome == "passed" else "at most"
        decided = "reached" if self.outcome == "passed" else "not reached"
        return (
            f"{self.dataset} stopped after {self.asked:,} of {self.total:,} samples: "
            f"{self.metric} of all would be {side} {self.limit:.2f}, with an error of "
            f"at most {self.error:.3g}, so its threshold is {decided} "
            "(--vlm-stop-early)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """That all samples of a dataset are asked, and why."""

    dataset: str
    why: str

    @property
    def reason(self) -> str:
        """Say so in a sentence."""
        return f"{self.dataset} is asked whole (--vlm-stop-early): {self.why}"


def as_gate(found: Stop | Whole) -> GateResult:
    """Return what reports show of it: it fails nothing by itself."""
    return GateResult(
        dataset=found.dataset,
        gate="early stop",
        outcome="passed",
        message=f"{found.reason}.",
        samples=found.asked if isinstance(found, Stop) else 0,
    )


def why_whole(
    library: Library, entry: PlanEntry, thresholds: Sequence[Threshold]
) -> str | None:
    """Say why a dataset's gates cannot be decided early; None if they may be."""
    info = library.prepared(entry.dataset).info
    if not thresholds:
        return "it has no threshold"
    if len(thresholds) > 1 or thresholds[0].metric:
        return "it has thresholds of further metrics"
    if thresholds[0].rule == "point":
        return "the rule point looks at the value of all samples"
    grouped = any(row.group is not None for row in library.rows(entry.dataset))
    if info.kind not in ("multiple_choice", "vqa") or (
        grouped and not shares_verdicts(info)
    ):
        return "its score is not the share of right answers"
    if look_sizes(library, entry) == []:
        return f"it has no more than {FIRST_LOOK} samples"
    return None


def look_sizes(library: Library, entry: PlanEntry) -> list[int]:
    """Return after how many samples of a plan's order to look; groups stay whole."""
    groups = {row.index: row.group for row in library.rows(entry.dataset)}
    order = [groups[index] for index in entry.indexes]
    sizes: list[int] = []
    wanted = float(FIRST_LOOK)
    for place in range(1, len(order)):
        inside = order[place] is not None and order[place] == order[place - 1]
        if place >= wanted and not inside:
            sizes.append(place)
            wanted = place * GROWTH
    return sizes


def decide_early(
    library: Library, entry: PlanEntry, threshold: Threshold, score: Score
) -> Stop | Whole | None:
    """Return what the score of the first samples of `entry` decides; None for nothing.

    `Whole` where the score turns out not to be the share of right answers.
    """
    everything = tuple(Verdict(index=index, value=0.0) for index in entry.indexes)
    found = find_units(library, score)
    every = find_units(library, replace(score, verdicts=everything))
    if found is None or every is None:
        return Whole(dataset=entry.dataset, why="its samples have no verdicts")
    values = _in_order(entry, found)
    if not _is_share(score, values):
        why = f"{score.main_metric} is not the share of right answers"
        return Whole(dataset=entry.dataset, why=why)
    if np.ptp(values) == 0 and not score.main_metric.startswith("Overall"):
        # Of answers that are all alike most other means have the same value.
        return None
    sizes = list(Counter(unit.cluster for unit in every.all).values())
    bounds = find_bounds(threshold, score.scale, sizes)
    decided = decided_after(values, len(every.all), bounds, 1 - threshold.level)
    if decided is None:
        return None
    limit = bounds.passes if decided[1] == "above" else bounds.fails
    assert limit is not None
    return Stop(
        dataset=entry.dataset,
        asked=score.samples,
        total=len(entry.indexes),
        metric=score.main_metric,
        outcome="passed" if decided[1] == "above" else "failed",
        limit=limit * score.scale,
        error=1 - threshold.level,
    )


def _in_order(entry: PlanEntry, units: Units) -> np.ndarray:
    """Return the values of units as they were asked, shape (units,)."""
    place = {index: number for number, index in enumerate(entry.indexes)}
    ordered = sorted(units.all, key=lambda unit: place[unit.index])
    return np.array([unit.value for unit in ordered])


def _is_share(score: Score, values: np.ndarray) -> bool:
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
