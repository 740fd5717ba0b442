"""How videos are shown: options, presets, and what scores say of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_vlmeval.datasets.prepare import (
    check_frames_apply,
    describe_videos,
    show_videos,
)
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo

BARE = DatasetInfo(
    name="Video-MME",
    class_name="VideoMME",
    module="videomme",
    kind="multiple_choice",
    modality="video",
)
PRESET = replace(
    BARE,
    name="Video-MME_64frame",
    settings={"dataset": "Video-MME", "nframe": 64},
)
IMAGE = replace(BARE, name="MMStar", modality="image")


@pytest.mark.parametrize(
    ("nframe", "fps", "settings", "note"),
    [
        (None, None, {"nframe": 8}, "8 frames per video"),
        (1, None, {"nframe": 1}, "1 frame per video"),
        (None, 0.5, {"fps": 0.5}, "0.5 frames per second of video"),
        (None, 1.0, {"fps": 1.0}, "1 frame per second of video"),
    ],
)
def test_a_bare_name_is_shown_as_the_options_say(
    nframe: int | None, fps: float | None, settings: dict[str, float], note: str
) -> None:
    info = show_videos(BARE, nframe, fps)
    assert info.settings == settings
    assert describe_videos(info, video_url=False) == (note,)
    assert describe_videos(info, video_url=True) == ("videos sent as their files",)


def test_a_preset_keeps_its_own_and_images_have_none() -> None:
    assert show_videos(PRESET, 4, None) == PRESET
    assert describe_videos(PRESET, video_url=False) == ("64 frames per video",)
    assert show_videos(IMAGE, 4, None) == IMAGE
    assert describe_videos(IMAGE, video_url=True) == ()


def test_options_for_presets_alone_are_an_error() -> None:
    with pytest.raises(VlmEvalError) as caught:
        check_frames_apply([PRESET, IMAGE], 4, None)
    assert str(caught.value) == (
        "--vlm-nframe=4 changes nothing: the name of a preset says how its videos are "
        "shown (Video-MME_64frame). Leave the option out, or choose Video-MME."
    )
    with pytest.raises(VlmEvalError, match=r"^--vlm-fps=2 changes nothing"):
        check_frames_apply([PRESET], None, 2)
    check_frames_apply([PRESET, BARE], 4, None)
    check_frames_apply([IMAGE], 4, None)
    check_frames_apply([PRESET], None, None)
