"""What ms-vlmeval makes of yes/no questions (dataset/utils/yorn.py), from verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pytest_vlmeval.gates.bca import Statistic
from pytest_vlmeval.gates.intervals import Numbers
from pytest_vlmeval.gates.units import Unit, Units


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
    """Sum over categories: the share of right questions and that of right pictures.

    dataset/utils/yorn.py:51 MME_rating, both shares in hundredths.
    """
    wanted = {
        "Overall": PERCEPTION + REASONING,
        "perception": PERCEPTION,
        "reasoning": REASONING,
    }.get(name, [name])
    pictures = [
        pair
        for pair in _join(units, lambda unit: unit.group or unit.index)
        if pair[0].category in wanted
    ]
    names = sorted({str(pair[0].category) for pair in pictures})
    columns = np.zeros((len(pictures), 4, len(names)))
    for row, pair in zip(columns, pictures, strict=True):
        values = [unit.value for unit in pair]
        right = [sum(values), len(values), float(np.prod(values[:2])), 1]
        row[:, names.index(str(pair[0].category))] = right

    def statistic(sums: Numbers) -> Numbers:
        by_kind = sums.reshape(*sums.shape[:-1], 4, len(names))
        questions = by_kind[..., 0, :] / by_kind[..., 1, :]
        both = by_kind[..., 2, :] / by_kind[..., 3, :]
        # Of few pictures a resample may lack a category: it is then left out.
        mean: Numbers = np.nanmean(questions + both, axis=-1)
        return 100 * factor * len(names) * mean

    firsts = [pair[0] for pair in pictures]
    samples = sum(map(len, pictures))
    return Remade(firsts, columns.reshape(len(pictures), -1), statistic, samples)


def _hallusion(units: Units, name: str) -> Remade:
    """Give the shares of right questions (a), figures (f) and question groups (q).

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
    # Whatever pictures they have, sets are independent.
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
    """Give F1, precision, recall or accuracy; a row counts once in each category.

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
