"""What the model is taught from: questions on the images of pages, as tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from demo_model.questions import (
    KINDS,
    answer_with_letters,
    ask,
    benchmark_prompt,
    check_values,
    choose_category,
    draw_scene,
    find_letters,
    other_prompt,
)
from demo_model.words import WORDS
from pytest_vlmeval.models.demo import (
    IMAGE_SIZE,
    encode_chat,
    image_patches,
    rope_positions,
    special_tokens,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from PIL import Image
    from tokenizers import Tokenizer

    from demo_model.draw import Scene

QUESTIONS = 4  # about each of them
DRILLS_ONLY = 0.25  # of all steps
DRILLS = 0.25  # share of the questions that are not open, afterwards
BENCHMARK_PROMPTS = 0.6  # share of the familiar questions
IGNORED = -100


class Lesson(NamedTuple):
    """One question as the model is asked it, and the answer it should give.

    The answer is in pieces that are encoded one by one; those in `unforeseen` are
    given, not asked. A drill is not ended.
    """

    text: str
    pieces: tuple[str, ...]
    images: tuple[Image.Image, ...]
    unforeseen: frozenset[int] = frozenset()


class Batch(NamedTuple):
    """Tensors of a training step; `labels` are IGNORED outside the answers."""

    ids: Tensor  # (batch, length)
    positions: Tensor  # (3, batch, length)
    labels: Tensor  # (batch, length), the token that follows

    def columns(self, start: int | None, stop: int | None) -> Batch:
        """Cut a part of the length out."""
        return Batch(*(tensor[..., start:stop] for tensor in self))


def make_page(random: Random, progress: float) -> list[Lesson]:
    """Draw an image and ask QUESTIONS about it.

    `progress` runs from 0 to 1; until DRILLS_ONLY, only open questions are no drills.
    """
    scene = draw_scene(random)
    drills = DRILLS if progress > DRILLS_ONLY else 1.0
    return [_make_lesson(random, scene, drills) for _ in range(QUESTIONS)]


def _make_lesson(random: Random, scene: Scene, drills: float) -> Lesson:
    kind = random.choices(KINDS, [0.5, 0.25, 0.25])[0]
    category = choose_category(random, scene)
    sample = ask(random, scene, kind, category)
    if random.random() < BENCHMARK_PROMPTS:
        text = benchmark_prompt(sample)
    else:
        text = other_prompt(random, sample)
    if kind == "open" or random.random() > drills:
        return Lesson(text, (sample.answer,), (scene.image,))
    if kind == "yes_no":
        drill = check_values(random, scene, category)
    elif random.random() < 0.5:
        drill = answer_with_letters(random, sample, text)
    else:
        drill = find_letters(random, WORDS)
    return Lesson(drill.text, drill.pieces, (scene.image,), drill.unforeseen)


def encode_lesson(lesson: Lesson, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Give the tokens that the model sees and, as long, those it should say next."""
    special = special_tokens(tokenizer)
    parts = [*(None for _ in lesson.images), lesson.text]
    ids = encode_chat(tokenizer, special, parts)
    labels = [IGNORED] * (len(ids) - 1)
    for number, piece in enumerate(lesson.pieces):
        tokens = tokenizer.encode(piece).ids
        ids += tokens
        given = number in lesson.unforeseen
        labels += [IGNORED] * len(tokens) if given else tokens
    labels.append(IGNORED if lesson.unforeseen else special.turn_end)
    return ids, labels


def collate(lessons: Sequence[Lesson], tokenizer: Tokenizer) -> Batch:
    """Encode lessons, padded behind, where causal attention cannot see it."""
    special = special_tokens(tokenizer)
    rows = [encode_lesson(lesson, tokenizer) for lesson in lessons]
    shape = (len(rows), max(len(whole) for whole, _ in rows))
    ids = np.full(shape, special.end_of_text)
    labels = np.full(shape, IGNORED)
    positions = np.zeros((3, *shape), dtype=np.int64)
    for row, (whole, following) in enumerate(rows):
        ids[row, : len(whole)] = whole
        labels[row, : len(whole)] = following
        positions[:, row, : len(whole)] = rope_positions(whole, special.image)
    return Batch(*map(torch.from_numpy, (ids, positions, labels)))


def collate_images(lessons: Sequence[Lesson]) -> Tensor:
    """Give the patches of all images of some lessons, (images, 48, 1176)."""
    return images_to_patches([one for lesson in lessons for one in lesson.images])


def images_to_patches(images: Sequence[Image.Image]) -> Tensor:
    """Give the patches of images, (images, 48, 1176)."""
    pixels = np.array([np.asarray(image) for image in images], dtype=np.uint8)
    pixels = pixels.reshape(-1, *IMAGE_SIZE[::-1], 3)
    return torch.from_numpy(image_patches(pixels))
