"""Subsets: the first, or drawn by category; groups whole, the same for a seed."""

from __future__ import annotations

from collections import Counter

import pytest

from pytest_vlmeval.datasets.prepare import IndexRow
from pytest_vlmeval.datasets.sampling import draw, take_first


def row(number: int, category: str | None = None, group: str | None = None) -> IndexRow:
    return IndexRow(str(number), category, group, "A")


PLAIN = [row(n, "abc"[n % 3] if n < 90 else "d") for n in range(100)]
# Questions 0 to 9, each in four rotations that stand far apart.
CIRCULAR = [row(q + 1000 * turn, None, str(q)) for turn in range(4) for q in range(10)]


def test_first() -> None:
    assert take_first(PLAIN, 3) == PLAIN[:3]
    assert take_first(PLAIN, 1000) == PLAIN


def test_first_keeps_groups_whole() -> None:
    taken = take_first(CIRCULAR, 2)
    assert [each.index for each in taken] == ["0", "1000", "2000", "3000"]
    assert len(take_first(CIRCULAR, 5)) == 8


def test_drawn_by_category() -> None:
    drawn = draw(PLAIN, 20, seed=0)
    assert Counter(each.category for each in drawn) == {"a": 6, "b": 6, "c": 6, "d": 2}
    assert [each.index for each in drawn] == sorted(
        (each.index for each in drawn), key=int
    )


def test_a_seed_can_be_repeated() -> None:
    assert draw(PLAIN, 20, seed=1) == draw(PLAIN, 20, seed=1)
    assert draw(PLAIN, 20, seed=1) != draw(PLAIN, 20, seed=2)


def test_drawing_keeps_groups_whole() -> None:
    drawn = draw(CIRCULAR, 10, seed=3)
    groups = Counter(each.group for each in drawn)
    assert set(groups.values()) == {4}
    assert len(groups) == 3


@pytest.mark.parametrize("count", [100, 5000])
def test_drawing_everything(count: int) -> None:
    assert draw(PLAIN, count, seed=9) == PLAIN


def test_every_sample_can_be_drawn() -> None:
    seen = {each.index for seed in range(60) for each in draw(PLAIN, 20, seed)}
    assert len(seen) == 100
