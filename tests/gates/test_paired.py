"""Paired comparisons: published examples, second implementations, simulated levels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, norm
from statsmodels.stats.contingency_tables import mcnemar

from pytest_vlmeval.gates.paired import (
    Comparison,
    compare,
    drop_p,
    mcnemar_p,
    needed_samples,
    power_of,
    score_interval,
    sign_flip_p,
    smallest_drop,
    tango_z,
)
from pytest_vlmeval.gates.statistics import Numbers, expand, resample

LEVEL = 0.05


def binary(
    right: int, lost: int, gained: int, wrong: int
) -> tuple[list[float], list[float]]:
    """Give the verdicts before and after, by what became of the samples."""
    before = [1.0] * (right + lost) + [0.0] * (gained + wrong)
    after = [1.0] * right + [0.0] * lost + [1.0] * gained + [0.0] * wrong
    return before, after


def simulate(
    random: np.random.Generator, samples: int, lost: float, gained: float
) -> tuple[int, int]:
    """Draw how many samples are lost and gained."""
    drawn = random.multinomial(samples, [lost, gained, 1 - lost - gained])
    return int(drawn[0]), int(drawn[1])


@pytest.mark.parametrize(
    ("lost", "gained"), [(8, 2), (2, 8), (5, 5), (40, 20), (0, 6), (1, 0), (300, 260)]
)
def test_mcnemar_is_that_of_statsmodels(lost: int, gained: int) -> None:
    table = [[30, lost], [gained, 30]]
    two_sided = float(mcnemar(table, exact=True).pvalue)
    smaller = min(mcnemar_p(lost, gained), mcnemar_p(gained, lost))
    assert min(1.0, 2 * smaller) == pytest.approx(two_sided)
    score = mcnemar(table, exact=False, correction=False)
    assert tango_z(lost, gained, 400, 0) ** 2 == pytest.approx(score.statistic)


def test_tango_gives_his_own_example() -> None:
    # Two ways to disinfect contact lenses: 43 of 44 pairs right by both, one by the
    # new way only, a margin of 10 %. Tango 1998: Z = 1.709, p = 0.044.
    z = -tango_z(1, 0, 44, 0.1)
    assert -z == pytest.approx(-1.709, abs=1e-3)
    assert norm.sf(z) == pytest.approx(0.044, abs=5e-4)


def test_the_score_interval_gives_a_published_one() -> None:
    # Airway hyper-responsiveness before and after a transplantation (Bentur et al.
    # 2009): 1 and 12 unchanged, 1 and 7 changed of 21. Fagerland, Lydersen and Laake,
    # Statistics in Medicine 33 (2014) 2850: -0.517 to -0.026.
    low, high = score_interval(7, 1, 21, 0.025)
    assert (low, high) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert mcnemar_p(7, 1) * 2 == pytest.approx(0.0703, abs=5e-5)


def test_a_score_interval_is_what_the_test_does_not_reject() -> None:
    low, high = score_interval(30, 12, 400, LEVEL)
    assert norm.sf(tango_z(30, 12, 400, -high)) == pytest.approx(LEVEL)
    assert norm.cdf(tango_z(30, 12, 400, -low)) == pytest.approx(LEVEL)
    assert score_interval(12, 30, 400, LEVEL) == pytest.approx((-high, -low))
    low, high = score_interval(0, 0, 20, LEVEL)
    assert (low, high) == pytest.approx((-0.119, 0.119), abs=1e-3)
    assert score_interval(20, 0, 20, LEVEL)[0] == -1
    assert score_interval(0, 20, 20, LEVEL)[1] == 1


@pytest.mark.once
def test_the_exact_test_with_a_margin_keeps_its_level_where_the_score_does_not() -> (
    None
):
    # All tables of 30 samples, all nuisance parameters: the chance to find a drop
    # where it is just as large as the margin, or smaller.
    samples, margin = 30, 0.1
    random = np.random.default_rng(1)
    exact: dict[tuple[int, int], float] = {}
    worst = {"exact": 0.0, "score": 0.0}
    for drop, gained in [(0.1, 0.0), (0.1, 0.02), (0.1, 0.1), (0.1, 0.3), (0.05, 0.05)]:
        found = {"exact": 0, "score": 0}
        for _ in range(4_000):
            table = simulate(random, samples, gained + drop, gained)
            if table not in exact:
                exact[table] = drop_p(*table, samples, margin)
            found["exact"] += exact[table] <= LEVEL
            found["score"] += norm.sf(tango_z(*table, samples, margin)) <= LEVEL
        worst = {name: max(worst[name], found[name] / 4_000) for name in worst}
    assert worst["exact"] <= LEVEL + 2 * 0.0035
    assert worst["score"] > worst["exact"]


@pytest.mark.parametrize("gained", [0.005, 0.03, 0.1])
def test_the_score_test_keeps_its_level_for_large_samples(gained: float) -> None:
    random = np.random.default_rng(2)
    tables = [simulate(random, 600, gained + 0.03, gained) for _ in range(10_000)]
    found = np.mean([drop_p(*table, 600, 0.03) <= LEVEL for table in tables])
    assert found <= LEVEL + 3 * 0.0022


def test_without_a_margin_the_level_holds_and_true_drops_are_found() -> None:
    random = np.random.default_rng(3)
    tables = [simulate(random, 200, 0.06, 0.06) for _ in range(10_000)]
    assert np.mean([drop_p(*table, 200, 0) <= LEVEL for table in tables]) <= LEVEL
    tables = [simulate(random, 400, 0.1, 0.04) for _ in range(4_000)]
    found = np.mean([drop_p(*table, 400, 0) <= LEVEL for table in tables])
    # The exact test is a little weaker than the normal approximation of its power.
    assert found == pytest.approx(power_of(0.06, 400, 0.14, 0, LEVEL), abs=0.05)


def test_the_bootstrap_is_that_of_scipy() -> None:
    random = np.random.default_rng(4)
    sums, sizes = random.gamma(1, size=60) - 0.8, random.integers(1, 5, 60)

    def mean(sums: np.ndarray, sizes: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(sums.sum(axis=axis) / sizes.sum(axis=axis))

    theirs = bootstrap(
        (sums, sizes),
        mean,
        paired=True,
        vectorized=True,
        method="BCa",
        confidence_level=2 * expand(0.95, 60) - 1,
        rng=np.random.default_rng(5),
    ).confidence_interval

    def ratio(totals: Numbers) -> Numbers:
        return np.asarray(totals[..., 0] / totals[..., 1])

    totals = np.column_stack([sums, sizes])
    ours = resample(totals, ratio, samples=int(sizes.sum()), level=0.95)
    width = theirs.high - theirs.low
    assert ours.bound(0.05) == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.bound(0.95) == pytest.approx(theirs.high, abs=0.03 * width)
    # A p-value is the level at which the bound is the threshold.
    assert ours.p_below(ours.bound(0.95)) == pytest.approx(0.05, abs=2e-3)
    assert ours.p_below(ours.bound(0.4)) == pytest.approx(0.6, abs=2e-3)


def test_sign_flips_of_few_are_exact_and_of_many_normal() -> None:
    assert sign_flip_p(np.array([-1.0, 0, -1, -1, 0]), 0) == (1 / 8, 1.0)
    few = np.random.default_rng(6).normal(-0.02, 1, 1_900)
    fell, rose = sign_flip_p(few, 0)
    z = few.sum() / np.sqrt((few**2).sum())
    assert fell == pytest.approx(norm.cdf(z), abs=0.015)
    assert fell + rose == pytest.approx(1, abs=1e-3)
    many = np.tile(few, 2)
    assert sign_flip_p(many, 0)[0] == pytest.approx(norm.cdf(np.sqrt(2) * z))


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_graded_verdicts_of_clusters_keep_the_level(margin: float) -> None:
    # 60 images with one to four questions each, of which the changes go together.
    random = np.random.default_rng(7)
    found = 0
    for _ in range(400):
        sizes = random.integers(1, 5, 60)
        images = np.repeat(np.arange(60), sizes)
        changes = random.choice([-0.4, 0, 0, 0.4], 60)[images] - margin
        before = random.uniform(0.5, 0.6, len(images))
        after = before + changes
        result = compare(
            list(before), list(after), clusters=list(images), margin=margin
        )
        found += result.p_value <= LEVEL
    assert found / 400 <= LEVEL + 3 * 0.011


def test_few_flips_are_no_regression_in_a_graded_dataset() -> None:
    before = [0.5] + [1.0] * 39
    after = [0.5] + [0.0] * 3 + [1.0] * 36
    result = compare(before, after)
    assert result.p_value == 1 / 8
    assert (result.lost, result.gained) == (3, 0)


def test_images_that_are_shared_weaken_the_evidence() -> None:
    before, after = binary(80, 12, 0, 8)
    alone = compare(before, after)
    # All that were lost show one image.
    shared = compare(before, after, clusters=[0] * 92 + list(range(1, 9)))
    assert alone.p_value < 0.001 < 0.4 < shared.p_value
    assert (alone.clusters, shared.clusters) == (100, 9)
    assert alone.method == "exact McNemar"
    assert shared.method == "clustered paired bootstrap (BCa) and sign-flip test"


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01, 0.005])
@pytest.mark.parametrize("images", [1, 2, 3, 4])
def test_a_few_images_claim_nothing(images: int, alpha: float) -> None:
    before = np.ones(40)
    after = (np.arange(40) % 6 > 0).astype(float)
    clusters = np.arange(40) % images
    it = compare(list(before), list(after), clusters=list(clusters), alpha=alpha)
    assert it.low <= it.change <= it.high
    assert it.p_value > 0.05
    if images < 3:
        assert (it.low, it.high) == (-1, 1)


def test_a_circular_group_counts_once() -> None:
    before, after = binary(10, 5, 0, 5)
    groups = list(range(20))
    once = compare(before, after)
    four = compare(
        [each for each in before for _ in range(4)],
        [each for each in after for _ in range(4)],
        clusters=[group for group in groups for _ in range(4)],
    )
    assert four.p_value == once.p_value == pytest.approx(1 / 32)
    assert (four.low, four.high) == (once.low, once.high)
    assert (four.lost, four.clusters, four.samples) == (20, 20, 80)


def test_what_two_equal_runs_say() -> None:
    before, _ = binary(30, 0, 0, 10)
    same = compare(before, before)
    assert (same.p_value, same.p_gain, same.two_sided_p) == (1, 1, 1)
    assert (same.change, same.needed) == (0, None)
    # At least five samples have to be lost of 40.
    assert same.smallest == pytest.approx(5 / 40, abs=0.05)
    graded = compare([0.3, 0.6], [0.3, 0.6])
    assert (graded.p_value, graded.low, graded.high) == (1, 0, 0)


def test_the_same_seed_gives_the_same_comparison() -> None:
    random = np.random.default_rng(8)
    before, after = list(random.random(50)), list(random.random(50))
    assert compare(before, after, seed=3) == compare(before, after, seed=3)
    other: Comparison = compare(before, after, seed=4)
    assert other.low != compare(before, after, seed=3).low


def test_needed_and_smallest_invert_the_power() -> None:
    needed = needed_samples(0.05, 0.2, 0.01, LEVEL)
    assert needed is not None
    assert power_of(0.05, needed, 0.2, 0.01, LEVEL) == pytest.approx(0.8, abs=0.002)
    smallest = smallest_drop(needed, 0.2, 0.01, LEVEL)
    assert smallest == pytest.approx(0.05, abs=1e-4)
    assert needed_samples(0.01, 0.2, 0.01, LEVEL) is None
    assert smallest_drop(4, 0.5, 0, LEVEL) is None


def test_unpaired_verdicts_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2 verdicts cannot be paired"):
        compare([1, 0, 1], [1, 0])
