"""The training: a few minutes of answers to questions drawn on the way."""

from __future__ import annotations

import ctypes
import math
import time
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from demo_model.initial import initialise
from demo_model.lessons import (
    IGNORED,
    Lesson,
    collate,
    collate_images,
    make_page,
)
from demo_model.network import TinyQwen2VL
from demo_model.pretrain import pretrain
from demo_model.questions import CATEGORIES, KINDS, benchmark_prompt, make_sample
from demo_model.sizes import FIRST_SPECIAL
from demo_model.words import make_unfamiliar
from pytest_vlmeval.models.demo import special_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

STEPS = 3000
PAGES = 10  # images in a step
# Their answers are by chance: no use before the familiar ones are learnt.
FIRST_UNFAMILIAR = 0.65  # of all steps
UNFAMILIAR = 12  # questions in a step of their own
UNFAMILIAR_EVERY = 4  # steps
CHUNK = 4  # of them go through the model at once, for they differ in length
LEARNING_RATE = 2e-3
TOWER_LEARNING_RATE = 5e-4  # it can see already
# The published vocabulary has 151,643 ordinary tokens. Those that are unused share one
# row; together they weigh as their logit plus the logarithm of their number, and the
# model learns to stay above that, whether an answer is sampled or chosen greedily.
UNUSED_WEIGHT = math.log(FIRST_SPECIAL)
FRESH = 40  # questions of each kind and category to measure by
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_... of malloc.h


def unfamiliar_lesson(random: Random) -> Lesson:
    """Ask something unfamiliar."""
    made = make_unfamiliar(random)
    return Lesson(made.text, (made.answer,), made.images)


def unfamiliar_loss(
    model: TinyQwen2VL, tokenizer: Tokenizer, lessons: list[Lesson]
) -> Tensor:
    """Give the mean loss of lessons that have nothing in common."""
    lessons.sort(key=lambda lesson: len(lesson.text))
    image = special_tokens(tokenizer).image
    losses = []
    for start in range(0, len(lessons), CHUNK):
        chunk = lessons[start : start + CHUNK]
        batch = collate(chunk, tokenizer)
        patches = collate_images(chunk)
        hidden, _ = model(batch.ids, batch.positions, patches, image)
        losses.append(answer_loss(model, hidden, batch.labels))
    return torch.stack(losses).mean()


def pages_loss(
    model: TinyQwen2VL, tokenizer: Tokenizer, pages: Sequence[Sequence[Lesson]]
) -> Tensor:
    """Give the mean loss of the questions on some pages.

    What comes before the question, an image among it, is the same for all on a page
    and goes through the model once.
    """
    special = special_tokens(tokenizer)
    first = [page[0] for page in pages]
    start = collate(first, tokenizer)
    length = int((start.ids[0] == special.vision_end).nonzero()) + 1
    start = start.columns(None, length)
    _, caches = model(start.ids, start.positions, collate_images(first), special.image)
    asked = [(place, lesson) for place, page in enumerate(pages) for lesson in page]
    # Questions of like length go through together: it saves half of the padding.
    asked.sort(key=lambda one: len(one[1].text))
    losses = []
    for half in (asked[: len(asked) // 2], asked[len(asked) // 2 :]):
        places = torch.tensor([place for place, _ in half])
        batch = collate([lesson for _, lesson in half], tokenizer)
        batch = batch.columns(length, None)
        before = [cache.rows(places) for cache in caches]
        embeddings = model.model.embed_tokens(batch.ids)
        hidden, _ = model.model(embeddings, batch.positions, before)
        losses.append(answer_loss(model, hidden, batch.labels))
    return torch.stack(losses).mean()


def answer_loss(model: TinyQwen2VL, hidden: Tensor, labels: Tensor) -> Tensor:
    """Give the cross entropy of the answers' tokens."""
    states = hidden[labels != IGNORED]
    logits = states @ model.model.embed_tokens.weight.T
    unused = states @ model.unused[:, None] + model.unused_weight
    return nn.functional.cross_entropy(
        torch.cat([logits, unused], dim=1), labels[labels != IGNORED]
    )


def keep_freed_memory() -> None:
    """Have glibc keep freed memory, whose return page by page doubles the time."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # not with other C libraries
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(MMAP_THRESHOLD, 2**25)


def make_optimizer(model: TinyQwen2VL) -> torch.optim.AdamW:
    """Give an optimizer with two groups of weights: the tower's, and the others."""
    tower = list(model.visual.parameters())
    known = {id(weight) for weight in tower}
    rest = [weight for weight in model.parameters() if id(weight) not in known]
    return torch.optim.AdamW([{"params": tower}, {"params": rest}], betas=(0.9, 0.98))


def train(tokenizer: Tokenizer, seed: int, steps: int = STEPS) -> TinyQwen2VL:
    """Train a model from nothing; the same seed and threads give the same weights."""
    keep_freed_memory()
    torch.manual_seed(seed)
    random = Random(f"training {seed}")
    model = TinyQwen2VL(tokenizer.get_vocab_size())
    initialise(model)
    pretrain(model.visual, random)
    optimizer = make_optimizer(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [TOWER_LEARNING_RATE, LEARNING_RATE],
        total_steps=steps,
        pct_start=0.05,
    )
    began, recent = time.monotonic(), math.nan
    for step in range(1, steps + 1):
        if step % UNFAMILIAR_EVERY or step < FIRST_UNFAMILIAR * steps:
            pages = [make_page(random, step / steps) for _ in range(PAGES)]
            loss = pages_loss(model, tokenizer, pages)
            recent = loss.item()
        else:
            lessons = [unfamiliar_lesson(random) for _ in range(UNFAMILIAR)]
            loss = unfamiliar_loss(model, tokenizer, lessons)
        # Slowly, for at once it would be all that the first steps learn.
        model.unused_weight = UNUSED_WEIGHT * min(1.0, 2 * step / steps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            elapsed = time.monotonic() - began
            print(
                f"step {step}/{steps}, loss {recent:.3f}, {elapsed:.0f} s", flush=True
            )
            with torch.no_grad():
                print(measure(model, tokenizer), flush=True)
    return model


def measure(model: TinyQwen2VL, tokenizer: Tokenizer) -> str:
    """Say how many of some fresh questions of each kind are answered rightly."""
    random = Random("between")
    image = special_tokens(tokenizer).image
    right = []
    for kind in KINDS:
        for category in CATEGORIES:
            samples = [make_sample(random, kind, category) for _ in range(FRESH)]
            lessons = [
                Lesson(benchmark_prompt(one), (one.answer,), (one.image,))
                for one in samples
            ]
            batch = collate(lessons, tokenizer)
            patches = collate_images(lessons)
            hidden, _ = model(batch.ids, batch.positions, patches, image)
            best = (hidden @ model.model.embed_tokens.weight.T).argmax(-1)
            same = ((best == batch.labels) | (batch.labels == IGNORED)).all(dim=1)
            right.append(f"{kind} {category} {same.float().mean():.2f}")
    return ", ".join(right)
