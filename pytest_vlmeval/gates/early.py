"""When the gates of a dataset are decided before all its samples are asked.

Samples are drawn in random order without replacement, so what is asked tells of the
mean of this very dataset, whatever its samples have in common. One bets on each next
value against the mean that is to be refuted; the capital is a martingale if that mean
is true, and passes 1 / alpha with a chance of at most `alpha`, whenever one looks
(Ville). Waudby-Smith and Ramdas, JRSS B 86 (2024) 1, sections 4 and 5.

Both are said of one mean over all samples, which is then known from the first ones:
that of drop - slope * change. `drop` is by how much a verdict fell, `change` its square
times the size of the sample's cluster; over all samples the first are the paired test's
effect, the second (at least) its variance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from pytest_vlmeval.gates.measures import find_units, shares_verdicts
from pytest_vlmeval.gates.statistics import NORMAL, Bounds
from pytest_vlmeval.gates.thresholds import RULES
from pytest_vlmeval.records import (
    Decision,
    GateResult,
    Stop,
    Verdict,
    Whole,
    is_failure,
)

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.gates.baseline import BaselineGate
    from pytest_vlmeval.gates.baseline_file import Baseline
    from pytest_vlmeval.gates.measures import Units
    from pytest_vlmeval.gates.thresholds import Threshold
    from pytest_vlmeval.records import PlanEntry, Score

# Samples at the first look, and how many times more there are at each further one.
FIRST_LOOK = 50
GROWTH = 1.5


class EarlyGate(Protocol):
    """A gate that may be decided by the first samples of a dataset."""

    def why_whole(self) -> str | None:
        """Explain why it cannot be decided early; None if it may be."""

    def decide(self, score: Score) -> Decision | Whole | None:
        """Return what the score of the first samples decides; None for nothing.

        `Whole` where the score turns out not to be of the kind that can.
        """


def as_gate(found: Stop | Whole) -> GateResult:
    """Return what reports show of it: it fails nothing by itself."""
    return GateResult(
        dataset=found.dataset,
        gate="early stop",
        outcome="passed",
        message=f"{found.reason}.",
        samples=found.asked if isinstance(found, Stop) else 0,
    )


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


def in_order(entry: PlanEntry, units: Units) -> np.ndarray:
    """Return the values of units as they were asked, shape (units,)."""
    place = {index: number for number, index in enumerate(entry.indexes)}
    ordered = sorted(units.all, key=lambda unit: place[unit.index])
    return np.array([unit.value for unit in ordered])


# The largest part of the capital that one bet may lose: the paper's c.
MOST_AT_STAKE = 0.75
TINY = 1e-9

Side = Literal["above", "below"]


def log_capital(values: np.ndarray, total: int, mean: float, side: Side) -> np.ndarray:
    """Return the logarithm of the capital after each value, shape (..., asked).

    `values`, shape (..., asked), lie in [0, 1] and are the first of `total` in random
    order. The capital is evidence that the mean of all is on this `side` of `mean`;
    infinite where what is not asked cannot change that.
    """
    if side == "below":
        return log_capital(1 - values, total, 1 - mean, "above")
    asked = values.shape[-1]
    count = np.arange(asked)
    sums = np.cumsum(values, axis=-1)
    before = sums - values
    # What the next value is on average, if `mean` is that of all.
    expected = (total * mean - before) / (total - count)
    squares = np.cumsum(values**2, axis=-1) - values**2
    # As if half a value of variance 1/4 had been seen: the paper's eq. 15.
    average = (before + 0.5) / (count + 1)
    spread = np.maximum((squares + 0.5) / (count + 1) - average**2, 1e-4)
    edge = average - expected
    stake = np.clip(edge / (spread + edge**2), 0, None)
    stake = np.minimum(stake, MOST_AT_STAKE / np.maximum(expected, TINY))
    capital = np.cumsum(
        np.log1p(np.maximum(stake * (values - expected), -1 + TINY)), -1
    )
    certain = sums >= total * mean - TINY
    return np.where(certain, np.inf, capital)


def first_crossing(
    values: np.ndarray, total: int, mean: float, side: Side, alpha: float
) -> int | None:
    """Return after how many values the mean of all is surely on a side; None if not.

    Wrongly so with a chance of at most `alpha`, however often one looks.
    """
    capital = log_capital(values, total, mean, side)
    crossed = np.flatnonzero(capital >= -math.log(alpha))
    return int(crossed[0]) + 1 if len(crossed) else None


def decided_after(
    values: np.ndarray, total: int, bounds: Bounds, alpha: float
) -> tuple[int, Side] | None:
    """Return after how many values the mean of all is decided, and on which side.

    None where it is not yet. The side is the wrong one with a chance of at most
    `alpha`, however often one looks.
    """
    sides: tuple[Side, Side] = ("above", "below")
    limits = zip((bounds.passes, bounds.fails), sides, strict=True)
    return _earliest(
        [(values, limit, side) for limit, side in limits if limit is not None],
        total,
        alpha,
    )


def _earliest(
    limits: Sequence[tuple[np.ndarray, float, Side]], total: int, alpha: float
) -> tuple[int, Side] | None:
    """Return what is decided first: each limit is of the mean of its values."""
    crossed = [
        (first_crossing(values, total, limit, side, alpha), side)
        for values, limit, side in limits
    ]
    found = [(after, side) for after, side in crossed if after is not None]
    return min(found, default=None)


# The share of samples that change for which a drop is claimed soonest; the claim holds
# whatever the share is.
EXPECTED_CHANGED = 0.1


class Tangent(NamedTuple):
    """A bound on the mean of drop - slope * change over all samples.

    `largest` is the size of the largest cluster of all: no change is above that.
    """

    slope: float
    mean: float
    largest: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedBounds:
    """What decides: it fails surely from one line on, and passes surely below another.

    None where no run of such samples would be decided so.
    """

    fails: Tangent | None
    passes: Tangent | None


def find_paired_bounds(
    sizes: np.ndarray,
    *,
    right_or_wrong: bool,
    margin: float,
    alpha: float,
    strict: bool,
) -> PairedBounds:
    """Return which means decide the paired test of all samples.

    `sizes`, shape (samples,), are those of the clusters that the samples are in. With
    `strict` any drop beyond the margin fails, so that not finding one is not enough to
    pass.
    """
    from pytest_vlmeval.gates.paired import MOST_ENUMERATED

    samples = len(sizes)
    # The exact test with a margin is slow to invert.
    is_enumerated = margin > 0 and samples <= MOST_ENUMERATED
    if right_or_wrong and sizes.max() == 1 and not is_enumerated:
        fails, passes = _of_counts(samples, margin, alpha)
    else:
        fails, passes = _of_clusters(sizes, margin, alpha)
        # Of less than five that are lost no test says so at an alpha of 0.05.
        fewest = math.ceil(math.log(alpha) / math.log(0.5))
        if right_or_wrong and margin == 0:
            passes = Tangent(0.0, fewest / samples)
    return PairedBounds(
        fails=fails,
        passes=Tangent(0.0, margin + TINY) if strict else passes,
    )


def _of_counts(
    samples: int, margin: float, alpha: float
) -> tuple[Tangent | None, Tangent | None]:
    """Lay lines above and below what the test of lost and gained samples rejects."""
    changed = np.arange(samples + 1)
    from pytest_vlmeval.gates.paired import fewest_lost

    drop = 2 * fewest_lost(samples, margin, alpha) - changed
    found = drop <= changed
    if not found.any():
        return None, None
    changed, drop = changed[found], drop[found]
    typical = max(EXPECTED_CHANGED * samples, 1.0)
    # The slope of z * sqrt(changed), which the boundary follows.
    steep = min(-NORMAL.inv_cdf(alpha) / (2 * math.sqrt(typical)), 0.9)
    flat = (drop[-1] - drop[0]) / max(changed[-1] - changed[0], 1)
    return (
        Tangent(steep, float((drop - steep * changed).max()) / samples),
        Tangent(float(flat), float((drop - flat * changed).min()) / samples),
    )


def _of_clusters(
    sizes: np.ndarray, margin: float, alpha: float
) -> tuple[Tangent, Tangent]:
    """Lay a tangent to a normal test's bound, the changes of a cluster all alike."""
    z, samples = -NORMAL.inv_cdf(alpha), len(sizes)
    typical = EXPECTED_CHANGED * float(sizes.sum())
    slope = z / (2 * math.sqrt(typical))
    # One cluster more, as the test of few changes knows no halves.
    limit = margin * samples + z * math.sqrt(typical) / 2 + float(sizes.max())
    fails = Tangent(slope, limit / samples, float(sizes.max()))
    return fails, Tangent(0.0, margin + TINY)


def paired_decided_after(
    changes: np.ndarray,
    sizes: np.ndarray,
    total: int,
    bounds: PairedBounds,
    alpha: float,
) -> tuple[int, Side] | None:
    """Return after how many samples the test of all is decided; None if not yet.

    `changes`, shape (asked,), in [-1, 1], are what verdicts rose by since the baseline,
    in the random order in which they are asked; `sizes` those of their clusters. The
    side is "above" where the test of all would find a drop. It is the wrong one with a
    chance of at most `alpha`, however often one looks.
    """
    sides: tuple[Side, Side] = ("above", "below")
    lines = zip((bounds.fails, bounds.passes), sides, strict=True)
    return _earliest(
        [
            (*paired_values(changes, sizes, line), side)
            for line, side in lines
            if line is not None
        ],
        total,
        alpha,
    )


def paired_values(
    changes: np.ndarray, sizes: np.ndarray, line: Tangent
) -> tuple[np.ndarray, float]:
    """Return what a line bounds the mean of, moved to [0, 1], and the bound itself.

    `changes` has shape (..., asked), `sizes` (asked,).
    """
    width = 1 + line.slope * line.largest
    values = width - changes - line.slope * sizes * changes**2
    return values / (1 + width), (width + line.mean) / (1 + width)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyBaseline:
    """The gate of a baseline; `make_gate` gives that of a score of first samples."""

    library: Library
    entry: PlanEntry
    baseline: Baseline
    make_gate: Callable[[Score], BaselineGate]

    def why_whole(self) -> str | None:
        """Explain why it cannot be decided early; None if it may be."""
        if not look_sizes(self.library, self.entry):
            return f"it has {FIRST_LOOK} samples or fewer"
        return None

    def decide(self, score: Score) -> Decision | Whole | None:
        """Return what the paired test of all samples would find; None if unknown."""
        gate, dataset = self.make_gate(score), self.entry.dataset
        if gate.differences(self.baseline):
            return Whole(
                dataset=dataset, why="its baseline was made with other settings"
            )
        pair = gate.pair(self.baseline)
        kept = self.baseline.values
        verdicts = (Verdict(index=i, value=kept[i]) for i in self.entry.indexes)
        every = gate.find_units(replace(score, verdicts=tuple(verdicts)))
        if pair is None or every is None:
            return Whole(dataset=dataset, why="its samples have no verdicts")
        before, now = (in_order(self.entry, units) for units in pair)
        members = Counter(unit.cluster for unit in every.all)
        sizes = {unit.index: members[unit.cluster] for unit in every.all}
        values = np.array([unit.value for unit in every.all])
        strict = is_failure("inconclusive", gate.inconclusive)
        bounds = find_paired_bounds(
            np.array([sizes[unit.index] for unit in every.all], float),
            right_or_wrong=bool(np.isin(np.concatenate([values, now]), (0, 1)).all()),
            margin=gate.settings.margin / 100,
            alpha=gate.settings.alpha,
            strict=strict,
        )
        asked = {unit.index for unit in pair[1].all}
        order = [sizes[index] for index in self.entry.indexes if index in asked]
        decided = paired_decided_after(
            now - before,
            np.array(order, float),
            len(every.all),
            bounds,
            gate.settings.alpha,
        )
        if decided is None:
            return None
        fails, what = decided[1] == "above", "the paired test of all"
        found = f"would {'' if fails else 'not '}find it worse than its baseline"
        if strict and not fails:
            what = "the share of right answers of all"
            found = "would not be below its baseline by more than is tolerated"
        return Decision(
            gate="baseline",
            outcome="failed" if fails else "passed",
            claim=f"{what} {found}, with an error of at most {gate.settings.alpha:g}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyThreshold:
    """The thresholds of a dataset, of which one can be decided early."""

    library: Library
    entry: PlanEntry
    thresholds: Sequence[Threshold]

    def why_whole(self) -> str | None:
        """Explain why they cannot be decided early; None if they may be."""
        info = self.library.prepared(self.entry.dataset).info
        if not self.thresholds:
            return "it has no threshold"
        if len(self.thresholds) > 1 or self.thresholds[0].metric:
            return "it has thresholds of further metrics"
        if RULES[self.thresholds[0].rule].why_whole:
            return RULES[self.thresholds[0].rule].why_whole
        rows = self.library.rows(self.entry.dataset)
        grouped = any(row.group is not None for row in rows)
        is_share = info.kind in ("multiple_choice", "vqa") and (
            not grouped or shares_verdicts(info)
        )
        # Of a user's own scoring `decide` finds out whether it is.
        if not is_share and not self.entry.scorer:
            return "its score is not the share of right answers"
        if not look_sizes(self.library, self.entry):
            return f"it has {FIRST_LOOK} samples or fewer"
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
        # ms-vlmeval rounds some scores to two digits.
        off = abs(float(values.mean()) - score.value / score.scale)
        if off > 0.0051 / 100 or not np.all((values >= 0) & (values <= 1)):
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
        passes = decided[1] == "above"
        limit = bounds.passes if passes else bounds.fails
        assert limit is not None
        return Decision(
            gate="threshold",
            outcome="passed" if passes else "failed",
            claim=(
                f"{score.main_metric} of all would be at "
                f"{'least' if passes else 'most'} {limit * score.scale:.2f}, with an "
                f"error of at most {1 - threshold.level:.3g}, so its threshold is "
                f"{'' if passes else 'not '}reached"
            ),
        )


def find_bounds(threshold: Threshold, scale: float, sizes: Sequence[int]) -> Bounds:
    """Return which shares of all samples would pass, and which fail, a threshold.

    `sizes` are those of the clusters that all samples make. The share has to be as
    far off as a test of all samples wants, were those of a cluster all alike.
    """
    rule, minimum = RULES[threshold.rule], threshold.minimum / scale
    return rule.bounds(minimum, sizes, threshold.level)
