"""Several judges: where they agree, and whose verdict is that of the majority."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

from pytest_vlmeval.records import Score, Verdict

RIGHT_FROM = 0.5


class Agreement(NamedTuple):
    """How far two judges agree on `samples` that both of them judged.

    `kappa` is None where both always say the same, right or wrong.
    """

    first: str
    second: str
    samples: int
    agreed: int
    kappa: float | None


def compare_judges(scores: Sequence[Score]) -> list[Agreement]:
    """Compare each two judges by their verdicts, right or wrong.

    What matched without a judge says nothing of them; rotations of one question,
    which have one verdict, count once.
    """
    judged = {
        score.judge: {
            verdict.index: verdict
            for verdict in score.verdicts
            if verdict.state == "judged"
        }
        for score in scores
    }
    found = []
    for first, second in combinations(judged, 2):
        pairs = {
            verdict.exchanges: (_is_right(verdict), _is_right(judged[second][index]))
            for index, verdict in judged[first].items()
            if index in judged[second]
        }
        found.append(
            Agreement(
                first=first,
                second=second,
                samples=len(pairs),
                agreed=sum(one == other for one, other in pairs.values()),
                kappa=cohen_kappa(list(pairs.values())),
            )
        )
    return found


def describe(agreement: Agreement) -> str:
    """Say how far two judges agree."""
    counts = f"{agreement.agreed} of {agreement.samples} judged alike"
    if agreement.kappa is None:
        return f"{counts}, Cohen's kappa undefined"
    return f"{counts}, Cohen's kappa {agreement.kappa:.2f}"


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Return the agreement beyond chance of two raters, 1 at most.

    J. Cohen, A Coefficient of Agreement for Nominal Scales, 1960, doi
    10.1177/001316446002000104: (p_o - p_e) / (1 - p_e). None where p_e is 1.
    """
    if not pairs:
        return None
    count = len(pairs)
    observed = sum(one == other for one, other in pairs) / count
    firsts = sum(one for one, _ in pairs) / count
    seconds = sum(other for _, other in pairs) / count
    expected = firsts * seconds + (1 - firsts) * (1 - seconds)
    return None if expected == 1 else (observed - expected) / (1 - expected)


def choose_by_majority(scores: Sequence[Score]) -> Mapping[str, str | None]:
    """Name for each sample the judge whose verdict counts; None without a majority.

    Of the judges that decided, more say right or more say wrong; of these the one
    with the middle value counts, so that a graded verdict is one that was given.
    """
    by_index: dict[str, list[tuple[float, str]]] = {}
    for score in scores:
        for verdict in score.verdicts:
            given = by_index.setdefault(verdict.index, [])
            if verdict.value is not None:
                given.append((verdict.value, score.judge))
    return {index: _middle_of_most(given) for index, given in by_index.items()}


def _middle_of_most(given: Sequence[tuple[float, str]]) -> str | None:
    right = sorted(each for each in given if each[0] >= RIGHT_FROM)
    wrong = sorted(each for each in given if each[0] < RIGHT_FROM)
    if len(right) == len(wrong):
        return None
    most = max(right, wrong, key=len)
    return most[(len(most) - 1) // 2][1]


def _is_right(verdict: Verdict) -> bool:
    return verdict.value is not None and verdict.value >= RIGHT_FROM


def unite(
    score: Score, scores: Sequence[Score], chosen: Mapping[str, str | None]
) -> Score:
    """Return the majority's score with each verdict linked to what all judges said."""
    by_judge = [{v.index: v for v in each.verdicts} for each in scores]
    verdicts = []
    for verdict in score.verdicts:
        theirs = [each[verdict.index] for each in by_judge]
        if all(each.state == "matched" for each in theirs):
            verdicts.append(verdict)
            continue
        exchanges = tuple(number for each in theirs for number in each.exchanges)
        if chosen[verdict.index] is None:
            said = zip((each.judge for each in scores), theirs, strict=True)
            verdict = _without_majority(verdict, list(said))
        verdicts.append(replace(verdict, exchanges=exchanges))
    return replace(score, verdicts=tuple(verdicts))


def _without_majority(verdict: Verdict, said: Sequence[tuple[str, Verdict]]) -> Verdict:
    words = ", ".join(f"{judge}: {_word(theirs)}" for judge, theirs in said)
    failed = any(theirs.state == "judge_failed" for _, theirs in said)
    return replace(
        verdict,
        reason=f"the judges have no majority ({words})",
        state="judge_failed" if failed else "judge_unclear",
    )


def _word(verdict: Verdict) -> str:
    if verdict.value is None:
        return verdict.reason
    return "right" if _is_right(verdict) else "wrong"
