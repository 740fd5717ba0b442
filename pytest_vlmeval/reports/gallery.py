"""Samples of a run with their images, as a fragment of HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from pytest_vlmeval.records import PromptPart, parts_of
from pytest_vlmeval.reports.html import Tier, encode
from pytest_vlmeval.reports.record import DatasetReport, SampleReport
from pytest_vlmeval.reports.wording import describe_verdict, shorten

# What a notebook, which is saved with its outputs, has room for.
SMALL = Tier(256, 70)
MOST_BYTES = 2_000_000
MOST_IMAGES = 4
LONGEST = 500

_CARD = (
    "display:inline-block;vertical-align:top;width:280px;margin:4px;padding:8px;"
    "border:1px solid #8888;border-radius:4px;text-align:left"
)
_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;max-height:12em;overflow:auto"

Shown = tuple[DatasetReport, SampleReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Samples as a notebook shows them: images, question, reference and answer.

    `found` counts those there are, of which `samples` are the first.
    """

    model: str
    found: int
    samples: Sequence[Shown] = field(repr=False)

    def __len__(self) -> int:
        """Count the samples that are shown."""
        return len(self.samples)

    def __str__(self) -> str:
        """Return a line for each sample, as terminals have no images."""
        lines = [
            f"{dataset.dataset}-{each.index}: {each.outcome}, answered "
            f"{_line(_answer(each))}, reference {_line(each.reference or '')}"
            for dataset, each in self.samples
        ]
        return "\n".join([self._heading, *lines])

    @property
    def _heading(self) -> str:
        noun = "sample" if self.found == 1 else "samples"
        first = f", the first {len(self)}" if len(self) < self.found else ""
        return f"{self.model}: {self.found:,} {noun}{first}"

    def _repr_html_(self) -> str:
        """Show the samples; all images together take at most `MOST_BYTES` (10^6)."""
        left = MOST_BYTES
        cards = []
        for dataset, sample in self.samples:
            card, used = _card(dataset, sample, left)
            left -= used
            cards.append(card)
        heading = html.escape(shorten(self._heading, LONGEST))
        return f"<p><b>{heading}</b></p><div>{''.join(cards)}</div>"


def _card(dataset: DatasetReport, sample: SampleReport, room: int) -> tuple[str, int]:
    """Return what is shown of a sample, and the bytes of its images."""
    parts = parts_of(sample.prompt)
    images = [part for part in parts if part.kind == "image"]
    shown, used = [], 0
    for part in images[:MOST_IMAGES]:
        data = _encode(dataset, part)
        if data is None or used + len(data) > room:
            break
        used += len(data)
        shown.append(
            f'<img src="data:image/webp;base64,{data}" alt="" '
            'style="max-width:100%;margin:0 0 4px">'
        )
    if hidden := len(images) - len(shown):
        noun = "image is" if hidden == 1 else "images are"
        shown.append(f"<div><i>{hidden} {noun} not shown</i></div>")
    if any(part.kind == "video" for part in parts):
        shown.append("<div><i>videos are not shown</i></div>")
    question = "\n".join(part.text for part in parts if part.kind == "text")
    rows = [
        _row("question", question),
        _row("reference", sample.reference or ""),
        _row(f"answer ({sample.outcome})", _answer(sample)),
    ]
    read = sample.verdict and sample.verdict.extracted
    if sample.verdict and read and read != _answer(sample).strip():
        rows.append(
            _row(
                f"read as ({describe_verdict(sample.verdict)})",
                read,
            )
        )
    name = html.escape(shorten(f"{dataset.dataset}-{sample.index}", LONGEST))
    return (
        f'<div style="{_CARD}"><b>{name}</b><br>{"".join((*shown, *rows))}</div>',
        used,
    )


def _encode(dataset: DatasetReport, part: PromptPart) -> str | None:
    if dataset.folder is None:
        return None
    return encode(dataset.folder / "media" / part.media, SMALL)


def _row(name: str, text: str) -> str:
    if not text:
        return ""
    said = html.escape(shorten(text, LONGEST))
    return f'<div style="{_TEXT}"><small>{html.escape(name)}</small>\n{said}</div>'


def _answer(sample: SampleReport) -> str:
    answer = sample.answer
    if answer is None:
        return ""
    return answer.cell or answer.error


def _line(text: str) -> str:
    return " ".join(shorten(text, 80).split()) or "nothing"
