"""Two runs over the same samples: whether the second did worse, and one could tell.

Verdicts that are right or wrong, each of its own sample, are compared by McNemar's
exact test, with a margin by Tango's score test. Graded verdicts, and samples of which
several share a group or an image, by a bootstrap of whole clusters (BCa) together
with a sign-flip test. The larger p-value of the two counts: where few samples change,
the bootstrap alone finds a drop too often, and the sign-flip test alone knows of no
margin.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, multinomial, norm, permutation_test

from pytest_vlmeval.gates.statistics import (
    MOST_AT_ONCE,
    POWER,
    RESAMPLES,
    Numbers,
    expand,
    resample,
)
from pytest_vlmeval.records import RIGHT_FROM

# Up to here every possible table is looked at; above, the score is close to normal.
MOST_ENUMERATED = 100
# Values of the nuisance parameter at which the exact test is evaluated.
GRID = 201


def mcnemar_p(lost: int, gained: int) -> float:
    """Return the exact p-value that more are lost than gained by chance.

    One-sided, from the binomial distribution of the samples that changed: McNemar,
    Psychometrika 12 (1947) 153.
    """
    if lost + gained == 0:
        return 1.0
    return float(binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue)


def tango_z(lost: int, gained: int, samples: int, drop: float) -> float:
    """Return the score statistic of H0: the share of right answers fell by `drop`.

    Tango, Statistics in Medicine 17 (1998) 891, eq. 24 to 26; McNemar's z for 0.
    """
    return float(_scores(np.array(lost), np.array(gained), samples, drop))


def _scores(
    lost: np.ndarray, gained: np.ndarray, samples: int, drop: float
) -> np.ndarray:
    a = 2 * samples
    b = -lost - gained + (a - lost + gained) * drop
    c = -gained * drop * (1 - drop)
    nuisance = (np.sqrt(np.maximum(b * b - 4 * a * c, 0)) - b) / (2 * a)
    variance = samples * (2 * nuisance + drop * (1 - drop))
    distance = lost - gained - samples * drop
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(
            np.abs(distance) < 1e-9, 0.0, distance / np.sqrt(np.maximum(variance, 0))
        )


def drop_p(lost: int, gained: int, samples: int, margin: float) -> float:
    """Return the p-value of H0: the share of right answers fell by at most `margin`.

    `margin` lies in [0, 1). Without one it is McNemar's exact test. With one it is the
    test of non-inferiority by Tango's score: up to `MOST_ENUMERATED` samples exact and
    unconditional (Hsueh, Liu and Chen, Biometrics 57 (2001) 478), so that its level
    holds where the normal approximation may fail, above that asymptotic.
    """
    if margin == 0:
        return mcnemar_p(lost, gained)
    z = tango_z(lost, gained, samples, margin)
    if samples > MOST_ENUMERATED:
        return float(norm.sf(z))
    return _exact_p(z, samples, margin)


def fewest_lost(samples: int, margin: float, alpha: float) -> np.ndarray:
    """Return how many have to be lost for `drop_p` to be at most `alpha`.

    Shape (samples + 1,), by how many are lost or gained; one more than that where no
    number is enough. With a margin by the asymptotic test.
    """
    changed = np.arange(samples + 1)
    low, high = np.zeros(samples + 1, int), changed + 1
    # The p-value falls with each that is lost instead of gained.
    while (low < high).any():
        middle = (low + high) // 2
        enough = _p_values(middle, changed, samples, margin) <= alpha
        high = np.where(enough & (low < high), middle, high)
        low = np.where(~enough & (low < high), middle + 1, low)
    return high


def _p_values(
    lost: np.ndarray, changed: np.ndarray, samples: int, margin: float
) -> np.ndarray:
    if margin == 0:
        return np.asarray(binom.sf(lost - 1, changed, 0.5))
    return np.asarray(norm.sf(_scores(lost, changed - lost, samples, margin)))


def _exact_p(z: float, samples: int, margin: float) -> float:
    """Return the largest chance of a score of at least `z` where the drop is `margin`.

    The nuisance parameter is the share of the samples that are gained.
    """
    lost, gained = np.meshgrid(np.arange(samples + 1), np.arange(samples + 1))
    possible = lost + gained <= samples
    lost, gained = lost[possible], gained[possible]
    extreme = _scores(lost, gained, samples, margin) >= z - 1e-9
    tables = np.stack([lost, gained, samples - lost - gained], axis=1)[extreme]
    chances = [
        multinomial.pmf(tables, samples, [q + margin, q, 1 - 2 * q - margin]).sum()
        for q in np.linspace(0, (1 - margin) / 2, GRID)
    ]
    return min(1.0, float(max(chances)))


def score_interval(
    lost: int, gained: int, samples: int, alpha: float
) -> tuple[float, float]:
    """Return both bounds of the change of the share, each at the one-sided `alpha`.

    The drops that Tango's score test does not reject, with their sign turned: a gain
    is positive.
    """
    z = float(norm.isf(alpha))
    edge = 1 - 1e-12

    def bound(target: float, outermost: float) -> float:
        def off(drop: float) -> float:
            # Of fewer than no drop the two directions change places.
            if drop < 0:
                return -tango_z(gained, lost, samples, -drop) - target
            return tango_z(lost, gained, samples, drop) - target

        observed = (lost - gained) / samples
        if math.isclose(observed, outermost, abs_tol=1e-9):
            return outermost
        return float(brentq(off, observed, outermost * edge, xtol=1e-12))

    return -bound(-z, 1.0), -bound(z, -1.0)


def power_of(
    drop: float, samples: float, changed: float, margin: float, alpha: float
) -> float:
    """Return the chance that the test finds a true drop of `drop`.

    `changed` is the mean square of the differences, for right and wrong the share of
    samples that change; `samples` counts independent units. Connor, Biometrics 43
    (1987) 207, with a margin.
    """
    null = math.sqrt(max(changed, drop) - margin**2)
    spread = math.sqrt(max(max(changed, drop) - drop**2, 1e-12))
    z = (drop - margin) * math.sqrt(samples) - float(norm.isf(alpha)) * null
    return float(norm.cdf(z / spread))


def smallest_drop(
    samples: float, changed: float, margin: float, alpha: float
) -> float | None:
    """Return the smallest drop that is found with `POWER`; None if none would be.

    At least as many samples must be lost as make McNemar's exact test reject when
    none is gained: 5 at an alpha of 0.05.
    """
    fewest = math.ceil(math.log(alpha) / math.log(0.5))
    low = margin + fewest / samples
    if low >= 1:
        return None

    def off(drop: float) -> float:
        return power_of(drop, samples, changed, margin, alpha) - POWER

    if off(low) >= 0:
        return low
    return float(brentq(off, low, 1.0)) if off(1.0) > 0 else None


def needed_samples(
    drop: float, changed: float, margin: float, alpha: float
) -> int | None:
    """Return how many independent samples tell such a drop; None if no number does."""
    if drop <= margin:
        return None
    null = math.sqrt(max(changed, drop) - margin**2)
    spread = math.sqrt(max(max(changed, drop) - drop**2, 0))
    z = float(norm.isf(alpha)) * null + float(norm.ppf(POWER)) * spread
    return math.ceil((z / (drop - margin)) ** 2)


# With more changed clusters the sum of flipped differences is normal.
MOST_FLIPPED = 2_000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What became of the samples from one run to another, in shares from 0 to 1.

    `before` and `after` are the mean verdicts, `change` is after - before, between
    `low` and `high`, each bound with the confidence 1 - `alpha`. `p_value` is that of
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
    alpha: float
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
        return power_of(drop, self.clusters, self.changed, self.margin, self.alpha)


def compare(
    before: Sequence[float],
    after: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    margin: float = 0.0,
    alpha: float = 0.05,
    seed: int = 0,
) -> Comparison:
    """Compare the verdicts of two runs, in [0, 1], sample by sample.

    `clusters` names for each sample what it shares with others (a group, an image);
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
    needed = needed_samples(float((first - second).mean()), changed, margin, alpha)
    return Comparison(
        samples=len(first),
        clusters=len(units.sums),
        before=float(first.mean()),
        after=float(second.mean()),
        change=float((second - first).mean()),
        alpha=alpha,
        margin=margin,
        lost=int(np.count_nonzero((first >= RIGHT_FROM) & (second < RIGHT_FROM))),
        gained=int(np.count_nonzero((first < RIGHT_FROM) & (second >= RIGHT_FROM))),
        changed=changed,
        smallest=smallest_drop(len(units.sums), changed, margin, alpha),
        needed=None if needed is None else int(np.ceil(needed * size)),
        **test(units, margin, alpha, seed)._asdict(),
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
    """Return whether all samples of each unit are right, or all are wrong."""
    means = np.bincount(unit, verdicts) / sizes
    return bool(np.isin(verdicts, (0, 1)).all() and np.isin(means, (0, 1)).all())


class _Found(NamedTuple):
    low: float
    high: float
    p_value: float
    p_gain: float
    method: str
    interval_method: str


def _by_counts(units: _Units, margin: float, alpha: float, seed: int) -> _Found:
    count = len(units.sums)
    lost = int(np.count_nonzero(units.sums < 0))
    gained = int(np.count_nonzero(units.sums > 0))
    low, high = score_interval(lost, gained, count, alpha)
    return _Found(
        low=low,
        high=high,
        p_value=drop_p(lost, gained, count, margin),
        p_gain=drop_p(gained, lost, count, margin),
        method="paired score test (Tango)" if margin else "exact McNemar",
        interval_method="paired score (Tango)",
    )


def _by_resampling(units: _Units, margin: float, alpha: float, seed: int) -> _Found:
    if not units.sums.any():
        return _Found(
            low=0.0,
            high=0.0,
            p_value=1.0,
            p_gain=1.0,
            method="paired bootstrap (BCa)",
            interval_method="paired bootstrap (BCa)",
        )
    boot = resample(
        np.column_stack([units.sums, units.sizes]),
        _mean,
        samples=int(units.sizes.sum()),
        level=1 - alpha,
        seed=seed,
    )
    fell, rose = sign_flip_p(units.sums, seed)
    clustered = "clustered " if (units.sizes > 1).any() else ""
    # So few units bound nothing: their difference may be any.
    is_bounded = expand(1 - alpha, len(units.sums)) < 1 - 1 / RESAMPLES
    return _Found(
        low=boot.bound(alpha) if is_bounded else -1.0,
        high=boot.bound(1 - alpha) if is_bounded else 1.0,
        p_value=max(boot.p_below(-margin), fell),
        p_gain=max(boot.p_above(margin), rose),
        method=f"{clustered}paired bootstrap (BCa) and sign-flip test",
        interval_method=f"{clustered}paired bootstrap (BCa)",
    )


def _mean(sums: Numbers) -> Numbers:
    mean: Numbers = sums[..., 0] / sums[..., 1]
    return mean
