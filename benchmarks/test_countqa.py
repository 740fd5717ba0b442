"""CountQA: how many there are, up to 400, in photographs that are full of things.

Tamarapalli et al., CountQA: How Well Do MLLMs Count in the Wild?, arXiv 2508.06585.
1,528 questions about 1,001 images.

Rows as in https://huggingface.co/datasets/Jayant-Sravan/CountQA, each with several
questions of one image. The instruction is that of the paper's appendix C, and both
metrics are its own, as EvalScope has them (https://github.com/modelscope/evalscope,
benchmarks/count_qa). There it is a system message; here it stands above the question.
The paper has a language model reduce an answer to an integer; here it is the whole
answer, or else the first integer in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from pytest_vlmeval import Answer, Benchmark, Sample, Verdict

INSTRUCTION = (
    "You are a helpful assistant that counts the number of items in an image. The user "
    "will provide an image and ask a question about the number of a certain type of "
    "item in the image. If the user question is referring to multiple objects, it "
    "means that you need to provide a sum of the number of items. You will count the "
    "number of items and return the number as an integer. Your output should STRICTLY "
    "be a single integer and nothing else."
)
# By so much of the reference an answer may be off for the relaxed accuracy.
TOLERANCE = 0.05


def mean(values: Sequence[float]) -> float:
    """Return the mean of values, at least one."""
    return sum(values) / len(values)


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.recent
class TestCountQA(Benchmark):
    """The test split; accuracies of focused and of cluttered images, too."""

    datasets = ("hf:Jayant-Sravan/CountQA:test",)

    def questions(self, row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Ask each of the questions of an image."""
        for question, answer in zip(row["questions"], row["answers"], strict=True):
            yield {
                "question": f"{INSTRUCTION}\n{question}",
                "answer": str(answer).strip(),
                "image": row["image"],
                "category": "focused" if row["is_focused"] else "cluttered",
            }

    def score(self, sample: Sample, answer: Answer) -> Verdict:
        """Compare the first integer."""
        found = re.search(r"\d+", answer.text)
        if found is None:
            return Verdict(
                index=sample.index, value=0, reason="no integer", unread=True
            )
        right = int(found[0]) == int(sample.reference or 0)
        return Verdict(index=sample.index, value=float(right), extracted=found[0])

    def aggregate(
        self, verdicts: Sequence[Verdict], samples: Mapping[str, Sample]
    ) -> Mapping[str, float]:
        """Return the exact accuracy, and that with what is nearly right."""
        exact = [each.value or 0.0 for each in verdicts]
        found = {"Exact Match": mean(exact)}
        near = []
        for each, value in zip(verdicts, exact, strict=True):
            known = int(samples[each.index].reference or 0)
            off = abs(int(each.extracted) - known) if each.extracted else None
            near.append(value or float(off is not None and off <= TOLERANCE * known))
        found["Relaxed Accuracy"] = mean(near)
        for name in ("focused", "cluttered"):
            of_these = [
                value
                for each, value in zip(verdicts, exact, strict=True)
                if samples[each.index].category == name
            ]
            if of_these:
                found[name] = mean(of_these)
        return found
