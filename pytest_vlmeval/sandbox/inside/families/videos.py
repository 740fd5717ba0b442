"""Videos: Video-MME's options, and MMBench-Video, where a judge gives points."""

from __future__ import annotations

from importlib import import_module
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pandas as pd

from pytest_vlmeval.sandbox.inside.families.common import (
    Outcome,
    judged_table,
    verdict,
)

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.inside.families.common import Verdict
    from pytest_vlmeval.sandbox.inside.job import Job

FULL_POINTS = 3
NO_POINTS = "the judge's reply has no points"


def evaluate_video_choices(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score Video-MME: the first capital letter from A to D, or what a judge reads."""
    module: Any = import_module("vlmeval.dataset.utils.videomme")
    upstream = module.extract_option
    read: dict[object, object] = {}

    def extract_option(model: object, row: dict[str, Any], name: str) -> object:
        read[row["index"]] = upstream(model, row, name)
        return read[row["index"]]

    module.extract_option = extract_option
    try:
        result = dataset.evaluate(answers, model=job.method)
    finally:
        module.extract_option = upstream
    verdicts = []
    for _, row in judged_table(job, answers, "_score").iterrows():
        found = module.extract_characters_regex(str(row["prediction"]))
        option = found or read.get(row["index"])
        reason = "" if found else "no letter from A to D in the answer"
        # What ms-vlmeval calls an answer that names none of the options.
        extracted = None if option == "Z" else option
        verdicts.append(verdict(row["index"], row["score"], extracted, reason))
    return Outcome(result, verdicts)


def evaluate_graded_videos(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score MMBench-Video: the judge gives each answer from 0 to 3 points."""
    packed = bool(getattr(dataset, "pack", False))
    if packed:
        job.dump_table(_unpack(dataset, job.tables[answers]), answers)
    result = dataset.evaluate(answers, model=job.method, nproc=1)
    judged = judged_table(job, answers, f"_{job.method}_score")
    if packed:
        groups = judged.groupby("video", sort=False)
        return Outcome(result, [_of_video(video, rows) for video, rows in groups])
    return Outcome(result, [_of_row(row) for _, row in judged.iterrows()])


def _unpack(dataset: Any, table: pd.DataFrame) -> pd.DataFrame:
    """Give each question its part of the answer to all questions about its video."""
    whole = dict(zip(table["video"], table["prediction"], strict=True))
    dataset.data = table.drop(columns="prediction").reset_index(drop=True)
    rows, _ = dataset.load_pack_answers(whole)
    return pd.DataFrame(rows)


def _of_row(row: pd.Series[Any]) -> Verdict:
    points = row["score"]
    if points < 0:  # counted as 0 in coarse_all, and not at all in coarse_valid
        return verdict(row["index"], None, None, NO_POINTS)
    return verdict(row["index"], min(points / FULL_POINTS, 1), None, f"{points} points")


def _of_video(video: object, rows: pd.DataFrame) -> Verdict:
    """Give the mean of a video's questions; one without an answer has no points."""
    asked = rows["prediction"].notna()
    if (rows["score"][asked] < 0).any():
        return verdict(video, None, None, NO_POINTS)
    points = [max(value, 0) for value in rows["score"]]
    reason = f"{', '.join(map(str, points))} points"
    return verdict(video, min(fmean(points) / FULL_POINTS, 1), None, reason)
