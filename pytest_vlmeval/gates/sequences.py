"""Whether the mean of a whole dataset is known well enough before all is asked.

Samples are drawn in random order without replacement, so what is asked tells of the
mean of this very dataset, whatever its samples have in common. One bets on each next
value against the mean that is to be refuted; the capital is a martingale if that mean
is true, and passes 1 / level with a chance of at most `level`, whenever one looks
(Ville). Waudby-Smith and Ramdas, JRSS B 86 (2024) 1, sections 4 and 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

# The largest part of the capital that one bet may lose: the paper's c.
MOST_AT_STAKE = 0.75
TINY = 1e-9

Side = Literal["above", "below"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the mean of all values decides: `passes` from there on, `fails` up to there.

    Between the two nothing is decided. None where no mean decides so.
    """

    passes: float | None
    fails: float | None


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
    values: np.ndarray, total: int, mean: float, side: Side, level: float
) -> int | None:
    """Return after how many values the mean of all is surely on a side; None if not.

    Wrongly so with a chance of at most `level`, however often one looks.
    """
    capital = log_capital(values, total, mean, side)
    crossed = np.flatnonzero(capital >= -math.log(level))
    return int(crossed[0]) + 1 if len(crossed) else None


def decided_after(
    values: np.ndarray, total: int, bounds: Bounds, level: float
) -> tuple[int, Side] | None:
    """Return after how many values the mean of all is decided, and on which side.

    None where it is not yet. The side is the wrong one with a chance of at most
    `level`, however often one looks.
    """
    found: list[tuple[int, Side]] = []
    limits: list[tuple[float | None, Side]] = [
        (bounds.passes, "above"),
        (bounds.fails, "below"),
    ]
    for limit, side in limits:
        if limit is None:
            continue
        after = first_crossing(values, total, limit, side, level)
        if after is not None:
            found.append((after, side))
    return min(found, default=None)
