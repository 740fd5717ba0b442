"""The runs of a store as a table: what was evaluated, when, at which commit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vlmeval.store.history import History, PastScore

HEADINGS = ("run", "model", "last session", "commit", "dataset", "score")


def list_runs(history: History) -> str:
    """Return the table: a line for each dataset of each run, the newest run first."""
    scores = history.scores()
    rows: list[tuple[str, ...]] = [HEADINGS]
    for run in history.runs():
        sessions = history.sessions(run.run_id)
        when = sessions[0].created_at if sessions else run.created_at
        time = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M UTC")
        commit = sessions[0].revision if sessions else ""
        # Of each dataset what scored it last: sessions are the newest first.
        scorers = {
            entry.dataset: each.plan.scorer
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
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


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
