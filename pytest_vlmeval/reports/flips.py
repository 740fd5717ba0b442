"""The table of samples that became right or wrong: one for terminals and Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.gates.baseline_file import name_verdict
from pytest_vlmeval.records import FlippedSample
from pytest_vlmeval.reports.wording import align, write_markdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_vlmeval.records import GateResult
    from pytest_vlmeval.reports.record import DatasetReport, Outcome

HEADINGS = ("dataset", "sample", "before", "now")
# Part of a screen, and what a comment of GitHub or GitLab has room for.
MOST_LINES = 12
MOST_ROWS = 200


class Flips(NamedTuple):
    """The samples of a dataset that flipped, the lost ones first."""

    dataset: str
    samples: Sequence[FlippedSample]


def flips_of_gates(results: Iterable[GateResult]) -> list[Flips]:
    """Return what flipped since the baselines that gates were held against."""
    return [Flips(each.dataset, each.flips) for each in results if each.flips]


def flips_of_dataset(dataset: DatasetReport) -> Flips:
    """Return what flipped since the run or the baseline that a dataset is beside."""
    samples = [
        FlippedSample(
            index=each.index,
            before=_name(each.before.outcome, each.before.value),
            now=_name(each.outcome, each.value),
            is_lost=each.flip == "regressed",
        )
        for each in dataset.samples
        if each.before is not None and each.flip
    ]
    return Flips(dataset.dataset, sorted(samples, key=lambda flip: not flip.is_lost))


def _name(outcome: Outcome, value: float) -> str:
    return name_verdict(value) if outcome in ("correct", "wrong") else outcome


def format_flips(found: Sequence[Flips], most: int = MOST_LINES) -> list[str]:
    """Return the table for a terminal, of at most so many samples."""
    rows, left = _rows(found, most)
    if not rows:
        return []
    lines = align([HEADINGS, *rows])
    if left:
        lines.append(f"and {left:,} more, which the HTML report shows")
    return lines


def write_flips(found: Sequence[Flips], since: str) -> list[str]:
    """Return the table in Markdown, with a heading; no lines if nothing flipped."""
    rows, left = _rows(found, MOST_ROWS)
    if not rows:
        return []
    flips = [flip.is_lost for each in found for flip in each.samples]
    lost = sum(flips)
    lines = [
        f"### {lost:,} lost and {len(flips) - lost:,} gained since {since}",
        "",
        *write_markdown([HEADINGS, *rows]),
    ]
    return [*lines, "", f"And {left:,} more."] if left else lines


def _rows(found: Sequence[Flips], most: int) -> tuple[list[tuple[str, ...]], int]:
    """Return at most so many rows, and how many are left; datasets share them."""
    flipped = [each for each in found if each.samples]
    share = max(1, most // max(1, len(flipped)))
    rows: list[tuple[str, ...]] = [
        (each.dataset, flip.index, flip.before, flip.now)
        for each in flipped
        for flip in each.samples[:share]
    ]
    rows = rows[:most]
    return rows, sum(len(each.samples) for each in flipped) - len(rows)
