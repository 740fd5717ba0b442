"""The bootstrap of clusters against published examples, scipy and simulated truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import NormalIndPower

from pytest_vlmeval.gates.statistics import (
    RESAMPLES,
    Numbers,
    Resampled,
    bootstrap,
    expand,
)


def mean(sums: Numbers) -> Numbers:
    result: Numbers = sums[..., 0] / sums[..., 1]
    return result


def plain_level(level: float, clusters: int) -> float:
    """Return the level whose expanded one is this level."""
    z = stats.norm.ppf(level) / math.sqrt(clusters / (clusters - 1))
    return float(stats.t.cdf(z, clusters - 1))


def resample(values: Numbers, level: float = 0.95) -> Resampled:
    totals = np.column_stack([values, np.ones(len(values))])
    found = bootstrap(totals, mean, samples=len(values), level=level)
    assert found is not None
    return found


@pytest.mark.parametrize("level", [0.9, 0.95, 0.975, 0.99, 0.995])
@pytest.mark.parametrize("clusters", [2, 3, 4])
def test_a_few_clusters_have_an_interval(clusters: int, level: float) -> None:
    values = np.array([0.2, 0.9, 0.4, 0.7])[:clusters]
    found = resample(values, level)
    assert found.interval.low < found.value < found.interval.high
    assert found.p_below(0.95) > 0.01


def test_needed_samples_of_grades_are_those_of_statsmodels() -> None:
    values = np.random.default_rng(5).beta(2, 3, 400)
    effect = (values.mean() - 0.45) / values.std(ddof=1)
    theirs = NormalIndPower(ddof=0).solve_power(
        abs(effect), alpha=0.05, power=0.8, ratio=0, alternative="larger"
    )
    assert resample(values).needed(0.45) == pytest.approx(theirs, rel=0.03)


def test_bca_is_that_of_efron_and_tibshirani() -> None:
    """Their spatial data's variance: BCa 90 % is (115.8, 259.6), chapter 14.

    B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, table 14.1 and
    14.2, from 2,000 resamples.
    """
    spatial = [48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6]
    spatial += [0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41]
    values = np.array(spatial, float)
    totals = np.column_stack([values, values**2, np.ones(len(values))])

    def variance(sums: Numbers) -> Numbers:
        first, second = sums[..., 0] / sums[..., 2], sums[..., 1] / sums[..., 2]
        result: Numbers = second - first**2
        return result

    # Their bounds know nothing of how few the samples are.
    found = bootstrap(totals, variance, samples=26, level=plain_level(0.95, 26))
    assert found is not None
    assert found.value == pytest.approx(171.5, abs=0.1)
    assert found.acceleration == pytest.approx(0.061, abs=0.001)
    assert found.interval.low == pytest.approx(115.8, rel=0.03)
    assert found.interval.high == pytest.approx(259.6, rel=0.03)


def test_few_clusters_widen_the_interval_as_the_t_distribution_does() -> None:
    """Twelve: the bounds are those of scipy's BCa at the expanded level."""
    values = np.random.default_rng(4).beta(0.5, 2, 12)
    level = float(stats.norm.cdf(math.sqrt(12 / 11) * stats.t.ppf(0.95, 11)))
    assert level == pytest.approx(0.9696, abs=1e-4)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=2 * level - 1,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = theirs.high - theirs.low
    ours = resample(values).interval
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)
    assert ours.level == 0.9


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_p_of_a_bca_bound_is_its_error(level: float) -> None:
    values = np.random.default_rng(2).beta(0.5, 2, 120)
    it = resample(values, level)
    for p_value in (it.p_below(it.interval.high), it.p_above(it.interval.low)):
        # But for two of the resamples, whose share the expanded level is.
        off = expand(1 - p_value, 120) - expand(level, 120)
        assert off == pytest.approx(0, abs=2 / RESAMPLES)


def test_a_bootstrap_is_the_same_every_time() -> None:
    values = np.random.default_rng(2).beta(0.5, 2, 60)
    assert resample(values).interval == resample(values).interval


def test_values_without_spread_have_no_bootstrap() -> None:
    totals = np.ones((10, 2))
    assert bootstrap(totals, mean, samples=10, level=0.95) is None
    assert bootstrap(totals[:1], mean, samples=1, level=0.95) is None


@pytest.mark.once
def test_bca_holds_what_it_says() -> None:
    """Grades of 80 samples, most of them 0: 120 drawn scores, four standard errors."""
    random = np.random.default_rng(11)
    truth = 0.2
    held = low_alarms = high_alarms = 0
    for _ in range(120):
        it = resample(random.beta(0.5, 2, 80))
        held += it.interval.low <= truth <= it.interval.high
        low_alarms += it.p_below(truth) <= 0.05
        high_alarms += it.p_above(truth) <= 0.05
    assert held >= 120 * (0.9 - 4 * math.sqrt(0.09 / 120))
    assert low_alarms <= 120 * (0.05 + 4 * math.sqrt(0.0475 / 120))
    assert high_alarms <= 120 * (0.05 + 4 * math.sqrt(0.0475 / 120))
