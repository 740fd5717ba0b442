"""`base_url` and its companions: models that are only names, served at one address."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pytest_vlmeval.tasks.models import Entry
from pytest_vlmeval.tasks.reading import Reading, shown

BODY = ("top_k", "top_p", "repetition_penalty")
OPTIONS = {
    "max_tokens": "max-tokens",
    "temperature": "temperature",
    "timeout": "timeout",
}
# ms-vlmeval's own (utils/arguments.py), where they are not those of the options.
ASSUMED = {"max-tokens": str(2**15), "timeout": "1800"}


def take_served(
    reading: Reading, given: Mapping[str, Any], entry: Entry | None, place: str
) -> bool:
    """Read a model at `base_url`; false where there is none.

    Without it ms-vlmeval has no use for the fields that go with it, nor have we.
    """
    base = given.get("base_url")
    companions = ("key", *OPTIONS, *BODY, "extra_body", "video_llm")
    if base is None:
        for name in companions:
            if given.get(name) not in (None, False):
                reading.remark(f"{place}{name}", "it belongs to base_url")
        return False
    if entry is None:
        return False
    if entry.fields:
        raise reading.error(
            f"{place}base_url",
            f" is for models that are only names, and {entry.place} is a mapping. Give "
            "it an api_base of its own.",
        )
    reading.set("model", entry.served, entry.place, entry.served)
    reading.set("backend", "endpoint", f"{place}base_url", base)
    reading.set("api-base", base, f"{place}base_url", base)
    reading.key("api-key", given.get("key"), f"{place}key")
    for name, option in OPTIONS.items():
        if given.get(name) is not None:
            reading.set(option, str(given[name]), f"{place}{name}", given[name])
    for option, text in ASSUMED.items():
        reading.set(option, text, f"{place}base_url", text, assumed=True)
    if given.get("video_llm"):
        reading.set("video-url", "yes", f"{place}video_llm", True)
    _take_body(reading, given, place)
    return True


def _take_body(reading: Reading, given: Mapping[str, Any], place: str) -> None:
    body = {name: given[name] for name in BODY if given.get(name) is not None}
    if given.get("extra_body"):
        try:
            more = json.loads(given["extra_body"])
        except (ValueError, RecursionError):
            more = None
        if not isinstance(more, dict):
            raise reading.error(
                f"{place}extra_body",
                f"{shown(given['extra_body'])} takes a text that is a JSON object.",
            )
        body |= more
    if body:
        reading.set("extra-body", json.dumps(body), f"{place}extra_body", body)
