"""How each family of datasets is evaluated, and where its verdicts are found."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.expressions import evaluate

if TYPE_CHECKING:
    import pandas as pd

    from pytest_vlmeval.sandbox.inside.job import Job

    Info = dict[str, str]
    Verdict = dict[str, Any]

EXACT = "exact_matching"
MAX_REASON = 1_000
# As `_choose_primary_metric_key` in dataset/image_base.py ranks them.
SPLITS = ("ALL", "test", "validation", "val", "dev")
MME_FULL_SCORE = 2_800


class Outcome(NamedTuple):
    """What `evaluate` returned, and its verdict on each row."""

    result: object
    verdicts: list[Verdict]


class Family(NamedTuple):
    """The adapter of a class of datasets.

    `main` gives the metric that the dataset is ranked by, adding it to the metrics
    when ms-vlmeval does not compute it, and its value from 0 to 100.
    """

    evaluate: Callable[[Any, str, Job], Outcome]
    main: Callable[[Info, dict[str, float], list[Verdict]], tuple[str, float]]


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


def is_circular(info: Info) -> bool:
    """Whether the dataset asks each question once per rotation of its options."""
    name = info["name"].lower()
    words = ("mmbench", "ccbench", "circular", "mmcr")  # dataset/image_mcq.py:268
    return info["class_name"] == "ImageMCQDataset" and any(w in name for w in words)


def _table(job: Job, answers: str, suffix: str) -> pd.DataFrame:
    file = import_module("vlmeval.smp.file")
    return job.tables[file.get_intermediate_file_path(answers, suffix)]


def _verdict(
    index: object, value: object, extracted: object = None, reason: object = ""
) -> Verdict:
    return {
        "index": str(index),
        "value": None if value is None else float(value),  # type: ignore[arg-type]
        "extracted": str(extracted) if extracted else None,
        "reason": str(reason)[:MAX_REASON],
    }


def _evaluate_choices(dataset: Any, answers: str, job: Job) -> Outcome:
    options = import_module("vlmeval.dataset.utils.multiple_choice")
    asked = job.tables[answers]
    result = dataset.evaluate(answers, model=EXACT, nproc=1)
    judged = _table(job, answers, f"_{EXACT}_result")
    circular = is_circular(
        {"name": dataset.dataset_name, "class_name": "ImageMCQDataset"}
    )
    found = {row["index"]: row for _, row in judged.iterrows()}
    verdicts = []
    for _, row in asked.iterrows():
        key = row["index"]
        if circular:
            key = int(row["g_index"] if "g_index" in row else row["index"] % 1e6)
        extracted = options.prefetch_answer(row)
        if key in found:
            log = found[key]["log"]
            verdicts.append(_verdict(row["index"], found[key]["hit"], extracted, log))
        else:
            reason = f"its group was not scored: rotation {key} is missing"
            verdicts.append(_verdict(row["index"], None, extracted, reason))
    return Outcome(result, verdicts)


def _main_of_choices(
    _info: Info, metrics: dict[str, float], verdicts: list[Verdict]
) -> tuple[str, float]:
    names = ["Overall", *(f"{split}/Overall" for split in SPLITS)]
    for name in names:
        if name in metrics:
            return name, metrics[name] * 100
    # Splits of one's own: all rows together.
    values = [v["value"] for v in verdicts if v["value"] is not None]
    metrics["Overall"] = sum(values) / len(values)
    return "Overall", metrics["Overall"] * 100


def _evaluate_yes_no(dataset: Any, answers: str, job: Job) -> Outcome:
    result = dataset.evaluate(answers, model=EXACT, nproc=1)
    verdicts = [
        _verdict(row["index"], row["score"], row["extracted"])
        for _, row in _table(job, answers, "_auxmatch").iterrows()
    ]
    return Outcome(result, verdicts)


def _main_of_yes_no(
    info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    name = info["name"]
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


def _evaluate_open(dataset: Any, answers: str, job: Job) -> Outcome:
    judging: Any = import_module("vlmeval.dataset.utils.vqa_eval")
    upstream = judging.process_line
    if dataset.dataset_name not in dataset.DATASET_URL:
        judging.process_line = _exact_line(upstream)
    try:
        result = dataset.evaluate(answers)
    finally:
        judging.process_line = upstream
    verdicts = []
    for _, row in _table(job, answers, "_results").iterrows():
        line = {"match": evaluate(row["eval_match"])}
        (value,) = judging.hit_calculate([line], dataset.dataset_name)
        verdicts.append(_verdict(row["index"], value, row["eval_pred"]))
    return Outcome(result, verdicts)


def _exact_line(process_line: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """Give the judge of one row of the user's own dataset.

    `process_line` compares with ten people's answers unless told otherwise, which
    one reference cannot win; its last branch compares normalised texts. Any
    reference counts.
    """

    def judge(row: object, method: str = "exact") -> dict[str, Any]:
        line = process_line(row, method=method)
        if method == "exact":
            line["match"] = [float(any(line["match"]))]
        return line

    return judge


def _main_of_open(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    return "Overall", metrics["Overall"]


def _evaluate_math_vision(dataset: Any, answers: str, job: Job) -> Outcome:
    math: Any = import_module("vlmeval.dataset.utils.mathv")
    upstream = math.post_check
    values: dict[object, object] = {}

    def post_check(line: Any, prefetch: bool = False) -> object:
        outcome = upstream(line, prefetch=prefetch)
        if not prefetch:
            values[line["index"]] = outcome
        return outcome

    math.post_check = post_check
    try:
        result = dataset.evaluate(answers, model=EXACT, nproc=1)
    finally:
        math.post_check = upstream
    verdicts = [
        _verdict(row["index"], values[row["index"]], row["res"], row["log"])
        for _, row in _table(job, answers, f"_{EXACT}").iterrows()
    ]
    return Outcome(result, verdicts)


def _main_of_subjects(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    return "Overall/acc", metrics["Overall/acc"]


FAMILIES = {
    "ImageMCQDataset": Family(_evaluate_choices, _main_of_choices),
    "ImageYORNDataset": Family(_evaluate_yes_no, _main_of_yes_no),
    "ImageVQADataset": Family(_evaluate_open, _main_of_open),
    "MathVision": Family(_evaluate_math_vision, _main_of_subjects),
}
