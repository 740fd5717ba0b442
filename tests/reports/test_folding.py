"""What many items or datasets share is told once; what differs is told of each."""

from __future__ import annotations

import pytest

from pytest_vlmeval.reports.folding import (
    FAILED,
    MOST_LINES,
    About,
    fold,
    fold_list,
    fold_messages,
    name_some,
)
from pytest_vlmeval.reports.terminal import format_unheld

MORE = "elsewhere"


def failed(name: str, text: str, dataset: str = "") -> pytest.TestReport:
    """Give the report of a failed item, of ours if it is about a dataset."""
    report = pytest.TestReport(
        nodeid=f"bench/test_{name.partition('[')[0]}.py::TestOne::{name}",
        location=("bench/test_one.py", 1, f"TestOne.{name}"),
        keywords={},
        outcome="failed",
        longrepr=text,
        when="call",
    )
    if dataset:
        vars(report)[FAILED] = dataset
    return report


def names_of(reports: list[pytest.TestReport]) -> list[str]:
    return [report.nodeid.rpartition("::")[2] for report in reports]


def test_names_beyond_a_few_are_counted() -> None:
    assert name_some(["a", "b", "c"]) == "a, b, c"
    assert name_some([f"n{n}" for n in range(1_500)]) == "n0, n1, n2 and 1,497 more"


def test_few_lines_stay_as_they_are() -> None:
    told = [About(f"n{n}", f"n{n} is low. See there.") for n in range(MOST_LINES)]
    assert fold(told, MORE) == [each.text for each in told]
    assert fold([], MORE) == []


def test_many_lines_become_one_for_each_thing_that_is_said() -> None:
    low = [About(f"n{n}", f"n{n} is {n}.5 % low. See n{n}.") for n in range(9)]
    alone = About("other", "other is whole. It passes.")
    assert fold([alone, *low], MORE) == [
        "n0 is 0.5 % low (also n1 and 7 more)",
        "other is whole. It passes.",
    ]


def test_what_has_no_place_is_counted_and_where_it_is_said() -> None:
    told = [About(f"n{n}", f"n{n} has {'x' * n}") for n in range(1, 9)]
    assert fold(told, MORE) == [
        *(each.text for each in told[:MOST_LINES]),
        "and 3 more: elsewhere",
    ]


def test_thresholds_that_nothing_was_held_against() -> None:
    (line,) = format_unheld({f"n{n}": f"min = {n}" for n in range(65)})
    assert line == (
        "gates: n0, n1, n2 and 62 more failed: no test held their scores against "
        "their thresholds (the first: min = 0). Their test_score was skipped or is "
        "not there: run one, or a test that calls vlm_score.check(), or take the "
        "thresholds out."
    )


def test_the_same_message_of_many_items_stands_once() -> None:
    lost = [
        failed(f"test_sample[d{n}-7]", f"d{n}-7 has none: 400", f"d{n}")
        for n in range(30)
    ]
    scores = [failed(f"test_score[d{n}]", f"d{n} is {n}", f"d{n}") for n in range(9)]
    # A user's own tests are told as ever.
    own = [failed(f"test_mine[{n}]", "assert 0") for n in range(9)]
    first, *rest = fold_messages([*lost, *scores, *own])
    assert rest == [*scores, *own]
    assert first.head_line == "TestOne.test_sample[d0-7] and 29 more"
    assert str(first.longrepr) == (
        "d0-7 has none: 400\n\nThe same: "
        f"{', '.join(f'd{n}-7' for n in range(1, 21))} and 9 more."
    )
    assert fold_messages(lost[:3]) == lost[:3]


def test_the_list_has_a_line_for_each_test() -> None:
    lost = [
        failed(f"test_sample[d{n % 2}-{n}]", f"d{n % 2}-{n} has none", f"d{n % 2}")
        for n in range(9)
    ]
    scores = [failed(f"test_score[d{n}]", "low\nmore", f"d{n}") for n in range(9)]
    own = failed("test_mine", "assert 0")
    found = fold_list([own, *lost, *scores])
    assert names_of(found) == ["test_sample", "test_score", "test_mine"]
    assert [str(each.longrepr) for each in found] == [
        "9 samples of 2 datasets (-v names all): d0-0 has none",
        "9 datasets",
        "assert 0",
    ]
    # Of several modules, as the suite has them, their folder.
    other = failed("test_sample[e-1]", "e-1 has none", "e")
    other.nodeid = "bench/test_two.py::TestTwo::test_sample[e-1]"
    assert [each.nodeid for each in fold_list([*lost, other])] == ["bench::test_sample"]
    few = [*lost[:MOST_LINES], own]
    assert fold_list(few) == few
