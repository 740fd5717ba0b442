"""The first part of the training: the vision tower alone, to see what is to be told.

Labels straight from the drawing teach it many times as fast as answers do that have
to come through a language model which cannot read yet.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from demo_model.draw import COLOURS, MOST_SHAPES, SHAPES, Scene
from demo_model.lessons import images_to_patches
from demo_model.questions import draw_scene
from demo_model.sizes import SIZES

if TYPE_CHECKING:
    from random import Random

    from demo_model.vision import VisionTower

STEPS = 2000
BATCH = 48  # images
LEARNING_RATE = 1.5e-3
NAMES = tuple(COLOURS)


def labels(scene: Scene) -> tuple[int, int, int]:
    """Give the numbers of the colour, the shape (0 for none) and how many."""
    shape = 0 if scene.shape is None else 1 + SHAPES.index(scene.shape)
    return NAMES.index(scene.colour), shape, scene.number


def pretrain(tower: VisionTower, random: Random, steps: int = STEPS) -> None:
    """Train the tower, with a layer for each label that is not kept."""
    classes = (len(NAMES), 1 + len(SHAPES), 1 + MOST_SHAPES)
    heads = nn.ModuleList(nn.Linear(SIZES.hidden, number) for number in classes)
    optimizer = torch.optim.AdamW(
        [*tower.parameters(), *heads.parameters()], LEARNING_RATE, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.05
    )
    began = time.monotonic()
    for step in range(1, steps + 1):
        scenes = [draw_scene(random) for _ in range(BATCH)]
        expected = torch.from_numpy(np.array([labels(scene) for scene in scenes]))
        tokens = tower(images_to_patches([scene.image for scene in scenes]))
        seen = tokens.mean(dim=1)
        guesses: list[Tensor] = [head(seen) for head in heads]
        loss = torch.stack(
            [
                nn.functional.cross_entropy(guess, column)
                for guess, column in zip(guesses, expected.T, strict=True)
            ]
        ).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            right = [
                (guess.argmax(1) == column).float().mean().item()
                for guess, column in zip(guesses, expected.T, strict=True)
            ]
            shown = ", ".join(f"{share:.2f}" for share in right)
            elapsed = time.monotonic() - began
            print(f"images: step {step}/{steps}, {shown}, {elapsed:.0f} s", flush=True)
