"""What a paired comparison of this size can see, and what size it would need."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import norm

# The chance to see a difference that "can be seen", as is usual.
POWER = 0.8


def power_of(
    drop: float, samples: float, changed: float, margin: float, level: float
) -> float:
    """Return the chance that the test finds a true drop of `drop`.

    `changed` is the mean square of the differences, for right and wrong the share of
    samples that change; `samples` counts independent units. Connor, Biometrics 43
    (1987) 207, with a margin.
    """
    null = math.sqrt(max(changed, drop) - margin**2)
    spread = math.sqrt(max(max(changed, drop) - drop**2, 1e-12))
    z = (drop - margin) * math.sqrt(samples) - float(norm.isf(level)) * null
    return float(norm.cdf(z / spread))


def smallest_drop(
    samples: float, changed: float, margin: float, level: float
) -> float | None:
    """Return the smallest drop that is found with `POWER`; None if none would be.

    At least as many samples must be lost as make McNemar's exact test reject when
    none is gained: 5 at a level of 0.05.
    """
    fewest = math.ceil(math.log(level) / math.log(0.5))
    low = margin + fewest / samples
    if low >= 1:
        return None

    def off(drop: float) -> float:
        return power_of(drop, samples, changed, margin, level) - POWER

    if off(low) >= 0:
        return low
    return float(brentq(off, low, 1.0)) if off(1.0) > 0 else None


def needed_samples(
    drop: float, changed: float, margin: float, level: float
) -> int | None:
    """Return how many independent samples tell such a drop; None if no number does."""
    if drop <= margin:
        return None
    null = math.sqrt(max(changed, drop) - margin**2)
    spread = math.sqrt(max(max(changed, drop) - drop**2, 0))
    z = float(norm.isf(level)) * null + float(norm.ppf(POWER)) * spread
    return math.ceil((z / (drop - margin)) ** 2)
