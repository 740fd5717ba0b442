"""Two runs over the same samples: whether the second did worse, and one could tell.

Verdicts that are right or wrong, each of its own sample, are compared by McNemar's
exact test, with a margin by Tango's score test. Graded verdicts, and samples of which
several share a group or a picture, by a bootstrap of whole clusters (BCa) together
with a sign-flip test. The larger p-value of the two counts: where few samples change,
the bootstrap alone finds a drop too often, and the sign-flip test alone knows of no
margin.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pytest_vlmeval.gates.power import needed_samples, power_of, smallest_drop
from pytest_vlmeval.gates.proportions import drop_p, score_interval
from pytest_vlmeval.gates.resampling import bootstrap_mean, sign_flip_p


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What became of the samples from one run to another, in shares from 0 to 1.

    `before` and `after` are the mean verdicts, `change` is after - before, between
    `low` and `high`, each bound with the confidence 1 - `level`. `p_value` is that of
    H0: it fell by at most `margin`; `p_gain` that of H0: it rose by at most that.
    `lost` counts the samples that were right before and are wrong after, `gained` the
    other way. `smallest` is the smallest drop that so many samples show with a power
    of 0.8 (None: not even the largest), `needed` how many would tell a drop like the
    one that was seen.
    """

    samples: int
    clusters: int
    before: float
    after: float
    change: float
    low: float
    high: float
    level: float
    margin: float
    p_value: float
    p_gain: float
    lost: int
    gained: int
    changed: float
    smallest: float | None
    needed: int | None
    method: str
    interval_method: str

    @property
    def two_sided_p(self) -> float:
        """The p-value of H0: there is no difference, either way (without margin)."""
        return min(1.0, 2 * min(self.p_value, self.p_gain))

    def power(self, drop: float) -> float:
        """Return the chance that a true drop of `drop` would have been found."""
        return power_of(drop, self.clusters, self.changed, self.margin, self.level)


def compare(
    before: Sequence[float],
    after: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    margin: float = 0.0,
    level: float = 0.05,
    seed: int = 0,
) -> Comparison:
    """Compare the verdicts of two runs, in [0, 1], sample by sample.

    `clusters` names for each sample what it shares with others (a group, a picture);
    without it every sample is independent. Raises ValueError for sequences of
    different lengths, or none.
    """
    first, second = np.asarray(before, float), np.asarray(after, float)
    if not len(first) or first.shape != second.shape:
        raise ValueError(f"{len(first)} and {len(second)} verdicts cannot be paired")
    units = _Units.of(first, second, clusters)
    test = _by_counts if units.are_binary else _by_resampling
    size = len(first) / len(units.sums)
    # Per unit of mean size, so that groups count as one independent sample.
    changed = float(np.mean((units.sums / size) ** 2))
    needed = needed_samples(float((first - second).mean()), changed, margin, level)
    return Comparison(
        samples=len(first),
        clusters=len(units.sums),
        before=float(first.mean()),
        after=float(second.mean()),
        change=float((second - first).mean()),
        level=level,
        margin=margin,
        lost=int(np.count_nonzero((first >= 0.5) & (second < 0.5))),
        gained=int(np.count_nonzero((first < 0.5) & (second >= 0.5))),
        changed=changed,
        smallest=smallest_drop(len(units.sums), changed, margin, level),
        needed=None if needed is None else int(np.ceil(needed * size)),
        **test(units, margin, level, seed)._asdict(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Units:
    """The independent units: `sums` of their differences, `sizes` in samples."""

    sums: np.ndarray
    sizes: np.ndarray
    are_binary: bool

    @classmethod
    def of(
        cls,
        before: np.ndarray,
        after: np.ndarray,
        clusters: Sequence[Hashable] | None,
    ) -> _Units:
        places: dict[Hashable, int] = {}
        names = range(len(before)) if clusters is None else clusters
        unit = np.array([places.setdefault(name, len(places)) for name in names])
        sums = np.bincount(unit, after - before)
        sizes = np.bincount(unit)
        # A circular question has one verdict, shown on each of its rotations: where
        # groups are of one size, whole groups are right or wrong.
        are_binary = bool(np.ptp(sizes) == 0) and all(
            _are_right_or_wrong(verdicts, unit, sizes) for verdicts in (before, after)
        )
        return cls(sums=sums, sizes=sizes, are_binary=are_binary)


def _are_right_or_wrong(
    verdicts: np.ndarray, unit: np.ndarray, sizes: np.ndarray
) -> bool:
    """Whether all samples of each unit are right, or all are wrong."""
    means = np.bincount(unit, verdicts) / sizes
    return bool(np.isin(verdicts, (0, 1)).all() and np.isin(means, (0, 1)).all())


class _Found(NamedTuple):
    low: float
    high: float
    p_value: float
    p_gain: float
    method: str
    interval_method: str


def _by_counts(units: _Units, margin: float, level: float, seed: int) -> _Found:
    count = len(units.sums)
    lost = int(np.count_nonzero(units.sums < 0))
    gained = int(np.count_nonzero(units.sums > 0))
    low, high = score_interval(lost, gained, count, level)
    return _Found(
        low=low,
        high=high,
        p_value=drop_p(lost, gained, count, margin),
        p_gain=drop_p(gained, lost, count, margin),
        method="paired score test (Tango)" if margin else "exact McNemar test",
        interval_method="paired score (Tango)",
    )


def _by_resampling(units: _Units, margin: float, level: float, seed: int) -> _Found:
    if not units.sums.any():
        return _Found(
            low=0.0,
            high=0.0,
            p_value=1.0,
            p_gain=1.0,
            method="paired bootstrap (BCa)",
            interval_method="paired bootstrap (BCa)",
        )
    boot = bootstrap_mean(units.sums, units.sizes, seed)
    fell, rose = sign_flip_p(units.sums, seed)
    clustered = "clustered " if (units.sizes > 1).any() else ""
    return _Found(
        low=boot.quantile(level),
        high=boot.quantile(1 - level),
        p_value=max(boot.p_above(-margin), fell),
        p_gain=max(1 - boot.p_above(margin), rose),
        method=f"{clustered}paired bootstrap (BCa) and sign-flip test",
        interval_method=f"{clustered}paired bootstrap (BCa)",
    )
