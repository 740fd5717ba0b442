"""From a score to a baseline, and in what two of them differ."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_vlmeval.gates.baseline_file import Baseline, BaselineVerdict
from pytest_vlmeval.records import VLMEVALKIT_COMMIT

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.prepared import IndexRow
    from pytest_vlmeval.records import Score, Setting, Verdict

DIGITS = 4
# The last member of an image in a prompt's JSON; quotes in a text are escaped there.
_SAVED_AS = re.compile(r'(\["image", "[^"]+", "[^"]+"), "[^"]*"\]')
EXPLAINED = {
    "checksum": "the data (checksum of the file)",
    "prompts": "the prompts or references (digest)",
}


def make_baseline(
    score: Score,
    *,
    model: str,
    checksum: str,
    rows: Sequence[IndexRow],
    prompts: Iterable[str],
    generation: Mapping[str, Setting | None],
    package_version: str,
    plugin_version: str,
    selected: Collection[str] | None = None,
) -> Baseline:
    """Return what a score is as a baseline.

    `rows` name the samples of the dataset in its order, `prompts` are all that is
    asked with each of them. The versions are those of ms-vlmeval and of this plugin,
    `selected` are the samples whose prompts make the digest: None for those scored.
    """
    verdicts = {verdict.index: verdict for verdict in score.verdicts}
    chosen = verdicts if selected is None else selected
    asked = zip(rows, prompts, strict=True)
    digest = digest_prompts(pair for pair in asked if pair[0].index in chosen)
    return Baseline(
        model=model,
        dataset=score.dataset,
        main_metric=score.main_metric,
        value=score.value,
        scale=score.scale,
        metrics=score.metrics,
        samples=score.samples,
        answered=score.answered,
        correct=score.correct,
        data={"checksum": checksum, "prompts": digest},
        generation=generation,
        scoring=_scoring(score, package_version),
        versions={"pytest-vlmeval": plugin_version, "scorer": score.scorer},
        verdicts=tuple(_describe(rows, verdicts)),
        defects=tuple(
            row.index
            for row in rows
            if row.index in verdicts and verdicts[row.index].rests_on_defect
        ),
    )


def _scoring(score: Score, package_version: str) -> Mapping[str, str]:
    found = {
        "method": score.scoring,
        "judge": score.judge,
        "ms-vlmeval": package_version,
    }
    if score.scoring == "vlmevalkit":
        found["VLMEvalKit"] = VLMEVALKIT_COMMIT[:12]
    return found


def _describe(
    rows: Iterable[IndexRow], verdicts: Mapping[str, Verdict]
) -> Iterator[BaselineVerdict]:
    """Give the verdict of each sample that was asked."""
    for row in rows:
        if (verdict := verdicts.get(row.index)) is not None:
            value = verdict.value
            yield BaselineVerdict(
                index=row.index,
                category=row.category or "",
                value=None if value is None else round(value, DIGITS),
            )


def digest_prompts(asked: Iterable[tuple[IndexRow, str]]) -> str:
    """Return a digest of what is asked, and of what is right.

    The name of the file that an image was read from is no part of either.
    """
    digest = hashlib.sha256()
    for row, prompt in asked:
        shown = _SAVED_AS.sub(r"\1]", prompt)
        digest.update(json.dumps([row.index, shown, row.reference]).encode())
    return digest.hexdigest()[:16]


def find_differences(
    baseline: Baseline, current: Baseline, selected: Collection[str] | None = None
) -> list[str]:
    """Say in what two runs differ so that their verdicts cannot be compared.

    `selected` are the samples of the current one, where not all of them were asked.
    """
    found = []
    for name in ("model", "dataset"):
        before, now = getattr(baseline, name), getattr(current, name)
        if before != now:
            found.append(f"{name}: {before} in the baseline, now {now}")
    found += _differing("", baseline.data, current.data, leave_out="prompts")
    chosen = set(current.values if selected is None else selected)
    if baseline.values.keys() != chosen:
        only = len(chosen - baseline.values.keys())
        found.append(
            f"the subset: {baseline.samples:,} samples in the baseline, now "
            f"{len(chosen):,}, of them {only:,} others (--vlm-limit, --vlm-sample, "
            "--vlm-seed)"
        )
    else:
        found += _differing("", baseline.data, current.data, leave_out="checksum")
    found += _differing("generation: ", baseline.generation, current.generation)
    return found + _differing("scoring: ", baseline.scoring, current.scoring)


def _differing(
    about: str,
    before: Mapping[str, object],
    now: Mapping[str, object],
    leave_out: str = "",
) -> list[str]:
    return [
        f"{about}{EXPLAINED.get(name, name)}: {before.get(name, 'unset')} in the "
        f"baseline, now {now.get(name, 'unset')}"
        for name in sorted(before.keys() | now.keys())
        if name != leave_out and before.get(name) != now.get(name)
    ]


def lost_samples(baseline: Baseline, current: Baseline) -> list[str]:
    """Return the samples that were right in the baseline and are not now, in order."""
    return [
        verdict.index
        for verdict in current.verdicts
        if baseline.was_right(verdict.index) and (verdict.value or 0) < 0.5
    ]
