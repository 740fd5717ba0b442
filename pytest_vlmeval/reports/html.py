"""One HTML file of a run, with all it needs: it opens from a folder, without a network.

Everything is JSON, deflated and in base64: nothing that a model or a dataset wrote can
end the element it stands in, and 15,000 samples open at once. The page shows the index
and takes up a part when one of its samples is opened or a text is searched.

jinja2 writes what is the same for every reader, charts included; one hand-written
script shows the samples. So there is nothing to build, nothing to keep up to date but
jinja2, and the page is read as it is written. The script and the styles are allowed by
their hashes, and nothing else is: neither what a model wrote nor any address.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import GateResult, PromptPart, parts_of
from pytest_vlmeval.reports import charts
from pytest_vlmeval.reports.record import DatasetReport, RunReport, SampleReport
from pytest_vlmeval.reports.summary import (
    LEVEL,
    LEVEL_TEXT,
    OUTCOMES,
    USELESS,
    by_urgency,
    conclude,
    count_endpoints,
    score_before,
    summarize,
    total,
)
from pytest_vlmeval.reports.wording import (
    CAUSES,
    describe_account,
    describe_check,
    describe_failure,
)
from pytest_vlmeval.sandbox.environment import write_held

MEGABYTE = 1_000_000
THREADS = 4
# So many images are encoded to tell how large all of them would be.
PROBED = 12


class Tier(NamedTuple):
    """How large and how good images are: longest side in pixels, WebP's quality."""

    side: int
    quality: int


TIERS = (Tier(1024, 80), Tier(768, 75), Tier(512, 65), Tier(384, 55))


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The images of a report, in base64, by their file names.

    `side` is the longest side in pixels. `left_out` counts those that the budget
    had no room for, `unreadable` those that could not be opened.
    """

    found: Mapping[str, str]
    side: int
    left_out: int = 0
    unreadable: int = 0


def embed_images(report: RunReport, max_mb: float) -> Images:
    """Encode the images of a run; those of samples to look at come first.

    `max_mb` (10^6 bytes) bounds what they add to the file. The largest tier is taken
    in which all have room, else the largest in which those come in that belong to
    samples that are not right.
    """
    first, rest = _by_urgency(report)
    budget = max_mb * MEGABYTE
    tier = _choose_tier(first, [*first, *rest], budget)
    found: dict[str, str] = {}
    unreadable = 0
    used = 0
    files = [*first, *rest]
    for file, data in _encode_all(files, tier):
        if data is None:
            unreadable += 1
        elif used + len(data) > budget:
            break
        else:
            used += len(data)
            found[file.name] = data
    left_out = len(files) - len(found) - unreadable
    return Images(found=found, side=tier.side, left_out=left_out, unreadable=unreadable)


def _by_urgency(report: RunReport) -> tuple[list[Path], list[Path]]:
    """Return the files of samples that are not right, and all others, each once."""
    first: dict[str, Path] = {}
    rest: dict[str, Path] = {}
    for dataset in report.datasets:
        for sample in dataset.samples:
            right = sample.outcome == "correct" and not sample.flip
            for file in _files(dataset, sample):
                (rest if right else first).setdefault(file.name, file)
    return list(first.values()), [rest[name] for name in rest if name not in first]


def _files(dataset: DatasetReport, sample: SampleReport) -> Iterator[Path]:
    if dataset.folder is not None:
        for part in parts_of(sample.prompt):
            if part.kind == "image":
                yield dataset.folder / "media" / part.media


def _choose_tier(first: Sequence[Path], every: Sequence[Path], budget: float) -> Tier:
    for files in (every, first):
        for tier in TIERS:
            if _estimate(files, tier) <= budget:
                return tier
    return TIERS[-1]


def _estimate(files: Sequence[Path], tier: Tier) -> float:
    """Tell from some of the files how large all of them would be."""
    probed = files[:: max(1, len(files) // PROBED)]
    sizes = [len(data) for _, data in _encode_all(probed, tier) if data is not None]
    return sum(sizes) / len(sizes) * len(files) if sizes else 0.0


def _encode_all(files: Sequence[Path], tier: Tier) -> Iterator[tuple[Path, str | None]]:
    # In slices, so that no more is encoded than there is room for.
    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(files), 8 * THREADS):
            part = files[start : start + 8 * THREADS]
            yield from zip(
                part, threads.map(lambda file: encode(file, tier), part), strict=True
            )


def encode(file: Path, tier: Tier) -> str | None:
    """Return an image as WebP in base64, never enlarged; None if it has no pixels."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            # JPEG decodes at a fraction of its size, which saves most of the time.
            image.draft("RGB", (tier.side, tier.side))
            mode = "RGBA" if image.has_transparency_data else "RGB"
            small = image.convert(mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    small.thumbnail((tier.side, tier.side), reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=tier.quality, method=2)
    return base64.b64encode(out.getvalue()).decode("ascii")


# Samples in one part.
PART = 200
# Longer texts are cut in the page, which says so; the store keeps them whole.
LONGEST = 20_000
# What a card shows of a text.
SHOWN = 160

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageData:
    """The packed index, the packed parts in order, the images in base64 in order."""

    index: str
    parts: tuple[str, ...]
    images: tuple[str, ...]


def pack(value: Json) -> str:
    """Write JSON, deflated (zlib's format), in base64."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode("ascii"), 9)).decode("ascii")


def pack_report(report: RunReport, images: Images) -> PageData:
    """Pack all samples of a run."""
    numbers = {name: number for number, name in enumerate(images.found)}
    rows = [(dataset, each) for dataset in report.datasets for each in dataset.samples]
    details = [_detail(report, sample, numbers) for _, sample in rows]
    parts = [details[start : start + PART] for start in range(0, len(rows), PART)]
    return PageData(
        index=pack(_index(report, rows, numbers)),
        parts=tuple(pack(part) for part in parts),
        images=tuple(images.found.values()),
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
    causes = list(CAUSES)
    return {
        "part": PART,
        "datasets": datasets,
        "categories": categories,
        "outcomes": list(OUTCOMES),
        "causes": [[name, *words] for name, words in CAUSES.items()],
        "comparedWith": report.compared_with,
        "model": report.model,
        "dataset": [place[dataset.dataset] for dataset, _ in rows],
        "id": [sample.index for _, sample in rows],
        "outcome": [OUTCOMES.index(sample.outcome) for _, sample in rows],
        "cause": [causes.index(s.cause) if s.cause else -1 for _, s in rows],
        "cutOff": [int(sample.is_cut_off) for _, sample in rows],
        "category": [kind.get(s.category or "", -1) for _, s in rows],
        "flip": [sample.flip for _, sample in rows],
        "judge": [sample.verdict.state if sample.verdict else "" for _, sample in rows],
        "image": [_first_image(sample, numbers) for _, sample in rows],
        "question": [_brief(_question(sample)) for _, sample in rows],
        "answer": [_brief(_said(sample)) for _, sample in rows],
        "reference": [_brief(sample.reference or "") for _, sample in rows],
        "was": [_brief(_said_before(sample)) for _, sample in rows],
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


def _said_before(sample: SampleReport) -> str:
    """Return the other answer to a sample that changed, "" for any other."""
    return sample.before.text if sample.before is not None and sample.flip else ""


def _first_image(sample: SampleReport, numbers: Mapping[str, int]) -> int:
    """Return an image's number; -1 where there is none, -2 where it was left out."""
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
    return {"kind": part.kind, "image": numbers.get(part.media, -1)}


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


# In the order in which they run.
SCRIPTS = ("data.js", "samples.js", "gallery.js", "sheet.js", "main.js")
# What no HTML may hold: controls, halves of pairs of UTF-16, non-characters.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]"
)
_PAGE = resources.files("pytest_vlmeval.reports") / "page"


def write_html(report: RunReport, path: Path, *, max_mb: float) -> None:
    """Write the report, whole or not at all; raises `VlmEvalError`.

    `max_mb` bounds the images, in 10^6 bytes.
    """
    write_whole(path, render_html(report, max_mb=max_mb).encode("utf-8"))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file at once, so that an interruption leaves the one before."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_held(path, content, mode=0o644)
    except OSError as error:
        raise VlmEvalError(
            f"The report {path} cannot be written: {error.strerror}. Name another "
            "file; --vlm-mode=report writes it from the store at any time."
        ) from None


def render_html(report: RunReport, *, max_mb: float) -> str:
    """Return the page."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"time": _time, "number": _number, "duration": _duration}
    environment.filters["address"] = _address
    environment.globals["charts"] = charts
    environment.globals["describe_check"] = describe_check
    environment.globals["describe_account"] = describe_account
    environment.globals["describe_failure"] = describe_failure
    images = embed_images(report, max_mb)
    style, script = _read("report.css"), "\n".join(map(_read, SCRIPTS))
    datasets = [(each, summarize(each)) for each in report.datasets]
    gates = [gate for each in report.datasets for gate in each.gates]
    figures = total([summary for _, summary in datasets])
    return environment.get_template("report.html.j2").render(
        report=report,
        datasets=datasets,
        gates=by_urgency(gate for gate in gates if not gate.is_note),
        conclusion=conclude(report, figures),
        endpoints=count_endpoints(report),
        found_lost=_find_lost(report),
        most_linked=MOST_LINKED,
        split_message=_split_message,
        level=LEVEL_TEXT,
        other_levels=any(
            gate.interval is not None and gate.interval.level != LEVEL for gate in gates
        ),
        notes=[gate.message for gate in gates if gate.is_note],
        judges=sorted({each.score.judge for each in report.datasets if each.score}),
        score_before=score_before,
        shows_before=any(score_before(each) is not None for each in report.datasets),
        total=figures,
        data=pack_report(report, images),
        images=images,
        max_mb=max_mb,
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
    )


# So many samples of a gate are links of their own; one more leads to all of them.
MOST_LINKED = 100


class Lost(NamedTuple):
    """The samples that a gate is about: `indexes` of those, and what shows them all."""

    title: str
    indexes: Sequence[str]
    filters: Mapping[str, str]


def _find_lost(report: RunReport) -> Callable[[GateResult], Sequence[Lost]]:
    """Return what finds the samples that made a gate what it is."""
    datasets = {each.dataset: each for each in report.datasets}

    def lost(gate: GateResult) -> Sequence[Lost]:
        samples = datasets[gate.dataset].samples
        if gate.gate == "baseline":
            wanted = {
                "lost: right before, not now": {"flip": "regressed"},
                "gained": {"flip": "fixed"},
            }
        elif gate.gate == "threshold":
            wanted = {"not right": {"cause": "any"}}
        elif gate.metric == "cut off":
            wanted = {"cut off": {"outcome": "cut_off"}}
        elif gate.metric == "judged":
            wanted = {"undecided": {"outcome": "undecided"}}
        else:
            wanted = {"without a usable answer": {"cause": "useless"}}
        found = (
            Lost(title, [each.index for each in samples if _is_of(each, which)], which)
            for title, which in wanted.items()
        )
        return [each for each in found if each.indexes]

    return lost


def _is_of(sample: SampleReport, filters: Mapping[str, str]) -> bool:
    """Return whether the page's filters show a sample."""
    match filters:
        case {"flip": flip}:
            return sample.flip == flip
        case {"outcome": "cut_off"}:
            return sample.is_cut_off
        case {"outcome": outcome}:
            return sample.outcome == outcome
        case {"cause": "useless"}:
            return sample.outcome in USELESS
    return sample.cause is not None


_FACT = re.compile(r"  ([a-z][a-z ]*?)  +(\S.*)")


def _split_message(message: str) -> tuple[str, Sequence[tuple[str, str]]]:
    """Return what a gate says, and the figures that follow it in two columns."""
    lines = message.splitlines()
    facts = [(line, _FACT.fullmatch(line)) for line in lines]
    said = "\n".join(line for line, fact in facts if fact is None)
    return said, [(fact[1], fact[2]) for _, fact in facts if fact is not None]


def _address(parameters: Mapping[str, str]) -> str:
    """Return the address of a part of the page: what stands behind its `#`."""
    return f"#{urlencode(parameters, safe='/')}"


def _read(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a content security policy allows an inline element by."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _clean(value: object) -> object:
    """Replace what no HTML may hold; markup of our own passes."""
    if type(value) is str:
        return _FORBIDDEN.sub("�", value)
    return value


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %Y, %H:%M UTC")


def _number(value: float) -> str:
    """Write a count so that one can read it: 1,234 or 12.3 M."""
    if value >= 10_000_000:
        return f"{value / 1e6:.1f} M"
    return f"{value:,.0f}"


def _duration(milliseconds: float) -> str:
    if milliseconds >= 10_000:
        return f"{milliseconds / 1000:.0f} s"
    return (
        f"{milliseconds / 1000:.1f} s"
        if milliseconds >= 1000
        else f"{milliseconds:.0f} ms"
    )
