"""Results for other programs: JSON, CSV, Parquet, Markdown and prediction files.

`MODEL/MODEL_DATASET.tsv` (or .xlsx) has the dataset's rows without their images and a
column `prediction`; in ms-vlmeval 0.0.20 `infer_data_job` writes it (inference.py).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.open import BACKENDS
from pytest_vlmeval.records import NO_REPLY
from pytest_vlmeval.reports.flips import flips_of_dataset, write_flips
from pytest_vlmeval.reports.html import write_whole
from pytest_vlmeval.reports.summary import (
    LEVEL_TEXT,
    Summary,
    score_before,
    summarize,
)
from pytest_vlmeval.reports.wording import escape_markdown, write_markdown
from pytest_vlmeval.sandbox.rows import FILE, read_texts

if TYPE_CHECKING:
    from pytest_vlmeval.records import Score
    from pytest_vlmeval.reports.record import DatasetReport, RunReport, SampleReport


def format_summary(report: RunReport) -> str:
    """Return the page."""
    when = datetime.fromtimestamp(report.began_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    revision = report.start.revision
    commit = f", commit `{revision}`" if revision else ""
    lines = [
        f"# {escape_markdown(report.model)}",
        "",
        f"Run `{report.run_id}`, {when}{commit}",
    ]
    if report.compared_with:
        lines[-1] += f", compared with {escape_markdown(report.compared_with)}"
    interval = f"{LEVEL_TEXT} interval"
    headings = ["dataset", "metric", "score", interval, "answered", "right"]
    if report.compared_with:
        headings += ["before", "lost", "won"]
    summaries = [(each, summarize(each)) for each in report.datasets]
    rows = [headings, *(_cells(*each, report) for each in summaries)]
    lines += ["", *write_markdown(rows)]
    for dataset, summary in summaries:
        notes = [*summary.notes]
        if count := summary.cut_off:
            asked = len(dataset.samples)
            were = "was" if count == 1 else "were"
            notes.append(
                f"{count} of {asked} answers {were} cut off at the token limit"
            )
        for note in notes:
            lines += ["", escape_markdown(f"{dataset.dataset}: {note}")]
    gates = [gate for each in report.datasets for gate in each.gates]
    if gates:
        rows = [["dataset", "gate", "outcome", "reason"]]
        # What passed is told in a line, so that the page can be a comment.
        rows += [
            [
                it.dataset,
                it.gate,
                it.finding,
                it.message.split("\n")[0] if it.outcome == "passed" else it.message,
            ]
            for it in gates
        ]
        lines += ["", "## Gates", "", *write_markdown(rows)]
    flips = [flips_of_dataset(each) for each in report.datasets]
    if changed := write_flips(flips, report.compared_with):
        lines += ["", *changed]
    return "\n".join([*lines, ""])


def _cells(dataset: DatasetReport, summary: Summary, report: RunReport) -> list[str]:
    score = dataset.score
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


# What a cell of Excel holds at most, and what it cannot hold.
XLSX_LONGEST = 32_767
_XLSX_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff￾￿]")
_SEPARATORS = re.compile('[\t\r\n"]')
NEEDS_OPENPYXL = (
    "--vlm-predictions=xlsx needs openpyxl, which is not installed: pip install "
    "openpyxl, or write --vlm-predictions=tsv."
)

Table = list[list[str]]


def name_file(name: str) -> str:
    """Return a model's or a dataset's name as part of a file's name."""
    return re.sub(r"[^\w.()+-]", "_", name)


def write_predictions(
    report: RunReport, folder: Path, kind: Literal["tsv", "xlsx"]
) -> list[str]:
    """Write a file for each dataset; return what could not be written as it is."""
    model = name_file(report.model)
    notes = []
    for dataset in report.datasets:
        backend = BACKENDS.get(str(report.settings.get("backend", "")))
        table = _table(dataset, ours=backend is not None and backend.is_ours)
        if table is None:
            notes.append(
                f"{dataset.dataset}: no prediction file, because its prepared data is "
                "gone from --vlm-cache-dir"
            )
            continue
        path = folder / model / f"{model}_{dataset.dataset}.{kind}"
        if kind == "tsv":
            write_whole(path, _as_tsv(table))
        else:
            content, changed = _as_xlsx(table)
            write_whole(path, content)
            if changed:
                notes.append(
                    f"{path.name}: {changed} cells hold what Excel cannot, and are cut "
                    "or have signs replaced; --vlm-predictions=tsv keeps them"
                )
    return notes


def _table(dataset: DatasetReport, *, ours: bool) -> Table | None:
    """Return the selected rows with their predictions, as text."""
    file = dataset.folder and dataset.folder / FILE
    if file is None or not file.is_file():
        return None
    samples = {each.index: each for each in dataset.samples}
    texts = read_texts(file)
    rows = [
        [*row, _prediction(samples[index], ours=ours)]
        for index, row in zip(
            texts["index"], zip(*texts.values(), strict=True), strict=True
        )
        if index in samples
    ]
    return [[*texts, "prediction"], *rows]


def _prediction(sample: SampleReport, *, ours: bool) -> str:
    """Return the reply, or the list of them where the prompt has several turns."""
    answer, turns = sample.answer, max(1, len(sample.prompt))
    if answer is None or answer.state == "failed":
        earlier = replace(answer, text="").predictions(ours=ours) if answer else ()
        asked = [*earlier[:-1], NO_REPLY]
    else:
        asked = list(answer.predictions(ours=ours))
    # There is one for each turn, also for those that were never asked.
    asked += [NO_REPLY] * (turns - len(asked))
    return asked[0] if turns == 1 else str(asked)


def _as_tsv(table: Table) -> bytes:
    lines = ("\t".join(map(_quoted, row)) + "\n" for row in table)
    return "".join(lines).encode("utf-8", "replace")


def _quoted(cell: str) -> str:
    """Put a cell into quotes if need be: Python's csv forgets lone carriage returns."""
    if _SEPARATORS.search(cell) is None:
        return cell
    return '"' + cell.replace('"', '""') + '"'


def _as_xlsx(table: Table) -> tuple[bytes, int]:
    """Return the workbook, and how many cells had to change."""
    try:
        from openpyxl import Workbook
    except ImportError:
        raise VlmEvalError(NEEDS_OPENPYXL) from None
    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    changed = 0
    for row in table:
        cells = [_XLSX_FORBIDDEN.sub("�", cell)[:XLSX_LONGEST] for cell in row]
        changed += sum(one != other for one, other in zip(cells, row, strict=True))
        sheet.append([_text_cell(sheet, cell) for cell in cells])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue(), changed


def _text_cell(sheet: object, text: str) -> object:
    """Return a cell that holds a text, also one that begins like a formula."""
    from openpyxl.cell import WriteOnlyCell

    cell = WriteOnlyCell(sheet, value=text)
    cell.data_type = "s"
    return cell


# Counts changes after which a reader of the older file would go wrong.
RESULTS_VERSION = 1


def load_schema() -> dict[str, Any]:
    """Return the JSON schema of results.json."""
    text = (files("pytest_vlmeval.reports") / "results.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def as_results(report: RunReport) -> dict[str, Any]:
    """Return what results.json holds."""
    return {
        "version": RESULTS_VERSION,
        "generator": f"pytest-vlmeval {report.version}",
        "run": {
            "id": report.run_id,
            "model": report.model,
            "settings": dict(report.settings),
            "began_at": datetime.fromtimestamp(report.began_at, UTC).isoformat(),
            "commit": report.start.revision or None,
            "scorer": report.scorer,
            "compared_with": report.compared_with or None,
        },
        "datasets": [_dataset(each) for each in report.datasets],
        "account": asdict(report.account) if report.account else None,
    }


def _dataset(dataset: DatasetReport) -> dict[str, Any]:
    summary = summarize(dataset)
    return {
        "name": dataset.dataset,
        "fingerprint": dataset.fingerprint,
        "modified_data": dataset.modified,
        "md5": dataset.checksum or None,
        "data_version": dataset.version or None,
        "samples": len(dataset.samples),
        "answered": summary.answered,
        "cut_off": summary.cut_off,
        "outcomes": dict(summary.counts),
        "score": _score(dataset.score, summary) if dataset.score else None,
        "no_score": dataset.no_score or None,
        "by_judge": {each.judge: each.value for each in dataset.by_judge},
        "judged": summary.judged,
        "undecided": summary.undecided,
        "refusals": summary.refusals,
        "unknown_finish_reasons": dict(summary.unknown_endings),
        "categories": [
            {
                "name": each.name,
                "samples": each.share.whole,
                "correct": each.share.part,
                "share": each.share.value,
                "interval": [each.share.low, each.share.high],
            }
            for each in summary.categories
        ],
        "tokens": {
            "prompt": summary.prompt_tokens,
            "completion": summary.completion_tokens,
        },
        "latency_ms": {f"p{rank}": ms for rank, ms in summary.latency_ms.items()},
        "regressed": summary.regressed if summary.compared else None,
        "fixed": summary.fixed if summary.compared else None,
        "gates": [
            {**asdict(gate), "outcome": gate.finding.replace(" ", "_")}
            for gate in dataset.gates
        ],
    }


def _score(score: Score, summary: Summary) -> dict[str, Any]:
    return {
        "main_metric": score.main_metric,
        "value": score.value,
        "scale": score.scale,
        "interval": summary.interval and list(summary.interval),
        "best": score.best,
        "correct": score.correct,
        "metrics": dict(score.metrics),
        "judge": score.judge,
        "scorer": score.scorer,
        "scoring": score.scoring,
        "unread": score.unread,
        "differing": score.differing,
        "without_defects": asdict(score.sound) if score.sound else None,
        "notes": list(score.notes),
    }


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
    """Yield a row for each sample, the columns of results.csv and samples.parquet."""
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
    """Yield a row for each metric of each dataset, the columns of scores.parquet."""
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
