"""Classes of images that have a module of their own, scored by their own `evaluate`.

How a class is added is in `general.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.sandbox.inside.families.family import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_vlmeval.sandbox.inside.families.common import Info, Verdict

SHARE = 100
WORDS = frozenset({"words"})
HUB_WORDS = frozenset({"hub", "words"})
# Spatial benchmarks that are scored alike (dataset/utils/spatial_bench/cal_scores.py).
SPATIAL = Family(metric="overall", addons=WORDS)
SPATIAL_OF_HUB = SPATIAL._replace(addons=HUB_WORDS)
# A judge says whether a short answer is right (dataset/image_shortqa.py:118).
SHORT = Family(metric="Overall", factor=SHARE, judge="required")
# What of a long answer is found without a judge says little.
RARE = Family(main="benches.main_of_rare")

ROWS: Mapping[str, Family] = {
    "Asclepius": Family(metric="Overall", judge="required"),
    # A third of its questions are for numbers, which a judge finds.
    "ChartBench": Family(metric="all", judge="required"),
    "ChartMuseum": Family(metric="Overall", judge="required", unnamed=True),
    "ChartQAPro": Family(metric="Overall", factor=SHARE, judge="unused", addons=WORDS),
    # Grades from 0 to 5 and verdicts of 0 or 1 are in one mean (dataset/chartx.py:97).
    "ChartX": Family(metric="GPT_Overall", scale=5, judge="required", addons=WORDS),
    "CharXiv": Family(metric="Overall", factor=SHARE, judge="required", unnamed=True),
    "CMMMU": Family(metric="总准确率", factor=SHARE, judge="unused"),
    "CreationMMBenchDataset": Family(
        metric="win_rate",
        judge="required",
        reference="reference_answer_by_gpt4o",
        shown=True,
    ),
    "DA2K": Family(metric="overall", factor=SHARE, judge="unused"),
    "DUDE": Family(
        metric="anls/avg_score",
        factor=SHARE,
        judge="required",
        options=(("model", "GPT4"),),
        addons=frozenset({"documents"}),
    ),
    "Dynamath": Family(metric="Average/Overall", factor=SHARE, judge="partial"),
    "EMMADataset": SHORT,
    "ERIQBench": SPATIAL_OF_HUB,
    "ERQADataset": Family(metric="Overall/Accuracy (%)", judge="unused"),
    "EmbSpatialBench": SPATIAL,
    # It asks its judge by a function that none has (dataset/gobench.py:173).
    "GOBenchDataset": Family(metric="Overall", judge="unused"),
    "GSM8KVDataset": Family(metric="Overall", factor=SHARE, judge="unused"),
    "GroundingME": Family(metric="ACC@0.5", factor=SHARE, judge="unused"),
    "HLEDataset": SHORT,
    "HiPhODataset": Family(
        main="benches.main_of_olympiads", judge="required", addons=HUB_WORDS
    ),
    "M3oralBenchDataset": Family(metric="Overall", judge="unused"),
    "M4Bench": Family(metric="acc", reference="response", judge="required"),
    "MATBench": Family(
        metric="overall_em_avg/mean_value", factor=SHARE, judge="unused"
    ),
    "MIABench": Family(
        metric="total_score", factor=SHARE, judge="required", reference="", shown=True
    ),
    "MMAlignBench": Family(
        metric="Win Rate",
        factor=SHARE,
        judge="required",
        reference="claude3_sonnet",
        shown=True,
    ),
    "MMESCIDataset": SHORT,
    # Only equal texts are right (dataset/mmmath.py:159).
    "MMMath": Family(metric="overall", factor=SHARE, judge="unused", corrected=True),
    "MMOral_OPG_CLOSED": Family(metric="Overall/acc", judge="unused"),
    "MMOral_OPG_OPEN": Family(metric="Overall/acc", judge="required"),
    "MMRarebenchCrossmodal": RARE,
    "MMRarebenchDiagnosis": RARE,
    "MMRarebenchExamination": RARE,
    "MMRarebenchTreatment": RARE,
    "MMSIBench": SPATIAL,
    # What is neither called safe nor unsafe counts as safe.
    "MMSafetyBenchDataset": Family(
        metric="Overall/safety_rate", factor=SHARE, judge="required", reference=""
    ),
    "MOAT": Family(metric="overall_acc", factor=SHARE, judge="required"),
    "MSSBenchDataset": Family(metric="total_acc"),
    "MaCBench": Family(metric="Overall", factor=SHARE, judge="required"),
    "MedQDEGBenchDataset": Family(metric="Overall", factor=SHARE, judge="unused"),
    "MedqbenchCaptionDataset": Family(
        main="benches.main_of_descriptions", judge="required", reference="description"
    ),
    "MedqbenchMCQDataset": Family(
        metric="overall_accuracy", factor=SHARE, judge="unused"
    ),
    "MedqbenchPairedDescriptionDataset": Family(
        main="benches.main_of_descriptions", judge="required", reference="description"
    ),
    "MindCubeBench": SPATIAL_OF_HUB,
    "NPMM": Family(metric="AR", judge="unused", reference="ground_truth"),
    "OSTDataset": Family(main="benches.main_of_scenes", judge="unused"),
    "OmniSpatialBench": SPATIAL,
    "PlotQA": Family(metric="Overall", judge="unused"),
    "ReasonMap_Plus": Family(
        metric="weighted_accuracy/value", factor=SHARE, judge="unused"
    ),
    "RefCOCODataset": Family(
        metric="Average/Precision@1", judge="unused", reference="", pictured=True
    ),
    "RefSpatialDataset": Family(
        metric="Overall/Success Rate (%)",
        judge="unused",
        reference="mask",
        addons=frozenset({"hub"}),
    ),
    "SFE": Family(metric="Overall", judge="required", points=9, column="score"),
    "SGI_Bench_Experimental_Reasoning": Family(
        metric="MCC", factor=SHARE, judge="required", addons=frozenset({"hub"})
    ),
    "SIUODataset": Family(metric="SIUO"),
    "SIUOGenDataset": Family(metric="overall_avg_combined"),
    "SIUOMCQDataset": Family(metric="Overall", judge="unused"),
    "SPBench": SPATIAL_OF_HUB,
    "SimpleVQA": Family(metric="is_correct", factor=SHARE, judge="required"),
    "SiteBenchImage": SPATIAL_OF_HUB._replace(metric="overall_caa"),
    "SlideVQA": Family(
        metric="anls/avg",
        factor=SHARE,
        judge="required",
        options=(("model", "GPT4"),),
    ),
    "SparBench": SPATIAL._replace(factor=SHARE),
    "Spatial457": Family(metric="score", factor=SHARE, judge="unused"),
    "SpatialVizBench": SPATIAL,
    "StareBench": SPATIAL_OF_HUB._replace(metric="macro"),
    "VLM2Bench": Family(main="benches.main_of_links", judge="unused"),
    "VLMBias": Family(metric="Overall", factor=SHARE, judge="partial"),
    "VLRMBench": Family(
        main="benches.main_of_rewards",
        judge="unused",
        addons=frozenset({"learn"}),
        reference="",
    ),
    "VLRewardBench": Family(
        metric="Overall Consistency", factor=SHARE, judge="required"
    ),
    "ViewSpatialBench": SPATIAL_OF_HUB,
    "VisFactor": Family(metric="ALL", factor=SHARE, judge="unused"),
    "WildVision": Family(
        metric="Win Rate",
        factor=SHARE,
        judge="required",
        reference="claude3_sonnet",
        shown=True,
    ),
    "WorldVQA": Family(metric="Overall/Accuracy", factor=SHARE, judge="required"),
}
# What MedQ-Bench's judge gives points for, and the metrics that rank VLRMBench.
DESCRIBED = ("completeness", "preciseness", "consistency", "quality_accuracy")
REWARDED = ("Overall_F1_weighted", "multi_solution_accuracy", "foresight_accuracy")
REFUSED: Mapping[str, str] = {
    "ChartCapDataset": (
        "BERTScore, one of its metrics, needs the weights of a model "
        "(dataset/chartcap.py:144)"
    ),
    "ChartMimic": "it runs the code that is the answer (dataset/chartmimic.py:288)",
    "Design2Code": (
        "it shows web pages in a browser and compares them by the weights of CLIP "
        "(dataset/utils/design2code/visual_score.py)"
    ),
    "FoxBench": (
        "METEOR, one of its metrics, needs WordNet, which no package has "
        "(dataset/foxbench.py:36)"
    ),
    "MMGenBench": (
        "ms-vlmeval only collects its answers, which are prompts for models that draw "
        "(dataset/mmgenbench.py:65)"
    ),
    "MMHELIX": (
        "it looks words up in a list of NLTK, which no package has "
        "(dataset/utils/mmhelix/evaluators/wordladder_eval.py:43)"
    ),
    "MMIFEval": (
        "it counts sentences by a model of NLTK, which no package has "
        "(dataset/utils/mmif/function_and_compare.py:51)"
    ),
    "OceanOCRBench": (
        "METEOR, one of its metrics, needs WordNet, which no package has "
        "(dataset/oceanocr.py:34)"
    ),
    "OmniDocBench": (
        "BLEU and METEOR, two of its metrics, are programs that are downloaded as it "
        "scores (dataset/OmniDocBench/metrics.py:227)"
    ),
    "RefSpatialBench": (
        "its masks are files of a repository, which are not kept with the rows "
        "(dataset/refspatialbench.py:181)"
    ),
    "RoboSpatialBench": (
        "every point that an answer gives counts as wrong "
        "(dataset/utils/spatial_bench/tools/utils.py:308)"
    ),
    "SArena": (
        "it compares drawings by the weights of models (dataset/utils/sarena.py:25)"
    ),
    "SSIBenchDataset": (
        "it reads utils/ssi_bench/taxonomy.json, which is not in the package "
        "(dataset/ssi_bench.py:110)"
    ),
    "SciDocBench": (
        "it runs the code that is the answer to a part of its questions "
        "(dataset/scidocbench.py:130)"
    ),
    "UniSVG": (
        "it compares drawings by the weights of models (dataset/utils/uni_svg.py:22)"
    ),
    "VLADBench": (
        "its boxes are read by the name of the model, and those of most end in an "
        "error (dataset/vladbench.py:186)"
    ),
    "olmOCRBench": (
        "it compares formulas as a browser shows them "
        "(dataset/olmOCRBench/evaluator.py)"
    ),
}


def main_of_olympiads(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank by the share of all points, which ms-vlmeval gives for one olympiad."""
    if "score_rate" in metrics:
        return "score_rate", metrics["score_rate"]
    points, most = (
        sum(value for each, value in metrics.items() if each.endswith(f"/{name}"))
        for name in ("total_score", "max_possible_score")
    )
    metrics["score_rate"] = 100 * points / most if most else 0.0
    return "score_rate", metrics["score_rate"]


def main_of_rare(
    info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank by what the judge says, else by the words or text that are found."""
    track = info["name"].rpartition("_")[2].lower()
    for name, most in (
        (f"{track}_judge_score", 1),
        (f"{track}_f1", 100),
        ("substring_match", 1),
    ):
        if name in metrics:
            return name, metrics[name] * 100 / most
    raise KeyError(f"{track}_judge_score")


def main_of_descriptions(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank by the mean of what the judge gives, up to 2 points for each of four."""
    name = "mean of completeness, preciseness, consistency and quality_accuracy"
    found = [metrics[each] for each in DESCRIBED if each in metrics]
    metrics[name] = sum(found) / len(found)
    return name, metrics[name] * 50


def main_of_scenes(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank by the overall accuracy, which ms-vlmeval prints and does not return.

    It is computed as there (dataset/ost_bench.py:174).
    """

    def mean(kind: str, *questions: str) -> float:
        return sum(metric(f"{each}({kind})") for each in questions) / len(questions)

    def metric(name: str) -> float:
        if name in metrics:
            return metrics[name]
        parts = [
            value
            for each, value in metrics.items()
            if each.startswith(name[:-1])
            and each[len(name) - 1 :].rstrip(")").isdigit()
        ]
        return sum(parts) / len(parts)

    seen, own, both = "Agent_visible_info-", "Agent_state-", "Agent_object_spatial-"
    places = (f"{own}orientation", f"{own}position")
    pairs = (f"{both}direction", f"{both}distance")
    info = (f"{seen}existence", f"{seen}order", f"{seen}diversity")
    metrics["Overall"] = (
        mean("Judgement", *places)
        + mean("Estimation", *places)
        + mean("Judgement", *info)
        + mean("Temporal-loc", f"{seen}existence")
        + mean("Counting", f"{seen}quantity")
        + mean("Judgement", *pairs)
        + mean("Estimation", *pairs)
        + mean("Temporal-loc", *pairs)
    ) / 8
    return "Overall", metrics["Overall"] * SHARE


def main_of_links(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank by the mean of the categories, of which ms-vlmeval has none of all."""
    metrics["mean of the categories"] = sum(metrics.values()) / len(metrics)
    return "mean of the categories", metrics["mean of the categories"]


def main_of_rewards(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank by the metric of the dataset's kind of questions."""
    name = next(each for each in REWARDED if each in metrics)
    return name, metrics[name] * SHARE
