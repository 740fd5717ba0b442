"""From a video dataset's rows to samples with frames, as ms-vlmeval cuts them."""

from __future__ import annotations

import hashlib
import inspect
import os
import random
import re
import shutil
import sys
import traceback
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.families import FAMILIES
from pytest_vlmeval.sandbox.inside.families.common import need_package
from pytest_vlmeval.sandbox.inside.hubs import own_folders
from pytest_vlmeval.sandbox.inside.job import Job, current_job, running
from pytest_vlmeval.sandbox.inside.media import (
    ImageError,
    ImageStore,
    MediaFile,
    VideoError,
)
from pytest_vlmeval.sandbox.inside.preparation import (
    find_class,
    make_sample,
    number_rows,
    text_of,
    why_not_built,
)
from pytest_vlmeval.sandbox.inside.tables import table_of
from pytest_vlmeval.sandbox.own_files import (
    OUTSIDE,
    lies_within,
    not_published,
    replacing,
)
from pytest_vlmeval.sandbox.rows import FILE, SAMPLES, write_rows, write_samples
from pytest_vlmeval.sandbox.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Info = dict[str, Any]

# Where video classes keep the checksum of their table, if they have one.
CHECKSUMS = ("MP4_MD5", "MD5", "DATASET_MD5")


def scored_dataset(info: Info, job: Job) -> Any:
    """Return ms-vlmeval's dataset object for scoring alone, which needs no video."""
    cls = _find_class(info)
    dataset = cls.__new__(cls)
    dataset.dataset_name = info["settings"].get("dataset", info["name"])
    dataset.pack = bool(info["settings"].get("pack"))
    dataset.data = job.rows.copy()
    # dataset/vsibench.py:637 names what it scores by it.
    dataset.duration = ""
    return dataset


def _find_class(info: Info) -> Any:
    try:
        return find_class(info)
    except ImportError as error:
        raise VlmEvalError(why_not_built(info, error)) from error


def build_video(info: Info, job: Job) -> Any:
    """Return ms-vlmeval's dataset object; raises VlmEvalError, or Needed."""
    assert job.shelf is not None
    # Some classes keep tables and unpacked videos with the user's other data.
    os.environ["LMUData"] = job.shelf.data_root  # noqa: SIM112
    modelscope = job.shelf.hub == "modelscope"
    os.environ["VLMEVALKIT_USE_MODELSCOPE"] = str(int(modelscope))
    fix_decord(need_package("decord", "decord", info["name"]))
    # The frames are this process's own, and a hub's cache may be read-only.
    locks: Any = import_module("portalocker")
    locks.Lock = lambda *_given, **_settings: nullcontext()
    cls = _find_class(info)
    if hasattr(cls, "LMUData_root"):  # set when its module was imported
        cls.LMUData_root = job.shelf.data_root
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
        raise VlmEvalError(why_not_built(info, error)) from error
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
            known = (
                f"its MD5 is {checksum}, the published one {published}, and ms-vlmeval "
                f"cannot make it anew ({reason})"
            )
            remedy = replacing(Path(path), job.shelf.snapshots)
            return not_published(info["name"], path, known, remedy)
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


def describe_table(dataset: Any, job: Job, began_ns: int) -> dict[str, Any]:
    """Return what `locate` says of a dataset's table; times are in nanoseconds."""
    path = Path(dataset.data_file)
    if str(path) in job.tables and job.shelf and job.shelf.table:
        # What it made of the published one, which it would keep beside it.
        path = Path(job.shelf.table)
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
    known = Shelf(**shelf)
    within = own_folders(info, None, known, target)
    job = Job(
        rows=pd.DataFrame(),
        folder=scratch,
        on_progress=on_progress,
        shelf=known,
        within=within,
    )
    with running(job):
        dataset = build_video(info, job)
        made = table_of(dataset.data)
        write_rows(target / FILE, made.texts, made.frame)
        media = VideoMedia(target / "media", scratch, within)
        samples = _samples(info, dataset, media, job, video_url)
        count = write_samples(target / SAMPLES, samples)
    shutil.rmtree(scratch)
    return {"samples": count}


def _samples(
    info: Info, dataset: Any, media: VideoMedia, job: Job, video_url: bool
) -> Iterator[dict[str, Any]]:
    """Ask ms-vlmeval for the prompt of each row, or of each video."""
    pack = bool(getattr(dataset, "pack", False))
    if pack and video_url:
        raise VlmEvalError(
            f"{info['name']} asks all questions about a video at once, which "
            "ms-vlmeval does with frames only. Leave out --vlm-video-url, or "
            "choose a dataset whose name does not end in _pack."
        )
    family = FAMILIES.get(info["class_name"])
    reference = family.reference if family else "answer"
    rows = dataset.data
    groups = (
        [(video, rows[rows["video"] == video]) for video in dataset.videos]
        if pack
        else [(str(row["index"]), row) for _, row in rows.iterrows()]
    )
    number_rows(info["name"], [index for index, _ in groups])

    def ask(line: int | str) -> list[Any] | None:
        message = dataset.build_prompt(line, video_url)
        if message is None:  # dataset/EgoExoBench/egoexobench.py:245
            return None
        return [[_part(part, media) for part in message if part["value"] != ""]]

    for position, (index, row) in enumerate(groups):
        sample = make_sample(
            index,
            position + 1,
            partial(ask, index if pack else position),
            reference=text_of(row, reference) or None,
            category=None if pack else text_of(row, *CATEGORIES) or None,
            group=None,
        )
        if sample["prompt"] is not None:
            yield sample
        job.on_progress(position + 1, len(groups))


def _part(part: dict[str, Any], media: VideoMedia) -> list[str]:
    if part["type"] == "text":
        return ["text", str(part["value"])]
    if part["type"] == "image":
        image = media.image(Path(part["value"]))
        return ["image", image.name, image.media_type]
    if part["type"] == "video":
        video = media.video(Path(part["value"]))
        return ["video", video.name, video.media_type]
    raise VideoError(
        f"its prompt has a part of the type {part['type']}; models are sent text, "
        "images and videos"
    )


VIDEO_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
    ".gif": "image/gif",
}


class VideoMedia:
    """Puts what prompts name into one folder, under the names of their contents."""

    def __init__(
        self, folder: Path, frames: Path, within: Sequence[Path] | None = None
    ) -> None:
        """Take the media folder and the one of the frames, on one disk.

        Other files are read from `within` these folders, None for any.
        """
        self._folder = folder
        self._frames = frames
        self._within = within
        self._images = ImageStore(folder, frames, linked=False, within=within)
        self._known: dict[Path, MediaFile] = {}

    def image(self, path: Path) -> MediaFile:
        """Return a frame, or an image of the dataset's own; raises VideoError."""
        if path not in self._known:
            if path.is_relative_to(self._frames):
                # Just written, always as JPEG: nothing to check.
                name = self._link(path, ".jpg")
                self._known[path] = MediaFile(name, "image/jpeg")
            else:
                try:
                    self._known[path] = self._images.at(str(path))
                except ImageError as error:
                    raise VideoError(
                        f"the image {path} cannot be read: {error}"
                    ) from error
        return self._known[path]

    def video(self, path: Path) -> MediaFile:
        """Return the file of a video; raises VideoError."""
        path = find_video(path)
        if path not in self._known:
            suffix = path.suffix.lower()
            media_type = VIDEO_TYPES.get(suffix)
            if media_type is None or not path.is_file():
                raise VideoError(
                    f"the video {path} cannot be sent: it "
                    + ("is not there" if media_type else "is not a video file")
                )
            if self._within is not None and not lies_within(
                path.resolve(), self._within
            ):
                raise VideoError(f"the video {path} cannot be sent: {OUTSIDE}")
            self._known[path] = MediaFile(self._link(path, suffix), media_type)
        return self._known[path]

    def _link(self, path: Path, suffix: str) -> str:
        # A hub's cache has links itself.
        source = path.resolve()
        with source.open("rb") as file:
            name = hashlib.file_digest(file, "sha256").hexdigest() + suffix
        target = self._folder / name
        if not target.exists():
            try:
                os.link(source, target)
            except OSError:  # another disk, or one without hard links
                if source.is_relative_to(self._frames):
                    shutil.copyfile(source, target)
                else:
                    target.symlink_to(source)
        return name


def fix_decord(module: Any) -> None:
    """Make decord say which file it cannot read, instead of where in its own code."""
    upstream: Any = module.VideoReader
    if hasattr(upstream, "named"):
        return

    class VideoReader(upstream):  # type: ignore[misc]
        named = ""

        def __init__(self, uri: str, *given: Any, **settings: Any) -> None:
            self.named = str(find_video(Path(uri)))
            if not Path(self.named).exists():
                raise VideoError(f"the video {uri} is not there")
            within = current_job().within
            if within and not lies_within(Path(self.named).resolve(), within):
                raise VideoError(f"the video {uri} cannot be read: {OUTSIDE}")
            try:
                super().__init__(self.named, *given, **settings)
            except Exception as error:
                raise _unreadable(uri, error) from error

        def __getitem__(self, index: Any) -> Any:
            try:
                return super().__getitem__(index)
            except Exception as error:
                raise _unreadable(self.named, error) from error

    module.VideoReader = VideoReader


def _unreadable(uri: str, error: Exception) -> VideoError:
    reason = " ".join(str(error).split())[:200]
    return VideoError(f"the video {uri} cannot be decoded: {reason}")


def find_video(path: Path) -> Path:
    """Return the file that a class means, which may have another name.

    Some add `.mp4` for frames to what has it already, as they take the same column for
    the file itself (dataset/v2pbench.py:125 and :135, dataset/omtgbench.py:233 and
    :236, dataset/moviechat1k.py:137 and :143); and dataset/vdc.py looks in `video` for
    one (:231), in `videos` for the other (:228).
    """
    names = [path.name]
    if path.name.endswith(".mp4.mp4"):
        names.append(path.stem)
    folders = [path.parent]
    if path.parent.name in ("video", "videos"):
        folders += [path.parent.with_name("video"), path.parent.with_name("videos")]
    candidates = [folder / name for folder in folders for name in names]
    return next((each for each in candidates if each.exists()), path)
