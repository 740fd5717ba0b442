"""Multiple choice and yes/no."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.families.common import (
    Outcome,
    Reading,
    compare_readings,
    judged_table,
    mark_unread,
    read_upstream,
    verdict,
)
from pytest_vlmeval.sandbox.inside.fixes import OPEN
from pytest_vlmeval.sandbox.inside.reading import read_yes_no

if TYPE_CHECKING:
    import pandas as pd

    from pytest_vlmeval.sandbox.inside.families.common import Info, Verdict
    from pytest_vlmeval.sandbox.inside.job import Job

# As `_choose_primary_metric_key` in dataset/image_base.py ranks them.
SPLITS = ("ALL", "test", "validation", "val", "dev")
MME_FULL_SCORE = 2_800
CIRCULAR_STEP = 1_000_000


def is_circular(info: Info) -> bool:
    """Return whether a question is asked once per rotation of its options."""
    name = info["rules"].lower()
    words = ("mmbench", "ccbench", "circular", "mmcr")  # dataset/image_mcq.py:268
    return info["class_name"] == "ImageMCQDataset" and any(w in name for w in words)


def group_of_rotations(info: Info, row: pd.Series[Any]) -> str | None:
    """Name the question that a row rotates the options of."""
    if not is_circular(info):
        return None
    return str(_circular_key(row))


def _circular_key(row: pd.Series[Any]) -> int:
    return int(row["g_index"] if "g_index" in row else row["index"] % CIRCULAR_STEP)


def group_of_yes_no(info: Info, row: pd.Series[Any]) -> str | None:
    """Name the image of MME's two questions, the figure of HallusionBench's many.

    As dataset/utils/yorn.py:60 and dataset/utils/yorn.py:103 put them together.
    """
    if "MME" in info["rules"] and "image_path" in row:
        return f"{row['category']}/{row['image_path']}"
    parts = str(row["index"]).split("_")
    if "Hallusion" in info["rules"] and len(parts) > 4:
        return f"{row.get('l2-category')}_{parts[3]}_{parts[4]}"
    return None


def evaluate_choices(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score multiple choice; in circular datasets a group has one verdict."""
    job.takes_last = type(dataset).__name__ == "MMMUDataset"
    options = import_module("vlmeval.dataset.utils.multiple_choice")
    asked = job.tables[answers]
    result = dataset.evaluate(answers, model=job.method, nproc=1)
    judged = judged_table(job, answers, f"_{job.method}_result")
    circular = is_circular(
        {"rules": dataset.dataset_name, "class_name": type(dataset).__name__}
    )
    found = {row["index"]: row for _, row in judged.iterrows()}
    verdicts = []
    differing = set()
    for _, row in asked.iterrows():
        key = row["index"]
        if circular:
            key = _circular_key(row)
        # Questions without options have some in the table of what was judged (MMMU).
        line = row if circular else found.get(key, row)
        choices = options.build_choices(line)
        # ms-vlmeval does not know the options whose text it reads as missing.
        missing = job.missing.get(str(line["index"]), {})
        lost = {name: text for name, text in missing.items() if name != "answer"}
        known = {name: choices[name] for name in choices if name not in lost}
        said = line["prediction"]
        upstream = read_upstream(job, said, known)
        reading = compare_readings(job, said, upstream, {**choices, **lost})
        extracted = reading.of(job)
        # Open questions are corrected in another way than by reading.
        if reading.differs or line.get(OPEN, False):
            differing.add(str(row["index"]))
        if key in found:
            hit, log = found[key]["hit"], found[key]["log"]
            given = verdict(job, row["index"], hit, extracted, log, key=key)
        else:
            reason = f"its group was not scored: rotation {key} is missing"
            given = verdict(job, row["index"], None, extracted, reason, key=key)
        # A question without options has none that an answer could name.
        if not line.get(OPEN, False):
            given = mark_unread(job, given, reading)
        verdicts.append(given)
    return Outcome(result, verdicts, differing=frozenset(differing))


def main_of_choices(
    info: Info, metrics: dict[str, float], verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank by the whole dataset, or by the split that ms-vlmeval ranks by.

    Raises VlmEvalError where only parts of rotated questions were asked.
    """
    names = ["Overall", *(f"{split}/Overall" for split in SPLITS)]
    for name in names:
        if name in metrics:
            return name, metrics[name] * 100
    # Splits of the user's own: all rows together.
    values = [v["value"] for v in verdicts if v["value"] is not None]
    if not values:
        raise VlmEvalError(
            f"{info['name']} has no score: it asks each question once per rotation of "
            "its options, and of none the first rotation was asked. Select all "
            "rotations of a question."
        )
    metrics["Overall"] = sum(values) / len(values)
    return "Overall", metrics["Overall"] * 100


def evaluate_yes_no(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score yes/no questions."""
    rules: Any = import_module("vlmeval.dataset.utils.yorn")
    result = dataset.evaluate(answers, model=job.method, nproc=1)
    verdicts = []
    differing = set()
    for _, row in judged_table(job, answers, "_auxmatch").iterrows():
        given = verdict(job, row["index"], row["score"], row["extracted"])
        said = rules.published_extraction(row["prediction"])
        published = None if said == "Unknown" else said
        corrected = read_yes_no(row["prediction"])
        # Each word that the published rules read stands by itself.
        unsure = published is not None and corrected is None
        reading = Reading(published, corrected, unsure)
        if reading.differs:
            differing.add(str(row["index"]))
        verdicts.append(mark_unread(job, given, reading))
    return Outcome(result, verdicts, differing=frozenset(differing))


def main_of_yes_no(
    info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank by what each dataset's leaderboard shows."""
    name = info["rules"]
    if "MME" in name:
        # Ranked by the sum of both halves, 2,000 and 800 points.
        metrics["Overall"] = metrics["perception"] + metrics["reasoning"]
        return "Overall", metrics["Overall"] * 100 / MME_FULL_SCORE
    if "Hallusion" in name:
        parts = [metrics[f"Overall/{part}"] for part in ("aAcc", "fAcc", "qAcc")]
        metrics["Overall/average"] = sum(parts) / len(parts)
        return "Overall/average", metrics["Overall/average"]
    for word, main in (
        ("POPE", "Overall/Overall"),
        ("AMBER", "Avg ACC"),
        ("VSR-zeroshot", "acc"),
    ):
        if word in name:
            return main, metrics[main]
    return "Overall", metrics["Overall"]
