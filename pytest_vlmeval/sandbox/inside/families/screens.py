"""Places on screens: classes that open the images of the answers they evaluate."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.sandbox.inside.families.general import evaluate_general
from pytest_vlmeval.sandbox.rows import read_samples_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vlmeval.sandbox.inside.families.common import Outcome
    from pytest_vlmeval.sandbox.inside.job import Job


def evaluate_screens(dataset: Any, answers: str, job: Job) -> Outcome:
    """Run a class's own `evaluate`, with the images where it opens them.

    That is below its folder of images (dataset/GUI/screenspot.py:405), where they are
    put while prompts are made; here they come from the prepared dataset.
    """
    root = Path(dataset.img_root)
    asked = job.tables[answers]
    images = dict(_images_of(job.prepared))
    for index, name in zip(asked["index"], asked["image_path"], strict=True):
        place = Path(os.path.normpath(root / str(name)))
        if not place.is_relative_to(job.folder):
            raise ValueError(f"the image {name} of row {index} lies elsewhere")
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _put(job.prepared / "media" / images[str(index)], place)
    return evaluate_general(dataset, answers, job)


def _images_of(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the index of each sample, and its first image."""
    for index, prompt in read_samples_rows(folder, ("index", "prompt")):
        turns = json.loads(prompt) or []
        parts = [part for turn in turns for part in turn if part[0] == "image"]
        if parts:
            yield index, parts[0][1]


def _put(image: Path, place: Path) -> None:
    """Link a file, or copy it where links do not reach."""
    try:
        os.link(image, place)
    except OSError:
        shutil.copyfile(image, place)
