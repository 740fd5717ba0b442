"""Whether a score is about all its samples, and which of them rest on a defect."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_vlmeval.records import NO_ANSWER, GateOutcome, GateResult

if TYPE_CHECKING:
    from pytest_vlmeval.records import Score
    from pytest_vlmeval.settings.groups import GateSettings

JUDGED = ("judged", "judge_failed", "judge_unclear")


def check_completeness(
    score: Score, cut_off: int, limits: GateSettings, *, unreadable: int = 0
) -> list[GateResult]:
    """Return what fails a score whatever its value, else one result that it is whole.

    `cut_off` counts the answers that ended at the token limit, `unreadable` the
    samples that cannot be asked, whose rows or images cannot be read.
    """
    name, missing = score.dataset, score.samples - score.answered
    has, undecided = _agree(missing, "has", "have"), score.undecided
    value = f"{score.main_metric} = {score.value:.2f}"
    empty = _but_for_empty(score)
    found: list[GateResult] = []

    def fail(metric: str, share: float, expected: float, message: str) -> None:
        failure = _result(score, "failed", f"{name}: {message}")
        found.append(replace(failure, metric=metric, value=share, expected=expected))

    share = 100 * score.answered / score.samples
    if share < limits.min_answered:
        limit = ""
        if limits.min_answered < 100:
            limit = f" At least {limits.min_answered:g} % have to be answered."
        fail(
            "answered",
            share,
            limits.min_answered,
            f"{missing} of {score.samples} samples {has} no usable answer and "
            f"{_agree(missing, 'counts', 'count')} as wrong in {value}{empty}.{limit} "
            f"The items of these samples say why; {_what_to_do(missing, unreadable)}",
        )
    share = 100 * cut_off / score.samples
    if share > limits.max_cut_off:
        fail(
            "cut off",
            share,
            limits.max_cut_off,
            f"{cut_off} of {score.samples} answers "
            f"{_agree(cut_off, 'was', 'were')} cut off at the token limit, and what "
            f"there is of {_agree(cut_off, 'its', 'their')} text counts in {value}; at "
            "most "
            f"{limits.max_cut_off:g} % may be cut off. Raise --vlm-max-tokens, or "
            "allow more with --vlm-max-cut-off.",
        )
    judged = sum(verdict.state in JUDGED for verdict in score.verdicts)
    share = 100 * (1 - score.undecided / judged) if judged else 100.0
    if share < limits.min_judged:
        fail(
            "judged",
            share,
            limits.min_judged,
            f"the judge ({score.judge}) did not decide {score.undecided} of "
            f"{score.samples} samples, which {_agree(undecided, 'counts', 'count')} as "
            f"wrong in {value}; at best it is {score.best:.2f}. At least "
            f"{limits.min_judged:g} % of what it is asked have to be decided. The "
            "items of these samples say why.",
        )
    if found:
        return found
    message = f"{name}: all {score.samples} samples are answered and scored."
    if missing or score.undecided:
        message = (
            f"{name}: {missing} of {score.samples} samples {has} no usable answer and "
            f"{undecided} {_agree(undecided, 'was', 'were')} not decided by the judge, "
            "which is allowed "
            f"(answered at least {limits.min_answered:g} %, judged at least "
            f"{limits.min_judged:g} %). All count as wrong{empty}."
        )
    if score.modified:
        # Without the option nothing is asked of them: the dataset's items fail.
        message += (
            " Its file is not the published one, which --vlm-allow-modified-data "
            "accepts: compare the score only with others of this very file."
        )
    return [_result(score, "passed", message)]


def _agree(count: int, one: str, more: str) -> str:
    return one if count == 1 else more


def _result(score: Score, outcome: GateOutcome, message: str) -> GateResult:
    return GateResult(
        dataset=score.dataset,
        gate="completeness",
        outcome=outcome,
        message=message,
        samples=score.samples,
        fails=outcome == "failed",
    )


def _but_for_empty(score: Score) -> str:
    """Describe how many empty answers the published score counts, if any."""
    counted = sum(
        verdict.reason == NO_ANSWER and bool(verdict.value)
        for verdict in score.verdicts
    )
    if not counted:
        return ""
    return (
        f", but for {counted} empty answers that ms-vlmeval counts "
        "(--vlm-scoring=corrected does not)"
    )


def _what_to_do(missing: int, unreadable: int) -> str:
    if not unreadable:
        return "the same command asks only them again."
    fix = "fix them in the dataset's file, or allow some with --vlm-min-answered."
    if unreadable == missing:
        return f"their rows or images cannot be read, whenever they are asked: {fix}"
    return (
        f"the same command asks only them again, but for {unreadable} whose rows or "
        f"images cannot be read: {fix}"
    )


PAGE = "docs/datasets.md#known-defects-of-the-published-scoring"


def name_defect(score: Score) -> str:
    """Return whose defect a score rests on."""
    owner = "VLMEvalKit" if score.scoring == "vlmevalkit" else "ms-vlmeval"
    return f"a known defect of {owner}'s scoring"


def describe_defects(score: Score) -> str | None:
    """Count the published verdicts that corrected scoring does not give; None if none.

    Those that are too good come first: a score should not rest on them.
    """
    sound = score.sound
    defects = 0 if sound is None else sound.defects
    missed = score.differing - defects
    if sound is None:
        if not missed:
            return None
        return (
            f"{missed} of {score.samples} verdicts are others with "
            f"--vlm-scoring=corrected ({PAGE})"
        )
    also = f"; {missed} more are others by corrected scoring" if missed else ""
    return (
        f"{defects} of {score.samples} verdicts rest on {name_defect(score)} "
        f"({PAGE}), without them it is {sound.value:.2f}; "
        f"--vlm-scoring=corrected decides them without it{also}"
    )


def without_defects(score: Score) -> Score:
    """Return what is left of a score where verdicts that rest on a defect are wrong."""
    sound = score.sound
    assert sound is not None
    return replace(
        score,
        value=sound.value,
        # A mean over nothing is no metric: it had one by the defect alone.
        metrics={name: sound.metrics.get(name, 0.0) for name in score.metrics},
        verdicts=tuple(
            # Of several repeats only some may rest on it.
            replace(each, value=each.corrected if each.repeats else 0.0, repeats=())
            if each.rests_on_defect
            else each
            for each in score.verdicts
        ),
        sound=None,
    )
