"""Tables of each family with answers in many styles, which ms-vlmeval scores, too."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.gates.thresholds import load_thresholds
from tests.support.sandbox_tables import Row, cell, draw

if TYPE_CHECKING:
    from tests.support.sandbox_tables import Row

WORDS = ["red", "blue", "two dogs", "12", "Paris", "the sea", "0.5", "A cat", "No"]
CHOICE_ANSWERS = [
    "LETTER", "(LETTER)", "The answer is LETTER.", "TEXT", "It is TEXT!",
    "A", "B or C", "LETTER, because of A and B", "z", "Z", "I cannot say", "a",
    "LETTERLETTER", "Sorry, I can't help with images of people yet.", "=B", "007",
]  # fmt: skip
YES_NO_ANSWERS = ["Yes", "No", "yes, it is", "No.", "Affirmative", "yes or no", "n o"]
MATH_ANSWERS = [
    "A", "a", "b", "(A)", "$a$", r"\text{a}", r"\frac{1}{2}", "1/2", "2^3", "3 or 4",
    "5 and 7", "1<2", "asw", "gt_asw", "b+1", "2a", "0x10", "1e3", "True", "10%", "E",
    "The answer is TEXT", "TEXT", "TEXT.0", "x=TEXT", r"\boxed{TEXT}",
    "TEXT+0", r"\frac{TEXT}{1}", "-TEXT", "I do not know", "[1,2]", r"\pi",
    "{a}", "5!", "1;2", "0.1+0.2", "1j", "~3", "7//2", "e", "id", "1_0", "not 0",
]  # fmt: skip
MATH_REFERENCES = ["7", "0.5", "12", r"\frac{3}{4}", "-3", "1", "8", "3", r"2\sqrt{2}"]
IMAGE = cell(draw(1))


def answer_all(rows: Sequence[Row], styles: Sequence[str]) -> list[tuple[object, str]]:
    """Answer each row in a style that is drawn for it."""
    chance = random.Random(3)
    return [
        (
            row["index"],
            chance.choice(styles)
            .replace("LETTER", chance.choice("ABCD"))
            .replace("RIGHT", str(row["answer"]))
            .replace("TEXT", str(chance.choice([row.get("B") or "x", row["answer"]]))),
        )
        for row in rows
    ]


def choice_rows(rotations: int = 1) -> list[Row]:
    """Give questions with four options, in one or several rotations."""
    chance = random.Random(1)
    rows: list[Row] = []
    for number in range(60 // rotations):
        options = chance.sample(WORDS, 4)
        for turn in range(rotations):
            turned = options[turn:] + options[:turn]
            rows.append(
                {
                    "index": number + 1_000_000 * turn,
                    "question": f"Question {number}?",
                    **dict(zip("ABCD", turned, strict=True)),
                    "answer": "ABCD"[turned.index(options[0])],
                    "category": chance.choice(["colour", "place"]),
                    "l2-category": chance.choice(["logic_reasoning", "other"]),
                    "split": chance.choice(["dev", "test"]),
                    "image": IMAGE,
                }
            )
    return rows


def yes_no_rows() -> list[Row]:
    """Give yes/no questions, two for each image."""
    chance = random.Random(2)
    return [
        {
            "index": number,
            "question": "Is it?",
            "answer": chance.choice(["Yes", "No"]),
            "category": ["color", "count", "code_reasoning"][number // 2 % 3],
            "image_path": f"{number // 2}.png",
            "image": IMAGE,
        }
        for number in range(36)
    ]


def open_rows() -> list[Row]:
    """Give open questions, some with several references."""
    chance = random.Random(4)
    return [
        {
            "index": number,
            "question": "What?",
            "answer": str(chance.choices(WORDS, k=10))
            if number % 3
            else chance.choice(WORDS),
            "category": chance.choice(["x", "y"]),
            "image": IMAGE,
        }
        for number in range(40)
    ]


def math_rows() -> list[Row]:
    """Give questions with a free answer and such with options."""
    options = "['A', 'B', 'C', 'D', 'E']"
    return [
        {
            "index": number,
            "question": "How many?",
            "choices": "[]" if number % 4 else options,
            "answer": MATH_REFERENCES[number % 9]
            if number % 4
            else "ABCDE"[number % 5],
            "category": ["algebra", "logic"][number % 2],
            "image": IMAGE,
        }
        for number in range(len(MATH_ANSWERS))
    ]


def ocr_rows() -> list[Row]:
    """Give texts to be read, with one or two references."""
    kinds = ["Regular Text Recognition", "Key Information Extraction"]
    return [
        {**row, "answer": str(WORDS[number % 9 : number % 9 + 2])}
        | {"category": kinds[number % 2]}
        for number, row in enumerate(open_rows())
    ]


def vista_rows() -> list[Row]:
    """Give questions with options and such with a number or a text for an answer."""
    kinds = ["text", "integer", "float", "text"]
    answers = ["red", "12", "0.5", "Paris"]
    return [
        {
            "index": number,
            "question": "What?",
            "choices": str(WORDS[:4]),
            "answer": answers[number % 4],
            "answer_option": "A",
            "question_type": "free_form" if number % 4 else "multi_choice",
            "answer_type": kinds[number % 4],
            "task": ["reading", "counting"][number % 2],
            "skills": "['maps', 'numbers']",
            "image": IMAGE,
        }
        for number in range(48)
    ]


CASES: dict[str, tuple[str, list[Row], list[str]]] = {
    "MMStar": ("ImageMCQDataset", choice_rows(), CHOICE_ANSWERS),
    # A group counts when all four rotations are right.
    "MMBench_DEV_EN": (
        "ImageMCQDataset",
        choice_rows(4),
        ["RIGHT", "(RIGHT)", "RIGHT.", "I say RIGHT"] * 12 + CHOICE_ANSWERS,
    ),
    "POPE": ("ImageYORNDataset", yes_no_rows(), YES_NO_ANSWERS),
    "MME": ("ImageYORNDataset", yes_no_rows(), YES_NO_ANSWERS),
    "Own": ("ImageYORNDataset", yes_no_rows(), YES_NO_ANSWERS),
    "TextVQA_VAL": ("ImageVQADataset", open_rows(), [*WORDS, "TEXT", "a TEXT"]),
    "DocVQA_VAL": ("ImageVQADataset", open_rows(), [*WORDS, "TEXT", "TEXTs"]),
    "ChartQA_TEST": ("ImageVQADataset", open_rows(), [*WORDS, "TEXT", "12.3"]),
    "OCRVQA_TEST": ("ImageVQADataset", open_rows(), [*WORDS, "TEXT"]),
    "MMMU_DEV_VAL": ("MMMUDataset", choice_rows(), CHOICE_ANSWERS),
    "OCRBench": ("OCRBench", ocr_rows(), [*WORDS, "TEXT", "RIGHT"]),
    "MTVQA_TEST": ("MTVQADataset", open_rows(), [*WORDS, "TEXT", "a TEXT."]),
    "MathVista_MINI": ("MathVista", vista_rows(), [*CHOICE_ANSWERS, "RIGHT", "12.0"]),
}


SHIPPED = load_thresholds(None, [Path(__file__).parents[2] / "benchmarks"])


def hallusion_rows() -> list[Row]:
    """Give sets of two figures with two questions each."""
    chance = random.Random(6)
    return [
        {
            "index": f"VS_{kind}_1_{number}_{figure}_{question}",
            "question": "Is it?",
            "answer": chance.choice(["Yes", "No"]),
            "category": "VS",
            "l2-category": kind,
            "image": cell(draw(1)),
        }
        for kind in ("chart", "map")
        for number in range(6)
        for figure in range(2)
        for question in range(2)
    ]


DATASETS = CASES | {
    "HallusionBench": ("ImageYORNDataset", hallusion_rows(), YES_NO_ANSWERS)
}
