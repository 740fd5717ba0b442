"""What a run's samples were before: in its baseline, or in another run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.baseline_file import read_baseline
from pytest_vlmeval.gates.outcome import GateResult
from pytest_vlmeval.reports.record import (
    RIGHT_FROM,
    Before,
    DatasetReport,
    RunReport,
    SampleReport,
)


def compare(report: RunReport, other: RunReport) -> RunReport:
    """Return the report with each sample's outcome in another run beside it."""
    theirs = {
        (dataset.dataset, sample.index): sample
        for dataset in other.datasets
        for sample in dataset.samples
    }

    def compared(dataset: str, sample: SampleReport) -> SampleReport:
        match = theirs.get((dataset, sample.index))
        if match is None:
            return sample
        before = Before(
            outcome=match.outcome,
            value=match.value,
            text=match.answer.cell if match.answer else "",
            extracted=match.verdict.extracted if match.verdict else None,
        )
        return replace(sample, before=before)

    datasets = tuple(
        replace(each, samples=tuple(compared(each.dataset, s) for s in each.samples))
        for each in report.datasets
    )
    name = f"{other.model} ({other.run_id})"
    return replace(report, datasets=datasets, compared_with=name)


def with_baseline(dataset: DatasetReport) -> DatasetReport:
    """Return a dataset with what its samples were in the baseline its gate took.

    As it is where there is none, or the file is no longer that one: the gate has told
    of it.
    """
    for gate in dataset.gates:
        if gate.gate == "baseline" and gate.lost is not None and gate.file:
            before = _read_values(gate)
            samples = tuple(
                replace(each, before=before.get(each.index)) for each in dataset.samples
            )
            return replace(dataset, samples=samples)
    return dataset


def _read_values(gate: GateResult) -> dict[str, Before]:
    path = Path(gate.file)
    try:
        baseline = read_baseline(path, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, VlmEvalError):
        return {}
    if baseline.value != gate.expected:
        return {}
    return {
        index: Before(
            outcome="correct" if (value or 0) >= RIGHT_FROM else "wrong",
            value=value or 0.0,
        )
        for index, value in baseline.values.items()
    }
