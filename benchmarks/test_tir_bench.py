r"""TIR-Bench: 13 tasks that are easier for whoever may crop, turn and measure an image.

Li et al., TIR-Bench: A Comprehensive Benchmark for Agentic Thinking-with-Images
Reasoning, arXiv 2511.01833. 1,215 questions, which are asked here without any tools, as
the paper asks most of its models.

Rows as in https://huggingface.co/datasets/Agents-X/TIR-Bench (a table, and data.zip
with the images). Rules as in https://github.com/agents-x-project/TIR-Bench
(calculate_score.py): a text within the answer (ocr), the share of pieces in their
places (jigsaw), the overlap of two sets (spot_difference), two numbers (word_search),
else a letter or a number. There GPT-4.1 first reads the short answer out of the text,
and a letter that is none of the options becomes the most similar one. Here rules read
it: what is in the last \boxed{}, else behind the last "answer", else the last letter,
list or number; numbers are compared as such, and not as formulas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pytest_vlmeval import Answer, Benchmark, Sample, Verdict

# What the published table has in the place of what is in these images.
CORRECTED = {"60.jpg": "mobi", "62.jpg": "aires"}
NUMBER = r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)"
MARK = re.compile(r"(?:answer|答案)\s*(?:is|are|为|是)?\s*[:：]?", re.IGNORECASE)  # noqa: RUF001
# A letter that is no word of a sentence, as "A dog" and "I see" have.
ALONE = re.compile(r"(?<![A-Za-z])([B-HJ]|[AI](?!'|\s+(?!is\b)[a-z]))(?![A-Za-z])")
LIST = re.compile(r"\d+(?:\s*[,，]\s*\d+)+")  # noqa: RUF001


def read_short(text: str) -> str:
    """Return the part of an answer that gives the result."""
    boxes = re.findall(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}", text)
    if boxes:
        return str(re.sub(r"\\text\{([^{}]*)\}", r"\1", boxes[-1])).strip()
    text = text.replace("*", "")
    marks = list(MARK.finditer(text))
    if marks and text[marks[-1].end() :].strip(" .\n"):
        return text[marks[-1].end() :].strip()
    return text.strip()


def read_letters(text: str, count: int) -> str:
    """Return the letters of the options that are named: one, or several together."""
    short = read_short(text)
    if count > 1:
        together = re.findall(r"(?<![A-Za-z])[A-J]{2,}(?![A-Za-z])", short)
        apart = re.findall(r"(?<![A-Za-z])[A-J](?![A-Za-z])", short)
        return "".join(sorted(together[-1] if together else set(apart)))
    begins = re.match(r"([A-J])(?:[).:,]|\s*$)", short)
    if begins is not None:
        return begins[1]
    found = re.findall(r"\(([A-J])\)", short) or ALONE.findall(short)
    return str(found[-1]) if found else ""


def read_number(text: str) -> str:
    """Return the number that is given: the first of a short answer, else the last."""
    short = read_short(text)
    found = re.findall(NUMBER, short.replace(",", ""))
    is_short = short != text.replace("*", "").strip()
    return str(found[0 if is_short else -1]) if found else ""


def read_list(text: str) -> list[int]:
    """Return the numbers that are listed last, else all."""
    short = read_short(text)
    listed = LIST.findall(short)
    return [int(n) for n in re.findall(r"\d+", listed[-1] if listed else short)]


def read_order(text: str, count: int) -> list[int]:
    """Return the first row of so many numbers, of the short answer or of the whole."""
    for part in (read_short(text), text):
        for row in re.findall(r"[\d\s,，]+", part):  # noqa: RUF001
            numbers = [int(n) for n in re.findall(r"\d+", row)]
            if len(numbers) == count:
                return numbers
    return []


def is_number(text: str) -> bool:
    """Return whether a text is one number."""
    return re.fullmatch(NUMBER, text.strip()) is not None


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.recent
class TestTIRBench(Benchmark):
    """All questions, without tools; a metric for each task."""

    datasets = ("hf:Agents-X/TIR-Bench",)

    def questions(self, row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Ask the prompt with its images."""
        images = [row[name] for name in ("image_1", "image_2") if row.get(name)]
        answer = str(row["answer"])
        name = images[0].rpartition("/")[2]
        if row["task"] == "ocr":
            answer = CORRECTED.get(name, answer)
        if answer.startswith("["):
            answer = ", ".join(re.findall(r"\d+", answer))
        yield {
            "question": row["prompt"],
            "answer": answer,
            "image_path": images,
            "category": row["task"],
        }

    def score(self, sample: Sample, answer: Answer) -> Verdict:
        """Compare as the task demands."""
        task, known, text = sample.category, sample.reference or "", answer.text
        said: str
        if task == "ocr":
            return Verdict(index=sample.index, value=float(known in text))
        if task == "jigsaw":
            order = [int(n) for n in re.findall(r"\d+", known)]
            given = read_order(text, len(order))
            hits = sum(a == b for a, b in zip(order, given, strict=False))
            said, value = ", ".join(map(str, given)), hits / len(order)
        elif task == "spot_difference" and not is_number(known):
            wanted = {int(n) for n in re.findall(r"\d+", known)}
            found = set(read_list(text))
            said = ", ".join(map(str, sorted(found)))
            value = len(wanted & found) / len(wanted | found)
        elif task == "word_search" and not is_number(known):
            pair = read_list(text)[:2]
            said = ", ".join(map(str, pair))
            value = float(pair == [int(n) for n in re.findall(r"\d+", known)][:2])
        elif is_number(known):
            said = read_number(text)
            value = float(bool(said) and float(said) == float(known))
        else:
            said = read_letters(text, len(known))
            value = float(said == "".join(sorted(known)))
        return Verdict(
            index=sample.index,
            value=value,
            extracted=said or None,
            reason="" if said else "no answer of its kind",
            unread=not said,
        )
