"""How prompts reach the model: what the options say of pictures, system and body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.request_settings import split_body

# How images are sent: the dataset's own bytes, or what ms-vlmeval makes of them.
Images = Literal["original", "as-ms-vlmeval"]
# What opens and what closes the thoughts of a model.
TagPair = tuple[str, str]
# Leaves what a model thinks in its answer.
NO_TAGS = "none"
NO_PAIRS = "Tags come in pairs"
_NAME = re.compile(r"[\w:.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompting:
    """What is done to each prompt; None and "" leave it as the dataset has it.

    `images` is how images are sent. `image_size` bounds the longest side of a picture,
    in pixels, `max_pixels` its area; larger ones are made smaller, in their
    proportions. `image_detail` is OpenAI's hint
    to the server. `extra_body` is the JSON of an object that is added to each request.
    `think_tags` are around a model's thoughts in its answers, beside those known; with
    "none" thoughts are a part of the answer.
    """

    images: Images = "original"
    image_size: int | None = None
    max_pixels: int | None = None
    image_detail: str | None = None
    system_prompt: str | None = None
    extra_body: str = ""
    think_tags: str = ""

    @property
    def tag_pairs(self) -> tuple[TagPair, ...] | None:
        """The tags in pairs; None where no tags are looked for."""
        if self.think_tags == NO_TAGS:
            return None
        return pair_tags(self.think_tags) if self.think_tags else ()

    @property
    def leaves_images(self) -> bool:
        """Whether images go as they are, so that a body is written in no time."""
        bounds = (self.image_size, self.max_pixels)
        return self.images == "original" and bounds == (None, None)

    def identity(self) -> dict[str, str | int]:
        """Return what tells runs apart, of those that are set."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value}

    def changes(self) -> dict[str, str | int]:
        """Return what of a prompt is not as the dataset has it."""
        standing = AS_IT_IS.identity().items()
        return dict(each for each in self.identity().items() if each not in standing)


AS_IT_IS = Prompting()


def choose_prompting(values: Mapping[str, Any], backend: str) -> Prompting:
    """Return what the options say; `VlmEvalError` where the model has no use for it."""
    prompting = Prompting(
        images=values["images"],
        image_size=values["image-size"],
        max_pixels=values["max-pixels"],
        image_detail=values["image-detail"],
        system_prompt=values["system-prompt"],
        extra_body=split_body(values["extra-body"])[0],
        think_tags=values["think-tags"] or "",
    )
    given = [f"--vlm-{name.replace('_', '-')}" for name in prompting.changes()]
    if backend == "demo" and given:
        raise VlmEvalError(
            f"{' and '.join(given)}: the demo model takes prompts as they are. Leave "
            f"{'them' if len(given) > 1 else 'it'} out, or name another model."
        )
    if prompting.images == "as-ms-vlmeval" and prompting.max_pixels is not None:
        raise VlmEvalError(
            "--vlm-images=as-ms-vlmeval and --vlm-max-pixels exclude each other: "
            "ms-vlmeval bounds the longest side of an image and never its area. Give "
            "--vlm-image-size, which is its img_size, or leave one of them out."
        )
    return prompting


@lru_cache(maxsize=8)
def pair_tags(text: str) -> tuple[TagPair, ...]:
    """Read tags around thoughts, separated by commas or blanks; ValueError for others.

    A name stands for `<name>` and `</name>`; other tags come in pairs.
    """
    words = iter(text.replace(",", " ").split())
    pairs = []
    for word in words:
        if _NAME.fullmatch(word):
            pairs.append((f"<{word}>", f"</{word}>"))
            continue
        closing = next(words, "")
        if not closing or closing == word or _NAME.fullmatch(closing):
            raise ValueError(NO_PAIRS)
        pairs.append((word, closing))
    if not pairs:
        raise ValueError(NO_PAIRS)
    return tuple(pairs)


def parse_think_tags(text: str) -> str:
    """Read tags around thoughts, and write them one way; "none" looks for none."""
    if text.strip() == NO_TAGS:
        return NO_TAGS
    return " ".join(tag for pair in pair_tags(text) for tag in pair)
