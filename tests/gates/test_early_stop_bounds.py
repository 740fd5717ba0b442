"""What a share of all samples decides, and the order in which samples are asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pytest_vlmeval.datasets.prepare import IndexRow, shuffle
from pytest_vlmeval.gates.early import as_gate, find_bounds
from pytest_vlmeval.gates.statistics import Proportion
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
