"""Results for other programs: JSON, CSV, Parquet, Markdown and prediction files."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_vlmeval.reports.html import write_whole
from pytest_vlmeval.reports.markdown import format_summary
from pytest_vlmeval.reports.predictions import write_predictions
from pytest_vlmeval.reports.results import as_results

if TYPE_CHECKING:
    from pytest_vlmeval.reports.record import RunReport

Cell = str | int | float | bool | None
# What programs that read tables stumble over; tabs and line ends stay.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def write_export(
    report: RunReport, folder: Path, predictions: Literal["tsv", "xlsx"]
) -> list[str]:
    """Write every format into a folder; return what there is to say of them.

    Raises `VlmEvalError` where a file cannot be written.
    """
    samples = list(sample_rows(report))
    results = json.dumps(as_results(report), indent=2, ensure_ascii=True)
    write_whole(folder / "results.json", results.encode("ascii"))
    write_whole(folder / "results.csv", _as_csv(samples))
    write_whole(folder / "samples.parquet", _as_parquet(samples))
    write_whole(folder / "scores.parquet", _as_parquet(list(score_rows(report))))
    write_whole(folder / "summary.md", format_summary(report).encode("utf-8"))
    return write_predictions(report, folder, predictions)


def sample_rows(report: RunReport) -> Iterator[dict[str, Cell]]:
    """Give a row for each sample, the columns of results.csv and samples.parquet."""
    for dataset in report.datasets:
        for sample in dataset.samples:
            answer, verdict = sample.answer, sample.verdict
            yield {
                "run": report.run_id,
                "model": report.model,
                "dataset": dataset.dataset,
                "index": sample.index,
                "category": sample.category,
                "group": sample.group,
                "outcome": sample.outcome,
                "cut_off": sample.is_cut_off,
                "value": verdict.value if verdict else None,
                "reference": sample.reference,
                "answer": answer.cell if answer else None,
                "reasoning": answer.reasoning if answer else None,
                "extracted": verdict.extracted if verdict else None,
                "corrected": verdict.corrected if verdict else None,
                "unread": verdict.unread if verdict else None,
                "verdict": verdict.state if verdict else None,
                "reason": verdict.reason if verdict else None,
                "error": answer.error if answer else None,
                "finish_reason": answer.finish_reason if answer else None,
                "attempts": answer.attempts if answer else None,
                "latency_ms": answer.latency_ms if answer else None,
                "prompt_tokens": answer.prompt_tokens if answer else None,
                "completion_tokens": answer.completion_tokens if answer else None,
                "before": sample.before.outcome if sample.before else None,
                "flip": sample.flip or None,
            }


def score_rows(report: RunReport) -> Iterator[dict[str, Cell]]:
    """Give a row for each metric of each dataset, the columns of scores.parquet."""
    for dataset in report.datasets:
        score = dataset.score
        if score is None:
            continue
        values = {**score.metrics, score.main_metric: score.value}
        for metric, value in values.items():
            yield {
                "run": report.run_id,
                "model": report.model,
                "dataset": dataset.dataset,
                "metric": metric,
                "value": float(value),
                "main": metric == score.main_metric,
                "scale": float(score.scale),
                "samples": score.samples,
                "answered": score.answered,
                "unread": score.unread,
                "scoring": score.scoring,
                "judge": score.judge,
                "modified_data": dataset.modified,
                "data_version": dataset.version or None,
            }


def _clean(row: Mapping[str, Cell]) -> dict[str, Cell]:
    return {
        name: _CONTROLS.sub("�", cell) if isinstance(cell, str) else cell
        for name, cell in row.items()
    }


def _as_csv(rows: list[dict[str, Cell]]) -> bytes:
    out = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(_clean, rows))
    return out.getvalue().encode("utf-8")


def _as_parquet(rows: list[dict[str, Cell]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(map(_clean, rows))), out)
    return out.getvalue()
