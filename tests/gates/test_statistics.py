"""Intervals and the bootstrap: published examples, scipy and simulated truth."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import (
    binom_test,
    proportion_confint,
    proportions_ztest,
)

from pytest_vlmeval.gates.statistics import (
    RESAMPLES,
    Numbers,
    Proportion,
    Resampled,
    bootstrap,
    expand,
)
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


WITHOUT_SCIPY = """
import sys
import numpy as np
from pytest_vlmeval.gates import measures
from pytest_vlmeval.run import gating
share = measures.Proportion(
    correct=np.array([1.0, 0.0, 1.0]), sizes=np.ones(3), scale=100, level=0.95
)
print(share.interval.method, "scipy" in sys.modules)
print(share.p_below(90) > 0, "scipy" in sys.modules)
"""


@pytest.mark.parametrize("level", [0.9, 0.95, 0.995])
@pytest.mark.parametrize(
    ("right", "count"), [(0, 7), (7, 7), (1, 2), (3, 10), (870, 1_000), (1, 30_000)]
)
def test_bounds_are_those_of_scipy(right: int, count: int, level: float) -> None:
    share = Proportion(
        correct=np.repeat([1.0, 0.0], [right, count - right]),
        sizes=np.ones(count),
        scale=1,
        level=level,
    )
    wanted = stats.binomtest(right, count).proportion_ci(2 * level - 1, "wilson")
    assert share.interval.low == pytest.approx(wanted.low, abs=1e-14)
    assert share.interval.high == pytest.approx(wanted.high, abs=1e-14)


def test_an_interval_alone_imports_no_scipy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SCIPY], capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["Wilson False", "True True"], done.stderr


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
