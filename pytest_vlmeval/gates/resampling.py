"""Bootstrap and sign-flip test of a mean difference over clusters of samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, permutation_test

from pytest_vlmeval.gates.bca import expand, shrink

RESAMPLES = 9_999
# Numbers drawn at once, so that the memory stays small whatever the dataset.
MOST_AT_ONCE = 4_000_000
# With more changed clusters the sum of flipped differences is normal.
MOST_FLIPPED = 2_000


class Bootstrap(NamedTuple):
    """The bootstrap of a mean, with what makes it bias-corrected and accelerated.

    Efron, JASA 82 (1987) 171: `bias` is z0, `acceleration` a.
    """

    estimate: float
    replicates: np.ndarray
    bias: float
    acceleration: float
    clusters: int

    def quantile(self, probability: float) -> float:
        """Return the BCa bound that the true mean is below with `probability`."""
        z = self.bias + norm.ppf(expand(probability, self.clusters))
        adjusted = norm.cdf(self.bias + z / (1 - self.acceleration * z))
        return float(np.quantile(self.replicates, adjusted))

    def p_above(self, threshold: float) -> float:
        """Return the p-value of H0: the mean is at least `threshold`.

        The level at which the upper BCa bound is the threshold; 1 less it is that of
        H0: the mean is at most `threshold`.
        """
        count = len(self.replicates)
        below = np.count_nonzero(self.replicates < threshold)
        ties = np.count_nonzero(self.replicates == threshold)
        share = (below + ties / 2 + 0.5) / (count + 1)
        w = norm.ppf(share) - self.bias
        deviate = w / (1 + self.acceleration * w) - self.bias
        return shrink(float(deviate), self.clusters)


def bootstrap_mean(sums: np.ndarray, sizes: np.ndarray, seed: int) -> Bootstrap:
    """Bootstrap the mean per sample: the sum of `sums` over the sum of `sizes`.

    Both have shape (clusters,); whole clusters are drawn with replacement.
    """
    replicates = _draw(sums, sizes, np.random.default_rng(seed))
    estimate = float(sums.sum() / sizes.sum())
    middle = np.mean(replicates < estimate) + np.mean(replicates == estimate) / 2
    bias = float(norm.ppf(np.clip(middle, 1 / RESAMPLES, 1 - 1 / RESAMPLES)))
    acceleration = _acceleration(sums, sizes)
    return Bootstrap(estimate, replicates, bias, acceleration, len(sums))


def _draw(
    sums: np.ndarray, sizes: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Draw the means, shape (RESAMPLES,).

    Where many clusters are alike, how often each kind is drawn is a multinomial count.
    """
    kinds, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    few = len(counts) * 8 < len(sums)
    rows = max(1, MOST_AT_ONCE // (len(counts) if few else len(sums)))
    parts = []
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        if few:
            drawn = random.multinomial(len(sums), counts / len(sums), size=size)
            parts.append((drawn @ kinds[0]) / (drawn @ kinds[1]))
        else:
            places = random.integers(len(sums), size=(size, len(sums)), dtype=np.int32)
            parts.append(sums[places].sum(axis=1) / sizes[places].sum(axis=1))
    return np.concatenate(parts)


def _acceleration(sums: np.ndarray, sizes: np.ndarray) -> float:
    """Return the skewness of the jackknife, clusters left out one by one."""
    if len(sums) < 2:
        return 0.0
    left = (sums.sum() - sums) / (sizes.sum() - sizes)
    off = left.mean() - left
    spread = float((off**2).sum()) ** 1.5
    return float((off**3).sum()) / (6 * spread) if spread > 0 else 0.0


def sign_flip_p(sums: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the p-values of H0: either sign of a cluster's difference is as likely.

    The first is small where most fell, the second where most rose; exact where few
    clusters changed. `sums` has shape (clusters,): each cluster's sum of differences.
    """
    changed = sums[sums != 0]
    if not len(changed):
        return 1.0, 1.0
    if len(changed) == 1:
        return (0.5, 1.0) if changed[0] < 0 else (1.0, 0.5)
    if len(changed) > MOST_FLIPPED:
        z = float(changed.sum() / np.sqrt((changed**2).sum()))
        return float(norm.cdf(z)), float(norm.sf(z))
    result = permutation_test(
        (changed,),
        lambda flipped, axis: flipped.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, MOST_AT_ONCE // len(changed)),
        alternative="less",
        rng=np.random.default_rng(seed),
    )
    # As scipy counts: the observed one is among what was drawn at random.
    drawn = result.null_distribution
    own = 0 if len(drawn) < RESAMPLES else 1
    near = abs(changed.sum()) * 1e-12
    as_high = np.count_nonzero(drawn >= changed.sum() - near)
    return float(result.pvalue), float((as_high + own) / (len(drawn) + own))
