"""Subsets of a dataset that keep together what is judged together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.prepare import IndexRow

# Samples that are judged together: a circular question, a pair, a figure; mostly one.
Unit = list["IndexRow"]


def take_first(rows: Sequence[IndexRow], count: int) -> list[IndexRow]:
    """Return the first `count` samples, and the rest of the last one's group."""
    taken: list[Unit] = []
    size = 0
    for unit in _units(rows):
        if size >= count:
            break
        taken.append(unit)
        size += len(unit)
    return _in_order(rows, taken)


def draw(rows: Sequence[IndexRow], count: int, seed: int) -> list[IndexRow]:
    """Draw about `count` samples at random, each category by its share.

    Groups stay whole, so a few more than `count` may come. The same rows, count and
    seed give the same samples, in the dataset's order.
    """
    units = _units(rows)
    if count >= len(rows):
        return list(rows)
    categories: dict[str | None, list[Unit]] = {}
    for unit in units:
        categories.setdefault(unit[0].category, []).append(unit)
    wanted = _shares([sum(map(len, each)) for each in categories.values()], count)
    generator = random.Random(seed)
    drawn: list[Unit] = []
    for members, share in zip(categories.values(), wanted, strict=True):
        size = 0
        for unit in generator.sample(members, len(members)):
            if size >= share:
                break
            drawn.append(unit)
            size += len(unit)
    return _in_order(rows, drawn)


def shuffle(rows: Sequence[IndexRow], seed: int) -> list[IndexRow]:
    """Return the samples in a random order in which groups stay whole."""
    units = _units(rows)
    random.Random(f"order {seed}").shuffle(units)
    return [row for unit in units for row in unit]


def _units(rows: Sequence[IndexRow]) -> list[Unit]:
    """Return the groups in the order of their first samples."""
    units: dict[tuple[bool, str], Unit] = {}
    for row in rows:
        alone = row.group is None
        units.setdefault((alone, row.group or row.index), []).append(row)
    return list(units.values())


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """Divide `count` by `sizes`, the largest remainders rounded up (Hamilton)."""
    total = sum(sizes)
    shares = [count * size // total for size in sizes]
    by_remainder = sorted(
        range(len(sizes)), key=lambda i: (-(count * sizes[i] % total), i)
    )
    for position in by_remainder[: count - sum(shares)]:
        shares[position] += 1
    return shares


def _in_order(rows: Sequence[IndexRow], units: Sequence[Unit]) -> list[IndexRow]:
    chosen = {row.index for unit in units for row in unit}
    return [row for row in rows if row.index in chosen]
