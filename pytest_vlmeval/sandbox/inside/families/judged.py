"""Datasets that ms-vlmeval scores only with a judge."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.sandbox.inside import vlmevalkit
from pytest_vlmeval.sandbox.inside.families.common import (
    MAX_REASON,
    Outcome,
    judged_table,
    verdict,
)
from pytest_vlmeval.sandbox.inside.judging import FULL_POINTS, read_points

if TYPE_CHECKING:
    import pandas as pd

    from pytest_vlmeval.sandbox.inside.families.common import Verdict
    from pytest_vlmeval.sandbox.inside.job import Job, JudgedUnit

LLAVA_FULL_SCORE = 10


def evaluate_mmvet(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score MMVet: the judge grades from 0 to 1."""
    if job.scoring == "vlmevalkit":
        job.judge_tokens = vlmevalkit.MMVET_TOKENS
    result = dataset.evaluate(answers, model=job.method, nproc=1)
    judged = judged_table(job, answers, f"_{job.method}")
    return Outcome(result, _graded(job, judged))


def _graded(job: Job, judged: pd.DataFrame) -> list[Verdict]:
    return [
        verdict(job, row["index"], row["score"], row.get("pred"), row["log"])
        for _, row in judged.iterrows()
    ]


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
        verdicts.append(verdict(job, row["index"], value, None, reason))
    return Outcome(result, verdicts)


def evaluate_conversations(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score MMDU: the judge gives each turn up to ten points in each dimension.

    The verdict on a conversation is the mean of its turns in the last one, the overall
    score; a turn that has no points counts as none (dataset/image_mt.py:81).
    """
    result = dataset.evaluate(answers, model=job.method, nproc=1)
    file = import_module("vlmeval.smp.file")
    path = file.get_intermediate_file_path(answers, f"_{job.method}", "pkl")
    verdicts = []
    for index, judged in job.results[path].items():
        table = judged["res"].reindex(columns=dataset.DIMS)
        points = [read_points(each) or 0 for each in table[dataset.DIMS[-1]]]
        value = sum(points) / len(points) / FULL_POINTS
        unit = job.units.get(str(index))
        said = f"{', '.join(map(str, points))} points"
        found = verdict(job, index, value, None, said)
        if unit is not None and unit.state == "judge_unclear":
            found["reason"] = _first_unread(judged["log"], unit)
        verdicts.append(found)
    return Outcome(result, verdicts)


def _first_unread(log: str, unit: JudgedUnit) -> str:
    """Return the first reply without points; each turn has one line and one reply."""
    lines = log.split("\n")
    place = next(place for place, line in enumerate(lines) if line != "Succeed")
    said = (unit.exchanges[place].text or "").strip() or "an empty text"
    return f"the judge's reply to turn {place + 1} cannot be used: {said}"[:MAX_REASON]


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
    return Outcome(result, _graded(job, judged))
