"""Scores of the answers that papers published, beside what the papers give for them.

    python bench/papers.py --mathvista DIR --mmmu DIR --hallusionbench DIR

Each DIR is a checkout of a public repository: lupantech/MathVista, MMMU-Benchmark/MMMU
and tianyi-lab/HallusionBench; any of them may be left out. Their recorded answers are
scored as `published`, as `vlmevalkit` and as `corrected`. Below the table stands why a
row differs from its paper. What MathVista's GPT-4 read in an answer is the reply of the
judge here. Nothing is downloaded, but the sandbox is built when it is first needed.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple, get_args

import pandas as pd

from pytest_vlmeval.records import (
    DatasetInfo,
    JudgeQuestion,
    JudgeReply,
    PreparedDataset,
    Scoring,
)
from pytest_vlmeval.sandbox.calls import ScoredDataset, score_in_sandbox
from pytest_vlmeval.sandbox.environment import ensure_environment
from pytest_vlmeval.sandbox.process import Sandbox
from pytest_vlmeval.sandbox.rows import FILE, write_rows

METHODS: tuple[Scoring, ...] = get_args(Scoring)
COLUMNS = ("answers", "paper", *METHODS, "as the paper reads and guesses")
# The accuracy on testmini in the paper's table 2, and the file of the answers.
MATHVISTA = {
    "mPLUG-Owl": (22.2, "mplugowl/output_mplugowl_7b_ft.json"),
    "IDEFICS": (19.8, "idefics/output_idefics_9b_instruct.json"),
    "Bard": (34.8, "bard/output_bard.json"),
    "LLaVAR": (25.2, "llavar/output_llavar.json"),
    "InstructBLIP": (25.3, "instruct_blip2/output_instruct_blip2_vicuna_13b.json"),
    "LLaVA": (26.1, "llava/output_llava_llama_2_13b.json"),
    "LLaMA-Adapter": (23.9, "llama_adapter_v2/output_llama_adapter_v2.json"),
    "MiniGPT-4": (23.1, "minigpt4/output_minigpt4_llama2.json"),
}
# The accuracy on the validation set in the paper, and the folder of the answers.
MMMU = {"LLaVA-1.5-13B": (36.4, "llava1.5_13b"), "Qwen-VL": (35.9, "qwen_vl")}
# Nothing can be read in it, so that the judge's reply decides.
UNREADABLE = "?"
SEEDS = range(100)
# What tells HallusionBench's questions apart; the sample has other numbers for some.
ASKED = "category subcategory set_id figure_id question".split()
INDEX = "category subcategory visual_input set_id figure_id question_id".split()
Rows = Sequence[Mapping[str, object]]


class Line(NamedTuple):
    """A row of the table; `why` is said below it."""

    name: str
    paper: float | None
    scores: Mapping[Scoring, float]
    alike: str
    why: str


class Scorer:
    """Scores rows with answers in the sandbox, one method after the other."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def score(
        self,
        info: DatasetInfo,
        rows: Rows,
        answers: Mapping[str, str],
        method: Scoring,
        judge: Callable[[Sequence[JudgeQuestion]], list[JudgeReply]] | None = None,
    ) -> ScoredDataset:
        """Score one answer to each row."""
        with tempfile.TemporaryDirectory() as folder:
            table = pd.DataFrame(rows).astype(str)
            cells = {str(name): table[name].tolist() for name in table}
            # As ms-vlmeval reads a file.
            text = table.to_csv(sep="\t", index=False, quoting=csv.QUOTE_ALL)
            read = pd.read_csv(io.StringIO(text), sep="\t")
            write_rows(Path(folder) / FILE, cells, read)
            prepared = PreparedDataset(
                info=info,
                folder=Path(folder),
                fingerprint="",
                checksum="",
                modified=False,
                sample_count=len(rows),
            )
            replies = [(index, [said]) for index, said in answers.items()]
            return score_in_sandbox(
                self._sandbox, prepared, replies, judge=judge, scoring=method
            )


def score_mathvista(scorer: Scorer, folder: Path) -> list[Line]:
    """Score the answers of eight models, read by the paper's GPT-4."""
    info = DatasetInfo(
        name="MathVista_MINI", class_name="MathVista", module="image_vqa", kind="vqa"
    )
    lines = []
    for model, (paper, file) in MATHVISTA.items():
        path = folder / "results" / file
        if not path.is_file():
            lines.append(Line(f"MathVista, {model}", paper, {}, "", f"no {path}"))
            continue
        said = json.loads(path.read_text(encoding="utf-8"))
        rows = [_vista_row(index, each) for index, each in said.items()]

        def judge(
            asked: Sequence[JudgeQuestion], said: Mapping[str, Any] = said
        ) -> list[JudgeReply]:
            texts = [str(said[each.unit]["extraction"]) for each in asked]
            return [JudgeReply(number=n, text=text) for n, text in enumerate(texts, 1)]

        answers = {index: each["response"] for index, each in said.items()}
        found = {
            each: scorer.score(info, rows, answers, each, judge) for each in METHODS
        }
        hidden = dict.fromkeys(said, UNREADABLE)
        alike = scorer.score(info, rows, hidden, "corrected", judge)
        lines.append(
            Line(
                f"MathVista, {model}",
                paper,
                {each: score.value for each, score in found.items()},
                f"{alike.value:.1f}",
                _why_vista(said, found["corrected"]),
            )
        )
    return lines


def _vista_row(index: str, said: Mapping[str, Any]) -> dict[str, object]:
    options = said["choices"] or []
    place = options.index(said["answer"]) if options else None
    return {
        "index": index,
        "question": said["query"],
        "choices": repr(options),
        "answer": said["answer"],
        "answer_option": "" if place is None else ascii_uppercase[place],
        "question_type": said["question_type"],
        "answer_type": said["answer_type"],
        "precision": "" if said["precision"] is None else said["precision"],
        "task": said["metadata"]["task"],
        "skills": repr(said["metadata"]["skills"]),
    }


def _why_vista(said: Mapping[str, Any], found: ScoredDataset) -> str:
    """Count the verdicts that are not the paper's, by what makes them differ."""
    more: Counter[str] = Counter()
    fewer: Counter[str] = Counter()
    for verdict in found.verdicts:
        row = said[verdict.index]
        change = bool(verdict.value) - bool(row["true_false"])
        what = "answers that say another option than GPT-4 read"
        if not row["response"].strip():
            what = "empty answers for which GPT-4 gave one"
        elif verdict.state == "judged":
            what = "readings of GPT-4's that the paper compared otherwise"
        (more if change > 0 else fewer)[what] += abs(change)
    return "; ".join(
        f"+{more[what]} -{fewer[what]} {what}"
        for what in sorted(more.keys() | fewer.keys())
        if more[what] or fewer[what]
    )


def score_mmmu(scorer: Scorer, folder: Path) -> list[Line]:
    """Score the answers of two models on the validation set, without a judge."""
    info = DatasetInfo(
        name="MMMU_DEV_VAL",
        class_name="MMMUDataset",
        module="image_mcq",
        kind="multiple_choice",
    )
    lines = []
    for model, (paper, part) in MMMU.items():
        files = sorted(folder.glob(f"mmmu/example_outputs/{part}/*/output.json"))
        name = f"MMMU, {model}"
        if not files:
            lines.append(Line(name, paper, {}, "", f"no answers below {folder}"))
            continue
        texts = (file.read_text(encoding="utf-8") for file in files)
        said = [row for text in texts for row in json.loads(text)]
        letters = sorted(
            {letter for row in said for letter in row.get("index2ans", ())}
        )
        rows = [
            {
                "index": row["id"],
                "question": "?",
                **{each: row.get("index2ans", {}).get(each, "") for each in letters},
                "answer": row["answer"],
                "split": "validation",
            }
            for row in said
        ]
        answers = {row["id"]: row["response"] for row in said}
        found = {each: scorer.score(info, rows, answers, each) for each in METHODS}
        corrected = found["corrected"]
        unread = {each.index for each in corrected.verdicts if each.unread}
        guessed = [_guess(said, unread, seed) for seed in SEEDS]
        values = [corrected.value + 100 * right / len(said) for right in guessed]
        mean, spread = statistics.fmean(values), statistics.stdev(values)
        lines.append(
            Line(
                name,
                paper,
                {each: score.value for each, score in found.items()},
                f"{mean:.1f} ± {spread:.1f}",
                _why_mmmu(said, corrected, folder / f"mmmu/example_outputs/{part}"),
            )
        )
    return lines


def _why_mmmu(
    said: Sequence[Mapping[str, Any]], found: ScoredDataset, folder: Path
) -> str:
    """Count what the paper guesses and what its authors read in another way.

    Their reading of each answer, guesses included, lies beside the answers.
    """
    unread = {each.index for each in found.verdicts if each.unread}
    why = f"{len(unread)} of {len(said)} answers name no option: the paper guesses one"
    path = folder / "total_val_output.json"
    if not path.is_file():
        return why
    read = json.loads(path.read_text(encoding="utf-8"))
    values = {each.index: bool(each.value) for each in found.verdicts}
    choices = [row for row in said if row["question_type"] == "multiple-choice"]
    named = [row for row in choices if row["id"] not in unread]
    changes = [values[row["id"]] - (read[row["id"]] == row["answer"]) for row in named]
    options = {row["id"] for row in choices}
    right = sum(values[row["id"]] for row in said if row["id"] not in options)
    return (
        f"{why}; of the {len(named)} that name one +{changes.count(1)} "
        f"-{changes.count(-1)} are not as its authors recorded; {right} of "
        f"{len(said) - len(choices)} open questions are right"
    )


def _guess(said: Sequence[Mapping[str, Any]], unread: set[str], seed: int) -> int:
    """Count how many of the unread answers a guess gets right."""
    chance = random.Random(seed)
    return sum(
        chance.choice(row["all_choices"]) == row["answer"]
        for row in said
        if row["id"] in unread
    )


def score_hallusionbench(scorer: Scorer, folder: Path) -> list[Line]:
    """Score the sample of answers, on questions of the benchmark with an image."""
    info = DatasetInfo(
        name="HallusionBench",
        class_name="ImageYORNDataset",
        module="image_yorn",
        kind="yes_no",
    )
    answers_of, questions = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("HallusionBench_result_sample.json", "HallusionBench.json")
    )
    known = {tuple(row[each] for each in ASKED): row["gt_answer"] for row in questions}
    shown = {
        "_".join(row[each] for each in INDEX): row
        for row in answers_of
        if row["visual_input"] != "0" and tuple(row[each] for each in ASKED) in known
    }
    rows = [
        {
            "index": index,
            "question": row["question"],
            "answer": ["No", "Yes"][int(known[tuple(row[each] for each in ASKED)])],
            "category": row["category"],
            "l2-category": f"{row['category']}_{row['subcategory']}",
        }
        for index, row in shown.items()
    ]
    answers = {index: row["model_prediction"] for index, row in shown.items()}
    found = {each: scorer.score(info, rows, answers, each) for each in METHODS}
    lines = []
    for metric in ("aAcc", "fAcc", "qAcc"):
        values = {
            each: score.metrics[f"Overall/{metric}"] for each, score in found.items()
        }
        lines.append(Line(f"HallusionBench's sample, {metric}", None, values, "", ""))
    unread = {
        each: sum(verdict.unread for verdict in score.verdicts)
        for each, score in found.items()
    }
    why = (
        f"{len(shown)} of its {len(answers_of)} answers are to a question of the "
        "benchmark about an image; nobody published their scores. Read as neither yes "
        "nor no: " + ", ".join(f"{number} {each}" for each, number in unread.items())
    )
    return [*lines[:-1], lines[-1]._replace(why=why)]


def as_table(lines: Sequence[Line]) -> str:
    """Give the table, and below it why rows differ."""
    shown = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    for line in lines:
        scores = [
            f"{line.scores[each]:.1f}" if each in line.scores else "-"
            for each in METHODS
        ]
        paper = "-" if line.paper is None else f"{line.paper:.1f}"
        shown.append(" | ".join([line.name, paper, *scores, line.alike or "-"]))
    notes = [f"- {line.name}: {line.why}" for line in lines if line.why]
    return "\n".join([*(f"| {each} |" for each in shown), "", *notes])


def main() -> None:
    """Score what is there and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mathvista", type=Path, metavar="DIR")
    parser.add_argument("--mmmu", type=Path, metavar="DIR")
    parser.add_argument("--hallusionbench", type=Path, metavar="DIR")
    parser.add_argument("--sandbox-python", type=Path, metavar="PATH")
    given = parser.parse_args()
    wanted = [
        (score_mathvista, given.mathvista),
        (score_mmmu, given.mmmu),
        (score_hallusionbench, given.hallusionbench),
    ]
    if not any(folder for _, folder in wanted):
        parser.error("name the checkout of at least one repository")
    for _, folder in wanted:
        if folder is not None and not folder.is_dir():
            parser.error(f"{folder} is no folder: give the checkout of the repository")
    environment = ensure_environment(
        Path.home() / ".cache" / "pytest-vlmeval",
        python=given.sandbox_python,
        offline=False,
        announce=print,
    )
    sandbox = Sandbox(environment.python)
    lines: list[Line] = []
    try:
        for score, folder in wanted:
            if folder is not None:
                print(f"scoring the answers in {folder}", file=sys.stderr)
                lines += score(Scorer(sandbox), folder)
    finally:
        sandbox.close()
    print(as_table(lines))


if __name__ == "__main__":
    main()
