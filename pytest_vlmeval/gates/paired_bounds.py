"""What all differences to a baseline have to be for the paired test to pass or fail.

Both are said of one mean over all samples, which is then known from the first ones:
that of drop - slope * change. `drop` is by how much a verdict fell, `change` its square
times the size of the sample's cluster; over all samples the first are the paired test's
effect, the second (at least) its variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from pytest_vlmeval.gates.proportions import MOST_ENUMERATED, fewest_lost
from pytest_vlmeval.gates.sequences import Side, first_crossing

# The share of samples that change for which a drop is claimed soonest; the claim holds
# whatever the share is.
EXPECTED_CHANGED = 0.1
TINY = 1e-9


class Line(NamedTuple):
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

    fails: Line | None
    passes: Line | None


def find_paired_bounds(
    sizes: np.ndarray,
    *,
    right_or_wrong: bool,
    margin: float,
    level: float,
    strict: bool,
) -> PairedBounds:
    """Return which means decide the paired test of all samples.

    `sizes`, shape (samples,), are those of the clusters that the samples are in. With
    `strict` any drop beyond the margin fails, so that not finding one is not enough to
    pass.
    """
    samples = len(sizes)
    if right_or_wrong and sizes.max() == 1 and not _is_enumerated(samples, margin):
        fails, passes = _of_counts(samples, margin, level)
    else:
        fails, passes = _of_clusters(sizes, margin, level)
        # Of less than five that are lost no test says so at a level of 0.05.
        fewest = math.ceil(math.log(level) / math.log(0.5))
        if right_or_wrong and margin == 0:
            passes = Line(0.0, fewest / samples)
    return PairedBounds(
        fails=fails,
        passes=Line(0.0, margin + TINY) if strict else passes,
    )


def _is_enumerated(samples: int, margin: float) -> bool:
    """Whether the exact test with a margin is used, which is slow to invert."""
    return margin > 0 and samples <= MOST_ENUMERATED


def _of_counts(
    samples: int, margin: float, level: float
) -> tuple[Line | None, Line | None]:
    """Lay lines above and below what the test of lost and gained samples rejects."""
    changed = np.arange(samples + 1)
    drop = 2 * fewest_lost(samples, margin, level) - changed
    found = drop <= changed
    if not found.any():
        return None, None
    changed, drop = changed[found], drop[found]
    typical = max(EXPECTED_CHANGED * samples, 1.0)
    # The slope of z * sqrt(changed), which the boundary follows.
    steep = min(float(norm.isf(level)) / (2 * math.sqrt(typical)), 0.9)
    flat = (drop[-1] - drop[0]) / max(changed[-1] - changed[0], 1)
    return (
        Line(steep, float((drop - steep * changed).max()) / samples),
        Line(float(flat), float((drop - flat * changed).min()) / samples),
    )


def _of_clusters(sizes: np.ndarray, margin: float, level: float) -> tuple[Line, Line]:
    """Lay a tangent to a normal test's bound, the changes of a cluster all alike."""
    z, samples = float(norm.isf(level)), len(sizes)
    typical = EXPECTED_CHANGED * float(sizes.sum())
    slope = z / (2 * math.sqrt(typical))
    # One cluster more, as the test of few changes knows no halves.
    limit = margin * samples + z * math.sqrt(typical) / 2 + float(sizes.max())
    fails = Line(slope, limit / samples, float(sizes.max()))
    return fails, Line(0.0, margin + TINY)


def paired_decided_after(
    changes: np.ndarray,
    sizes: np.ndarray,
    total: int,
    bounds: PairedBounds,
    level: float,
) -> tuple[int, Side] | None:
    """Return after how many samples the test of all is decided; None if not yet.

    `changes`, shape (asked,), in [-1, 1], are what verdicts rose by since the baseline,
    in the random order in which they are asked; `sizes` those of their clusters. The
    side is "above" where the test of all would find a drop. It is the wrong one with a
    chance of at most `level`, however often one looks.
    """
    found: list[tuple[int, Side]] = []
    sides: list[tuple[Line | None, Side]] = [
        (bounds.fails, "above"),
        (bounds.passes, "below"),
    ]
    for line, side in sides:
        if line is None:
            continue
        values, limit = paired_values(changes, sizes, line)
        after = first_crossing(values, total, limit, side, level)
        if after is not None:
            found.append((after, side))
    return min(found, default=None)


def paired_values(
    changes: np.ndarray, sizes: np.ndarray, line: Line
) -> tuple[np.ndarray, float]:
    """Return what a line bounds the mean of, moved to [0, 1], and the bound itself.

    `changes` has shape (..., asked), `sizes` (asked,).
    """
    width = 1 + line.slope * line.largest
    values = width - changes - line.slope * sizes * changes**2
    return values / (1 + width), (width + line.mean) / (1 + width)
