"""Verdicts that rest on a known defect of upstream's scoring: said, and left out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vlmeval.records import Score, Verdict

PAGE = "docs/datasets.md#known-defects-of-the-published-scoring"


def name_defect(score: Score) -> str:
    """Return whose defect a score rests on."""
    owner = "VLMEvalKit" if score.scoring == "vlmevalkit" else "ms-vlmeval"
    return f"a known defect of {owner}'s scoring"


def describe_defects(score: Score) -> str | None:
    """Say how many published verdicts corrected scoring does not give; None for none.

    Those that are too good come first: a score should not rest on them.
    """
    sound = score.sound
    defects = 0 if sound is None else sound.defects
    missed = score.differing - defects
    if sound is None:
        if not missed:
            return None
        return (
            f"{missed} of {score.samples} verdicts are others by "
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
        verdicts=tuple(map(_without_defect, score.verdicts)),
        sound=None,
    )


def _without_defect(verdict: Verdict) -> Verdict:
    if not verdict.rests_on_defect:
        return verdict
    # Of several repeats only some may rest on it.
    return replace(
        verdict, value=verdict.corrected if verdict.repeats else 0.0, repeats=()
    )


def find_defects(score: Score) -> tuple[str, ...]:
    """Return the indexes of the samples whose verdict rests on a defect."""
    return tuple(each.index for each in score.verdicts if each.rests_on_defect)
