"""Videos: Video-MME's options, and MMBench-Video, where a judge gives points."""

from __future__ import annotations

from importlib import import_module
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pandas as pd

from pytest_vlmeval.sandbox.inside.families.common import (
    Outcome,
    compare_readings,
    judged_table,
    mark_unread,
    verdict,
)
from pytest_vlmeval.sandbox.inside.fixes import video_options
from pytest_vlmeval.sandbox.inside.job import EXACT
from pytest_vlmeval.sandbox.inside.judging import Judge, judge_units

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.inside.families.common import Verdict
    from pytest_vlmeval.sandbox.inside.job import Job

FULL_POINTS = 3


def evaluate_video_choices(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score Video-MME: the first capital letter from A to D, or what a judge reads.

    In corrected scoring the reader reads all answers. All rows that a judge reads are
    asked about at once, ahead of `evaluate`, which goes from one to the next
    (dataset/videomme.py:264).
    """
    module: Any = import_module("vlmeval.dataset.utils.videomme")
    upstream, first_letter = module.extract_option, module.extract_characters_regex
    model = None if job.ask is None else Judge()
    if job.scoring == "corrected":
        module.extract_characters_regex = lambda _answer: ""
    left = [
        row
        for _, row in job.tables[answers].iterrows()
        if not module.extract_characters_regex(str(row["prediction"]))
    ]
    inputs = [(model, row.to_dict(), "Video-MME") for row in left]
    keys = [str(row["index"]) for row in left]
    found = dict(zip(keys, judge_units(job, upstream, inputs, keys), strict=True))
    module.extract_option = lambda _model, row, _name: found[str(row["index"])]
    try:
        result = dataset.evaluate(answers, model=EXACT)
    finally:
        module.extract_option = upstream
        module.extract_characters_regex = first_letter
    verdicts = []
    for _, row in judged_table(job, answers, "_score").iterrows():
        index, said = str(row["index"]), str(row["prediction"])
        published = first_letter(said) or None
        option = found.get(index, published)
        # What ms-vlmeval calls an answer that names none of the options.
        extracted = None if option == "Z" else option
        reason = "" if extracted else "no letter from A to D in the answer"
        given = verdict(job, index, row["score"], extracted, reason)
        options = video_options(row["candidates"])
        reading = compare_readings(job, said, published, options)
        verdicts.append(mark_unread(job, given, reading))
    return Outcome(result, verdicts)


def evaluate_graded_videos(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score MMBench-Video: the judge gives each answer from 0 to 3 points."""
    packed = bool(getattr(dataset, "pack", False))
    if packed:
        # Each question has its part of the answer to all about its video.
        table = job.tables[answers]
        whole = dict(zip(table["video"], table["prediction"], strict=True))
        dataset.data = table.drop(columns="prediction").reset_index(drop=True)
        rows, _ = dataset.load_pack_answers(whole)
        job.dump_table(pd.DataFrame(rows), answers)
    result = dataset.evaluate(answers, model=job.method, nproc=1)
    judged = judged_table(job, answers, f"_{job.method}_score")
    if packed:
        groups = judged.groupby("video", sort=False)
        return Outcome(result, [_of_video(job, video, rows) for video, rows in groups])
    verdicts = []
    for _, row in judged.iterrows():
        # One without an answer has -1 point to ms-vlmeval.
        points = max(row["score"], 0)
        value, reason = points / FULL_POINTS, f"{points} points"
        verdicts.append(verdict(job, row["index"], value, None, reason))
    return Outcome(result, verdicts)


def _of_video(job: Job, video: object, rows: pd.DataFrame) -> Verdict:
    """Return the mean of a video's questions; one without an answer has no points.

    The judge's part is that in the first question it did not decide, or in the last.
    """
    keys = list(map(str, rows["index"]))
    undecided = [key for key in keys if key in job.units and job.units[key].unusable]
    points = [max(value, 0) for value in rows["score"]]
    reason = f"{', '.join(map(str, points))} points"
    key = (undecided or keys[-1:])[0]
    return verdict(job, video, fmean(points) / FULL_POINTS, None, reason, key=key)
