r"""MeasureBench: the readings of 26 kinds of instruments, with their units.

Lin et al., Do Vision-Language Models Measure Up?, CVPR 2026, arXiv 2510.26865. 1,272
photographs and 1,170 drawn images.

Rows as in https://huggingface.co/datasets/FlagEval/MeasureBench, prompt as in
https://github.com/flageval-baai/FlagEvalMM (tasks/measure_bench), scoring as in
https://github.com/flageval-baai/MeasureBench (evaluation): the last number, or the
first time, behind the last "Answer:" has to lie in an interval of the reference, and
one of its units has to be in that text. The authors round their metrics to three
digits; without a mark they take \boxed{}, else the whole text, as here.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from pytest_vlmeval import Answer, Benchmark, Sample, Verdict

PROMPT = (
    "\nFinalize your output with: `Final Answer:`, followed by a string representing "
    "the correct answer with the reading of the instrument and the corresponding unit "
    "(if necessary)."
)
CHINESE_PROMPT = (
    "\n请以以下格式结束回答：`最终答案：`, "  # noqa: RUF001
    "后跟一个带着仪表读数和对应单位（如有必要）的字符串。"  # noqa: RUF001
)
MARKS = ("Answer:", "Answer", "答案：", "答案:", "答案")  # noqa: RUF001
SIGNS = str.maketrans("′\u00a0‐−–⋅", "' ---·")  # noqa: RUF001
NUMBER = re.compile(r"([+-]?\d+)\s*/\s*([+-]?\d+)|[+-]?(?:\d*\.\d+|\d+\.\d*)|[+-]?\d+")
TIME = re.compile(r"\b(\d{1,2}):(\d{2})(?::(\d{2}))?\b")


class Reading(NamedTuple):
    """Whether the number and the unit of an answer are right.

    `unit` is None if none is asked for. `off` is how far the number is from the
    interval, as a share of its nearer end, None if there is no number.
    """

    number: bool = False
    unit: bool | None = False
    off: float | None = None

    @property
    def is_right(self) -> bool:
        """Whether both are right."""
        return self.number and self.unit is not False

    @property
    def rank(self) -> int:
        """How many of both are right."""
        return self.number + (self.unit is not False)


def read_answer(text: str) -> str:
    """Return what a text gives as its answer."""
    for mark in MARKS:
        if mark in text:
            return text.rpartition(mark)[2].strip().translate(SIGNS)
    boxed = re.search(r"\\boxed\{([^}]+)\}", text)
    return (boxed[1].strip() if boxed else text).translate(SIGNS)


def read_numbers(text: str) -> list[float]:
    """Return the numbers of a text in order; a fraction is one."""
    found = []
    for match in NUMBER.finditer(text):
        over, under = match.groups()
        if over is None:
            found.append(float(match[0]))
        elif int(under):
            found.append(int(over) / int(under))
    return found


def seconds(parts: Sequence[str | None]) -> float:
    """Return hours, minutes and maybe seconds in seconds."""
    factors = (3600, 60, 1)
    return sum(
        factor * int(part) for factor, part in zip(factors, parts, strict=False) if part
    )


def plain(text: str) -> str:
    """Return a text as units are compared."""
    return unicodedata.normalize("NFKC", text.lower()).replace("\u00b5", "\u03bc")


def compare(said: str, interval: Sequence[Any], units: Sequence[str]) -> Reading:
    """Hold an answer against one interval."""
    unit = any(plain(each) in plain(said) for each in units) if units else None
    number: float | None
    if isinstance(interval[0], str):
        low, high = (seconds(end.split(":")) for end in interval)
        time = TIME.search(said)
        number = seconds(time.groups()) if time else None
    else:
        low, high = map(float, interval)
        numbers = read_numbers(said)
        number = numbers[-1] if numbers else None
    if number is None:
        return Reading(unit=unit)
    if low <= number <= high:
        return Reading(number=True, unit=unit, off=0)
    near = 1e-6
    off = min(abs((number - end) / (end + near)) for end in (low, high))
    return Reading(unit=unit, off=off)


def judge(said: str, row: Mapping[str, str]) -> Reading:
    """Hold an answer against the best of a row's intervals."""
    given = json.loads(row["evaluator_kwargs"])
    units = given.get("units") or []
    if row["evaluator"] == "interval_matching":
        return compare(said, given["interval"], units)
    intervals = given["intervals"]
    apart = units and isinstance(units[0], list)
    best: Reading | None = None
    for interval, each in zip(
        intervals, units if apart else [units] * len(intervals), strict=False
    ):
        found = compare(said, interval, each)
        if found.is_right:
            return found
        nearer = (
            best is not None
            and found.off is not None
            and best.off is not None
            and found.off < best.off
        )
        if best is None or found.rank > best.rank or nearer:
            best = found
    return best or Reading()


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.recent
class TestMeasureBench(Benchmark):
    """Both splits; a metric for the numbers, the units and each kind of instrument."""

    datasets = (
        "hf:FlagEval/MeasureBench:real_world",
        "hf:FlagEval/MeasureBench:synthetic_test",
    )

    def questions(self, row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Ask the question in its language."""
        question = row["question"]
        is_chinese = re.search("[\u4e00-\u9fff]", question)
        given = json.loads(row["evaluator_kwargs"])
        intervals = given.get("intervals") or [given["interval"]]
        yield {
            "question": question + (CHINESE_PROMPT if is_chinese else PROMPT),
            "answer": "; ".join(f"{low} to {high}" for low, high in intervals),
            "image": row["image"],
            "category": row["image_type"].lower(),
            "design": row["design"],
            "evaluator": row["evaluator"],
            "evaluator_kwargs": row["evaluator_kwargs"],
        }

    def score(self, sample: Sample, answer: Answer) -> Verdict:
        """Hold number and unit against the reference."""
        said = read_answer(answer.text)
        found = judge(said, sample.row)
        unit = "no unit" if found.unit is None else f"unit {_word(found.unit)}"
        return Verdict(
            index=sample.index,
            value=float(found.is_right),
            extracted=said,
            reason=f"number {_word(found.number)}, {unit}",
        )

    def aggregate(
        self, verdicts: Sequence[Verdict], samples: Mapping[str, Sample]
    ) -> Mapping[str, float]:
        """Return the share of right answers, numbers and units, and of each kind."""
        parts: dict[str, list[float]] = {"Overall": [], "number": [], "unit": []}
        kinds: dict[str, list[float]] = {}
        for each in verdicts:
            sample, said = samples[each.index], each.extracted
            found = judge("" if said is None else said, sample.row)
            value = each.value or 0.0
            parts["Overall"].append(value)
            parts["number"].append(float(found.number))
            if found.unit is not None:
                parts["unit"].append(float(found.unit))
            kinds.setdefault(sample.category or "", []).append(value)
        return {
            name: sum(values) / len(values)
            for name, values in (parts | dict(sorted(kinds.items()))).items()
            if values
        }


def _word(right: bool) -> str:
    return "right" if right else "wrong"
