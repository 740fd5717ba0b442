"""Frames and videos of prompts: once per content, linked instead of copied."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.sandbox.inside.job import current_job
from pytest_vlmeval.sandbox.inside.pictures import Picture, PictureError, PictureStore
from pytest_vlmeval.sandbox.inside.video_mends import find_video
from pytest_vlmeval.sandbox.own_files import OUTSIDE, lies_within

if TYPE_CHECKING:
    from collections.abc import Sequence

VIDEO_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
    ".gif": "image/gif",
}


class VideoError(Exception):
    """A video or frame that cannot be sent to a model; the text says why."""


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
        self._pictures = PictureStore(folder, frames, linked=False, within=within)
        self._known: dict[Path, Picture] = {}

    def picture(self, path: Path) -> Picture:
        """Give a frame, or a picture of the dataset's own; raises VideoError."""
        if path not in self._known:
            if path.is_relative_to(self._frames):
                # Just written, always as JPEG: nothing to check.
                name = self._link(path, ".jpg")
                self._known[path] = Picture(name, "image/jpeg")
            else:
                try:
                    self._known[path] = self._pictures.at(str(path))
                except PictureError as error:
                    raise VideoError(
                        f"the picture {path} cannot be read: {error}"
                    ) from error
        return self._known[path]

    def video(self, path: Path) -> Picture:
        """Give the file of a video; raises VideoError."""
        path = find_video(path)
        if path not in self._known:
            suffix = path.suffix.lower()
            media_type = VIDEO_TYPES.get(suffix)
            if media_type is None or not path.is_file():
                raise VideoError(
                    f"the video {path} cannot be sent: it "
                    + ("is not there" if media_type else "is not a video file")
                )
            self._check(path)
            self._known[path] = Picture(self._link(path, suffix), media_type)
        return self._known[path]

    def _check(self, path: Path) -> None:
        if self._within is not None and not lies_within(path.resolve(), self._within):
            raise VideoError(f"the video {path} cannot be sent: {OUTSIDE}")

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


def mend_decord(module: Any) -> None:
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
