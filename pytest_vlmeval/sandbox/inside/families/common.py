"""What every family's adapter is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside import vlmevalkit
from pytest_vlmeval.sandbox.inside.reading import has_words

if TYPE_CHECKING:
    from types import ModuleType

    import pandas as pd

    from pytest_vlmeval.sandbox.inside.job import Job, JudgedUnit

    Info = dict[str, str]
    Verdict = dict[str, Any]

MAX_REASON = 1_000


class Outcome(NamedTuple):
    """What `evaluate` returned, its verdict on each row, and what to know of both.

    `differing` are the indexes of the answers in which published and corrected scoring
    read different options, None where more than that tells them apart.
    """

    result: object
    verdicts: list[Verdict]
    notes: tuple[str, ...] = ()
    differing: frozenset[str] | None = None


def read_upstream(
    job: Job, answer: object, choices: Mapping[str, object]
) -> str | None:
    """Read an option as ms-vlmeval does, or as VLMEvalKit where its scoring is used.

    "Z" is none of them to either.
    """
    rules: Any = import_module("vlmeval.utils.matching_util")
    by_kit = job.scoring == "vlmevalkit"
    read: Any = vlmevalkit.can_infer if by_kit else rules.can_infer
    found = read(str(answer), dict(choices))
    return found if found and found in choices else None


class Reading(NamedTuple):
    """What the rules of both scorings read in an answer, None for no option.

    `upstream` are the rules of ms-vlmeval, or of VLMEvalKit where it is the method.
    `unsure`: they read what may well be meant, by a word or letter that
    stands by itself, and corrected scoring reads nothing. That is no defect of theirs.
    """

    upstream: str | None
    corrected: str | None
    unsure: bool = False

    @property
    def differs(self) -> bool:
        """Whether they read something else."""
        return self.upstream != self.corrected

    def of(self, job: Job) -> str | None:
        """Return what the job's scoring reads."""
        return self.corrected if job.scoring == "corrected" else self.upstream


def compare_readings(
    job: Job, answer: object, upstream: str | None, choices: Mapping[str, object]
) -> Reading:
    """Put what the rules of upstream read beside what the reader of ours does."""
    said = str(answer)
    corrected = job.read(said, choices)
    unsure = (
        upstream is not None
        # What is named last may not be what was meant either.
        and job.read_surely(said, choices) is None
        and (
            re.search(rf"(?<![A-Za-z0-9]){upstream}(?![A-Za-z0-9])", said) is not None
            or has_words(said, str(choices.get(upstream, "")))
        )
    )
    return Reading(upstream, corrected, unsure)


def mark_unread(job: Job, found: Verdict, reading: Reading) -> Verdict:
    """Mark a verdict on an answer in which neither rules nor a judge read an option."""
    found["unread"] = reading.of(job) is None and found["state"] == "matched"
    found["unsure"] = reading.unsure and found["state"] == "matched"
    return found


def judged_table(job: Job, answers: str, suffix: str) -> pd.DataFrame:
    """Return the table that ms-vlmeval wrote beside the answers."""
    file = import_module("vlmeval.smp.file")
    return job.tables[file.get_intermediate_file_path(answers, suffix)]


def verdict(
    job: Job,
    index: object,
    value: object,
    extracted: object = None,
    reason: object = "",
    *,
    key: object = None,
) -> Verdict:
    """Return the verdict on one row as plain data, with the judge's part in it.

    `key` names what was judged, where that is not the row by its index. What the judge
    did not decide has no value.
    """
    unit = job.units.get(str(index if key is None else key))
    undecided = unit is not None and unit.unusable
    if unit is not None and undecided:
        value, extracted, reason = None, None, _explain(unit)
    return {
        "index": str(index),
        "value": None if value is None else float(value),  # type: ignore[arg-type]
        "extracted": str(extracted) if extracted else None,
        "reason": str(reason)[:MAX_REASON],
        "state": "matched" if unit is None else unit.state,
        "exchanges": [] if unit is None else [each.number for each in unit.exchanges],
        "corrected": None,
        "rests_on_defect": False,
        "unsure": False,
        "unread": False,
        "why_lost": "",
    }


def _explain(unit: JudgedUnit) -> str:
    if unit.failed:
        return f"the judge gave no reply: {unit.exchanges[-1].error}"
    said = unit.last_reply.strip() or "an empty text"
    return f"the judge's reply cannot be used: {said}"


def need_package(name: str, package: str, dataset: str) -> ModuleType:
    """Import what an add-on brings; raises VlmEvalError where it is not there."""
    try:
        return import_module(name)
    except ImportError as error:
        raise VlmEvalError(
            f"{dataset} needs the package {package}, which is not in the sandbox's "
            f"environment ({error}). Install it there, or leave out "
            "--vlm-sandbox-python: the environment that is built then has it."
        ) from error
