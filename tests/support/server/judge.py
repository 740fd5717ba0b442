"""A judge without a model: reads ms-vlmeval's own prompts for judges by their layout.

It understands "pick number 4", "Affirmative." and what else the seed fixtures hold,
and replies as `manner` says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Literal

Manner = Literal["good", "verbose", "chinese", "fenced", "wrong"]

PICKED = re.compile(r"pick number (\d)|第(\d)个")
NUMBERS = re.compile(r"\[.*\]|-?\d+(?:[./]\d+)?")
YES_NO = {"affirmative": "Yes", "negative": "No"}


def reply(prompt: str, manner: Manner) -> str:
    """Give the verdict on a prompt; "hm" for one of an unknown layout."""
    for layout, judge in LAYOUTS.items():
        if layout in prompt:
            return _say(judge(prompt, manner == "wrong"), manner)
    return "hm"


def scripted(prompt: str, script: Sequence[Sequence[str]]) -> str:
    """Give the reply of the first pattern that is found in a prompt; "?" for none."""
    for pattern, text in script:
        if re.search(pattern, prompt, re.DOTALL):
            return text
    return "?"


def _say(verdict: str, manner: Manner) -> str:
    if manner == "verbose":
        return f"After comparing both with care, my output is {verdict}"
    if manner == "chinese":
        return f"我的输出是 {verdict}"
    if manner == "fenced":
        return f"```json\n{json.dumps({'answer': verdict})}\n```"
    return verdict


def _match_option(prompt: str, wrong: bool) -> str:
    """Answer the prompts of dataset/utils/multiple_choice.py in both languages."""
    options, answer = re.split(r"(?:Answer|答案): ?", prompt)[-2:]
    labels = re.findall(
        r"^([A-Y])\. ", re.split("(?:Options|选项):", options)[-1], re.M
    )
    picked = PICKED.search(answer)
    if picked is None:
        return "Z"
    place = int(picked[1] or picked[2]) - 1
    return str(labels[(place + wrong) % len(labels)])


def _match_yes_no(prompt: str, wrong: bool) -> str:
    answer = prompt.rpartition("Answer: ")[2].partition(".")[0].lower()
    said = YES_NO.get(answer, "Unknown")
    return {"Yes": "No", "No": "Yes"}.get(said, said) if wrong else said


def _extract(text: str, wrong: bool) -> str:
    found = NUMBERS.findall(text)
    return "-77" if wrong else found[-1] if found else text.strip()


def _extract_number(prompt: str, wrong: bool) -> str:
    said = prompt.rpartition("Model respone: ")[2].removesuffix("Extracted answer:")
    return _extract(said, wrong)


def _extract_document(prompt: str, wrong: bool) -> str:
    said = _extract(prompt.rpartition("Analysis: ")[2], wrong)
    return f"Extracted answer: {said}\nAnswer format: String"


def _grade(prompt: str, wrong: bool) -> str:
    """Answer the prompt of dataset/utils/mmvet.py."""
    truth, said = prompt.splitlines()[-1].split(" | ")[1:3]
    right = all(part in said for part in truth.split(" <AND> ")) or (
        "<OR>" in truth and any(part in said for part in truth.split(" <OR> "))
    )
    return "1.0" if right is not wrong else "0.0"


def _compare(prompt: str, wrong: bool) -> str:
    """Answer the prompt of dataset/utils/llavabench.py."""
    theirs, said = re.findall(r"\[Assistant \d\]\n(.*)\n", prompt)
    return "8 10\nboth fine" if (theirs == said) is not wrong else "8 0\nnot at all"


def _grade_turn(prompt: str, wrong: bool) -> str:
    """Answer the prompt of dataset/utils/mmdu.py: how much of the reference is said."""
    truth, said = (
        prompt.partition(f"[The Start of {whose} Answer]\n")[2].partition(
            f"\n[The End of {whose} Answer]"
        )[0]
        for whose in ("Reference", "Assistant’s")
    )
    words = truth.split()
    share = sum(word in said for word in words) / len(words)
    points = round(10 * (1 - share if wrong else share))
    return str(dict.fromkeys(DIMENSIONS, points))


def _rate(prompt: str, wrong: bool) -> str:
    """Answer the prompt of dataset/utils/mmbench_video.py."""
    truth, said = re.findall(r"answer: (.*)", prompt)
    alike = truth.lower() in said.lower() or said.lower() in truth.lower()
    return "3" if alike is not wrong else "0"


DIMENSIONS = (
    "Creativity",
    "Richness",
    "Visual Perception",
    "Logical Coherence",
    "Answer Accuracy",
    "Image Relationship Understanding",
    "Overall Score",
)
LAYOUTS: dict[str, Callable[[str, bool], str]] = {
    "match an answer with two options": _match_yes_no,
    "match an answer with several options": _match_option,
    "帮助我匹配答案与单选题": _match_option,
    "[The Start of Reference Answer]": _grade_turn,
    "Model respone: ": _extract_number,
    "Analysis: ": _extract_document,
    "Just complete the last space of the correctness score": _grade,
    "[Assistant 2]": _compare,
    "Candidate answer: ": _rate,
}
