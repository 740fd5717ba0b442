"""Tests and intervals for the difference of two proportions of the same samples."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, multinomial, norm

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


def fewest_lost(samples: int, margin: float, level: float) -> np.ndarray:
    """Return how many have to be lost for `drop_p` to be at most `level`.

    Shape (samples + 1,), by how many are lost or gained; one more than that where no
    number is enough. With a margin by the asymptotic test.
    """
    changed = np.arange(samples + 1)
    low, high = np.zeros(samples + 1, int), changed + 1
    # The p-value falls with each that is lost instead of gained.
    while (low < high).any():
        middle = (low + high) // 2
        enough = _p_values(middle, changed, samples, margin) <= level
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
    lost: int, gained: int, samples: int, level: float
) -> tuple[float, float]:
    """Return both bounds of the change of the share, each at the one-sided `level`.

    The drops that Tango's score test does not reject, with their sign turned: a gain
    is positive.
    """
    z = float(norm.isf(level))
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
