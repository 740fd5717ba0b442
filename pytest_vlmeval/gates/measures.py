"""Metrics made again from verdicts, which tells how sure they are.

A metric that cannot be made again to the last digit has no interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pytest_vlmeval.gates.bca import Statistic, bootstrap
from pytest_vlmeval.gates.intervals import Estimate, Numbers, Proportion
from pytest_vlmeval.gates.units import Unit, Units, sum_by_cluster
from pytest_vlmeval.gates.yes_no import Remade, remake_yes_no

if TYPE_CHECKING:
    from pytest_vlmeval.records import Score


class Metric(NamedTuple):
    """A metric as a score has it: in the unit and with the digits that are shown.

    `name` is "" for the score itself, whose value goes from 0 to its scale.
    """

    name: str
    value: float
    digits: float


def find_metric(score: Score, name: str) -> Metric:
    """Return a metric of a score by name; KeyError where it has none such."""
    if name:
        return Metric(name, score.metrics[name], _rounding(score.metrics[name]))
    raw = score.metrics.get(score.main_metric, score.value)
    unit = score.value / raw if raw else 1.0
    return Metric("", score.value, _rounding(raw) * abs(unit))


def _rounding(value: float) -> float:
    """Return how far off a value may be that was rounded to its last digit."""
    digits = len(repr(float(value)).partition(".")[2])
    if 1 < digits <= 4 and "e" not in repr(value):
        return 0.51 * float(10.0**-digits)
    return 1e-9 * max(1.0, abs(value))


def estimate(
    score: Score, units: Units, metric: Metric, level: float
) -> Estimate | None:
    """Return how sure a metric is; None where it cannot be made of the verdicts."""
    for remade in _ways(score, units, metric):
        if len(remade.units) == 0:
            continue
        totals = sum_by_cluster(remade.units, remade.columns)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = float(remade.statistic(totals.sum(axis=0)))
            if abs(value - metric.value) <= metric.digits:
                return _estimate(remade, totals, level)
    return None


def _estimate(remade: Remade, totals: Numbers, level: float) -> Estimate | None:
    values = remade.columns[:, 0]
    if remade.scale is not None and np.isin(values, (0, 1)).all():
        return Proportion(
            correct=totals[:, 0], sizes=totals[:, 1], scale=remade.scale, level=level
        )
    found = bootstrap(totals, remade.statistic, samples=remade.samples, level=level)
    if found is None and remade.scale is not None:
        # Grades that are all alike: of all values from 0 to 1 with this mean, none
        # vary more than right and wrong.
        return Proportion(
            correct=totals[:, 0], sizes=totals[:, 1], scale=remade.scale, level=level
        )
    return found


def _ways(score: Score, units: Units, metric: Metric) -> Iterator[Remade]:
    """Give the ways in which a metric may have been made, the likeliest first."""
    name = metric.name or score.main_metric
    special = remake_yes_no(units, name, main=not metric.name)
    if special is not None:
        yield special
        return
    for part in name.split("/"):
        chosen = units.named(part)
        if 0 < len(chosen) < len(units.all):
            yield from _means(score, chosen, main=not metric.name)
            return
    yield from _means(score, units.all, main=not metric.name)
    if not metric.name:
        yield _mean_of_categories(units.all, score.scale)


def _means(score: Score, units: Sequence[Unit], *, main: bool) -> Iterator[Remade]:
    columns = np.ones((len(units), 2))
    columns[:, 0] = [unit.value for unit in units]
    # Shares and percentages; OCRBench counts points.
    scales = (score.scale,) if main else (1.0, 100.0, float(len(units)))
    for scale in scales:
        yield Remade(units, columns, _mean(scale), len(units), scale)


def _mean(scale: float) -> Statistic:
    return lambda sums: scale * sums[..., 0] / sums[..., 1]


def _mean_of_categories(units: Sequence[Unit], scale: float) -> Remade:
    """Return the mean in which each category counts alike, as MTVQA's languages."""
    names = sorted({unit.category or "" for unit in units})
    columns = np.zeros((len(units), 2 * len(names)))
    for row, unit in zip(columns, units, strict=True):
        place = names.index(unit.category or "")
        row[place], row[len(names) + place] = unit.value, 1.0
    middle = len(names)

    def statistic(sums: Numbers) -> Numbers:
        # Of few samples a resample may lack a category: it is then left out.
        mean: Numbers = np.nanmean(sums[..., :middle] / sums[..., middle:], axis=-1)
        return scale * mean

    return Remade(units, columns, statistic, len(units))
