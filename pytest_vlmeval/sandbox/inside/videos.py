"""From a video dataset's rows to samples with frames, as ms-vlmeval cuts them."""

from __future__ import annotations

import hashlib
import inspect
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.families import FAMILIES
from pytest_vlmeval.sandbox.inside.families.common import need_package
from pytest_vlmeval.sandbox.inside.hubs import Needed, own_folders, take_shelf
from pytest_vlmeval.sandbox.inside.job import Job, running
from pytest_vlmeval.sandbox.inside.media import VideoError, VideoMedia, fix_decord
from pytest_vlmeval.sandbox.inside.preparation import import_without_scoring
from pytest_vlmeval.sandbox.inside.tables import table_of
from pytest_vlmeval.sandbox.own_files import replacing
from pytest_vlmeval.sandbox.rows import FILE, SAMPLES, write_rows, write_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

if TYPE_CHECKING:
    Info = dict[str, Any]

# Where video classes keep the checksum of their table, if they have one.
CHECKSUMS = ("MP4_MD5", "MD5", "DATASET_MD5")


def locate_videos(
    info: Info,
    shelf: dict[str, Any],
    on_progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Find a dataset's table as its class does, unpacking what it unpacks.

    Gives the `tables`, each with path, checksum, whether it is the `published` one
    and whether the class made it just now; or, as `needs`, the repository that has to
    be brought first. Raises VlmEvalError.
    """
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        began_ns = time.time_ns()
        try:
            within = own_folders(info, shelf["table"], shelf)
            with video_job(shelf, Path(scratch), on_progress, within) as job:
                dataset = build_video(info, shelf, job)
        except Needed as need:
            return {"needs": need.request}
    parts = getattr(dataset, "dataset_map", {"": dataset}).values()
    return {"tables": [_table(part, job, began_ns) for part in parts]}


def scored_dataset(info: Info, job: Job) -> Any:
    """Return ms-vlmeval's dataset object for scoring alone, which needs no video."""
    cls = _find_class(info)
    dataset = cls.__new__(cls)
    dataset.dataset_name = info["settings"].get("dataset", info["name"])
    dataset.pack = bool(info["settings"].get("pack"))
    dataset.data = job.rows.copy()
    return dataset


@contextmanager
def video_job(
    shelf: dict[str, Any],
    folder: Path,
    on_progress: Callable[[int, int], None],
    within: Sequence[Path] | None,
) -> Iterator[Job]:
    job = Job(
        rows=pd.DataFrame(),
        folder=folder,
        on_progress=on_progress,
        shelf=take_shelf(shelf),
        within=within,
    )
    with running(job):
        yield job


def _find_class(info: Info) -> Any:
    try:
        # First, as it changes the hubs' clients that the class's module imports.
        import_module("vlmeval.smp")
        name = f"vlmeval.dataset.{info['module']}"
        scored = info["class_name"] in FAMILIES
        module = import_module(name) if scored else import_without_scoring(name)
    except ImportError as error:
        raise _missing(info, error) from error
    return getattr(module, info["class_name"])


def _missing(info: Info, error: ImportError) -> VlmEvalError:
    return VlmEvalError(
        f"{info['name']}: ms-vlmeval's {info['class_name']} needs the package "
        f"{error.name}, which the sandbox's environment does not have. "
        "--vlm-sandbox-python takes an environment of yours that has it: with "
        f"ms-vlmeval, what it declares, and {error.name}."
    )


def build_video(info: Info, shelf: dict[str, Any], job: Job) -> Any:
    # Some classes keep tables and unpacked videos with the user's other data.
    os.environ["LMUData"] = shelf["data_root"]  # noqa: SIM112
    os.environ["VLMEVALKIT_USE_MODELSCOPE"] = str(int(shelf["hub"] == "modelscope"))
    fix_decord(need_package("decord", "decord", info["name"]))
    # The frames are this process's own, and a hub's cache may be read-only.
    locks: Any = import_module("portalocker")
    locks.Lock = lambda *_given, **_settings: nullcontext()
    cls = _find_class(info)
    if hasattr(cls, "LMUData_root"):  # set when its module was imported
        cls.LMUData_root = shelf["data_root"]
    # dataset/video_concat_dataset.py:17 imports it from the package.
    package: Any = sys.modules["vlmeval.dataset"]
    package.build_dataset = lambda name, **given: _build_part(cls, name, given)
    settings = dict(info["settings"])
    preset = "dataset" in settings
    settings.setdefault("dataset", info["name"])
    settings = _one_way(cls, settings if preset else _accepted(cls, settings))
    try:
        return cls(**settings)
    except ImportError as error:
        raise _missing(info, error) from error
    except VlmEvalError:
        raise
    except Exception as error:
        raise _unusable(info, job, error) from error


def _accepted(cls: Any, settings: Info) -> Info:
    """Return the settings that a class takes, as dataset/__init__.py:393 does."""
    known = inspect.signature(cls.__init__).parameters
    return {name: value for name, value in settings.items() if name in known}


def _one_way(cls: Any, settings: Info) -> Info:
    """Explain that the other way of choosing frames is not meant, where one is given.

    dataset/video_base.py:64 refuses both, and dataset/videommev2.py:187, dataset/
    video_holmes.py:56 and dataset/omtgbench.py:197 have one of them by default.
    """
    settings = dict(settings)
    known = inspect.signature(cls.__init__).parameters
    if "fps" in known and settings.get("nframe", 0) > 0:
        settings.setdefault("fps", -1)
    if "nframe" in known and settings.get("fps", -1) > 0:
        settings.setdefault("nframe", 0)
    return settings


def _build_part(whole: Any, name: str, settings: Info) -> Any:
    """Build one of the datasets that a class puts together; they share its module."""
    for cls in vars(sys.modules[whole.__module__]).values():
        if inspect.isclass(cls) and name in getattr(cls, "supported_datasets", list)():
            return cls(**_accepted(cls, {"dataset": name, **settings}))
    raise LookupError(f"no class for {name}")


def _unusable(info: Info, job: Job, error: Exception) -> VlmEvalError:
    assert job.shelf is not None
    said = str(error).splitlines() or [traceback.format_tb(error.__traceback__)[-1]]
    reason = " ".join(f"{type(error).__name__}: {said[0]}".split())
    cls = _find_class(info)
    for path, checksum in job.shelf.checksums.items():
        published = _published(cls, info["settings"].get("dataset", info["name"]))
        if published not in ("", checksum):
            return VlmEvalError(
                f"{info['name']}: {path} is not the published file: its MD5 is "
                f"{checksum}, the published one {published}, and ms-vlmeval cannot "
                f"make it anew ({reason}). "
                f"{replacing(Path(path), job.shelf.snapshots)}, or evaluate it as it "
                "is with --vlm-allow-modified-data; its score is then marked as "
                "modified."
            )
    folders = ", ".join(str(each["folder"]) for each in job.shelf.snapshots)
    return VlmEvalError(
        f"{info['name']}: ms-vlmeval cannot use what is in {folders or 'its files'} "
        f"({reason}). If a download or its unpacking was cut short there, remove that "
        "folder and run the same command again."
    )


def _published(owner: Any, name: str) -> str:
    for attribute in CHECKSUMS:
        value = getattr(owner, attribute, None)
        if isinstance(value, dict):
            value = value.get(name)
        if isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value):
            return value
    return ""


def _table(dataset: Any, job: Job, began_ns: int) -> dict[str, Any]:
    path = Path(dataset.data_file)
    if str(path) in job.tables and job.shelf and job.shelf.table:
        # What it made of the published one, which it would keep beside it.
        path = job.shelf.table
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, _md5).hexdigest()
    return {
        "path": str(path),
        "checksum": checksum,
        "published": _published(dataset, dataset.dataset_name),
        "made": path.stat().st_mtime_ns >= began_ns,
    }


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


CATEGORIES = ("category", "task_type", "video_type", "question_type", "task")


def prepare_videos(
    info: Info,
    shelf: dict[str, Any],
    folder: str,
    video_url: bool,
    on_progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Fill `folder` with `rows.parquet`, `samples.parquet` and `media/`.

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
        count = write_samples(target / SAMPLES, writer.samples())
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

    def samples(self) -> Iterator[dict[str, Any]]:
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
        for position, (index, row) in enumerate(groups):
            sample = self._sample(position, index, row)
            if sample is not None:
                yield sample
            self._job.on_progress(position + 1, len(groups))

    def _check_unique(self, indexes: list[str]) -> None:
        first: dict[str, int] = {}
        for number, index in enumerate(indexes, start=1):
            if first.setdefault(index, number) != number:
                raise VlmEvalError(
                    f"{self._name}: rows {first[index]} and {number} have the same "
                    f"index {index}; each row needs one of its own."
                )

    def _sample(self, position: int, index: str, row: Any) -> dict[str, Any] | None:
        """Return a sample; None for a row that is left out."""
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
            image = self._media.image(Path(part["value"]))
            return ["image", image.name, image.media_type]
        if part["type"] == "video":
            video = self._media.video(Path(part["value"]))
            return ["video", video.name, video.media_type]
        raise VideoError(
            f"its prompt has a part of the type {part['type']}; models are sent text, "
            "images and videos"
        )


def _text(rows: Any, names: tuple[str, ...]) -> str | None:
    """Return the text of the first of these columns that a row has; of rows, of all."""
    name = next((name for name in names if name in rows), None)
    if name is None:
        return None
    cells = rows[name] if isinstance(rows, pd.DataFrame) else [rows[name]]
    texts = [str(cell) for cell in cells if isinstance(cell, list) or pd.notna(cell)]
    return " | ".join(texts) or None
