"""Intervals of all that is no plain share: bootstrap of the sums it is made of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_vlmeval.gates.intervals import NORMAL, POWER, Numbers
from pytest_vlmeval.gates.outcome import Interval

RESAMPLES = 9_999
SEED = 0
# Weights held at once by the bootstrap: 8 MB.
BATCH = 1_000_000
# A spread below this share of the values is none but for rounding.
NO_SPREAD = 1e-9

# Takes sums, shape (..., K), and returns values, shape (...).
Statistic = Callable[[Numbers], Numbers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """A value that is computed from sums, with what a bootstrap found.

    `distribution` are the values of the resamples, `acceleration` is BCa's.
    """

    value: float
    samples: int
    clusters: int
    interval: Interval
    distribution: Numbers
    acceleration: float

    def p_below(self, expected: float) -> float:
        """Return the smallest error level whose BCa bound lies below `expected`.

        T. DiCiccio and B. Efron, Bootstrap Confidence Intervals, 1996, doi
        10.1214/ss/1032280214, equation 2.3, solved for the level, of which
        `expand` makes that of the bound.
        """
        return shrink(self._deviate(expected), self.clusters)

    def p_above(self, expected: float) -> float:
        """Return the smallest error level whose BCa bound lies above `expected`."""
        return shrink(-self._deviate(expected), self.clusters)

    def _deviate(self, expected: float) -> float:
        bias = NORMAL.inv_cdf(_rank(self.distribution, self.value))
        found = NORMAL.inv_cdf(_rank(self.distribution, expected)) - bias
        return found / (1 + self.acceleration * found) - bias

    def needed(self, expected: float) -> int | None:
        """Return the size at which a normal test of the difference has `POWER`.

        E. Miller, 2024, arXiv 2411.00640, section 5, of one model.
        """
        difference = self.value - expected
        if difference == 0:
            return None
        z = NORMAL.inv_cdf((1 + self.interval.level) / 2) + NORMAL.inv_cdf(POWER)
        variance = float(self.distribution.var(ddof=1))
        return math.ceil(self.samples * variance * (z / difference) ** 2)


def expand(level: float, clusters: int) -> float:
    """Return the level of the bootstrap's bound that holds with `level`.

    A bootstrap of few clusters is too narrow, as is a normal interval whose spread is
    estimated: T. Hesterberg, What Teachers Should Know About the Bootstrap, 2015, doi
    10.1080/00031305.2015.1089789, the expanded percentile interval. By simulation an
    interval of 90 % holds 86 % to 87 % of 12 clusters, without it 81 % to 83 %.
    """
    from scipy import stats

    freedom = max(clusters - 1, 1)
    factor = math.sqrt(1 + 1 / freedom)
    return NORMAL.cdf(factor * float(stats.t.ppf(level, freedom)))


def shrink(deviate: float, clusters: int) -> float:
    """Return the error level of a bound so many normal deviates away: `expand` back."""
    from scipy import stats

    freedom = max(clusters - 1, 1)
    return float(stats.t.sf(deviate / math.sqrt(1 + 1 / freedom), freedom))


def _rank(distribution: Numbers, value: float) -> float:
    """Return the share of resamples below a value, never quite 0 or 1."""
    below = (distribution < value).sum() + (distribution == value).sum() / 2
    return float((below + 0.5) / (len(distribution) + 1))


def bootstrap(
    totals: Numbers, statistic: Statistic, *, samples: int, level: float
) -> Resampled | None:
    """Resample clusters and give the BCa interval; None where that shows no spread.

    `totals`, shape (G, K), has the sums of each cluster, of which `statistic` makes
    the value. B. Efron, Better Bootstrap Confidence Intervals, 1987, doi
    10.1080/01621459.1987.10478410. The same totals give the same interval.
    """
    count = len(totals)
    acceleration = _acceleration(totals, statistic)
    if acceleration is None:
        return None
    found = _run(totals, statistic, 2 * expand(level, count) - 1)
    low, high = found.confidence_interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return Resampled(
        value=float(statistic(totals.sum(axis=0))),
        samples=samples,
        clusters=count,
        interval=Interval(
            low=float(low),
            high=float(high),
            level=round(2 * level - 1, 12),
            method="BCa bootstrap",
        ),
        distribution=found.bootstrap_distribution,
        acceleration=acceleration,
    )


def _run(totals: Numbers, statistic: Statistic, level: float) -> Any:
    """Return what scipy's bootstrap of the clusters finds."""
    from scipy import stats

    count = len(totals)
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        # It gives bounds that are no numbers then, which is looked at below.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        return stats.bootstrap(
            (np.arange(count),),
            lambda drawn, axis=-1: statistic(_weights(drawn, count) @ totals),
            n_resamples=RESAMPLES,
            batch=max(1, BATCH // count),
            confidence_level=level,
            method="BCa",
            rng=np.random.default_rng(SEED),
        )


def _weights(drawn: NDArray[np.int64], count: int) -> Numbers:
    """Return how often each cluster was drawn, shape (..., G)."""
    rows = drawn.reshape(-1, drawn.shape[-1])
    weights = np.array([np.bincount(row, minlength=count) for row in rows], float)
    return weights.reshape(*drawn.shape[:-1], count)


def _acceleration(totals: Numbers, statistic: Statistic) -> float | None:
    """Return BCa's acceleration from the values without each cluster."""
    if len(totals) < 2:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        without = statistic(totals.sum(axis=0) - totals)
    if not np.isfinite(without).all():
        return None
    deviations = without.mean() - without
    if np.abs(deviations).max() <= NO_SPREAD * max(1.0, np.abs(without).max()):
        return None
    squares = float((deviations**2).sum())
    return float((deviations**3).sum() / (6 * squares**1.5))
