"""Video datasets: how their videos are shown, and how they cannot be."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_vlmeval.records import DatasetInfo

DEFAULT_FRAMES = 8


def is_preset(info: DatasetInfo) -> bool:
    """Whether a dataset's name fixes how its videos are shown."""
    return "dataset" in info.settings


def show_videos(
    info: DatasetInfo, nframe: int | None, fps: float | None
) -> DatasetInfo:
    """Give a video dataset with the settings of its frames; a preset keeps its own."""
    if info.modality != "video" or is_preset(info):
        return info
    frames = {"nframe": nframe or DEFAULT_FRAMES} if fps is None else {"fps": fps}
    return dataclasses.replace(info, settings={**info.settings, **frames})


def check_frames_apply(
    infos: Iterable[DatasetInfo], nframe: int | None, fps: float | None
) -> None:
    """Raise VlmEvalError where options of frames are given and only presets chosen."""
    videos = [info for info in infos if info.modality == "video"]
    option = f"--vlm-nframe={nframe}" if nframe else f"--vlm-fps={fps or 0:g}"
    if (nframe or fps) and videos and all(map(is_preset, videos)):
        names = ", ".join(info.name for info in videos)
        raise VlmEvalError(
            f"{option} changes nothing: the name of a preset says how its videos are "
            f"shown ({names}). Leave the option out, or choose "
            f"{videos[0].settings['dataset']}."
        )


def describe_videos(info: DatasetInfo, video_url: bool) -> tuple[str, ...]:
    """Say for a score how videos were shown; nothing for other datasets."""
    if info.modality != "video":
        return ()
    if video_url:
        return ("videos sent as their files",)
    fps = info.settings.get("fps", -1)
    if isinstance(fps, int | float) and fps > 0:
        noun = "frame" if fps == 1 else "frames"
        return (f"{fps:g} {noun} per second of video",)
    count = info.settings.get("nframe", 0)
    return (f"{count} {'frame' if count == 1 else 'frames'} per video",)
