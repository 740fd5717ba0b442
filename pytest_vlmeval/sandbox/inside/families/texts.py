"""Open questions and captions: texts that are compared with reference texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.sandbox.inside.expressions import evaluate
from pytest_vlmeval.sandbox.inside.families.common import (
    Outcome,
    judged_table,
    need_package,
    verdict,
)
from pytest_vlmeval.sandbox.inside.fixes import references
from pytest_vlmeval.sandbox.inside.reading import has_words, same_text

if TYPE_CHECKING:
    import pandas as pd

    from pytest_vlmeval.sandbox.inside.families.common import Info, Verdict
    from pytest_vlmeval.sandbox.inside.job import Job

# OCRBench's category whose answers are formulas.
FORMULAS = "Handwritten Mathematical Expression Recognition"
CHINESE_NOTE = (
    "Chinese is split by character (spacy.blank('zh')), not by zh_core_web_sm's words, "
    "so both numbers can differ from ms-vlmeval's"
)


def evaluate_open(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score open questions by the rule of each dataset, one's own by exact match."""
    judging: Any = import_module("vlmeval.dataset.utils.vqa_eval")
    upstream = judging.process_line
    own = dataset.dataset_name not in dataset.DATASET_URL
    if own:
        judging.process_line = _exact_line(upstream, job)
    try:
        result = dataset.evaluate(answers)
    finally:
        judging.process_line = upstream
    verdicts = []
    for _, row in judged_table(job, answers, "_results").iterrows():
        line = {"match": evaluate(row["eval_match"])}
        (value,) = judging.hit_calculate([line], dataset.dataset_name)
        verdicts.append(verdict(job, row["index"], value, row["eval_pred"]))
    return Outcome(result, verdicts)


def _exact_line(
    process_line: Callable[..., dict[str, Any]], job: Job
) -> Callable[..., Any]:
    """Return the judge of one row of the user's own dataset.

    `process_line` compares with ten people's answers unless told otherwise, which
    one reference cannot win; its last branch compares normalised texts. Any
    reference counts. Corrected scoring compares by its own rule, to which "-5" is not
    "5", and also takes a reference in a box.
    """

    def judge(row: Any, method: str = "exact") -> dict[str, Any]:
        line = process_line(row, method=method)
        if method == "exact":
            is_right = any(line["match"])
            if job.scoring == "corrected":
                said = row["prediction"]
                is_right = any(same_text(said, it) for it in references(row["answer"]))
            line["match"] = [float(is_right)]
        return line

    return judge


def by_row(metric: str, *, lists: bool = False) -> Callable[[Any, str, Job], Outcome]:
    """Return the `evaluate` of a class that tells no verdicts.

    Each row is evaluated once more by itself; it is right if `metric` is then not 0.
    With `lists` a row has a list of references.
    Published scoring looks for a reference anywhere in an answer (dataset/
    image_vqa.py:544 and :2123), "no" in "nothing"; corrected scoring looks for words.
    """

    def evaluate_rows(dataset: Any, answers: str, job: Job) -> Outcome:
        if job.scoring == "corrected":
            job.dump_table(_compared_by_words(job.tables[answers], lists), answers)
        table = job.tables[answers]
        result = dataset.evaluate(answers)
        verdicts = []
        for position in range(len(table)):
            path = f"{answers.removesuffix('.xlsx')}_row.xlsx"
            job.dump_table(table.iloc[[position]], path)
            alone = dataset.evaluate(path)
            verdicts.append(verdict(job, table["index"][position], alone[metric] > 0))
            job.on_progress(position + 1, len(table))
        return Outcome(result, verdicts)

    return evaluate_rows


def _compared_by_words(table: pd.DataFrame, lists: bool) -> pd.DataFrame:
    """Return a table in which a right answer is its reference, and no other is."""
    right = [
        _has_reference(row, evaluate(row["answer"]) if lists else [row["answer"]])
        for _, row in table.iterrows()
    ]
    table = table.copy()
    table["answer"] = "['right']" if lists else "right"
    table["prediction"] = ["right" if each else "wrong" for each in right]
    return table


def _has_reference(row: Any, cells: Sequence[object]) -> bool:
    said, *known = map(str, (row["prediction"], *cells))
    if row["category"] == FORMULAS:
        # As published, formulas are compared without blanks.
        said, *known = ("".join(text.split()) for text in (said, *known))
        return any(text and text in said for text in known)
    return any(has_words(said, text) for text in known)


evaluate_ocr = by_row("Final Score", lists=True)
evaluate_mtvqa = by_row("Average")


def main_of_ocr(
    _info: Info, metrics: dict[str, float], verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank by the points; of OCRBench's 1,000 questions each has one."""
    return "Final Score", metrics["Final Score"] * 100 / len(verdicts)


def evaluate_captions(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score captions, which have no verdict of their own."""
    need_package("pycocoevalcap", "pycocoevalcap", dataset.dataset_name)
    result = dataset.evaluate(answers)
    reason = "captions are scored all together"
    indices = job.tables[answers]["index"]
    return Outcome(
        result, [verdict(job, index, None, None, reason) for index in indices]
    )


def evaluate_covered_texts(dataset: Any, answers: str, job: Job) -> Outcome:
    """Score VCR: of each covered text, whether it is in the answer word for word.

    In place of dataset/vcr.py:277 evaluate, which waits for ever where one of its
    processes fails (:311), returns nothing (:343) and loads models from the network.
    """
    module: Any = import_module("vlmeval.dataset.vcr")
    spacy: Any = need_package("spacy", "spacy", dataset.dataset_name)
    need_package("nltk", "nltk", dataset.dataset_name)
    language = dataset.language
    module.nlp = {language: spacy.blank(language)}
    # Its number is in no score, and in ms-vlmeval it comes from the network.
    module.rouge = SimpleNamespace(compute=lambda **_settings: {"rouge1": None})
    nobody = SimpleNamespace(put=lambda _done: None)
    table = job.tables[answers]
    verdicts: list[Verdict] = []
    blanks: list[dict[str, Any]] = []
    for position, row in table.iterrows():
        _, found = module.process_match_single_new(
            str(position), row["prediction"], row["answer"], language, nobody
        )
        own = list(found[str(position)].values())
        blanks += own
        value = fmean(each["exact_match"] for each in own)
        said = " | ".join(str(each["max_sim_string"]) for each in own)
        verdicts.append(verdict(job, row["index"], value, said))
        job.on_progress(len(verdicts), len(table))
    result = {
        name: fmean(each[name.lower()] for each in blanks)
        for name in ("Exact_Match", "Jaccard")
    }
    return Outcome(result, verdicts, (CHINESE_NOTE,) if language == "zh" else ())
