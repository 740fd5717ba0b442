"""What other tools send where no option says otherwise, as presets of the options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.groups import NONE
from pytest_vlmeval.settings.table import BY_NAME

if TYPE_CHECKING:
    from pytest_vlmeval.settings.sources import Sources

# Parts of a model's name by which ms-vlmeval knows OpenAI's models that reason, and
# Gemini (api/gpt.py:134, :253).
REASONING = ("o1", "o3", "o4", "gpt-5")
GEMINI = "gemini"
OPENAI_HOST = "openai.com"
USUAL: Mapping[str, Any] = {
    "images": "as-ms-vlmeval",
    "image-detail": "high",
    "temperature": 0.0,
    "max-tokens": 2048,
}


def fill_in(values: Mapping[str, Any], sources: Sources) -> dict[str, Any]:
    """Return the values of the preset's options, for the model and for its judges.

    What ms-vlmeval sends for a name of its special cases, it sends whatever its task
    says; so a task file counts less than they do, and every other place more. Judges
    are asked by the same client, with the same names.
    """
    if values["preset"] == NONE:
        return {}
    chosen = {
        name: value
        for name, value in USUAL.items()
        if sources.find(BY_NAME[name]) is None
        # ms-vlmeval's images have no such bound.
        and (name != "images" or values["max-pixels"] is None)
    }
    local = sources.variables.get("LOCAL_LLM", "").strip()
    judges = values["judge"] or ((local,) if local else ())
    bases = values["judge-api-base"] or (sources.variables.get("OPENAI_API_BASE", ""),)
    cases = [_special_cases(name, bases) for name in judges]
    if any(case != cases[0] for case in cases):
        raise VlmEvalError(
            f"--vlm-preset=evalscope: ms-vlmeval asks the judges {', '.join(judges)} "
            "in different ways, by their names, and here all are asked alike. Give "
            "--vlm-preset=none, or one of them."
        )
    special = {"": _special_cases(values["model"] or "", values["api-base"])}
    if cases:
        special["judge-"] = cases[0]
    for role, (options, body) in special.items():
        for name, value in options.items():
            given = sources.find(BY_NAME[role + name])
            if given is None or given.place == "task":
                chosen[role + name] = NONE if role and value is None else value
        if body:
            own = json.loads(values[f"{role}extra-body"] or "{}")
            chosen[f"{role}extra-body"] = json.dumps(body | own, sort_keys=True)
    return chosen


def _special_cases(
    model: str, api_bases: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what ms-vlmeval sends otherwise for a model: options, and members."""
    options: dict[str, Any] = {}
    body: dict[str, Any] = {}
    part = next((part for part in REASONING if part in model), None)
    if part and GEMINI in model:
        raise VlmEvalError(
            f"--vlm-preset=evalscope: ms-vlmeval sends no request for the model "
            f"{model}, whose name has both {part!r} and {GEMINI!r} in it. Give "
            "--vlm-preset=none, and --vlm-images=as-ms-vlmeval --vlm-image-detail=high "
            "for its images."
        )
    if part:
        options = {"temperature": None, "max-tokens-name": "max_completion_tokens"}
    elif GEMINI in model:
        options, body = {"max-tokens": None}, {"reasoning_effort": "high"}
    if GEMINI not in model and any(OPENAI_HOST in base for base in api_bases):
        body["n"] = 1
    return options, body
