"""How prompts reach the model: what the options say of pictures, system and body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_vlmeval.errors import VlmEvalError

# What requests are made of: options of their own, or the prompt itself.
RESERVED = ("model", "messages", "max_tokens", "temperature", "stream", "n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompting:
    """What is done to each prompt; None and "" leave it as the dataset has it.

    `image_size` bounds the longest side of a picture, in pixels, `max_pixels` its area;
    larger ones are made smaller, in their proportions. `image_detail` is OpenAI's hint
    to the server. `extra_body` is the JSON of an object that is added to each request.
    """

    image_size: int | None = None
    max_pixels: int | None = None
    image_detail: str | None = None
    system_prompt: str | None = None
    extra_body: str = ""

    def identity(self) -> dict[str, str | int]:
        """Return what tells runs apart, of those that are set."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value}


AS_IT_IS = Prompting()


def choose_prompting(values: Mapping[str, Any], backend: str) -> Prompting:
    """Return what the options say; `VlmEvalError` where the model has no use for it."""
    prompting = Prompting(
        image_size=values["image-size"],
        max_pixels=values["max-pixels"],
        image_detail=values["image-detail"],
        system_prompt=values["system-prompt"],
        extra_body=values["extra-body"] or "",
    )
    given = [f"--vlm-{name.replace('_', '-')}" for name in prompting.identity()]
    if backend == "demo" and given:
        raise VlmEvalError(
            f"{' and '.join(given)}: the demo model takes prompts as they are. Leave "
            f"{'them' if len(given) > 1 else 'it'} out, or name another model."
        )
    return prompting


def parse_body(text: str) -> str:
    """Read a JSON object that may be added to requests; ValueError for another."""
    body = json.loads(text)
    if not isinstance(body, dict) or not body or set(body) & set(RESERVED):
        raise ValueError
    return json.dumps(body, sort_keys=True)
