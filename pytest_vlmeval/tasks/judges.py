"""The judge that a task file names, in any of the ways that ms-vlmeval reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_vlmeval.judge_settings import EXACT_MATCHING, OFFICIAL
from pytest_vlmeval.tasks.reading import Reading

# The variables and the arguments of ms-vlmeval, the arguments first.
ADDRESSES = ("judge_base_url", "OPENAI_API_BASE")
KEYS = ("judge_key", "OPENAI_API_KEY")


def take_judge(reading: Reading, given: Mapping[str, Any], place: str) -> None:
    """Read which judge there is, where it is and its key.

    As in ms-vlmeval, LOCAL_LLM stands for any judge but exact matching
    (dataset/utils/judge_util.py).
    """
    field = "judge"
    name = given.get("judge")
    if name != EXACT_MATCHING and given.get("LOCAL_LLM"):
        if name:
            reading.remark(f"{place}judge", "LOCAL_LLM stands for any judge")
        field, name = "LOCAL_LLM", given["LOCAL_LLM"]
    idle = [each for each in (*ADDRESSES, *KEYS, "LOCAL_LLM") if given.get(each)]
    if not name or name == EXACT_MATCHING:
        if name:
            reading.set("judge", name, f"{place}judge", name)
        reason = "there is no judge: answers are matched exactly"
        for each in idle:
            reading.remark(f"{place}{each}", reason)
        return
    reading.set("judge", name, f"{place}{field}", name)
    for each in KEYS:
        reading.key("judge-api-key", given.get(each), f"{place}{each}")
    for each in ADDRESSES:
        if given.get(each):
            address = OFFICIAL if given[each] == "OFFICIAL" else given[each]
            reading.set("judge-api-base", address, f"{place}{each}", given[each])
    if "judge-api-base" not in reading.values and "judge-api-key" in reading.keys:
        reading.set("judge-api-base", OFFICIAL, f"{place}{field}", OFFICIAL)
