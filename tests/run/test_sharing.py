"""How the requests of a session are divided among its processes."""

from __future__ import annotations

import pytest

from pytest_vlmeval.run.queue import part_of
from pytest_vlmeval.run.store.database import Member


def parts(total: int, processes: int, *states: str) -> list[int]:
    members = [Member(str(n), n, state) for n, state in enumerate(states)]
    return [part_of(total, each.owner, members, processes) for each in members]


@pytest.mark.parametrize("total", [1, 2, 7, 16])
def test_the_parts_of_all_are_the_total(total: int) -> None:
    for processes in range(1, 6):
        assert sum(parts(total, processes, *["live"] * processes)) == total


def test_who_comes_first_takes_no_more_than_its_part() -> None:
    assert parts(16, 4, "live") == [4]
    assert parts(5, 2, "live") == [3]
    assert part_of(5, "1", [Member("1", 1, "live")], 2) == 2
    assert parts(1, 2, "live", "live") == [1, 0]


def test_what_one_leaves_the_others_take() -> None:
    assert parts(16, 4, "live", "left", "left", "left") == [16, 0, 0, 0]
    assert parts(7, 3, "left", "live", "live") == [0, 4, 3]


def test_the_part_of_a_dead_one_is_kept_for_its_successor() -> None:
    assert parts(16, 2, "dead", "live") == [0, 8]
    assert parts(16, 2, "dead", "live", "live") == [0, 8, 8]
    assert parts(1, 2, "live", "dead", "live") == [1, 0, 0]
