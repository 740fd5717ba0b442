"""Mathematics: MathVision and MathVista, where a judge reads what does not match."""

from __future__ import annotations

from importlib import import_module
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.sandbox.inside.expressions import evaluate
from pytest_vlmeval.sandbox.inside.families.common import (
    Outcome,
    compare_readings,
    judged_table,
    mark_unread,
    read_upstream,
    verdict,
)
from pytest_vlmeval.sandbox.inside.fixes import lettered, read_vista_option

if TYPE_CHECKING:
    import pandas as pd

    from pytest_vlmeval.sandbox.inside.job import Job


def evaluate_maths(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score MathVision or MathVista, whose `post_check` decides."""
    is_vista = type(dataset).__name__ == "MathVista"
    name = "mathvista" if is_vista else "mathv"
    module: Any = import_module(f"vlmeval.dataset.utils.{name}")
    upstream = module.post_check
    values: dict[object, object] = {}

    def post_check(line: Any, prefetch: bool = False) -> object:
        outcome = upstream(line, prefetch=prefetch)
        if not prefetch:
            values[line["index"]] = outcome
        return outcome

    module.post_check = post_check
    try:
        result = dataset.evaluate(answers, model=job.method, nproc=1)
    finally:
        module.post_check = upstream
    verdicts = []
    for _, row in judged_table(job, answers, f"_{job.method}").iterrows():
        value = values[row["index"]]
        choices: dict[str, object] = {}
        given = verdict(job, row["index"], value, row["res"], row["log"])
        # A free-form question has no options.
        if row.get("question_type", "multi_choice") == "multi_choice":
            choices = dict(zip(ascii_uppercase, evaluate(row["choices"]), strict=False))
        if choices:
            if is_vista and given["state"] == "judged":
                given["reason"] = _reason(job, row, lettered([*choices.values()]))
            said = row["prediction"]
            upstream_said = read_upstream(job, said, choices)
            reading = compare_readings(job, said, upstream_said, choices)
            given = mark_unread(job, given, reading)
        verdicts.append(given)
    return Outcome(result, verdicts)


def _reason(job: Job, row: pd.Series[Any], options: dict[str, str]) -> str:
    """Return ms-vlmeval's note on a judge's reply, or say that an option is guessed."""
    said = str(row["res"]).strip()
    if job.scoring == "corrected" and not read_vista_option(said, options, guess=False):
        nearest = read_vista_option(said, options, guess=True)
        if nearest:
            return f"the judge's reply names no option, {nearest} is the nearest"
    return str(row["log"])
