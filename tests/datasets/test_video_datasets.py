"""Video datasets, from a hub's repository to prompts, through the real ms-vlmeval."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.sandbox.process import Sandbox
from tests.support.sandbox_tables import media_of
from tests.support.video_sets import (
    FPS,
    FRAMES,
    MMBENCH_VIDEO,
    VIDEO_MME,
    VideoUser,
    mmbench_video,
    prompts,
    video_mme,
    videos,
)

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

pytestmark = pytest.mark.addons

UPSTREAM = Path(__file__).parents[1] / "support" / "upstream_videos.py"


def kinds(prompt: list[tuple[str, Any]]) -> list[str]:
    """Give the kinds of a prompt's parts."""
    return [kind for kind, _ in prompt]


def test_video_mme_from_the_hub_once(user: VideoUser) -> None:
    user.hub.repositories[VIDEO_MME] = video_mme(videos("one", "two"))
    prepared = user.prepare("Video-MME")
    assert (prepared.sample_count, prepared.modified) == (4, False)
    assert prepared.notes == ("8 frames per video",)
    first, _, third, _ = prompts(prepared)
    assert kinds(first) == ["image"] * 8 + ["text"] * 2
    assert first[-1][1] == "Question: Question 0?\nA. red.\nB. blue.\nAnswer: "
    # The frames of a video are stored once, whoever asks about it.
    assert len(media_of(prepared)) == 16
    assert first[0][1] != third[0][1]
    samples = read_samples(prepared)
    assert [s.reference for s in samples] == ["A", "B", "A", "B"]
    assert {s.category for s in samples} == {"OCR Problems"}
    assert sorted(user.hub.downloads()) == sorted(user.hub.repositories[VIDEO_MME])
    assert user.lines == [
        f"looking for the videos of Video-MME in {user.snapshot(VIDEO_MME)}; what is "
        "packed there is unpacked, once"
    ]
    # Neither the hub nor the sandbox is asked again.
    user.hub.requests.clear()
    nobody = Sandbox(Path("/nonexistent/python"))
    assert user.prepare("Video-MME", sandbox=nobody) == prepared
    assert not user.hub.requests
    # Nor for another way to show the same videos, but for cutting its frames.
    more = user.prepare("Video-MME", fps=1)
    assert not user.hub.requests
    assert more.fingerprint != prepared.fingerprint
    assert more.notes == ("1 frame per second of video",)
    assert kinds(prompts(more)[0]).count("image") == FRAMES // FPS


def test_modelscope_is_asked_where_it_is_preferred(user: VideoUser) -> None:
    user.hub.repositories[VIDEO_MME] = video_mme(videos("one"))
    prepared = user.prepare("Video-MME_8frame", first="modelscope")
    assert len(media_of(prepared)) == 8
    assert all(path.startswith("/api/v1/") for _, path in user.hub.requests)
    assert any((user.folder / "ms" / "datasets").iterdir())
    assert not (user.folder / "hf").exists()


def prompts_of_upstream(task: Mapping[str, object], python: Path, folder: Path) -> Any:
    """Give the prompts that ms-vlmeval makes of what is in the hub's cache."""
    (folder / "task.json").write_text(json.dumps(task))
    subprocess.run(
        [python, UPSTREAM, "task.json", "found.json"],
        cwd=folder,
        check=True,
        capture_output=True,
        env={
            **os.environ,
            "VLMEVALKIT_USE_MODELSCOPE": "0",
            "HF_HUB_OFFLINE": "1",
            "LMUData": str(folder),
        },
    )
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize(
    ("name", "settings", "video_url"),
    [
        ("Video-MME_8frame", {"dataset": "Video-MME", "nframe": 8}, False),
        ("Video-MME_0.5fps", {"dataset": "Video-MME", "fps": 0.5}, False),
        (
            "Video-MME_8frame_subs",
            {"dataset": "Video-MME", "nframe": 8, "use_subtitle": True},
            False,
        ),
        ("Video-MME_8frame", {"dataset": "Video-MME", "nframe": 8}, True),
        ("MMBench_Video_8frame_nopack", {"nframe": 8}, False),
        ("MMBench_Video_1fps_nopack", {"fps": 1.0}, False),
    ],
)
def test_prompts_equal_those_of_upstream(
    user: VideoUser,
    video_environment: SandboxEnvironment,
    tmp_path: Path,
    name: str,
    settings: dict[str, Any],
    video_url: bool,
) -> None:
    films = videos("red", "blue")
    user.hub.repositories[VIDEO_MME] = video_mme(films)
    user.hub.repositories[MMBENCH_VIDEO] = mmbench_video(films)
    prepared = user.prepare(name, video_url=video_url, modified="MMBench" in name)
    task = {
        "module": prepared.info.module,
        "class_name": prepared.info.class_name,
        "settings": settings,
        "video_llm": video_url,
    }
    expected = prompts_of_upstream(task, video_environment.python, tmp_path)
    ours = [
        [
            [kind, value if kind == "text" else hashlib.sha256(value).hexdigest()]
            for kind, value in prompt
        ]
        for prompt in prompts(prepared)
    ]
    # An empty text says nothing, and some servers refuse it.
    assert ours == [[part for part in row if part[1]] for row in expected]
    assert any(kind != "text" for kind, _ in ours[0])


def test_subtitles_stand_in_the_prompt(user: VideoUser) -> None:
    user.hub.repositories[VIDEO_MME] = video_mme(videos("one"))
    first, _ = prompts(user.prepare("Video-MME_8frame_subs"))
    assert "Hello there\nHello there" in first[8][1]


def test_the_file_itself_is_linked(user: VideoUser) -> None:
    films = videos("one")
    user.hub.repositories[VIDEO_MME] = video_mme(films)
    prepared = user.prepare("Video-MME", video_url=True)
    assert prepared.notes == ("videos sent as their files",)
    first, second = prompts(prepared)
    assert first[0] == second[0] == ("video", films["one"])
    (name,) = media_of(prepared)
    assert name == hashlib.sha256(films["one"]).hexdigest() + ".mp4"
    assert (prepared.folder / "media" / name).stat().st_nlink == 2
    (sample, _) = read_samples(prepared)
    assert sample.prompt[0][0].media_type == "video/mp4"
    assert user.prepare("Video-MME").fingerprint != prepared.fingerprint


def test_all_questions_about_a_video_in_one_prompt(user: VideoUser) -> None:
    user.hub.repositories[MMBENCH_VIDEO] = mmbench_video(videos("red", "blue"))
    prepared = user.prepare("MMBench_Video_8frame_pack", modified=True)
    samples = read_samples(prepared)
    assert [(s.index, s.reference) for s in samples] == [
        ("blue", "So"),
        ("red", "A box | Left"),
    ]
    _, red = prompts(prepared)
    assert kinds(red) == ["text", *["image"] * 8, "text"]
    assert red[-1][1] == ('Questions: \n{"0": "What?", "1": "Where?"}\nAnswers: \n')
    assert user.fail("MMBench_Video_8frame_pack", modified=True, video_url=True) == (
        "MMBench_Video_8frame_pack asks all questions about a video at once, which "
        "ms-vlmeval does with frames only. Leave out --vlm-video-url, or choose a "
        "dataset whose name does not end in _pack."
    )
    other = user.prepare("MMBench_Video_8frame_nopack", modified=True, video_url=True)
    assert other.notes == ("videos sent as their files",)
