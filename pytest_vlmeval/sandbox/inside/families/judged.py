"""Datasets that ms-vlmeval scores only with a judge."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.sandbox.inside.families.common import (
    Outcome,
    judged_table,
    verdict,
)

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.inside.job import Job, Task

LLAVA_FULL_SCORE = 10


def evaluate_mmvet(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score MMVet: the judge grades from 0 to 1."""
    result = dataset.evaluate(answers, model=job.method, nproc=1)
    judged = judged_table(job, answers, f"_{job.method}")
    verdicts = [
        verdict(row["index"], row["score"], None, row["log"], _task(job, row))
        for _, row in judged.iterrows()
    ]
    return Outcome(result, verdicts)


def evaluate_llava(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score LLaVABench: the judge gives points for GPT-4's answer and this one.

    A reply without them would count as -1 for both (dataset/utils/llavabench.py:39).
    """
    result = dataset.evaluate(answers, model=job.method, nproc=1)
    verdicts = []
    for _, row in judged_table(job, answers, "_openai_result").iterrows():
        points, theirs = row["score"], row["gpt4_score"]
        value = points / LLAVA_FULL_SCORE
        reason = f"{points:g} points, GPT-4's answer {theirs:g}"
        verdicts.append(verdict(row["index"], value, None, reason, _task(job, row)))
    return Outcome(result, verdicts)


def evaluate_documents(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score MMLongBench_DOC.

    The table is found where `evaluate` writes it, as that returns nothing
    (dataset/mmlongbench.py:594).
    """
    dataset.evaluate(answers, model=job.method)
    judged = judged_table(job, answers, f"_{job.method}")
    file = import_module("vlmeval.smp.file")
    storage = file.get_intermediate_file_path(answers, f"_{job.method}")
    result = job.tables[file.get_intermediate_file_path(storage, "_score", "csv")]
    verdicts = [
        verdict(row["index"], row["score"], row["pred"], row["log"], _task(job, row))
        for _, row in judged.iterrows()
    ]
    return Outcome(result, verdicts)


def _task(job: Job, row: Any) -> Task | None:
    return job.tasks.get(str(row["index"]))
