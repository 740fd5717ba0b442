"""JMMMU-Pro: questions of 28 subjects in Japanese, which stand in the image itself.

Miyai et al., JMMMU-Pro: Image-based Japanese Multi-discipline Multimodal Understanding
Benchmark via Vibe Benchmark Construction, arXiv 2512.14620. 1,320 questions, of which
those about Japan's art, heritage and history, and world history, are culture-specific.

Rows as in https://huggingface.co/datasets/JMMMU/JMMMU-Pro (vision). Prompt and rules
are those of https://github.com/EvolvingLMMs-Lab/lmms-eval (tasks/jmmmu_pro, direct
answers): the letter behind a word as 答え, else the last letter that stands alone.
There a letter may also be the end of a word, and an answer "B." or "B. Tokyo" is none,
as it looks like a list of options; here it is B.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from pytest_vlmeval import Answer, Benchmark, Sample, Verdict

PROMPT = (
    "あなたの役割は画像で与えられた問題を解くことです。"
    "与えられた選択肢の中から最も適切な回答のアルファベットを直接記入してください。"
)
CULTURE = {"Japanese_Art", "Japanese_Heritage", "Japanese_History", "World_History"}
AROUND = r"[\[\](){}【】*_\s-]*"
NAMED = re.compile(
    rf"(?i:answer|final|correct|solution|ans|正解|答え|解答)(?i:\s*is|は)?\s*:?{AROUND}"
    rf"([A-Z])(?![A-Za-z])"
)
ALONE = re.compile(r"(?<![A-Za-z])([A-Z])(?![A-Za-z])")
LISTED = re.compile(r"\s*(?:[-*・>•]\s*)?[A-Z][.):、。]")


def read_letter(text: str, letters: Sequence[str]) -> str | None:
    """Return the letter that an answer names; None if it names none of these."""
    lines = [line for line in unicodedata.normalize("NFKC", text).splitlines() if line]
    named = NAMED.search("\n".join(lines))
    if named is not None:
        letter = named[1].upper()
    else:
        free = [line for line in lines if not LISTED.match(line)]
        # A single line of an option is what is chosen, not a list.
        found = ALONE.findall("\n".join(free if len(lines) > 1 else lines))
        if len(lines) == 1 and LISTED.match(lines[0]):
            found = found[:1]
        letter = found[-1] if found else ""
    return letter if letter and letter in letters else None


@pytest.mark.image
@pytest.mark.multiple_choice
@pytest.mark.recent
class TestJMMMUPro(Benchmark):
    """The images with the questions in them; a metric for each subject."""

    datasets = ("hf:JMMMU/JMMMU-Pro:vision/test",)

    def questions(self, row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Ask for the answer to what is in the image."""
        count = len(ast.literal_eval(row["options"]))
        yield {
            "question": PROMPT,
            "answer": row["answer"],
            "image": row["image"],
            "category": re.sub(r"^[^_]+_|_\d+$", "", row["id"]),
            "letters": "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count],
        }

    def score(self, sample: Sample, answer: Answer) -> Verdict:
        """Compare the letter."""
        letter = read_letter(answer.text, sample.row["letters"])
        return Verdict(
            index=sample.index,
            value=float(letter == sample.reference),
            extracted=letter,
            reason="" if letter else "no letter of an option",
            unread=letter is None,
        )

    def aggregate(
        self, verdicts: Sequence[Verdict], samples: Mapping[str, Sample]
    ) -> Mapping[str, float]:
        """Return the accuracy, also of subjects of a culture and of all others."""
        parts: dict[str, list[float]] = {"Overall": []}
        subjects: dict[str, list[float]] = {}
        for each in verdicts:
            subject = samples[each.index].category or ""
            part = "specific" if subject in CULTURE else "agnostic"
            for values in (
                parts["Overall"],
                parts.setdefault(f"culture-{part}", []),
                subjects.setdefault(subject, []),
            ):
                values.append(each.value or 0.0)
        return {
            name: sum(values) / len(values)
            for name, values in (parts | dict(sorted(subjects.items()))).items()
        }
