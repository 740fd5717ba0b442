"""A session beside another run of the store: what `--vlm-compare-with` shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_vlmeval.reports.comparison import format_comparison
from pytest_vlmeval.reports.flips import compare
from pytest_vlmeval.reports.loading import load_run, load_session

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vlmeval.reports.record import DatasetReport, RunReport
    from pytest_vlmeval.store import Store


def compare_session_with(
    store: Store, cache_dir: Path, session_id: str, name: str
) -> list[str]:
    """Return what differs between a session and another run, as lines for a terminal.

    Raises `VlmEvalError` where there is no such run.
    """
    session = load_session(store, cache_dir, session_id)
    if session is None:
        return []
    other = store.history.find_other(session.run_id, name)
    return compare_alike(session, load_run(store, cache_dir, other.run_id))[1]


def compare_alike(new: RunReport, old: RunReport) -> tuple[RunReport, list[str]]:
    """Compare the datasets that both runs scored alike; say why others are not.

    Returns the new run with what its samples were before, and lines for a terminal.
    """
    theirs = {dataset.dataset: dataset for dataset in old.datasets}
    unlike = {
        dataset.dataset: why
        for dataset in new.datasets
        if (why := _why_unlike(dataset, theirs.get(dataset.dataset)))
    }
    alike = [each for each in new.datasets if each.dataset not in unlike]
    found = compare(replace(new, datasets=tuple(alike)), old)
    compared = {each.dataset: each for each in found.datasets}
    every = tuple(compared.get(each.dataset, each) for each in new.datasets)
    return replace(found, datasets=every), [
        *format_comparison(found),
        *(f"{name}: not compared, {why}" for name, why in unlike.items()),
    ]


def _why_unlike(new: DatasetReport, old: DatasetReport | None) -> str:
    """Say what makes verdicts of two runs tell nothing of their models; "" if none."""
    if old is None:
        return "the other run did not ask it"
    if new.fingerprint != old.fingerprint:
        versions = [each.version for each in (old, new)]
        if versions[0] != versions[1]:
            return f"its data was {versions[0] or 'unknown'} then, is {versions[1]} now"
        return "its data or prompts were others then"
    if new.score is None:
        return f"it has no score: {new.no_score or 'not scored yet'}"
    if old.score is None:
        return f"it has no score in the other run: {old.no_score or 'not scored yet'}"
    if new.score.judge != old.score.judge:
        return f"its judge was {old.score.judge} then, is {new.score.judge} now"
    if new.score.scoring != old.score.scoring:
        return f"its scoring was {old.score.scoring} then, is {new.score.scoring} now"
    return ""
