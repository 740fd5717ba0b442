"""From a video dataset's rows to samples with frames, as ms-vlmeval cuts them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.families import FAMILIES
from pytest_vlmeval.sandbox.inside.hubs import own_folders
from pytest_vlmeval.sandbox.inside.tables import table_of
from pytest_vlmeval.sandbox.inside.video_classes import build_video, video_job
from pytest_vlmeval.sandbox.inside.video_media import VideoError, VideoMedia
from pytest_vlmeval.sandbox.rows import FILE, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vlmeval.sandbox.inside.job import Job
    from pytest_vlmeval.sandbox.inside.video_classes import Info

CATEGORIES = ("category", "task_type", "video_type", "question_type", "task")


def prepare_videos(
    info: Info,
    shelf: dict[str, Any],
    folder: str,
    video_url: bool,
    on_progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Fill `folder` with `rows.parquet`, `samples.jsonl` and `media/`.

    A row whose video or prompt fails is a sample with an `error`. With `video_url`
    the prompts have the files of the videos, otherwise their frames.
    """
    target = Path(folder)
    # Frames are linked from here to media/, which takes one disk and not /tmp.
    scratch = target / "frames"
    (target / "media").mkdir()
    scratch.mkdir()
    # dataset/vdc.py:269 and dataset/video_mmlu.py:198 draw what they ask.
    random.seed(info["name"])
    within = own_folders(info, None, shelf, target)
    with video_job(shelf, scratch, on_progress, within) as job:
        dataset = build_video(info, shelf, job)
        write_rows(target / FILE, *table_of(dataset.data))
        media = VideoMedia(target / "media", scratch, within)
        writer = _VideoWriter(info, dataset, media, job, video_url)
        count = writer.write(target / "samples.jsonl")
    shutil.rmtree(scratch)
    return {"samples": count}


class _VideoWriter:
    """Asks ms-vlmeval for each row's prompt, or each video's, and writes it down."""

    def __init__(
        self, info: Info, dataset: Any, media: VideoMedia, job: Job, video_url: bool
    ) -> None:
        self._name = info["name"]
        self._dataset = dataset
        self._media = media
        self._job = job
        self._video_url = video_url
        self._pack = bool(getattr(dataset, "pack", False))
        family = FAMILIES.get(info["class_name"])
        self._answers = family.reference if family else "answer"

    def write(self, path: Path) -> int:
        if self._pack and self._video_url:
            raise VlmEvalError(
                f"{self._name} asks all questions about a video at once, which "
                "ms-vlmeval does with frames only. Leave out --vlm-video-url, or "
                "choose a dataset whose name does not end in _pack."
            )
        rows = self._dataset.data
        groups = (
            [(video, rows[rows["video"] == video]) for video in self._dataset.videos]
            if self._pack
            else [(str(row["index"]), row) for _, row in rows.iterrows()]
        )
        self._check_unique([index for index, _ in groups])
        count = 0
        with path.open("w", encoding="utf-8", errors="surrogatepass") as file:
            for position, (index, row) in enumerate(groups):
                sample = self._sample(position, index, row)
                if sample is not None:
                    file.write(json.dumps(sample, ensure_ascii=False) + "\n")
                    count += 1
                self._job.on_progress(position + 1, len(groups))
        return count

    def _check_unique(self, indexes: list[str]) -> None:
        first: dict[str, int] = {}
        for number, index in enumerate(indexes, start=1):
            if first.setdefault(index, number) != number:
                raise VlmEvalError(
                    f"{self._name}: rows {first[index]} and {number} have the same "
                    f"index {index}; each row needs one of its own."
                )

    def _sample(self, position: int, index: str, row: Any) -> dict[str, Any] | None:
        """Give a sample; None for a row that is left out."""
        prompt: list[list[list[str]]] = []
        error = None
        line = index if self._pack else position
        where = f"row {position + 1} (index {index})"
        try:
            message = self._dataset.build_prompt(line, self._video_url)
            if message is None:  # dataset/EgoExoBench/egoexobench.py:245
                return None
            prompt = [[self._part(part) for part in message if part["value"] != ""]]
        except VideoError as fault:
            error = f"{where}: {fault}"
        except Exception as fault:
            error = (
                f"{where}: ms-vlmeval cannot make its prompt: "
                f"{type(fault).__name__}: {fault}"
            )
        return {
            "index": index,
            "prompt": prompt,
            "reference": _text(row, (self._answers,)),
            "category": None if self._pack else _text(row, CATEGORIES),
            "group": None,
            "error": error,
        }

    def _part(self, part: dict[str, Any]) -> list[str]:
        if part["type"] == "text":
            return ["text", str(part["value"])]
        if part["type"] == "image":
            picture = self._media.picture(Path(part["value"]))
            return ["image", picture.name, picture.media_type]
        if part["type"] == "video":
            video = self._media.video(Path(part["value"]))
            return ["video", video.name, video.media_type]
        raise VideoError(
            f"its prompt has a part of the type {part['type']}; models are sent text, "
            "pictures and videos"
        )


def _text(rows: Any, names: tuple[str, ...]) -> str | None:
    """Give the text of the first of these columns that a row has; of rows, of all."""
    name = next((name for name in names if name in rows), None)
    if name is None:
        return None
    cells = rows[name] if isinstance(rows, pd.DataFrame) else [rows[name]]
    texts = [str(cell) for cell in cells if isinstance(cell, list) or pd.notna(cell)]
    return " | ".join(texts) or None
