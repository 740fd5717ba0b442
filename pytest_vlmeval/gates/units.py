"""The independent units of a score: its verdicts, and which of them belong together."""

from __future__ import annotations

from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pytest_vlmeval.gates.outcome import CategoryShare

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.datasets.prepared import IndexRow
    from pytest_vlmeval.records import DatasetInfo, Score, Verdict

WORST = 5
# The numbers of the pictures and videos that a sample shows.
Shown = Collection[int]
# A sample, and the number of its cluster.
Numbered = tuple["IndexRow", int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One verdict and the samples that share it: the rotations of a question, or one.

    `value` is 0 where there is no usable answer or no verdict, as in the score.
    `cluster` numbers what shares a picture, a video or a group with others.
    """

    index: str
    value: float
    cluster: int
    category: str | None
    group: str | None
    reference: str | None
    extracted: str | None


class Units:
    """The units of a dataset's score."""

    def __init__(
        self, info: DatasetInfo, units: Sequence[Unit], splits: Callable[[], Splits]
    ) -> None:
        self.info = info
        self.all = units
        self._find_splits = splits

    @cached_property
    def _splits(self) -> Splits:
        return self._find_splits()

    def named(self, part: str) -> Sequence[Unit]:
        """Return the units that a part of a metric's name is about, maybe none."""
        found = [unit for unit in self.all if unit.category == part]
        return found or [
            unit for unit in self.all if self._splits.get(unit.index) == part
        ]

    def worst_categories(self) -> tuple[CategoryShare, ...]:
        """Return the categories with the smallest shares of right answers, at most 5.

        None where there are no two categories to compare.
        """
        members: dict[str, list[Unit]] = {}
        for unit in self.all:
            if unit.category is not None:
                members.setdefault(unit.category, []).append(unit)
        shares = [
            CategoryShare(
                category=category,
                correct=sum(unit.value >= 0.5 for unit in found),
                samples=len(found),
            )
            for category, found in members.items()
        ]
        if len(shares) < 2:
            return ()
        shares.sort(key=lambda each: (each.correct / each.samples, -each.samples))
        return tuple(shares[:WORST])


# The split of each sample, where the dataset has any.
Splits = Mapping[str, str]


def make_units(
    score: Score,
    info: DatasetInfo,
    rows: Iterable[IndexRow],
    *,
    shown: Iterable[Shown],
    splits: Callable[[], Splits],
) -> Units | None:
    """Return the units of a score; None where single samples have no verdicts.

    `shown` has what each of the rows shows: the numbers of pictures and videos.
    """
    verdicts = {verdict.index: verdict for verdict in score.verdicts}
    if all(verdict.value is None for verdict in verdicts.values()):
        return None
    # In the order of the dataset, whatever that of the verdicts: every process draws
    # the same resamples.
    pairs = zip(rows, shown, strict=True)
    asked = ((row, shows) for row, shows in pairs if row.index in verdicts)
    units = [
        _unit(members, verdicts) for members in _shared(info, _number_clusters(asked))
    ]
    return Units(info, units, splits)


def find_units(library: Library, score: Score) -> Units | None:
    """Return the units of the score of a dataset that is prepared."""
    name = score.dataset
    return make_units(
        score,
        library.prepared(name).info,
        library.rows(name),
        shown=library.shown(name),
        splits=lambda: library.splits(name),
    )


def shares_verdicts(info: DatasetInfo) -> bool:
    """Whether the samples of a group, rotations of a question, have one verdict."""
    return info.class_name == "ImageMCQDataset"


def _shared(
    info: DatasetInfo, samples: Iterable[Numbered]
) -> Iterable[Sequence[Numbered]]:
    """Join the samples that have one verdict."""
    if not shares_verdicts(info):
        return ([sample] for sample in samples)
    joined: dict[tuple[bool, str], list[Numbered]] = {}
    for sample, cluster in samples:
        group = sample.group
        key = (False, sample.index) if group is None else (True, group)
        joined.setdefault(key, []).append((sample, cluster))
    return joined.values()


def _unit(members: Sequence[Numbered], verdicts: Mapping[str, Verdict]) -> Unit:
    first, cluster = members[0]
    found = [verdicts[each.index] for each, _ in members]
    verdict = next(filter(_is_known, found), found[0])
    return Unit(
        index=first.index,
        value=_value(verdict),
        cluster=cluster,
        category=first.category,
        group=first.group,
        reference=first.reference,
        extracted=verdict.extracted,
    )


def _is_known(verdict: Verdict) -> bool:
    return any(each is not None for each in (verdict.value, *verdict.repeats))


def _value(verdict: Verdict) -> float:
    """Return the value as the score counts it, the mean over repeats."""
    if not verdict.repeats:
        return verdict.value or 0.0
    return sum(each or 0.0 for each in verdict.repeats) / len(verdict.repeats)


def _number_clusters(
    samples: Iterable[tuple[IndexRow, Shown]],
) -> Iterator[Numbered]:
    """Give those samples one number that share a picture, a video or a group."""
    parents: list[int] = []

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    # The first sample that shows a picture, and the first of a group.
    seen: dict[int, int] = {}
    grouped: dict[str, int] = {}
    rows = []
    for number, (row, shown) in enumerate(samples):
        rows.append(row)
        parents.append(number)
        firsts = [seen.setdefault(each, number) for each in shown]
        if row.group is not None:
            firsts.append(grouped.setdefault(row.group, number))
        for first in firsts:
            parents[root(first)] = root(number)
    numbers: dict[int, int] = {}
    for number, row in enumerate(rows):
        yield row, numbers.setdefault(root(number), len(numbers))


def sum_by_cluster(
    units: Sequence[Unit], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum columns, shape (N, K), over the clusters of N units: shape (G, K)."""
    _, places = np.unique([unit.cluster for unit in units], return_inverse=True)
    totals = np.zeros((places.max() + 1, columns.shape[1]))
    np.add.at(totals, places, columns)
    return totals
