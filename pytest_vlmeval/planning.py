"""Which samples of a dataset a session needs, and in which order they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.datasets.sampling import shuffle
from pytest_vlmeval.records import PlanEntry

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.prepared import IndexRow
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.records import PreparedDataset


class Needed(NamedTuple):
    """What the selected items need of a dataset: all of it, or only these samples.

    `gated` says that its score is held against thresholds, `compared` in which folders
    against a baseline; `expected` that its thresholds, if any, have to be held.
    """

    whole: bool
    indexes: frozenset[str]
    gated: bool = False
    compared: frozenset[Path] = frozenset()
    expected: bool = False


def plan_entry(
    settings: Settings,
    prepared: PreparedDataset,
    rows: Sequence[IndexRow],
    need: Needed,
    *,
    unscored: str = "",
) -> PlanEntry:
    """Return what a session asks of a dataset, groups whole.

    In the dataset's order, or in a random one where it may stop early.
    """
    groups = {row.group for row in rows if row.index in need.indexes and row.group}
    if settings.gates.stop_early and need.whole:
        rows = shuffle(rows, settings.seed)
    indexes = tuple(
        row.index
        for row in rows
        if need.whole or row.index in need.indexes or row.group in groups
    )
    return PlanEntry(
        dataset=prepared.info.name,
        fingerprint=prepared.fingerprint,
        modified=prepared.modified,
        indexes=indexes,
        judges=tuple(
            judge.label for judge in settings.judges if prepared.info.judge != "unused"
        ),
        unscored=unscored,
        checksum=prepared.checksum,
        version=prepared.version,
    )
