"""Classes of the modules image_mcq, image_vqa, image_shortqa, image_ccocr and GUI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.sandbox.inside.families.family import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

# Options, which exact matching or a judge reads; a share, of a split if there are any.
_CHOICES = Family(main="general.main_of_splits", column="hit")
_SCREENS = Family(
    "screens.evaluate_screens",
    "Overall_Accuracy",
    reference="bbox",
    judge="unused",
    opened=True,
)
_SHORT = _CHOICES._replace(judge="required")

ROWS: Mapping[str, Family] = {
    **dict.fromkeys(
        (
            "CVBench",
            "CVQA",
            "GMAIMMBenchDataset",
            "LEGO",
            "MMMUProDataset",
            "MSEarthMCQ",
            "MUIRDataset",
            "MedXpertQA_MM_test",
            "MicroBench",
            "OmniMedVQA",
            "SCAM",
            "TDBench",
            "TopViewRS",
        ),
        _CHOICES,
    ),
    **dict.fromkeys(
        ("AyaVisionBench", "ImageShortQADataset", "PathVQA_TEST", "PathVQA_VAL"), _SHORT
    ),
    **dict.fromkeys(("OSWorld_G", "ScreenSpot", "ScreenSpot_Pro", "VBGD"), _SCREENS),
    # Each question again with the sides of the image and the options in turn.
    "_3DSRBench": Family(metric="flip_circ_eval/Overall", factor=100),
    "AffordanceDataset": Family(
        metric="Accuracy", factor=100, judge="unused", column="match"
    ),
    "BMMR": Family(metric="CoT", factor=100, judge="unused"),
    "CCOCRDataset": Family(
        metric="total", factor=100, judge="unused", addons=frozenset({"texts"})
    ),
    "CRPE": Family(metric="total", factor=100, judge="unused"),
    "CoreCognition": Family(metric="Overall", column="correct", digits=2),
    "CountBenchQA": Family(metric="accuracy", judge="unused"),
    "HRBenchDataset": Family(metric="Average/all/accuracy", factor=100, column="hit"),
    "LENS": Family(metric="Overall/acc", judge="partial"),
    "LLaVABench_KO": Family(
        metric="overall/Relative Score (main)", reference="gpt4_ans", judge="required"
    ),
    "LogicVista": Family(metric="Overall/acc", judge="required", column="hit"),
    "MMEReasoning": Family(metric="Overall", judge="required", column="score"),
    "MMERealWorld": Family(
        metric="Overall", factor=100, judge="unused", column="score"
    ),
    "MMNIAH": Family(metric="total", factor=100, judge="unused"),
    "MMVMBench": Family(metric="Overall", factor=100, judge="required"),
    "MathVerse": Family(
        main="mains.main_of_versions", judge="required", column="score"
    ),
    "NaturalBenchDataset": Family(metric="G_Acc", factor=100, judge="unused"),
    "OCR_Reasoning": Family(metric="Overall/acc", judge="required"),
    "OlympiadBench": Family(
        metric="AVG", reference="final_answer", judge="unused", column="score"
    ),
    "Omni3DBench": Family(main="mains.main_of_shares", judge="unused"),
    "OmniEarthMCQBench": Family(metric="Overall micro", factor=100, judge="unused"),
    "PhyX": Family(
        main="mains.main_of_phyx",
        exact_by=(("valid_type", "STR"),),
        judged_by=(("valid_type", "LLM"),),
    ),
    "Physics_yale": Family(metric="Overall/acc", judge="partial", column="res"),
    "PuzzleVQA": Family(metric="overall/acc", judge="unused"),
    "QSpatial": Family(
        metric="delta_2", factor=100, judge="required", addons=frozenset({"hub"})
    ),
    "SeePhys": Family(metric="Overall/Accuracy (%)", judge="partial", column="score"),
    "TDBenchGrounding": Family(
        metric="Average Centroid Containment",
        factor=100,
        judge="unused",
        model="centroid",
        column="hit",
    ),
    "TableVQABench": Family(main="mains.main_of_domains", judge="unused"),
    "TallyQA": Family(metric="TallyQA", factor=100, judge="unused"),
    "TreeBench": Family(metric="Overall", factor=100, judge="unused", column="score"),
    "VGRPBench": Family(
        main="mains.main_of_puzzles", reference="states", judge="required"
    ),
    "VLMBlind": Family(
        main="mains.main_of_shares", reference="answers", judge="unused"
    ),
    "VLMsAreBiased": Family(
        metric="overall_acc",
        factor=100,
        reference="ground_truth",
        judge="unused",
        column="is_correct",
    ),
    "VMCBenchDataset": Family(metric="Overall", judge="unused", column="hit", digits=2),
    "VTCBench": Family(
        metric="Overall", factor=100, addons=frozenset({"hub", "texts"})
    ),
    "VisuLogic": Family(metric="Overall/acc", judge="unused"),
    "VisualPuzzles": Family(metric="overall/category/acc", judge="unused"),
    "VizWiz": Family(metric="Overall", reference="answers", judge="unused"),
    # Rates are of the 525 questions of the whole dataset.
    "WeMath": Family(metric="Score (Strict)"),
    "WildDocBenchmark": Family(metric="WildDoc/Overall/Score", judge="unused"),
    "XLRSBench": Family(metric="Overall macro", factor=100),
    "ZEROBench": Family(
        metric="accuracy", factor=100, reference="answers", judge="unused"
    ),
}
REFUSED: Mapping[str, str] = {
    "MME_CoT": (
        "ms-vlmeval's class has no scoring of its own and gives a number that means "
        "nothing (dataset/image_vqa.py:1883)"
    ),
    "MMReason": (
        "ms-vlmeval lacks the module that scores it, utils/mmreason.py "
        "(dataset/image_vqa.py:4173)"
    ),
    "MMSci_Captioning": (
        "BERTScore needs the weights of a model (dataset/utils/mmsci.py:77)"
    ),
    "MathCanvas": (
        "its judge answers in a JSON schema through OpenAI's own client "
        "(dataset/utils/mathcanvas.py:102)"
    ),
    "OCRBench_v2": (
        "METEOR needs NLTK's WordNet, which is no package "
        "(dataset/utils/Ocrbench_v2/page_ocr_metric.py:25)"
    ),
    "VenusBench_GD": (
        "ms-vlmeval compares a list with a number (dataset/GUI/venusbench.py:182)"
    ),
}
