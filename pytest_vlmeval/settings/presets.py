"""What other tools send where no option says otherwise, as presets of the options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.groups import NONE
from pytest_vlmeval.settings.sources import BY_NAME

if TYPE_CHECKING:
    from pytest_vlmeval.settings.sources import Sources

NO_PRESET = "none"
# Parts of a model's name by which ms-vlmeval knows OpenAI's models that reason, and
# Gemini (api/gpt.py:134, :253).
REASONING = ("o1", "o3", "o4", "gpt-5")
GEMINI = "gemini"
OPENAI_HOST = "openai.com"


def fill_in(values: Mapping[str, Any], sources: Sources) -> Mapping[str, Any]:
    """Return the options' values with those of the preset where nothing is given.

    What ms-vlmeval sends for a name of its special cases, it sends whatever its task
    says; so a task file counts less than they do, and every other place more.
    """
    if values["preset"] == NO_PRESET:
        return values
    assert values["preset"] == "evalscope"
    usual: dict[str, Any] = {
        "images": "as-ms-vlmeval",
        "image-detail": "high",
        "temperature": 0.0,
        "max-tokens": 2048,
    }
    if values["max-pixels"] is not None:
        del usual["images"]  # which has no such bound
    special, body = _special_cases(values["model"] or "", values["api-base"])
    given = {name: sources.find(BY_NAME[name]) for name in (*usual, *special)}
    chosen = {name: value for name, value in usual.items() if given[name] is None}
    for name, value in special.items():
        place = given[name]
        if place is None or place.place == "task":
            chosen[name] = value
    if body:
        own = json.loads(values["extra-body"] or "{}")
        chosen["extra-body"] = json.dumps(body | own, sort_keys=True)
    return {**values, **chosen, **_fill_in_judges(values, sources)}


def _fill_in_judges(values: Mapping[str, Any], sources: Sources) -> Mapping[str, Any]:
    """Return how the judges are asked: by the same client, with the same names."""
    local = sources.variables.get("LOCAL_LLM", "").strip()
    names = values["judge"] or ((local,) if local else ())
    bases = values["judge-api-base"] or (sources.variables.get("OPENAI_API_BASE", ""),)
    cases = [_special_cases(name, tuple(bases)) for name in names]
    if not cases:
        return {}
    if any(case != cases[0] for case in cases):
        raise VlmEvalError(
            f"--vlm-preset=evalscope: ms-vlmeval asks the judges {', '.join(names)} in "
            "different ways, by their names, and here all are asked alike. Give "
            "--vlm-preset=none, or one of them."
        )
    special, body = cases[0]
    chosen: dict[str, Any] = {
        f"judge-{name}": NONE if value is None else value
        for name, value in special.items()
        if sources.find(BY_NAME[f"judge-{name}"]) is None
    }
    if body:
        own = json.loads(values["judge-extra-body"] or "{}")
        chosen["judge-extra-body"] = json.dumps(body | own, sort_keys=True)
    return chosen


def _special_cases(
    model: str, api_bases: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what ms-vlmeval sends otherwise for a model: options, and members."""
    options: dict[str, Any] = {}
    body: dict[str, Any] = {}
    reasons = any(part in model for part in REASONING)
    if reasons and GEMINI in model:
        part = next(part for part in REASONING if part in model)
        raise VlmEvalError(
            f"--vlm-preset=evalscope: ms-vlmeval sends no request for the model "
            f"{model}, whose name has both {part!r} and {GEMINI!r} in it. Give "
            "--vlm-preset=none, and --vlm-images=as-ms-vlmeval --vlm-image-detail=high "
            "for its images."
        )
    if reasons:
        options = {"temperature": None, "max-tokens-name": "max_completion_tokens"}
    elif GEMINI in model:
        options, body = {"max-tokens": None}, {"reasoning_effort": "high"}
    if GEMINI not in model and any(OPENAI_HOST in base for base in api_bases):
        body["n"] = 1
    return options, body
