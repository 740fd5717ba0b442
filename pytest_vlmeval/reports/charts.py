"""The report's charts, as inline SVG: colours and fonts are those of its style sheet.

Drawn here because they are few and small; a plotting library that inlines itself would
be larger than a report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from pytest_vlmeval.reports.record import Outcome
from pytest_vlmeval.reports.summary import LEVEL_TEXT, Bin, Share

if TYPE_CHECKING:
    from pytest_vlmeval.run.store.runs import PastScore

WIDTH, HEIGHT = 320, 120
# Room for a figure's labels: left, top, right, bottom.
LEFT, TOP, RIGHT, BOTTOM = 38, 8, 8, 18


def _svg(
    view: str, label: str, shapes: Sequence[Markup], *, kind: str = "chart"
) -> Markup:
    start = Markup('<svg class="{}" viewBox="{}" role="img" aria-label="{}"{}>').format(
        kind,
        view,
        label,
        Markup(' preserveAspectRatio="none"') if kind == "stack" else "",
    )
    return start + Markup("").join(shapes) + Markup("</svg>")


def _rect(x: float, y: float, width: float, height: float, css: str) -> Markup:
    text = '<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" class="{}"/>'
    return Markup(text.format(x, y, max(width, 0), max(height, 0), css))


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    text = '<line x1="{:.2f}" y1="{:.2f}" x2="{:.2f}" y2="{:.2f}" class="{}"/>'
    return Markup(text.format(x1, y1, x2, y2, css))


def _text(x: float, y: float, text: str, anchor: str = "middle") -> Markup:
    shape = '<text x="{:.2f}" y="{:.2f}" text-anchor="{}">{}</text>'
    return Markup(shape).format(x, y, anchor, text)


def _dot(x: float, y: float, css: str, title: str = "", radius: float = 4) -> Markup:
    shape = '<circle cx="{:.2f}" cy="{:.2f}" r="{:.1f}" class="{}">{}</circle>'
    tip = Markup("<title>{}</title>").format(title) if title else ""
    return Markup(shape).format(x, y, radius, css, tip)


def score_chart(
    value: float,
    scale: float,
    interval: tuple[float, float] | None,
    before: float | None,
) -> Markup:
    """Draw a score on its scale, with its interval, and what it was before."""
    width, middle = 200.0, 11.0

    def at(number: float) -> float:
        return 4 + (width - 8) * min(max(number / scale, 0), 1)

    shapes = [
        _line(at(0), middle, at(scale), middle, "axis"),
        *(_line(at(scale * q), 7, at(scale * q), 15, "axis") for q in (0, 0.5, 1)),
    ]
    label = f"{value:.2f} on a scale from 0 to {scale:g}"
    if interval is not None:
        low, high = interval
        shapes.append(_rect(at(low), middle - 3, at(high) - at(low), 6, "interval"))
        label += f", {LEVEL_TEXT} interval {low:.2f} to {high:.2f}"
    if before is not None:
        shapes.append(_line(at(before), 3, at(before), 19, "before"))
        label += f", before {before:.2f}"
    shapes.append(_dot(at(value), middle, "value"))
    return _svg(f"0 0 {width:g} 22", label, shapes, kind="score")


def outcome_chart(counts: Mapping[Outcome, int]) -> Markup:
    """Draw the shares of what became of the samples, one after the other."""
    total = sum(counts.values()) or 1
    shapes, x = [], 0.0
    for outcome, count in counts.items():
        width = 100 * count / total
        shapes.append(_rect(x, 0, width, 10, f"fill-{outcome}"))
        x += width
    label = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    return _svg("0 0 100 10", label, shapes, kind="stack")


def share_chart(share: Share) -> Markup:
    """Draw a share as a bar, with its interval as a line."""
    bounds = f"{LEVEL_TEXT} interval {share.low:.0%} to {share.high:.0%}"
    label = f"{share.value:.0%}, {bounds}"
    shapes = [
        _rect(0, 3, 200, 8, "track"),
        _rect(0, 3, 200 * share.value, 8, "share-bar"),
        _line(200 * share.low, 7, 200 * share.high, 7, "whisker"),
    ]
    return _svg("0 0 200 14", label, shapes, kind="share")


def histogram_chart(bins: Sequence[Bin], unit: str) -> Markup:
    """Draw how many samples there are by a measure, and which of them are right."""
    most = max(each.count for each in bins)
    inner = WIDTH - LEFT - RIGHT
    step, height = inner / len(bins), HEIGHT - TOP - BOTTOM
    shapes = [_line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis")]
    for number, each in enumerate(bins):
        x, y = LEFT + step * number, float(HEIGHT - BOTTOM)
        for count, css in (
            (each.correct, "fill-correct"),
            (each.wrong, "fill-wrong"),
            (each.other, "fill-unscored"),
        ):
            tall = height * count / most
            y -= tall
            shapes.append(_rect(x + 0.5, y, step - 1, tall, css))
    shapes += [
        _text(LEFT - 4, TOP + 8, f"{most}", "end"),
        _text(LEFT - 4, HEIGHT - BOTTOM, "0", "end"),
        *(
            _text(LEFT + inner * q, HEIGHT - 4, _number(_edge(bins, q)), anchor)
            for q, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
        ),
    ]
    low, high = _number(bins[0].start), _number(bins[-1].end)
    label = f"{sum(b.count for b in bins)} samples from {low} to {high} {unit}"
    return _svg(f"0 0 {WIDTH} {HEIGHT}", label, shapes)


def reliability_chart(bins: Sequence[Bin], unit: str) -> Markup:
    """Draw the share of right answers by a measure; a larger dot is more samples."""
    scored = [
        (number, each) for number, each in enumerate(bins) if each.correct + each.wrong
    ]
    inner, height = WIDTH - LEFT - RIGHT, 56
    step = inner / len(bins)
    top, bottom = 6.0, height - 6.0
    shapes = [
        _line(LEFT, y, WIDTH - RIGHT, y, "grid") for y in (top, height / 2, bottom)
    ]
    shapes += [
        _text(LEFT - 4, top + 4, "100 %", "end"),
        _text(LEFT - 4, bottom + 3, "0", "end"),
    ]
    most = max((each.count for _, each in scored), default=1)
    for number, each in scored:
        share = each.correct / (each.correct + each.wrong)
        tip = (
            f"{_number(each.start)} to {_number(each.end)} {unit}: "
            f"{share:.0%} of {each.correct + each.wrong} right"
        )
        radius = 2 + 3 * math.sqrt(each.count / most)
        y = bottom - (bottom - top) * share
        shapes.append(_dot(LEFT + step * (number + 0.5), y, "value", tip, radius))
    label = f"Share of right answers by {unit}"
    return _svg(f"0 0 {WIDTH} {height}", label, shapes)


def trend_chart(past: Sequence[PastScore], run_id: str) -> Markup:
    """Draw the scores of one dataset in the order they were computed."""
    scores = sorted(past, key=lambda each: each.created_at)
    inner, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    shapes = [
        _line(LEFT, TOP + height * q, WIDTH - RIGHT, TOP + height * q, "grid")
        for q in (0, 0.5, 1)
    ]
    shapes += [
        _text(LEFT - 4, TOP + height * q + 3, f"{100 - 100 * q:g}", "end")
        for q in (0, 0.5, 1)
    ]
    last = max(len(scores) - 1, 1)
    points = [
        (LEFT + 6 + (inner - 12) * n / last, TOP + height * (1 - s.value / s.scale))
        for n, s in enumerate(scores)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    shapes.append(Markup('<polyline points="{}" class="path"/>').format(path))
    for (x, y), score in zip(points, scores, strict=True):
        tip = f"{score.model} ({score.run_id}): {score.value:.2f}, {score.judge}"
        css = "value" if score.run_id == run_id else "other"
        shapes.append(_dot(x, y, css, tip))
    shapes.append(_text(LEFT, HEIGHT - 4, "oldest", "start"))
    shapes.append(_text(WIDTH - RIGHT, HEIGHT - 4, "newest", "end"))
    label = ", ".join(f"{each.model} {each.value:.2f}" for each in scores)
    return _svg(f"0 0 {WIDTH} {HEIGHT}", f"Scores, oldest first: {label}", shapes)


def _edge(bins: Sequence[Bin], place: float) -> float:
    """Return the measure at a place of the axis, from 0 to 1."""
    number = round(place * len(bins))
    return bins[-1].end if number == len(bins) else bins[number].start


def _number(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
