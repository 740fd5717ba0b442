"""results.json: a run as plain data; `results.schema.json` describes and checks it."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.gates.outcome import as_record
from pytest_vlmeval.reports.summary import Summary, summarize

if TYPE_CHECKING:
    from pytest_vlmeval.records import Score
    from pytest_vlmeval.reports.record import DatasetReport, RunReport

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
            "commit": report.revision or None,
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
        "gates": [as_record(gate) for gate in dataset.gates],
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
