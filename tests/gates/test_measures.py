"""Metrics made again from verdicts: ms-vlmeval's own numbers, to the last digit."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.prepare import IndexRow, read_index, read_splits
from pytest_vlmeval.gates.measures import (
    Units,
    estimate,
    find_metric,
    find_share,
    make_units,
)
from pytest_vlmeval.records import CategoryShare, DatasetInfo, Score, Verdict
from tests.support.sandbox_tables import (
    describe,
    prepare,
    score,
    write_table,
)
from tests.support.upstream_tables import (
    DATASETS,
    SHIPPED,
    answer_all,
)

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.process import Sandbox

INFO = DatasetInfo(
    name="Data", class_name="ImageVQADataset", module="image_vqa", kind="vqa"
)


# Metrics beside the score itself ("") that have an interval, and those that have none.
KNOWN = {
    "MMStar": ("", "dev/Overall test/Overall", "dev/logic_reasoning"),
    "MMBench_DEV_EN": ("", "dev/Overall test/Overall", "dev/colour"),
    "POPE": (
        "",
        "Overall/acc Overall/precision Overall/recall color/acc count/Overall",
        "",
    ),
    "MME": ("", "Overall perception reasoning color code_reasoning", ""),
    "HallusionBench": ("", "Overall/aAcc Overall/fAcc Overall/qAcc VS/qAcc", ""),
    "Own": ("", "Overall color", ""),
    "OCRBench": ("", "Final Score", ""),
    "MMMU_DEV_VAL": ("", "", ""),
}


def units_of(found: Score, info: DatasetInfo, rows: list[IndexRow]) -> Units:
    units = make_units(found, info, rows, shown=[()] * len(rows), splits=dict)
    assert units is not None
    return units


def scored(
    sandbox: Sandbox, folder: Path, name: str
) -> tuple[Score, DatasetInfo, Units]:
    """Score a dataset with ms-vlmeval; give its score and its units."""
    class_name, rows, styles = DATASETS[name]
    info = describe(write_table(folder / f"{name}.tsv", rows), class_name)
    prepared = prepare(info, sandbox, folder)
    result = score(sandbox, prepared, answer_all(rows, styles))
    made = Score(
        dataset=name,
        metrics=result.metrics,
        main_metric=result.main_metric,
        value=result.value,
        best=result.best,
        samples=len(rows),
        answered=len(rows),
        correct=0,
        undecided=0,
        modified=False,
        scorer="",
        judge="exact_matching",
        scale=result.scale,
        verdicts=tuple(result.verdicts),
    )
    samples = read_index(prepared)
    units = make_units(
        made,
        info,
        samples,
        shown=[()] * len(samples),
        splits=lambda: read_splits(prepared),
    )
    assert units is not None
    return made, info, units


@pytest.mark.parametrize("name", DATASETS)
def test_a_metric_is_made_again(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    made, _, units = scored(sandbox, tmp_path, name)
    main, known, unknown = KNOWN.get(name, ("", "", ""))
    named = [known] if known in made.metrics else known.split()
    for metric_name in [main, *named]:
        metric = find_metric(made, metric_name)
        found = estimate(made, units, metric, 0.95)
        assert found is not None, metric_name
        assert found.value == pytest.approx(metric.value, abs=metric.digits)
        assert found.interval.low <= metric.value <= found.interval.high
        assert found.interval.low < found.interval.high
    for metric_name in unknown.split():
        if metric_name in made.metrics:
            assert estimate(made, units, find_metric(made, metric_name), 0.95) is None
    for threshold in SHIPPED.of("qwen-vl-chat", name):
        metric = find_metric(made, threshold.metric)
        assert estimate(made, units, metric, threshold.level) is not None


# Metrics that are shares, and what ms-vlmeval's number has to be multiplied by.
SHARES = {
    "MMStar": ("dev/Overall test/Overall", 100),
    "POPE": ("Overall/acc Overall/precision color/acc", 1),
    "MME": ("", 1),
    "HallusionBench": ("Overall/aAcc Overall/fAcc VS/qAcc", 1),
    "Own": ("Overall color", 1),
    "OCRBench": ("", 1),
}


@pytest.mark.parametrize("name", SHARES)
def test_a_share_is_in_percent(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    found, _, units = scored(sandbox, tmp_path, name)
    names, factor = SHARES[name]
    shares = {each: find_share(found, units, each, 0.95) for each in found.metrics}
    for metric in names.split():
        share = shares[metric]
        assert share is not None
        assert share.percent == pytest.approx(factor * found.metrics[metric])
        if share.interval is not None:
            assert 0 <= share.interval.low <= share.percent <= share.interval.high
            assert share.interval.high <= 100
            assert share.interval.level == 0.9
    # Points and counts are none.
    assert names or not any(shares.values())
    assert all(0 <= share.percent <= 100 for share in shares.values() if share)


def test_rotations_count_once(sandbox: Sandbox, tmp_path: Path) -> None:
    made, _, units = scored(sandbox, tmp_path, "MMBench_DEV_EN")
    assert made.samples == 60
    assert len(units.all) == 15
    found = estimate(made, units, find_metric(made, ""), 0.95)
    assert found is not None
    assert found.samples < 15  # The split that it is ranked by.


def verdict(index: int, value: float | None, *repeats: float | None) -> Verdict:
    return Verdict(index=str(index), value=value, repeats=repeats)


def make_score(verdicts: list[Verdict], value: float) -> Score:
    return Score(
        dataset="Data",
        metrics={"Overall": value},
        main_metric="Overall",
        value=value,
        best=value,
        samples=len(verdicts),
        answered=len(verdicts),
        correct=0,
        undecided=0,
        modified=False,
        scorer="",
        judge="exact_matching",
        verdicts=tuple(verdicts),
    )


def make_rows(count: int, groups: int | None = None) -> list[IndexRow]:
    return [
        IndexRow(
            index=str(n),
            category="ab"[n % 2],
            group=None if groups is None else str(n % groups),
            reference=None,
        )
        for n in range(count)
    ]


def test_what_was_not_answered_or_decided_counts_as_wrong() -> None:
    verdicts = [verdict(0, 1.0), verdict(1, None), verdict(2, 1.0), verdict(3, 0.0)]
    made = make_score(verdicts, 50.0)
    found = estimate(
        made, units_of(made, INFO, make_rows(4)), find_metric(made, ""), 0.95
    )
    assert found is not None
    assert found.value == 50
    assert found.samples == 4


def test_repeats_are_a_mean_of_each_sample() -> None:
    verdicts = [verdict(n, n % 2 / 2, n % 2, 0.0) for n in range(19)]
    verdicts.append(verdict(19, None, None, 1.0))
    made = make_score(verdicts, 100 * (9 * 0.5 + 0.5) / 20)
    found = estimate(
        made, units_of(made, INFO, make_rows(20)), find_metric(made, ""), 0.95
    )
    assert found is not None
    assert found.clusters == found.samples == 20
    assert found.interval.method == "BCa bootstrap"


def test_grades_that_are_all_alike_have_the_interval_of_a_share() -> None:
    made = make_score([verdict(n, 0.5) for n in range(30)], 50.0)
    found = estimate(
        made, units_of(made, INFO, make_rows(30)), find_metric(made, ""), 0.95
    )
    assert found is not None
    assert found.interval.method == "Wilson"


def test_a_number_that_is_another_has_no_interval() -> None:
    made = make_score([verdict(n, n % 2) for n in range(30)], 50.0001)
    units = units_of(made, INFO, make_rows(30))
    assert estimate(made, units, find_metric(made, ""), 0.95) is None
    # With as many digits as are shown it is the same.
    rounded = replace(made, value=50.0, metrics={"Overall": 0.5})
    assert estimate(rounded, units, find_metric(rounded, ""), 0.95) is not None


def test_the_order_of_verdicts_changes_nothing() -> None:
    chance = random.Random(4)
    verdicts = [verdict(n, chance.random()) for n in range(40)]
    value = 100 * sum(each.value or 0 for each in verdicts) / 40
    found = []
    for order in (verdicts, verdicts[::-1]):
        made = make_score(order, value)
        units = units_of(made, INFO, make_rows(40))
        known = estimate(made, units, find_metric(made, ""), 0.95)
        assert known is not None
        found.append((known.interval, known.p_below(60), units.worst_categories()))
    assert found[0] == found[1]


def test_captions_have_no_units() -> None:
    made = make_score([verdict(n, None) for n in range(3)], 80.0)
    found = make_units(made, INFO, make_rows(3), shown=[()] * 3, splits=dict)
    assert found is None


def test_samples_of_a_image_or_a_group_are_a_cluster() -> None:
    shown: list[list[int]] = [[0], [0, 1], [1], [2], [], []]
    made = make_score([verdict(n, 1.0) for n in range(6)], 100.0)
    rows = [
        IndexRow(index=str(n), category=None, group=group, reference=None)
        for n, group in enumerate([None, None, None, "g", "g", None])
    ]
    units = make_units(
        made,
        INFO,
        rows,
        shown=shown,
        splits=dict,
    )
    assert units is not None
    clusters = [unit.cluster for unit in units.all]
    assert clusters[0] == clusters[1] == clusters[2]
    assert clusters[3] == clusters[4]
    assert len(set(clusters)) == 3


def test_the_worst_categories() -> None:
    rows = [
        IndexRow(index=str(n), category=f"c{n % 7}", group=None, reference=None)
        for n in range(70)
    ]
    made = make_score([verdict(n, float(n % 7 > n // 10)) for n in range(70)], 0.0)
    worst = units_of(made, INFO, rows).worst_categories()
    assert len(worst) == 5
    assert worst[0] == CategoryShare(category="c0", correct=0, samples=10)
    shares = [each.correct for each in worst]
    assert shares == sorted(shares)
    same = units_of(make_score([verdict(0, 1.0)], 100.0), INFO, make_rows(1))
    assert same.worst_categories() == ()
