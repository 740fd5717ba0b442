"""The record of a gate: its way to the store and to JUnit, and when it fails a test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vlmeval.gates.thresholds import RULES
from pytest_vlmeval.records import (
    CategoryShare,
    GateOutcome,
    GateResult,
    Inconclusive,
    Interval,
    explain_failures,
    is_failure,
    properties_of,
)
from pytest_vlmeval.run.store import Store

RESULT = GateResult(
    dataset="Data",
    gate="threshold",
    metric="Overall",
    outcome="failed",
    rule="confident-below",
    value=50.0,
    interval=Interval(low=41.2, high=58.8, level=0.9, method="Wilson"),
    samples=100,
    clusters=80,
    expected=60.0,
    p_value=0.02,
    lost=3,
    gained=1,
    worst=(CategoryShare(category="counting", correct=1, samples=9),),
    needed_samples=640,
    message="Data: too low.",
    fails=True,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.close()


def test_the_store_gives_back_what_it_was_given(store: Store) -> None:
    bare = GateResult(
        dataset="Data", gate="completeness", outcome="passed", message="complete"
    )
    store.save_gates("session", "run", [RESULT, bare])
    store.save_gates("other session", "run", [replace(bare, dataset="Else")])
    assert store.load_gates("session") == (bare, RESULT)


def test_the_newest_result_of_a_session_counts(store: Store) -> None:
    store.save_gates("session", "run", [RESULT])
    newer = replace(RESULT, outcome="passed", fails=False)
    store.save_gates("session", "run", [newer])
    assert store.load_gates("session") == (newer,)


@pytest.mark.parametrize(
    ("outcome", "rule", "inconclusive", "fails"),
    [
        ("passed", "confident-above", "fail", False),
        ("failed", "confident-below", "pass", True),
        ("inconclusive", "confident-below", "rule", False),
        ("inconclusive", "confident-above", "rule", True),
        ("inconclusive", "confident-above", "pass", False),
        ("inconclusive", "confident-below", "fail", True),
    ],
)
def test_what_fails_a_test(
    outcome: GateOutcome, rule: str, inconclusive: Inconclusive, fails: bool
) -> None:
    assert is_failure(outcome, inconclusive, strict=RULES[rule].strict) == fails


def test_failures_are_told_together_and_only_they() -> None:
    fine = replace(RESULT, fails=False, message="fine")
    other = replace(RESULT, message="Data: incomplete.")
    assert explain_failures([fine]) is None
    assert explain_failures([RESULT, fine, other]) == (
        "Data: too low.\n\nData: incomplete."
    )


def test_junit_has_the_interval_and_the_reason() -> None:
    found = dict(properties_of(RESULT, every=False))
    start = "threshold gate of Overall"
    assert f"{start}: p-value" not in found
    assert found[f"{start}: interval"] == "[41.20, 58.80], 90 % Wilson"
    assert found[f"{start}: reason"] == "Data: too low."
    assert found[f"{start}: outcome"] == "failed"
    assert found.items() < dict(properties_of(RESULT, every=True)).items()
