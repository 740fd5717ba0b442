"""The score of a dataset whose samples are asked several times: means over repeats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pytest_vlmeval.records import NO_ANSWER, Score, SoundScore, Verdict

RIGHT_FROM = 0.5


def average(scores: Sequence[Score]) -> Score:
    """Return the mean of the scores of each repeat, with their values; one as it is.

    The scores are of the same samples. A sample counts as answered if it was every
    time, as undecided if it was so any time, and as correct by its mean verdict.
    """
    first = scores[0]
    if len(scores) == 1:
        return first
    verdicts = _average_verdicts(scores)
    unanswered = {
        verdict.index
        for score in scores
        for verdict in score.verdicts
        if verdict.reason == NO_ANSWER
    }
    return replace(
        first,
        value=_mean([score.value for score in scores]),
        best=_mean([score.best for score in scores]),
        metrics=_average_metrics([score.metrics for score in scores]),
        repeats=tuple(score.value for score in scores),
        answered=first.samples - len(unanswered),
        correct=sum((each.value or 0) >= RIGHT_FROM for each in verdicts),
        undecided=sum(
            each.state != "matched" and each.value is None for each in verdicts
        ),
        unread=sum(each.unread for each in verdicts),
        notes=tuple(dict.fromkeys(note for each in scores for note in each.notes)),
        differing=sum(each.corrected is not None for each in verdicts),
        sound=_average_sound(scores, verdicts),
        verdicts=verdicts,
    )


def _average_metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric that every repeat has."""
    return {
        name: _mean([each[name] for each in metrics])
        for name in metrics[0]
        if all(name in each for each in metrics)
    }


def _average_sound(
    scores: Sequence[Score], verdicts: Sequence[Verdict]
) -> SoundScore | None:
    """Return what is left on average without defects; of most repeats it is all."""
    sound = [each.sound for each in scores]
    if not any(sound):
        return None
    pairs = list(zip(scores, sound, strict=True))
    return SoundScore(
        defects=sum(verdict.rests_on_defect for verdict in verdicts),
        value=_mean([score.value if it is None else it.value for score, it in pairs]),
        metrics=_average_metrics(
            [score.metrics if it is None else it.metrics for score, it in pairs]
        ),
    )


def _average_verdicts(scores: Sequence[Score]) -> tuple[Verdict, ...]:
    by_index = [{each.index: each for each in score.verdicts} for score in scores]
    return tuple(
        _average_verdict([each[verdict.index] for each in by_index])
        for verdict in scores[0].verdicts
    )


def _average_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    values = tuple(each.value for each in verdicts)
    known = [value for value in values if value is not None]
    exchanges = tuple(number for each in verdicts for number in each.exchanges)
    unread = any(each.unread for each in verdicts)
    if len(known) < len(values):
        # The first that has none says why.
        missing = next(each for each in verdicts if each.value is None)
        return replace(missing, exchanges=exchanges, repeats=values, unread=unread)
    corrected = None
    if any(each.corrected is not None for each in verdicts):
        corrected = _mean(
            [
                value if each.corrected is None else each.corrected
                for each, value in zip(verdicts, known, strict=True)
            ]
        )
    return replace(
        verdicts[0],
        value=_mean(known),
        exchanges=exchanges,
        repeats=values,
        corrected=corrected,
        rests_on_defect=any(each.rests_on_defect for each in verdicts),
        unread=unread,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
