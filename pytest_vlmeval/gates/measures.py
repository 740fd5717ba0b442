"""Metrics made again from verdicts and their independent units: how sure they are.

A metric that cannot be made again to the last digit has no interval.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pytest_vlmeval.gates.statistics import (
    Estimate,
    Numbers,
    Proportion,
    Statistic,
    bootstrap,
)
from pytest_vlmeval.records import (
    CategoryShare,
    is_right,
)

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.datasets.prepare import IndexRow
    from pytest_vlmeval.records import DatasetInfo, Interval, Score, Verdict

WORST = 5
# The numbers of the images and videos that a sample shows.
Shown = Collection[int]
# A sample, and the number of its cluster.
Numbered = tuple["IndexRow", int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One verdict and the samples that share it: the rotations of a question, or one.

    `value` is 0 where there is no usable answer or no verdict, as in the score.
    `cluster` numbers what shares an image, a video or a group with others.
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
                correct=sum(is_right(unit.value) for unit in found),
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
    """Return the units of a score; None if single samples have no verdicts.

    `shown` has what each of the rows shows: the numbers of images and videos.
    """
    if score.scoring == "own":
        # ms-vlmeval's rules for its classes do not apply: each sample has a verdict.
        info = replace(info, class_name="", rules="", kind="other")
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
    """Return whether the rotations of a question have one verdict."""
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
    """Yield the samples, each with a number shared by those of its image or group."""
    parents: list[int] = []

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    # The first sample that shows an image, and the first of a group.
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


class Remade(NamedTuple):
    """How a metric is made: `statistic` of the sums of `columns`, shape (N, K).

    Each row of `columns` goes to the cluster of one of `units`; together they are
    about `samples` verdicts. `scale` is the factor of a plain mean of the units'
    values, None for all else.
    """

    units: Sequence[Unit]
    columns: Numbers
    statistic: Statistic
    samples: int
    scale: float | None = None


PERCEPTION = (
    "OCR artwork celebrity color count existence landmark position posters scene"
).split()
REASONING = (
    "code_reasoning commonsense_reasoning numerical_calculation text_translation"
).split()
FULL_SCORE = 2_800


def remake_yes_no(units: Units, name: str, *, main: bool) -> Remade | None:
    """Return how a metric of MME, HallusionBench or POPE is made; None of another.

    `main` is the score itself, on the scale of 100.
    """
    info = units.info
    rules = info.rules or info.name
    if info.class_name != "ImageYORNDataset":
        return None
    if "MME" in rules:
        return _mme(units.all, name, 100 / FULL_SCORE if main else 1.0)
    if "Hallusion" in rules:
        return _hallusion(units, name)
    if "POPE" in rules:
        return _pope(units.all, name)
    return None


def _join(units: Sequence[Unit], key: Callable[[Unit], str]) -> list[Sequence[Unit]]:
    joined: dict[str, list[Unit]] = {}
    for unit in units:
        joined.setdefault(key(unit), []).append(unit)
    return list(joined.values())


def _mme(units: Sequence[Unit], name: str, factor: float) -> Remade:
    """Sum over categories: the share of right questions and that of right images.

    dataset/utils/yorn.py:51 MME_rating, both shares in hundredths.
    """
    wanted = {
        "Overall": PERCEPTION + REASONING,
        "perception": PERCEPTION,
        "reasoning": REASONING,
    }.get(name, [name])
    images = [
        pair
        for pair in _join(units, lambda unit: unit.group or unit.index)
        if pair[0].category in wanted
    ]
    names = sorted({str(pair[0].category) for pair in images})
    columns = np.zeros((len(images), 4, len(names)))
    for row, pair in zip(columns, images, strict=True):
        values = [unit.value for unit in pair]
        right = [sum(values), len(values), float(np.prod(values[:2])), 1]
        row[:, names.index(str(pair[0].category))] = right

    def statistic(sums: Numbers) -> Numbers:
        by_kind = sums.reshape(*sums.shape[:-1], 4, len(names))
        questions = by_kind[..., 0, :] / by_kind[..., 1, :]
        both = by_kind[..., 2, :] / by_kind[..., 3, :]
        # Of few images a resample may lack a category: it is then left out.
        mean: Numbers = np.nanmean(questions + both, axis=-1)
        return 100 * factor * len(names) * mean

    firsts = [pair[0] for pair in images]
    samples = sum(map(len, images))
    return Remade(firsts, columns.reshape(len(images), -1), statistic, samples)


def _hallusion(units: Units, name: str) -> Remade:
    """Return the shares of right questions (a), figures (f) and question groups (q).

    dataset/utils/yorn.py:98 Hallusion_rating. A set is a cluster: its figures and its
    questions cross.
    """
    label, _, kind = name.rpartition("/")
    chosen = units.all if label == "Overall" else units.named(label)
    sets = _join(chosen, _set_of)
    rows = []
    for members in sets:
        figures = _join(members, lambda unit: unit.index.split("_")[4])
        questions = _join(members, lambda unit: unit.index.split("_")[5])
        right = [sum(unit.value for unit in members), len(members)]
        for parts in (figures, questions):
            right += [sum(all(u.value for u in part) for part in parts), len(parts)]
        rows.append(right)
    # Whatever images they have, sets are independent.
    firsts = [replace(members[0], cluster=n) for n, members in enumerate(sets)]
    kinds = {"aAcc": [0], "fAcc": [1], "qAcc": [2], "average": [0, 1, 2]}.get(kind, [])

    def statistic(sums: Numbers) -> Numbers:
        shares = 100 * sums[..., ::2] / sums[..., 1::2]
        mean: Numbers = shares[..., kinds].mean(axis=-1)
        return mean

    columns = np.array(rows, float).reshape(len(rows), 6)
    return Remade(firsts, columns, statistic, len(chosen))


def _set_of(unit: Unit) -> str:
    """Name the set of a figure, whose name is `category_set_figure`."""
    return (unit.group or unit.index).rpartition("_")[0]


def _pope(units: Sequence[Unit], name: str) -> Remade:
    """Return F1, precision, recall or accuracy; a row counts once in each category.

    dataset/utils/yorn.py:145 POPE_rating: said yes or not, and what is right.
    """
    label, _, kind = name.rpartition("/")
    columns = []
    for unit in units:
        categories = (unit.category or "").split(",")
        count = len(categories) if label == "Overall" else categories.count(label)
        true, said = unit.reference == "Yes", unit.extracted == "Yes"
        row = [true and said, said and not true, true and not said, unit.value, 1]
        columns.append([count * float(number) for number in row])

    def statistic(sums: Numbers) -> Numbers:
        found, false, missed = sums[..., 0], sums[..., 1], sums[..., 2]
        if kind == "acc":
            return 100 * sums[..., 3] / sums[..., 4]
        if kind == "Overall":
            return 200 * found / (2 * found + false + missed)
        return 100 * found / (found + (false if kind == "precision" else missed))

    counted = sum(row[-1] > 0 for row in columns)
    return Remade(units, np.array(columns), statistic, counted)


class Metric(NamedTuple):
    """A metric as a score has it: in the unit and with the digits that are shown.

    `name` is "" for the score itself, whose value goes from 0 to its scale.
    """

    name: str
    value: float
    digits: float


def find_metric(score: Score, name: str) -> Metric:
    """Return a metric of a score by name; KeyError where it has none such."""
    if name:
        return Metric(name, score.metrics[name], _rounding(score.metrics[name]))
    raw = score.metrics.get(score.main_metric, score.value)
    unit = score.value / raw if raw else 1.0
    return Metric("", score.value, _rounding(raw) * abs(unit))


def _rounding(value: float) -> float:
    """Return how far off a value may be that was rounded to its last digit."""
    digits = len(repr(float(value)).partition(".")[2])
    if 1 < digits <= 4 and "e" not in repr(value):
        return 0.51 * float(10.0**-digits)
    return 1e-9 * max(1.0, abs(value))


def estimate(
    score: Score, units: Units, metric: Metric, level: float
) -> Estimate | None:
    """Return how sure a metric is; None if it cannot be made of the verdicts."""
    found = _remake(score, units, metric)
    return None if found is None else _estimate(*found, level)


# Columns of ms-vlmeval's tables that count, and may be as large as a share by chance.
COUNTS = {"tot", "hit", "prefetch", "num", "num_samples"}


class Share(NamedTuple):
    """A metric that goes from 0 to 100, as a mean of verdicts does.

    `interval` is None where verdicts are graded, or counted in pairs and groups: it
    takes a bootstrap.
    """

    percent: float
    interval: Interval | None


def find_share(score: Score, units: Units, name: str, level: float) -> Share | None:
    """Return a metric in percent; None if it is no share, or not made of verdicts.

    `level` is that of each bound.
    """
    if name.rpartition("/")[2] in COUNTS:
        return None
    metric = find_metric(score, name)
    found = _remake(score, units, metric)
    if found is None:
        return None
    remade, totals = found
    if remade.scale is None:
        # MME counts points; POPE and HallusionBench have percentages.
        is_points = "MME" in (units.info.rules or units.info.name)
        return None if is_points else Share(metric.value, None)
    if remade.scale not in (1.0, 100.0):
        return None
    sums = totals.sum(axis=0)
    interval = None
    if np.isin(remade.columns[:, 0], (0, 1)).all():
        interval = Proportion(
            correct=totals[:, 0], sizes=totals[:, 1], scale=100, level=level
        ).interval
    return Share(float(100 * sums[0] / sums[1]), interval)


def _remake(
    score: Score, units: Units, metric: Metric
) -> tuple[Remade, Numbers] | None:
    """Return how a metric was made and the sums of its clusters; None if unknown."""
    for remade in _ways(score, units, metric):
        if len(remade.units) == 0:
            continue
        totals = sum_by_cluster(remade.units, remade.columns)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = float(remade.statistic(totals.sum(axis=0)))
        if abs(value - metric.value) <= metric.digits:
            return remade, totals
    return None


def _estimate(remade: Remade, totals: Numbers, level: float) -> Estimate | None:
    values = remade.columns[:, 0]
    if remade.scale is not None and np.isin(values, (0, 1)).all():
        return Proportion(
            correct=totals[:, 0], sizes=totals[:, 1], scale=remade.scale, level=level
        )
    found = bootstrap(totals, remade.statistic, samples=remade.samples, level=level)
    if found is None and remade.scale is not None:
        # Grades that are all alike: of all values from 0 to 1 with this mean, none
        # vary more than right and wrong.
        return Proportion(
            correct=totals[:, 0], sizes=totals[:, 1], scale=remade.scale, level=level
        )
    return found


def _ways(score: Score, units: Units, metric: Metric) -> Iterator[Remade]:
    """Yield the ways in which a metric may have been made, the likeliest first."""
    name = metric.name or score.main_metric
    special = remake_yes_no(units, name, main=not metric.name)
    if special is not None:
        yield special
        return
    for part in name.split("/"):
        chosen = units.named(part)
        if 0 < len(chosen) < len(units.all):
            yield from _means(score, chosen, main=not metric.name)
            return
    yield from _means(score, units.all, main=not metric.name)
    if not metric.name:
        yield _mean_of_categories(units.all, score.scale)


def _means(score: Score, units: Sequence[Unit], *, main: bool) -> Iterator[Remade]:
    columns = np.ones((len(units), 2))
    columns[:, 0] = [unit.value for unit in units]
    # Shares and percentages; OCRBench counts points.
    scales = (score.scale,) if main else (1.0, 100.0, float(len(units)))
    for scale in scales:
        yield Remade(units, columns, _mean(scale), len(units), scale)


def _mean(scale: float) -> Statistic:
    return lambda sums: scale * sums[..., 0] / sums[..., 1]


def _mean_of_categories(units: Sequence[Unit], scale: float) -> Remade:
    """Return the mean in which each category counts alike, as MTVQA's languages."""
    names = sorted({unit.category or "" for unit in units})
    columns = np.zeros((len(units), 2 * len(names)))
    for row, unit in zip(columns, units, strict=True):
        place = names.index(unit.category or "")
        row[place], row[len(names) + place] = unit.value, 1.0
    middle = len(names)

    def statistic(sums: Numbers) -> Numbers:
        # Of few samples a resample may lack a category: it is then left out.
        mean: Numbers = np.nanmean(sums[..., :middle] / sums[..., middle:], axis=-1)
        return scale * mean

    return Remade(units, columns, statistic, len(units))
