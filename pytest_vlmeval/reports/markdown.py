"""A run as a page of Markdown, for a job's summary or a merge request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pytest_vlmeval.gates.defects import describe_defects
from pytest_vlmeval.reports.summary import describe_unread, score_before, summarize

if TYPE_CHECKING:
    from pytest_vlmeval.reports.record import DatasetReport, RunReport


def format_summary(report: RunReport) -> str:
    """Return the page."""
    when = datetime.fromtimestamp(report.began_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    commit = f", commit `{report.revision}`" if report.revision else ""
    lines = [f"# {_plain(report.model)}", "", f"Run `{report.run_id}`, {when}{commit}"]
    if report.compared_with:
        lines.append(f", compared with {_plain(report.compared_with)}")
    headings = ["dataset", "metric", "score", "95 % interval", "answered", "right"]
    if report.compared_with:
        headings += ["before", "lost", "won"]
    lines += ["", _row(headings), _row(["---"] * len(headings))]
    lines += [_row(_cells(each, report)) for each in report.datasets]
    said = [
        (each.dataset, describe(each.score))
        for each in report.datasets
        if each.score
        for describe in (describe_unread, describe_defects)
    ]
    said += [
        (
            each.dataset,
            f"{count} of {len(each.samples)} answers were cut off at the token limit",
        )
        for each in report.datasets
        if (count := summarize(each).cut_off)
    ]
    for dataset, text in said:
        if text is not None:
            lines += ["", _plain(f"{dataset}: {text}")]
    gates = [gate for each in report.datasets for gate in each.gates]
    if gates:
        lines += ["", "## Gates", "", _row(["dataset", "gate", "outcome", "reason"])]
        lines.append(_row(["---"] * 4))
        lines += [
            _row([gate.dataset, gate.gate, gate.outcome, gate.message])
            for gate in gates
        ]
    return "\n".join([*lines, ""])


def _cells(dataset: DatasetReport, report: RunReport) -> list[str]:
    summary, score = summarize(dataset), dataset.score
    interval = summary.interval
    name = dataset.dataset
    if dataset.version:
        name += f" (data of {dataset.version})"
    if dataset.modified:
        name += " (modified data)"
    if score and score.scoring != "published":
        name += f" ({score.scoring} scoring)"
    cells = [
        name,
        score.main_metric if score else "no score",
        f"{score.value:.2f} of {score.scale:g}" if score else "",
        f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "",
        f"{summary.answered} of {len(dataset.samples)}",
        str(summary.counts.get("correct", 0)) if score else "",
    ]
    if report.compared_with:
        before = score_before(dataset)
        cells.append("" if before is None else f"{before:.2f}")
        cells += [str(summary.regressed), str(summary.fixed)]
    return cells


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(map(_plain, cells)) + " |"


def _plain(text: str) -> str:
    """Keep text in its cell, and what looks like markup as it is written."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", "<br>")):
        text = text.replace(sign, written)
    return text
