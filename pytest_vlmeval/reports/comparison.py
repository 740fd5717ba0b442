"""Runs of a store: a table of them, and two of them side by side."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pytest_vlmeval.gates.message import change_text
from pytest_vlmeval.records import parts_of
from pytest_vlmeval.reports.flips import flips_of_dataset, format_flips
from pytest_vlmeval.reports.record import (
    DatasetReport,
    RunReport,
    SampleReport,
    compare,
    load_run,
    load_session,
)
from pytest_vlmeval.reports.wording import align

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from pathlib import Path

    from pytest_vlmeval.gates.paired import Comparison
    from pytest_vlmeval.run.store import Store
    from pytest_vlmeval.run.store.runs import PastScore


def format_comparison(report: RunReport) -> list[str]:
    """Return what changed in each dataset since the run it is compared with."""
    lines = [f"{report.model} ({report.run_id}) against {report.compared_with}"]
    for dataset in report.datasets:
        lines += ["", *_dataset(dataset)]
    return lines


def compare_samples(samples: Sequence[SampleReport]) -> Comparison | None:
    """Compare the samples that both runs have; None if there is none.

    Those that share a group, or all their images, are not independent.
    """
    from pytest_vlmeval.gates.paired import compare

    pairs = [
        (each.before.value, each.value, _cluster(each))
        for each in samples
        if each.before is not None
    ]
    if not pairs:
        return None
    before, after, clusters = zip(*pairs, strict=True)
    return compare(before, after, clusters=clusters)


def _cluster(sample: SampleReport) -> Hashable:
    media = tuple(part.media for part in parts_of(sample.prompt) if part.media)
    return sample.group or media or sample.index


def _dataset(dataset: DatasetReport) -> list[str]:
    found = compare_samples(dataset.samples)
    if found is None:
        return [f"{dataset.dataset}: the other run has none of its samples"]
    lines = [
        f"{dataset.dataset}: {100 * found.before:.2f} % before, "
        f"{100 * found.after:.2f} % now, of {found.samples} samples that both have",
        f"  {change_text(found, found.two_sided_p)}, two-sided; CI by "
        f"{found.interval_method}",
    ]
    if found.smallest is not None:
        lines.append(
            f"  so many samples show a drop of {100 * found.smallest:.1f} points with "
            f"a power of 80 %, one of 2 points with {100 * found.power(0.02):.0f} %"
        )
    flips = flips_of_dataset(dataset)
    lost = sum(flip.is_lost for flip in flips.samples)
    lines.append(f"  {lost} lost, {len(flips.samples) - lost} gained")
    return [*lines, *(f"  {line}" for line in format_flips([flips]))]


def compare_session_with(
    store: Store, cache_dir: Path, session_id: str, name: str
) -> list[str]:
    """Return what differs between a session and another run, as lines for a terminal.

    Raises `VlmEvalError` where there is no such run.
    """
    session = load_session(store, cache_dir, session_id)
    if session is None:
        return []
    other = store.find_other_run(session.run_id, name)
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
    """Explain why the verdicts of two runs cannot be compared; "" if they can."""
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
    if new.score.scoring == "own" and new.score.scorer != old.score.scorer:
        return f"the code of {new.score.scorer.partition(' ')[0]} was another then"
    return ""


HEADINGS = ("run", "model", "last session", "commit", "dataset", "score")


def list_runs(store: Store) -> str:
    """Return the table: a line for each dataset of each run, the newest run first."""
    scores = store.past_scores()
    rows: list[tuple[str, ...]] = [HEADINGS]
    for run in store.runs():
        sessions = store.sessions(run.run_id)
        when = sessions[0].created_at if sessions else run.created_at
        time = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M UTC")
        commit = sessions[0].start.revision if sessions else ""
        # Of each dataset what scored it last: sessions are the newest first.
        scorers = {
            entry.dataset: entry.scorer or each.plan.scorer
            for each in reversed(sessions)
            for entry in each.plan.entries
        }
        lines = [
            (name, _describe(name, run.run_id, scorer, scores))
            for name, scorer in sorted(scorers.items())
        ] or [("-", "-")]
        first = (run.run_id, run.model, time, commit or "-")
        rows.append((*first, *lines[0]))
        rows += [("", "", "", "", *line) for line in lines[1:]]
    if len(rows) == 1:
        return "The store has no run yet."
    return "\n".join(align(rows))


def _describe(
    dataset: str, run_id: str, scorer: str, scores: Sequence[PastScore]
) -> str:
    """Say the newest score of a dataset in a run, as its last session scored it."""
    for score in scores:
        if (score.run_id, score.dataset) == (run_id, dataset) and (
            score.scorer.startswith(scorer)
        ):
            judge = "" if score.judge == "exact_matching" else f", judge {score.judge}"
            method = "" if score.scoring == "published" else f", {score.scoring}"
            return (
                f"{score.main_metric} {score.value:.2f} of {score.scale:g} "
                f"({score.samples} samples{judge}{method})"
            )
    return "no score"
