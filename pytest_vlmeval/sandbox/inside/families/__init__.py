"""The classes of datasets that can be scored: one row for each, and only here.

Both sides read the tables, so nothing is imported for them; the adapters that the rows
name need what only the sandbox has. How a class gets a row is in `general.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.families import (
    benches,
    clips,
    pictures,
)
from pytest_vlmeval.sandbox.inside.families.family import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_vlmeval.records import JudgeNeed
    from pytest_vlmeval.sandbox.inside.families.common import Info

_WITH_ADAPTERS: Mapping[str, Family] = {
    "ImageMCQDataset": Family(
        "choices.evaluate_choices",
        main="choices.main_of_choices",
        group="choices.group_of_rotations",
        corrected=True,
    ),
    "MMMUDataset": Family(
        "choices.evaluate_choices", main="choices.main_of_choices", corrected=True
    ),
    "ImageYORNDataset": Family(
        "choices.evaluate_yes_no",
        main="choices.main_of_yes_no",
        group="choices.group_of_yes_no",
        corrected=True,
    ),
    "ImageVQADataset": Family("texts.evaluate_open", "Overall", corrected=True),
    "OCRBench": Family("texts.evaluate_ocr", main="texts.main_of_ocr", corrected=True),
    "MTVQADataset": Family("texts.evaluate_mtvqa", "Average", corrected=True),
    "MathVision": Family(
        "maths.evaluate_maths", "Overall/acc", judge="partial", corrected=True
    ),
    "MathVista": Family(
        "maths.evaluate_maths", "Overall/acc", judge="partial", corrected=True
    ),
    "MMVet": Family("judged.evaluate_mmvet", "Overall/acc", judge="required"),
    "LLaVABench": Family(
        "judged.evaluate_llava",
        "overall/Relative Score (main)",
        reference="gpt4_ans",
        judge="required",
    ),
    "MMDUDataset": Family(
        "judged.evaluate_conversations",
        "all/Overall Score",
        judge="required",
        in_turns=True,
    ),
    # The model that ms-vlmeval wants to know decides how pages are put together; as
    # for GPT-4, each page is an image (dataset/mmlongbench.py:461).
    "MMLongBench": Family(
        "judged.evaluate_documents",
        "overall_acc/avg_score",
        100,
        judge="required",
        opened=True,
        options=(("model", "GPT4"),),
        prompt_package=("fitz", "pymupdf"),
        addons=frozenset({"documents"}),
        corrected=True,
    ),
    # CIDEr is ten times a cosine, in hundredths.
    "ImageCaptionDataset": Family(
        "texts.evaluate_captions",
        "CIDEr",
        asked=False,
        scale=1_000,
        addons=frozenset({"captions"}),
    ),
    "VCRDataset": Family(
        "texts.evaluate_covered_texts",
        "Exact_Match",
        100,
        addons=frozenset({"vcr"}),
    ),
    "VideoMME": Family(
        "videos.evaluate_video_choices", "overall/overall", 100, corrected=True
    ),
    # Of the three points that an answer gets at most.
    "MMBenchVideo": Family(
        "videos.evaluate_graded_videos",
        "coarse_all/Overall",
        100 / 3,
        judge="required",
    ),
}

FAMILIES: Mapping[str, Family] = {
    **_WITH_ADAPTERS,
    **benches.ROWS,
    **clips.ROWS,
    **pictures.ROWS,
}
# Why the answers to a class are not scored; its datasets are not asked either.
REFUSED: Mapping[str, str] = {
    **benches.REFUSED,
    **clips.REFUSED,
    **pictures.REFUSED,
}
# How a class of another version of ms-vlmeval is scored, which nobody looked at.
UNCHECKED = Family()


def judge_need(class_name: str) -> JudgeNeed | None:
    """Return whether scoring takes a judge; None for a class without a row."""
    family = FAMILIES.get(class_name)
    if family is None:
        return None
    return "optional" if family.judge == "partial" else family.judge


def with_adapter(class_name: str) -> Family | None:
    """Return the row of a class that has an adapter of its own; None without one."""
    family = FAMILIES.get(class_name)
    return None if family is None or family.is_general else family


def find_family(info: Info) -> Family:
    """Return the row of a dataset's class; raises VlmEvalError if it is refused."""
    class_name = info["class_name"]
    if why := REFUSED.get(class_name):
        raise VlmEvalError(
            f"{info['name']} cannot be scored: {why}. --vlm-mode=infer collects its "
            "answers."
        )
    return FAMILIES.get(class_name, UNCHECKED)
