"""What is asked: samples, and the turns of their prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPart:
    """One piece of a prompt: a text, or a picture or video named by its content.

    `media` is the file's name below the prepared dataset's `media/` folder,
    `<sha256>.<suffix>`; the bytes are the dataset's own. `saved_as` is the suffix of
    the file that ms-vlmeval writes the image of a table's cell to, before it sends it;
    "" for an image that is a file already.
    """

    kind: Literal["text", "image", "video"]
    text: str = ""
    media: str = ""
    media_type: str = ""
    saved_as: str = ""


# What is said to a model at once.
Turn = tuple[PromptPart, ...]


def parts_of(prompt: Iterable[Turn]) -> tuple[PromptPart, ...]:
    """Return the parts of all turns of a prompt, in order."""
    return tuple(part for turn in prompt for part in turn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One question of a dataset, as ms-vlmeval would ask it.

    `index` is the dataset's own, as text. `prompt` has one turn, or several that are
    asked one after the other, each with the replies to those before. `group` joins
    samples that are judged together. `error` says why the row cannot be asked (an
    unreadable picture).
    """

    dataset: str
    index: str
    prompt: tuple[Turn, ...]
    reference: str | None = None
    category: str | None = None
    group: str | None = None
    error: str | None = None


def read_prompt(text: str) -> tuple[Turn, ...]:
    """Read a prompt from the JSON it is kept in: a list of parts for each turn."""
    return tuple(tuple(_part(*part) for part in turn) for turn in json.loads(text))


def _part(
    kind: str, content: str, media_type: str = "", saved_as: str = ""
) -> PromptPart:
    if kind == "image":
        return PromptPart(
            kind="image", media=content, media_type=media_type, saved_as=saved_as
        )
    if kind == "video":
        return PromptPart(kind="video", media=content, media_type=media_type)
    return PromptPart(kind="text", text=content)
