"""How sure a value is: intervals, p-values and how many samples would tell more.

A `level` is that of one bound: with 0.95 each of both bounds holds in 95 % of all
cases, and both together, the interval that is shown, in 90 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pytest_vlmeval.gates.outcome import Interval

Numbers = NDArray[np.float64]
# Of scipy only the special functions are imported, where they are needed: scipy.stats
# takes half a second and 70 MB.
NORMAL = NormalDist()

# Of a real difference as large as the one that was found, this share is told.
POWER = 0.8


class Estimate(Protocol):
    """What is known of a value from its samples, all in the value's unit."""

    @property
    def value(self) -> float:
        """The value itself."""

    @property
    def samples(self) -> int:
        """How many samples it is made of."""

    @property
    def clusters(self) -> int:
        """How many independent units these are."""

    @property
    def interval(self) -> Interval:
        """The interval that holds the true value."""

    def p_below(self, expected: float) -> float:
        """Return the p-value of "the true value is at least `expected`"."""

    def p_above(self, expected: float) -> float:
        """Return the p-value of "the true value is at most `expected`"."""

    def needed(self, expected: float) -> int | None:
        """Return how many samples tell this difference; None where it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """A share of right samples, some of which may belong together.

    `correct` and `sizes` count each cluster's right and all samples, shape (G,);
    independent samples are clusters of one. The value goes from 0 to `scale`.
    """

    correct: Numbers
    sizes: Numbers
    scale: float
    level: float

    @property
    def samples(self) -> int:
        """How many samples the share is of."""
        return int(self.sizes.sum())

    @property
    def clusters(self) -> int:
        """How many clusters they make."""
        return len(self.sizes)

    @property
    def _share(self) -> float:
        return float(self.correct.sum() / self.sizes.sum())

    @property
    def value(self) -> float:
        """The share, from 0 to `scale`."""
        return self._share * self.scale

    @property
    def _is_clustered(self) -> bool:
        return self.clusters < self.samples

    @property
    def design_effect(self) -> float:
        """How many times the variance of independent samples the share has.

        The clustered variance is that of E. Miller, Adding Error Bars to Evals, 2024,
        arXiv 2411.00640, section 2.2, with the factor G / (G - 1) for G clusters (A.
        Cameron and D. Miller, 2015, doi 10.3368/jhr.50.2.317). At least 1. Where all
        or none are right it shows nothing, and each cluster counts as one sample.
        """
        if not self._is_clustered:
            return 1.0
        share, groups = self._share, self.clusters
        alone = share * (1 - share) / self.samples
        if groups < 2 or alone == 0:
            return self.samples / groups
        residuals = self.correct - share * self.sizes
        variance = float((residuals**2).sum()) / self.samples**2
        return max(1.0, variance * groups / (groups - 1) / alone)

    @property
    def effective_size(self) -> float:
        """How many independent samples the share is worth.

        E. Korn and B. Graubard, Confidence Intervals for Proportions with Small
        Expected Number of Positive Counts Estimated from Survey Data, 1998, Survey
        Methodology 24, pages 193 to 201: n / deff, times the squared ratio of the
        normal to the t quantile, as the variance is estimated from the clusters.
        """
        if not self._is_clustered:
            return self.samples
        from scipy.special import stdtrit

        ratio = NORMAL.inv_cdf(self.level) / stdtrit(self._freedom, self.level)
        return float(self.samples / self.design_effect * ratio**2)

    @property
    def _freedom(self) -> float:
        """The degrees of freedom of the clustered variance, at most G - 1.

        F. Satterthwaite, An Approximate Distribution of Estimates of Variance
        Components, 1946, doi 10.2307/3002019: twice the squared mean of a variance over
        its own variance, here from the squares of which it is the sum. It is little
        where few clusters have a wrong (or a right) sample.
        """
        squares = (self.correct - self._share * self.sizes) ** 2
        most, total = max(self.clusters - 1, 1), float(squares.sum())
        spread = float((squares**2).sum()) - total**2 / self.clusters
        return min(most, max(1.0, 2 * total**2 / spread)) if spread > 0 else most

    @property
    def interval(self) -> Interval:
        """Wilson's interval, with the effective size where samples are clustered.

        E. Wilson, Probable Inference, 1927, doi 10.1080/01621459.1927.10502953. With
        an effective size: N. Dean and M. Pagano, 2015, doi 10.1093/jssam/smv024.
        """
        low, high = wilson(self._share, self.effective_size, self.level)
        return Interval(
            low=low * self.scale,
            high=high * self.scale,
            level=round(2 * self.level - 1, 12),
            method="Wilson, clustered" if self._is_clustered else "Wilson",
        )

    def p_below(self, expected: float) -> float:
        """Return the larger p-value of Wilson's test and the exact binomial one.

        Wilson's bound alone errs more often than it says where the share is close to
        1 (T. Cai, 2005, doi 10.1016/j.jspi.2004.01.005); the exact test never does.
        """
        return _p_below(self._share, self.effective_size, expected / self.scale)

    def p_above(self, expected: float) -> float:
        """Return the same for the share of wrong samples."""
        return _p_below(1 - self._share, self.effective_size, 1 - expected / self.scale)

    def needed(self, expected: float) -> int | None:
        """Return the size of a one-sided test of a share, times the design effect.

        J. Fleiss, B. Levin and M. Paik, Statistical Methods for Rates and
        Proportions, 2003, section 2.5.
        """
        null, share = expected / self.scale, self._share
        if null == share or not 0 < null < 1:
            return None
        root = NORMAL.inv_cdf(self.level) * math.sqrt(null * (1 - null))
        root += NORMAL.inv_cdf(POWER) * math.sqrt(share * (1 - share))
        return math.ceil((root / (share - null)) ** 2 * self.design_effect)


def wilson(share: float, size: float, level: float) -> tuple[float, float]:
    """Return Wilson's bounds for a share of `size` samples, which may be no integer."""
    z = NORMAL.inv_cdf(level)
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    spread = share * (1 - share) / size + z**2 / (4 * size**2)
    half = z / (1 + z**2 / size) * math.sqrt(spread)
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return low, high


def _p_below(share: float, size: float, expected: float) -> float:
    if share >= 1 or expected <= 0:
        return 1.0
    if expected >= 1:
        return 0.0
    from scipy.special import betaincc

    error = math.sqrt(expected * (1 - expected) / size)
    by_wilson = NORMAL.cdf((share - expected) / error)
    # P(X <= correct), for a size that may be no integer.
    correct = share * size
    exact = float(betaincc(correct + 1, size - correct, expected))
    return max(by_wilson, exact)
