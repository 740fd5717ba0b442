"""The table at the end of a run: one row per dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from pytest_vlmeval.agreement import compare_judges, describe
from pytest_vlmeval.gates.defects import describe_defects
from pytest_vlmeval.models.endings import find_ending, is_cut_off
from pytest_vlmeval.records import USABLE, AnswerState, Score
from pytest_vlmeval.reports.summary import describe_unknown_endings, describe_unread
from pytest_vlmeval.reports.watch import DatasetResult

HEADINGS = ("dataset", "samples", "answered", "correct", "main metric", "")


def format_table(results: Sequence[DatasetResult]) -> list[str]:
    """Return the lines of the table, numbers right-aligned, and the scores' notes."""
    rows = [HEADINGS, *map(_row, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if 1 <= column <= 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths[:-1]))
    lines += [
        *_notes(results),
        *_unread(results),
        *_defects(results),
        *_judges(results),
    ]
    return lines + _unknown_endings(results)


def _judges(results: Sequence[DatasetResult]) -> list[str]:
    """Return what several judges make of each dataset, and how far they agree."""
    lines = []
    for result in results:
        scores = result.by_judge
        if scores:
            values = ", ".join(f"{each.judge} {each.value:.2f}" for each in scores)
            lines.append(f"{result.dataset}, by judge: {values}")
        lines += [
            f"{result.dataset}, {each.first} and {each.second}: {describe(each)}"
            for each in compare_judges(scores)
        ]
    return lines


def _metric(score: Score) -> str:
    shown = f"{score.main_metric} {score.value:.2f} of {score.scale:g}"
    if score.repeats:
        shown += (
            f", mean of {len(score.repeats)} repeats (standard deviation "
            f"{score.standard_deviation:.2f}, error {score.standard_error:.2f})"
        )
    return shown


def _no_score(result: DatasetResult) -> str:
    return f"no score: {result.no_score}" if result.no_score else "no score"


def _notes(results: Sequence[DatasetResult]) -> list[str]:
    """Return each note once, with the datasets it is about."""
    about: dict[str, list[str]] = {}
    for result in results:
        for note in result.score.notes if result.score else ():
            about.setdefault(note, []).append(result.dataset)
    return [f"{', '.join(names)}: {note}" for note, names in about.items()]


def _unread(results: Sequence[DatasetResult]) -> list[str]:
    """Return how many answers named no option, by dataset."""
    said = {each.dataset: describe_unread(each.score) for each in results if each.score}
    return [f"{dataset}: {text}" for dataset, text in said.items() if text is not None]


def _defects(results: Sequence[DatasetResult]) -> list[str]:
    """Return how many published verdicts rest on a known defect, by dataset."""
    said = {
        each.dataset: describe_defects(each.score) for each in results if each.score
    }
    return [f"{dataset}: {text}" for dataset, text in said.items() if text is not None]


def _states(result: DatasetResult) -> str:
    """Say in brackets what became of what has no usable answer."""
    states: Counter[AnswerState] = Counter()
    for (state, _), count in result.endings.items():
        states[state] += count
    counted = [
        f"{states[state]} {state.replace('_', ' ')}"
        for state in get_args(AnswerState)
        if states[state] and state not in USABLE
    ]
    return f" ({', '.join(counted)})" if counted else ""


def _unknown_endings(results: Sequence[DatasetResult]) -> list[str]:
    reasons: Counter[str] = Counter()
    for result in results:
        for (state, reason), count in result.endings.items():
            if state == "answered" and find_ending(reason) == "unknown":
                reasons[reason] += count
    return describe_unknown_endings(reasons)


def _row(result: DatasetResult) -> tuple[str, ...]:
    notes = []
    if result.answered < result.samples:
        missing = result.samples - result.answered
        notes.append(f"{missing} without a usable answer{_states(result)}")
    endings = result.endings.items()
    if cut_off := sum(count for (_, why), count in endings if is_cut_off(why)):
        notes.append(f"{cut_off} cut off at the token limit")
    if result.score is not None and result.score.undecided:
        undecided, best = result.score.undecided, result.score.best
        notes.append(f"{undecided} not decided by the judge, at best {best:.2f}")
    if result.version:
        notes.append(f"data of {result.version}")
    if result.modified:
        notes.append("modified data")
    if result.score is not None and result.score.scoring != "published":
        notes.append(f"{result.score.scoring} scoring")
    score = result.score
    return (
        result.dataset,
        str(result.samples),
        str(result.answered),
        "-" if score is None else str(score.correct),
        _no_score(result) if score is None else _metric(score),
        ", ".join(notes),
    )
