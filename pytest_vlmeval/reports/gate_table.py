"""What the gates of a run found: lines for the terminal, a table for a CI's summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.outcome import GateResult, describe_interval

HEADINGS = ("dataset", "gate", "outcome", "value", "interval", "expected", "reason")


def format_gates(results: Sequence[GateResult]) -> list[str]:
    """Return one line that counts, and one for each gate that did not pass.

    What failed its test is told at length by its item.
    """
    notes = [f"gates: {each.message}" for each in results if each.is_note]
    results = [each for each in results if not each.is_note]
    if not results:
        return notes
    counts = Counter(result.outcome for result in results)
    counted = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    without = sorted({each.dataset for each in results if each.rule == "none"})
    lines = [f"gates: {counted}" + (_without(without) if without else "")]
    for result in results:
        if result.outcome != "passed":
            first = result.message.splitlines()[0]
            lines.append(f"gates: {first}")
    return lines + notes


def format_unheld(thresholds: Mapping[str, str]) -> list[str]:
    """Return a line for each dataset whose thresholds no test was held against."""
    return [
        f"gates: {name} failed: no test held its score against its threshold ({told}). "
        "Its test_score was skipped or is not there: run one, or a test that calls "
        "vlm_score.check(), or take the threshold out."
        for name, told in thresholds.items()
    ]


def _without(datasets: Sequence[str]) -> str:
    shown = ", ".join(datasets[:3])
    more = f" and {len(datasets) - 3} more" if len(datasets) > 3 else ""
    return f"; without a threshold: {shown}{more}"


def format_markdown(model: str, results: Sequence[GateResult]) -> str:
    """Return a table of all gates, those that fail their test first."""
    failed = sum(result.fails for result in results)
    count = sum(not result.is_note for result in results)
    said = f"{failed} of {count} gates fail" if failed else "every gate passes"
    lines = [f"## vlmeval: {_cell(model)}, {said}", "", _row(HEADINGS)]
    lines.append(_row(["---"] * len(HEADINGS)))
    ordered = sorted(results, key=lambda each: not each.fails)
    lines += [_row([_cell(text) for text in _cells(each)]) for each in ordered]
    return "\n".join([*lines, "", ""])


def _cells(result: GateResult) -> list[str]:
    gate = f"{result.gate}: {result.metric}" if result.metric else result.gate
    verdict = "fails" if result.fails else "passes"
    outcome = result.outcome
    return [
        result.dataset,
        gate,
        f"{outcome}, {verdict}" if outcome == "inconclusive" else outcome,
        "" if result.value is None else f"{result.value:.2f}",
        "" if result.interval is None else describe_interval(result.interval),
        "" if result.expected is None else f"{result.expected:.2f}",
        result.message,
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Keep text in its cell, and what looks like markup as it is written."""
    for sign, written in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        ("|", "\\|"),
        ("\n", "<br>"),
        ("`", "\\`"),
    ):
        text = text.replace(sign, written)
    return text


def append_summary(path: Path, text: str) -> None:
    """Add to the file of a job's summary, which other steps may have begun.

    Raises `VlmEvalError` where it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise VlmEvalError(
            f"GITHUB_STEP_SUMMARY={path} cannot be written ({error.strerror}). Point "
            "it at a writable file, or unset it."
        ) from None
