"""Baselines that are decided early: the error of simulated runs, and what it takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from pytest_vlmeval.gates.early import (
    PairedBounds,
    Side,
    find_paired_bounds,
    log_capital,
    paired_decided_after,
    paired_values,
)
from pytest_vlmeval.gates.paired import compare, drop_p, fewest_lost

ALPHA = 0.05
SAMPLES = 1_500
RUNS = 10_000


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
def test_the_error_stays_below_the_level(changed: int, margin: float) -> None:
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
