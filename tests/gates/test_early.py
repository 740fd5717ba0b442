"""Stopping early: what decides a gate, its error in simulated runs, its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from pytest_vlmeval.datasets.prepare import IndexRow, shuffle
from pytest_vlmeval.gates.early import (
    PairedBounds,
    Side,
    as_gate,
    decided_after,
    find_bounds,
    find_paired_bounds,
    log_capital,
    paired_decided_after,
    paired_values,
)
from pytest_vlmeval.gates.paired import compare, drop_p, fewest_lost
from pytest_vlmeval.gates.statistics import Bounds, Proportion
from pytest_vlmeval.gates.thresholds import Threshold
from pytest_vlmeval.records import Decision, GateResult, Stop, Whole
from pytest_vlmeval.reports.terminal import format_gates, format_markdown


def threshold(minimum: float, rule: str, level: float = 0.95) -> Threshold:
    return Threshold("one", "", minimum, rule, level, "*", "")


def independent(right: int, samples: int, level: float = 0.95) -> Proportion:
    correct = np.zeros(samples)
    correct[:right] = 1
    return Proportion(correct=correct, sizes=np.ones(samples), scale=100, level=level)


@pytest.mark.once
@pytest.mark.parametrize("minimum", [20, 60, 95])
@pytest.mark.parametrize("level", [0.9, 0.99])
def test_bounds_are_where_the_gate_of_all_samples_turns(
    minimum: float, level: float
) -> None:
    samples = 300
    below = find_bounds(threshold(minimum, "confident-below", level), 100, [1] * 300)
    above = find_bounds(threshold(minimum, "confident-above", level), 100, [1] * 300)
    assert below.passes == pytest.approx(minimum / 100)
    assert above.fails == pytest.approx(minimum / 100)
    assert below.fails is not None
    for right in range(samples + 1):
        found = independent(right, samples, level)
        share = right / samples
        is_below = found.p_below(minimum) <= 1 - level
        assert is_below == (share <= below.fails + 1e-9), right
        is_above = found.p_above(minimum) <= 1 - level
        assert is_above == (
            above.passes is not None and share >= above.passes - 1e-9
        ), right


def test_samples_of_one_image_count_as_one() -> None:
    alone = find_bounds(threshold(60, "confident-below"), 100, [1] * 100)
    shared = find_bounds(threshold(60, "confident-below"), 100, [4] * 100)
    assert shared == alone
    uneven = find_bounds(threshold(60, "confident-below"), 100, [1] * 90 + [31] * 10)
    assert uneven.fails is not None
    assert alone.fails is not None
    # 400 samples in 100 clusters again, but most of them in ten.
    assert uneven.fails < alone.fails


def test_nothing_is_surely_below_a_threshold_that_few_samples_cannot_tell() -> None:
    found = find_bounds(threshold(5, "confident-below"), 100, [1] * 10)
    assert found.fails is None


def rows(groups: Sequence[str | None]) -> list[IndexRow]:
    return [
        IndexRow(index=str(n), category=None, group=group, reference=None)
        for n, group in enumerate(groups)
    ]


def test_samples_are_asked_in_random_order_with_groups_whole() -> None:
    given = rows([f"g{n // 4}" if n < 80 else None for n in range(120)])
    order = shuffle(given, seed=0)
    assert sorted(order, key=lambda row: int(row.index)) == given
    assert order != given
    assert order == shuffle(given, seed=0)
    assert order != shuffle(given, seed=1)
    for n in range(20):
        places = [k for k, row in enumerate(order) if row.group == f"g{n}"]
        assert places == list(range(places[0], places[0] + 4))


def test_reports_say_that_a_dataset_stopped_and_count_it_as_no_gate() -> None:
    decisions = (
        Decision(gate="threshold", outcome="failed", claim="its threshold is missed"),
        Decision(gate="baseline", outcome="passed", claim="its baseline is kept"),
    )
    stop = Stop(dataset="one", asked=312, total=1_500, decisions=decisions)
    assert (stop.outcome("threshold"), stop.outcome("baseline")) == ("failed", "passed")
    assert stop.outcome("completeness") is None
    gate = GateResult(
        dataset="one", gate="threshold", outcome="failed", message="bad", fails=True
    )
    whole = Whole(dataset="two", why="it has no threshold")
    found = [gate, as_gate(stop), as_gate(whole)]
    said = (
        "one stopped after 312 of 1,500 samples: its threshold is missed; its baseline "
        "is kept (--vlm-stop-early)."
    )
    assert format_gates(found) == [
        "gates: 1 failed",
        "gates: bad",
        f"gates: {said}",
        "gates: --vlm-stop-early does not apply to two: it has no threshold.",
    ]
    assert "1 of 1 gates fail" in format_markdown("m", found)
    assert said in format_markdown("m", found)


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


ALPHA = 0.05


def bounds_of(
    samples: int = SAMPLES, margin: float = 0.0, *, strict: bool = False
) -> PairedBounds:
    return find_paired_bounds(
        np.ones(samples),
        right_or_wrong=True,
        margin=margin,
        alpha=ALPHA,
        strict=strict,
    )


def changes_of(lost: int, gained: int, samples: int = SAMPLES) -> np.ndarray:
    changes = np.zeros(samples)
    changes[:lost] = -1
    changes[lost : lost + gained] = 1
    return changes


def claimed(
    changes: np.ndarray, bounds: PairedBounds, side: Side, runs: int = RUNS
) -> np.ndarray:
    """Simulate runs in random order; give when each claims a side, else one more."""
    line = bounds.fails if side == "above" else bounds.passes
    assert line is not None
    random = np.random.default_rng(0)
    total, found = len(changes), []
    for _ in range(runs // 500):
        drawn = random.permuted(np.tile(changes, (500, 1)), axis=1)
        values, limit = paired_values(drawn, np.ones(total), line)
        capital = log_capital(values, total, limit, side)
        crossed = capital >= -np.log(ALPHA)
        first = np.where(crossed.any(axis=1), crossed.argmax(axis=1), total)
        found.append(first + 1)
    return np.concatenate(found)


@pytest.mark.once
@pytest.mark.parametrize(
    ("samples", "margin"), [(120, 0.0), (300, 0.05), (1_500, 0.02)]
)
def test_the_fewest_lost_are_where_the_test_turns(samples: int, margin: float) -> None:
    fewest = fewest_lost(samples, margin, ALPHA)
    for changed in range(0, samples + 1, 7):
        lost = int(fewest[changed])
        if lost <= changed:
            assert drop_p(lost, changed - lost, samples, margin) <= ALPHA
        before = min(lost, changed + 1) - 1
        assert before < 0 or drop_p(before, changed - before, samples, margin) > ALPHA


@pytest.mark.once
@pytest.mark.parametrize(("samples", "margin"), [(60, 0.0), (400, 0.0), (300, 0.05)])
def test_lines_leave_no_room_for_a_wrong_claim(samples: int, margin: float) -> None:
    """Of all that 300 samples may do: beyond one line all fails, below no test does."""
    bounds = bounds_of(samples, margin)
    assert bounds.fails is not None
    assert bounds.passes is not None
    claims = {"fails": 0, "passes": 0}
    for lost in range(0, samples + 1, 3):
        for gained in range(0, samples - lost + 1, 3):
            fails = drop_p(lost, gained, samples, margin) <= ALPHA
            drop, changed = lost - gained, lost + gained
            for name, line in (("fails", bounds.fails), ("passes", bounds.passes)):
                beyond = drop - line.slope * changed - line.mean * samples
                if name == "fails" and beyond >= 1e-9:
                    assert fails, (lost, gained)
                    claims[name] += 1
                if name == "passes" and beyond < -1e-9:
                    assert not fails, (lost, gained)
                    claims[name] += 1
    # And they claim most of what there is.
    assert min(claims.values()) > 0.25 * (samples / 3) ** 2 / 2


# As many as change most often, few, and many; each just not, or just, a regression.
@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.0, 0.02])
@pytest.mark.parametrize("changed", [60, 150, 600])
def test_the_error_of_a_comparison_stays_below_the_level(
    changed: int, margin: float
) -> None:
    bounds = bounds_of(margin=margin)
    lost = int(fewest_lost(SAMPLES, margin, ALPHA)[changed])
    not_yet = changes_of(lost - 1, changed - lost + 1)
    assert np.mean(claimed(not_yet, bounds, "above") <= SAMPLES) <= ALPHA
    failed = changes_of(lost, changed - lost)
    assert np.mean(claimed(failed, bounds, "below") <= SAMPLES) <= ALPHA


@pytest.mark.slow
def test_what_is_clear_takes_few_samples() -> None:
    """A model that lost ten points, and one as it was where two are tolerated."""
    worse = claimed(changes_of(180, 30), bounds_of(), "above", 1_000)
    assert np.quantile(worse, 0.95) < SAMPLES / 4
    same = claimed(changes_of(10, 10), bounds_of(margin=0.02), "below", 1_000)
    assert np.median(same) < SAMPLES / 6
    # Without a margin nothing but many samples shows that nothing is lost.
    same = claimed(changes_of(0, 0), bounds_of(), "below", 500)
    assert np.median(same) > SAMPLES / 2


def test_a_drop_is_no_pass_where_an_inconclusive_gate_fails() -> None:
    small = np.random.default_rng(3).permutation(changes_of(8, 0))
    sizes = np.ones(SAMPLES)
    lax = paired_decided_after(small, sizes, SAMPLES, bounds_of(), ALPHA)
    assert lax is None or lax[1] == "above"
    few = np.random.default_rng(3).permutation(changes_of(3, 0))
    lax = paired_decided_after(few, sizes, SAMPLES, bounds_of(), ALPHA)
    assert lax is not None
    assert lax[1] == "below"
    strict = bounds_of(strict=True)
    assert paired_decided_after(few, sizes, SAMPLES, strict, ALPHA) is None


def clustered(random: np.random.Generator, drop: float) -> Mapping[str, np.ndarray]:
    """Draw 300 images of one to six graded questions, changing together."""
    sizes = random.integers(1, 7, 300)
    cluster = np.repeat(np.arange(300), sizes)
    shift = random.choice([-0.5, 0, 0, 0, 0.5], 300)[cluster] - drop
    before = random.uniform(0.5, 0.5 + drop, len(cluster))
    order = random.permutation(len(cluster))
    return {
        "before": before[order],
        "after": np.clip(before + shift, 0, 1)[order],
        "cluster": cluster[order],
        "sizes": sizes[cluster].astype(float)[order],
    }


@pytest.mark.once
@pytest.mark.parametrize(
    ("drop", "sides"), [(0.03, {"above", "below"}), (0.3, {"above"})]
)
def test_clusters_and_grades_are_decided_as_the_whole_test_does(
    drop: float, sides: set[Side]
) -> None:
    random = np.random.default_rng(int(100 * drop))
    claims: list[Side] = []
    for _ in range(12):
        data = clustered(random, drop)
        bounds = find_paired_bounds(
            data["sizes"], right_or_wrong=False, margin=0, alpha=ALPHA, strict=False
        )
        decided = paired_decided_after(
            data["after"] - data["before"],
            data["sizes"],
            len(data["sizes"]),
            bounds,
            ALPHA,
        )
        if decided is None:
            continue
        claims.append(decided[1])
        whole = compare(
            data["before"].tolist(),
            data["after"].tolist(),
            clusters=data["cluster"].tolist(),
        )
        assert (whole.p_value <= ALPHA) == (decided[1] == "above")
    assert set(claims) == sides


def test_what_no_run_could_show_is_never_claimed() -> None:
    assert bounds_of(4).fails is None


@pytest.mark.parametrize("gained", [0, 2, 10])
def test_the_exact_test_with_a_margin_agrees(gained: int) -> None:
    """Up to 100 samples the test with a margin is exact, and the bounds are normal."""
    bounds = bounds_of(60, 0.1)
    assert bounds.fails is not None
    assert bounds.passes is not None
    lost = next(
        lost
        for lost in range(60)
        if lost - gained - bounds.fails.slope * (lost + gained)
        >= bounds.fails.mean * 60
    )
    assert drop_p(lost, gained, 60, 0.1) <= ALPHA
    assert drop_p(gained + int(bounds.passes.mean * 60), gained, 60, 0.1) > ALPHA
