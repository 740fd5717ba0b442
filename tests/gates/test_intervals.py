"""Intervals against published examples, statsmodels, scipy and simulated truth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.proportion import (
    binom_test,
    proportion_confint,
    proportions_ztest,
)

from pytest_vlmeval.gates.statistics import Proportion
from pytest_vlmeval.records import wilson


def alone(
    correct: int, samples: int, *, scale: float = 1.0, level: float = 0.95
) -> Proportion:
    """Give a share of independent samples."""
    values = np.array([1.0] * correct + [0.0] * (samples - correct))
    return Proportion(correct=values, sizes=np.ones(samples), scale=scale, level=level)


@pytest.mark.parametrize(
    ("correct", "samples", "low", "high"),
    # R. Newcombe, Two-sided confidence intervals for the single proportion, 1998,
    # Statistics in Medicine 17, table I, method 3; 95 %.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_newcombes(
    correct: int, samples: int, low: float, high: float
) -> None:
    found = alone(correct, samples, level=0.975).interval
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert found.level == 0.95
    assert found.method == "Wilson"


@pytest.mark.parametrize(("correct", "samples"), [(0, 7), (31, 40), (1480, 1500)])
def test_wilson_of_any_size_is_that_of_statsmodels(correct: int, samples: int) -> None:
    theirs = proportion_confint(correct, samples, alpha=0.1, method="wilson")
    assert wilson(correct / samples, samples, 0.95) == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("correct", "samples", "expected"), [(31, 40, 0.85), (450, 1500, 0.33), (3, 9, 0.2)]
)
def test_p_is_the_larger_of_two_tests_of_statsmodels(
    correct: int, samples: int, expected: float
) -> None:
    for alternative in ("smaller", "larger"):
        _, score = proportions_ztest(
            correct, samples, expected, alternative=alternative, prop_var=expected
        )
        exact = binom_test(correct, samples, expected, alternative=alternative)
        it = alone(correct, samples, scale=100)
        p_value = it.p_below if alternative == "smaller" else it.p_above
        assert p_value(100 * expected) == pytest.approx(max(score, exact))


def test_p_below_the_level_is_a_bound_below_the_threshold() -> None:
    for correct in range(0, 60, 7):
        for expected in (0.2, 0.5, 0.9, 0.99):
            it = alone(correct, 60)
            if it.p_below(expected) <= 0.05:
                assert it.interval.high < expected
            if it.p_above(expected) <= 0.05:
                assert it.interval.low > expected


@pytest.mark.parametrize("expected", [0.0, 1.0])
def test_thresholds_at_the_ends(expected: float) -> None:
    assert alone(10, 10).p_below(expected) == 1.0
    assert alone(9, 10).p_below(expected) == (0.0 if expected else 1.0)


def test_the_clustered_variance_is_that_of_statsmodels() -> None:
    """Miller's clustered error is the cluster-robust one of a regression on 1."""
    random = np.random.default_rng(3)
    sizes = random.integers(1, 6, 80)
    clusters = np.repeat(np.arange(80), sizes)
    values = (random.random(80)[clusters] > random.random(len(clusters))).astype(float)
    fit: Any = OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False}
    )
    it = Proportion(
        correct=np.bincount(clusters, values).astype(float),
        sizes=sizes.astype(float),
        scale=1.0,
        level=0.95,
    )
    share = values.mean()
    variance = it.design_effect * share * (1 - share) / len(values)
    assert variance == pytest.approx(fit.bse[0] ** 2 * 80 / 79)
    assert it.interval.method == "Wilson, clustered"
    assert it.samples == len(values)
    assert it.clusters == 80


def test_clusters_of_one_answer_are_as_many_samples() -> None:
    """Where both of a pair are always alike, half the samples say everything."""
    halves = np.array([1.0] * 300 + [0.0] * 200)
    pairs = Proportion(
        correct=2 * halves, sizes=np.full(500, 2.0), scale=1.0, level=0.95
    )
    assert pairs.design_effect == pytest.approx(2, rel=0.01)
    single = alone(300, 500).interval
    assert pairs.interval.low == pytest.approx(single.low, abs=0.001)
    assert pairs.interval.high == pytest.approx(single.high, abs=0.001)


def test_all_right_counts_clusters() -> None:
    it = Proportion(
        correct=np.full(20, 4.0), sizes=np.full(20, 4.0), scale=1.0, level=0.95
    )
    low, _ = wilson(1.0, 20, 0.95)
    assert it.interval.low < low
    assert it.interval.high == 1.0


def test_needed_samples_are_those_of_fleiss() -> None:
    """Of a share of 0.5 against 0.6, computed by hand from the formula."""
    z, power = 1.6449, 0.8416
    by_hand = ((z * math.sqrt(0.24) + power * math.sqrt(0.25)) / 0.1) ** 2
    assert alone(50, 100).needed(0.6) == pytest.approx(by_hand, abs=1)
    assert alone(60, 100).needed(0.6) is None


def draw_clusters(
    random: np.random.Generator, count: int, size: int, share: float, alike: float
) -> Proportion:
    """Draw clusters whose samples correlate by `alike`, of a share that is known."""
    if alike:
        rest = (1 - alike) / alike
        shares = random.beta(share * rest, (1 - share) * rest, count)
    else:
        shares = np.full(count, share)
    sizes = random.integers(1, 2 * size, count) if size > 1 else np.ones(count, int)
    return Proportion(
        correct=random.binomial(sizes, shares).astype(float),
        sizes=sizes.astype(float),
        scale=1.0,
        level=0.95,
    )


@pytest.mark.once
@pytest.mark.parametrize("share", [0.05, 0.3, 0.8, 0.97])
@pytest.mark.parametrize(
    ("count", "size", "alike"),
    [
        (60, 1, 0.0),
        (600, 1, 0.0),
        (20, 4, 0.3),
        (40, 2, 0.3),
        (60, 5, 0.5),
        (150, 3, 0.0),
        (150, 3, 0.6),
    ],
)
def test_intervals_and_tests_hold_what_they_say(
    count: int, size: int, alike: float, share: float
) -> None:
    """Of 1,000 drawn scores the interval of 90 % holds the truth in about 900.

    The bounds are four standard errors away: 0.862 and 0.0776. Of independent samples
    of which few are right, or wrong, Wilson's interval is coarse: 0.83.
    """
    random = np.random.default_rng([count, size, int(100 * share)])
    runs = 1_000
    held = low_alarms = high_alarms = 0
    for _ in range(runs):
        it = draw_clusters(random, count, size, share, alike)
        interval = it.interval
        held += interval.low <= share <= interval.high
        low_alarms += it.p_below(share) <= 0.05
        high_alarms += it.p_above(share) <= 0.05
    few = size == 1 and min(share, 1 - share) * count < 15
    assert held / runs >= (0.83 if few else 0.862)
    assert low_alarms / runs <= 0.0776
    assert high_alarms / runs <= 0.0776


@pytest.mark.once
@pytest.mark.parametrize("share", [0.9, 0.97, 0.99])
def test_the_exact_test_never_errs_more_than_it_says(share: float) -> None:
    """Without clusters the error is computed, not drawn; Wilson's alone is larger."""
    samples = 100
    errors = alone_errors = 0.0
    for correct in range(samples + 1):
        chance = float(stats.binom.pmf(correct, samples, share))
        it = alone(correct, samples)
        errors += chance * (it.p_below(share) <= 0.05)
        alone_errors += chance * (it.interval.high < share)
    assert errors <= 0.05
    assert alone_errors > errors
