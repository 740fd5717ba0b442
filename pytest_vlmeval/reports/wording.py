"""How answers, verdicts and scores are put into words for those who read reports."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import printable
from pytest_vlmeval.models.client import UNCLOSED_THOUGHT, calls_tools, is_cut_off

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pytest_vlmeval.records import (
        Account,
        Answer,
        GateResult,
        Score,
        SpotCheck,
        Verdict,
    )
    from pytest_vlmeval.reports.record import Cause

# What the templates of most models that think read, Qwen's among them.
NO_THINKING = '{"chat_template_kwargs": {"enable_thinking": false}}'
NOT_COMPARED = "not checked: another command asked them at the same time"
# Longer answers are shortened in reports; the store keeps them whole.
LONGEST_SHOWN = 2_000


# The titles of causes in reports, and what each means.
CAUSES: Mapping[Cause, tuple[str, str]] = {
    "failed": ("Failed requests", "The request got no answer. The error is shown."),
    "aborted": ("Broken off", "The server ended the answer before it was complete."),
    "refused": ("Refusals", "The reply declares itself a refusal."),
    "filtered": ("Filtered", "A filter of the server stopped the answer."),
    "empty": ("Empty answers", "The reply has no text that could be scored."),
    "missing": ("Not asked", "The run ended before these samples were asked."),
    "judge_failed": ("Judge failed", "The judge gave no reply."),
    "judge_unclear": ("Judge unclear", "The judge gave no usable reply."),
    "unanswerable": (
        "No answer can be right",
        "The data or the scoring of these samples accepts no answer.",
    ),
    "cut_off": (
        "Cut off",
        "The answer ended at the token limit; what there is of it is not right.",
    ),
    "unread": (
        "No option named",
        "No rule found an option in the answer, so it counts as wrong.",
    ),
    "wrong": ("Wrong", "The answer was read, and is not the reference."),
}


def align(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Return the lines of a table, headings first; columns in `right` are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = [
        "-" * width if heading else ""
        for heading, width in zip(rows[0], widths, strict=True)
    ]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (rows[0], rule, *rows[1:])
    ]


def write_markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table of Markdown, headings first."""
    rule = ["---"] * len(rows[0])
    return [
        f"| {' | '.join(map(escape_markdown, row))} |"
        for row in (rows[0], rule, *rows[1:])
    ]


def escape_markdown(text: str) -> str:
    """Keep text in its cell, and what looks like markup as it is written."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    for sign, written in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        ("|", "\\|"),
        ("\n", "<br>"),
        ("`", "\\`"),
    ):
        text = text.replace(sign, written)
    return text


def shorten(text: str, most: int = LONGEST_SHOWN) -> str:
    """Return `text`, cut at `most` characters with a note of its whole length.

    Halves of pairs of UTF-16 are replaced: no process can send them to another. What
    a terminal would obey stands as an escape.
    """
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= most:
        return printable(text)
    return f"{printable(text[:most])}... ({len(text)} characters in all)"


def describe_repeats(verdict: Verdict) -> str:
    """Describe how often a sample was answered right."""
    return f"{verdict.right} of {len(verdict.repeats)} times"


def describe_verdict(verdict: Verdict) -> str:
    """Say in a word how an answer was judged."""
    if verdict.value is None:
        return "unscored" if verdict.state == "matched" else verdict.state
    if verdict.value in (0.0, 1.0):
        return "correct" if verdict.value else "wrong"
    return f"{verdict.value:.3f}"


def describe_corrected(verdict: Verdict) -> str | None:
    """Describe the corrected verdict, if it is another; None for the same."""
    if verdict.corrected is None:
        return None
    return describe_verdict(replace(verdict, value=verdict.corrected))


def why_undecided(verdict: Verdict) -> str:
    """Explain why the judge decided nothing, and what to do."""
    remedies = {
        "judge_failed": " The same command asks the judge again.",
        "judge_unclear": " Its prompt and all replies are in the store; another "
        "judge (--vlm-judge) may do better.",
    }
    end = "" if verdict.reason.endswith(".") else "."
    return shorten(verdict.reason) + end + remedies.get(verdict.state, "")


def describe_cut_off(answer: Answer) -> str:
    """Explain that an answer whose text is scored was cut off, and what to do."""
    # Those of several turns are counted together.
    after = f" after {answer.completion_tokens} tokens" if answer.turns == 1 else ""
    return f"cut off at the token limit{after}: raise --vlm-max-tokens"


def why_unusable(answer: Answer) -> str:
    """Say in a sentence why an answer cannot be used, and what to do."""
    why = _why_unusable(answer)
    return f"{answer.where}: {why}" if answer.where else why


def _why_unusable(answer: Answer) -> str:
    # Those of several turns are counted together.
    one = answer.turns == 1
    after = f" after {answer.completion_tokens} tokens" if one else ""
    if answer.finish_reason == UNCLOSED_THOUGHT:
        return (
            f"it ended{after} in the middle of its thoughts, though the server says "
            "that it is whole. If it ended at a token limit of the server's own, raise "
            "that and --vlm-max-tokens; if the model ended it, switch thinking off, as "
            f"with --vlm-extra-body='{NO_THINKING}'. It thought: "
            + shorten(answer.reasoning, 200)
        )
    if answer.state == "empty" and is_cut_off(answer.finish_reason):
        if not answer.reasoning:
            return (
                f"it was cut off at the token limit{after}, before any text. Raise "
                "--vlm-max-tokens."
            )
        return (
            f"it ended{after}, before the model had finished to think. Raise "
            "--vlm-max-tokens. It thought: " + shorten(answer.reasoning, 200)
        )
    if answer.state == "empty":
        return _why_empty(answer)
    if answer.state in ("filtered", "refused"):
        said = f": {shorten(answer.text, 200)}" if answer.text.strip() else "."
        return answer.error.rstrip(".") + said
    asked = f" (asked {answer.attempts} times)" if one and answer.attempts > 1 else ""
    return f"{answer.error}{asked}"


def _why_empty(answer: Answer) -> str:
    if calls_tools(answer.finish_reason):
        return (
            "the model called a tool and returned no text, though no request offers "
            "one. Start the server without a parser of tool calls (vLLM and SGLang: "
            "without --tool-call-parser), so that the text stays in the answer."
        )
    if not answer.reasoning:
        return "the model returned an empty text."
    end = answer.reasoning if len(answer.reasoning) <= 200 else answer.reasoning[-200:]
    return (
        "the model returned reasoning and no answer after it. If the answer stands in "
        "the reasoning, the server took it for thoughts: start the server without its "
        "reasoning parser (vLLM and SGLang: without --reasoning-parser). If the model "
        "only thought, switch thinking off, as with "
        f"--vlm-extra-body='{NO_THINKING}'. The reasoning ends: {shorten(end)}"
    )


def list_score(score: Score, *, every: bool) -> list[tuple[str, object]]:
    """Return what test reports say of a score: `every` figure, or the main ones."""
    spread = [
        ("repeats", len(score.repeats)),
        ("standard_deviation", score.standard_deviation),
        ("standard_error", score.standard_error),
    ]
    further = [
        ("scorer", score.scorer),
        *((f"repeat {n}", value) for n, value in enumerate(score.repeats, 1)),
        *((f"metric: {name}", value) for name, value in score.metrics.items()),
    ]
    return [
        ("dataset", score.dataset),
        ("main_metric", score.main_metric),
        ("score", score.value),
        ("scale", f"0 to {score.scale:g}"),
        ("samples", score.samples),
        ("answered", score.answered),
        ("correct", score.correct),
        ("judge", score.judge),
        ("undecided", score.undecided),
        ("best_case", score.best),
        ("modified_data", str(score.modified).lower()),
        *([("data_version", score.data_version)] if score.data_version else []),
        ("scoring", score.scoring),
        ("unread", score.unread),
        ("differing_verdicts", score.differing),
        ("verdicts_by_defect", score.sound.defects if score.sound else 0),
        *([("score_without_defects", score.sound.value)] if score.sound else []),
        *(("note", note) for note in score.notes),
        *(spread if score.repeats else ()),
        *(further if every else ()),
    ]


def describe_check(check: SpotCheck | None) -> str:
    """Describe what the spot check of the stored answers has shown."""
    if check is None:
        return NOT_COMPARED
    if check.state == "unchecked":
        return f"not checked: {check.why}"
    if check.state == "weights":
        return "spot check: the checksums of the weights are the same"
    compared = check.asked - check.failed
    words = [f"spot check: {check.same} of {compared} the same"]
    if check.unsteady:
        tells = "" if check.same or check.changed else ", which tells nothing"
        words.append(f"{check.unsteady} differently each time{tells}")
    if check.failed:
        words.append(f"{check.failed} more without an answer")
    text = ", ".join(words)
    if check.state == "few":
        if check.few < compared:
            text += f" ({check.few} of them too few to tell: their new answers count)"
        else:
            text += " (too few to tell: the new answers count)"
    return text


def describe_failure(gate: GateResult) -> str:
    """Describe in a clause what a gate found that did not pass."""
    if gate.value is None or gate.expected is None:
        return shorten(gate.headline, 120)
    if gate.gate == "completeness":
        bound = "at most" if gate.metric == "cut off" else "at least"
        return f"{gate.value:.3g} % {gate.metric}, {bound} {gate.expected:g} % expected"
    found = f"{gate.metric} is {gate.value:.2f}"
    if gate.gate == "threshold":
        return f"{found}, the threshold is {gate.expected:.2f}"
    lost = f", {gate.lost:,} lost and {gate.gained or 0:,} gained" if gate.lost else ""
    return f"{found}, the baseline was {gate.expected:.2f}{lost}"


def describe_account(account: Account) -> str:
    """Say in one line what was asked, how long it took and what went wrong."""
    noun = "request" if account.requests == 1 else "requests"
    words = [f"{account.requests} {noun}"]
    if account.retries:
        words.append(f"{account.retries} of them again")
    words.append(
        f"{account.prompt_tokens} tokens in and {account.completion_tokens} out"
    )
    if account.latency_p50_ms is not None:
        ranks = account.latency_p50_ms, account.latency_p95_ms, account.latency_p99_ms
        shown = "/".join(f"{rank or 0:.0f}" for rank in ranks)
        words.append(f"p50/p95/p99 {shown} ms")
    if account.errors:
        counts = ", ".join(f"{kind} {count}x" for kind, count in account.errors.items())
        words.append(f"errors: {counts}")
    return ", ".join(words)
