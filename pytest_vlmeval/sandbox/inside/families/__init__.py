"""How each family of datasets is evaluated, and where its verdicts are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.families.choices import (
    evaluate_choices,
    evaluate_yes_no,
    group_of_rotations,
    group_of_yes_no,
    main_of_choices,
    main_of_yes_no,
)
from pytest_vlmeval.sandbox.inside.families.common import (
    Family,
    Outcome,
    main_metric,
    need_package,
)
from pytest_vlmeval.sandbox.inside.families.judged import (
    evaluate_conversations,
    evaluate_documents,
    evaluate_llava,
    evaluate_mmvet,
)
from pytest_vlmeval.sandbox.inside.families.maths import evaluate_by
from pytest_vlmeval.sandbox.inside.families.texts import (
    by_row,
    evaluate_captions,
    evaluate_covered_texts,
    evaluate_open,
    main_of_ocr,
)
from pytest_vlmeval.sandbox.inside.families.videos import (
    FULL_POINTS,
    evaluate_graded_videos,
    evaluate_video_choices,
)

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.inside.families.common import Info

__all__ = [
    "FAMILIES",
    "Family",
    "Outcome",
    "find_family",
    "need_package",
]

FAMILIES = {
    "ImageMCQDataset": Family(
        evaluate_choices, main_of_choices, group=group_of_rotations
    ),
    "MMMUDataset": Family(evaluate_choices, main_of_choices),
    "ImageYORNDataset": Family(evaluate_yes_no, main_of_yes_no, group=group_of_yes_no),
    "ImageVQADataset": Family(evaluate_open, main_metric("Overall")),
    "OCRBench": Family(by_row("Final Score", lists=True), main_of_ocr),
    "MTVQADataset": Family(by_row("Average"), main_metric("Average")),
    "MathVision": Family(
        evaluate_by("mathv"), main_metric("Overall/acc"), judge="partial"
    ),
    "MathVista": Family(
        evaluate_by("mathvista"), main_metric("Overall/acc"), judge="partial"
    ),
    "MMVet": Family(evaluate_mmvet, main_metric("Overall/acc"), judge="required"),
    "LLaVABench": Family(
        evaluate_llava,
        main_metric("overall/Relative Score (main)"),
        reference="gpt4_ans",
        judge="required",
    ),
    "MMDUDataset": Family(
        evaluate_conversations,
        main_metric("all/Overall Score"),
        judge="required",
        in_turns=True,
    ),
    # The model that ms-vlmeval wants to know decides how pages are put together; as
    # for GPT-4, each page is an image (dataset/mmlongbench.py:461).
    "MMLongBench": Family(
        evaluate_documents,
        main_metric("overall_acc/avg_score", 100),
        judge="required",
        opened=True,
        options=(("model", "GPT4"),),
        prompt_package=("fitz", "pymupdf"),
    ),
    # CIDEr is ten times a cosine, in hundredths.
    "ImageCaptionDataset": Family(
        evaluate_captions, main_metric("CIDEr"), asked=False, scale=1_000
    ),
    "VCRDataset": Family(evaluate_covered_texts, main_metric("Exact_Match", 100)),
    "VideoMME": Family(evaluate_video_choices, main_metric("overall/overall", 100)),
    "MMBenchVideo": Family(
        evaluate_graded_videos,
        main_metric("coarse_all/Overall", 100 / FULL_POINTS),
        judge="required",
    ),
}


def find_family(info: Info) -> Family:
    """Give the adapter of a dataset's class; raises VlmEvalError."""
    family = FAMILIES.get(info["class_name"])
    if family is None:
        raise VlmEvalError(
            f"{info['name']} cannot be scored: ms-vlmeval's {info['class_name']} is "
            f"not among the classes that can ({', '.join(FAMILIES)}). "
            "--vlm-mode=infer collects its answers."
        )
    return family
