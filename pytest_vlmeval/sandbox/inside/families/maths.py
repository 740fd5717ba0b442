"""Mathematics: MathVision and MathVista, where a judge reads what does not match."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.sandbox.inside.families.common import (
    Outcome,
    judged_table,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vlmeval.sandbox.inside.job import Job


def evaluate_by(module_name: str) -> Callable[[Any, str, Job], Outcome]:
    """Give the `evaluate` of a class whose `post_check` in that module decides."""

    def evaluate(dataset: Any, answers: str, job: Job) -> Outcome:
        module: Any = import_module(f"vlmeval.dataset.utils.{module_name}")
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
        verdicts = [
            verdict(
                row["index"],
                values[row["index"]],
                row["res"],
                row["log"],
                job.tasks.get(str(row["index"])),
            )
            for _, row in judged_table(job, answers, f"_{job.method}").iterrows()
        ]
        return Outcome(result, verdicts)

    return evaluate
