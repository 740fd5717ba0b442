"""Stopping early: the error over many simulated runs, and how many samples it takes."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_vlmeval.gates.early import Side, decided_after, log_capital
from pytest_vlmeval.gates.statistics import Bounds

LEVEL = 0.05
SAMPLES = 1_500
RUNS = 10_000


def decided_at(
    right: int, mean: float, side: Side, *, runs: int = RUNS, seed: int = 0
) -> np.ndarray:
    """Simulate runs over 1,500 samples of which `right` are right, in random order.

    Give when each claims that the share of right answers is on this side of `mean`;
    one more than all where it never does.
    """
    random = np.random.default_rng(seed)
    found = []
    for _ in range(runs // 500):
        values = np.zeros((500, SAMPLES))
        values[:, :right] = 1
        capital = log_capital(random.permuted(values, axis=1), SAMPLES, mean, side)
        crossed = capital >= -np.log(LEVEL)
        first = np.where(crossed.any(axis=1), crossed.argmax(axis=1), SAMPLES)
        found.append(first + 1)
    return np.concatenate(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "mean", "side"),
    [
        (749, 0.5, "above"),
        (751, 0.5, "below"),
        (149, 0.1, "above"),
        (1424, 0.95, "above"),
        (735, 0.5, "above"),
    ],
)
def test_the_error_stays_below_the_level(right: int, mean: float, side: Side) -> None:
    # The true mean lies just on the other side, which is the hardest case.
    wrong = np.mean(decided_at(right, mean, side) <= SAMPLES)
    assert wrong <= LEVEL


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.1, 0.4, 0.5, 0.6, 0.75])
def test_twenty_points_above_take_less_than_a_quarter(threshold: float) -> None:
    right = round((threshold + 0.2) * SAMPLES)
    asked = decided_at(right, threshold, "above")
    assert np.quantile(asked, 0.999) < SAMPLES / 4
    assert np.median(asked) < SAMPLES / 20


def test_what_is_left_cannot_change_a_certain_mean() -> None:
    # 30 right of 40 asked: of 50 at least 60 % are right, whatever comes.
    values = np.array([1.0, 1, 1, 0] * 10)
    capital = log_capital(values, 50, 0.6, "above")
    assert np.isinf(capital[-1])
    assert not np.isinf(capital[-10])
    # And 10 wrong of 40: at most 80 % are right.
    assert np.isinf(log_capital(values, 50, 0.8, "below")[-1])


@pytest.mark.once
def test_graded_values_are_means_too() -> None:
    random = np.random.default_rng(1)
    wrong = 0
    for _ in range(1_000):
        values = random.permutation(random.beta(0.4, 0.6, 600))
        mean = values.mean() + 1e-6
        wrong += decided_after(
            values, 600, Bounds(passes=mean, fails=None), LEVEL
        ) not in (None,)
    assert wrong / 1_000 <= LEVEL


def test_the_first_bound_that_is_crossed_decides() -> None:
    good, bad = np.ones(100), np.zeros(100)
    bounds = Bounds(passes=0.6, fails=0.4)
    above = decided_after(good, 1_000, bounds, LEVEL)
    below = decided_after(bad, 1_000, bounds, LEVEL)
    assert above is not None
    assert below is not None
    assert (above[1], below[1]) == ("above", "below")
    assert above[0] == below[0] < 20
    assert decided_after(good[:3], 1_000, bounds, LEVEL) is None
    only = Bounds(passes=0.6, fails=None)
    assert decided_after(bad, 1_000, only, LEVEL) is None
    # All is known in the end, where the mean lies on neither side.
    even = np.tile([0.0, 1.0], 50)
    assert decided_after(even, 100, Bounds(passes=0.5, fails=0.2), LEVEL) == (
        100,
        "above",
    )


def test_a_smaller_level_takes_longer() -> None:
    values = np.tile([1.0, 1, 1, 0], 100)
    bounds = Bounds(passes=0.5, fails=None)
    at = [decided_after(values, 2_000, bounds, level) for level in (0.1, 0.05, 0.001)]
    counts = [each[0] for each in at if each is not None]
    assert counts == sorted(set(counts))
    assert len(counts) == 3
