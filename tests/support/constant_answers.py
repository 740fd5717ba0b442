"""What models score that say the same to everything, on every dataset of the card."""

from __future__ import annotations

import csv
import json
import re
import sys
from ast import literal_eval
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo, JudgeReply, PreparedDataset, Scoring
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from tests.support.conformance import card
from tests.support.sandbox_tables import FIXTURES, write_rows_file
from tests.support.server.judge import reply

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo, JudgeQuestion
    from pytest_vlmeval.sandbox.process import Sandbox

csv.field_size_limit(sys.maxsize)
Cells = Mapping[str, str]
CIRCULAR_STEP = 1_000_000
# None copies the question.
ANSWERS: Mapping[str, str | None] = {
    "A": "A",
    "B": "B",
    "yes": "yes",
    "0": "0",
    "nothing": "",
    "the question": None,
}
# COCO_VAL asks this for each image.
CAPTION = "Please describe this image in general."
SCORINGS: tuple[Scoring, ...] = ("published", "corrected")
JUDGED = {"LLaVABench", "MMBenchVideo", "MMLongBench", "MMVet"}


class Found(NamedTuple):
    """A score, and the sum of its verdicts of how many rows."""

    score: float
    right: float
    rows: int


def fixture_rows(info: DatasetInfo) -> list[Cells]:
    """Give the rows of a dataset's fixture that are asked, without their media."""
    folder = FIXTURES / "LMUData"
    if info.modality == "video":
        name = f"datasets--{info.repository.replace('/', '--')}"
        (folder,) = Path(FIXTURES, "hfcache", "hub", name, "snapshots").iterdir()
    with (folder / f"{info.name}.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    asked = [row for row in rows if row.get("image", info.modality == "video")]
    return [{k: v for k, v in row.items() if k != "image"} for row in asked]


def rows_alone(
    info: DatasetInfo, rows: Sequence[Cells], folder: Path
) -> PreparedDataset:
    """Give a dataset that has nothing but what scoring reads."""
    folder.mkdir(exist_ok=True)
    write_rows_file(folder, rows)
    return PreparedDataset(
        info=info,
        folder=folder,
        fingerprint="",
        checksum="",
        modified=False,
        sample_count=len(rows),
    )


def judge(questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
    """Judge as the test server does; answers about videos have to be the reference."""
    said = (_judge(question.prompt) for question in questions)
    return [JudgeReply(number=n, text=text) for n, text in enumerate(said, 1)]


def _judge(prompt: str) -> str:
    if "Candidate answer: " not in prompt:
        return reply(prompt, "good")
    known, said = re.findall(r"answer: ?(.*)", prompt)[-2:]
    return "3" if known.strip().lower() == said.strip().lower() else "0"


def score_constant(
    sandbox: Sandbox,
    prepared: PreparedDataset,
    rows: Sequence[Cells],
    answer: str | None,
    scoring: Scoring,
) -> Found:
    """Score one answer to all rows."""
    said = [
        row.get("question", "Describe it.") if answer is None else answer
        for row in rows
    ]
    found = score_in_sandbox(
        sandbox,
        prepared,
        [(row["index"], [text]) for row, text in zip(rows, said, strict=True)],
        judge=judge if prepared.info.class_name in JUDGED else None,
        scoring=scoring,
    )
    values = [verdict.value for verdict in found.verdicts]
    right = sum(value for value in values if value is not None)
    return Found(round(found.value, 2), round(right, 3), len(values))


# What was found by dataset, answer and scoring, `Found` as a list; or why it was not.
FILE = Path(__file__).parent / "constant_answers.json"
Scores = dict[str, dict[str, list[float]]]


def right_by_chance(
    info: DatasetInfo, rows: Sequence[Cells], answer: str | None
) -> float:
    """Count the rows whose reference the answer is, of rotations where all have it.

    What a copied question is worth at most is what guessing is: a part of the options,
    half of the yes/no questions, no open one.
    """
    if answer is None:
        return sum(_guessed(info, row) for row in rows)
    groups: dict[str, list[bool]] = {}
    circular = is_circular(info)
    for row in rows:
        key = str(int(row["index"]) % CIRCULAR_STEP) if circular else row["index"]
        groups.setdefault(key, []).append(_is_reference(info, row, answer))
    return sum(len(members) for members in groups.values() if all(members))


def is_circular(info: DatasetInfo) -> bool:
    """Whether a dataset asks each question once per rotation of its options."""
    words = ("mmbench", "ccbench")
    choices = info.class_name == "ImageMCQDataset"
    return choices and any(word in info.name.lower() for word in words)


def options_of(info: DatasetInfo, row: Cells) -> dict[str, str]:
    """Give a row's options by their letters; none for other kinds of questions."""
    if info.class_name == "VideoMME":
        pairs = (text.partition(".") for text in literal_eval(row["candidates"]))
        return {letter.strip(): text.strip(" .") for letter, _, text in pairs}
    if info.class_name in ("MathVision", "MathVista"):
        texts = literal_eval(row["choices"] or "[]")
        return {ascii_uppercase[place]: str(text) for place, text in enumerate(texts)}
    if info.class_name in ("ImageMCQDataset", "MMMUDataset"):
        return {letter: row[letter] for letter in ascii_uppercase if row.get(letter)}
    return {}


def _is_reference(info: DatasetInfo, row: Cells, answer: str) -> bool:
    said = answer.casefold()
    if info.class_name in JUDGED or not said:
        return False
    options = options_of(info, row)
    if options:
        letter = row.get("answer_option") or row["answer"]
        return said in (letter.casefold(), options.get(letter, "").casefold())
    cell = row["answer"]
    known = literal_eval(cell) if cell.startswith("[") else [cell]
    return said in (str(each).casefold() for each in known)


def _guessed(info: DatasetInfo, row: Cells) -> float:
    if info.kind == "yes_no":
        return 0.5
    options = options_of(info, row)
    return 1 / len(options) if options else 0


def survey(
    sandbox: Sandbox, info: DatasetInfo, folder: Path
) -> dict[str, dict[str, list[float]]] | str:
    """Score all answers to a dataset's fixture; say why where that cannot be."""
    rows = fixture_rows(info)
    prepared = rows_alone(info, rows, folder)
    found: Scores = {}
    try:
        for name, answer in ANSWERS.items():
            found[name] = {
                scoring: list(score_constant(sandbox, prepared, rows, answer, scoring))
                for scoring in SCORINGS
            }
            found[name]["chance"] = [round(right_by_chance(info, rows, answer), 3)]
    except VlmEvalError as error:
        return str(error)
    return found


def read_survey() -> dict[str, Scores | str]:
    """Read what was found."""
    found: dict[str, Scores | str] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def write_survey(name: str, found: Scores | str) -> None:
    """Keep what was found of a dataset, in the order of the card."""
    known = (read_survey() if FILE.exists() else {}) | {name: found}
    lines = []
    for each in (name for name in card() if name in known):
        lines.append(f" {json.dumps(each)}: {_as_lines(known[each])}")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _as_lines(found: Scores | str) -> str:
    if isinstance(found, str):
        return json.dumps(found)
    answers = (
        f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in found.items()
    )
    return "{\n" + ",\n".join(answers) + "\n }"


def as_table(found: Mapping[str, Scores | str]) -> str:
    """Give the table of the documentation: scores as published, and if other corrected.

    Datasets with the same scores share a row.
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, scores in found.items():
        if not isinstance(scores, str):
            cells = tuple(_cell(scores[answer]) for answer in ANSWERS)
            rows.setdefault(cells, []).append(name)
    headings = ["datasets", *(f"`{a}`" if ANSWERS[a] else a for a in ANSWERS)]
    lines = [headings, ["---"] * len(headings)]
    lines += [[", ".join(names), *cells] for cells, names in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(found: Mapping[str, list[float]]) -> str:
    published, corrected = (f"{found[scoring][0]:g}" for scoring in SCORINGS)
    return published if published == corrected else f"**{published}**, {corrected}"


def ends_of_classes(
    infos: Iterable[DatasetInfo], further: Container[str] = ()
) -> list[DatasetInfo]:
    """Give the first and the last name of each class, and further names."""
    classes: dict[str, list[DatasetInfo]] = {}
    for info in sorted(infos, key=lambda info: info.name):
        classes.setdefault(info.class_name, []).append(info)
    return [
        info
        for found in classes.values()
        for info in found
        if info in (found[0], found[-1]) or info.name in further
    ]
