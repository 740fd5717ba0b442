"""What the report's script reads: an index of all samples, and their details in parts.

Everything is JSON, deflated and in base64: nothing that a model or a dataset wrote can
end the element it stands in, and 15,000 samples open at once. The page shows the index
and takes up a part when one of its samples is opened or a text is searched.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_vlmeval.prompts import PromptPart, parts_of
from pytest_vlmeval.reports.pictures import Pictures
from pytest_vlmeval.reports.record import DatasetReport, RunReport, SampleReport
from pytest_vlmeval.reports.summary import OUTCOMES

# Samples in one part.
PART = 200
# Longer texts are cut in the page, which says so; the store keeps them whole.
LONGEST = 20_000
# What a card shows of a text.
SHOWN = 160

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageData:
    """The packed index, the packed parts in order, the pictures in base64 in order."""

    index: str
    parts: tuple[str, ...]
    pictures: tuple[str, ...]


def pack(value: Json) -> str:
    """Write JSON, deflated (zlib's format), in base64."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode("ascii"), 9)).decode("ascii")


def pack_report(report: RunReport, pictures: Pictures) -> PageData:
    """Pack all samples of a run."""
    numbers = {name: number for number, name in enumerate(pictures.found)}
    rows = [(dataset, each) for dataset in report.datasets for each in dataset.samples]
    details = [_detail(report, sample, numbers) for _, sample in rows]
    parts = [details[start : start + PART] for start in range(0, len(rows), PART)]
    return PageData(
        index=pack(_index(report, rows, numbers)),
        parts=tuple(pack(part) for part in parts),
        pictures=tuple(pictures.found.values()),
    )


def _index(
    report: RunReport,
    rows: Sequence[tuple[DatasetReport, SampleReport]],
    numbers: Mapping[str, int],
) -> Json:
    """Return what cards and filters need, one list per property."""
    datasets = [dataset.dataset for dataset in report.datasets]
    categories = sorted({s.category for _, s in rows if s.category is not None})
    place = {name: number for number, name in enumerate(datasets)}
    kind = {name: number for number, name in enumerate(categories)}
    return {
        "part": PART,
        "datasets": datasets,
        "categories": categories,
        "outcomes": list(OUTCOMES),
        "comparedWith": report.compared_with,
        "model": report.model,
        "dataset": [place[dataset.dataset] for dataset, _ in rows],
        "id": [sample.index for _, sample in rows],
        "outcome": [OUTCOMES.index(sample.outcome) for _, sample in rows],
        "cutOff": [int(sample.is_cut_off) for _, sample in rows],
        "category": [kind.get(s.category or "", -1) for _, s in rows],
        "flip": [sample.flip for _, sample in rows],
        "judge": [sample.verdict.state if sample.verdict else "" for _, sample in rows],
        "picture": [_first_picture(sample, numbers) for _, sample in rows],
        "question": [_brief(_question(sample)) for _, sample in rows],
        "answer": [_brief(_said(sample)) for _, sample in rows],
        "reference": [_brief(sample.reference or "") for _, sample in rows],
        "ms": [round(s.answer.latency_ms) if s.answer else 0 for _, s in rows],
    }


def _brief(text: str) -> str:
    line = " ".join(text[: 4 * SHOWN].split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def _question(sample: SampleReport) -> str:
    parts = parts_of(sample.prompt)
    return " ".join(part.text for part in parts if part.kind == "text")


def _said(sample: SampleReport) -> str:
    if sample.answer is None:
        return ""
    answer = sample.answer
    return answer.error if answer.replies == ("",) else answer.cell


def _first_picture(sample: SampleReport, numbers: Mapping[str, int]) -> int:
    """Return a picture's number; -1 where there is none, -2 where it was left out."""
    parts = parts_of(sample.prompt)
    images = [part.media for part in parts if part.kind == "image"]
    if not images:
        return -1
    return next((numbers[name] for name in images if name in numbers), -2)


def _detail(
    report: RunReport, sample: SampleReport, numbers: Mapping[str, int]
) -> Json:
    """Return everything else that is shown of a sample; what is empty is left out."""
    answer, verdict, before = sample.answer, sample.verdict, sample.before
    found: dict[str, Json] = {
        "prompt": [[_part(part, numbers) for part in turn] for turn in sample.prompt],
        "reference": sample.reference and _cut(sample.reference),
        "group": sample.group,
    }
    if answer is not None:
        found |= {
            "earlier": [[_cut(each) for each in said] for said in answer.earlier],
            "where": answer.where,
            "answer": _cut(answer.text),
            "reasoning": _cut(answer.reasoning),
            "error": _cut(answer.error),
            "retries": answer.retries,
            "ms": round(answer.latency_ms, 1),
            "promptTokens": answer.prompt_tokens,
            "completionTokens": answer.completion_tokens,
        }
    if verdict is not None:
        found |= {
            "value": verdict.value,
            "repeats": list(verdict.repeats),
            "unread": verdict.unread or None,
            "lost": verdict.why_lost,
            "corrected": None
            if verdict.corrected is None
            else f"{verdict.corrected:g}",
            "extracted": verdict.extracted and _cut(verdict.extracted),
            "reason": _cut(verdict.reason),
            "judged": list(_exchanges(report, verdict.exchanges)),
        }
    if before is not None:
        found["before"] = {
            "outcome": before.outcome,
            "answer": _cut(before.text),
            "extracted": before.extracted,
        }
    return {name: value for name, value in found.items() if value not in (None, "", [])}


def _part(part: PromptPart, numbers: Mapping[str, int]) -> Json:
    if part.kind == "text":
        return _cut(part.text)
    return {"kind": part.kind, "picture": numbers.get(part.media, -1)}


def _exchanges(report: RunReport, asked: Sequence[int]) -> Iterator[Json]:
    for number in asked:
        if number in report.exchanges:
            each = report.exchanges[number]
            yield {
                "judge": each.judge,
                "prompt": _cut(each.prompt),
                "text": each.text and _cut(each.text),
                "error": _cut(each.error),
                "ms": round(each.latency_ms),
            }


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}… [{len(text)} characters in all; the run store has them]"
