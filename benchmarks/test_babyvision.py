"""BabyVision: what a child of three sees, from odd ones out to mazes and folded cubes.

Chen et al., BabyVision: Visual Reasoning Beyond Language, arXiv 2601.06521. 388
questions in 4 types: 135 choices, 253 blanks.

Rows and prompt as in https://github.com/UniPat-AI/BabyVision (babyvision_eval) and
https://huggingface.co/datasets/UnipatAI/BabyVision. The authors let a language model
compare what stands in the last box with the reference. Here a choice is read as its
letter or its text, and a blank has to be the reference but for case, blanks, brackets
around it and the form of numbers: blanks in other words count as wrong.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pytest_vlmeval import Answer, Benchmark, Sample, Verdict

PROMPT = (
    "\nThink about the question and give your final answer in \\boxed{Answer} format."
)
WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}|\$|\\,|\\ ")
BEGINS, ENDS = "<|begin_of_box|>", "<|end_of_box|>"


def read_box(text: str) -> str | None:
    r"""Return what is in the last \boxed{} of a text, or in GLM's box; None without."""
    start = text.rfind(r"\boxed{")
    if start >= 0:
        depth = 0
        for place in range(start + len(r"\boxed"), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if not depth:
                return text[start + len(r"\boxed{") : place].strip()
    _, mark, rest = text.rpartition(BEGINS)
    inner, end, _ = rest.partition(ENDS)
    return inner.strip() if mark and end else None


def normalise(text: str) -> str:
    """Return a text without what makes no difference to a short answer."""
    text = unicodedata.normalize("NFKC", WRAPPED.sub(r"\1", text)).casefold()
    text = re.sub(r"\s+", "", text).rstrip(".")
    if re.fullmatch(r"\([^()]*\)|\[[^\[\]]*\]", text):
        text = text[1:-1]
    return re.sub(r"(?<![\d.])(\d+)\.0+(?!\d)", r"\1", text)


def read_choice(text: str, options: list[str]) -> str | None:
    """Return the letter of the option that a box names; None if it names none."""
    known = {chr(ord("A") + n): normalise(text) for n, text in enumerate(options)}
    plain = normalise(text)
    found = re.fullmatch(r"(?:option|choice)?\(?([a-z])[).:]*(.*)", plain)
    if found is not None:
        letter = found[1].upper()
        if letter in known and found[2] in ("", known[letter]):
            return letter
    named = [letter for letter, option in known.items() if option == plain]
    return named[0] if len(named) == 1 else None


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.recent
class TestBabyVision(Benchmark):
    """All 388 questions; a metric for each of the four types."""

    datasets = ("hf:UnipatAI/BabyVision",)

    def questions(self, row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Ask the question with its options, if it has some."""
        question, answer = row["question"], row["blankAns"]
        options = list(row["options"] or []) if row["ansType"] == "choice" else []
        if options:
            listed = "\n".join(
                f"({chr(ord('A') + place)}) {option}"
                for place, option in enumerate(options)
            )
            question = f"{question}\nChoices:\n{listed}"
            answer = chr(ord("A") + int(row["choiceAns"]))
        yield {
            "question": question + PROMPT,
            "answer": answer,
            "image": row["image"],
            "category": row["type"],
            "subtype": row["subtype"],
            "task": row["taskId"],
            "options": options,
        }

    def score(self, sample: Sample, answer: Answer) -> Verdict:
        """Compare what stands in the last box."""
        box = read_box(answer.text)
        if box is None:
            return Verdict(
                index=sample.index,
                value=0,
                reason="no answer in \\boxed{}",
                unread=True,
            )
        known = sample.reference or ""
        said: str | None = box
        if options := json.loads(sample.row["options"]):
            said = read_choice(box, options)
            right = said == known
        else:
            right = normalise(box) == normalise(known)
        return Verdict(index=sample.index, value=float(right), extracted=said or box)
